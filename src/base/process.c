/* SPDX-License-Identifier: Apache-2.0 */
/* Reading /proc. */
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { PROCESS_TEXT_MAX = 4096 };

static errint process_read(pid_t pid, const char *file, char text[PROCESS_TEXT_MAX])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, PROCESS_TEXT_MAX - 1);
    if (length < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    text[length] = '\0';
    return 0;
}

/* "PID (NAME) STATE PARENT ..."; the name may have any characters, the 22nd field is the start. */
static errint process_read_stat(pid_t pid, struct process *out, char *state)
{
    char text[PROCESS_TEXT_MAX];
    errint error = process_read(pid, "stat", text);
    const char *begin = error ? NULL : strchr(text, '(');
    const char *end = begin ? strrchr(begin, ')') : NULL;
    if (!end)
        return error ? error : -ESRCH;
    size_t length = (size_t)(end - begin - 1);
    if (length >= sizeof out->name)
        length = sizeof out->name - 1;
    *out = (struct process){.pid = pid};
    memcpy(out->name, begin + 1, length);
    int fields = sscanf(
        end + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64,
        state, &out->started);
    return fields == 2 ? 0 : -ESRCH;
}

errint process_of_thread(pid_t thread, struct process *out)
{
    char text[PROCESS_TEXT_MAX], state;
    *out = (struct process){0};
    errint error = process_read(thread, "status", text);
    const char *line = error ? NULL : strstr(text, "\nTgid:");
    if (!line)
        return error ? error : -ESRCH;
    return process_read_stat((pid_t)strtol(line + strlen("\nTgid:"), NULL, 10), out, &state);
}

bool process_is_alive(const struct process *process)
{
    struct process now;
    char state;
    errint error = process_read_stat(process->pid, &now, &state);
    /* What cannot be asked may live. */
    if (error)
        return error != -ESRCH;
    return now.started == process->started && state != 'Z' && state != 'X';
}

errint process_world(char out[PROCESS_WORLD_MAX])
{
    cleanup_fd int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, out, PROCESS_BOOT_LENGTH);
    if (length != PROCESS_BOOT_LENGTH)
        return length < 0 ? -errno : -EIO;
    out[PROCESS_BOOT_LENGTH] = ' ';
    char *end = out + PROCESS_BOOT_LENGTH + 1;
    length = readlink("/proc/self/ns/pid", end, (size_t)(out + PROCESS_WORLD_MAX - 1 - end));
    if (length < 0)
        return -errno;
    end[length] = '\0';
    return 0;
}

int process_watch(const struct process *process)
{
    if (process->pid <= 0)
        return -ESRCH;
    int fd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    if (fd < 0)
        return -errno;
    /* The number may have been given again before it was opened. */
    if (process_is_alive(process))
        return fd;
    close(fd);
    return -ESRCH;
}

/* As the kernel has it since 6.15 (linux/pidfd.h): headers are older. */
struct process_info {
    uint64_t mask, cgroup;
    uint32_t numbers[11]; /* of the process and its users */
    int32_t exit_code;    /* as wait(2) has it */
};
_Static_assert(sizeof(struct process_info) == 64, "not what the kernel has");
#define PROCESS_INFO_EXIT UINT64_C(8)
#define PROCESS_GET_INFO  _IOWR(0xFF, 11, struct process_info)

bool process_ended_well(int watch)
{
    struct process_info info = {.mask = PROCESS_INFO_EXIT};
    return ioctl(watch, PROCESS_GET_INFO, &info) == 0 && (info.mask & PROCESS_INFO_EXIT) &&
           info.exit_code == 0;
}

int64_t process_start_time(const struct process *process)
{
    struct timespec boot, real;
    clock_gettime(CLOCK_BOOTTIME, &boot);
    clock_gettime(CLOCK_REALTIME, &real);
    int64_t tick = CLOCK_NS_PER_SECOND / sysconf(_SC_CLK_TCK);
    return clock_from_timespec(&real) - clock_from_timespec(&boot) + ((int64_t)process->started + 1) * tick;
}
