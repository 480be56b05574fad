/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs umount`: unmounts, and returns when everything is written and the keeper is gone. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/holders.h"
#include "cmd/mounted.h"
#include "cmd/store_lock.h"
#include "fs/control.h"
#include "fs/mount.h"

enum {
    UMOUNT_PAUSE_SECONDS = 5,
    UMOUNT_TRIES = 20,
    UMOUNT_PAUSE_NS = 50 * 1000 * 1000,
    UMOUNT_HALT_SECONDS = 5,
};
/* After that long whoever waits is told what for. */
#define UMOUNT_PATIENCE_NS (3 * CLOCK_NS_PER_SECOND)

static int umount_explain(const char *mountpoint, errint error)
{
    char holders[512];
    switch (-error) {
    case EBUSY:
        holders_describe(mountpoint, holders, sizeof holders);
        if (!*holders)
            snprintf(holders, sizeof holders, "%s",
                     geteuid() == 0 ? "a mount below it, or a process in another container"
                                    : "processes that only root can see");
        log_error("%s is busy: used by %s; end that use and try again", mountpoint, holders);
        return EXIT_UMOUNT_BUSY;
    case EPERM:
        log_error("%s was mounted by another user; run as that user or as root", mountpoint);
        return EXIT_NOT_PERMITTED;
    case ENOENT:
        log_error("fusermount3 is missing: only root can unmount without it; install the package fuse3");
        return EXIT_FUSE_UNAVAILABLE;
    case EINVAL: log_error("%s is not mounted any more", mountpoint); return EXIT_NOT_MOUNTED;
    default:
        log_error("%s cannot be unmounted: %s; see the kernel's log", mountpoint, strerror(-error));
        return EXIT_FAILED;
    }
}

/* Why it takes long. The daemon of a mount that another namespace has a copy of serves that copy. */
static void umount_say_waiting(const struct mount_entry *entry)
{
    char holders[512];
    holders_describe_copies(entry->device, holders, sizeof holders);
    if (*holders)
        log_warning("%s is unmounted here, and is still mounted elsewhere (another mount namespace, as a "
                    "container has one, or a bind mount), where %s can see it: waiting until that ends",
                    entry->mountpoint, holders);
    else
        log_info("%s is unmounted: waiting for its daemon to finish writing", entry->mountpoint);
}

/* True when the holder is gone in time. */
static bool umount_wait_until(struct store_lock_watch *watch, const struct mount_entry *entry,
                              int64_t deadline, bool *failed)
{
    int64_t patience = clock_monotonic() + UMOUNT_PATIENCE_NS;
    if (deadline && deadline <= patience)
        return store_lock_watch_wait(watch, deadline, failed);
    if (store_lock_watch_wait(watch, patience, failed))
        return true;
    umount_say_waiting(entry);
    return store_lock_watch_wait(watch, deadline, failed);
}

static int umount_wait(struct store_lock_watch *watch, const struct mount_entry *entry, unsigned seconds)
{
    int64_t deadline = seconds ? clock_monotonic() + (int64_t)seconds * CLOCK_NS_PER_SECOND : 0;
    bool failed;
    if (!umount_wait_until(watch, entry, deadline, &failed)) {
        log_error("%s is unmounted, but its daemon has not finished writing after %u s; wait for it: the "
                  "store %s is in "
                  "use until then",
                  entry->mountpoint, seconds, entry->source);
        return EXIT_TIMED_OUT;
    }
    if (!failed)
        return EXIT_FINE;
    log_error("%s is unmounted, but its daemon failed at the end; see the log; the next mount of %s recovers",
              entry->mountpoint, entry->source);
    return EXIT_DAEMON_FAILED;
}

/* The mount's own hooks may use it: they are run again at the next mount. False: nothing was done. */
static bool umount_end_hooks(const struct mount_entry *entry)
{
    struct control_pause pause = {.seconds = UMOUNT_PAUSE_SECONDS};
    return mounted_ask_ioctl(entry, MOUNTED_ANSWER_SECONDS, CKPTFS_IOCTL_PAUSE, &pause, sizeof pause) ==
           EXIT_FINE;
}

/*
 * A mount that is busy by nobody who can be named: a command that asks it something uses it for moments, and
 * by a killed process the kernel may not have closed everything yet. That passes.
 */
static errint umount_detach(const struct mount_entry *entry, bool dead)
{
    const char *mountpoint = entry->mountpoint;
    errint error = mount_detach(mountpoint, dead);
    if (error == -EBUSY && !dead && umount_end_hooks(entry))
        error = mount_detach(mountpoint, dead);
    for (int tries = 0; error == -EBUSY && tries < UMOUNT_TRIES; tries++) {
        char holders[64];
        holders_describe(mountpoint, holders, sizeof holders);
        if (*holders)
            break;
        nanosleep(&(struct timespec){.tv_nsec = UMOUNT_PAUSE_NS}, NULL);
        error = mount_detach(mountpoint, dead);
    }
    return error;
}

/*
 * Exports that a policy wants read the mount, too. They are ended, which takes a moment, and the next mount
 * takes them up again. A daemon that does not know the question has none.
 */
static errint umount_detach_exports(const struct mount_entry *entry)
{
    uint32_t ran = 0;
    errint error = -EBUSY;
    if (mounted_try_ioctl(entry->mountpoint, UMOUNT_HALT_SECONDS, CKPTFS_IOCTL_EXPORT_HALT, &ran,
                          sizeof ran) < 0)
        return error;
    for (int tries = 0; ran && error == -EBUSY && tries < 3 * UMOUNT_TRIES; tries++) {
        nanosleep(&(struct timespec){.tv_nsec = UMOUNT_PAUSE_NS}, NULL);
        error = mount_detach(entry->mountpoint, false);
    }
    return error;
}

static int umount_mount(const struct mount_entry *entry, unsigned seconds)
{
    struct store_lock_watch watch;
    store_lock_watch_start(&watch, entry->source);
    /* Users of a dead mount have lost it already: they do not keep it. */
    bool dead = store_lock_is_free(entry->source);
    errint error = umount_detach(entry, dead);
    if (error == -EBUSY && !dead)
        error = umount_detach_exports(entry);
    int code = error ? umount_explain(entry->mountpoint, error) : EXIT_FINE;
    if (!code && !dead)
        code = umount_wait(&watch, entry, seconds);
    store_lock_watch_end(&watch);
    return code;
}

static int umount_run(int argc, char **argv)
{
    static const struct option long_options[] = {{"timeout", required_argument, NULL, 't'}, {0}};
    unsigned seconds = 0;
    int option;
    while ((option = getopt_long(argc, argv, ":t:", long_options, NULL)) != -1) {
        if (option != 't')
            return command_usage_error(&command_umount, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
        if (!command_parse_seconds(optarg, &seconds))
            return command_usage_error(&command_umount, "--timeout: expected seconds, found '%s'", optarg);
    }
    if (argc - optind != 1)
        return command_usage_error(&command_umount, "expected MOUNTPOINT, found %d arguments", argc - optind);
    cleanup_mount_table struct mount_table table = {0};
    const struct mount_entry *entry;
    int code = mounted_find(argv[optind], &table, &entry);
    return code ? code : umount_mount(entry, seconds);
}

const struct command command_umount = {
    .name = "umount",
    .synopsis = "[-t SECONDS] MOUNTPOINT",
    .summary = "unmount; returns when the daemon has finished",
    .details =
        "  -t, --timeout SECONDS   do not wait longer for the daemon to finish (0, the default: for ever)\n"
        "\n"
        "A dead mount, left by a crash, is removed too. A store is accepted in place of its mountpoint.\n",
    .run = umount_run,
};
