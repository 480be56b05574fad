/* SPDX-License-Identifier: Apache-2.0 */
/* Pins, marks of checkpoints, and policies that are applied at once: for `ckptfs pin`, `ls` and `policy`. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/checkpoints.h"
#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/export.h"
#include "fs/keep.h"
#include "fs/report.h"
#include "fs/view.h"
#include "meta/pin.h"

/* -- pins -------------------------------------------------------------------------------------------------
 */

static void control_pin(fuse_req_t request, uint64_t ino, const void *in, size_t in_size)
{
    struct filesystem *fs = fs_of(request);
    uint32_t pinned = 0;
    struct meta_name name;
    size_t names;
    errint error = in_size < sizeof pinned ? -EINVAL : control_may_mark(request, ino);
    if (!error) {
        memcpy(&pinned, in, sizeof pinned);
        error = pinned > 1 ? -EINVAL : meta_pin_set(fs->meta, ino, pinned);
    }
    /* What was only held by its pin goes. */
    if (!error && !pinned && meta_find_names(fs->meta, ino, NULL, &name, 1, &names) == 0 && names > 0)
        checkpoints_touch_directory(fs, name.parent);
    if (!error && pinned)
        export_pinned(fs, ino);
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_ioctl(request, 0, NULL, 0);
}

/* -- marks ------------------------------------------------------------------------------------------------
 */

static void control_answer_marks(struct report *report)
{
    struct keep_marks marks = {0};
    struct meta_inode row;
    errint error = meta_get(report->fs->meta, report->ino, &row);
    const struct keep_asked asked = {.ino = report->ino,
                                     .handles = !error && S_ISREG(row.mode) ? 1 : 0,
                                     .thread = (pid_t)report->argument,
                                     .stops = report_stops,
                                     .context = report};
    if (!error)
        error = keep_find_marks(report->fs, &asked, &marks);
    const struct control_marks answer = {.pinned = marks.pinned,
                                         .open = marks.open,
                                         .loaded = marks.loaded,
                                         .exported = marks.exported,
                                         .unsettled = marks.unsettled,
                                         .torn = marks.torn,
                                         .latest = marks.latest};
    if (error)
        report_fail(report, error);
    else
        fuse_reply_ioctl(report->request, 0, &answer, sizeof answer);
}

/* -- applying ---------------------------------------------------------------------------------------------
 */

struct control_removals {
    cJSON *list;
    bool failed; /* no memory */
};

static void control_note_removal(void *context, const struct keep_list *list, size_t index, errint error)
{
    struct control_removals *removals = context;
    const struct keep_checkpoint *checkpoint = &list->checkpoints[index];
    cJSON *row = cJSON_CreateObject();
    bool fine = row && cJSON_AddStringToObject(row, "path", checkpoint->path) &&
                cJSON_AddNumberToObject(row, "bytes", (double)checkpoint->bytes) &&
                cJSON_AddStringToObject(row, "reason", list->verdicts[index].reason) &&
                (error ? cJSON_AddStringToObject(row, "error", strerror(-error))
                       : cJSON_AddNullToObject(row, "error")) &&
                cJSON_AddItemToArray(removals->list, row);
    if (!fine)
        cJSON_Delete(row);
    removals->failed |= !fine;
}

/* The report that this thread answers. */
static _Thread_local struct report *control_applying;

static bool control_keep_stops(struct filesystem *fs)
{
    (void)fs;
    return report_stops(control_applying);
}

static void control_answer_keep(struct report *report)
{
    struct control_removals removals = {.list = cJSON_CreateArray()};
    struct control_text answer = {0};
    cleanup_keep_list struct keep_list list = {0};
    control_applying = report;
    errint error = removals.list ? keep_apply(report->fs, report->ino, control_keep_stops,
                                              control_note_removal, &removals, &list)
                                 : -ENOMEM;
    if (!error && removals.failed)
        error = -ENOMEM;
    while (!error && !cJSON_PrintPreallocated(removals.list, answer.text, sizeof answer.text - 8, false))
        cJSON_DeleteItemFromArray(removals.list, cJSON_GetArraySize(removals.list) - 1);
    cJSON_Delete(removals.list);
    if (error)
        report_fail(report, error);
    else
        fuse_reply_ioctl(report->request, 0, &answer, sizeof answer);
}

static void control_apply(fuse_req_t request, uint64_t ino, size_t room)
{
    errint error = room < sizeof(struct control_text) ? -EINVAL : control_may_set(request, ino);
    if (error)
        fuse_reply_err(request, -error);
    else
        report_later(request, &(struct report){.ino = ino, .reads = true, .answer = control_answer_keep});
}

static void control_marks(fuse_req_t request, uint64_t ino, size_t room)
{
    const struct report report = {.ino = view_target(ino),
                                  .argument = (uint64_t)fuse_req_ctx(request)->pid,
                                  .answer = control_answer_marks};
    report_within(request, room, sizeof(struct control_marks), &report);
}

bool control_keep(fuse_req_t request, uint64_t ino, unsigned command, const void *in, size_t in_size,
                  size_t room)
{
    switch (command) {
    case CKPTFS_IOCTL_PIN: control_pin(request, ino, in, in_size); return true;
    case CKPTFS_IOCTL_MARKS: control_marks(request, ino, room); return true;
    case CKPTFS_IOCTL_KEEP: control_apply(request, ino, room); return true;
    default: return false;
    }
}
