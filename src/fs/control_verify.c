/* SPDX-License-Identifier: Apache-2.0 */
/* Verification as a mount does it: a step a request, by a worker. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/damage.h"
#include "fs/ops.h"

_Static_assert(sizeof(struct control_verify) <= sizeof(struct control_text), "one ioctl moves no more");
_Static_assert(sizeof(struct control_objects) <= sizeof(struct control_text), "one ioctl moves no more");

/* A step that a worker does. */
struct control_step {
    struct filesystem *fs;
    fuse_req_t request;
    uint64_t unique;
    struct control_verify verify;
};

static void control_recorded(void *context, uint64_t object)
{
    damage_changed(context, object);
}

/* Who maps the object, or reads it by passthrough, would see its bytes change. */
static bool control_may_write(void *context, uint64_t object)
{
    struct filesystem *fs = context;
    struct backing *backing;
    if (backing_get(&fs->backings, object, &backing) != 0)
        return false;
    int is_free = backing->passthrough_handles ? 0 : backing_is_free(backing, BACKING_READERS);
    backing_put(&fs->backings, backing);
    /* Without leases nobody can tell who maps what passthrough has handed out. */
    return is_free < 0 ? !fs->features.passthrough : is_free;
}

static void control_step_run(void *context, unsigned worker)
{
    struct control_step *step = context;
    struct filesystem *fs = step->fs;
    unsigned slot = STATE_REQUESTS - 1 - worker;
    const struct verify_request request = {
        .store = fs->store,
        .meta = fs->meta,
        .object = step->verify.object,
        .offset = step->verify.offset,
        .budget = step->verify.budget,
        .repair = step->verify.repair,
        .recorded = control_recorded,
        .may_write = control_may_write,
        .context = fs,
    };
    state_request_begin(fs->state, slot, step->unique, 0, META_ROOT_INO);
    errint error = verify_step(&request, &step->verify.answer);
    if (error)
        fuse_reply_err(step->request, -error);
    else
        fuse_reply_ioctl(step->request, 0, &step->verify, sizeof step->verify);
    state_request_end(fs->state, slot);
    free(step);
}

static errint control_start_step(const struct control_asked *asked)
{
    struct filesystem *fs = fs_of(asked->request);
    struct control_step *step = malloc(sizeof *step);
    if (!step)
        return -ENOMEM;
    *step = (struct control_step){.fs = fs, .request = asked->request, .unique = fs_current_unique()};
    struct control_verify *verify = &step->verify;
    errint error = control_take(asked, verify, sizeof *verify);
    if (!error && (verify->offset < 0 || verify->budget < 0 || verify->budget > CONTROL_VERIFY_MAX))
        error = -EINVAL;
    if (!error)
        error = workers_submit(fs->workers, control_step_run, step);
    if (error)
        free(step);
    return error;
}

errint control_list_objects(struct meta *meta, struct control_objects *objects)
{
    cleanup_free struct meta_range *ranges = NULL;
    size_t count;
    errint error =
        meta_find_to_verify(meta, objects->ino, objects->after, CONTROL_OBJECTS_MAX, &ranges, &count);
    if (error)
        return error;
    for (size_t i = 0; i < count; i++)
        objects->at[i] = (struct control_object){ranges[i].object, ranges[i].length};
    objects->count = count;
    return 0;
}

static errint control_answer_objects(const struct control_asked *asked)
{
    struct control_objects objects;
    errint error = control_take(asked, &objects, sizeof objects);
    if (!error)
        error = control_list_objects(fs_of(asked->request)->meta, &objects);
    if (!error)
        fuse_reply_ioctl(asked->request, 0, &objects, sizeof objects);
    return error;
}

/* Both requests tell paths that their directories may hide. */
bool control_verify(fuse_req_t request, unsigned command, const void *in, size_t in_size, size_t out_size)
{
    const struct control_asked asked = {request, in, in_size, out_size};
    errint error;
    if (command == CKPTFS_IOCTL_VERIFY)
        error = control_start_step(&asked);
    else if (command == CKPTFS_IOCTL_OBJECTS)
        error = control_answer_objects(&asked);
    else
        return false;
    if (error)
        fuse_reply_err(request, -error);
    return true;
}
