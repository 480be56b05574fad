/* SPDX-License-Identifier: Apache-2.0 */
/* Negotiating and trying what is possible here. */
#include "fs/features.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

#include "base/log.h"

#define FEATURES_OVERLAYFS_MAGIC 0x794c7630

enum { FEATURES_BACKGROUND = 64 };

/* Asks for a capability when the kernel offers it. */
static bool features_want(struct fuse_conn_info *connection, uint64_t capability)
{
#ifdef HAVE_FUSE_WANT_EXT
    return fuse_set_feature_flag(connection, capability);
#else
    if (!(connection->capable & capability))
        return false;
    connection->want |= (unsigned)capability;
    return true;
#endif
}

static void features_refuse(struct fuse_conn_info *connection, uint64_t capability)
{
#ifdef HAVE_FUSE_WANT_EXT
    fuse_unset_feature_flag(connection, capability);
#else
    connection->want &= ~(unsigned)capability;
#endif
}

#ifdef HAVE_FUSE_PASSTHROUGH
static void features_want_passthrough(struct filesystem *fs, struct fuse_conn_info *connection)
{
    struct features *features = &fs->features;
    if (fs->options->passthrough == FS_PASSTHROUGH_OFF) {
        snprintf(features->passthrough_missing, sizeof features->passthrough_missing,
                 "switched off by an option");
        return;
    }
    features->passthrough = features_want(connection, FUSE_CAP_PASSTHROUGH);
    if (!features->passthrough) {
        snprintf(features->passthrough_missing, sizeof features->passthrough_missing,
                 "the kernel does not offer it (Linux 6.9 does)");
        return;
    }
    /* A store on overlayfs is one filesystem deeper; asking for that elsewhere would forbid overlays on the
     * mount. */
    struct statfs disk;
    bool overlay = fstatfs(fs->store->fd, &disk) == 0 && disk.f_type == FEATURES_OVERLAYFS_MAGIC;
    connection->max_backing_stack_depth = overlay ? 1 : 0;
}
#else
static void features_want_passthrough(struct filesystem *fs, struct fuse_conn_info *connection)
{
    (void)connection;
    snprintf(fs->features.passthrough_missing, sizeof fs->features.passthrough_missing,
             "this libfuse cannot (3.17 can)");
}
#endif

void features_negotiate(void *userdata, struct fuse_conn_info *connection)
{
    struct filesystem *fs = userdata;
    connection->max_write = FS_MAX_WRITE;
    connection->max_background = FEATURES_BACKGROUND;
    connection->congestion_threshold = FEATURES_BACKGROUND * 3 / 4;
    connection->time_gran = 1;
    /* Measured: splice and the write-back cache are slower than reading and writing through memory. */
    features_refuse(connection, FUSE_CAP_SPLICE_READ);
    features_refuse(connection, FUSE_CAP_SPLICE_WRITE);
    features_refuse(connection, FUSE_CAP_SPLICE_MOVE);
    features_refuse(connection, FUSE_CAP_WRITEBACK_CACHE);
    features_refuse(connection, FUSE_CAP_HANDLE_KILLPRIV);
    features_want(connection, FUSE_CAP_PARALLEL_DIROPS);
    features_want(connection, FUSE_CAP_CACHE_SYMLINKS);
    features_want(connection, FUSE_CAP_EXPORT_SUPPORT);
#ifdef HAVE_FUSE_DIRECT_IO_ALLOW_MMAP
    fs->features.direct_mmap = features_want(connection, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
#endif
#ifdef HAVE_FUSE_HANDLE_KILLPRIV_V2
    fs->features.kills_privileges = features_want(connection, FUSE_CAP_HANDLE_KILLPRIV_V2);
#endif
#ifdef HAVE_FUSE_PARALLEL_DIRECT_WRITES
    fs->features.parallel_writes = true;
#endif
    features_want_passthrough(fs, connection);
}

void features_probe(struct filesystem *fs)
{
    struct features *features = &fs->features;
    if (!features->passthrough)
        return;
    cleanup_fd int fd = openat(fs->store->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        fd = openat(fs->store->fd, "probe", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        unlinkat(fs->store->fd, "probe", 0);
    }
    int id = fd < 0 ? -errno : protocol_backing_open(fs->options->fuse_fd, fd);
    if (id > 0) {
        protocol_backing_close(fs->options->fuse_fd, id);
        return;
    }
    features->passthrough = false;
    snprintf(features->passthrough_missing, sizeof features->passthrough_missing, "%s",
             id == -EPERM ? "needs CAP_SYS_ADMIN in the initial user namespace" : strerror(-id));
}

void features_raise_read_ahead(struct filesystem *fs)
{
    struct features *features = &fs->features;
    struct statx root;
    char path[80], text[16];
    /* Only the device, which the kernel knows: one killed while it asks itself could not end, since nobody
     * would answer (the keeper has the connection, too). */
    if (statx(AT_FDCWD, fs->options->mountpoint, AT_STATX_DONT_SYNC, 0, &root) < 0)
        return;
    snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", root.stx_dev_major, root.stx_dev_minor);
    if (fs->options->read_ahead_kib) {
        int length = snprintf(text, sizeof text, "%u", fs->options->read_ahead_kib);
        cleanup_fd int writer = open(path, O_WRONLY | O_CLOEXEC);
        if (writer < 0 || write(writer, text, (size_t)length) != length)
            snprintf(features->read_ahead_missing, sizeof features->read_ahead_missing,
                     "cannot be raised (%s): files that the daemon serves are read and mapped more slowly",
                     strerror(errno));
    }
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    text[got > 0 ? got : 0] = '\0';
    unsigned kib = 0;
    if (sscanf(text, "%u", &kib) == 1)
        atomic_store(&features->read_ahead_kib, kib);
}

void features_log(const struct filesystem *fs)
{
    const struct features *features = &fs->features;
    log_info("serving store=\"%s\" mountpoint=\"%s\" passthrough=%s%s%s direct_io_mmap=%s takeover=%s "
             "read_ahead_kib=%u%s%s",
             fs->store->path, fs->options->mountpoint, features->passthrough ? "on" : "off (",
             features->passthrough_missing, features->passthrough ? "" : "; writes cost more CPU)",
             features->direct_mmap ? "on" : "off", features->resend ? "on" : "off (kernel before 6.9)",
             features->read_ahead_kib, features->read_ahead_missing[0] ? " missing=" : "",
             features->read_ahead_missing);
}
