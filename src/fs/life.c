/* SPDX-License-Identifier: Apache-2.0 */
/* Counting the files of a tree. */
#include "fs/life.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/ids.h"
#include "fs/filesystem.h"

enum { LIFE_ROWS = 512 /* read under one lock */ };

struct life_work {
    struct filesystem *fs;
    const struct life_asked *asked;
    struct life *out;
    struct ids directories; /* still to be read */
    struct ids sealed;      /* files that somebody may have open, of the page that was read last */
    struct ids written;     /* the same, of those that are not sealed */
    uint64_t last;          /* cookie */
    size_t rows;
    errint error;
};

static void life_release(struct life_work *life)
{
    ids_release(&life->directories);
    ids_release(&life->sealed);
    ids_release(&life->written);
}

static errint life_take_file(struct life_work *life, const struct meta_inode *inode)
{
    if (life->asked->of_one && inode->uid != life->asked->uid)
        return 0;
    life->out->files++;
    life->out->unsynced += (inode->state & META_DIRTY) != 0;
    life->out->torn += (inode->state & META_TORN) != 0;
    if (inode->kind != META_OBJECT)
        return ids_append(&life->sealed, inode->ino);
    life->out->writing++;
    return ids_append(&life->written, inode->ino);
}

static bool life_take_entry(void *context, const char *name, size_t length, uint64_t cookie,
                            const struct meta_inode *inode)
{
    (void)name, (void)length;
    struct life_work *life = context;
    if (S_ISDIR(inode->mode))
        life->error = ids_append(&life->directories, inode->ino);
    else if (S_ISREG(inode->mode))
        life->error = life_take_file(life, inode);
    life->last = cookie;
    return !life->error && ++life->rows < LIFE_ROWS;
}

/* Called without the namespace's lock. */
static void life_count_handles(struct life_work *life, struct ids *files, bool sealed)
{
    for (size_t i = 0; i < files->count; i++) {
        struct node *node = node_find(life->fs, files->at[i]);
        if (!node)
            continue;
        node_lock_shared(node);
        /* A sealed file is written again as soon as somebody has opened it so. */
        life->out->writing += sealed && node->writers > 0;
        life->out->handles += node->handles;
        node_unlock(node);
        node_put(life->fs, node);
    }
    files->count = 0;
}

static void life_count_open(struct life_work *life)
{
    life_count_handles(life, &life->sealed, true);
    life_count_handles(life, &life->written, false);
}

static errint life_read_directory(struct life_work *life, uint64_t directory)
{
    life->last = 0;
    do {
        life->rows = 0;
        errint error = meta_list(life->fs->meta, directory, life->last, life_take_entry, life);
        if (!error)
            error = life->error;
        if (error)
            /* It was removed meanwhile. */
            return error == -ENOENT ? 0 : error;
        life_count_open(life);
        if (life->asked->stops(life->asked->context))
            return -ECANCELED;
    } while (life->rows == LIFE_ROWS);
    return 0;
}

errint life_count(struct filesystem *fs, const struct life_asked *asked, struct life *out)
{
    __attribute__((cleanup(life_release))) struct life_work life = {.fs = fs, .asked = asked, .out = out};
    struct meta_inode row;
    *out = (struct life){0};
    errint error = meta_get(fs->meta, asked->ino, &row);
    if (error)
        return error;
    if (!S_ISDIR(row.mode)) {
        error = S_ISREG(row.mode) ? life_take_file(&life, &row) : 0;
        life_count_open(&life);
        return error;
    }
    error = ids_append(&life.directories, row.ino);
    while (!error && life.directories.count > 0)
        error = life_read_directory(&life, life.directories.at[--life.directories.count]);
    return error;
}
