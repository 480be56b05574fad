/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on attributes, extended attributes, symlinks' targets and the filesystem's own figures. */
#include "fs/ops.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "base/fault.h"
#include "fs/content.h"
#include "fs/control_report.h"
#include "fs/expire.h"
#include "fs/handle.h"
#include "fs/retry.h"
#include "fs/rewrite.h"
#include "fs/seal.h"
#include "fs/space.h"
#include "fs/trash.h"
#include "fs/view.h"
#include "fs/writers.h"

#define OPS_XATTR_OURS  "user.ckptfs."
#define OPS_XATTR_STATE OPS_XATTR_OURS "state"

static void ops_reply_attributes(fuse_req_t request, errint error, const struct meta_inode *row)
{
    if (error) {
        /* Not ENOENT: the number was good once, so the kernel must look the name up again. */
        fuse_reply_err(request, error == -ENOENT ? ESTALE : -error);
        return;
    }
    struct stat status;
    node_stat_row(fs_of(request), row, &status);
    fuse_reply_attr(request, &status, FS_TIMEOUT_SECONDS);
}

void ops_getattr(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fi;
    if (view_has(ino)) {
        view_getattr(request, ino);
        return;
    }
    struct meta_inode row;
    errint error = meta_get(fs_of(request)->meta, ino, &row);
    ops_reply_attributes(request, error, &row);
}

/* -- setattr ----------------------------------------------------------------------------------------------
 */

bool ops_caller_has_group(fuse_req_t request, gid_t group)
{
    const struct fuse_ctx *caller = fuse_req_ctx(request);
    if (caller->uid == 0 || caller->gid == group)
        return true;
    int count = fuse_req_getgroups(request, 0, NULL);
    cleanup_free gid_t *groups = count > 0 ? calloc((size_t)count, sizeof *groups) : NULL;
    if (!groups)
        return count != 0;
    int found = fuse_req_getgroups(request, count, groups);
    for (int i = 0; i < found && i < count; i++) {
        if (groups[i] == group)
            return true;
    }
    return found < 0;
}

/* As Linux has it (fs/attr.c, setattr_should_drop_suidgid): a setgid bit without execution stays for those of
 * the group only. */
static uint32_t ops_without_privileges(fuse_req_t request, const struct meta_inode *row)
{
    uint32_t mode = row->mode & ~(uint32_t)S_ISUID;
    bool drops = (mode & S_ISGID) && ((mode & S_IXGRP) || !ops_caller_has_group(request, row->gid));
    return drops ? mode & ~(uint32_t)S_ISGID : mode;
}

errint ops_drop_privileges(fuse_req_t request, uint64_t ino)
{
    struct filesystem *fs = fs_of(request);
    struct meta_inode row;
    errint error = meta_get(fs->meta, ino, &row);
    if (error || !S_ISREG(row.mode))
        return error;
    int64_t now = clock_file_time();
    error = meta_xattr_remove(fs->meta, ino, "security.capability", now, 0);
    if (error && error != -ENODATA)
        return error;
    uint32_t mode = ops_without_privileges(request, &row);
    if (mode == row.mode)
        return 0;
    row.mode = mode;
    row.ctime = now;
    error = meta_set(fs->meta, ino, META_SET_MODE | META_SET_CTIME, &row, 0, NULL);
    /* The kernel takes a write for a change of size and times only. For attributes alone it waits for nobody.
     */
    if (!error)
        fuse_lowlevel_notify_inval_inode(fs->session, ino, -1, 0);
    return error;
}

/* Which fields of the row the kernel asks to set, with their values. */
static unsigned ops_wanted_fields(const struct stat *wanted, int set, int64_t now, struct meta_inode *values)
{
    unsigned fields = META_SET_CTIME;
    *values = (struct meta_inode){
        .mode = wanted->st_mode,
        .uid = wanted->st_uid,
        .gid = wanted->st_gid,
        .atime = set & FUSE_SET_ATTR_ATIME_NOW ? now : clock_from_timespec(&wanted->st_atim),
        .mtime = set & FUSE_SET_ATTR_MTIME_NOW ? now : clock_from_timespec(&wanted->st_mtim),
        .ctime = now,
    };
    if (set & FUSE_SET_ATTR_MODE)
        fields |= META_SET_MODE;
    if (set & FUSE_SET_ATTR_UID)
        fields |= META_SET_UID;
    if (set & FUSE_SET_ATTR_GID)
        fields |= META_SET_GID;
    if (set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))
        fields |= META_SET_ATIME;
    if (set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
        fields |= META_SET_MTIME;
    return fields;
}

/* An explicit mtime goes to the object too, so that only a later write makes the two differ. */
static errint ops_stamp(struct node *node, unsigned fields, const struct meta_inode *values)
{
    if (!(fields & META_SET_MTIME) || node->kind != META_OBJECT)
        return 0;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, clock_to_timespec(values->mtime)};
    return futimens(node->backing->fd, times) < 0 ? -errno : 0;
}

static errint ops_setattr_locked(fuse_req_t request, struct node *node, const struct stat *wanted, int set,
                                 struct meta_inode *row)
{
    struct filesystem *fs = fs_of(request);
    errint error = meta_get(fs->meta, node->ino, row);
    if (error)
        return error;
    struct meta_inode values;
    unsigned fields = ops_wanted_fields(wanted, set, clock_file_time(), &values);
    if (S_ISREG(row->mode)) {
        error = set & FUSE_SET_ATTR_SIZE ? handle_prepare_change(fs, node) : node_load(fs, node);
        if (!error && (set & FUSE_SET_ATTR_SIZE))
            error = content_truncate(fs, node, wanted->st_size);
        if (!error)
            error = ops_stamp(node, fields, &values);
        if (error)
            return error;
        if (set & FUSE_SET_ATTR_SIZE && node->writers == 0)
            seal_add(fs, node);
    }
    /* A kernel that leaves less to us sends a mode with the new size, by an older rule. */
    bool drops = fs->features.kills_privileges
                     ? protocol_kills_privileges(fs_current_request) && !(set & FUSE_SET_ATTR_MODE)
                     : (set & FUSE_SET_ATTR_SIZE) && fuse_req_ctx(request)->uid != 0;
    if (!S_ISDIR(row->mode) && drops) {
        values.mode = ops_without_privileges(request, row);
        fields |= META_SET_MODE;
    }
    if (node->kind == META_OBJECT && !(fields & META_SET_MTIME)) {
        /* What the object knows must not be older than the row that now gets a newer ctime. */
        error = node_refresh_row(node, row);
        values.mtime = row->mtime;
        fields |= META_SET_MTIME;
    }
    return error ? error : meta_set(fs->meta, node->ino, fields, &values, fs_current_unique(), row);
}

void ops_setattr(fuse_req_t request, fuse_ino_t ino, struct stat *wanted, int set, struct fuse_file_info *fi)
{
    (void)fi;
    struct filesystem *fs = fs_of(request);
    struct meta_inode row;
    errint error = view_has(ino) ? -EROFS : fault_hit("fs.setattr");
    struct node *node = error ? NULL : node_get(fs, ino);
    if (!error && !node)
        error = -ENOMEM;
    uint64_t moved_to = 0;
    bool lacks =
        !error && (set & FUSE_SET_ATTR_SIZE) && trash_may_give(fs) && room_lacks(fs, ino, wanted->st_size);
    if (lacks && retry_truncate(request, ino, wanted, set)) {
        node_put(fs, node);
        return;
    }
    if (!error && (set & FUSE_SET_ATTR_MTIME) && !(set & FUSE_SET_ATTR_MTIME_NOW))
        writers_note_times(fs, ino);
    if (!error && (set & FUSE_SET_ATTR_SIZE))
        rewrite_before_file(fs, ino, fuse_req_ctx(request)->pid);
    if (!error) {
        node_lock(node);
        error = ops_setattr_locked(request, node, wanted, set, &row);
        moved_to = error == -ESTALE ? node->moved_to : 0;
        node_unlock(node);
    }
    if (moved_to)
        expire_names(request, moved_to, ino);
    else
        ops_reply_attributes(request, error, &row);
    node_put(fs, node);
}

void ops_readlink(fuse_req_t request, fuse_ino_t ino)
{
    char target[PATH_MAX + 1];
    if (view_has(ino) && view_kind(ino) != VIEW_FILE) {
        view_readlink(request, ino);
        return;
    }
    ssize_t length = meta_content_read(fs_of(request)->meta, view_target(ino), target, PATH_MAX);
    if (length < 0) {
        fuse_reply_err(request, (int)-length);
        return;
    }
    target[length] = '\0';
    fuse_reply_readlink(request, target);
}

void ops_statfs(fuse_req_t request, fuse_ino_t ino)
{
    (void)ino;
    struct filesystem *fs = fs_of(request);
    struct statvfs figures;
    struct meta_totals totals;
    if (fstatvfs(fs->store->fd, &figures) < 0) {
        fuse_reply_err(request, errno);
        return;
    }
    errint error = meta_count(fs->meta, &totals);
    if (error) {
        fuse_reply_err(request, -error);
        return;
    }
    /* What is in the trash is free: who needs the space gets it. */
    fsblkcnt_t trash = (fsblkcnt_t)trash_bytes(fs) / figures.f_frsize;
    trash = trash > figures.f_blocks - figures.f_bfree ? figures.f_blocks - figures.f_bfree : trash;
    figures.f_bfree += trash;
    figures.f_bavail += trash;
    /* Inodes are rows: as many as the space allows at, say, one a block. */
    figures.f_files = totals.inodes + figures.f_bfree;
    figures.f_ffree = figures.f_bfree;
    figures.f_favail = figures.f_bavail;
    figures.f_namemax = META_NAME_MAX;
    fuse_reply_statfs(request, &figures);
}

/* -- extended attributes ----------------------------------------------------------------------------------
 */

static bool ops_xattr_is_ours(const char *name)
{
    return strncmp(name, OPS_XATTR_OURS, strlen(OPS_XATTR_OURS)) == 0;
}

/* Attributes that are answered and never listed, so that no copier takes them along. */
static ssize_t ops_xattr_ours(struct filesystem *fs, uint64_t ino, const char *name, char *value,
                              size_t capacity)
{
    struct meta_inode row;
    errint error = meta_get(fs->meta, ino, &row);
    if (error)
        return error;
    if (strcmp(name, OPS_XATTR_STATE) != 0 || !S_ISREG(row.mode))
        return -ENODATA;
    struct node *node = node_find(fs, ino);
    bool open = false, stood = false;
    if (node) {
        node_lock_shared(node);
        open = node->writers > 0;
        stood = node->stood_at && node->kind == META_EXTENTS && node_is_as_synced(node, &row);
        node_unlock(node);
        node_put(fs, node);
    }
    const char *text = "durable";
    if (row.state & META_TORN)
        text = "torn";
    else if (row.state & META_SHED)
        text = "shed";
    else if (open)
        text = "writing";
    else if ((row.state & META_DIRTY) && !stood)
        text = "closed";
    size_t length = strlen(text);
    if (capacity > 0 && capacity < length)
        return -ERANGE;
    if (capacity > 0)
        memcpy(value, text, length);
    return (ssize_t)length;
}

/* Whether the name is of a kind that is kept here. "system." would be access control lists, to be enforced.
 */
static errint ops_xattr_space(const char *name)
{
    static const char *const spaces[] = {"user.", "trusted.", "security."};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        size_t length = strlen(spaces[i]);
        if (strncmp(name, spaces[i], length) == 0)
            return name[length] ? 0 : -EINVAL;
    }
    return -EOPNOTSUPP;
}

static errint ops_xattr_allowed(const char *name)
{
    if (strlen(name) > XATTR_NAME_MAX)
        return -ERANGE;
    return ops_xattr_is_ours(name) ? -EPERM : ops_xattr_space(name);
}

void ops_setxattr(fuse_req_t request, fuse_ino_t ino, const char *name, const char *value, size_t size,
                  int flags)
{
    struct filesystem *fs = fs_of(request);
    uint64_t ignored;
    errint error = view_has(ino) ? -EROFS : fault_hit("fs.setxattr");
    if (!error && !state_request_was_done(fs->state, fs_current_unique(), &ignored)) {
        error = ops_xattr_allowed(name);
        if (!error)
            error = space_check(fs);
        if (!error)
            error = meta_xattr_set(fs->meta, ino, name, value, size, flags, clock_file_time(),
                                   fs_current_unique());
    }
    fuse_reply_err(request, -error);
}

static void ops_reply_xattr(fuse_req_t request, ssize_t length, const char *bytes, size_t capacity)
{
    if (length < 0)
        fuse_reply_err(request, (int)-length);
    else if (capacity == 0)
        fuse_reply_xattr(request, (size_t)length);
    else
        fuse_reply_buf(request, bytes, (size_t)length);
}

void ops_getxattr(fuse_req_t request, fuse_ino_t ino, const char *name, size_t size)
{
    struct filesystem *fs = fs_of(request);
    ino = view_target(ino);
    if (control_answers_xattr(request, ino, name, size))
        return;
    cleanup_free char *value = malloc(size + 1);
    ssize_t length = -ENOMEM;
    errint unknown = ops_xattr_space(name);
    if (value && unknown)
        length = unknown;
    else if (value && ino == 0)
        length = -ENODATA; /* of a view alone */
    else if (value && ops_xattr_is_ours(name))
        length = ops_xattr_ours(fs, ino, name, value, size);
    else if (value)
        length = meta_xattr_get(fs->meta, ino, name, value, size);
    ops_reply_xattr(request, length, value, size);
}

void ops_listxattr(fuse_req_t request, fuse_ino_t ino, size_t size)
{
    cleanup_free char *names = malloc(size + 1);
    uint64_t target = view_target(ino);
    ssize_t length = names ? 0 : -ENOMEM;
    if (names && target)
        length = meta_xattr_list(fs_of(request)->meta, target, names, size);
    ops_reply_xattr(request, length, names, size);
}

void ops_removexattr(fuse_req_t request, fuse_ino_t ino, const char *name)
{
    struct filesystem *fs = fs_of(request);
    uint64_t ignored;
    errint error = view_has(ino) ? -EROFS : fault_hit("fs.removexattr");
    if (!error && !state_request_was_done(fs->state, fs_current_unique(), &ignored)) {
        error = ops_xattr_allowed(name);
        if (!error)
            error = meta_xattr_remove(fs->meta, ino, name, clock_file_time(), fs_current_unique());
    }
    fuse_reply_err(request, -error);
}
