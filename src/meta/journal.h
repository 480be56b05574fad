/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The redo journal of a namespace in use: a backup and the journal behind it are, together, the namespace as
 * of about a second ago.
 *
 * A thread adds what was committed and synced every second; nobody who commits waits for it. What destroys
 * bytes that only an older state of the namespace needs (an object's, after its file was deleted or moved
 * over to another) waits for meta_sync_journal instead of meta_sync. Where the journal cannot be written (a
 * full disk), it ends with one warning, and another one begins with the next backup.
 */
#ifndef CKPTFS_META_JOURNAL_H
#define CKPTFS_META_JOURNAL_H

#include "meta/meta.h"

/*
 * As meta_open, with the journal in the file `journal` (NULL: none), which catches up first. It need not be
 * there: it is begun by meta_backup_pair. -ESTALE: the database has less than what was on stable storage
 * once.
 */
errint meta_open_journaled(const char *path, bool create, const char *journal, struct meta **out);

/* A journal that does not follow is given up: what its state needs may be destroyed from now on. */
void meta_journal_judge(struct meta *meta);
/* Starts the thread. */
errint meta_journal_start(struct meta *meta);

/* What a new backup, and the journal behind it, are asked for. Thread-safe. */
bool meta_journal_follows(struct meta *meta);
int64_t meta_journal_size(struct meta *meta); /* bytes */
/* Ends it, with a warning that says why: nothing follows until the next meta_backup_pair. */
void meta_journal_end(struct meta *meta, const char *why);

/*
 * As meta_sync, and the changes are in the journal too, if there is one that follows: without one nobody is
 * kept from anything. Blocks.
 */
errint meta_sync_journal(struct meta *meta);

struct meta_pair {
    const char *backup, *journal; /* files to make */
    /* As for meta_backup; NULL: never. */
    bool (*stop)(void *context);
    /* Gives both their names. Between it and the call's return nothing is added to any journal. */
    errint (*publish)(void *context);
    void *context;
};

/* A backup as by meta_backup, and a journal that begins with it, and takes the place of the one before. */
errint meta_backup_pair(struct meta *meta, const struct meta_pair *pair);

#endif
