/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs export CHECKPOINT`: the export that the policy wants, now; and `ckptfs umount`, which ends exports.
 */
#include <errno.h>
#include <string.h>

#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/export.h"
#include "fs/visible.h"

_Static_assert(sizeof(struct control_export) <= sizeof(struct control_text), "one ioctl moves no more");

static void control_ask_export(fuse_req_t request, uint64_t ino, const void *in, size_t in_size, size_t room)
{
    struct filesystem *fs = fs_of(request);
    struct control_export asked;
    errint error = in_size < sizeof asked || room < sizeof asked ? -EINVAL : control_may_set(request, ino);
    if (!error) {
        memcpy(&asked, in, sizeof asked);
        error = asked.ask ? export_request(fs, ino) : 0;
    }
    if (!error)
        error = export_tell(fs, ino, &asked);
    if (error)
        fuse_reply_err(request, -error);
    else
        fuse_reply_ioctl(request, 0, &asked, sizeof asked);
}

static void control_halt_exports(fuse_req_t request, uint64_t ino, size_t room)
{
    if (ino != META_ROOT_INO || !visible_sees_all(fuse_req_ctx(request)->uid) || room < sizeof(uint32_t)) {
        fuse_reply_err(request, EPERM);
        return;
    }
    uint32_t ran = export_halt(fs_of(request));
    fuse_reply_ioctl(request, 0, &ran, sizeof ran);
}

bool control_export(fuse_req_t request, uint64_t ino, unsigned command, const void *in, size_t in_size,
                    size_t room)
{
    switch (command) {
    case CKPTFS_IOCTL_EXPORT: control_ask_export(request, ino, in, in_size, room); return true;
    case CKPTFS_IOCTL_EXPORT_HALT: control_halt_exports(request, ino, room); return true;
    default: return false;
    }
}
