/* SPDX-License-Identifier: Apache-2.0 */
/* Open handles and the mode that each inode is served in. */
#include "fs/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/log.h"
#include "fs/content.h"
#include "fs/inputs.h"
#include "fs/seal.h"
#include "fs/share.h"
#include "fs/trash.h"
#include "fs/writeback.h"
#include "meta/beside.h"

static bool handle_writes(uint32_t flags)
{
    return (flags & O_ACCMODE) != O_RDONLY;
}

static void handle_fill(struct filesystem *fs, const struct node *node, const struct state_handle *handle,
                        struct fuse_file_info *fi)
{
    fi->direct_io = handle->mode == STATE_DIRECT || handle->mode == STATE_PASSTHROUGH_DIRECT;
    fi->keep_cache = handle->mode == STATE_CACHED && !node->stale_pages;
#ifdef HAVE_FUSE_PASSTHROUGH
    if (handle->mode == STATE_PASSTHROUGH || handle->mode == STATE_PASSTHROUGH_DIRECT)
        fi->backing_id = handle->backing_id;
#endif
#ifdef HAVE_FUSE_PARALLEL_DIRECT_WRITES
    fi->parallel_direct_writes = fi->direct_io && fs->features.parallel_writes;
#else
    (void)fs;
#endif
}

/* Whether the first handle of an inode can go by passthrough. */
static bool handle_may_pass(struct filesystem *fs, struct node *node, uint32_t flags)
{
    if (!fs->features.passthrough || !node->backing)
        return false;
    if (!handle_writes(flags))
        return true;
    struct meta_inode row;
    return node->kind == META_OBJECT && !(flags & O_DSYNC) && !atomic_load(&fs->disk_full) &&
           !trash_is_short(fs) && meta_get(fs->meta, node->ino, &row) == 0 &&
           /* Whoever writes drops setuid and setgid bits; the kernel leaves that to us. */
           !(row.mode & (S_ISUID | S_ISGID));
}

/* A map by passthrough outlives its handle: it shows the object, and what is written past it would be seen by
 * the next handles alone. */
static bool handle_must_pass(struct filesystem *fs, struct node *node)
{
    return fs->features.passthrough && node->kind == META_OBJECT && content_is_mapped(node);
}

/* The kernel has an object open that was found damaged since: at least what is read now comes to us. */
static bool handle_is_damaged(struct filesystem *fs, const struct node *node)
{
    return node->kind == META_EXTENTS && damage_touches(fs, node->backing->object, 0, node->size);
}

static uint32_t handle_daemon_mode(struct filesystem *fs, uint32_t flags)
{
    if (!handle_writes(flags))
        return STATE_CACHED;
    /* A library that cannot allow mmap on direct_io handles: who may map shared is served through the cache.
     */
    bool maps = (flags & O_ACCMODE) == O_RDWR;
    return maps && !fs->features.direct_mmap ? STATE_CACHED : STATE_DIRECT;
}

/* Picks the mode of this handle, and of the node when it is the first. */
static errint handle_choose(struct filesystem *fs, struct node *node, struct state_handle *handle)
{
    bool writes = handle_writes(handle->flags);
    bool pass =
        node->mode == NODE_PASSTHROUGH ||
        (node->mode == NODE_IDLE && (handle_may_pass(fs, node, handle->flags) || handle_must_pass(fs, node)));
    if (pass && !node->backing)
        return -EIO;
    if (pass) {
        int id = backing_register(&fs->backings, node->backing);
        if (id > 0) {
            handle->backing_id = id;
            handle->object = node->backing->object;
            /* The kernel opens the object for itself; one descriptor a file is enough for us. */
            if (node->mode == NODE_IDLE)
                backing_close_writer(node->backing);
            bool direct = handle_is_damaged(fs, node) || (writes && (handle->flags & O_DSYNC));
            handle->mode = direct ? STATE_PASSTHROUGH_DIRECT : STATE_PASSTHROUGH;
            return 0;
        }
        if (node->mode == NODE_PASSTHROUGH)
            return id;
        log_warning("inode %llu: no passthrough: %s", (unsigned long long)node->ino, strerror(-id));
    }
    handle->mode = handle_daemon_mode(fs, handle->flags);
    return 0;
}

static void handle_count(struct filesystem *fs, struct node *node, const struct state_handle *handle)
{
    node_hold(fs, node);
    node->handles++;
    if (handle->mode == STATE_DIRECTORY)
        return;
    if (handle_writes(handle->flags))
        node->writers++;
    if (handle->backing_id > 0) {
        node->passthrough++;
        node->mode = NODE_PASSTHROUGH;
        node->was_passthrough = true;
        /* A first passthrough open throws the inode's cached pages away. */
        node->stale_pages = false;
    } else if (node->mode == NODE_IDLE) {
        node->mode = NODE_DAEMON;
        if (handle->mode == STATE_CACHED)
            node->stale_pages = false;
    }
}

/*
 * A writer of an object that other files share, while passthrough readers see the object itself: the file
 * moves to a new inode, as if it had been renamed over, and the kernel finds that one at its next look-up.
 */
static errint handle_move_aside(struct filesystem *fs, struct node *node)
{
    struct meta_inode moved;
    errint error = meta_fork(fs->meta, node->ino, &moved);
    if (!error) {
        node->moved_to = moved.ino;
        node_await_forget(fs, node);
    }
    /* No name any more: by another hard link that the kernel remembers, or by /proc/self/fd. */
    return error && error != -ENOENT ? error : -ESTALE;
}

errint handle_prepare_change(struct filesystem *fs, struct node *node)
{
    inputs_change(fs, node->ino);
    errint error = node_load(fs, node);
    if (!error && node->assembled) {
        error = meta_assembled_adopt(fs->meta, node->ino);
        node->assembled = error != 0;
    }
    if (error || node->mode != NODE_PASSTHROUGH)
        return error;
    error = content_make_writable(fs, node);
    return error || node->kind == META_OBJECT ? error : handle_move_aside(fs, node);
}

errint handle_open(struct filesystem *fs, struct node *node, int flags, struct fuse_file_info *fi)
{
    bool writes = handle_writes((uint32_t)flags);
    errint error = writes || (flags & O_TRUNC) ? handle_prepare_change(fs, node) : node_load(fs, node);
    if (!error && (flags & O_TRUNC))
        error = content_truncate(fs, node, 0);
    if (!error && writes)
        error = content_make_writable(fs, node);
    /* Whose writes do not stay in memory first. */
    if (!error && writes && (flags & (O_DIRECT | O_DSYNC)))
        error = writeback_sync_mark(fs, node);
    if (error)
        return error;
    struct state_handle handle = {
        .ino = node->ino,
        .unique = fs_current_unique(),
        .flags = (uint32_t)flags & ~(uint32_t)(O_TRUNC | O_CREAT | O_EXCL),
        .opener = fs_current_request ? (int32_t)fs_current_request->pid : 0,
    };
    error = handle_choose(fs, node, &handle);
    if (error)
        return error;
    handle_fill(fs, node, &handle, fi);
    fi->fh = state_handle_open(fs->state, &handle);
    if (!fi->fh) {
        if (handle.backing_id > 0)
            backing_unregister(&fs->backings, node->backing);
        return -ENFILE;
    }
    handle_count(fs, node, &handle);
    return 0;
}

errint handle_open_directory(struct filesystem *fs, struct node *node, struct fuse_file_info *fi)
{
    struct state_handle handle = {
        .ino = node->ino,
        .unique = fs_current_unique(),
        .mode = STATE_DIRECTORY,
    };
    fi->fh = state_handle_open(fs->state, &handle);
    if (!fi->fh)
        return -ENFILE;
    handle_count(fs, node, &handle);
    return 0;
}

bool handle_reopen(struct filesystem *fs, struct fuse_file_info *fi)
{
    uint64_t unique = fs_current_unique();
    if (!(unique & STATE_RESENT))
        return false;
    struct state_handle *handle = state_handle_of_request(fs->state, unique);
    struct node *node = handle ? node_find(fs, handle->ino) : NULL;
    if (!node)
        return false;
    fi->fh = atomic_load(&handle->fh);
    handle_fill(fs, node, handle, fi);
    node_put(fs, node);
    return true;
}

/* What is due when the last handle, or the last writer, has gone. */
static void handle_settle(struct filesystem *fs, struct node *node, bool wrote)
{
    if (node->handles == 0)
        node->mode = NODE_IDLE;
    /* A file that passthrough readers kept from its seal gets it when the last of them goes. */
    bool last = wrote || node->handles == 0;
    if (!last || node->writers > 0 || node->unlinked)
        return;
    if (node->kind == META_OBJECT || node->overlay)
        seal_add(fs, node);
    else if (wrote && node->kind == META_EXTENTS)
        /* A clone into it has sealed it under its writer, or sharing has left it alone for the writer's sake.
         */
        share_add(fs, node->ino);
}

void handle_close(struct filesystem *fs, uint64_t fh)
{
    struct state_handle *slot = state_handle_find(fs->state, fh);
    struct node *node = slot ? node_find(fs, slot->ino) : NULL;
    if (!node)
        return;
    struct state_handle handle = {.flags = slot->flags, .mode = slot->mode, .backing_id = slot->backing_id};
    node_lock(node);
    state_handle_close(fs->state, fh);
    node->handles--;
    bool wrote = handle.mode != STATE_DIRECTORY && handle_writes(handle.flags);
    if (wrote)
        node->writers--;
    if (handle.backing_id > 0) {
        node->passthrough--;
        if (node->backing)
            backing_unregister(&fs->backings, node->backing);
    }
    handle_settle(fs, node, wrote);
    bool outlived = node->outlived && node->handles == 0;
    node_unlock(node);
    if (outlived)
        node_reap(fs, node);
    node_put(fs, node); /* the handle's */
    node_put(fs, node); /* node_find's */
}

/* The kernel has the object open from before it was found damaged: it stays the node's as long. */
static void handle_restore_damaged(struct filesystem *fs, struct node *node, const struct state_handle *slot)
{
    if (slot->backing_id <= 0 || node->backing || node->kind != META_EXTENTS)
        return;
    if (backing_get(&fs->backings, slot->object, &node->backing) == 0)
        node->look_again = true;
}

static errint handle_restore(struct filesystem *fs, struct state_handle *slot)
{
    struct node *node = node_get(fs, slot->ino);
    if (!node)
        return -ENOMEM;
    struct state_handle handle = {.flags = slot->flags, .mode = slot->mode, .backing_id = slot->backing_id};
    node_lock(node);
    errint error = node_load(fs, node);
    if (error) {
        log_error("handle of inode %llu: %s; it is dropped", (unsigned long long)slot->ino, strerror(-error));
        atomic_store(&slot->fh, 0);
    } else {
        handle_restore_damaged(fs, node, slot);
        if (handle.backing_id > 0 && node->backing)
            backing_adopt(node->backing, handle.backing_id);
        handle_count(fs, node, &handle);
        node->stale_pages = true;
    }
    node_unlock(node);
    node_put(fs, node);
    return error == -ENOMEM ? error : 0;
}

errint handle_restore_all(struct filesystem *fs)
{
    uint32_t used = atomic_load(&fs->state->handles_used);
    for (uint32_t i = 0; i < used; i++) {
        struct state_handle *slot = &fs->state->handles[i];
        if (atomic_load(&slot->fh) == 0 || slot->mode == STATE_EVENTS)
            continue;
        errint error = handle_restore(fs, slot);
        if (error)
            return error;
    }
    return 0;
}
