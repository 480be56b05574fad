/* SPDX-License-Identifier: Apache-2.0 */
/* One thing that the daemon has done or found by itself, and the line of JSON that tells of it. */
#ifndef CKPTFS_FS_EVENT_H
#define CKPTFS_FS_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

enum event_kind {
    EVENT_COMPLETE,      /* a checkpoint is whole */
    EVENT_DURABLE,       /* and all of it on stable storage */
    EVENT_TORN,          /* it was begun, and nobody is left who would complete it */
    EVENT_REMOVED,       /* by a policy, for space, or by the trainer's rotation */
    EVENT_EXPORTED,      /* its files are on a plain disk */
    EVENT_BEST,          /* it is the best of its run now */
    EVENT_RESTORED,      /* it was had back */
    EVENT_ASSEMBLED,     /* its shards have become a model */
    EVENT_WITHDRAWN,     /* that model is shown no more */
    EVENT_EXPORT_FAILED, /* it is tried again */
    EVENT_POLICY,        /* somebody has set a policy of the directory */
    EVENT_SHED,          /* its optimizer's state was given up for space */
    EVENT_KINDS,
};

struct event {
    enum event_kind kind;
    uint64_t ino;     /* of the checkpoint's directory; 0: it is not known, or gone */
    const char *path; /* of that on the mount, from the root, with or without a slash before it; NULL: found
                         by its inode */
    const char *run;  /* of the run, likewise; NULL: the directory above */
    int64_t step;     /* -1: none, or not known */
    int64_t bytes;    /* that it is about; -1: not known */
    const char *framework; /* NULL: not known */
    const char *reason;    /* one line for people; NULL: none */
};

/* A line has at most so many bytes: longer ones lose their paths. */
enum { EVENT_LINE_MAX = 8000 };

/* "complete", ...: told to people and scripts, never changed. */
const char *event_kind_name(enum event_kind kind);
/* False: it is none. */
bool event_kind_parse(const char *name, enum event_kind *out);

/*
 * The event as a line of JSON, with its end. `time`: ns since the epoch. Bytes of paths that are no UTF-8 are
 * in it as they are. The caller frees it; NULL: no memory.
 */
char *event_print(const struct event *event, uint64_t sequence, int64_t time);
/* Makes each byte that is no UTF-8 a question mark: what readers get. */
void event_make_readable(char *line);

#endif
