/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saves under way: the checkpoints' directories in which files are open for writing, what has been written of
 * each, how fast, and by whom. All of it is found out when somebody asks, from the open handles and the
 * sizes of the files, whoever writes them, the kernel or the daemon; nothing is counted while they are
 * written. What was seen at the last looks is remembered, for the rate.
 *
 * A directory is a checkpoint's by its name, or by the names of the files in it (ckpt/detect.h). A save goes
 * on while its writer opens one file after the other: it is told for a few seconds after the last was closed,
 * unless the checkpoint is complete by then.
 */
#ifndef CKPTFS_FS_SAVES_H
#define CKPTFS_FS_SAVES_H

#include "fs/outlook.h"

enum { SAVES_WRITERS_MAX = 8, SAVES_NAME_MAX = 16 };

struct save_writer {
    int32_t pid; /* of the process, as the daemon sees it; 0: another pid namespace's, or gone */
    char name[SAVES_NAME_MAX]; /* of the program; "": not known */
};

struct save {
    uint64_t directory;   /* of the checkpoint */
    uint64_t run;         /* the directory above it */
    char *path;           /* as on the mount */
    int64_t step;         /* as its name tells; -1: it does not */
    uint64_t files, open; /* files in it; of these, open for writing */
    int64_t written;      /* bytes of it so far */
    int64_t expected;     /* bytes when it is done, judging by the run's last one; -1: not known */
    double rate;          /* bytes a second; negative: not known */
    int64_t left;         /* seconds; negative: not known */
    struct save_writer writers[SAVES_WRITERS_MAX];
    size_t writer_count, writers_left_out;
};

struct saves {
    struct save *at; /* in the order of their paths */
    size_t count;
    uint64_t elsewhere; /* files open for writing that are no checkpoint's */
};

errint saves_start(struct filesystem *fs);
void saves_stop(struct filesystem *fs);

/* `outlook` may be NULL. The caller gives `out` to saves_release in any case. Thread-safe; not for a thread
 * that answers the kernel. */
errint saves_look(struct filesystem *fs, const struct outlook *outlook, struct saves *out);
void saves_release(struct saves *saves);

/* saves_find.c: the checkpoint's directory that a file lies in, and whether it is its own level alone that
 * belongs to it. -ENOENT: in none. */
errint saves_find_checkpoint(struct filesystem *fs, uint64_t file, uint64_t *directory, bool *own_only);

#define cleanup_saves __attribute__((cleanup(saves_release)))

#endif
