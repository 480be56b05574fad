/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon of a mount has told and tells (fs/events.h), as a command reads it: what is kept, by ioctl;
 * what comes, from .ckptfs/events. While the stream is open the mount is in use.
 */
#ifndef CKPTFS_CMD_EVENT_STREAM_H
#define CKPTFS_CMD_EVENT_STREAM_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

struct event_stream {
    int directory;   /* that was asked about */
    int fd;          /* of .ckptfs/events, not blocking; -1: not open */
    char *path;      /* of the directory on its mount: "" for the root */
    uint64_t last;   /* the number of the last line that was handed out */
    struct text got; /* a line's beginning */
};

#define EVENT_STREAM_CLOSED ((struct event_stream){.directory = -1, .fd = -1})

/* One line, without its end, and what it says (NULL: no JSON). False: no more of them are wanted. */
typedef bool event_stream_each(void *context, const char *line, const cJSON *event);

/* `follow`: what comes from now on can be read, too. 0 or an errno; -ENOTTY (and the like, as
 * directory_explain has them): it is on no mount of ours. Released in any case. */
errint event_stream_open(int directory, bool follow, struct event_stream *out);
void event_stream_close(struct event_stream *stream);
#define cleanup_event_stream __attribute__((cleanup(event_stream_close)))

/* Hands out what is kept, from the number `from` on. */
errint event_stream_kept(struct event_stream *stream, uint64_t from, event_stream_each *each, void *context);
/* Hands out what has come; does not wait. 1: more may come; 0: the mount has ended, or `each` wants no more;
 * or an error. What was handed out as kept is left out. */
int event_stream_read(struct event_stream *stream, event_stream_each *each, void *context);

/* A member that is a text; NULL. */
const char *event_stream_text(const cJSON *event, const char *member);
/* Whether an event's path is this one; `below`: or lies below it. */
bool event_stream_is_at(const cJSON *event, const char *path, bool below);

#endif
