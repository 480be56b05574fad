/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the check share. */
#ifndef CKPTFS_META_CHECK_INTERNAL_H
#define CKPTFS_META_CHECK_INTERNAL_H

#include "meta/check.h"
#include "meta/internal.h"

struct check {
    struct meta *meta;
    const struct meta_check_request *request;
    struct meta_check_result *result;
    uint64_t lost_and_found; /* the directory's inode; 0: not needed yet */
};

/* What a finding is about, and the numbers that its text names. */
struct check_about {
    uint64_t ino, object;
    const char *name; /* with `name_length`: in the directory `ino` */
    size_t name_length;
    int64_t numbers[4];
};

/* Tells a finding. In `text`, $1 to $4 stand for the numbers, and #1 to #4 for them as objects' names. */
errint check_tell(struct check *check, enum meta_finding_kind kind, const char *code, const char *text,
                  const struct check_about *about);

/* -- check_rules.c ----------------------------------------------------------------------------------------
 */

/* Which rows a rule's columns tell of: the first column (the first two of a name), then numbers. */
enum check_subject { CHECK_INODE, CHECK_NAME, CHECK_OBJECT, CHECK_INODE_AND_OBJECT };

struct check_rule {
    const char *code;
    enum meta_finding_kind kind;
    enum check_subject subject;
    const char *text;
    const char *select;
    const char *mend[2]; /* run when something was found; NULL: nothing */
};

/* In this order, with what check_names.c does between them. */
extern const struct check_rule check_rules_rows[], check_rules_names[], check_rules_links[];

/* Up to a rule without a code. */
errint check_run_rules(struct check *check, const struct check_rule *rules);

/* -- check_names.c ----------------------------------------------------------------------------------------
 */

/* The root directory is there. */
errint check_root(struct check *check);
/* Numbers that are given out next are above all that are there. */
errint check_counters(struct check *check);
/* Every directory is reached from the root by one way; what has no name gets one. */
errint check_directories(struct check *check);
errint check_nameless(struct check *check);
/* Gives an inode without a name one in /lost+found; the row's nlink is set by check_rules_links. */
errint check_attach(struct check *check, uint64_t ino, const char *name);

/* -- check_objects.c --------------------------------------------------------------------------------------
 */

/* Objects that hold data and that nothing leads to become files. */
errint check_objects(struct check *check);

#endif
