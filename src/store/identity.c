/* SPDX-License-Identifier: Apache-2.0 */
/* ckptfs.json and the secret of a store. */
#include "store/identity.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/transfer.h"

/* Far more than any version of ckptfs.json needs. */
enum { IDENTITY_SIZE_MAX = 64 * 1024, IDENTITY_CHUNK_SIZE = 256 * 1024 };

static errint identity_random(void *out, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = getrandom((char *)out + done, size - done, 0);
        if (got < 0 && errno != EINTR)
            return -errno;
        if (got > 0)
            done += (size_t)got;
    }
    return 0;
}

/* Old content or new content, whenever the power goes. */
static errint identity_replace(const struct store *store, const char *name, const char *new_name, mode_t mode,
                               const void *bytes, size_t size)
{
    cleanup_fd int fd =
        openat(store->fd, new_name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return -errno;
    errint error = transfer_write(fd, bytes, size, 0);
    if (!error && fsync(fd) != 0)
        error = -errno;
    if (!error && renameat(store->fd, new_name, store->fd, name) != 0)
        error = -errno;
    if (!error && fsync(store->fd) != 0)
        error = -errno;
    if (error)
        unlinkat(store->fd, new_name, 0);
    return error;
}

static errint identity_write(const struct store *store)
{
    char text[512];
    int length =
        snprintf(text, sizeof text,
                 "{\n"
                 "  \"format\": %d,\n"
                 "  \"id\": \"%s\",\n"
                 "  \"chunk_size\": %d,\n"
                 "  \"database\": \"sqlite\",\n"
                 "  \"objects\": \"directory\",\n"
                 "  \"used\": %s\n"
                 "}\n",
                 STORE_FORMAT_VERSION, store->id, IDENTITY_CHUNK_SIZE, store->used ? "true" : "false");
    return identity_replace(store, IDENTITY_FILE, IDENTITY_FILE_NEW, 0644, text, (size_t)length);
}

/* The number of bytes read, at most `size`, or a negative errno. */
static ssize_t identity_read_file(const struct store *store, const char *name, void *out, size_t size)
{
    cleanup_fd int fd = openat(store->fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(fd, (char *)out + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* One byte more than a secret has, so that a longer file is noticed. */
static ssize_t identity_read_secret(struct store *store)
{
    uint8_t bytes[STORE_SECRET_SIZE + 1];
    ssize_t got = identity_read_file(store, IDENTITY_SECRET, bytes, sizeof bytes);
    if (got == STORE_SECRET_SIZE)
        memcpy(store->secret, bytes, STORE_SECRET_SIZE);
    return got;
}

static errint identity_create_secret(struct store *store)
{
    /* An interrupted creation may have left one; nothing was hashed with it yet, but it is as good as new. */
    if (identity_read_secret(store) == STORE_SECRET_SIZE)
        return 0;
    errint error = identity_random(store->secret, sizeof store->secret);
    if (error)
        return error;
    return identity_replace(store, IDENTITY_SECRET, IDENTITY_SECRET_NEW, 0600, store->secret,
                            sizeof store->secret);
}

/* A random UUID (version 4, variant 1). */
static errint identity_create_id(char out[37])
{
    uint8_t raw[16];
    errint error = identity_random(raw, sizeof raw);
    if (error)
        return error;
    raw[6] = (raw[6] & 0x0f) | 0x40;
    raw[8] = (raw[8] & 0x3f) | 0x80;
    char *at = out;
    for (size_t i = 0; i < sizeof raw; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        at += sprintf(at, "%02x", raw[i]);
    }
    return 0;
}

errint identity_create(struct store *store)
{
    errint error = identity_create_secret(store);
    if (!error)
        error = identity_create_id(store->id);
    store->used = false;
    return error ? error : identity_write(store);
}

errint identity_mark_used(struct store *store)
{
    store->used = true;
    return identity_write(store);
}

static bool identity_id_is_valid(const char *id)
{
    if (strlen(id) != 36)
        return false;
    for (size_t i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? id[i] != '-' : !strchr("0123456789abcdef", id[i]))
            return false;
    }
    return true;
}

static void identity_release_document(cJSON **document)
{
    cJSON_Delete(*document);
}

/* What ckptfs.json must contain, checked before anything else of the store is touched. */
static enum store_problem identity_parse(struct store *store, const char *text, size_t length)
{
    __attribute__((cleanup(identity_release_document))) cJSON *document =
        cJSON_ParseWithLengthOpts(text, length, NULL, false);
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(document, "format");
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(document, "id");
    if (!cJSON_IsNumber(format) || format->valuedouble < 1) {
        log_error("%s/%s is damaged: no format version was found in it; restore it from a backup",
                  store->path, IDENTITY_FILE);
        return STORE_DAMAGED;
    }
    if (format->valuedouble > STORE_FORMAT_VERSION) {
        log_error("%s was made by a newer version (format %.0f, this one knows %d); install a newer ckptfs",
                  store->path, format->valuedouble, STORE_FORMAT_VERSION);
        return STORE_NEWER;
    }
    if (!cJSON_IsString(id) || !identity_id_is_valid(id->valuestring)) {
        log_error("%s/%s is damaged: no store id was found in it; restore it from a backup", store->path,
                  IDENTITY_FILE);
        return STORE_DAMAGED;
    }
    memcpy(store->id, id->valuestring, sizeof store->id);
    store->used = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(document, "used"));
    return STORE_FINE;
}

enum store_problem identity_read(struct store *store)
{
    cleanup_free char *text = malloc(IDENTITY_SIZE_MAX);
    if (!text) {
        log_error("%s cannot be opened: out of memory", store->path);
        return STORE_FAILED;
    }
    ssize_t length = identity_read_file(store, IDENTITY_FILE, text, IDENTITY_SIZE_MAX);
    if (length < 0) {
        log_error("%s/%s cannot be read: %s; check its owner and the disk", store->path, IDENTITY_FILE,
                  strerror((int)-length));
        return length == -EACCES ? STORE_NOT_WRITABLE : STORE_DAMAGED;
    }
    enum store_problem problem = identity_parse(store, text, (size_t)length);
    if (problem)
        return problem;
    ssize_t secret = identity_read_secret(store);
    if (secret == STORE_SECRET_SIZE)
        return STORE_FINE;
    if (secret < 0)
        log_error("%s/%s cannot be read: %s; restore it from a backup", store->path, IDENTITY_SECRET,
                  strerror((int)-secret));
    else
        log_error("%s/%s is damaged: it has not %d bytes; restore it from a backup", store->path,
                  IDENTITY_SECRET, STORE_SECRET_SIZE);
    return secret == -EACCES ? STORE_NOT_WRITABLE : STORE_DAMAGED;
}
