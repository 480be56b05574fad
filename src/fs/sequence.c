/* SPDX-License-Identifier: Apache-2.0 */
/* The number that tells a database from its older copies. */
#include "fs/sequence.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "meta/journal.h"

#define SEQUENCE_SETTING "sequence"

/* In the file: always as long, so that a new number never needs a new block of a full disk. */
enum { SEQUENCE_DIGITS = 20 };

/* 0 where there is none, or none that makes sense: then nothing is refused for its sake. */
static errint sequence_read(const struct store *store, uint64_t *out)
{
    char text[SEQUENCE_DIGITS + 1];
    *out = 0;
    cleanup_fd int fd = openat(store->fd, STORE_SEQUENCE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    ssize_t length = pread(fd, text, SEQUENCE_DIGITS, 0);
    if (length < 0)
        return -errno;
    text[length] = '\0';
    if (length == SEQUENCE_DIGITS && strspn(text, "0123456789") == SEQUENCE_DIGITS)
        *out = strtoull(text, NULL, 10);
    else
        log_warning("%s/" STORE_SEQUENCE " holds no number: whether meta.db is an older copy is not known",
                    store->path);
    return 0;
}

static errint sequence_write(const struct store *store, uint64_t number)
{
    char text[SEQUENCE_DIGITS + 2];
    snprintf(text, sizeof text, "%0*" PRIu64 "\n", SEQUENCE_DIGITS, number);
    cleanup_fd int fd = openat(store->fd, STORE_SEQUENCE, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    ssize_t length = pwrite(fd, text, SEQUENCE_DIGITS + 1, 0);
    if (length != SEQUENCE_DIGITS + 1)
        return length < 0 ? -errno : -EIO;
    return fsync(fd) < 0 || fsync(store->fd) < 0 ? -errno : 0;
}

errint sequence_of(struct meta *meta, uint64_t *out)
{
    cleanup_free char *text = NULL;
    *out = 0;
    errint error = meta_setting_get(meta, SEQUENCE_SETTING, &text);
    if (!error)
        *out = strtoull(text, NULL, 10);
    return error == -ENOENT ? 0 : error;
}

errint sequence_check(struct store *store, struct meta *meta)
{
    uint64_t expected, found;
    errint error = sequence_read(store, &expected);
    if (!error)
        error = sequence_of(meta, &found);
    return error ? error : found < expected ? -ESTALE : 0;
}

errint sequence_advance(struct store *store, struct meta *meta)
{
    uint64_t in_file, number;
    errint error = sequence_read(store, &in_file);
    if (!error)
        error = sequence_of(meta, &number);
    if (error)
        return error;
    char text[24];
    number = (in_file > number ? in_file : number) + 1;
    snprintf(text, sizeof text, "%" PRIu64, number);
    error = meta_setting_put(meta, SEQUENCE_SETTING, text);
    if (!error)
        error = meta_sync_journal(meta);
    return error ? error : sequence_write(store, number);
}
