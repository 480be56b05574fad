/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on open files: open, create, read, write, flush, release, fsync and their kin. */
#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fault.h"
#include "fs/clone.h"
#include "fs/content.h"
#include "fs/expire.h"
#include "fs/handle.h"
#include "fs/keep_watch.h"
#include "fs/retry.h"
#include "fs/rewrite.h"
#include "fs/space.h"
#include "fs/trash.h"
#include "fs/view.h"
#include "fs/view_events.h"
#include "fs/writeback.h"
#include "fs/writers.h"

/* Where kernel and library do not say when setuid bits go, a truncation by anybody but root takes them. */
static errint ops_drop_privileges_at_truncation(fuse_req_t request, uint64_t ino)
{
    struct filesystem *fs = fs_of(request);
    bool drops = fs->features.kills_privileges ? protocol_kills_privileges(fs_current_request)
                                               : fuse_req_ctx(request)->uid != 0;
    return drops ? ops_drop_privileges(request, ino) : 0;
}

void ops_open(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct filesystem *fs = fs_of(request);
    if (view_has(ino)) {
        view_open(request, ino, fi);
        return;
    }
    if (handle_reopen(fs, fi)) {
        fuse_reply_open(request, fi);
        return;
    }
    errint error = fault_hit("fs.open");
    struct node *node = error ? NULL : node_get(fs, ino);
    if (!node) {
        fuse_reply_err(request, error ? -error : ENOMEM);
        return;
    }
    if ((fi->flags & O_ACCMODE) != O_RDONLY)
        writers_note_file(fs, ino, fuse_req_ctx(request)->pid);
    if ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC))
        rewrite_before_file(fs, ino, fuse_req_ctx(request)->pid);
    node_lock(node);
    error = handle_open(fs, node, fi->flags, fi);
    if (!error && (fi->flags & O_TRUNC))
        error = ops_drop_privileges_at_truncation(request, ino);
    uint64_t moved_to = error == -ESTALE ? node->moved_to : 0;
    node_unlock(node);
    node_put(fs, node);
    if (!error && (fi->flags & O_ACCMODE) == O_RDONLY)
        keep_watch_opened(fs, ino, fuse_req_ctx(request)->pid);
    if (moved_to)
        expire_names(request, moved_to, ino);
    else if (error)
        /* An inode that is gone: the kernel looks the name up again. */
        fuse_reply_err(request, error == -ENOENT ? ESTALE : -error);
    else if (fuse_reply_open(request, fi) < 0)
        handle_close(fs, fi->fh);
}

/* Makes the inode, on a new object when it will be written. */
static errint ops_create_inode(struct filesystem *fs, struct meta_new *new, bool writes,
                               struct meta_inode *row, struct backing **backing)
{
    *backing = NULL;
    if (writes) {
        new->object = meta_object_next(fs->meta);
        errint error = new->object ? backing_create(&fs->backings, new->object, backing) : -EIO;
        if (error)
            return error;
        struct stat object;
        /* The object's own stamp, so that only a write makes the times differ. */
        if (fstat((*backing)->fd, &object) == 0)
            new->now = clock_from_timespec(&object.st_mtim);
        clock_note_file_time(new->now);
    }
    errint error = meta_create(fs->meta, new, fs_current_unique(), row);
    if (error && *backing) {
        uint64_t object = (*backing)->object;
        backing_put(&fs->backings, *backing);
        *backing = NULL;
        object_remove(fs->store, object);
    }
    return error;
}

/* Opens what was just made (or, for a request sent again, what an earlier daemon made for it). */
static errint ops_create_open(struct filesystem *fs, const struct meta_inode *row, struct backing *backing,
                              struct fuse_file_info *fi)
{
    struct node *node = node_get(fs, row->ino);
    if (!node) {
        backing_put(&fs->backings, backing);
        return -ENOMEM;
    }
    node_lock(node);
    if (backing && !node->loaded) {
        node->kind = META_OBJECT;
        node->backing = backing;
        node->loaded = true;
        writeback_add(fs, node);
    } else {
        backing_put(&fs->backings, backing);
    }
    errint error = handle_open(fs, node, fi->flags & ~O_TRUNC, fi);
    node_unlock(node);
    node_put(fs, node);
    return error;
}

void ops_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                struct fuse_file_info *fi)
{
    struct filesystem *fs = fs_of(request);
    const struct fuse_ctx *caller = fuse_req_ctx(request);
    struct meta_new new = {
        .parent = parent,
        .name = name,
        .length = strlen(name),
        .mode = S_IFREG | (mode & 07777),
        .uid = caller->uid,
        .gid = caller->gid,
        .now = clock_file_time(),
    };
    struct meta_inode row;
    struct backing *backing = NULL;
    uint64_t made;
    errint error = fault_hit("fs.create");
    bool again = state_request_was_done(fs->state, fs_current_unique(), &made);
    if (!error && again)
        error = meta_get(fs->meta, made, &row);
    else if (!error)
        error = ops_may_make(fs, parent, name);
    if (!error && !again)
        rewrite_before_addition(fs, parent, caller->pid);
    if (!error && !again)
        error = ops_create_inode(fs, &new, (fi->flags & O_ACCMODE) != O_RDONLY, &row, &backing);
    if (!error)
        writers_note(fs, parent, caller->pid);
    if (error == -ENOSPC && !again && retry_create(request, parent, name, mode, fi))
        return;
    if (!error && !again)
        trash_note_creation(fs, parent);
    if (!error && !(again && handle_reopen(fs, fi)))
        error = ops_create_open(fs, &row, backing, fi);
    if (error) {
        fuse_reply_err(request, -error);
        return;
    }
    struct fuse_entry_param entry;
    ops_fill_entry(fs, &row, &entry);
    if (fuse_reply_create(request, &entry, fi) < 0)
        handle_close(fs, fi->fh);
}

#ifdef HAVE_FUSE_TMPFILE
void ops_tmpfile(fuse_req_t request, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
    struct filesystem *fs = fs_of(request);
    const struct fuse_ctx *caller = fuse_req_ctx(request);
    struct meta_inode directory, row;
    struct backing *backing = NULL;
    errint error = meta_get(fs->meta, parent, &directory);
    struct meta_new new = {
        .mode = S_IFREG | (mode & 07777),
        .uid = caller->uid,
        .gid = !error && (directory.mode & S_ISGID) ? directory.gid : caller->gid,
        .now = clock_file_time(),
    };
    if (view_has(parent))
        error = -EROFS;
    if (!error)
        error = space_check(fs);
    if (!error)
        error = ops_create_inode(fs, &new, true, &row, &backing);
    if (!error)
        error = ops_create_open(fs, &row, backing, fi);
    if (error) {
        fuse_reply_err(request, -error);
        return;
    }
    struct node *node = node_find(fs, row.ino);
    if (node) {
        node_lock(node);
        node_await_forget(fs, node);
        node_unlock(node);
        node_put(fs, node);
    }
    struct fuse_entry_param entry;
    ops_fill_entry(fs, &row, &entry);
    if (fuse_reply_create(request, &entry, fi) < 0)
        handle_close(fs, fi->fh);
}
#endif

void ops_release(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (view_has(ino) && view_kind(ino) == VIEW_STATUS)
        view_status_close(fi->fh);
    else if (view_has(ino) && view_kind(ino) == VIEW_EVENTS)
        view_events_close(fs_of(request), fi->fh);
    else
        handle_close(fs_of(request), fi->fh);
    fuse_reply_err(request, 0);
}

/* Whether the object may have been changed through a map, of which the kernel's FUSE side does not know. */
static bool ops_may_have_stored(struct node *node)
{
    node_lock_shared(node);
    bool stored = node->mode == NODE_PASSTHROUGH && node->writers > 0;
    node_unlock(node);
    return stored;
}

void ops_flush(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fi;
    struct filesystem *fs = fs_of(request);
    struct node *node = node_find(fs, ino);
    errint error = node ? atomic_exchange(&node->write_error, 0) : 0;
    bool stored = node && ops_may_have_stored(node);
    node_put(fs, node);
    if (stored)
        fuse_lowlevel_notify_inval_inode(fs->session, ino, -1, 0);
    fuse_reply_err(request, -error);
}

/* All other files are always ready, as elsewhere. */
void ops_poll(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *handle)
{
    if (handle)
        fuse_pollhandle_destroy(handle);
    if (view_has(ino) && view_kind(ino) == VIEW_EVENTS)
        view_events_poll(request, fi->fh);
    else
        fuse_reply_poll(request, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
}

/* -- reading and writing ----------------------------------------------------------------------------------
 */

/* One huge page of most processors: FS_MAX_WRITE, and the blocks around it. */
enum { OPS_READ_BUFFER = 2 << 20 };
_Static_assert(OPS_READ_BUFFER >= FS_MAX_WRITE + 2 * CONTENT_ALIGNMENT, "a read does not fit");

/* Each thread that answers the kernel has one buffer for what it reads. In one piece of memory, a read from
 * the disk is few long pieces, and the kernel finds the pages with less work. */
static char *ops_read_buffer(void)
{
    if (!fs_read_buffer) {
        fs_read_buffer = aligned_alloc(OPS_READ_BUFFER, OPS_READ_BUFFER);
        if (fs_read_buffer)
            madvise(fs_read_buffer, OPS_READ_BUFFER, MADV_HUGEPAGE);
    }
    return fs_read_buffer;
}

void ops_read(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    struct filesystem *fs = fs_of(request);
    if (view_has(ino) && view_kind(ino) == VIEW_STATUS) {
        view_status_read(request, ino, size, offset, fi->fh);
        return;
    }
    if (view_has(ino) && view_kind(ino) == VIEW_EVENTS) {
        view_events_read(request, size, fi);
        return;
    }
    char *buffer = ops_read_buffer();
    struct node *node = buffer ? node_get(fs, view_target(ino)) : NULL;
    if (!node) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    struct state_handle *handle = state_handle_find(fs->state, fi->fh);
    if (handle && handle->mode == STATE_PASSTHROUGH && !view_has(ino)) {
        /* readahead(2) on a passthrough handle fills the inode's own cache, which nothing keeps up to date.
         */
        node_lock(node);
        node->stale_pages = true;
        node_unlock(node);
    }
    if (size > FS_MAX_WRITE)
        size = FS_MAX_WRITE;
    char *data;
    ssize_t got = content_read(fs, node, buffer, size, offset, &data);
    node_put(fs, node);
    if (got < 0)
        fuse_reply_err(request, (int)-got);
    else
        fuse_reply_buf(request, data, (size_t)got);
}

/* What a synchronous write still waits for. */
struct ops_sync {
    struct filesystem *fs;
    struct node *node;
    fuse_req_t request;
    size_t written; /* 0: an fsync */
    uint64_t unique;
};

static void ops_sync_run(void *context, unsigned worker)
{
    struct ops_sync *sync = context;
    struct filesystem *fs = sync->fs;
    unsigned slot = STATE_REQUESTS - 1 - worker;
    state_request_begin(fs->state, slot, sync->unique, 0, sync->node ? sync->node->ino : 0);
    int64_t begun = clock_monotonic();
    errint error;
    if (!sync->node)
        error = meta_sync(fs->meta);
    else if (sync->written)
        error = writeback_sync_node(fs, sync->node);
    else
        error = writeback_fsync_node(fs, sync->node);
    if (!sync->written)
        counters_add_fsync(&fs->counters, clock_monotonic() - begun);
    if (error)
        fuse_reply_err(sync->request, -error);
    else if (sync->written)
        fuse_reply_write(sync->request, sync->written);
    else
        fuse_reply_err(sync->request, 0);
    state_request_end(fs->state, slot);
    node_put(fs, sync->node);
    free(sync);
}

/* Answers after a sync by a worker. Takes over the reference to the node (NULL: the namespace alone). */
static void ops_sync_later(fuse_req_t request, struct node *node, size_t written)
{
    struct filesystem *fs = fs_of(request);
    struct ops_sync *sync = malloc(sizeof *sync);
    if (sync) {
        *sync = (struct ops_sync){fs, node, request, written, fs_current_unique()};
        if (workers_submit(fs->workers, ops_sync_run, sync) == 0)
            return;
    }
    free(sync);
    node_put(fs, node);
    fuse_reply_err(request, ENOMEM);
}

void ops_write(fuse_req_t request, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
               struct fuse_file_info *fi)
{
    struct filesystem *fs = fs_of(request);
    struct node *node = node_get(fs, ino);
    if (!node) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    errint error = fault_hit("fs.write");
    if (!error && protocol_kills_privileges(fs_current_request))
        error = ops_drop_privileges(request, ino);
    /* What the daemon itself has to store, so that more is given up, comes first. */
    if (!error && retry_should_wait(fs, (int64_t)size))
        error = -ENOSPC;
    if (!error)
        error = content_write(fs, node, bytes, size, offset);
    if (!error && (fi->flags & O_DSYNC)) {
        ops_sync_later(request, node, size);
        return;
    }
    node_put(fs, node);
    if (error == -ENOSPC && retry_write(request, ino, bytes, size, offset, fi))
        return;
    if (error == -ENOSPC)
        atomic_fetch_add(&fs->counters.refused, 1);
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_write(request, size);
}

void ops_fsync(fuse_req_t request, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)datasync;
    (void)fi;
    struct node *node = node_get(fs_of(request), view_target(ino));
    if (node)
        ops_sync_later(request, node, 0);
    else
        fuse_reply_err(request, ENOMEM);
}

void ops_fsync_directory(fuse_req_t request, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    (void)datasync;
    (void)fi;
    ops_sync_later(request, NULL, 0);
}

/* The kernel says of no such change that it drops setuid bits; Linux's filesystems do unless root makes it.
 */
static errint ops_drop_privileges_of_caller(fuse_req_t request, uint64_t ino)
{
    return fuse_req_ctx(request)->uid == 0 ? 0 : ops_drop_privileges(request, ino);
}

/* -- space ------------------------------------------------------------------------------------------------
 */

void ops_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length,
                   struct fuse_file_info *fi)
{
    (void)fi;
    struct filesystem *fs = fs_of(request);
    struct node *node = node_get(fs, ino);
    if (!node) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    node_lock(node);
    errint error = node_load(fs, node);
    if (!error)
        error = ops_drop_privileges_of_caller(request, ino);
    if (!error)
        error = content_allocate(fs, node, mode, offset, length);
    if (error == -ENOSPC)
        atomic_fetch_add(&fs->counters.refused, 1);
    node_unlock(node);
    node_put(fs, node);
    if (error == -ENOSPC && retry_fallocate(request, ino, mode, offset, length))
        return;
    fuse_reply_err(request, -error);
}

void ops_lseek(fuse_req_t request, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
    (void)fi;
    struct filesystem *fs = fs_of(request);
    struct node *node = node_get(fs, view_target(ino));
    if (!node) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    node_lock(node);
    errint error = node_load(fs, node);
    int64_t found = error ? error : content_seek(fs, node, offset, whence);
    node_unlock(node);
    node_put(fs, node);
    if (found < 0)
        fuse_reply_err(request, (int)-found);
    else
        fuse_reply_lseek(request, found);
}

void ops_copy_file_range(fuse_req_t request, fuse_ino_t from, off_t from_offset,
                         struct fuse_file_info *from_fi, fuse_ino_t to, off_t to_offset,
                         struct fuse_file_info *to_fi, size_t length, int flags)
{
    (void)from_fi;
    (void)to_fi;
    struct filesystem *fs = fs_of(request);
    struct node *source = node_get(fs, view_target(from));
    struct node *destination = source ? node_get(fs, to) : NULL;
    ssize_t copied = -ENOMEM;
    if (flags)
        copied = -EINVAL;
    else if (destination)
        copied = ops_drop_privileges_of_caller(request, to);
    if (copied == 0)
        copied = clone_range(fs, source, from_offset, destination, to_offset, (int64_t)length);
    node_put(fs, destination);
    node_put(fs, source);
    if (copied < 0)
        fuse_reply_err(request, (int)-copied);
    else
        fuse_reply_write(request, (size_t)copied);
}
