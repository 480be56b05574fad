/* SPDX-License-Identifier: Apache-2.0 */
/* Handing reports to their threads. */
#include "fs/report.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"

static void report_run(void *context, unsigned worker)
{
    struct report *report = context;
    report->slot = STATE_REQUESTS - 1 - FS_SYNC_WORKERS - (report->reads ? FS_REPORTERS : 0) - worker;
    state_request_begin(report->fs->state, report->slot, report->unique, 0, report->ino);
    errint error = fault_hit("fs.report");
    if (error)
        report_fail(report, error);
    else
        report->answer(report);
    state_request_end(report->fs->state, report->slot);
    free(report);
}

void report_later(fuse_req_t request, const struct report *report)
{
    struct filesystem *fs = fs_of(request);
    struct report *copy = malloc(sizeof *copy);
    if (copy) {
        *copy = *report;
        copy->fs = fs;
        copy->request = request;
        copy->uid = fuse_req_ctx(request)->uid;
        copy->unique = fs_current_unique();
        if (workers_submit(copy->reads ? fs->summers : fs->reporters, report_run, copy) == 0)
            return;
    }
    free(copy);
    fuse_reply_err(request, ENOMEM);
}

void report_within(fuse_req_t request, size_t room, size_t size, const struct report *report)
{
    if (room < size)
        fuse_reply_err(request, EINVAL);
    else
        report_later(request, report);
}

bool report_stops(void *context)
{
    struct report *report = context;
    state_request_begin(report->fs->state, report->slot, report->unique, 0, report->ino);
    return atomic_load(&report->fs->stopping) || fuse_req_interrupted(report->request);
}

void report_fail(struct report *report, errint error)
{
    if (error != -ECANCELED)
        fuse_reply_err(report->request, -error);
    else if (atomic_load(&report->fs->stopping))
        fuse_reply_none(report->request);
    else
        fuse_reply_err(report->request, EINTR);
}

void report_reply(struct report *report, errint error, const void *answer, size_t size)
{
    if (error)
        report_fail(report, error);
    else
        fuse_reply_ioctl(report->request, 0, answer, size);
}
