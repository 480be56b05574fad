/* SPDX-License-Identifier: Apache-2.0 */
/* Policies of a directory, for `ckptfs policy`. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "ckpt/keep_policy.h"
#include "fs/assembler.h"
#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/events.h"
#include "fs/export_order.h"
#include "fs/hooks.h"
#include "fs/keep_watch.h"
#include "fs/policy.h"
#include "fs/trash.h"
#include "fs/view.h"

enum { CONTROL_POLICIES_MAX = 64 };

/* -- showing ----------------------------------------------------------------------------------------------
 */

static bool control_fill_policy(cJSON *row, const struct policy_key *key, const struct policy_value *value)
{
    static const char *const sources[] = {[POLICY_FROM_DIRECTORY] = "directory",
                                          [POLICY_FROM_ABOVE] = "above",
                                          [POLICY_FROM_MOUNT] = "mount",
                                          [POLICY_FROM_DEFAULT] = "default"};
    if (!cJSON_AddStringToObject(row, "key", key->name))
        return false;
    if (value->source == POLICY_FROM_NOWHERE)
        return cJSON_AddNullToObject(row, "value") && cJSON_AddNullToObject(row, "source");
    return cJSON_AddStringToObject(row, "value", value->found.value) &&
           cJSON_AddStringToObject(row, "source", sources[value->source]) &&
           (value->source != POLICY_FROM_ABOVE ||
            cJSON_AddNumberToObject(row, "levels", value->found.levels));
}

static errint control_add_policy(struct filesystem *fs, uint64_t directory, const struct policy_key *key,
                                 cJSON *list)
{
    struct policy_value value;
    errint error = policy_find(fs, directory, key, &value);
    if (error)
        return error;
    cJSON *row = cJSON_CreateObject();
    if (row && control_fill_policy(row, key, &value) && cJSON_AddItemToArray(list, row))
        return 0;
    cJSON_Delete(row);
    return -ENOMEM;
}

static errint control_check_directory(struct filesystem *fs, uint64_t directory, struct meta_inode *row)
{
    errint error = meta_get(fs->meta, directory, row);
    return error || S_ISDIR(row->mode) ? error : -ENOTDIR;
}

void control_show_policy(fuse_req_t request, uint64_t directory, size_t room)
{
    struct filesystem *fs = fs_of(request);
    struct control_text answer = {0};
    struct meta_inode row;
    size_t count;
    const struct policy_key *keys = policy_keys(&count);
    cJSON *list = cJSON_CreateArray();
    errint error = !list ? -ENOMEM : room < sizeof answer ? -EINVAL : 0;
    if (!error)
        error = control_check_directory(fs, directory, &row);
    for (size_t i = 0; i < count && !error; i++)
        error = control_add_policy(fs, directory, &keys[i], list);
    if (!error && !cJSON_PrintPreallocated(list, answer.text, sizeof answer.text - 8, false))
        error = -E2BIG;
    cJSON_Delete(list);
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_ioctl(request, 0, &answer, sizeof answer);
}

/* -- setting ----------------------------------------------------------------------------------------------
 */

struct control_policies {
    struct control_text text; /* the changes point into it */
    struct meta_policy_change changes[CONTROL_POLICIES_MAX];
    size_t count;
    bool assembling;                  /* one of them is about what is assembled */
    bool keeping;                     /* one of them is about what is kept */
    bool hooking;                     /* one of them is a command that will be run as who sets it */
    bool exporting;                   /* one sets or unsets where to checkpoints are exported */
    bool trash;                       /* one is about the trash */
    char user[META_POLICY_VALUE_MAX]; /* who sets where to they are exported */
};

/* Who sets where to checkpoints are exported is recorded with it: exports are made with his rights. */
static errint control_note_user(fuse_req_t request, struct control_policies *policies)
{
    struct run_as_user user = {.uid = fuse_req_ctx(request)->uid, .gid = fuse_req_ctx(request)->gid};
    const struct meta_policy_change *change = policies->changes;
    while (strcmp(change->key, POLICY_EXPORT) != 0)
        change++;
    if (policies->count == CONTROL_POLICIES_MAX)
        return -E2BIG;
    if (change->value && !run_as_may(user.uid))
        return -EPERM;
    int groups = fuse_req_getgroups(request, RUN_AS_GROUPS_MAX, user.groups);
    if (groups > RUN_AS_GROUPS_MAX)
        return -E2BIG;
    user.group_count = groups > 0 ? (size_t)groups : 0;
    errint error = export_order_print_user(&user, policies->user);
    policies->changes[policies->count++] =
        (struct meta_policy_change){EXPORT_KEY_USER, change->value ? policies->user : NULL};
    return error;
}

static errint control_read_policies(struct control_policies *policies)
{
    char *at = policies->text.text;
    const char *end = at + sizeof policies->text.text;
    while (*at) {
        size_t length = strnlen(at, (size_t)(end - at));
        char problem[POLICY_PROBLEM_MAX];
        if (at + length + 1 >= end || policies->count == CONTROL_POLICIES_MAX)
            return -E2BIG;
        char *value = strchr(at, '=');
        if (value)
            *value++ = '\0';
        errint error = policy_check(at, value, problem);
        if (error)
            return error;
        policies->changes[policies->count++] = (struct meta_policy_change){at, value};
        policies->assembling |= strcmp(at, POLICY_ASSEMBLE) == 0;
        policies->keeping |= keep_policy_has_key(at);
        policies->hooking |= value && policy_is_hook(at);
        policies->exporting |= strcmp(at, POLICY_EXPORT) == 0;
        policies->trash |= strcmp(at, POLICY_TRASH) == 0 || strcmp(at, POLICY_TRASH_AGE) == 0;
        at += length + 1;
    }
    return policies->count > 0 ? 0 : -EINVAL;
}

errint control_may_mark(fuse_req_t request, uint64_t ino)
{
    struct filesystem *fs = fs_of(request);
    struct meta_inode row;
    if (fs->options->read_only || view_has(ino))
        return -EROFS;
    errint error = meta_get(fs->meta, ino, &row);
    uint32_t uid = fuse_req_ctx(request)->uid;
    return error ? error : uid == 0 || uid == row.uid ? 0 : -EPERM;
}

errint control_may_set(fuse_req_t request, uint64_t directory)
{
    struct meta_inode row;
    errint error = control_may_mark(request, directory);
    return error && error != -EPERM                                   ? error
           : control_check_directory(fs_of(request), directory, &row) ? -ENOTDIR
                                                                      : error;
}

/* What a hook runs may hold what only its owner should read: the key alone is told. */
static void control_tell_policy(struct filesystem *fs, uint64_t directory,
                                const struct meta_policy_change *change)
{
    char reason[POLICY_PROBLEM_MAX];
    if (!change->value)
        snprintf(reason, sizeof reason, "%s is unset", change->key);
    else if (policy_is_hook(change->key))
        snprintf(reason, sizeof reason, "%s is set", change->key);
    else
        snprintf(reason, sizeof reason, "%s=%.128s", change->key, change->value);
    events_emit(fs, &(struct event){
                        .kind = EVENT_POLICY, .ino = directory, .step = -1, .bytes = -1, .reason = reason});
}

void control_set_policy(fuse_req_t request, uint64_t directory, const void *in, size_t length)
{
    struct filesystem *fs = fs_of(request);
    struct control_policies policies = {0};
    errint error = length < sizeof policies.text ? -EINVAL : control_may_set(request, directory);
    if (!error) {
        memcpy(&policies.text, in, sizeof policies.text);
        error = control_read_policies(&policies);
    }
    const struct fuse_ctx *asker = fuse_req_ctx(request);
    if (!error && policies.hooking && !hooks_may_run_as(fs, asker->uid))
        error = -EOPNOTSUPP;
    if (!error && policies.exporting)
        error = control_note_user(request, &policies);
    if (!error)
        error = meta_policy_change_by(fs->meta, directory, policies.changes, policies.count, asker->uid,
                                      asker->gid);
    if (!error && policies.assembling)
        assembler_look_below(fs, directory);
    if (!error && policies.keeping)
        keep_watch_below(fs, directory);
    for (size_t i = 0; !error && i < policies.count; i++)
        control_tell_policy(fs, directory, &policies.changes[i]);
    if (!error && policies.trash)
        trash_kick(fs);
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_ioctl(request, 0, NULL, 0);
}
