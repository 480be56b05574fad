/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much room the disk under the store is to have. While something may be given up (fs/trash.h), so much is
 * kept free that the next save has room before it begins: as much as the largest of the runs' latest
 * checkpoints has, for each save under way, or what files of checkpoints were given as their sizes and do not
 * have yet. The mount option min-free says it otherwise.
 *
 * What the kernel writes by passthrough cannot wait when the disk is full. So a file goes by passthrough only
 * while there is more free than that, by what can be written before more is given up.
 *
 * Thread-safe, but for room_look.
 */
#ifndef CKPTFS_FS_ROOM_H
#define CKPTFS_FS_ROOM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct filesystem;

/* The option min-free. */
struct room_least {
    bool set; /* else what the next save needs */
    int64_t bytes;
    double part; /* of the disk, 0 to 1; where it is none, `bytes` holds */
};

enum { ROOM_TEXT_MAX = 32 };
/* "auto", "0", a size as "20GB", or a part of the disk as "5%". False: it is none of them. */
bool room_parse_least(const char *text, struct room_least *out);

/* As of the last look. */
struct room {
    _Atomic int64_t next;     /* the largest of the runs' latest checkpoints; 0: none is known */
    _Atomic int64_t saves;    /* what all saves under way may need */
    atomic_bool hope;         /* policies may have something to give up later, when they have nothing now */
    _Atomic int64_t hopeless; /* clock_monotonic() up to which nobody waits for what may come (fs/retry.h) */
    _Atomic int64_t promised; /* of files of checkpoints that are being written: not written yet */
};

/* Looks what saves need. Holds no lock of a node for long; not for a thread that answers the kernel. */
void room_look(struct filesystem *fs);

/* What the disk has for files; INT64_MAX: it cannot be told. Costs a statvfs(2). */
int64_t room_free(struct filesystem *fs);

/* What is to be kept free: at least `least`, unless the option says otherwise. */
int64_t room_kept(struct filesystem *fs, int64_t least);

/* Whether a file that is opened now may be written by passthrough, where the next save needs `least`. */
bool room_lets_pass(struct filesystem *fs, int64_t least);

/* After so long (ns), writers may have come to what is kept free. */
int64_t room_pace(struct filesystem *fs, int64_t kept);

/* Whether the disk has no room for what is missing when the checkpoint's file gets the size, besides what
 * others were promised. False for other files: they may stay sparse. No node's lock is held. */
bool room_lacks(struct filesystem *fs, uint64_t ino, int64_t size);

#endif
