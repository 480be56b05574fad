/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is to be exported by a policy: of which directory, where to, as whom. Who set the policy is recorded
 * beside it, under keys that nobody can set by themselves.
 */
#ifndef CKPTFS_FS_EXPORT_ORDER_H
#define CKPTFS_FS_EXPORT_ORDER_H

#include <limits.h>
#include <stdint.h>

#include "ckpt/policy.h"
#include "fs/run_as.h"
#include "meta/policy.h"

struct filesystem;

/* The command's exit code where the run has no checkpoint to be picked. */
#define EXPORT_EXIT_NONE_PICKED 37

/* Beside POLICY_EXPORT: "UID GID GROUP...". */
#define EXPORT_KEY_USER "export.user"
/* On a checkpoint: one of export_order_pending, or "done PATH". */
#define EXPORT_KEY_MARK  "export.mark"
#define EXPORT_MARK_DONE "done "

/* Of the command line, with the program's name. */
enum { EXPORT_ARGUMENTS_MAX = 25 };

/* Why it is looked at. */
enum export_reason {
    EXPORT_BECAUSE_COMPLETE,
    EXPORT_BECAUSE_PINNED,
    EXPORT_BECAUSE_ASKED, /* whatever the policy says of when */
};
enum { EXPORT_REASONS = 3 };

/* The mark of a checkpoint that is to be exported for that reason. */
extern const char *const export_order_pending[EXPORT_REASONS];

struct export_order {
    struct run_as_user user;
    struct policy_export_when when;
    char path[PATH_MAX];   /* of the checkpoint on the mount, or of the run where one is picked */
    char target[PATH_MAX]; /* the directory: the policy's, and below it the way from the policy's directory
                              to the run */
    char checkpoint[NAME_MAX + 1]; /* the name of the checkpoint's directory */
};

/* The text for EXPORT_KEY_USER. -E2BIG. */
errint export_order_print_user(const struct run_as_user *user, char out[META_POLICY_VALUE_MAX]);

/*
 * Looks the policy of a checkpoint's directory up. -ENOENT: none asks for its export, or not for that reason;
 * -EPERM: the user who set it is not known, or is one that this daemon cannot be; other negative errnos.
 */
errint export_order_find(struct filesystem *fs, uint64_t checkpoint, enum export_reason reason,
                         struct export_order *out);

/* Fills EXPORT_ARGUMENTS_MAX + 1 pointers, which live as long as the order. */
void export_order_arguments(const struct export_order *order, enum export_reason reason,
                            const char **arguments);

#endif
