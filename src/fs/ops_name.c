/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on names: looking up, making, linking, removing, renaming. */
#include "fs/ops.h"

#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "base/fault.h"
#include "ckpt/side_files.h"
#include "fs/assembler.h"
#include "fs/caller.h"
#include "fs/checkpoints.h"
#include "fs/discard.h"
#include "fs/inputs.h"
#include "fs/models.h"
#include "fs/retry.h"
#include "fs/rewrite.h"
#include "fs/space.h"
#include "fs/trash.h"
#include "fs/view.h"
#include "fs/writers.h"
#include "meta/trash.h"

/* A name can change hands between our look-up and the transaction only a few times in a row. */
enum { OPS_RETRIES = 100 };

void ops_fill_entry(struct filesystem *fs, const struct meta_inode *row, struct fuse_entry_param *entry)
{
    *entry = (struct fuse_entry_param){
        .ino = row->ino,
        .attr_timeout = FS_TIMEOUT_SECONDS,
        /* What is assembled goes by itself. */
        .entry_timeout = row->state & META_ASSEMBLED ? 0 : FS_TIMEOUT_SECONDS,
    };
    node_stat_row(fs, row, &entry->attr);
}

errint ops_may_make(struct filesystem *fs, uint64_t parent, const char *name)
{
    if (view_has(parent))
        return -EROFS;
    if (view_is_name(parent, name))
        return -EPERM;
    return space_check(fs);
}

static void ops_reply_row(fuse_req_t request, errint error, const struct meta_inode *row)
{
    if (error) {
        fuse_reply_err(request, -error);
        return;
    }
    struct fuse_entry_param entry;
    ops_fill_entry(fs_of(request), row, &entry);
    fuse_reply_entry(request, &entry);
}

/* For a request that was answered by an earlier daemon, or committed and not answered: its result again. */
static bool ops_answer_again(fuse_req_t request, errint *error, struct meta_inode *row)
{
    struct filesystem *fs = fs_of(request);
    uint64_t made;
    if (!state_request_was_done(fs->state, fs_current_unique(), &made))
        return false;
    *error = row ? meta_get(fs->meta, made, row) : 0;
    return true;
}

/* By "." and ".." the kernel finds what a file handle stands for (open_by_handle_at(2), NFS). */
static errint ops_lookup_dots(struct filesystem *fs, uint64_t ino, bool parent, struct meta_inode *row)
{
    errint error = parent ? meta_parent(fs->meta, ino, &ino) : 0;
    if (!error)
        error = meta_get(fs->meta, ino, row);
    return !error && row->nlink == 0 ? -ENOENT : error;
}

void ops_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    struct filesystem *fs = fs_of(request);
    struct meta_inode row;
    size_t length = strlen(name);
    if (view_has(parent) || view_is_name(parent, name)) {
        view_lookup(request, parent, name);
        return;
    }
    bool dots = strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
    errint error = dots                     ? ops_lookup_dots(fs, parent, name[1] == '.', &row)
                   : length > META_NAME_MAX ? -ENAMETOOLONG
                                            : meta_lookup(fs->meta, parent, name, length, &row);
    /* Who makes a file of an assembled one's name shall not be told that there is one: it gives way. */
    if (!error && !dots && (row.state & META_ASSEMBLED) && caller_makes(fuse_req_ctx(request)->pid, name))
        error = -ENOENT;
    if (error == -ENOENT && !dots) {
        /* Only the kernel makes names, so it may remember that there is none; but for those of models, and
         * of what is lent beside them. */
        bool comes = models_is_model(name, length) || side_file_is(name);
        const struct fuse_entry_param none = {.entry_timeout = comes ? 0 : FS_TIMEOUT_SECONDS};
        fuse_reply_entry(request, &none);
        return;
    }
    ops_reply_row(request, error, &row);
}

/*
 * Inode numbers are never reused and rows are found by number, so there is nothing to count: only an inode
 * without a name has waited for this.
 */
static void ops_forget_inode(struct filesystem *fs, uint64_t ino)
{
    struct node *node = node_find(fs, ino);
    if (!node)
        return;
    node_forgotten(fs, node);
    node_put(fs, node);
}

void ops_forget(fuse_req_t request, fuse_ino_t ino, uint64_t count)
{
    (void)count;
    ops_forget_inode(fs_of(request), ino);
    fuse_reply_none(request);
}

void ops_forget_multi(fuse_req_t request, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        ops_forget_inode(fs_of(request), forgets[i].ino);
    fuse_reply_none(request);
}

static void ops_make(fuse_req_t request, struct meta_new *new)
{
    struct filesystem *fs = fs_of(request);
    const struct fuse_ctx *caller = fuse_req_ctx(request);
    new->length = strlen(new->name);
    new->uid = caller->uid;
    new->gid = caller->gid;
    new->now = clock_file_time();
    struct meta_inode row;
    errint error;
    if (!ops_answer_again(request, &error, &row)) {
        error = ops_may_make(fs, new->parent, new->name);
        if (!error)
            rewrite_before_addition(fs, new->parent, caller->pid);
        if (!error)
            error = meta_create(fs->meta, new, fs_current_unique(), &row);
        if (!error)
            writers_note(fs, S_ISDIR(row.mode) ? row.ino : new->parent, caller->pid);
        if (error == -ENOSPC && retry_make(request, new))
            return;
        if (!error)
            trash_note_creation(fs, new->parent);
    }
    ops_reply_row(request, error, &row);
}

void ops_mknod(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    struct meta_new new = {.parent = parent, .name = name, .mode = mode, .rdev = device};
    errint error = fault_hit("fs.mknod");
    if (error)
        fuse_reply_err(request, -error);
    else
        ops_make(request, &new);
}

void ops_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct meta_new new = {.parent = parent, .name = name, .mode = S_IFDIR | (mode & 07777)};
    errint error = fault_hit("fs.mkdir");
    if (error)
        fuse_reply_err(request, -error);
    else
        ops_make(request, &new);
}

void ops_symlink(fuse_req_t request, const char *target, fuse_ino_t parent, const char *name)
{
    struct meta_new new = {
        .parent = parent,
        .name = name,
        .mode = S_IFLNK | 0777,
        .target = target,
        .target_length = strlen(target),
    };
    errint error = fault_hit("fs.symlink");
    if (error)
        fuse_reply_err(request, -error);
    else
        ops_make(request, &new);
}

void ops_link(fuse_req_t request, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    struct filesystem *fs = fs_of(request);
    struct meta_inode row;
    errint error;
    if (view_has(ino)) {
        error = -EPERM;
    } else if (!ops_answer_again(request, &error, &row)) {
        struct node *node = node_get(fs, ino);
        error = node ? ops_may_make(fs, parent, name) : -ENOMEM;
        if (!error)
            rewrite_before_addition(fs, parent, fuse_req_ctx(request)->pid);
        if (!error) {
            node_lock(node);
            error = meta_link(fs->meta, ino, parent, name, strlen(name), clock_file_time(),
                              fs_current_unique(), &row);
            if (!error) {
                node_relink(fs, node);
                assembler_touch(fs, ino);
                checkpoints_touch(fs, ino);
            }
            node_unlock(node);
        }
        node_put(fs, node);
        if (!error)
            trash_note_creation(fs, parent);
    }
    ops_reply_row(request, error, &row);
}

/* Brings the node of an inode that lost a name in line with its row. The lock is held exclusively. */
static void ops_after_unlink(struct filesystem *fs, struct node *node)
{
    struct meta_inode row;
    if (meta_get(fs->meta, node->ino, &row) == 0 && row.nlink == 0)
        node_await_forget(fs, node);
}

/* What is ours has no other names, and keeps those that it has. */
static errint ops_may_remove(uint64_t parent, const char *name)
{
    if (view_has(parent) && view_source(parent) == parent)
        return -EROFS;
    return view_is_name(parent, name) ? -EPERM : 0;
}

/* A file went that was assembled from, or that nothing was assembled for the sake of. */
static void ops_after_removal(struct filesystem *fs, uint64_t parent)
{
    uint64_t above;
    assembler_touch_directory(fs, parent);
    if (parent != META_ROOT_INO && meta_parent(fs->meta, parent, &above) == 0)
        assembler_touch_directory(fs, above);
}

enum ops_removal { OPS_UNLINK, OPS_RMDIR };

/* With what it names locked. `checkpoint`: that it is a part of, which the trash keeps; 0: none. */
static errint ops_remove_locked(struct filesystem *fs, enum ops_removal kind,
                                const struct meta_trash_removal *removal, struct ids *freed)
{
    const char *name = removal->name;
    const size_t length = removal->length;
    const uint64_t parent = removal->parent, ino = removal->expected, unique = fs_current_unique();
    if (removal->checkpoint)
        return meta_trash_remove(fs->meta, removal, unique, freed);
    if (kind == OPS_UNLINK)
        return meta_unlink(fs->meta, parent, name, length, ino, false, removal->now, unique, freed);
    return meta_rmdir(fs->meta, parent, name, length, ino, false, removal->now, unique);
}

/* The checkpoint whose other parts are in the trash already, or (of a file) may go there. */
static uint64_t ops_find_checkpoint(struct filesystem *fs, enum ops_removal kind, uint64_t parent,
                                    const struct meta_inode *row)
{
    if (kind == OPS_UNLINK)
        return row->state & META_ASSEMBLED ? 0 : trash_find_checkpoint(fs, parent);
    uint64_t checkpoint = trash_find_begun(fs, row->ino);
    return checkpoint == row->ino ? 0 : checkpoint;
}

static void ops_after_trash(struct filesystem *fs, enum ops_removal kind, uint64_t checkpoint, uint64_t ino)
{
    if (checkpoint)
        trash_note_removal(fs, checkpoint);
    if (kind == OPS_RMDIR)
        trash_note_directory_removal(fs, ino);
}

static void ops_after_rmdir(struct filesystem *fs, const struct meta_trash_removal *removal)
{
    rewrite_removed(fs, removal->expected, removal->parent, removal->name, removal->remover);
    checkpoints_after_rmdir(fs, removal->parent, removal->name, removal->expected);
}

/* Looks the name up, locks what it names, and removes it in one transaction: -ESTALE when it was another's.
 */
static errint ops_remove_once(struct filesystem *fs, enum ops_removal kind, uint64_t parent, const char *name,
                              uint32_t remover)
{
    struct meta_inode row;
    size_t length = strlen(name);
    errint error = meta_lookup(fs->meta, parent, name, length, &row);
    if (error)
        return error;
    struct node *node = node_get(fs, row.ino);
    if (!node)
        return -ENOMEM;
    cleanup_ids struct ids freed = {0};
    const struct meta_trash_removal removal = {
        .checkpoint = ops_find_checkpoint(fs, kind, parent, &row),
        .parent = parent,
        .name = name,
        .length = length,
        .expected = row.ino,
        .directory = kind == OPS_RMDIR,
        .remover = remover,
        .now = clock_file_time(),
        .removed = clock_wall(),
    };
    node_lock(node);
    error = ops_remove_locked(fs, kind, &removal, &freed);
    if (!error)
        ops_after_unlink(fs, node);
    node_unlock(node);
    node_put(fs, node);
    if (!error)
        ops_after_trash(fs, kind, removal.checkpoint, row.ino);
    else if (error == -ESTALE)
        trash_note_move(fs);
    if (!error && (models_is_model(name, length) || inputs_has(fs, row.ino)))
        ops_after_removal(fs, parent);
    if (!error && kind == OPS_UNLINK)
        checkpoints_after_removal(fs, parent, &(struct checkpoints_file){name, row.ino, row.btime});
    else if (!error)
        ops_after_rmdir(fs, &removal);
    discard_objects(fs, &freed);
    return error;
}

static void ops_remove(fuse_req_t request, enum ops_removal kind, uint64_t parent, const char *name)
{
    struct filesystem *fs = fs_of(request);
    errint error = fault_hit(kind == OPS_UNLINK ? "fs.unlink" : "fs.rmdir");
    if (!error)
        error = ops_may_remove(parent, name);
    parent = view_source(parent);
    if (!error && !ops_answer_again(request, &error, NULL)) {
        error = -ESTALE;
        for (int i = 0; i < OPS_RETRIES && error == -ESTALE; i++)
            error = ops_remove_once(fs, kind, parent, name, fuse_req_ctx(request)->uid);
    }
    fuse_reply_err(request, -error);
}

void ops_unlink(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    ops_remove(request, OPS_UNLINK, parent, name);
}

void ops_rmdir(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    ops_remove(request, OPS_RMDIR, parent, name);
}

/* With both inodes locked, so that neither is opened, sealed or removed meanwhile. */
static errint ops_rename_locked(struct filesystem *fs, struct meta_rename *rename, struct node *target)
{
    cleanup_ids struct ids freed = {0};
    errint error = meta_rename(fs->meta, rename, fs_current_unique(), &freed);
    if (!error && target)
        ops_after_unlink(fs, target);
    discard_objects(fs, &freed);
    return error;
}

/* Checkpoints that were moved, or that a file was moved into or out of. */
static void ops_tell_checkpoints(struct filesystem *fs, const struct meta_rename *rename,
                                 const struct meta_inode *source)
{
    bool directory = S_ISDIR(source->mode), left = rename->parent != rename->new_parent;
    bool exchanged = rename->flags & RENAME_EXCHANGE;
    if (directory) {
        checkpoints_touch_directory(fs, rename->expected);
        if (exchanged)
            checkpoints_touch_directory(fs, rename->replaced);
    } else {
        checkpoints_touch(fs, rename->expected);
    }
    if (!directory && !exchanged)
        checkpoints_after_removal(fs, rename->parent,
                                  &(struct checkpoints_file){rename->name, source->ino, source->btime});
    else if (directory || checkpoints_root(fs, rename->parent))
        checkpoints_touch_directory(fs, rename->parent);
    if (left && (directory || checkpoints_root(fs, rename->new_parent)))
        checkpoints_touch_directory(fs, rename->new_parent);
}

/* What was assembled from a file that has another place now, or whose place another has, is not any more. */
static void ops_after_rename(struct filesystem *fs, const struct meta_rename *rename,
                             const struct meta_inode *source)
{
    bool directory = S_ISDIR(source->mode);
    trash_note_creation(fs, rename->new_parent);
    inputs_change(fs, rename->expected);
    if (directory)
        trash_note_move(fs);
    if (directory)
        rewrite_forget_directories(fs);
    if (directory && rename->replaced)
        trash_note_directory_removal(fs, rename->replaced);
    if (rename->replaced)
        inputs_change(fs, rename->replaced);
    ops_tell_checkpoints(fs, rename, source);
    if (directory) {
        assembler_touch_directory(fs, rename->parent);
        assembler_touch_directory(fs, rename->new_parent);
        assembler_move_directory(fs, rename->expected, rename->parent, rename->new_parent);
        if (rename->flags & RENAME_EXCHANGE)
            assembler_move_directory(fs, rename->replaced, rename->new_parent, rename->parent);
    } else {
        assembler_touch(fs, rename->expected);
    }
    if (models_is_model(rename->name, rename->length))
        assembler_touch_directory(fs, rename->parent);
}

/* A checkpoint that gets a name, or another file under one, is kept as it was. One that a name only leaves
 * has lost that, as by a removal. */
static void ops_before_rename(struct filesystem *fs, const struct meta_rename *rename, pid_t thread)
{
    if (rename->flags & RENAME_EXCHANGE)
        rewrite_before_replacement(fs, rename->parent, rename->name, rename->expected, thread);
    if (rename->replaced)
        rewrite_before_replacement(fs, rename->new_parent, rename->new_name, rename->replaced, thread);
    else
        rewrite_before_addition(fs, rename->new_parent, thread);
}

/* One try: -ESTALE when a name changed hands after its look-up. */
static errint ops_rename_once(struct filesystem *fs, struct meta_rename *rename, pid_t thread)
{
    struct meta_inode source_row, target_row;
    errint error = meta_lookup(fs->meta, rename->parent, rename->name, rename->length, &source_row);
    if (error)
        return error;
    error = meta_lookup(fs->meta, rename->new_parent, rename->new_name, rename->new_length, &target_row);
    if (error && error != -ENOENT)
        return error;
    rename->expected = source_row.ino;
    rename->replaced = error ? 0 : target_row.ino;
    ops_before_rename(fs, rename, thread);
    struct node *source = node_get(fs, rename->expected);
    struct node *target = source && rename->replaced ? node_get(fs, rename->replaced) : NULL;
    if (!source || (rename->replaced && !target)) {
        node_put(fs, source);
        return -ENOMEM;
    }
    node_lock_two(source, target ? target : source);
    error = ops_rename_locked(fs, rename, target);
    if (!error)
        ops_after_rename(fs, rename, &source_row);
    node_unlock_two(source, target ? target : source);
    node_put(fs, target);
    node_put(fs, source);
    return error;
}

void ops_rename(fuse_req_t request, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                const char *new_name, unsigned flags)
{
    struct filesystem *fs = fs_of(request);
    struct meta_rename rename = {
        .parent = view_source(parent),
        .name = name,
        .length = strlen(name),
        .new_parent = new_parent,
        .new_name = new_name,
        .new_length = strlen(new_name),
        .flags = flags,
        .now = clock_file_time(),
    };
    errint error = fault_hit("fs.rename");
    if (!error)
        error = ops_may_remove(parent, name);
    if (!error)
        error = view_has(new_parent) ? -EROFS : ops_may_remove(new_parent, new_name);
    /* What is torn comes back under a name that is free. */
    if (!error && view_has(parent) && flags & RENAME_EXCHANGE)
        error = -EINVAL;
    if (!error && !ops_answer_again(request, &error, NULL)) {
        error = flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) ? -EINVAL : -ESTALE;
        for (int i = 0; i < OPS_RETRIES && error == -ESTALE; i++)
            error = ops_rename_once(fs, &rename, fuse_req_ctx(request)->pid);
    }
    fuse_reply_err(request, -error);
}
