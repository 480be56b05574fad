/* SPDX-License-Identifier: Apache-2.0 */
/* The table of chunk hashes beside an object: objects/xx/ID.sum. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/transfer.h"
#include "store/object_path.h"
#include "store/sums.h"
#include "store/sums_table.h"

/* -- writing --------------------------------------------------------------------------------------------- */

static errint sums_file_write_new(const struct store *store, const struct object_path *path,
                                  const uint8_t *bytes, size_t length)
{
    const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    cleanup_fd int fd = openat(store->objects_fd, path->sums_new, flags, 0600);
    if (fd < 0)
        return -errno;
    errint error = transfer_write(fd, bytes, length, 0);
    return error || fsync(fd) == 0 ? error : -errno;
}

/* An object may go while its table is made: object_remove has then looked for the table before it was there.
 */
static errint sums_file_check_object(const struct store *store, const struct object_path *path)
{
    if (faccessat(store->objects_fd, path->file, F_OK, 0) == 0)
        return 0;
    errint error = -errno;
    if (error == -ENOENT)
        unlinkat(store->objects_fd, path->sums, 0);
    return error;
}

errint sums_write(struct store *store, uint64_t object, const struct sums *sums)
{
    size_t length;
    cleanup_free uint8_t *bytes = sums_table_encode(store, sums, &length);
    if (!bytes)
        return -ENOMEM;
    struct object_path path = object_path_of(object);
    errint error = sums_file_write_new(store, &path, bytes, length);
    if (!error)
        error = fault_hit("sums-write");
    if (!error && renameat(store->objects_fd, path.sums_new, store->objects_fd, path.sums) != 0)
        error = -errno;
    if (error) {
        unlinkat(store->objects_fd, path.sums_new, 0);
        return error;
    }
    object_directory_note(store, object);
    error = sums_file_check_object(store, &path);
    return error ? error : object_directory_sync(store, object);
}

errint sums_remove(struct store *store, uint64_t object)
{
    struct object_path path = object_path_of(object);
    if (unlinkat(store->objects_fd, path.sums, 0) != 0)
        return errno == ENOENT ? 0 : -errno;
    /* The next sync of the object takes it along: new bytes that were acknowledged have no old table. */
    object_directory_note(store, object);
    return 0;
}

/* -- reading --------------------------------------------------------------------------------------------- */

/* The header is believed only where it fits the file's length: then that many bytes are worth allocating. */
static errint sums_file_read(int fd, uint8_t **bytes, size_t *length, char why[SUMS_TABLE_WHY])
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (status.st_size < SUMS_TABLE_FIXED || (uint64_t)status.st_size > SIZE_MAX) {
        snprintf(why, SUMS_TABLE_WHY, "expected at least %d bytes, found %lld", SUMS_TABLE_FIXED,
                 (long long)status.st_size);
        return -EUCLEAN;
    }
    uint8_t header[SUMS_TABLE_HEADER];
    errint error = transfer_read(fd, header, sizeof header, 0);
    if (!error)
        error = sums_table_check_header(header, (uint64_t)status.st_size, why);
    if (error)
        return error;
    *length = (size_t)status.st_size;
    *bytes = malloc(*length);
    if (!*bytes)
        return -ENOMEM;
    memcpy(*bytes, header, sizeof header);
    return transfer_read(fd, *bytes + sizeof header, *length - sizeof header, (int64_t)sizeof header);
}

/* `size`: of the object that the table must be of; -1: any. */
static errint sums_file_load(const struct store *store, const struct object_path *path, int64_t size,
                             struct sums *out, char why[SUMS_TABLE_WHY])
{
    cleanup_fd int fd = openat(store->objects_fd, path->sums, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    cleanup_free uint8_t *bytes = NULL;
    size_t length = 0;
    errint error = sums_file_read(fd, &bytes, &length, why);
    if (error)
        return error;
    cleanup_sums struct sums sums = {0};
    error = sums_table_decode(store, bytes, length, &sums, why);
    if (error)
        return error;
    if (size >= 0 && sums.size != size) {
        snprintf(why, SUMS_TABLE_WHY,
                 "expected the table of an object of %" PRId64 " bytes, found one of %" PRId64, size,
                 sums.size);
        return -EUCLEAN;
    }
    *out = sums;
    sums = (struct sums){0};
    return 0;
}

static errint sums_file_explain(const struct store *store, const struct object_path *path, errint error,
                                const char *why)
{
    if (error == -EUCLEAN || error == -EPROTONOSUPPORT)
        log_error("%s/objects/%s cannot be used: %s", store->path, path->sums, *why ? why : strerror(-error));
    return error;
}

errint sums_read(struct store *store, uint64_t object, struct sums *out)
{
    struct stat status;
    struct object_path path = object_path_of(object);
    char why[SUMS_TABLE_WHY] = "";
    errint error = fault_hit("sums-read");
    if (!error && fstatat(store->objects_fd, path.file, &status, AT_SYMLINK_NOFOLLOW) != 0)
        error = -errno;
    if (!error)
        error = sums_file_load(store, &path, status.st_size, out, why);
    return sums_file_explain(store, &path, error, why);
}

errint sums_read_alone(struct store *store, uint64_t object, struct sums *out)
{
    struct object_path path = object_path_of(object);
    char why[SUMS_TABLE_WHY] = "";
    return sums_file_explain(store, &path, sums_file_load(store, &path, -1, out, why), why);
}
