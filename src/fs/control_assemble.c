/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs assemble PATH`: the assembler is asked, and tells how far it is. */
#include <errno.h>
#include <string.h>

#include "fs/assembler.h"
#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/ops.h"
#include "fs/view.h"

_Static_assert(sizeof(struct control_assemble) <= sizeof(struct control_text), "one ioctl moves no more");

/* Whoever may write the directory, as Linux decides it; its owner and root also where the mode forbids it. */
static bool control_may_assemble(fuse_req_t request, const struct meta_inode *directory)
{
    uid_t uid = fuse_req_ctx(request)->uid;
    if (uid == 0 || uid == directory->uid)
        return true;
    return directory->mode & (ops_caller_has_group(request, directory->gid) ? 0020 : 0002);
}

static errint control_ask_assembler(fuse_req_t request, uint64_t directory, struct control_assemble *asked)
{
    struct filesystem *fs = fs_of(request);
    struct meta_inode row;
    errint error = meta_get(fs->meta, directory, &row);
    if (!error && !S_ISDIR(row.mode))
        error = -ENOTDIR;
    if (!error && !control_may_assemble(request, &row))
        error = -EPERM;
    if (!error && asked->ask)
        error = assembler_request(fs, directory);
    if (!error)
        error = assembler_tell(fs, directory, asked);
    return error;
}

void control_assemble(fuse_req_t request, uint64_t ino, const void *in, size_t in_size, size_t room)
{
    struct control_assemble asked;
    uint64_t directory = view_target(ino);
    errint error = in_size < sizeof asked || room < sizeof asked ? -EINVAL : 0;
    if (!error && directory == 0)
        error = -ENOTDIR; /* .ckptfs stands for nothing */
    if (!error) {
        memcpy(&asked, in, sizeof asked);
        error = control_ask_assembler(request, directory, &asked);
    }
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_ioctl(request, 0, &asked, sizeof asked);
}
