/* SPDX-License-Identifier: Apache-2.0 */
/* Adding a directory up. */
#include "fs/tree_sum.h"

#include <errno.h>
#include <string.h>

#include "base/ids.h"
#include "format/internal.h"

enum { TREE_SUM_ROWS = 512 /* read under one lock */ };

struct tree_sum_work {
    struct filesystem *fs;
    struct tree_sum *out;
    struct ids directories;  /* still to be read */
    struct meta_inode *open; /* files that are being written, of the page that was read last */
    size_t open_count;
    uint64_t last; /* cookie */
    size_t rows;
    errint error;
};

static void tree_sum_release(struct tree_sum_work *work)
{
    ids_release(&work->directories);
    free(work->open);
}

static void tree_sum_print(struct tree_sum *out, const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < length; i++)
        out->print = format_hash_byte(out->print, at[i]);
}

static void tree_sum_take_file(struct tree_sum_work *work, const struct meta_inode *inode)
{
    struct tree_sum *out = work->out;
    const int64_t shape[] = {(int64_t)inode->ino, inode->size, inode->mtime, (int64_t)inode->kind,
                             (int64_t)inode->state};
    tree_sum_print(out, shape, sizeof shape);
    out->files++;
    out->dirty += (inode->state & META_DIRTY) != 0;
    out->torn += (inode->state & META_TORN) != 0;
    if (out->begun == 0 || inode->btime < out->begun)
        out->begun = inode->btime;
    if (inode->mtime > out->changed)
        out->changed = inode->mtime;
    if (inode->kind == META_OBJECT) {
        out->writing++;
        work->open[work->open_count++] = *inode;
    } else {
        out->bytes += inode->size;
        out->written += inode->size;
    }
}

static bool tree_sum_take_entry(void *context, const char *name, size_t length, uint64_t cookie,
                                const struct meta_inode *inode)
{
    struct tree_sum_work *work = context;
    if (!(inode->state & META_ASSEMBLED)) {
        tree_sum_print(work->out, name, length);
        if (S_ISDIR(inode->mode))
            work->error = ids_append(&work->directories, inode->ino);
        else if (S_ISREG(inode->mode))
            tree_sum_take_file(work, inode);
    }
    work->last = cookie;
    return !work->error && ++work->rows < TREE_SUM_ROWS;
}

/* Size of a file that is being written, and what the disk has of it. */
static void tree_sum_look(struct filesystem *fs, const struct meta_inode *row, int64_t *size, int64_t *kept)
{
    struct stat object;
    bool known = false, writes = false;
    struct node *node = node_find(fs, row->ino);
    if (node) {
        node_lock_shared(node);
        known = node->kind == META_OBJECT && node->backing && fstat(node->backing->fd, &object) == 0;
        writes = node->writers > 0;
        node_unlock(node);
        node_put(fs, node);
    }
    *size = *kept = known ? object.st_size : row->size;
    if (known && writes && (int64_t)object.st_blocks * 512 < *kept)
        *kept = (int64_t)object.st_blocks * 512;
}

/* Called without the namespace's lock. */
static void tree_sum_look_at_open(struct tree_sum_work *work)
{
    for (size_t i = 0; i < work->open_count; i++) {
        int64_t size, kept;
        tree_sum_look(work->fs, &work->open[i], &size, &kept);
        work->out->bytes += size;
        work->out->written += kept;
    }
    work->open_count = 0;
}

static errint tree_sum_read_directory(struct tree_sum_work *work, uint64_t directory,
                                      bool (*stops)(struct filesystem *fs))
{
    work->last = 0;
    do {
        work->rows = 0;
        errint error = meta_list(work->fs->meta, directory, work->last, tree_sum_take_entry, work);
        if (!error)
            error = work->error;
        if (error)
            return error;
        tree_sum_look_at_open(work);
        if (stops && stops(work->fs))
            return -ECANCELED;
    } while (work->rows == TREE_SUM_ROWS);
    return 0;
}

errint tree_sum_add_up(struct filesystem *fs, const struct tree_sum_asked *asked, struct tree_sum *out)
{
    __attribute__((cleanup(tree_sum_release))) struct tree_sum_work work = {.fs = fs, .out = out};
    struct meta_inode row;
    *out = (struct tree_sum){.print = FORMAT_HASH_START};
    work.open = malloc(TREE_SUM_ROWS * sizeof *work.open);
    if (!work.open)
        return -ENOMEM;
    errint error = meta_get(fs->meta, asked->ino, &row);
    if (error || !S_ISDIR(row.mode)) {
        if (!error)
            tree_sum_take_file(&work, &row);
        tree_sum_look_at_open(&work);
        return error;
    }
    error = tree_sum_read_directory(&work, row.ino, asked->stops);
    while (!error && !asked->own_only && work.directories.count > 0) {
        error = tree_sum_read_directory(&work, work.directories.at[--work.directories.count], asked->stops);
        /* It was removed meanwhile. */
        error = error == -ENOENT ? 0 : error;
    }
    return error;
}
