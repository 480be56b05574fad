/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the namespace agrees with itself and with the object files that are there, and mending what has
 * one right answer. For a store that nobody else uses.
 *
 * Nothing that holds data is thrown away: what has lost its name gets one in /lost+found. What has no one
 * right answer (an extent on bytes that are gone, two extents on one place) is told and left.
 */
#ifndef CKPTFS_META_CHECK_H
#define CKPTFS_META_CHECK_H

#include "meta/meta.h"

#define META_LOST_AND_FOUND "lost+found"

/* An object file that is there. */
struct meta_object_file {
    uint64_t object;
    int64_t size;
    int64_t mtime; /* ns since the epoch */
};

enum meta_finding_kind {
    META_FINDING_NOTE,   /* no error: the next mount looks after it */
    META_FINDING_MENDED, /* an error that mending corrects */
    META_FINDING_LEFT,   /* an error that has no one right answer */
};

struct meta_finding {
    enum meta_finding_kind kind;
    const char *code; /* one word that does not change: "nlink" */
    uint64_t ino;     /* 0: none */
    uint64_t object;  /* 0: none */
    const char *path; /* any bytes; NULL: none */
    const char *text; /* what was expected and found, and what is done about it */
};

struct meta_check_request {
    /* In ascending order, without doubles. */
    const struct meta_object_file *files;
    size_t file_count;
    bool mend;
    /*
     * The tables are a backup, older than the object files: those that no row knows become files in
     * /lost+found (else the next mount removes them), and a file whose object has grown has what was added.
     */
    bool rebuild;
    int64_t now;
    void (*finding)(void *context, const struct meta_finding *finding);
    void *context;
};

struct meta_check_result {
    uint64_t notes, mended, left;
    uint64_t adopted; /* objects that became files */
    struct meta_totals totals;
};

/*
 * Looks for everything in one transaction, which is committed only when it mends; what is found is the same
 * either way. `finding` runs with the lock held: it must not call into meta. The result's `mended` counts
 * what is, or would be, mended.
 */
errint meta_check(struct meta *meta, const struct meta_check_request *request, struct meta_check_result *out);

/*
 * The engine's own check of the database file `path`, which nobody has open; its log is moved into the file
 * `journal` (meta/journal.h; NULL: none) and into it first. The number of complaints (`complaint` gets each),
 * or an error: -EUCLEAN when it is no database any more; -ESTALE when it has less than the journal.
 */
int meta_check_database(const char *path, const char *journal,
                        void (*complaint)(void *context, const char *text), void *context);
/* The same of a backup, which is only read. */
int meta_check_backup(const char *path);

/*
 * A copy of the last commit as the file `path`: whole, checked, and on stable storage. It holds no
 * lock for long. With `stop` it is slow on purpose, and asks it after each small step: true ends it with
 * -ECANCELED. -EAGAIN: too much was committed meanwhile. Thread-safe.
 */
errint meta_backup(struct meta *meta, const char *path, bool (*stop)(void *context), void *context);

#endif
