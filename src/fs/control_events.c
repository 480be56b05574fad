/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon has told, for `ckptfs events` and `ckptfs wait`; and its hooks, for `ckptfs umount`. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/events.h"
#include "fs/hooks.h"
#include "fs/report.h"

enum { CONTROL_MOMENT_NS = 10 * 1000 * 1000, CONTROL_PAUSE_SECONDS = 2 };

static errint control_fill_events(struct filesystem *fs, uint64_t directory, uint32_t uid,
                                  struct control_events *answer)
{
    cleanup_free char *path = NULL;
    errint error = meta_path(fs->meta, directory, &path);
    if (error)
        return error;
    const char *bare = path + strspn(path, "/");
    if (strlen(bare) >= sizeof answer->path)
        return -ENAMETOOLONG;
    memcpy(answer->path, bare, strlen(bare) + 1);
    /* As the lines have it, which it is compared with. */
    event_make_readable(answer->path);
    const struct event_viewer viewer = events_viewer(uid);
    struct event_place place = {.sequence = answer->from > 0 ? answer->from : 1};
    size_t length = 0;
    while (length + EVENT_LINE_MAX < sizeof answer->text) {
        size_t got =
            events_read(fs, &place, &viewer, answer->text + length, sizeof answer->text - 1 - length);
        if (got == 0)
            break;
        length += got;
    }
    answer->text[length] = '\0';
    answer->length = (uint32_t)length;
    answer->from = place.sequence;
    return 0;
}

void control_events(fuse_req_t request, uint64_t directory, const void *in, size_t in_size, size_t room)
{
    struct filesystem *fs = fs_of(request);
    cleanup_free struct control_events *answer = calloc(1, sizeof *answer);
    errint error = !answer ? -ENOMEM : in_size < sizeof *answer || room < sizeof *answer ? -EINVAL : 0;
    if (!error) {
        answer->from = ((const struct control_events *)in)->from;
        error = control_fill_events(fs, directory, fuse_req_ctx(request)->uid, answer);
    }
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_ioctl(request, 0, answer, sizeof *answer);
}

static void control_answer_pause(struct report *report)
{
    const struct timespec moment = {.tv_nsec = CONTROL_MOMENT_NS};
    int64_t deadline = clock_monotonic() + CONTROL_PAUSE_SECONDS * CLOCK_NS_PER_SECOND;
    struct control_pause answer = {.seconds = (uint32_t)report->argument};
    hooks_pause(report->fs, answer.seconds);
    while (hooks_running(report->fs) > 0 && clock_monotonic() < deadline) {
        if (report_stops(report)) {
            report_fail(report, -ECANCELED);
            return;
        }
        nanosleep(&moment, NULL);
    }
    answer.running = hooks_running(report->fs);
    fuse_reply_ioctl(report->request, 0, &answer, sizeof answer);
}

void control_pause(fuse_req_t request, const void *in, size_t in_size, size_t room)
{
    struct control_pause question = {0};
    const struct control_asked asked = {request, in, in_size, room};
    errint error = control_take(&asked, &question, sizeof question);
    const struct report report = {.ino = META_ROOT_INO,
                                  .argument = question.seconds ? question.seconds : 1,
                                  .answer = control_answer_pause};
    if (error)
        fuse_reply_err(request, -error);
    else
        report_later(request, &report);
}
