/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A redo journal beside a backup: what was committed after the backup, so that both together are the database
 * as of a moment ago when that is lost. An engine that has such a thing by itself (PostgreSQL's archive of
 * its log) leaves this out: no function of db.h needs it.
 *
 * It is fed from the log of the database: the caller has commits copied again and again, and before the log
 * is emptied. So a journal that was left behind, by the death of a process or a power cut, catches up from
 * the log at the next db_journal_open, before the database is opened. Where it cannot know that it has all
 * (the database was changed without it), it does not *follow* any more, and a new one must be begun with a
 * new backup.
 *
 * Not thread-safe; a lock of the caller's own, under which no commit waits. Errors are negative errnos for
 * the caller to log. After an error of _copy, _sync, _settle or _finish the journal must be stopped: it
 * misses something.
 */
#ifndef CKPTFS_META_DB_JOURNAL_H
#define CKPTFS_META_DB_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "meta/db.h"

struct db_journal;

/*
 * The journal in the file `path` of the database in the file `database`, which nobody has open. What the log
 * has more is added, on stable storage. A file that is missing, or does not fit the database, is no error:
 * nothing follows; nor is one that cannot be used, which is logged. -ESTALE: the database has less than what
 * was on stable storage; nothing is changed.
 */
errint db_journal_open(const char *database, const char *path, struct db_journal **out);
/* NULL is allowed. */
void db_journal_close(struct db_journal *journal);

bool db_journal_follows(const struct db_journal *journal);
/* The database had not the last changes that are in the journal, when that was opened: unless somebody else
 * has closed it in order since then, it has lost its log. */
bool db_journal_lacks(const struct db_journal *journal);
/* Bytes; 0 where nothing follows. */
int64_t db_journal_size(const struct db_journal *journal);

/*
 * Adds what was committed when db_log_commits (with the database's lock) gave `commits`, and is on stable
 * storage. Needs not that lock; but the log must not be emptied meanwhile.
 */
errint db_journal_copy(struct db_journal *journal, struct db *db, uint64_t commits);
/* What was added is on stable storage. */
errint db_journal_sync(struct db_journal *journal);
/* Nothing is missing: right before the log is emptied (with the database's lock: it only writes a few bytes),
 * or right after an opening has done so. */
errint db_journal_settle(struct db_journal *journal);
/* The same for one that is to replace `before`, when both have everything. */
errint db_journal_settle_behind(struct db_journal *journal, const struct db_journal *before);
/* The same after the database was closed and its log is gone; on stable storage. */
errint db_journal_finish(struct db_journal *journal);
/* Gives it up: it says so itself where the disk lets it, and nothing follows. */
void db_journal_stop(struct db_journal *journal);

/*
 * A new journal in the file `path` (what was there goes), for the backup that `copy` has written as the file
 * `backup`: db_journal_copy adds what was committed since, as long as the copy is not ended. `before` is the
 * one that it will replace.
 */
errint db_journal_begin(struct db_journal *before, struct db_copy *copy, const char *backup, const char *path,
                        struct db_journal **out);

/* -- restoring --------------------------------------------------------------------------------------------
 */

enum db_journal_ending {
    DB_JOURNAL_WHOLE,   /* as far as it goes; what a crash cut off at its end is no loss */
    DB_JOURNAL_STOPPED, /* it was given up: the database went on without it */
    DB_JOURNAL_DAMAGED, /* what follows is not what was written */
};

struct db_journal_state {
    int64_t time; /* of the last commits in it, ns since the epoch; 0: it has none */
    enum db_journal_ending ending;
    int64_t offset, unused; /* where it ends, and the bytes from there on */
    uint32_t words[8];      /* the engine's own: to go on with the next journal */
};

/* Whether the journal `path` is that of this backup: 1, 0 (also when it is missing, or none), or an error. */
int db_journal_belongs(const char *path, const char *backup);
/*
 * Brings `database`, a copy of the backup that the journal `path` belongs to, forward to its end. With
 * `again`, `state` is what another journal left, and this one must be the next after it, else -ESTALE: the
 * database is as it was. After another error it is worth nothing.
 */
errint db_journal_restore(const char *path, const char *database, bool again, struct db_journal_state *state);

#endif
