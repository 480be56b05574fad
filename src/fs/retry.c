/* SPDX-License-Identifier: Apache-2.0 */
/* Doing requests again that found the disk full. */
#include "fs/retry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "fs/ops.h"
#include "fs/room.h"
#include "fs/trash.h"

/* What the operations may look at of the message: its header, and the fixed part of a WRITE or CREATE. */
enum { RETRY_MESSAGE = PROTOCOL_HEADER_SIZE + PROTOCOL_WRITE_SIZE };

struct retry {
    union {
        struct protocol_header header;
        char bytes[RETRY_MESSAGE];
    } message;
    void (*again)(const struct retry *retry);
    fuse_req_t request;
    uint64_t given; /* as trash_given had it when there was no room */
    int64_t free;   /* of the disk, likewise */
    int64_t until;  /* clock_monotonic() up to which it waits */
    bool hopes;     /* waits where there is nothing to give up just now */
    fuse_ino_t ino; /* or the directory */
    struct fuse_file_info fi;
    mode_t mode;
    dev_t device;
    off_t offset, length;
    struct stat status;
    int set; /* of the status */
    size_t size;
    char *text;   /* a name or bytes */
    char *target; /* of a symlink */
};

/* Between two looks for something to give up, and for room that others have made. */
#define RETRY_AGAIN_NS (CLOCK_NS_PER_SECOND / 2)
#define RETRY_LOOK_NS  (CLOCK_NS_PER_SECOND / 20)
/* So many times the database's reserve is left free, for what it stores meanwhile. */
enum { RETRY_RESERVES = 2 };

/* The thread has tried to make room, and there was nothing to give up: this is the last time. */
static _Thread_local bool retry_is_last;
/* Of the request that the thread does again; 0: it does not. */
static _Thread_local int64_t retry_until;

static void retry_free(struct retry *retry)
{
    free(retry->text);
    free(retry->target);
    free(retry);
}

/* -- waiting ----------------------------------------------------------------------------------------------
 */

static bool retry_stops(void *context)
{
    const struct retry *retry = context;
    return atomic_load(&fs_of(retry->request)->stopping) || fuse_req_interrupted(retry->request);
}

/* Whether others have made room within the time. */
static bool retry_finds_room(const struct retry *retry, int64_t time)
{
    const struct timespec step = clock_to_timespec(RETRY_LOOK_NS);
    struct filesystem *fs = fs_of(retry->request);
    int64_t end = clock_monotonic() + time;
    while (clock_monotonic() < end && !retry_stops((void *)retry)) {
        if (room_free(fs) > retry->free + (int64_t)retry->size)
            return true;
        nanosleep(&step, NULL);
    }
    return false;
}

/* True: it may succeed now. False: the time is over, or nobody waits any more. */
static bool retry_wait(struct retry *retry)
{
    struct filesystem *fs = fs_of(retry->request);
    bool told = false;
    while (!retry_stops(retry)) {
        if (trash_make_room(fs, retry->given, retry_stops, retry))
            return true;
        int64_t now = clock_monotonic(), left = retry->until - now;
        if (retry->hopes && left <= 0)
            atomic_store(&fs->room.hopeless, now + fs->options->full_timeout * CLOCK_NS_PER_SECOND);
        if (!retry->hopes || left <= 0 || !trash_may_give_later(fs))
            return false;
        if (!told)
            log_warning(
                "the disk under the store is full, and nothing can be given up now: a write waits for "
                "room, %lld s at most",
                (long long)(left / CLOCK_NS_PER_SECOND));
        told = true;
        if (retry_finds_room(retry, left < RETRY_AGAIN_NS ? left : RETRY_AGAIN_NS))
            return true;
    }
    return false;
}

/* Who is not waited for is told so; a successor is sent the request again. */
static void retry_end(const struct retry *retry)
{
    if (atomic_load(&fs_of(retry->request)->stopping))
        fuse_reply_none(retry->request);
    else
        fuse_reply_err(retry->request, EINTR);
}

static void retry_run(void *context, unsigned worker)
{
    struct retry *retry = context;
    struct filesystem *fs = fs_of(retry->request);
    unsigned slot = STATE_REQUESTS - 1 - FS_SYNC_WORKERS - FS_REPORTERS - FS_SUMMERS - worker;
    retry_is_last = !retry_wait(retry);
    if (retry_is_last && retry_stops(retry)) {
        retry_end(retry);
        retry_free(retry);
        return;
    }
    retry_until = retry->until;
    state_request_begin(fs->state, slot, retry->message.header.unique, retry->message.header.opcode,
                        retry->ino);
    fs_current_request = &retry->message.header;
    retry->again(retry);
    fs_current_request = NULL;
    state_request_end(fs->state, slot);
    retry_until = 0;
    retry_free(retry);
}

/* One has waited in vain: for a while the others only look once. */
static bool retry_hopes(struct filesystem *fs)
{
    return clock_monotonic() >= atomic_load(&fs->room.hopeless);
}

static bool retry_may_wait(struct filesystem *fs)
{
    return !retry_is_last && trash_may_give(fs) && fs->retriers && fs->options->full_timeout > 0;
}

/* NULL: not this time, or no memory. */
static struct retry *retry_new(fuse_req_t request, void (*again)(const struct retry *retry))
{
    struct filesystem *fs = fs_of(request);
    if (!fs_current_request || !retry_may_wait(fs))
        return NULL;
    struct retry *retry = calloc(1, sizeof *retry);
    if (!retry)
        return NULL;
    size_t length = fs_current_request->length;
    memcpy(retry->message.bytes, fs_current_request,
           length < sizeof retry->message ? length : sizeof retry->message);
    retry->again = again;
    retry->request = request;
    retry->given = trash_given(fs);
    retry->free = room_free(fs);
    retry->until =
        retry_until ? retry_until : clock_monotonic() + fs->options->full_timeout * CLOCK_NS_PER_SECOND;
    retry->hopes = retry_until || retry_hopes(fs);
    return retry;
}

static bool retry_submit(struct retry *retry)
{
    if (workers_submit(fs_of(retry->request)->retriers, retry_run, retry) == 0)
        return true;
    retry_free(retry);
    return false;
}

/* -- the operations ---------------------------------------------------------------------------------------
 */

bool retry_should_wait(struct filesystem *fs, int64_t size)
{
    return retry_may_wait(fs) && retry_hopes(fs) &&
           room_free(fs) < RETRY_RESERVES * fs->store->reserve_size + size;
}

static void retry_write_again(const struct retry *retry)
{
    struct fuse_file_info fi = retry->fi;
    ops_write(retry->request, retry->ino, retry->text, retry->size, retry->offset, &fi);
}

bool retry_write(fuse_req_t request, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
                 const struct fuse_file_info *fi)
{
    struct retry *retry = retry_new(request, retry_write_again);
    if (!retry)
        return false;
    retry->ino = ino;
    retry->size = size;
    retry->offset = offset;
    retry->fi = *fi;
    retry->text = malloc(size + 1);
    if (!retry->text) {
        retry_free(retry);
        return false;
    }
    memcpy(retry->text, bytes, size);
    return retry_submit(retry);
}

static void retry_fallocate_again(const struct retry *retry)
{
    struct fuse_file_info fi = {0};
    ops_fallocate(retry->request, retry->ino, (int)retry->mode, retry->offset, retry->length, &fi);
}

bool retry_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length)
{
    struct retry *retry = retry_new(request, retry_fallocate_again);
    if (!retry)
        return false;
    retry->ino = ino;
    retry->mode = (mode_t)mode;
    retry->offset = offset;
    retry->length = length;
    return retry_submit(retry);
}

static void retry_truncate_again(const struct retry *retry)
{
    struct stat status = retry->status;
    ops_setattr(retry->request, retry->ino, &status, retry->set, NULL);
}

bool retry_truncate(fuse_req_t request, fuse_ino_t ino, const struct stat *wanted, int set)
{
    struct retry *retry = retry_new(request, retry_truncate_again);
    if (!retry)
        return false;
    retry->ino = ino;
    retry->status = *wanted;
    retry->set = set;
    /* A size takes no room yet. */
    retry->hopes = false;
    return retry_submit(retry);
}

/* With a name: takes the rest over. */
static bool retry_submit_name(struct retry *retry, fuse_ino_t parent, const char *name, mode_t mode)
{
    retry->ino = parent;
    retry->mode = mode;
    retry->text = strdup(name);
    if (retry->text)
        return retry_submit(retry);
    retry_free(retry);
    return false;
}

static void retry_create_again(const struct retry *retry)
{
    struct fuse_file_info fi = retry->fi;
    ops_create(retry->request, retry->ino, retry->text, retry->mode, &fi);
}

bool retry_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                  const struct fuse_file_info *fi)
{
    struct retry *retry = retry_new(request, retry_create_again);
    if (!retry)
        return false;
    retry->fi = *fi;
    return retry_submit_name(retry, parent, name, mode);
}

static void retry_make_again(const struct retry *retry)
{
    if (S_ISDIR(retry->mode))
        ops_mkdir(retry->request, retry->ino, retry->text, retry->mode);
    else if (S_ISLNK(retry->mode))
        ops_symlink(retry->request, retry->target, retry->ino, retry->text);
    else
        ops_mknod(retry->request, retry->ino, retry->text, retry->mode, retry->device);
}

bool retry_make(fuse_req_t request, const struct meta_new *new)
{
    struct retry *retry = retry_new(request, retry_make_again);
    if (!retry)
        return false;
    retry->device = (dev_t) new->rdev;
    retry->target = new->target ? strdup(new->target) : NULL;
    if (new->target && !retry->target) {
        retry_free(retry);
        return false;
    }
    return retry_submit_name(retry, new->parent, new->name, new->mode);
}
