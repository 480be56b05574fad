/* SPDX-License-Identifier: Apache-2.0 */
/* What waits to be given back to the disk, for `ckptfs gc`. */
#include <errno.h>
#include <string.h>

#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/discard.h"
#include "fs/reclaim.h"
#include "fs/repack.h"
#include "fs/report.h"
#include "store/object.h"

static void control_fill_reclaim(const struct reclaim_survey *survey, struct control_reclaim *answer)
{
    answer->punch_objects = survey->punch.objects;
    answer->punch_bytes = (uint64_t)survey->punch.bytes;
    answer->held_objects = survey->held.objects;
    answer->held_bytes = (uint64_t)survey->held.bytes;
    answer->repack_objects = survey->repack.objects;
    answer->repack_bytes = (uint64_t)survey->repack.bytes;
    answer->remove_objects = survey->remove.objects;
    answer->remove_bytes = (uint64_t)survey->remove.bytes;
    answer->unhashed_objects = survey->unhashed;
    answer->open_files = survey->open.objects;
    answer->open_bytes = (uint64_t)survey->open.bytes;
}

/* Where objects are repacked, a try is made when that has ended, too. */
static void control_follow_repacking(struct filesystem *fs, struct control_reclaim *answer)
{
    const struct repack_progress progress = repack_look(fs);
    if (progress.done < answer->done)
        answer->done = progress.done;
    answer->repack_failed = progress.failed;
}

static void control_answer_reclaim(struct report *report)
{
    struct filesystem *fs = report->fs;
    struct reclaim_survey survey = {.stop = report_stops, .context = report};
    struct control_reclaim answer = {.now = report->argument};
    if (answer.now)
        discard_kick(fs);
    /* Before looking: what a try that is done has left is seen. */
    discard_progress(fs, &answer.asked, &answer.done);
    int can_punch = object_can_punch(fs->store);
    survey.can_punch = can_punch > 0;
    if (!survey.can_punch)
        control_follow_repacking(fs, &answer);
    errint error = can_punch < 0 ? can_punch : reclaim_look(fs, &survey);
    if (error) {
        report_fail(report, error);
        return;
    }
    answer.can_punch = can_punch > 0;
    control_fill_reclaim(&survey, &answer);
    fuse_reply_ioctl(report->request, 0, &answer, sizeof answer);
}

void control_reclaim(fuse_req_t request, const void *in, size_t in_size, size_t room)
{
    struct control_reclaim question = {0};
    const struct control_asked asked = {request, in, in_size, room};
    errint error = control_take(&asked, &question, sizeof question);
    const struct report report = {
        .ino = META_ROOT_INO, .argument = question.now, .answer = control_answer_reclaim};
    if (error)
        fuse_reply_err(request, -error);
    else
        report_later(request, &report);
}
