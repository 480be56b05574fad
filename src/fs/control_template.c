/* SPDX-License-Identifier: Apache-2.0 */
/* Templates of runs, for `ckptfs template`, and who has what loaders want, for `ckptfs inspect`. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "ckpt/side_files.h"
#include "fs/assembler.h"
#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/events.h"
#include "fs/models.h"
#include "fs/policy.h"
#include "fs/view.h"
#include "fs/writeback.h"
#include "meta/template.h"

static bool control_was_done(struct filesystem *fs)
{
    uint64_t made;
    return state_request_was_done(fs->state, fs_current_unique(), &made);
}

/* `path`: where it comes from; NULL: it was taken away. */
static void control_tell_template(struct filesystem *fs, uint64_t run, const char *path)
{
    char reason[POLICY_PROBLEM_MAX];
    if (path)
        snprintf(reason, sizeof reason, POLICY_TEMPLATE "=%.200s", path);
    else
        snprintf(reason, sizeof reason, POLICY_TEMPLATE " is unset");
    events_emit(fs,
                &(struct event){.kind = EVENT_POLICY, .ino = run, .step = -1, .bytes = -1, .reason = reason});
}

static void control_reply_done(fuse_req_t request, errint error)
{
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_ioctl(request, 0, NULL, 0);
}

/* -- putting and removing ---------------------------------------------------------------------------------
 */

static errint control_check_template(const struct control_template *wanted)
{
    if (wanted->count == 0 || wanted->count > CONTROL_TEMPLATE_FILES || wanted->path[0] != '/' ||
        !memchr(wanted->path, '\0', sizeof wanted->path))
        return -EINVAL;
    for (uint32_t i = 0; i < wanted->count; i++) {
        const char *name = wanted->files[i].name;
        if (!memchr(name, '\0', sizeof wanted->files[i].name) || !side_file_is(name))
            return -EINVAL;
    }
    return 0;
}

/* They have a name from now on, as by link(2). */
static void control_relink(struct filesystem *fs, const struct control_template *wanted)
{
    for (uint32_t i = 0; i < wanted->count; i++) {
        struct node *node = node_find(fs, wanted->files[i].ino);
        if (!node)
            continue;
        node_lock(node);
        node_relink(fs, node);
        node_unlock(node);
        node_put(fs, node);
    }
}

static errint control_put_template(struct filesystem *fs, uint64_t run, const void *in)
{
    struct meta_template_file files[CONTROL_TEMPLATE_FILES];
    cleanup_free struct control_template *wanted = malloc(sizeof *wanted);
    if (!wanted)
        return -ENOMEM;
    memcpy(wanted, in, sizeof *wanted);
    errint error = control_check_template(wanted);
    if (error)
        return error;
    for (uint32_t i = 0; i < wanted->count; i++)
        files[i] = (struct meta_template_file){wanted->files[i].name, wanted->files[i].ino};
    const struct meta_template template = {
        .run = run, .path = wanted->path, .files = files, .count = wanted->count, .now = clock_file_time()};
    if (!control_was_done(fs)) {
        error = atomic_load(&fs->disk_full) ? -ENOSPC : fault_hit("fs.template.put");
        if (!error)
            error = meta_template_put(fs->meta, &template, fs_current_unique());
        fault_hit("fs.template.done"); /* too late for an error */
    }
    if (!error) {
        control_relink(fs, wanted);
        assembler_look_below(fs, run); /* for what is lent beside the models */
        control_tell_template(fs, run, wanted->path);
        writeback_kick(fs); /* that one removes the files of the one before */
    }
    return error;
}

static errint control_remove_template(struct filesystem *fs, uint64_t run)
{
    errint error = control_was_done(fs) ? 0 : meta_template_remove(fs->meta, run, fs_current_unique());
    if (!error) {
        control_tell_template(fs, run, NULL);
        assembler_look_below(fs, run);
        writeback_kick(fs);
    }
    return error;
}

/* -- showing ----------------------------------------------------------------------------------------------
 */

struct control_files {
    cJSON *list;
    bool failed;
};

static bool control_add_file(void *context, const char *name, size_t length, uint64_t cookie,
                             const struct meta_inode *inode)
{
    (void)cookie;
    struct control_files *files = context;
    char text[META_NAME_MAX + 1];
    meta_copy_name(text, name, length);
    cJSON *row = cJSON_CreateObject();
    if (!row || !cJSON_AddItemToArray(files->list, row)) {
        cJSON_Delete(row);
        files->failed = true;
    } else {
        files->failed = !cJSON_AddStringToObject(row, "name", text) ||
                        !cJSON_AddNumberToObject(row, "bytes", (double)inode->size);
    }
    return !files->failed;
}

static errint control_describe_template(struct filesystem *fs, uint64_t directory, cJSON *document)
{
    struct meta_template_found found;
    struct policy_value path;
    errint error = meta_template_find(fs->meta, directory, &found);
    if (!error)
        error = policy_find(fs, directory, policy_find_key(POLICY_TEMPLATE), &path);
    if (error)
        return error;
    struct control_files files = {.list = cJSON_AddArrayToObject(document, "files")};
    if (!files.list || !cJSON_AddStringToObject(document, "path", path.found.value) ||
        !cJSON_AddNumberToObject(document, "levels", path.found.levels))
        return -ENOMEM;
    error = meta_list(fs->meta, found.hidden, 0, control_add_file, &files);
    return error ? error : files.failed ? -ENOMEM : 0;
}

static void control_show_template(fuse_req_t request, uint64_t directory, size_t room)
{
    struct control_text answer = {0};
    cJSON *document = cJSON_CreateObject();
    errint error = !document ? -ENOMEM : room < sizeof answer ? -EINVAL : 0;
    if (!error)
        error = control_describe_template(fs_of(request), directory, document);
    if (!error && !cJSON_PrintPreallocated(document, answer.text, sizeof answer.text - 8, false))
        error = -E2BIG;
    cJSON_Delete(document);
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_ioctl(request, 0, &answer, sizeof answer);
}

static void control_show_source(fuse_req_t request, uint64_t directory, const void *in, size_t length,
                                size_t room)
{
    struct control_source question;
    enum models_source source;
    if (length < sizeof question || room < sizeof question) {
        fuse_reply_err(request, EINVAL);
        return;
    }
    memcpy(&question, in, sizeof question);
    errint error = memchr(question.name, '\0', sizeof question.name) ? 0 : -EINVAL;
    if (!error)
        error = models_find_source(fs_of(request), directory, question.name, &source);
    if (error) {
        fuse_reply_err(request, -error);
        return;
    }
    question.source = source;
    fuse_reply_ioctl(request, 0, &question, sizeof question);
}

/* -- the contract -----------------------------------------------------------------------------------------
 */

bool control_template(fuse_req_t request, uint64_t directory, unsigned command, const void *in,
                      size_t in_size, size_t room)
{
    struct filesystem *fs = fs_of(request);
    errint error;
    switch (command) {
    case CKPTFS_IOCTL_TEMPLATE_PUT:
        error = in_size < sizeof(struct control_template) ? -EINVAL : control_may_set(request, directory);
        control_reply_done(request, error ? error : control_put_template(fs, directory, in));
        return true;
    case CKPTFS_IOCTL_TEMPLATE_REMOVE:
        error = control_may_set(request, directory);
        control_reply_done(request, error ? error : control_remove_template(fs, directory));
        return true;
    case CKPTFS_IOCTL_TEMPLATE_SHOW:
        control_show_template(request, view_target(directory), room);
        return true;
    case CKPTFS_IOCTL_SOURCE:
        control_show_source(request, view_target(directory), in, in_size, room);
        return true;
    default: return false;
    }
}
