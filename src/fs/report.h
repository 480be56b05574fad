/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers that take long: figures that a command or an extended attribute asks for. They are worked out by
 * threads of their own, so that neither those who read /dev/fuse nor those who sync wait for them.
 */
#ifndef CKPTFS_FS_REPORT_H
#define CKPTFS_FS_REPORT_H

#include "fs/filesystem.h"

struct report {
    struct filesystem *fs;
    fuse_req_t request;
    uint64_t ino;
    uint32_t uid;      /* who asks */
    uint64_t argument; /* the answer's own */
    uint64_t fh;       /* of the handle that is asked about, where there is one */
    size_t room;       /* for the answer, in bytes */
    bool reads;        /* it reads a whole file: it must not keep figures of others waiting */
    void (*answer)(struct report *report);
    /* report.c's own */
    uint64_t unique;
    unsigned slot;
};

/*
 * Has answer() called by one of the threads; it replies to `request` exactly once. `report` is copied, and
 * its last two fields need not be set. Does not block.
 */
void report_later(fuse_req_t request, const struct report *report);
/* The same where the asker has `room` for an answer of `size` bytes; else replies with EINVAL. */
void report_within(fuse_req_t request, size_t room, size_t size, const struct report *report);
/* Replies with the answer of an ioctl, or with the error if there is one (report_fail). */
void report_reply(struct report *report, errint error, const void *answer, size_t size);

/*
 * Whether the report (a struct report) is not wanted any more: the asker was interrupted, or the daemon
 * stops. To be asked every few milliseconds: it also tells the keeper that the request is not stuck.
 */
bool report_stops(void *report);

/* Replies with an error; -ECANCELED is EINTR, and no reply at all when a successor will be asked again. */
void report_fail(struct report *report, errint error);

/* Whose files may be counted for whoever asks: everybody's, for root. */
static inline bool report_sees_everybody(const struct report *report)
{
    return report->uid == 0;
}

#endif
