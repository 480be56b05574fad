/* SPDX-License-Identifier: Apache-2.0 */
/* The inodes in use. */
#include "fs/node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/discard.h"
#include "fs/filesystem.h"
#include "fs/node_extents.h"
#include "fs/protocol.h"
#include "meta/assembled.h"
#include "store/object.h"

void node_table_init(struct node_table *table)
{
    *table = (struct node_table){.count = 0};
    pthread_mutex_init(&table->lock, NULL);
}

void node_table_release(struct filesystem *fs)
{
    for (size_t i = 0; i < NODE_BUCKETS; i++) {
        while (fs->nodes.buckets[i]) {
            fs->nodes.buckets[i]->references = 1;
            node_put(fs, fs->nodes.buckets[i]);
        }
    }
}

static struct node **node_bucket(struct node_table *table, uint64_t ino)
{
    return &table->buckets[(ino * UINT64_C(0x9e3779b97f4a7c15)) >> 52];
}

static struct node *node_new(uint64_t ino)
{
    struct node *node = calloc(1, sizeof *node);
    if (!node)
        return NULL;
    node->ino = ino;
    node->references = 1;
    pthread_rwlock_init(&node->lock, NULL);
    return node;
}

static struct node *node_take(struct filesystem *fs, uint64_t ino, bool make)
{
    struct node_table *table = &fs->nodes;
    pthread_mutex_lock(&table->lock);
    struct node **bucket = node_bucket(table, ino);
    struct node *node = *bucket;
    while (node && node->ino != ino)
        node = node->next;
    if (node) {
        node->references++;
    } else if (make && (node = node_new(ino))) {
        node->next = *bucket;
        *bucket = node;
        atomic_fetch_add(&table->count, 1);
    }
    pthread_mutex_unlock(&table->lock);
    return node;
}

struct node *node_get(struct filesystem *fs, uint64_t ino)
{
    return node_take(fs, ino, true);
}

struct node *node_find(struct filesystem *fs, uint64_t ino)
{
    return node_take(fs, ino, false);
}

struct node *node_hold(struct filesystem *fs, struct node *node)
{
    pthread_mutex_lock(&fs->nodes.lock);
    node->references++;
    pthread_mutex_unlock(&fs->nodes.lock);
    return node;
}

void node_put(struct filesystem *fs, struct node *node)
{
    if (!node)
        return;
    pthread_mutex_lock(&fs->nodes.lock);
    bool last = --node->references == 0;
    if (last) {
        struct node **link = node_bucket(&fs->nodes, node->ino);
        while (*link != node)
            link = &(*link)->next;
        *link = node->next;
        atomic_fetch_sub(&fs->nodes.count, 1);
    }
    pthread_mutex_unlock(&fs->nodes.lock);
    if (!last)
        return;
    node_drop_content(fs, node);
    pthread_rwlock_destroy(&node->lock);
    free(node);
}

void node_each(struct filesystem *fs, void (*visit)(struct node *node, void *context), void *context)
{
    for (size_t i = 0; i < NODE_BUCKETS; i++) {
        cleanup_ids struct ids inodes = {0};
        pthread_mutex_lock(&fs->nodes.lock);
        errint error = 0;
        for (struct node *node = fs->nodes.buckets[i]; node && !error; node = node->next)
            error = ids_append(&inodes, node->ino);
        pthread_mutex_unlock(&fs->nodes.lock);
        for (size_t j = 0; j < inodes.count; j++) {
            struct node *node = node_find(fs, inodes.at[j]);
            if (!node)
                continue;
            node_lock_shared(node);
            visit(node, context);
            node_unlock(node);
            node_put(fs, node);
        }
    }
}

void node_lock(struct node *node)
{
    pthread_rwlock_wrlock(&node->lock);
}

void node_lock_shared(struct node *node)
{
    pthread_rwlock_rdlock(&node->lock);
}

void node_unlock(struct node *node)
{
    pthread_rwlock_unlock(&node->lock);
}

void node_lock_two(struct node *a, struct node *b)
{
    node_lock(a->ino <= b->ino ? a : b);
    if (a != b)
        node_lock(a->ino <= b->ino ? b : a);
}

void node_unlock_two(struct node *a, struct node *b)
{
    node_unlock(a);
    if (a != b)
        node_unlock(b);
}

void node_drop_content(struct filesystem *fs, struct node *node)
{
    backing_put(&fs->backings, node->backing);
    node->backing = NULL;
    backing_put(&fs->backings, node->overlay);
    node->overlay = NULL;
    node_forget_extents(node);
    node->copy = (struct node_copy){0};
}

/* A damaged object is not handed out: the daemon gives EIO for what is wrong, and the rest of the file. */
static void node_refuse_damaged(struct filesystem *fs, struct node *node)
{
    struct stat object;
    bool is_short = fstat(node->backing->fd, &object) == 0 && object.st_size < node->size;
    bool damaged = damage_touches(fs, node->backing->object, 0, node->size);
    if (is_short)
        log_error(
            "inode %llu: object %016llx ends at %lld, expected %lld bytes; reads of what is missing give EIO",
            (unsigned long long)node->ino, (unsigned long long)node->backing->object,
            (long long)object.st_size, (long long)node->size);
    if (damaged)
        log_error("inode %llu: object %016llx is damaged; reads of damaged bytes give EIO",
                  (unsigned long long)node->ino, (unsigned long long)node->backing->object);
    if (!is_short && !damaged)
        return;
    backing_put(&fs->backings, node->backing);
    node->backing = NULL;
}

/* Finds out whether one object is the whole file, so that it can be opened by passthrough. */
static errint node_find_single(struct filesystem *fs, struct node *node)
{
    errint error = node_extents(fs, node);
    if (error || node->extent_count != 1)
        return error;
    const struct meta_extent *only = &node->extents[0];
    int64_t object_size;
    if (only->offset != 0 || only->object_offset != 0 || only->length != node->size)
        return 0;
    error = meta_object_size(fs->meta, only->object, &object_size);
    if (error || object_size != node->size)
        return error == -ENOENT ? 0 : error;
    error = backing_get(&fs->backings, only->object, &node->backing);
    if (error == -ENOENT)
        log_error("inode %llu: object %016llx is missing; reads give EIO", (unsigned long long)node->ino,
                  (unsigned long long)only->object);
    if (!error)
        node_refuse_damaged(fs, node);
    return error == -ENOENT ? 0 : error;
}

errint node_adopt_row(struct filesystem *fs, struct node *node, const struct meta_inode *row)
{
    node_drop_content(fs, node);
    node->kind = row->kind;
    node->size = row->size;
    node->dirty = row->state & META_DIRTY;
    node->assembled = row->state & META_ASSEMBLED;
    node->shed = row->state & META_SHED;
    errint error = 0;
    if (!S_ISREG(row->mode))
        node->kind = META_NONE;
    else if (row->kind == META_OBJECT)
        error = backing_get(&fs->backings, row->object, &node->backing);
    else if (row->kind == META_EXTENTS)
        error = node_find_single(fs, node);
    node->loaded = error == 0;
    return error == -ENOENT ? -EIO : error;
}

errint node_load(struct filesystem *fs, struct node *node)
{
    if (node->gone)
        return -ENOENT;
    if (node->look_again && node->mode == NODE_IDLE && node->kind == META_EXTENTS && !node->overlay)
        node->loaded = node->look_again = false;
    if (node->loaded)
        return 0;
    struct meta_inode row;
    errint error = meta_get(fs->meta, node->ino, &row);
    return error ? error : node_adopt_row(fs, node, &row);
}

bool node_is_as_synced(const struct node *node, const struct meta_inode *row)
{
    return row->size == node->synced_size && row->mtime == node->synced_mtime;
}

errint node_refresh_row(struct node *node, struct meta_inode *row)
{
    struct stat object;
    if (fstat(node->backing->fd, &object) < 0)
        return -errno;
    int64_t mtime = clock_from_timespec(&object.st_mtim);
    clock_note_file_time(mtime);
    row->size = object.st_size;
    /* A change of the object's mtime is a write; explicit times are set on the row and on the object alike.
     */
    if (mtime != row->mtime) {
        row->mtime = mtime;
        if (mtime > row->ctime)
            row->ctime = mtime;
    }
    return 0;
}

static void node_stat_from_row(const struct meta_inode *row, struct stat *status)
{
    *status = (struct stat){
        .st_ino = row->ino,
        .st_mode = row->mode,
        .st_nlink = row->nlink,
        .st_uid = row->uid,
        .st_gid = row->gid,
        .st_rdev = row->rdev,
        .st_size = row->size,
        .st_blocks = (row->size + 511) / 512,
        .st_blksize = 4096,
        .st_atim = clock_to_timespec(row->atime),
        .st_mtim = clock_to_timespec(row->mtime),
        .st_ctim = clock_to_timespec(row->ctime),
    };
}

void node_fill_stat(struct filesystem *fs, struct node *node, const struct meta_inode *row,
                    struct stat *status)
{
    struct meta_inode now = *row;
    struct backing *borrowed = NULL;
    struct node stand_in = {.ino = row->ino};
    bool written = S_ISREG(row->mode) && row->kind == META_OBJECT;
    if (written && (!node || !node->backing)) {
        /* Nobody uses it: it waits for its seal. */
        if (backing_get(&fs->backings, row->object, &borrowed) == 0)
            stand_in.backing = borrowed;
        node = &stand_in;
    }
    if (written && node->backing)
        node_refresh_row(node, &now);
    node_stat_from_row(&now, status);
    backing_put(&fs->backings, borrowed);
}

void node_stat_row(struct filesystem *fs, const struct meta_inode *row, struct stat *status)
{
    if (!S_ISREG(row->mode)) {
        node_stat_from_row(row, status);
        return;
    }
    struct node *node = node_find(fs, row->ino);
    if (!node) {
        node_fill_stat(fs, NULL, row, status);
        return;
    }
    node_lock_shared(node);
    /* The row may be older than the node: what the file is made of can have changed in between. */
    struct meta_inode now;
    if (meta_get(fs->meta, row->ino, &now) < 0)
        now = *row;
    node_fill_stat(fs, node->loaded && node->kind == META_OBJECT ? node : NULL, &now, status);
    node_unlock(node);
    node_put(fs, node);
}

void node_await_forget(struct filesystem *fs, struct node *node)
{
    if (node->unlinked)
        return;
    node->unlinked = true;
    node_hold(fs, node);
}

void node_relink(struct filesystem *fs, struct node *node)
{
    if (!node->unlinked)
        return;
    node->unlinked = false;
    node_put(fs, node);
}

/* What has neither a name nor a place to be shown in. The lock is held. */
static bool node_is_nameless(struct filesystem *fs, const struct node *node)
{
    struct meta_inode row;
    errint error = meta_get(fs->meta, node->ino, &row);
    if (!error && (row.state & META_ASSEMBLED))
        return meta_assembled_shown(fs->meta, node->ino) == 0;
    return error ? error == -ENOENT : row.nlink == 0;
}

/* Whether somebody sees the object, which is the whole file. The lock is held. */
static bool node_is_seen(struct filesystem *fs, struct node *node)
{
    return node_load(fs, node) == 0 && node->backing && backing_is_free(node->backing, BACKING_READERS) == 0;
}

/* Whether it waits for nothing but the kernel: who has it open ends it. `seen`: see node_is_seen. */
static bool node_reap_begin(struct filesystem *fs, struct node *node, bool *seen)
{
    node_lock(node);
    bool nameless = !node->gone && node_is_nameless(fs, node);
    /* From here on a FORGET comes back to it. */
    if (nameless)
        node_await_forget(fs, node);
    node->outlived |= nameless && node->handles > 0;
    bool waits = nameless && node->handles == 0;
    *seen = waits && node_is_seen(fs, node);
    node_unlock(node);
    return waits;
}

static void node_reap_end(struct filesystem *fs, struct node *node)
{
    node_lock(node);
    bool reaped = !node->gone && node->unlinked && node->handles == 0;
    if (reaped) {
        node->gone = true;
        node_drop_content(fs, node);
        discard_inode(fs, node->ino);
    }
    node_unlock(node);
    if (reaped)
        node_put(fs, node);
}

void node_reap(struct filesystem *fs, struct node *node)
{
    bool seen;
    if (!node_reap_begin(fs, node, &seen))
        return;
    /* A map by passthrough has no handle: what it shows must not become the only file's that shares it. The
     * kernel is not asked with the lock, since its answer waits for an inode that is being evicted, and that
     * for its pages. */
    if (!seen || !protocol_knows_inode(fs->options->fuse_fd, node->ino))
        node_reap_end(fs, node);
}

void node_forgotten(struct filesystem *fs, struct node *node)
{
    bool seen;
    node_lock_shared(node);
    bool unlinked = node->unlinked;
    node_unlock(node);
    if (unlinked && node_reap_begin(fs, node, &seen))
        node_reap_end(fs, node);
}

void node_reap_all(struct filesystem *fs, const struct ids *inodes)
{
    for (size_t i = 0; i < inodes->count; i++) {
        struct node *node = node_get(fs, inodes->at[i]);
        if (!node)
            continue;
        node_reap(fs, node);
        node_put(fs, node);
    }
}
