/* SPDX-License-Identifier: Apache-2.0 */
/* Answers to commands, by ioctl: the mount's state as JSON; control_report.h has what takes longer. */
#include "fs/control.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

#include "fs/assembler.h"
#include "fs/checkpoints.h"
#include "fs/control_report.h"
#include "fs/export.h"
#include "fs/ops.h"
#include "fs/share.h"
#include "fs/share_models.h"
#include "fs/stored.h"
#include "fs/trash.h"
#include "fs/view.h"
#include "fs/visible.h"
#include "fs/writeback.h"

enum { CONTROL_TORN_MAX = 50 };

errint control_take(const struct control_asked *asked, void *out, size_t size)
{
    if (!visible_sees_all(fuse_req_ctx(asked->request)->uid))
        return -EPERM;
    if (asked->in_size < size || asked->room < size)
        return -EINVAL;
    memcpy(out, asked->in, size);
    return 0;
}

static void control_add_features(const struct filesystem *fs, cJSON *document)
{
    const struct features *features = &fs->features;
    struct utsname system;
    cJSON *object = cJSON_AddObjectToObject(document, "features");
    cJSON_AddBoolToObject(object, "passthrough", features->passthrough);
    cJSON_AddBoolToObject(object, "direct_io_mmap", features->direct_mmap);
    cJSON_AddBoolToObject(object, "takeover", features->resend);
    cJSON_AddBoolToObject(object, "io_uring", false);
    cJSON_AddBoolToObject(object, "allow_other", fs->options->allow_other);
    cJSON_AddBoolToObject(object, "read_only", fs->options->read_only);
    cJSON_AddNumberToObject(object, "read_ahead_kib", features->read_ahead_kib);
    cJSON_AddStringToObject(object, "libfuse", fuse_pkgversion());
    if (uname(&system) == 0)
        cJSON_AddStringToObject(object, "kernel", system.release);
    cJSON *missing = cJSON_AddObjectToObject(object, "missing");
    if (!features->passthrough)
        cJSON_AddStringToObject(missing, "passthrough", features->passthrough_missing);
    if (!features->direct_mmap)
        cJSON_AddStringToObject(missing, "direct_io_mmap",
                                "library or kernel is too old: files opened for reading and writing go "
                                "through the page cache, more slowly");
    if (!features->resend)
        cJSON_AddStringToObject(missing, "takeover", "needs Linux 6.9: the mount ends when the daemon dies");
    if (features->read_ahead_missing[0])
        cJSON_AddStringToObject(missing, "read_ahead_kib", features->read_ahead_missing);
}

/* Only for whoever mounted, and root: a path tells what its directories may hide. */
static void control_add_torn(struct filesystem *fs, uid_t uid, cJSON *document)
{
    cleanup_ids struct ids torn = {0};
    cJSON *list = cJSON_AddArrayToObject(document, "torn");
    if (!visible_sees_all(uid) || meta_find_torn(fs->meta, CONTROL_TORN_MAX, &torn) < 0)
        return;
    for (size_t i = 0; i < torn.count; i++) {
        cleanup_free char *path = NULL;
        if (meta_path(fs->meta, torn.at[i], &path) == 0)
            cJSON_AddItemToArray(list, cJSON_CreateString(path));
    }
}

static void control_add_disk(struct filesystem *fs, cJSON *document)
{
    struct statvfs disk;
    cJSON *object = cJSON_AddObjectToObject(document, "disk");
    if (fstatvfs(fs->store->fd, &disk) == 0) {
        cJSON_AddNumberToObject(object, "total_bytes", (double)disk.f_blocks * (double)disk.f_frsize);
        cJSON_AddNumberToObject(object, "free_bytes", (double)disk.f_bfree * (double)disk.f_frsize);
        cJSON_AddNumberToObject(object, "available_bytes", (double)disk.f_bavail * (double)disk.f_frsize);
    }
    cJSON_AddBoolToObject(object, "full", atomic_load(&fs->disk_full));
    cJSON_AddNumberToObject(object, "trash_bytes", (double)trash_bytes(fs));
    cJSON_AddNumberToObject(object, "kept_free_bytes", (double)trash_kept(fs));
    cJSON_AddNumberToObject(object, "full_timeout_seconds", fs->options->full_timeout);
}

static uint64_t control_open_handles(const struct filesystem *fs)
{
    uint64_t open = 0;
    uint32_t used = atomic_load(&fs->state->handles_used);
    for (uint32_t i = 0; i < used; i++)
        open += atomic_load(&fs->state->handles[i].fh) != 0;
    return open;
}

/* Null until it is known. */
static void control_add_stored(struct filesystem *fs, cJSON *document)
{
    int64_t stored = stored_bytes(fs);
    if (stored < 0)
        cJSON_AddNullToObject(document, "stored_bytes");
    else
        cJSON_AddNumberToObject(document, "stored_bytes", (double)stored);
}

cJSON *control_describe(struct filesystem *fs, uid_t uid)
{
    cJSON *document = cJSON_CreateObject();
    struct meta_totals totals = {0};
    meta_count(fs->meta, &totals);
    struct writeback_totals behind = writeback_count(fs);
    int64_t up = clock_read_ns(CLOCK_REALTIME) - fs->state->mounted_at;
    cJSON_AddStringToObject(document, "version", PACKAGE_VERSION);
    cJSON_AddStringToObject(document, "store", fs->store->path);
    cJSON_AddStringToObject(document, "store_id", fs->store->id);
    cJSON_AddStringToObject(document, "mountpoint", fs->options->mountpoint);
    cJSON_AddNumberToObject(document, "keeper_pid", atomic_load(&fs->state->keeper_pid));
    cJSON_AddNumberToObject(document, "daemon_pid", atomic_load(&fs->state->daemon_pid));
    cJSON_AddNumberToObject(document, "generation", atomic_load(&fs->state->generation));
    cJSON_AddNumberToObject(document, "uptime_seconds", (double)(up / CLOCK_NS_PER_SECOND));
    cJSON_AddNumberToObject(document, "inodes", (double)totals.inodes);
    cJSON_AddNumberToObject(document, "objects", (double)totals.objects);
    cJSON_AddNumberToObject(document, "open_handles", (double)control_open_handles(fs));
    cJSON_AddNumberToObject(document, "logical_bytes", (double)totals.logical_bytes);
    control_add_stored(fs, document);
    cJSON_AddNumberToObject(document, "behind_files", (double)behind.files);
    cJSON_AddNumberToObject(document, "behind_bytes", (double)behind.bytes);
    cJSON_AddNumberToObject(document, "unshared_files", (double)share_waiting(fs));
    cJSON_AddNumberToObject(document, "uncompared_directories", (double)share_models_waiting(fs));
    cJSON_AddNumberToObject(document, "unassembled_directories", (double)assembler_waiting(fs));
    cJSON_AddNumberToObject(document, "unlooked_directories", (double)checkpoints_waiting(fs));
    cJSON_AddNumberToObject(document, "unexported_checkpoints", (double)export_waiting(fs));
    cJSON_AddNumberToObject(document, "damaged_ranges", (double)damage_count(fs));
    cJSON_AddNumberToObject(document, "torn_count", (double)totals.torn);
    control_add_torn(fs, uid, document);
    control_add_disk(fs, document);
    control_add_features(fs, document);
    return document;
}

static void control_status(fuse_req_t request, size_t room)
{
    struct filesystem *fs = fs_of(request);
    struct control_text answer = {0};
    cJSON *document = control_describe(fs, fuse_req_ctx(request)->uid);
    bool fits = cJSON_PrintPreallocated(document, answer.text, sizeof answer.text - 8, false);
    if (!fits) {
        /* Only the list of paths can be that long. */
        cJSON_DeleteItemFromObject(document, "torn");
        fits = cJSON_PrintPreallocated(document, answer.text, sizeof answer.text - 8, false);
    }
    cJSON_Delete(document);
    if (!fits || room < sizeof answer)
        fuse_reply_err(request, fits ? EINVAL : ENOMEM);
    else
        fuse_reply_ioctl(request, 0, &answer, sizeof answer);
}

void ops_ioctl(fuse_req_t request, fuse_ino_t ino, unsigned command, void *argument,
               struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size, size_t out_size)
{
    (void)argument;
    (void)fi;
    if (flags & FUSE_IOCTL_COMPAT)
        fuse_reply_err(request, ENOSYS);
    else if (ino == META_ROOT_INO && command == CKPTFS_IOCTL_STATUS)
        control_status(request, out_size);
    else if (command == CKPTFS_IOCTL_USAGE)
        control_usage(request, view_target(ino), out_size);
    else if (command == CKPTFS_IOCTL_POLICY_SHOW)
        control_show_policy(request, view_target(ino), out_size);
    else if (command == CKPTFS_IOCTL_POLICY_SET)
        control_set_policy(request, ino, in, in_size);
    else if (command == CKPTFS_IOCTL_ASSEMBLE)
        control_assemble(request, ino, in, in_size, out_size);
    else if (command == CKPTFS_IOCTL_EVENTS)
        control_events(request, view_target(ino), in, in_size, out_size);
    else if (command == CKPTFS_IOCTL_LIFE)
        control_life(request, view_target(ino), out_size);
    else if (command == CKPTFS_IOCTL_WRITERS)
        control_writers(request, view_target(ino), out_size);
    else if (ino == META_ROOT_INO && command == CKPTFS_IOCTL_PAUSE)
        control_pause(request, in, in_size, out_size);
    else if (ino == META_ROOT_INO && command == CKPTFS_IOCTL_RECLAIM)
        control_reclaim(request, in, in_size, out_size);
    else if (ino == META_ROOT_INO && command == CKPTFS_IOCTL_LARGEST)
        control_largest(request, out_size);
    else if (control_keep(request, ino, command, in, in_size, out_size))
        return;
    else if (command == CKPTFS_IOCTL_TRASH_NEXT)
        control_next_trash(request, in, in_size, out_size);
    else if (command == CKPTFS_IOCTL_UNDELETE)
        control_undelete(request, ino, in, in_size);
    else if (command == CKPTFS_IOCTL_TRASH_DROP)
        control_drop_trash(request, in, in_size);
    else if (control_template(request, ino, command, in, in_size, out_size) ||
             control_export(request, ino, command, in, in_size, out_size))
        return;
    else if (ino != META_ROOT_INO || !control_verify(request, command, in, in_size, out_size))
        fuse_reply_err(request, ENOTTY);
}
