/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs mount`: checks, mounts, and becomes or leaves behind the keeper. */
#include "cmd/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/size_text.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/mounted.h"
#include "cmd/mountpoint.h"
#include "cmd/store_lock.h"
#include "format/plain_text.h"
#include "fs/control.h"
#include "fs/keeper.h"
#include "fs/mount.h"
#include "fs/mount_table.h"
#include "store/store.h"

enum {
    MOUNT_REPORT_MAX = 1024,
    MOUNT_FORMER_PATIENCE_SECONDS = 2,
    MOUNT_FORMER_SECONDS = 60,
    MOUNT_SPACE_SECONDS = 4
};

/* What is being mounted; descriptors are -1 until they are open. */
struct mount_work {
    const struct mount_options *options;
    char program[PATH_MAX];
    char *store;      /* absolute */
    char *mountpoint; /* absolute */
    bool store_is_new;
    int lock_fd;
    int fuse_fd;
    int log_fd;
};

/* The path, not the open file: at a restart, a newer program that lies there is meant. */
static int mount_find_program(struct mount_work *work)
{
    ssize_t length = readlink("/proc/self/exe", work->program, sizeof work->program - 1);
    if (length < 0) {
        log_error("/proc/self/exe cannot be read: %m; mount /proc");
        return EXIT_FAILED;
    }
    work->program[length] = '\0';
    return EXIT_FINE;
}

static int mount_open_log(struct mount_work *work)
{
    const char *path = work->options->log_path;
    if (!path)
        return EXIT_FINE;
    work->log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (work->log_fd >= 0)
        return EXIT_FINE;
    log_error("log file %s cannot be opened: %m; name a file that this user may write", path);
    return EXIT_FAILED;
}

/*
 * umount(8), unlike our own command, returns before the daemon has finished: a store that is in use but
 * mounted nowhere is given a moment.
 */
static void mount_await_former(const struct mount_work *work)
{
    cleanup_mount_table struct mount_table table = {0};
    if (mount_table_read(&table) != 0 || mount_table_find_store(&table, work->store))
        return;
    struct store_lock_watch watch;
    bool failed;
    int64_t now = clock_monotonic();
    store_lock_watch_start(&watch, work->store);
    if (!store_lock_watch_wait(&watch, now + MOUNT_FORMER_PATIENCE_SECONDS * CLOCK_NS_PER_SECOND, &failed)) {
        log_info("%s is unmounted: waiting for its daemon to finish writing", work->store);
        store_lock_watch_wait(&watch, now + MOUNT_FORMER_SECONDS * CLOCK_NS_PER_SECOND, &failed);
    }
    store_lock_watch_end(&watch);
}

/* Opening makes or checks the store. Only its lock is kept: the daemon opens the rest for itself. */
static int mount_lock_store(struct mount_work *work, const char *path)
{
    mount_await_former(work);
    struct store *store;
    enum store_problem problem = store_open(path, -1, &store);
    if (problem)
        return exit_code_of_store(problem);
    free(work->store);
    work->store = strdup(store->path);
    work->store_is_new = store->created;
    work->lock_fd = fcntl(store->lock_fd, F_DUPFD_CLOEXEC, 3);
    store_close(store);
    if (!work->store) {
        log_error("%s cannot be mounted: out of memory", path);
        return EXIT_FAILED;
    }
    if (work->lock_fd >= 0)
        return EXIT_FINE;
    log_error("the store's lock cannot be kept: %m; raise the limit of open files");
    return EXIT_FAILED;
}

static int mount_prepare(struct mount_work *work, const char *store, const char *mountpoint)
{
    errint ignored;
    work->store = mount_table_resolve(store, &ignored);
    if (!work->store) {
        log_error("%s cannot be mounted: out of memory", store);
        return EXIT_FAILED;
    }
    int code = mount_find_program(work);
    if (!code)
        code = mountpoint_check(mountpoint, work->store, &work->mountpoint);
    if (!code)
        code = mount_open_log(work);
    /* A mount that cannot be should not leave a new store behind. */
    if (!code)
        code = exit_code_of_mount(mount_check_device());
    if (!code)
        code = mount_lock_store(work, store);
    if (code)
        return code;
    const struct mount_request request = {.store = work->store,
                                          .mountpoint = work->mountpoint,
                                          .allow_other = work->options->allow_other,
                                          .flags = work->options->flags};
    return exit_code_of_mount(mount_attach(&request, &work->fuse_fd));
}

static int mount_run_keeper(struct mount_work *work, int report_fd, bool to_syslog)
{
    const struct keeper_options options = {.program = work->program,
                                           .store = work->store,
                                           .mountpoint = work->mountpoint,
                                           .mount_options = work->options->text,
                                           .fuse_fd = work->fuse_fd,
                                           .lock_fd = work->lock_fd,
                                           .report_fd = report_fd,
                                           .hang_timeout = work->options->hang_timeout,
                                           .log_to_syslog = to_syslog};
    work->fuse_fd = -1;
    return keeper_run(&options);
}

static int mount_in_foreground(struct mount_work *work)
{
    if (work->log_fd >= 0 && dup2(work->log_fd, STDERR_FILENO) < 0)
        log_warning("log file: %m");
    return mount_run_keeper(work, -1, false);
}

/* Leaves the terminal, the directory and whoever reads our output. */
static bool mount_detach_process(const struct mount_work *work)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || setsid() < 0 || chdir("/") != 0)
        return false;
    int errors = work->log_fd >= 0 ? work->log_fd : null;
    umask(077);
    bool done =
        dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0 && dup2(errors, STDERR_FILENO) >= 0;
    if (null > STDERR_FILENO)
        close(null);
    return done;
}

/* The keeper's one line: "ready", or "error CODE MESSAGE". */
static int mount_await_report(int report_fd)
{
    char line[MOUNT_REPORT_MAX];
    size_t used = 0;
    while (used < sizeof line - 1 && !memchr(line, '\n', used)) {
        ssize_t got = read(report_fd, line + used, sizeof line - 1 - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        used += (size_t)got;
    }
    line[used] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, "ready") == 0)
        return EXIT_FINE;
    int code = 0, message = 0;
    if (sscanf(line, "error %d %n", &code, &message) < 1 || code <= 0 || code > 255) {
        log_error("the keeper ended before the mount was ready; mount with -f to see why");
        return EXIT_DAEMON_FAILED;
    }
    log_error("%s", line[message] ? line + message : "the daemon did not come up; mount with -f to see why");
    return code;
}

enum { MOUNT_END_STEP_US = 10000, MOUNT_END_STEPS = 1000 };

/* A keeper that failed takes the mount away before it ends: whoever tries again must not find it there. */
static void mount_await_end(pid_t keeper)
{
    for (int i = 0; i < MOUNT_END_STEPS && waitpid(keeper, NULL, WNOHANG) == 0; i++)
        usleep(MOUNT_END_STEP_US);
}

static int mount_in_background(struct mount_work *work)
{
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) != 0) {
        log_error("the keeper cannot be started: pipe: %m");
        return EXIT_FAILED;
    }
    cleanup_fd int read_end = pipes[0];
    cleanup_fd int write_end = pipes[1];
    pid_t keeper = fork();
    if (keeper < 0) {
        log_error("the keeper cannot be started: fork: %m");
        return EXIT_FAILED;
    }
    if (keeper > 0) {
        close(steal_fd(write_end));
        close(steal_fd(work->fuse_fd));
        int code = mount_await_report(read_end);
        if (code)
            mount_await_end(keeper);
        return code;
    }
    close(steal_fd(read_end));
    if (!mount_detach_process(work))
        log_warning("the keeper stays with its terminal: %m");
    bool to_syslog = work->log_fd < 0;
    log_show_time();
    if (to_syslog)
        log_configure(LOG_TO_SYSLOG, LOG_LEVEL_INFO, "ckptfs");
    _exit(mount_run_keeper(work, steal_fd(write_end), to_syslog));
}

/* In the foreground the daemon says it, in its log. Nothing is said where it cannot be found out. */
static void mount_warn_of_space(const struct mount_work *work)
{
    struct control_largest largest = {0};
    char need[SIZE_TEXT_MAX], room[SIZE_TEXT_MAX];
    bool known = !(work->options->flags & MS_RDONLY) &&
                 mounted_try_ioctl(work->mountpoint, MOUNT_SPACE_SECONDS, CKPTFS_IOCTL_LARGEST, &largest,
                                   sizeof largest) == 0 &&
                 largest.known;
    if (!known || largest.available_bytes >= largest.bytes)
        return;
    cleanup_free char *path = plain_text(largest.path);
    log_warning(
        "the disk under %s has %s left, and the largest checkpoint, %s, takes %s: one like it does not "
        "fit any more; free some space, or delete checkpoints",
        work->store, size_text((double)largest.available_bytes, room), path ? path : "?",
        size_text((double)largest.bytes, need));
}

static void mount_announce_store(const struct mount_work *work)
{
    if (work->store_is_new)
        log_info("%s is a new store", work->store);
}

/* A mount that nobody will serve must not stay. */
static void mount_undo(struct mount_work *work)
{
    if (work->fuse_fd < 0)
        return;
    close(steal_fd(work->fuse_fd));
    errint error = mount_detach(work->mountpoint, true);
    if (error)
        log_error("%s stays behind as a dead mount: %s; run `ckptfs umount` on it", work->mountpoint,
                  strerror(-error));
}

int mount_start(const char *store, const char *mountpoint, const struct mount_options *options,
                bool foreground)
{
    struct mount_work work = {.options = options, .lock_fd = -1, .fuse_fd = -1, .log_fd = -1};
    int code = mount_prepare(&work, store, mountpoint);
    /* A mount that fails says one thing only: why. */
    if (!code && foreground) {
        mount_announce_store(&work);
        code = mount_in_foreground(&work);
    } else if (!code) {
        code = mount_in_background(&work);
        if (!code)
            mount_announce_store(&work);
        if (!code && !work.store_is_new)
            mount_warn_of_space(&work);
    }
    mount_undo(&work);
    if (work.lock_fd >= 0)
        close(work.lock_fd);
    if (work.log_fd >= 0)
        close(work.log_fd);
    free(work.store);
    free(work.mountpoint);
    return code;
}

static int mount_run(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"foreground", no_argument, NULL, 'f'}, {"options", required_argument, NULL, 'o'}, {0}};
    cleanup_mount_options struct mount_options options;
    bool foreground = false;
    char problem[256] = "";
    errint error = mount_options_init(&options);
    int option;
    while (!error && (option = getopt_long(argc, argv, ":fo:", long_options, NULL)) != -1) {
        if (option == 'f')
            foreground = true;
        else if (option == 'o')
            error = mount_options_add(&options, optarg, problem);
        else
            return command_usage_error(&command_mount, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
    }
    if (error == -EINVAL)
        return command_usage_error(&command_mount, "%s", problem);
    if (error) {
        log_error("mount: %s", strerror(-error));
        return EXIT_FAILED;
    }
    if (argc - optind != 2)
        return command_usage_error(&command_mount, "expected STORE and MOUNTPOINT, found %d arguments",
                                   argc - optind);
    return mount_start(argv[optind], argv[optind + 1], &options, foreground);
}

const struct command command_mount = {
    .name = "mount",
    .synopsis = "[-f] [-o OPTION[,OPTION...]] STORE MOUNTPOINT",
    .summary = "mount a store; an empty or absent directory becomes a new one",
    .details =
        "  -f, --foreground      stay in the foreground, log to stderr (for systemd: Type=notify)\n"
        "  -o, --options LIST    mount options, separated by commas:\n"
        "      ro, nosuid, nodev, noexec, noatime   and their opposites, as for every filesystem\n"
        "      allow_other       let other users in (root's default; else needs user_allow_other)\n"
        "      noallow_other     only the mounting user\n"
        "      passthrough=auto|off   let the kernel read and write the files itself where it can (auto)\n"
        "      sharing=backward|forward|off\n"
        "                        store equal bytes once: older files give way to newer ones (backward);\n"
        "                        forward: an unchanged file gives way to the older one, and is not written\n"
        "      verify-on-share=yes|no   before that, compare bytes besides their hashes (no)\n"
        "      share-owners=yes|no   also between files of different owners; then bytes are always compared "
        "(no)\n"
        "      assemble=auto|view|off|ask\n"
        "                        show checkpoints of shards as whole models below .ckptfs/models, and\n"
        "                        beside the shards where that is harmless (auto)\n"
        "      hooks=yes|no      run the hooks that users have set (yes)\n"
        "      trash=on|off      keep removed checkpoints for a while, for `ckptfs undelete` (on)\n"
        "      trash-age=TIME    for how long: 90s, 30m, 12h, 7d or 4w (1d)\n"
        "      min-free=SIZE     what stays free on the disk before removed and expendable checkpoints go:\n"
        "                        20GB, 5%, or what the next save needs (auto)\n"
        "      full-timeout=S    a write that finds the disk full waits so long for that (60)\n"
        "      inline=BYTES      files up to this size live in the database (0 to 65536; 16384)\n"
        "      threads=N         threads that answer the kernel (0: by the number of processors)\n"
        "      read-ahead=KIB    the kernel's read-ahead (8192; needs root)\n"
        "      hang-timeout=S    a daemon that answers nothing for so long is replaced (30)\n"
        "      backup-interval=S back the database up every S seconds if it changed (3600; 0: at the "
        "unmount)\n"
        "      log=FILE          append log lines to FILE instead of syslog or stderr\n",
    .run = mount_run,
};
