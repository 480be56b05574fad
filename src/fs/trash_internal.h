/* SPDX-License-Identifier: Apache-2.0 */
/* What the trash and its thread share. */
#ifndef CKPTFS_FS_TRASH_INTERNAL_H
#define CKPTFS_FS_TRASH_INTERNAL_H

#include "base/thread.h"
#include "fs/filesystem.h"
#include "fs/trash.h"
#include "meta/trash.h"

/* Directories whose checkpoint is remembered: those of one removal. */
enum { TRASH_RECENT = 8 };

struct trash {
    atomic_bool any;           /* there are rows, or something torn */
    atomic_size_t begun_count; /* of `begun` */
    _Atomic int64_t bytes;     /* that only the trash has */
    _Atomic int64_t wanted;    /* to be kept free, at least, while there is something in the trash */
    struct thread thread;      /* trash_run; its lock guards all below */
    pthread_cond_t round;      /* what there was to do was done */
    bool kicked;               /* something changed */
    uint64_t asked, answered;  /* how often room was asked for, and up to which it was tried */
    uint64_t given;            /* entries that were given up for it */
    struct ids begun;          /* checkpoints with an open entry */
    uint64_t generation;       /* of `recent` */
    struct {
        uint64_t directory, checkpoint; /* 0: none */
    } recent[TRASH_RECENT];
    size_t next_recent;
    struct trash_size *sizes; /* in the order of their numbers */
    size_t size_count;
    /* The thread's own: when the next entry's time is up (clock_wall); and the time (clock_monotonic) before
     * which policies have nothing to give. */
    int64_t due, policies_at;
};

/* The thread. */
void *trash_run(void *context);

#endif
