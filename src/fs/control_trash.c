/* SPDX-License-Identifier: Apache-2.0 */
/* The trash, for `ckptfs undelete`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "fs/assembler.h"
#include "fs/checkpoints.h"
#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/events.h"
#include "fs/expire.h"
#include "fs/ops.h"
#include "fs/policy.h"
#include "fs/space.h"
#include "fs/trash.h"
#include "fs/view.h"
#include "meta/trash.h"

_Static_assert(sizeof(struct control_trash) <= sizeof(struct control_text), "one ioctl moves no more");

/* -- listing ----------------------------------------------------------------------------------------------
 */

static bool control_sees_trash(const struct meta_trash *row, uint32_t uid)
{
    return (row->kind == META_TRASH_CLOSED || row->kind == META_TRASH_OPEN) && (uid == 0 || uid == row->uid);
}

static errint control_describe_trash(struct filesystem *fs, const struct meta_trash *row,
                                     struct control_trash *out)
{
    struct trash_size size = {0};
    bool keeps;
    uint64_t above;
    cleanup_free char *path = NULL;
    errint error = meta_trash_path(fs->meta, row, &path);
    if (!error && strlen(path) >= sizeof out->path)
        error = -ENAMETOOLONG;
    if (!error)
        error = meta_trash_find_above(fs->meta, row, &above);
    if (!error)
        error = policy_trash(fs, above, &keeps, &out->age);
    if (error)
        return error;
    out->counted = trash_find_size(fs, row->ino, &size);
    out->id = row->ino;
    out->removed = row->removed;
    out->files = size.files;
    out->bytes = (uint64_t)size.bytes;
    out->unique_bytes = (uint64_t)size.unique_bytes;
    out->uid = row->uid;
    out->remover = row->remover;
    out->partly = row->directory != 0;
    snprintf(out->reason, sizeof out->reason, "%s", row->reason);
    memcpy(out->path, path, strlen(path) + 1);
    return 0;
}

void control_next_trash(fuse_req_t request, const void *in, size_t in_size, size_t room)
{
    struct filesystem *fs = fs_of(request);
    struct meta_trash row;
    cleanup_free struct control_trash *answer = calloc(1, sizeof *answer);
    errint error = !answer ? -ENOMEM : in_size < sizeof *answer || room < sizeof *answer ? -EINVAL : 0;
    if (!error) {
        memcpy(&answer->id, in, sizeof answer->id);
        error = meta_trash_next(fs->meta, answer->id, fuse_req_ctx(request)->uid, &row);
    }
    if (!error)
        error = control_describe_trash(fs, &row, answer);
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_ioctl(request, 0, answer, sizeof *answer);
}

/* -- giving back ------------------------------------------------------------------------------------------
 */

/* Whether the asker may make a name in the directory, as Linux decides it. */
static bool control_may_write(fuse_req_t request, const struct meta_inode *directory)
{
    uid_t uid = fuse_req_ctx(request)->uid;
    if (uid == 0)
        return true;
    unsigned shift = uid == directory->uid ? 6 : ops_caller_has_group(request, directory->gid) ? 3 : 0;
    return (directory->mode >> shift & 3) == 3;
}

/* The same for what is left of the checkpoint, where it goes back into that. */
static bool control_may_write_rest(fuse_req_t request, uint64_t directory, const char *name, uint64_t rest)
{
    struct meta_inode row;
    return rest == 0 || meta_lookup(fs_of(request)->meta, directory, name, strlen(name), &row) != 0 ||
           row.ino != rest || control_may_write(request, &row);
}

static errint control_may_undelete(fuse_req_t request, uint64_t directory,
                                   const struct control_undelete *wanted)
{
    struct filesystem *fs = fs_of(request);
    struct meta_inode row;
    struct meta_trash trash;
    if (fs->options->read_only || view_has(directory))
        return -EROFS;
    errint error = meta_get(fs->meta, directory, &row);
    if (!error && !S_ISDIR(row.mode))
        error = -ENOTDIR;
    if (!error)
        error = meta_trash_find(fs->meta, wanted->id, &trash);
    /* What he may not see is not there for him. */
    if (!error && !control_sees_trash(&trash, fuse_req_ctx(request)->uid))
        error = -ENOENT;
    if (!error && !(control_may_write(request, &row) &&
                    control_may_write_rest(request, directory, wanted->name, trash.directory)))
        error = -EACCES;
    return error;
}

static errint control_do_undelete(fuse_req_t request, uint64_t directory,
                                  const struct control_undelete *wanted, uint64_t *out)
{
    struct filesystem *fs = fs_of(request);
    const struct meta_trash_restore restore = {.ino = wanted->id,
                                               .parent = directory,
                                               .name = wanted->name,
                                               .length = strlen(wanted->name),
                                               .now = clock_file_time()};
    if (state_request_was_done(fs->state, fs_current_unique(), out))
        return 0;
    errint error = control_may_undelete(request, directory, wanted);
    if (!error && view_is_name(directory, wanted->name))
        error = -EPERM;
    if (!error)
        error = fault_hit("fs.undelete");
    return error ? error : meta_trash_restore(fs->meta, &restore, fs_current_unique(), out);
}

void control_undelete(fuse_req_t request, uint64_t directory, const void *in, size_t in_size)
{
    struct filesystem *fs = fs_of(request);
    struct control_undelete wanted;
    uint64_t ino = 0;
    errint error = in_size < sizeof wanted ? -EINVAL : 0;
    if (!error) {
        memcpy(&wanted, in, sizeof wanted);
        error = memchr(wanted.name, '\0', sizeof wanted.name) ? 0 : -EINVAL;
    }
    if (!error)
        error = control_do_undelete(request, directory, &wanted, &ino);
    if (error) {
        fuse_reply_err(request, -error);
        return;
    }
    trash_note_creation(fs, ino);
    trash_kick(fs);
    assembler_touch_directory(fs, ino);
    checkpoints_touch_directory(fs, ino);
    events_emit(fs, &(struct event){.kind = EVENT_RESTORED, .ino = ino, .step = -1, .bytes = -1});
    /* The kernel may remember that there is no such name. */
    expire_name_for_ioctl(request, directory, wanted.name, ino);
}

/* -- giving up --------------------------------------------------------------------------------------------
 */

static errint control_may_drop(fuse_req_t request, uint64_t id)
{
    struct filesystem *fs = fs_of(request);
    struct meta_trash row;
    if (fs->options->read_only)
        return -EROFS;
    errint error = meta_trash_find(fs->meta, id, &row);
    return !error && !control_sees_trash(&row, fuse_req_ctx(request)->uid) ? -ENOENT : error;
}

/* It is no entry any more when this is answered; the trash's thread removes what it had. */
void control_drop_trash(fuse_req_t request, const void *in, size_t in_size)
{
    struct filesystem *fs = fs_of(request);
    uint64_t id = 0;
    cleanup_ids struct ids none = {0};
    errint error = in_size < sizeof id ? -EINVAL : 0;
    if (!error) {
        memcpy(&id, in, sizeof id);
        error = control_may_drop(request, id);
    }
    int more = error ? error : meta_trash_give_up(fs->meta, id, 0, clock_file_time(), &none);
    if (more < 0) {
        fuse_reply_err(request, -more);
        return;
    }
    trash_kick(fs);
    fuse_reply_ioctl(request, 0, NULL, 0);
}
