/* SPDX-License-Identifier: Apache-2.0 */
/* Judging a mountpoint. */
#include "cmd/mountpoint.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cmd/exit.h"
#include "cmd/store_lock.h"
#include "fs/mount_table.h"

static bool mountpoint_contains(const char *outer, const char *inner)
{
    size_t length = strlen(outer);
    if (strcmp(outer, "/") == 0)
        return true;
    return strncmp(outer, inner, length) == 0 && (inner[length] == '\0' || inner[length] == '/');
}

static int mountpoint_explain(const char *path, errint error)
{
    if (error == -ENOENT) {
        log_error("mountpoint %s does not exist; create it with mkdir", path);
        return EXIT_MOUNTPOINT_MISSING;
    }
    if (error == -ENOTDIR) {
        log_error("mountpoint %s is not a directory; name one", path);
        return EXIT_MOUNTPOINT_NOT_DIRECTORY;
    }
    if (error == -ENOTCONN) {
        log_error("mountpoint %s has a dead mount; run `ckptfs umount %s` first", path, path);
        return EXIT_MOUNTPOINT_DEAD;
    }
    log_error("mountpoint %s cannot be reached: %s; check the permissions on the way to it", path,
              strerror(-error));
    return EXIT_MOUNTPOINT_MISSING;
}

/* Something is mounted there. */
static int mountpoint_explain_mount(const struct mount_entry *entry)
{
    const char *path = entry->mountpoint;
    /* Nobody holds the store of a mount whose processes are gone. The mount itself may not be asked: it may
     * hang. */
    bool dead = mount_entry_is_ours(entry) ? store_lock_is_free(entry->source) : false;
    struct stat status;
    if (!mount_entry_is_ours(entry))
        dead = stat(path, &status) != 0 && errno == ENOTCONN;
    if (dead)
        return mountpoint_explain(path, -ENOTCONN);
    log_error("mountpoint %s is busy: %s (%s) is mounted on it; unmount it or choose another directory", path,
              entry->source, entry->type);
    return EXIT_MOUNTPOINT_BUSY;
}

static int mountpoint_check_type(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return mountpoint_explain(path, -errno);
    return S_ISDIR(status.st_mode) ? EXIT_FINE : mountpoint_explain(path, -ENOTDIR);
}

int mountpoint_check(const char *path, const char *store, char **out)
{
    errint error;
    cleanup_free char *absolute = mount_table_resolve(path, &error);
    cleanup_mount_table struct mount_table table = {0};
    if (!absolute || mount_table_read(&table) != 0) {
        log_error("mountpoint %s cannot be checked: /proc is not mounted or memory is short", path);
        return EXIT_FAILED;
    }
    if (error)
        return mountpoint_explain(path, error);
    const struct mount_entry *entry = mount_table_find(&table, absolute);
    /* An automounter's own trap is there to be mounted upon. */
    if (entry && strcmp(entry->type, "autofs") != 0)
        return mountpoint_explain_mount(entry);
    int code = entry ? EXIT_FINE : mountpoint_check_type(absolute);
    if (code)
        return code;
    if (mountpoint_contains(absolute, store) || mountpoint_contains(store, absolute)) {
        log_error("the store %s and the mountpoint %s lie within each other; choose another mountpoint",
                  store, absolute);
        return EXIT_USAGE;
    }
    *out = steal_pointer(absolute);
    return EXIT_FINE;
}
