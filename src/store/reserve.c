/* SPDX-License-Identifier: Apache-2.0 */
/* Space that is kept for the database, so that a full disk can still be emptied. */
#include "store/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/fault.h"
#include "base/log.h"

#define RESERVE_MAX  (INT64_C(8) << 20)
#define RESERVE_MIN  (INT64_C(256) << 10)
#define RESERVE_UNIT (INT64_C(64) << 10)
/* Kept for the next start: what opens a database needs a log and its index before anything can be deleted. */
#define RESERVE_START (2 * RESERVE_UNIT)

static pthread_mutex_t reserve_lock = PTHREAD_MUTEX_INITIALIZER;

static errint reserve_measure_disk(const struct store *store, int64_t *size, int64_t *available)
{
    struct statvfs disk;
    if (fstatvfs(store->fd, &disk) != 0)
        return -errno;
    *size = (int64_t)(disk.f_blocks * disk.f_frsize);
    *available = (int64_t)(disk.f_bavail * disk.f_frsize);
    return 0;
}

static int64_t reserve_size_for_disk(int64_t disk)
{
    int64_t size = disk / 64;
    if (size > RESERVE_MAX)
        size = RESERVE_MAX;
    if (size < RESERVE_MIN)
        size = RESERVE_MIN;
    return size / RESERVE_UNIT * RESERVE_UNIT;
}

/* Writes what cannot be allocated: the disk's filesystem has no fallocate. */
static errint reserve_fill(int fd, int64_t from, int64_t to)
{
    static const char zeros[1 << 16];
    for (int64_t at = from; at < to;) {
        int64_t rest = to - at;
        size_t length = rest < (int64_t)sizeof zeros ? (size_t)rest : sizeof zeros;
        ssize_t wrote = pwrite(fd, zeros, length, at);
        if (wrote < 0 && errno != EINTR)
            return -errno;
        if (wrote > 0)
            at += wrote;
    }
    return 0;
}

/* With the lock held (or alone). -ENOSPC leaves the reserve as it was. */
static errint reserve_allocate(struct store *store)
{
    struct stat status;
    if (fstat(store->reserve_fd, &status) != 0)
        return -errno;
    if (status.st_size >= store->reserve_size) {
        store->reserve_spent = false;
        return 0;
    }
    int64_t disk = 0, available = 0;
    errint error = reserve_measure_disk(store, &disk, &available);
    if (!error && available < store->reserve_size - status.st_size + store->reserve_size)
        error = -ENOSPC;
    if (error)
        return error;
    off_t missing = store->reserve_size - status.st_size;
    if (fallocate(store->reserve_fd, 0, status.st_size, missing) != 0)
        error = errno == EOPNOTSUPP ? reserve_fill(store->reserve_fd, status.st_size, store->reserve_size)
                                    : -errno;
    if (error) {
        if (ftruncate(store->reserve_fd, status.st_size) != 0)
            log_warning("%s/%s: %m", store->path, RESERVE_FILE);
        return error;
    }
    store->reserve_spent = false;
    return 0;
}

errint reserve_open(struct store *store)
{
    int64_t disk = 0, available = 0;
    errint error = reserve_measure_disk(store, &disk, &available);
    if (error)
        return error;
    store->reserve_fd = openat(store->fd, RESERVE_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (store->reserve_fd < 0)
        return -errno;
    store->reserve_size = reserve_size_for_disk(disk);
    store->reserve_spent = true;
    error = reserve_allocate(store);
    return error == -ENOSPC || error == -EDQUOT ? 0 : error;
}

/* With the lock held. Gives half of what is there above `kept` bytes, or all of it. */
static errint reserve_give(struct store *store, int64_t kept, bool all)
{
    struct stat status;
    if (fstat(store->reserve_fd, &status) != 0)
        return -errno;
    if (status.st_size <= kept)
        return -ENOSPC;
    int64_t left = kept + (all ? 0 : (status.st_size - kept) / 2 / RESERVE_UNIT * RESERVE_UNIT);
    /* The sync makes journalling filesystems hand the blocks out again. */
    if (ftruncate(store->reserve_fd, left) != 0 || fsync(store->reserve_fd) != 0)
        return -errno;
    store->reserve_spent = true;
    return 0;
}

errint store_reserve_spend(struct store *store)
{
    pthread_mutex_lock(&reserve_lock);
    errint error = reserve_give(store, RESERVE_START, false);
    pthread_mutex_unlock(&reserve_lock);
    return error;
}

errint store_reserve_spend_last(struct store *store)
{
    pthread_mutex_lock(&reserve_lock);
    errint error = reserve_give(store, 0, true);
    pthread_mutex_unlock(&reserve_lock);
    return error;
}

void reserve_close(struct store *store)
{
    struct stat status;
    if (store->reserve_fd < 0 || fstat(store->reserve_fd, &status) != 0 || status.st_size >= RESERVE_START)
        return;
    if (fallocate(store->reserve_fd, 0, status.st_size, RESERVE_START - status.st_size) != 0 &&
        ftruncate(store->reserve_fd, status.st_size) != 0)
        log_warning("%s/%s: %m", store->path, RESERVE_FILE);
}

errint store_reserve_restore(struct store *store)
{
    errint error = fault_hit("reserve-restore");
    if (error)
        return error;
    pthread_mutex_lock(&reserve_lock);
    error = reserve_allocate(store);
    pthread_mutex_unlock(&reserve_lock);
    return error;
}
