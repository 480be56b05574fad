/* SPDX-License-Identifier: Apache-2.0 */
/* What the keeping (rewrite.c) and the end of what is kept (rewrite_end.c) share. */
#ifndef CKPTFS_FS_REWRITE_INTERNAL_H
#define CKPTFS_FS_REWRITE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/ids.h"
#include "fs/rewrite.h"

enum {
    REWRITE_QUIET = 16,   /* directories that are remembered as of no interest */
    REWRITE_WRITERS = 16, /* processes of one rewrite whose end is watched */
};

struct rewrite_writer {
    pid_t thread; /* of its last request */
    pid_t process;
    int fd; /* process_watch */
};

struct rewrite_entry {
    struct meta_kept kept;
    uint64_t touches;
    struct rewrite_writer writers[REWRITE_WRITERS];
    size_t writer_count;
    bool strangers; /* the end of somebody who changed something is not known */
};

struct rewrite {
    atomic_size_t any; /* entries */
    pthread_mutex_t lock;
    struct rewrite_entry *at; /* the oldest first */
    size_t count, capacity;
    struct ids dropped; /* kept versions that are to be taken apart */
    uint64_t quiet[REWRITE_QUIET];
    size_t next_quiet;
    uint64_t generation; /* of `quiet` */
    atomic_bool checked; /* what earlier daemons left */
};

/* The list; with the lock. NULL: none. */
struct rewrite_entry *rewrite_entry_of(const struct rewrite *rewrite, uint64_t checkpoint);
void rewrite_end_entry(struct rewrite *rewrite, struct rewrite_entry *entry);

/* The checkpoints that have a kept version; takes the lock. -ENOMEM. */
errint rewrite_list(struct rewrite *rewrite, struct ids *out);

#endif
