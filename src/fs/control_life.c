/* SPDX-License-Identifier: Apache-2.0 */
/* How safe the files of a tree are: for `ckptfs ls`. */
#include <errno.h>
#include <sys/stat.h>

#include "base/ids.h"
#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/report.h"

enum { LIFE_ROWS = 512 /* read under one lock */ };

struct life {
    struct report *report;
    struct control_life answer;
    struct ids directories; /* still to be read */
    struct ids open;        /* files that somebody may have open, of the page that was read last */
    uint64_t last;          /* cookie */
    size_t rows;
    errint error;
};

static void life_release(struct life *life)
{
    ids_release(&life->directories);
    ids_release(&life->open);
}

static errint life_take_file(struct life *life, const struct meta_inode *inode)
{
    if (!report_sees_everybody(life->report) && inode->uid != life->report->uid)
        return 0;
    life->answer.files++;
    life->answer.unsynced += (inode->state & META_DIRTY) != 0;
    life->answer.torn += (inode->state & META_TORN) != 0;
    if (inode->kind != META_OBJECT)
        return ids_append(&life->open, inode->ino);
    life->answer.writing++;
    return 0;
}

static bool life_take_entry(void *context, const char *name, size_t length, uint64_t cookie,
                            const struct meta_inode *inode)
{
    (void)name, (void)length;
    struct life *life = context;
    if (S_ISDIR(inode->mode))
        life->error = ids_append(&life->directories, inode->ino);
    else if (S_ISREG(inode->mode))
        life->error = life_take_file(life, inode);
    life->last = cookie;
    return !life->error && ++life->rows < LIFE_ROWS;
}

/* A sealed file is written again as soon as somebody has opened it so. Called without the namespace's lock.
 */
static void life_count_writers(struct life *life)
{
    struct filesystem *fs = life->report->fs;
    for (size_t i = 0; i < life->open.count; i++) {
        struct node *node = node_find(fs, life->open.at[i]);
        if (!node)
            continue;
        node_lock_shared(node);
        life->answer.writing += node->writers > 0;
        node_unlock(node);
        node_put(fs, node);
    }
    life->open.count = 0;
}

static errint life_read_directory(struct life *life, uint64_t directory)
{
    life->last = 0;
    do {
        life->rows = 0;
        errint error = meta_list(life->report->fs->meta, directory, life->last, life_take_entry, life);
        if (!error)
            error = life->error;
        if (error)
            /* It was removed meanwhile. */
            return error == -ENOENT ? 0 : error;
        life_count_writers(life);
        if (report_stops(life->report))
            return -ECANCELED;
    } while (life->rows == LIFE_ROWS);
    return 0;
}

static errint life_count(struct life *life)
{
    struct meta_inode row;
    errint error = meta_get(life->report->fs->meta, life->report->ino, &row);
    if (error)
        return error;
    if (!S_ISDIR(row.mode)) {
        error = S_ISREG(row.mode) ? life_take_file(life, &row) : 0;
        life_count_writers(life);
        return error;
    }
    error = ids_append(&life->directories, row.ino);
    while (!error && life->directories.count > 0)
        error = life_read_directory(life, life->directories.at[--life->directories.count]);
    return error;
}

static void life_answer(struct report *report)
{
    __attribute__((cleanup(life_release))) struct life life = {.report = report};
    errint error = life_count(&life);
    if (error)
        report_fail(report, error);
    else
        fuse_reply_ioctl(report->request, 0, &life.answer, sizeof life.answer);
}

void control_life(fuse_req_t request, uint64_t ino, size_t room)
{
    if (room < sizeof(struct control_life))
        fuse_reply_err(request, EINVAL);
    else
        report_later(request, &(struct report){.ino = ino, .answer = life_answer});
}
