/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys that can be set for a run, i.e. a directory and all below it: one table, with what a value may be
 * and what it means. Where a value is kept, and who may set it, is not known here.
 */
#ifndef CKPTFS_CKPT_POLICY_H
#define CKPTFS_CKPT_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

/* When shards become a model. */
enum policy_assembling {
    POLICY_ASSEMBLING_UNSET, /* as a mount option: none was given */
    POLICY_ASSEMBLING_AUTO,  /* as soon as they are all there */
    POLICY_ASSEMBLING_VIEW,  /* likewise, and is shown in the view only */
    POLICY_ASSEMBLING_OFF,   /* never: and what was made goes */
    POLICY_ASSEMBLING_ASK,   /* when somebody asks for it: what was made stays */
};

/* False: it is none of the words. */
bool policy_parse_assembling(const char *text, enum policy_assembling *out);
/* The word; NULL for POLICY_ASSEMBLING_UNSET. */
const char *policy_assembling_text(enum policy_assembling assembling);

#define POLICY_ASSEMBLE "assemble"
#define POLICY_TEMPLATE "template"
/* Commands that are run for events: the prefix, and the event's name behind it. */
#define POLICY_HOOK         "hook-"
#define POLICY_HOOK_TIMEOUT "hook-timeout" /* seconds */

/* A command is at most so long, so that all policies of a directory can be shown at once. */
enum { POLICY_COMMAND_MAX = 1000 };

/* Whether the key's value is a command. */
bool policy_is_hook(const char *key);
/* Which checkpoints are exported. */
enum policy_export_kind {
    POLICY_EXPORT_COMPLETE, /* each that becomes complete */
    POLICY_EXPORT_LATEST,   /* the latest complete one of the run */
    POLICY_EXPORT_BEST,     /* the one that the Trainer holds for the best */
    POLICY_EXPORT_PINNED,   /* each that is pinned */
    POLICY_EXPORT_EVERY,    /* each whose step is a multiple */
};
struct policy_export_when {
    enum policy_export_kind kind;
    int64_t steps; /* of POLICY_EXPORT_EVERY */
};

/* "complete", "latest", "best", "pinned" or "every N". False: it is none of them. */
bool policy_parse_export_when(const char *text, struct policy_export_when *out);

#define POLICY_EXPORT      "export"
#define POLICY_EXPORT_WHEN "export-when"
#define POLICY_TRASH       "trash"
#define POLICY_TRASH_AGE   "trash-age"

/* Whether removed checkpoints go to the trash: "on" or "off". False: it is neither. */
bool policy_parse_trash(const char *text, bool *out);

enum { POLICY_AGE_MAX = 16 };
/* A time, in ns: a whole number and a unit, "90s", "30m", "12h", "7d" or "4w"; at most ten years. False: it
 * is none. */
bool policy_parse_age(const char *text, int64_t *out);

struct policy_key {
    const char *name;
    const char *expected; /* what a value may be: "auto, view, off or ask" */
    const char *summary;  /* one line */
    const char *fallback; /* the value where nobody has set one; NULL: none */
    const char *command;  /* it is only set by this one; NULL: by `ckptfs policy set` */
    bool (*fits)(const char *value);
};

/* All of them, in the order in which they are shown. */
const struct policy_key *policy_keys(size_t *count);
/* NULL: there is no such key. */
const struct policy_key *policy_find_key(const char *name);

enum { POLICY_PROBLEM_MAX = 256 };
/*
 * Whether somebody may set the key to the value (NULL: unset it): 0, or -EINVAL and a line that says what is
 * wrong.
 */
errint policy_check(const char *name, const char *value, char problem[POLICY_PROBLEM_MAX]);

#endif
