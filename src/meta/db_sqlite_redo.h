/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a redo journal: pages of a database as commits left them, in order, behind a copy of the
 * database that they are put over.
 *
 * Little-endian. The head, 144 bytes: "ckptredo", version (u32), page size (u32), an id (16 bytes), the id of
 * the journal that this one continues or zeros (16), and of the copy: size (u64), XXH3-128 (16), inode number
 * (u64), mtime in ns (i64); a place in the log where it begins (5 x u32), 4 zeros, XXH3-128 of all that (16);
 * then 8 zeros that are overwritten with "stopped!" when the journal is given up, and 8 zeros.
 *
 * A record, 112 bytes and its pages: "redo", kind (u32), number from 1 (u64), time in ns since the epoch
 * (i64), place in the log behind it (5 x u32), number of pages (u32), size of the database in pages after it,
 * 0 where the next record belongs to the same commit (u32), 4 zeros, and of a record that says that the
 * database file has all so far: its inode number (u64), size (i64), mtime in ns (i64); XXH3-128 of the pages'
 * part (16), XXH3-128 of everything before and of the record before, or the head (16). Then the pages'
 * numbers (u32 each) and the pages.
 *
 * What cannot be read ends it: a record that a crash cut off, or one that is not what was written. Not
 * thread-safe.
 */
#ifndef CKPTFS_META_DB_SQLITE_REDO_H
#define CKPTFS_META_DB_SQLITE_REDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "meta/db_sqlite_frames.h"

enum { REDO_ID_BYTES = 16, REDO_HASH_BYTES = 16, REDO_RECORD_BYTES = 4 << 20 };

/* A file at a moment, to know it again. */
struct redo_file {
    uint64_t ino;
    int64_t size, mtime; /* bytes; ns since the epoch */
};

struct redo_head {
    uint32_t page_size;
    uint8_t id[REDO_ID_BYTES], previous[REDO_ID_BYTES];
    struct redo_file copy;
    uint8_t copy_hash[REDO_HASH_BYTES];
    struct frames_place place;
    bool stopped; /* the database went on without it */
};

enum redo_kind {
    REDO_PAGES = 1,
    REDO_SETTLED = 2, /* no pages: the database file has everything, and the log is about to be emptied */
};

struct redo_record {
    enum redo_kind kind;
    int64_t time;
    struct frames_place place;
    uint32_t page_count;
    uint32_t database_size; /* in pages; 0: the commit goes on in the next record */
    struct redo_file database;
};

static inline bool redo_ends_commit(const struct redo_record *record)
{
    return record->kind == REDO_SETTLED || record->database_size > 0;
}

/* Between two records. */
struct redo_point {
    int64_t offset; /* in the file */
    uint64_t number;
    uint8_t chain[REDO_HASH_BYTES];
    int64_t time; /* of the record before; 0: none */
};

enum redo_ending {
    REDO_ENDS,   /* behind its last record */
    REDO_TORN,   /* a crash cut the last record off */
    REDO_DAMAGED /* what is there was not written like that */
};

struct redo {
    int fd;
    struct redo_head head;
    struct redo_point at;
    int64_t size; /* of the file, when it was opened */
    enum redo_ending ending;
    uint8_t *buffer; /* of a record */
};

/* Makes the file, which must not be there. `head.id` is made up. redo_close whatever it returns. */
errint redo_create(const char *path, const struct redo_head *head, struct redo *out);
/* -ENOENT; -EUCLEAN: no head that can be used. redo_close whatever it returns. */
errint redo_open(const char *path, bool writable, struct redo *out);
void redo_close(struct redo *redo);

/* How many pages a record has at most. */
static inline size_t redo_pages_max(uint32_t page_size)
{
    return REDO_RECORD_BYTES / page_size;
}

/* Room for the numbers and the pages of a record, which redo_append takes from there; NULL: no memory. */
uint8_t *redo_pages(struct redo *redo);
/* Writes a record at `at`, and goes behind it. On an error the file ends where it did. */
errint redo_append(struct redo *redo, const struct redo_record *record);
/* Writes in place that the journal is given up; where it ends is cut off. */
errint redo_stop(struct redo *redo);
/* Goes to a point and drops what is behind it. */
errint redo_cut(struct redo *redo, const struct redo_point *point);
errint redo_sync(struct redo *redo);

/* Goes to the first record. */
void redo_rewind(struct redo *redo);
/* Reads the record at `at`, its pages too (redo_pages), and goes behind it: 1; 0: `ending`; or an error. */
int redo_next(struct redo *redo, struct redo_record *out);

struct redo_outcome {
    int64_t time;              /* of the last whole commit; 0: none */
    struct frames_place place; /* behind it */
    enum redo_ending ending;
    int64_t offset, unused; /* where it ends, and the bytes from there on */
};

/*
 * Puts all pages of whole commits over the database in `database_fd`. `from` (may be NULL) is the place that
 * the database is at already: pages from before it are put over newer ones, which is right only when those
 * up to it follow. -ESTALE, and nothing is written: this journal does not come to that place.
 */
errint redo_apply(struct redo *redo, int database_fd, const struct frames_place *from,
                  struct redo_outcome *out);

/* XXH3-128 of a file's bytes. */
errint redo_hash_file(int fd, uint8_t hash[REDO_HASH_BYTES]);
/* -ENOENT. The file is not opened. */
errint redo_look_at(const char *path, struct redo_file *out);

static inline bool redo_is_same_file(const struct redo_file *a, const struct redo_file *b)
{
    return a->ino == b->ino && a->size == b->size && a->mtime == b->mtime;
}

#define cleanup_redo __attribute__((cleanup(redo_close)))

#endif
