/* SPDX-License-Identifier: Apache-2.0 */
/* Between fork and exec only calls that are safe there are made: the daemon has threads. */
#include "fs/export_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "fs/service.h"

enum { CHILD_NICE = 10, CHILD_UMASK = 022, CHILD_NOT_STARTED = 127, CHILD_PATIENCE_MS = 2000 };

bool export_child_may_be(const struct export_user *user)
{
    return geteuid() == 0 || geteuid() == user->uid;
}

/* -- in the child -----------------------------------------------------------------------------------------
 */

/* The C library's own calls would speak to threads that are not there. False: the rights are not the user's.
 */
static bool child_become(const struct export_user *user)
{
    if (geteuid() == 0 && (syscall(SYS_setgroups, user->group_count, user->groups) < 0 ||
                           syscall(SYS_setresgid, user->gid, user->gid, user->gid) < 0 ||
                           syscall(SYS_setresuid, user->uid, user->uid, user->uid) < 0))
        return false;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && geteuid() == user->uid;
}

/* A copy of the mounts that nobody else waits for. Without the privilege it goes without. */
static void child_leave_mounts(void)
{
    if (geteuid() == 0 && unshare(CLONE_NEWNS) == 0)
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static _Noreturn void child_run(const struct export_user *user, const char *const *arguments,
                                const char *const *environment, int nowhere, int output)
{
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    service_unprotect_memory();
    setpriority(PRIO_PROCESS, 0, CHILD_NICE);
    umask(CHILD_UMASK);
    child_leave_mounts();
    if (chdir("/") < 0 || dup2(nowhere, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
        dup2(output, STDERR_FILENO) < 0 || !child_become(user))
        _exit(CHILD_NOT_STARTED);
    /* Behind the change of rights, which forgets it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve("/proc/self/exe", (char *const *)arguments, (char *const *)environment);
    _exit(CHILD_NOT_STARTED);
}

/* -- in the daemon ----------------------------------------------------------------------------------------
 */

/* What is kept of the environment: where the program's libraries are, and how it prints. */
static size_t child_environment(const char **out, char lines[][4200], size_t room)
{
    static const char *const kept[] = {"PATH", "LD_LIBRARY_PATH", "LANG", "TZ"};
    size_t count = 0;
    for (size_t i = 0; i < sizeof kept / sizeof *kept && count < room; i++) {
        const char *value = getenv(kept[i]);
        if (!value || (size_t)snprintf(lines[count], sizeof lines[count], "%s=%s", kept[i], value) >=
                          sizeof lines[count])
            continue;
        out[count] = lines[count];
        count++;
    }
    out[count] = NULL;
    return count;
}

errint export_child_start(const struct export_user *user, const char *const *arguments,
                          struct export_child *out)
{
    enum { KEPT = 4 };
    char lines[KEPT][4200];
    const char *environment[KEPT + 1], *words[EXPORT_ARGUMENTS_MAX + 2] = {"ckptfs"};
    size_t count = 0;
    int ends[2];
    child_environment(environment, lines, KEPT);
    while (arguments[count] && count < EXPORT_ARGUMENTS_MAX) {
        words[count + 1] = arguments[count];
        count++;
    }
    cleanup_fd int nowhere = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nowhere < 0 || pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0)
        child_run(user, words, environment, nowhere, ends[1]);
    errint error = pid < 0 ? -errno : 0;
    close(ends[1]);
    if (error) {
        close(ends[0]);
        return error;
    }
    /* As the child does it: whoever is first. */
    setpgid(pid, pid);
    *out = (struct export_child){pid, ends[0]};
    return 0;
}

/* Whether it has ended within the time; it is still to be waited for. */
static bool child_ended(pid_t pid, int milliseconds)
{
    cleanup_fd int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd end = {.fd = fd, .events = POLLIN};
    return fd >= 0 && poll(&end, 1, milliseconds) > 0;
}

void export_child_stop(const struct export_child *child)
{
    kill(-child->pid, SIGTERM);
    if (!child_ended(child->pid, CHILD_PATIENCE_MS))
        kill(-child->pid, SIGKILL);
}

int export_child_wait(const struct export_child *child)
{
    int status;
    while (waitpid(child->pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    kill(-child->pid, SIGKILL); /* what it left running */
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
