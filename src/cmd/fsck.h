/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `ckptfs fsck` share. */
#ifndef CKPTFS_CMD_FSCK_H
#define CKPTFS_CMD_FSCK_H

#include <cjson/cJSON.h>

#include "meta/check.h"
#include "store/store.h"

/* Bits, as in fsck(8); only this command ends with them. */
enum {
    FSCK_CLEAN = 0,
    FSCK_CORRECTED = 1,
    FSCK_LEFT = 4,
    FSCK_FAILED = 8,
    FSCK_USAGE = 16,
};

struct fsck {
    bool repair, rebuild, json;
    struct store *store;
    char *database; /* STORE/meta.db */
    char *working;  /* the same, or what a rebuild makes, until it takes that name */
    char *journal;  /* STORE/manifests/meta.db.journal */
    struct meta *meta;
    struct meta_object_file *files; /* every object file, in ascending order */
    size_t file_count;
    struct meta_check_result result;
    uint64_t complaints; /* about the database file, or about what a rebuild could not bring back */
    bool not_closed;     /* the last mount did not end in order */
    bool old;            /* the database is whole, and an older copy */
    bool followed;       /* what a rebuild restored is the database as it was last, or nearly so */
    bool changed;        /* something was corrected */
    cJSON *findings, *actions;
    bool no_memory; /* the document is not whole */
};

/* -- fsck_report.c ----------------------------------------------------------------------------------------
 */

/* One finding: a line now, or a part of the document. */
void fsck_tell(struct fsck *fsck, const struct meta_finding *finding);
/* One line about what was done. */
void fsck_tell_action(struct fsck *fsck, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The end of the report. */
void fsck_print_summary(struct fsck *fsck, int code);

/* -- fsck_rebuild.c ---------------------------------------------------------------------------------------
 */

/* Where the database is missing or damaged: makes fsck->working of the newest good backup. An exit code. */
int fsck_restore(struct fsck *fsck);
/* fsck->working, which is whole and closed, becomes the database; a damaged one is put aside. */
errint fsck_install(struct fsck *fsck);

/* Removes fsck->working, and what is beside it. */
errint fsck_remove_working(const struct fsck *fsck);

/* -- fsck_pair.c ------------------------------------------------------------------------------------------
 */

/* Makes fsck->working of the newest good backup and the journals that continue it. `found`: there was one. */
errint fsck_restore_newest(struct fsck *fsck, bool *found);
/* Makes fsck->working a copy of that database. */
errint fsck_copy_database(struct fsck *fsck, const char *from_path);
/* One line: of what, and of when, the database was made. */
void fsck_tell_restored(struct fsck *fsck, const char *path);

/* -- fsck_compare.c ---------------------------------------------------------------------------------------
 */

/*
 * What the backup says and the objects do not bear out any more. Where it was followed up to the end there is
 * nothing of that kind but a moment's: what was being written is left to the next mount, as after a crash.
 */
errint fsck_compare_backup(struct fsck *fsck);

/* -- fsck.c -----------------------------------------------------------------------------------------------
 */

/* The first of PREFIX1, PREFIX2, ... that is not there; the caller frees. NULL: no memory. */
char *fsck_free_name(const char *prefix);
/* Whether the database `path` is whole: 0; the number of complaints, which are told; or an error. */
int fsck_check_database(struct fsck *fsck, const char *path, bool quiet);

#endif
