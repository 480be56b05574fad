/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the namespace share: a fresh database a test, short ways to make things in it, and a
 * check that its tables agree with each other.
 */
#ifndef CKPTFS_TESTS_UNIT_TEST_META_FRAME_H
#define CKPTFS_TESTS_UNIT_TEST_META_FRAME_H

#include <sys/stat.h>

#include "check.h"
#include "meta/check.h"
#include "meta/internal.h"

/* The database of the running test. */
extern struct meta *meta;
extern char frame_directory[4096];
extern char frame_path[4200]; /* of the database */

/* check_run with a new, empty database in a directory of its own; afterwards the tables are compared. */
void frame_run(const char *what, void (*test)(void));

void frame_open(void);
void frame_close(void);
void frame_reopen(void);

/* Compares all that is said twice in the tables, and the totals. The first few differences are printed. */
bool frame_is_consistent(struct meta *meta);

/*
 * Runs `body` in a child process with CKPTFS_FAULT set to `fault`, and the database closed here meanwhile and
 * opened again afterwards. `body` opens it itself. The wait status; 0 when no CHECK failed.
 */
int frame_in_child(const char *fault, void (*body)(void));
/* Memory that such a child shares with its parent: zeros at the start of a test. */
extern uint64_t *frame_shared;
enum { FRAME_SHARED_COUNT = 65536 };

/* -- short ways; each returns the error, or makes a new inode and returns its number (0 on failure)
 * ----------- */

#define FRAME_NOW INT64_C(1700000000123456789)

uint64_t frame_make(uint64_t parent, const char *name, uint32_t mode);
/* A regular file on a new object. */
uint64_t frame_make_object(uint64_t parent, const char *name);
/* A clean file of one sealed object. */
uint64_t frame_make_sealed(uint64_t parent, const char *name, int64_t size);
struct meta_inode frame_get(uint64_t ino);
/* The object of a sealed file's first extent; 0: it has none. */
uint64_t frame_object_of(uint64_t ino);
/* 0 when there is no such name. */
uint64_t frame_find(uint64_t parent, const char *name);
errint frame_unlink(uint64_t parent, const char *name, bool reap, struct ids *freed);
errint frame_rmdir(uint64_t parent, const char *name);
/* Looks both names up first, as the caller in src/fs does; the replaced inode is not open. */
errint frame_rename(uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
                    unsigned flags, struct ids *freed);
errint frame_map(uint64_t ino, int64_t offset, int64_t length, uint64_t object, int64_t object_offset,
                 struct ids *freed);
/* "0+10:7@0 20+5:7@20": offset+length:object@offset of each extent. Static storage. */
const char *frame_extents(uint64_t ino);
bool frame_has(const struct ids *ids, uint64_t id);

/* Its references to objects were given up; it has no name left. */
bool frame_is_released(uint64_t ino);
bool frame_is_orphan(uint64_t ino);

/* Runs a statement that makes the tables wrong; `number` is for the %llu in it. */
void frame_break_by(const char *statement, uint64_t number);
/*
 * What the check finds where the store has these objects' files: the codes of the findings, a space behind
 * each. Valid until the next call of the three.
 */
const char *frame_check(const struct meta_object_file *files, size_t count, bool mend);
/* Has it mend what it finds; a second check must find nothing but notes. */
const char *frame_check_and_mend(const struct meta_object_file *files, size_t count);
/* Has it mend what it finds where the store has no objects. */
const char *frame_mend(void);

/* The tables that format 5 has and format 4 had not. */
#define FRAME_DROP_5                                                                                         \
    " DROP TABLE policy; DROP TABLE template; DROP TABLE assembled_removed; DROP TABLE checkpoint;"          \
    " DROP TABLE writer; DROP TABLE pin; DROP TABLE event; DROP TABLE trash;"

#endif
