/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of flock, POSIX record locks and open file description locks. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* What a child process finds when it tries: two gates order it with its parent. */
struct meeting {
    struct probe_gate child_ready;
    struct probe_gate parent_ready;
};

static struct flock make_lock(short type, off_t start, off_t length)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
}

static struct meeting make_meeting(void)
{
    return (struct meeting){.child_ready = probe_gate_make(), .parent_ready = probe_gate_make()};
}

static void flock_child(void *argument)
{
    struct meeting *meeting = argument;
    int fd = (int)CHECK_OK(open("file", O_RDONLY));
    CHECK_ERRNO(flock(fd, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    CHECK_ERRNO(flock(fd, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    probe_gate_open(&meeting->child_ready);
    probe_gate_wait(&meeting->parent_ready);
    CHECK_OK(flock(fd, LOCK_SH | LOCK_NB));
    CHECK_ERRNO(flock(fd, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    probe_gate_open(&meeting->child_ready);
    /* Blocks until the parent gives its shared lock back. */
    CHECK_OK(flock(fd, LOCK_EX));
}

static void lock_flock(void)
{
    probe_file_write("file", "x", 1);
    struct meeting meeting = make_meeting();
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    CHECK_OK(flock(fd, LOCK_EX));
    pid_t child = probe_child_start(flock_child, &meeting);
    probe_gate_wait(&meeting.child_ready);
    CHECK_OK(flock(fd, LOCK_SH));
    probe_gate_open(&meeting.parent_ready);
    probe_gate_wait(&meeting.child_ready);
    CHECK_OK(flock(fd, LOCK_UN));
    probe_child_join(child);
    CHECK_OK(flock(fd, LOCK_EX | LOCK_NB));
    CHECK_OK(close(fd));
}

/* The lock belongs to the open file: two opens of one process exclude each other, a dup does not, close
 * releases. */
static void lock_flock_owner(void)
{
    probe_file_write("file", "x", 1);
    int first = (int)CHECK_OK(open("file", O_RDONLY));
    int second = (int)CHECK_OK(open("file", O_RDWR));
    int copy = (int)CHECK_OK(dup(first));
    CHECK_OK(flock(first, LOCK_EX));
    CHECK_OK(flock(copy, LOCK_EX | LOCK_NB));
    CHECK_ERRNO(flock(second, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    CHECK_OK(close(first));
    CHECK_ERRNO(flock(second, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    CHECK_OK(close(copy));
    CHECK_OK(flock(second, LOCK_SH | LOCK_NB));
    CHECK_OK(close(second));
}

static void posix_child(void *argument)
{
    struct meeting *meeting = argument;
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    struct flock lock = make_lock(F_WRLCK, 0, 0);
    CHECK_OK(fcntl(fd, F_GETLK, &lock));
    CHECK_EQUAL(lock.l_type, F_WRLCK);
    CHECK_EQUAL(lock.l_start, 100);
    CHECK_EQUAL(lock.l_len, 50);
    CHECK_EQUAL(lock.l_pid, getppid());
    lock = make_lock(F_RDLCK, 149, 1);
    int result = fcntl(fd, F_SETLK, &lock);
    CHECK(result < 0 && (errno == EAGAIN || errno == EACCES));
    lock = make_lock(F_WRLCK, 0, 100);
    CHECK_OK(fcntl(fd, F_SETLK, &lock));
    lock = make_lock(F_WRLCK, 150, 0);
    CHECK_OK(fcntl(fd, F_SETLK, &lock));
    probe_gate_open(&meeting->child_ready);
    /* Blocks until the parent unlocks the middle. */
    lock = make_lock(F_WRLCK, 120, 10);
    CHECK_OK(fcntl(fd, F_SETLKW, &lock));
    probe_gate_open(&meeting->child_ready);
    probe_gate_wait(&meeting->parent_ready);
}

static void lock_posix(void)
{
    probe_file_write("file", "x", 1);
    struct meeting meeting = make_meeting();
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    struct flock lock = make_lock(F_WRLCK, 100, 50);
    CHECK_OK(fcntl(fd, F_SETLK, &lock));
    pid_t child = probe_child_start(posix_child, &meeting);
    probe_gate_wait(&meeting.child_ready);
    lock = make_lock(F_WRLCK, 0, 10);
    CHECK_ERRNO(fcntl(fd, F_SETLK, &lock), EAGAIN);
    lock = make_lock(F_UNLCK, 110, 30);
    CHECK_OK(fcntl(fd, F_SETLK, &lock));
    probe_gate_wait(&meeting.child_ready);
    lock = make_lock(F_WRLCK, 125, 1);
    CHECK_OK(fcntl(fd, F_GETLK, &lock));
    CHECK_EQUAL(lock.l_type, F_WRLCK);
    CHECK_EQUAL(lock.l_pid, child);
    probe_gate_open(&meeting.parent_ready);
    probe_child_join(child);
    /* The child is gone, and its locks with it. */
    lock = make_lock(F_WRLCK, 0, 0);
    CHECK_OK(fcntl(fd, F_SETLK, &lock));
    CHECK_OK(close(fd));
}

/* Closing any descriptor of the file drops the locks of the process: POSIX says so, and SQLite depends on it.
 */
static void lock_posix_close(void)
{
    probe_file_write("file", "x", 1);
    int locked = (int)CHECK_OK(open("file", O_RDWR));
    struct flock lock = make_lock(F_WRLCK, 0, 0);
    CHECK_OK(fcntl(locked, F_SETLK, &lock));
    CHECK_OK(close((int)CHECK_OK(open("file", O_RDONLY))));
    int description = (int)CHECK_OK(open("file", O_RDWR));
    lock = make_lock(F_WRLCK, 0, 0);
    CHECK_OK(fcntl(description, F_OFD_SETLK, &lock));
    CHECK_OK(close(description));
    CHECK_OK(close(locked));
}

static void lock_posix_modes(void)
{
    probe_file_write("file", "x", 1);
    int reader = (int)CHECK_OK(open("file", O_RDONLY));
    int writer = (int)CHECK_OK(open("file", O_WRONLY));
    struct flock lock = make_lock(F_WRLCK, 0, 0);
    CHECK_ERRNO(fcntl(reader, F_SETLK, &lock), EBADF);
    lock = make_lock(F_RDLCK, 0, 0);
    CHECK_OK(fcntl(reader, F_SETLK, &lock));
    CHECK_ERRNO(fcntl(writer, F_SETLK, &lock), EBADF);
    lock = make_lock(99, 0, 0);
    CHECK_ERRNO(fcntl(reader, F_SETLK, &lock), EINVAL);
    CHECK_OK(close(reader));
    CHECK_OK(close(writer));
}

static void deadlock_child(void *argument)
{
    struct meeting *meeting = argument;
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    struct flock lock = make_lock(F_WRLCK, 1, 1);
    CHECK_OK(fcntl(fd, F_SETLK, &lock));
    probe_gate_open(&meeting->child_ready);
    lock = make_lock(F_WRLCK, 0, 1);
    int result = fcntl(fd, F_SETLKW, &lock);
    CHECK(result == 0 || errno == EDEADLK);
}

/* Two processes that wait for each other: one of them is told. */
static void lock_posix_deadlock(void)
{
    probe_file_write("file", "xx", 2);
    struct meeting meeting = make_meeting();
    int fd = (int)CHECK_OK(open("file", O_RDWR));
    struct flock lock = make_lock(F_WRLCK, 0, 1);
    CHECK_OK(fcntl(fd, F_SETLK, &lock));
    pid_t child = probe_child_start(deadlock_child, &meeting);
    probe_gate_wait(&meeting.child_ready);
    lock = make_lock(F_WRLCK, 1, 1);
    int result = fcntl(fd, F_SETLKW, &lock);
    CHECK(result == 0 || errno == EDEADLK);
    CHECK_OK(close(fd));
    probe_child_join(child);
}

static void lock_description(void)
{
    probe_file_write("file", "x", 1);
    int first = (int)CHECK_OK(open("file", O_RDWR));
    int second = (int)CHECK_OK(open("file", O_RDWR));
    struct flock lock = make_lock(F_WRLCK, 0, 100);
    CHECK_OK(fcntl(first, F_OFD_SETLK, &lock));
    lock = make_lock(F_RDLCK, 50, 1);
    CHECK_ERRNO(fcntl(second, F_OFD_SETLK, &lock), EAGAIN);
    CHECK_OK(fcntl(second, F_OFD_GETLK, &lock));
    CHECK_EQUAL(lock.l_type, F_WRLCK);
    CHECK_EQUAL(lock.l_len, 100);
    CHECK_EQUAL(lock.l_pid, -1);
    /* The two families know nothing of each other. */
    CHECK_OK(flock(second, LOCK_EX | LOCK_NB));
    CHECK_OK(close((int)CHECK_OK(open("file", O_RDONLY))));
    lock = make_lock(F_RDLCK, 50, 1);
    CHECK_ERRNO(fcntl(second, F_OFD_SETLK, &lock), EAGAIN);
    CHECK_OK(close(first));
    lock = make_lock(F_WRLCK, 0, 0);
    CHECK_OK(fcntl(second, F_OFD_SETLK, &lock));
    CHECK_OK(close(second));
}

/* Locks and data together: a counter in a file that four processes raise. */
static void counter_child(void *argument)
{
    int rounds = *(int *)argument;
    int fd = (int)CHECK_OK(open("counter", O_RDWR));
    for (int i = 0; i < rounds; i++) {
        struct flock lock = make_lock(F_WRLCK, 0, 0);
        CHECK_OK(fcntl(fd, F_SETLKW, &lock));
        unsigned value;
        CHECK_EQUAL(pread(fd, &value, sizeof(value), 0), sizeof(value));
        value++;
        CHECK_EQUAL(pwrite(fd, &value, sizeof(value), 0), sizeof(value));
        lock = make_lock(F_UNLCK, 0, 0);
        CHECK_OK(fcntl(fd, F_SETLK, &lock));
    }
    CHECK_OK(close(fd));
}

static void lock_counter(void)
{
    int rounds = 500;
    unsigned value = 0;
    pid_t children[4];
    probe_file_write("counter", &value, sizeof(value));
    for (int i = 0; i < 4; i++)
        children[i] = probe_child_start(counter_child, &rounds);
    for (int i = 0; i < 4; i++)
        probe_child_join(children[i]);
    value = 4 * (unsigned)rounds;
    probe_file_expect("counter", &value, sizeof(value));
}

const struct probe probes_lock[] = {
    {"lock-flock", lock_flock},
    {"lock-flock-owner", lock_flock_owner},
    {"lock-posix", lock_posix},
    {"lock-posix-close", lock_posix_close},
    {"lock-posix-modes", lock_posix_modes},
    {"lock-posix-deadlock", lock_posix_deadlock},
    {"lock-description", lock_description},
    {"lock-counter", lock_counter},
    {NULL, NULL},
};
