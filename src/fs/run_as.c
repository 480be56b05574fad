/* SPDX-License-Identifier: Apache-2.0 */
/* Running a process as another user. Between fork and exec only system calls are made. */
#include "fs/run_as.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "fs/run_as_attend.h"
#include "fs/service.h"

enum {
    RUN_AS_LINE = 1000,
    RUN_AS_NS_PER_MS = 1000 * 1000,
    RUN_AS_NOT_STARTED = 126,
    RUN_AS_LAST_MS = 200,
    RUN_AS_NICE = 10,    /* of the program itself */
    RUN_AS_FILES = 1024, /* the soft limit that programs expect */
};

/* What is found out before the fork. */
struct run_as_child {
    const struct run_as *order;
    int input, output; /* its descriptors */
    bool becomes;      /* another user than the daemon's, or the same again without its groups */
};

bool run_as_may(uid_t uid)
{
    return uid != (uid_t)-1 && (geteuid() == 0 || uid == geteuid());
}

/* -- in the child -----------------------------------------------------------------------------------------
 */

static void run_as_reset_signals(void)
{
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &standard, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The daemon may have more descriptors. */
static void run_as_reset_limits(void)
{
    const struct rlimit core = {0, 0};
    struct rlimit files;
    setrlimit(RLIMIT_CORE, &core);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur > RUN_AS_FILES) {
        files.rlim_cur = RUN_AS_FILES;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* The library's own calls would change all threads of the daemon, of which this process has one. */
static bool run_as_become(const struct run_as_child *child)
{
    const struct run_as_user *user = child->order->user;
    bool became = !child->becomes || (syscall(SYS_setgroups, user->group_count, user->groups) == 0 &&
                                      syscall(SYS_setresgid, user->gid, user->gid, user->gid) == 0 &&
                                      syscall(SYS_setresuid, user->uid, user->uid, user->uid) == 0);
    return became && geteuid() == user->uid && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* Root, too, gets none back by running a program: the bounding set is empty. */
static bool run_as_drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};
    return syscall(SYS_capset, &header, none) == 0;
}

static void run_as_drop_bounding_set(void)
{
    for (unsigned long capability = 0; capability <= 63; capability++)
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

/* A copy of the mounts that nobody else waits for. Without the privilege it goes without. */
static void run_as_leave_mounts(void)
{
    if (geteuid() == 0 && unshare(CLONE_NEWNS) == 0)
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

/* False: the rights are not the user's. */
static bool run_as_change(const struct run_as_child *child)
{
    bool itself = !child->order->command;
    service_unprotect_memory();
    umask(022);
    if (itself) {
        setpriority(PRIO_PROCESS, 0, RUN_AS_NICE);
        run_as_leave_mounts();
    } else {
        run_as_reset_limits();
        run_as_drop_bounding_set();
    }
    return run_as_become(child) && (itself || run_as_drop_capabilities());
}

/* The daemon's descriptors go before anybody waits: others would wait for their end. */
static bool run_as_take_files(const struct run_as_child *child)
{
    return dup2(child->input, STDIN_FILENO) >= 0 && dup2(child->output, STDOUT_FILENO) >= 0 &&
           dup2(child->output, STDERR_FILENO) >= 0 &&
           syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0) == 0;
}

static _Noreturn void run_as_exec(const struct run_as_child *child, const struct run_as_attendant *attendant)
{
    const struct run_as *order = child->order;
    const char *const shell[] = {"sh", "-c", order->command, NULL};
    pid_t parent;
    if (chdir("/") < 0 || !run_as_take_files(child))
        _exit(RUN_AS_NOT_STARTED);
    run_as_attend(attendant, &parent);
    setpgid(0, 0);
    run_as_reset_signals();
    bool fine = run_as_change(child);
    /* Changing the user undoes it: so it comes behind that. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fine && getppid() == parent)
        execve(order->command ? "/bin/sh" : "/proc/self/exe",
               (char *const *)(order->command ? shell : order->arguments), (char *const *)order->environment);
    _exit(RUN_AS_NOT_STARTED);
}

/* -- its output -------------------------------------------------------------------------------------------
 */

struct run_as_output {
    const struct run_as *order;
    int fd;
    char line[RUN_AS_LINE + 1];
    size_t length;
    bool ended;
};

static void run_as_end_line(struct run_as_output *output)
{
    output->line[output->length] = '\0';
    if (output->length > 0)
        output->order->line(output->order->context, output->line);
    output->length = 0;
}

/* What there is, without waiting. */
static void run_as_drain(struct run_as_output *output)
{
    char block[4096];
    ssize_t got;
    while ((got = read(output->fd, block, sizeof block)) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            if (block[i] == '\n' || output->length == RUN_AS_LINE)
                run_as_end_line(output);
            if (block[i] != '\n')
                output->line[output->length++] = block[i];
        }
        if (got < (ssize_t)sizeof block)
            break;
    }
    output->ended = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

/* -- in the parent ----------------------------------------------------------------------------------------
 */

/* Until it has ended: 0, -ETIME or -ECANCELED. */
static errint run_as_watch(const struct run_as *order, int pid_fd, struct run_as_output *output)
{
    int64_t deadline = clock_monotonic() + (int64_t)order->seconds * CLOCK_NS_PER_SECOND;
    for (;;) {
        struct pollfd fds[] = {{.fd = pid_fd, .events = POLLIN},
                               {.fd = order->stop_fd, .events = POLLIN},
                               {.fd = output->ended ? -1 : output->fd, .events = POLLIN},
                               {.fd = order->watch ? order->watch_fd : -1, .events = POLLPRI}};
        int64_t left = deadline - clock_monotonic();
        if (order->seconds > 0 && left <= 0)
            return -ETIME;
        int wait = order->seconds > 0 ? (int)(left / RUN_AS_NS_PER_MS) + 1 : -1;
        if (poll(fds, sizeof fds / sizeof *fds, wait) < 0 && errno != EINTR)
            return -errno;
        if (fds[2].revents)
            run_as_drain(output);
        if (fds[1].revents || (fds[3].revents && order->watch(order->context)))
            return -ECANCELED;
        if (fds[0].revents)
            return 0;
    }
}

/* Whether it has ended; false when waiting for that is to be stopped, and did not help. */
static bool run_as_await_end(const struct run_as *order, int pid_fd)
{
    struct pollfd fds[] = {{.fd = pid_fd, .events = POLLIN}, {.fd = order->stop_fd, .events = POLLIN}};
    while (poll(fds, 2, -1) < 0) {
        if (errno != EINTR)
            return false;
    }
    return fds[0].revents || poll(fds, 1, RUN_AS_LAST_MS) > 0;
}

/*
 * Ends all of it, then takes its status. Whoever is stopped waits for a moment only: what is killed may have
 * to close a file on the mount first, and a daemon that ends does not answer any more.
 */
static errint run_as_reap(const struct run_as *order, const struct run_as_attendant *attendant, int pid_fd,
                          int *status, errint error)
{
    struct pollfd end = {.fd = pid_fd, .events = POLLIN};
    if (error == -ECANCELED && order->patience > 0) {
        /* So that it can note how far it is. */
        run_as_attend_ask(attendant);
        poll(&end, 1, (int)order->patience);
    }
    if (error)
        run_as_attend_end(attendant, pid_fd);
    bool ended = pid_fd >= 0 && run_as_await_end(order, pid_fd);
    if (waitpid(attendant->pid, status, ended ? 0 : WNOHANG) != attendant->pid)
        return error ? error : -ECANCELED;
    *status = run_as_attend_status(attendant, *status);
    return error;
}

errint run_as_find_user(uid_t uid, gid_t gid, struct run_as_user *out)
{
    struct passwd record, *found = NULL;
    char buffer[4096];
    int count = RUN_AS_GROUPS_MAX;
    *out = (struct run_as_user){.uid = uid, .gid = gid, .groups = {gid}, .group_count = 1};
    if (geteuid() != 0 || getpwuid_r(uid, &record, buffer, sizeof buffer, &found) != 0 || !found)
        return 0; /* a user that the database does not know has no other groups */
    if (getgrouplist(found->pw_name, gid, out->groups, &count) < 0)
        return -E2BIG;
    out->group_count = (size_t)count;
    return 0;
}

/* What it reads: a file without a name. */
static int run_as_make_input(const struct run_as *order)
{
    cleanup_fd int fd = memfd_create("ckptfs-input", MFD_CLOEXEC);
    for (size_t done = 0; fd >= 0 && done < order->input_length;) {
        ssize_t wrote = write(fd, order->input + done, order->input_length - done);
        if (wrote < 0 && errno != EINTR)
            return -errno;
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    if (fd < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    return steal_fd(fd);
}

static errint run_as_start(struct run_as_child *child, int read_end, int *status)
{
    struct run_as_output output = {.order = child->order, .fd = read_end};
    struct run_as_attendant attendant;
    errint error = run_as_attend_fork(&attendant);
    if (!error && attendant.pid == 0)
        run_as_exec(child, &attendant);
    if (!error) {
        close(child->output);
        child->output = -1;
        cleanup_fd int pid_fd = (int)syscall(SYS_pidfd_open, attendant.pid, 0);
        error = pid_fd < 0 ? -errno : run_as_watch(child->order, pid_fd, &output);
        error = run_as_reap(child->order, &attendant, pid_fd, status, error);
        run_as_drain(&output);
        run_as_end_line(&output);
    }
    run_as_attend_release(&attendant);
    return error;
}

errint run_as(const struct run_as *order, int *status)
{
    struct run_as_child child = {.order = order, .becomes = geteuid() == 0};
    int pipes[2];
    if (!run_as_may(order->user->uid))
        return -EPERM;
    cleanup_fd int input = child.input = run_as_make_input(order);
    if (input < 0)
        return input;
    if (pipe2(pipes, O_CLOEXEC) < 0)
        return -errno;
    cleanup_fd int read_end = pipes[0];
    child.output = pipes[1];
    errint error = fcntl(read_end, F_SETFL, O_NONBLOCK) < 0 ? -errno : run_as_start(&child, read_end, status);
    if (child.output >= 0)
        close(child.output);
    return error;
}
