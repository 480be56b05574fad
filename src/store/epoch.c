/* SPDX-License-Identifier: Apache-2.0 */
/* Which life of the page cache the store's disk is in. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/ioctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "store/store.h"

#define EPOCH_BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"
enum { EPOCH_BOOT_ID_LENGTH = 36 };

/* Newer than the headers of the oldest system that this builds on. */
struct epoch_sysfs_path {
    uint8_t length;
    char name[128];
};
#ifndef FS_IOC_GETFSSYSFSPATH
#define FS_IOC_GETFSSYSFSPATH _IOR(0x15, 1, struct epoch_sysfs_path)
#endif
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000U
#endif

static errint epoch_read_boot_id(char out[EPOCH_BOOT_ID_LENGTH + 1])
{
    cleanup_fd int fd = open(EPOCH_BOOT_ID_FILE, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, out, EPOCH_BOOT_ID_LENGTH);
    if (got != EPOCH_BOOT_ID_LENGTH)
        return got < 0 ? -errno : -EIO;
    out[EPOCH_BOOT_ID_LENGTH] = '\0';
    return 0;
}

/* "ext4/vda", as the filesystem itself says (kernel 6.9). */
static errint epoch_ask_sysfs_name(const struct store *store, char *out, size_t size)
{
    struct epoch_sysfs_path path = {0};
    if (ioctl(store->fd, FS_IOC_GETFSSYSFSPATH, &path) != 0)
        return -errno;
    path.name[sizeof path.name - 1] = '\0';
    snprintf(out, size, "%s", path.name);
    return *out ? 0 : -ENOENT;
}

/* The directory that ext4, xfs and f2fs keep for a mounted block device: 0 and its inode. */
static errint epoch_find_device_directory(const struct store *store, uint64_t *inode)
{
    struct stat status;
    if (fstat(store->fd, &status) != 0)
        return -errno;
    char link[64], target[PATH_MAX];
    snprintf(link, sizeof link, "/sys/dev/block/%u:%u", major(status.st_dev), minor(status.st_dev));
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length < 0)
        return -errno;
    target[length] = '\0';
    const char *device = strrchr(target, '/');
    static const char *const types[] = {"ext4", "xfs", "f2fs"};
    for (size_t i = 0; device && i < sizeof types / sizeof *types; i++) {
        char path[PATH_MAX + 32];
        snprintf(path, sizeof path, "/sys/fs/%s%s", types[i], device);
        if (stat(path, &status) == 0) {
            *inode = status.st_ino;
            return 0;
        }
    }
    return -ENOENT;
}

static errint epoch_find_sysfs_directory(const struct store *store, uint64_t *inode)
{
    char name[128], path[256];
    if (epoch_ask_sysfs_name(store, name, sizeof name) == 0) {
        struct stat status;
        snprintf(path, sizeof path, "/sys/fs/%s", name);
        if (stat(path, &status) == 0) {
            *inode = status.st_ino;
            return 0;
        }
    }
    return epoch_find_device_directory(store, inode);
}

/* Unique since boot on kernel 6.8; before, a number that a later mount may have again. */
static errint epoch_find_mount(const struct store *store, uint64_t *id)
{
    struct statx status;
    if (statx(store->fd, "", AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &status) == 0 &&
        (status.stx_mask & STATX_MNT_ID_UNIQUE)) {
        *id = status.stx_mnt_id;
        return 0;
    }
    if (statx(store->fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &status) != 0)
        return -errno;
    if (!(status.stx_mask & STATX_MNT_ID))
        return -EOPNOTSUPP;
    *id = status.stx_mnt_id;
    return 0;
}

errint store_epoch(const struct store *store, char out[128])
{
    char boot[EPOCH_BOOT_ID_LENGTH + 1];
    errint error = epoch_read_boot_id(boot);
    if (error)
        return error;
    uint64_t instance;
    if (epoch_find_sysfs_directory(store, &instance) == 0) {
        snprintf(out, 128, "%s/fs-%" PRIu64, boot, instance);
        return 0;
    }
    error = epoch_find_mount(store, &instance);
    if (!error)
        snprintf(out, 128, "%s/mount-%" PRIu64, boot, instance);
    return error;
}
