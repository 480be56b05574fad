/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a mount's events. */
#include "cmd/event_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "fs/control.h"
#include "fs/filesystem.h"

enum { EVENT_STREAM_BLOCK = 64 * 1024 };

/* -- opening ----------------------------------------------------------------------------------------------
 */

/* The root of the mount is found upwards: its inode has a number of its own. */
static errint event_stream_follow(int directory, int *out)
{
    cleanup_fd int at = openat(directory, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct stat first, status;
    if (at < 0 || fstat(at, &first) < 0)
        return -errno;
    for (status = first; status.st_ino != META_ROOT_INO;) {
        int above = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (above < 0)
            return -errno;
        close(at);
        at = above;
        if (fstat(at, &status) < 0)
            return -errno;
        if (status.st_dev != first.st_dev)
            return -EXDEV; /* a part of the mount is bound elsewhere */
    }
    *out = openat(at, FS_CONTROL_NAME "/events", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return *out < 0 ? -errno : 0;
}

static errint event_stream_ask(const struct event_stream *stream, struct control_events *answer)
{
    if (ioctl(stream->directory, CKPTFS_IOCTL_EVENTS, answer) < 0)
        return -errno;
    answer->path[sizeof answer->path - 1] = '\0';
    answer->text[sizeof answer->text - 1] = '\0';
    return 0;
}

errint event_stream_open(int directory, bool follow, struct event_stream *out)
{
    *out = EVENT_STREAM_CLOSED;
    cleanup_free struct control_events *answer = calloc(1, sizeof *answer);
    if (!answer)
        return -ENOMEM;
    out->directory = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (out->directory < 0)
        return -errno;
    /* The place in the stream first: what comes meanwhile is kept, too, and is told apart by its number. */
    answer->from = INT64_MAX;
    errint error = event_stream_ask(out, answer);
    if (!error && follow)
        error = event_stream_follow(directory, &out->fd);
    if (!error)
        out->path = strdup(answer->path);
    return error || out->path ? error : -ENOMEM;
}

void event_stream_close(struct event_stream *stream)
{
    if (stream->directory >= 0)
        close(stream->directory);
    if (stream->fd >= 0)
        close(stream->fd);
    free(stream->path);
    text_release(&stream->got);
    *stream = EVENT_STREAM_CLOSED;
}

/* -- lines ------------------------------------------------------------------------------------------------
 */

const char *event_stream_text(const cJSON *event, const char *member)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, member));
}

bool event_stream_is_at(const cJSON *event, const char *path, bool below)
{
    const char *found = event_stream_text(event, "path");
    size_t length = strlen(path);
    if (!found)
        return false;
    if (below && length == 0)
        return true;
    return strncmp(found, path, length) == 0 && (found[length] == '\0' || (below && found[length] == '/'));
}

/* False: no more are wanted. */
static bool event_stream_hand_out(struct event_stream *stream, const char *line, event_stream_each *each,
                                  void *context)
{
    cJSON *event = cJSON_Parse(line);
    const cJSON *sequence = cJSON_GetObjectItemCaseSensitive(event, "sequence");
    bool more = true, old = false;
    if (cJSON_IsNumber(sequence) && sequence->valuedouble > 0) {
        old = (uint64_t)sequence->valuedouble <= stream->last;
        stream->last = old ? stream->last : (uint64_t)sequence->valuedouble;
    }
    if (!old)
        more = each(context, line, event);
    cJSON_Delete(event);
    return more;
}

errint event_stream_kept(struct event_stream *stream, uint64_t from, event_stream_each *each, void *context)
{
    cleanup_free struct control_events *answer = calloc(1, sizeof *answer);
    if (!answer)
        return -ENOMEM;
    answer->from = from;
    for (;;) {
        char *rest = NULL;
        errint error = event_stream_ask(stream, answer);
        if (error || answer->length == 0)
            return error;
        for (char *line = strtok_r(answer->text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
            if (!event_stream_hand_out(stream, line, each, context))
                return 0;
        }
    }
}

/* The whole lines of what was got; false: no more are wanted. */
static bool event_stream_split(struct event_stream *stream, event_stream_each *each, void *context)
{
    char *at = stream->got.at, *end = at + stream->got.length, *newline;
    bool more = true;
    while (more && at < end && (newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        *newline = '\0';
        more = event_stream_hand_out(stream, at, each, context);
        at = newline + 1;
    }
    stream->got.length = (size_t)(end - at);
    memmove(stream->got.at, at, stream->got.length);
    return more;
}

int event_stream_read(struct event_stream *stream, event_stream_each *each, void *context)
{
    cleanup_free char *block = malloc(EVENT_STREAM_BLOCK);
    if (!block)
        return -ENOMEM;
    for (;;) {
        ssize_t got = read(stream->fd, block, EVENT_STREAM_BLOCK);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 ? 0 : errno == EAGAIN ? 1 : -errno;
        text_append(&stream->got, block, (size_t)got);
        if (stream->got.failed)
            return -ENOMEM;
        if (!event_stream_split(stream, each, context))
            return 0;
    }
}
