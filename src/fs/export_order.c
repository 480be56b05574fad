/* SPDX-License-Identifier: Apache-2.0 */
/* From a policy to a command line. */
#include "fs/export_order.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/detect.h"
#include "fs/filesystem.h"
#include "fs/policy.h"

const char *const export_order_pending[EXPORT_REASONS] = {
    [EXPORT_BECAUSE_COMPLETE] = "pending: complete",
    [EXPORT_BECAUSE_PINNED] = "pending: pinned",
    [EXPORT_BECAUSE_ASKED] = "pending: asked for",
};

/* -- who --------------------------------------------------------------------------------------------------
 */

errint export_order_print_user(const struct run_as_user *user, char out[META_POLICY_VALUE_MAX])
{
    int length = snprintf(out, META_POLICY_VALUE_MAX, "%u %u", user->uid, user->gid);
    for (size_t i = 0; i < user->group_count && length < META_POLICY_VALUE_MAX; i++)
        length += snprintf(out + length, (size_t)(META_POLICY_VALUE_MAX - length), " %u", user->groups[i]);
    return length < META_POLICY_VALUE_MAX ? 0 : -E2BIG;
}

static bool order_take_number(const char **at, unsigned *out)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(*at, &end, 10);
    if (end == *at || errno || number >= UINT_MAX)
        return false;
    *at = end;
    *out = (unsigned)number;
    return true;
}

static bool order_parse_user(const char *text, struct run_as_user *out)
{
    *out = (struct run_as_user){0};
    if (!order_take_number(&text, &out->uid) || !order_take_number(&text, &out->gid))
        return false;
    while (*text && out->group_count < RUN_AS_GROUPS_MAX) {
        if (!order_take_number(&text, &out->groups[out->group_count++]))
            return false;
    }
    return *text == '\0';
}

static errint order_find_user(struct filesystem *fs, uint64_t directory, struct run_as_user *out)
{
    cleanup_free struct meta_policy_found *found = malloc(sizeof *found);
    errint error = found ? meta_policy_find(fs->meta, directory, EXPORT_KEY_USER, found) : -ENOMEM;
    if (error == -ENOENT || (!error && (found->levels > 0 || !order_parse_user(found->value, out))))
        return -EPERM;
    return error ? error : run_as_may(out->uid) ? 0 : -EPERM;
}

/* -- what -------------------------------------------------------------------------------------------------
 */

static bool order_picks(const struct export_order *order, enum export_reason reason)
{
    return reason != EXPORT_BECAUSE_ASKED &&
           (order->when.kind == POLICY_EXPORT_LATEST || order->when.kind == POLICY_EXPORT_BEST);
}

static bool order_wants(const struct export_order *order, enum export_reason reason)
{
    int64_t step = detect_step_of_name(order->checkpoint);
    switch (order->when.kind) {
    case POLICY_EXPORT_PINNED: return reason != EXPORT_BECAUSE_COMPLETE;
    case POLICY_EXPORT_EVERY:
        return reason == EXPORT_BECAUSE_ASKED ||
               (reason == EXPORT_BECAUSE_COMPLETE && step >= 0 && step % order->when.steps == 0);
    case POLICY_EXPORT_COMPLETE:
    case POLICY_EXPORT_LATEST:
    case POLICY_EXPORT_BEST: break;
    }
    return reason != EXPORT_BECAUSE_PINNED;
}

/* "/a/run/checkpoint-1" below "/a", with the target "/out": "/out/run". */
static errint order_place(const struct filesystem *fs, const char *path, const char *holder,
                          const char *target, bool picks, struct export_order *out)
{
    const char *slash = strrchr(path, '/');
    size_t above = strcmp(holder, "/") == 0 ? 0 : strlen(holder);
    size_t run = slash ? (size_t)(slash - path) : 0, end = strlen(target);
    while (end > 1 && target[end - 1] == '/')
        end--;
    if (!slash || !slash[1] ||
        snprintf(out->checkpoint, sizeof out->checkpoint, "%s", slash + 1) >= (int)sizeof out->checkpoint)
        return -ENAMETOOLONG;
    /* A policy of the checkpoint's own directory has no way to go. */
    int below = run > above ? (int)(run - above) : 0;
    int shown = picks && run >= above ? (int)run : (int)strlen(path);
    if (snprintf(out->path, sizeof out->path, "%s%.*s", fs->options->mountpoint, shown, path) >=
            (int)sizeof out->path ||
        snprintf(out->target, sizeof out->target, "%.*s%.*s", (int)end, target, below, path + above) >=
            (int)sizeof out->target)
        return -ENAMETOOLONG;
    return 0;
}

static errint order_find_places(struct filesystem *fs, uint64_t checkpoint, enum export_reason reason,
                                const struct meta_policy_found *found, struct export_order *out)
{
    cleanup_free char *path = NULL;
    cleanup_free char *holder = NULL;
    errint error = meta_path(fs->meta, checkpoint, &path);
    if (!error)
        error = meta_path(fs->meta, found->directory, &holder);
    return error ? error : order_place(fs, path, holder, found->value, order_picks(out, reason), out);
}

errint export_order_find(struct filesystem *fs, uint64_t checkpoint, enum export_reason reason,
                         struct export_order *out)
{
    cleanup_free struct policy_value *value = malloc(sizeof *value);
    cleanup_free struct meta_policy_found *found = malloc(sizeof *found);
    if (!value || !found)
        return -ENOMEM;
    errint error = meta_policy_find(fs->meta, checkpoint, POLICY_EXPORT, found);
    if (!error)
        error = policy_find(fs, checkpoint, policy_find_key(POLICY_EXPORT_WHEN), value);
    if (!error && !policy_parse_export_when(value->found.value, &out->when))
        error = -EUCLEAN;
    if (!error)
        error = order_find_places(fs, checkpoint, reason, found, out);
    if (!error && !order_wants(out, reason))
        error = -ENOENT;
    return error ? error : order_find_user(fs, found->directory, &out->user);
}

/* -- the command line -------------------------------------------------------------------------------------
 */

void export_order_arguments(const struct export_order *order, enum export_reason reason,
                            const char **arguments)
{
    bool picks = order_picks(order, reason);
    const char *link = order->when.kind == POLICY_EXPORT_BEST && picks ? "best" : "latest";
    size_t count = 0;
    const char *const first[] = {"ckptfs", "export", "--quiet", "--verify", "--no-links"};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        arguments[count++] = first[i];
    if (picks) {
        arguments[count++] = "--pick";
        arguments[count++] = link;
        /* One that was overtaken is none that was exported: the other has an order of its own. */
        arguments[count++] = "--expect";
        arguments[count++] = order->checkpoint;
    }
    if (reason != EXPORT_BECAUSE_PINNED) {
        arguments[count++] = "--link";
        arguments[count++] = link;
    }
    arguments[count++] = "--";
    arguments[count++] = order->path;
    arguments[count++] = order->target;
    arguments[count] = NULL;
}
