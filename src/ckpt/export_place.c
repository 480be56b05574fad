/* SPDX-License-Identifier: Apache-2.0 */
/* Names in the target directory. */
#include "ckpt/export_place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/log.h"
#include "ckpt/export_tree.h"

enum { PLACE_NAME_MAX = 256, PLACE_LOCK_TRIES = 100 };

static const char *place_hidden(const struct export_place *place, const char *end, char out[PLACE_NAME_MAX])
{
    snprintf(out, PLACE_NAME_MAX, EXPORT_HIDDEN "%s%s", place->name, end);
    return out;
}

#define PLACE_LOCK  ".lock"
#define PLACE_STATE ".state"
#define PLACE_OLD   ".old-"
#define PLACE_LINK  ".link"

/* -- the lock ---------------------------------------------------------------------------------------------
 */

/* Whether the locked file is still the one of that name: whoever had the lock before has removed it. */
static bool place_lock_is_current(const struct export_place *place, int fd, const char *name)
{
    struct stat locked, named;
    return fstat(fd, &locked) == 0 && fstatat(place->directory, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           locked.st_ino == named.st_ino && locked.st_dev == named.st_dev;
}

errint export_place_lock(struct export_place *place, bool wait)
{
    char name[PLACE_NAME_MAX];
    place_hidden(place, PLACE_LOCK, name);
    for (unsigned i = 0; i < PLACE_LOCK_TRIES; i++) {
        cleanup_fd int fd =
            openat(place->directory, name, O_RDONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
        if (fd < 0 || flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB) < 0)
            return -errno;
        if (place_lock_is_current(place, fd, name)) {
            place->lock = steal_fd(fd);
            return 0;
        }
    }
    return -EWOULDBLOCK;
}

void export_place_end(struct export_place *place)
{
    char name[PLACE_NAME_MAX];
    if (place->building >= 0)
        close(place->building);
    if (place->lock >= 0) {
        unlinkat(place->directory, place_hidden(place, PLACE_LOCK, name), 0);
        close(place->lock);
    }
    place->building = place->lock = -1;
}

/* -- building ---------------------------------------------------------------------------------------------
 */

static bool place_keeps(const void *context, const char *path)
{
    const struct export_job *job = context;
    for (size_t i = 0; i < job->count; i++) {
        size_t length = strlen(path);
        const char *name = job->files[i].name;
        /* A file, or a directory that one lies in. */
        if (strncmp(name, path, length) == 0 && (name[length] == '\0' || name[length] == '/'))
            return true;
    }
    return false;
}

static errint place_open_building(struct export_place *place)
{
    char name[PLACE_NAME_MAX];
    struct stat status;
    place_hidden(place, "", name);
    if (mkdirat(place->directory, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    place->building = openat(place->directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (place->building < 0 || fstat(place->building, &status) < 0)
        return -errno;
    if (status.st_uid != geteuid())
        return -EPERM;
    return fchmod(place->building, 0700) < 0 ? -errno : 0;
}

errint export_place_begin(struct export_place *place, const struct export_job *job,
                          struct export_state *state)
{
    char name[PLACE_NAME_MAX];
    bool fresh;
    errint error = place_open_building(place);
    if (!error)
        error =
            export_state_open(place->directory, place_hidden(place, PLACE_STATE, name), job, state, &fresh);
    if (!error)
        error = export_tree_clear(place->building, fresh ? NULL : place_keeps, job);
    return error;
}

errint export_place_drop(const struct export_place *place)
{
    char name[PLACE_NAME_MAX];
    errint error = export_tree_remove(place->directory, place_hidden(place, "", name));
    place_hidden(place, PLACE_STATE, name);
    if (unlinkat(place->directory, name, 0) < 0 && errno != ENOENT && !error)
        error = -errno;
    return error == -ENOENT ? 0 : error;
}

/* -- the name ---------------------------------------------------------------------------------------------
 */

/* Removes what is under the hidden name now, unless a reader has it locked: then it gets another. */
static errint place_remove_old(const struct export_place *place, const char *building)
{
    char kept[PLACE_NAME_MAX], end[64];
    struct stat status;
    cleanup_fd int fd = openat(place->directory, building, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK || fstat(fd, &status) < 0)
        return export_tree_remove(place->directory, building);
    snprintf(end, sizeof end, PLACE_OLD "%" PRIu64, (uint64_t)status.st_ino);
    place_hidden(place, end, kept);
    return renameat(place->directory, building, place->directory, kept) < 0 ? -errno : 0;
}

/* Where names cannot be exchanged there is a moment without one. */
static errint place_replace_slowly(const struct export_place *place, const char *building)
{
    char aside[PLACE_NAME_MAX];
    place_hidden(place, PLACE_OLD "0", aside);
    errint error = export_tree_remove(place->directory, aside);
    if (error && error != -ENOENT)
        return error;
    if (renameat(place->directory, place->name, place->directory, aside) < 0)
        return -errno;
    if (renameat(place->directory, building, place->directory, place->name) < 0) {
        error = -errno;
        renameat(place->directory, aside, place->directory, place->name);
        return error;
    }
    return renameat(place->directory, aside, place->directory, building) < 0 ? -errno : 0;
}

static errint place_exchange(const struct export_place *place, const char *building, bool *replaced)
{
    int directory = place->directory;
    *replaced = false;
    if (renameat2(directory, building, directory, place->name, RENAME_NOREPLACE) == 0)
        return 0;
    errint error = -errno;
    *replaced = faccessat(directory, place->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    /* Some filesystems do not know the flag. */
    if (error == -EINVAL && !*replaced)
        return renameat(directory, building, directory, place->name) < 0 ? -errno : 0;
    if (!*replaced)
        return error;
    if (renameat2(directory, building, directory, place->name, RENAME_EXCHANGE) == 0)
        return 0;
    return errno == EINVAL || errno == ENOSYS ? place_replace_slowly(place, building) : -errno;
}

errint export_place_publish(struct export_place *place, bool *replaced)
{
    char building[PLACE_NAME_MAX];
    place_hidden(place, "", building);
    errint error = fault_hit("export.publish");
    if (!error)
        error = place_exchange(place, building, replaced);
    if (!error && fsync(place->directory) < 0 && errno != EINVAL)
        error = -errno;
    if (!error)
        error = fault_hit("export.published");
    if (error)
        return error;
    error = *replaced ? place_remove_old(place, building) : 0;
    if (!error)
        error = export_place_drop(place);
    if (error)
        log_warning("%s/%s cannot be removed: %s", place->path, building, strerror(-error));
    return 0;
}

void export_place_sweep(const struct export_place *place)
{
    char start[PLACE_NAME_MAX];
    place_hidden(place, PLACE_OLD, start);
    int fd = openat(place->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    if (!stream && fd >= 0)
        close(fd);
    while (stream && (entry = readdir(stream))) {
        if (strncmp(entry->d_name, start, strlen(start)) != 0)
            continue;
        cleanup_fd int old =
            openat(place->directory, entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (old >= 0 && flock(old, LOCK_EX | LOCK_NB) == 0)
            export_tree_remove(place->directory, entry->d_name);
    }
    if (stream)
        closedir(stream);
}

/* -- links ------------------------------------------------------------------------------------------------
 */

errint export_place_read_link(const struct export_place *place, const char *link,
                              char name[EXPORT_NAME_MAX + 1])
{
    ssize_t length = readlinkat(place->directory, link, name, EXPORT_NAME_MAX + 1);
    if (length < 0)
        return errno == EINVAL ? -EEXIST : -errno;
    name[length <= EXPORT_NAME_MAX ? length : 0] = '\0';
    return export_name_is_fine(name) ? 0 : -ENOENT;
}

errint export_place_link(const struct export_place *place, const char *link)
{
    char now[EXPORT_NAME_MAX + 1], temporary[PLACE_NAME_MAX];
    errint error = export_place_read_link(place, link, now);
    if (error == -EEXIST || (error == 0 && strcmp(now, place->name) == 0))
        return error;
    /* Whoever makes a link to the name has its lock. */
    place_hidden(place, PLACE_LINK, temporary);
    unlinkat(place->directory, temporary, 0);
    if (symlinkat(place->name, place->directory, temporary) < 0)
        return -errno;
    error = renameat(place->directory, temporary, place->directory, link) < 0 ? -errno : 0;
    if (error)
        unlinkat(place->directory, temporary, 0);
    else if (fsync(place->directory) < 0 && errno != EINVAL)
        error = -errno;
    return error;
}
