/* SPDX-License-Identifier: Apache-2.0 */
/* Doing requests again that found the disk full. */
#include "fs/retry.h"

#include <stdlib.h>
#include <string.h>

#include "fs/ops.h"
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
    fuse_ino_t ino; /* or the directory */
    struct fuse_file_info fi;
    mode_t mode;
    dev_t device;
    off_t offset, length;
    size_t size;
    char *text;   /* a name or bytes */
    char *target; /* of a symlink */
};

/* The thread has tried to make room, and there was nothing to give up: this is the last time. */
static _Thread_local bool retry_is_last;

static void retry_free(struct retry *retry)
{
    free(retry->text);
    free(retry->target);
    free(retry);
}

static void retry_run(void *context, unsigned worker)
{
    struct retry *retry = context;
    struct filesystem *fs = fs_of(retry->request);
    unsigned slot = STATE_REQUESTS - 1 - FS_SYNC_WORKERS - FS_REPORTERS - FS_SUMMERS - worker;
    retry_is_last = !trash_make_room(fs, retry->given);
    state_request_begin(fs->state, slot, retry->message.header.unique, retry->message.header.opcode,
                        retry->ino);
    fs_current_request = &retry->message.header;
    retry->again(retry);
    fs_current_request = NULL;
    state_request_end(fs->state, slot);
    retry_free(retry);
}

/* NULL: not this time, or no memory. */
static struct retry *retry_new(fuse_req_t request, void (*again)(const struct retry *retry))
{
    struct filesystem *fs = fs_of(request);
    if (retry_is_last || !fs_current_request || !trash_may_give(fs) || !fs->retriers)
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
