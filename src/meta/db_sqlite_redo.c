/* SPDX-License-Identifier: Apache-2.0 */
/* The file of a redo journal. */
#include "meta/db_sqlite_redo.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/transfer.h"

enum {
    REDO_VERSION = 1,
    REDO_HEAD_HASHED = 112,
    REDO_STOPPED_AT = REDO_HEAD_HASHED + REDO_HASH_BYTES,
    REDO_HEAD_SIZE = REDO_STOPPED_AT + 16,
    REDO_RECORD_HASHED = 96,
    REDO_RECORD_SIZE = REDO_RECORD_HASHED + REDO_HASH_BYTES,
    REDO_PAGE_MIN = 512,
    REDO_FILE_BLOCK = 1 << 20,
};

static const char redo_magic[8] = {'c', 'k', 'p', 't', 'r', 'e', 'd', 'o'};
static const char redo_record_magic[4] = {'r', 'e', 'd', 'o'};
static const char redo_stopped[8] = {'s', 't', 'o', 'p', 'p', 'e', 'd', '!'};

/* -- bytes ------------------------------------------------------------------------------------------------
 */

static uint8_t *redo_put_bytes(uint8_t *at, const void *bytes, size_t length)
{
    memcpy(at, bytes, length);
    return at + length;
}

static uint8_t *redo_put_32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    return redo_put_bytes(at, &value, sizeof value);
}

static uint8_t *redo_put_64(uint8_t *at, uint64_t value)
{
    value = htole64(value);
    return redo_put_bytes(at, &value, sizeof value);
}

static uint8_t *redo_put_place(uint8_t *at, const struct frames_place *place)
{
    at = redo_put_32(at, place->salt[0]);
    at = redo_put_32(at, place->salt[1]);
    at = redo_put_32(at, place->frame);
    at = redo_put_32(at, place->sum[0]);
    return redo_put_32(at, place->sum[1]);
}

static uint32_t redo_get_32(const uint8_t **at)
{
    uint32_t value;
    memcpy(&value, *at, sizeof value);
    *at += sizeof value;
    return le32toh(value);
}

static uint64_t redo_get_64(const uint8_t **at)
{
    uint64_t value;
    memcpy(&value, *at, sizeof value);
    *at += sizeof value;
    return le64toh(value);
}

static struct frames_place redo_get_place(const uint8_t **at)
{
    struct frames_place place;
    place.salt[0] = redo_get_32(at);
    place.salt[1] = redo_get_32(at);
    place.frame = redo_get_32(at);
    place.sum[0] = redo_get_32(at);
    place.sum[1] = redo_get_32(at);
    return place;
}

static void redo_get_bytes(const uint8_t **at, void *bytes, size_t length)
{
    memcpy(bytes, *at, length);
    *at += length;
}

static void redo_hash(const void *bytes, size_t length, uint8_t hash[REDO_HASH_BYTES])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, length));
    memcpy(hash, canonical.digest, REDO_HASH_BYTES);
}

static bool redo_is_zero(const uint8_t *bytes, size_t length)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* -- the head ---------------------------------------------------------------------------------------------
 */

static void redo_encode_head(const struct redo_head *head, uint8_t bytes[REDO_HEAD_SIZE])
{
    memset(bytes, 0, REDO_HEAD_SIZE);
    uint8_t *at = redo_put_bytes(bytes, redo_magic, sizeof redo_magic);
    at = redo_put_32(at, REDO_VERSION);
    at = redo_put_32(at, head->page_size);
    at = redo_put_bytes(at, head->id, sizeof head->id);
    at = redo_put_bytes(at, head->previous, sizeof head->previous);
    at = redo_put_64(at, (uint64_t)head->copy.size);
    at = redo_put_bytes(at, head->copy_hash, sizeof head->copy_hash);
    at = redo_put_64(at, head->copy.ino);
    at = redo_put_64(at, (uint64_t)head->copy.mtime);
    redo_put_place(at, &head->place);
    redo_hash(bytes, REDO_HEAD_HASHED, bytes + REDO_HEAD_HASHED);
}

static errint redo_decode_head(const uint8_t bytes[REDO_HEAD_SIZE], struct redo_head *head)
{
    uint8_t hash[REDO_HASH_BYTES];
    redo_hash(bytes, REDO_HEAD_HASHED, hash);
    const uint8_t *at = bytes + sizeof redo_magic;
    if (memcmp(bytes, redo_magic, sizeof redo_magic) != 0 || redo_get_32(&at) != REDO_VERSION ||
        memcmp(hash, bytes + REDO_HEAD_HASHED, sizeof hash) != 0)
        return -EUCLEAN;
    head->page_size = redo_get_32(&at);
    redo_get_bytes(&at, head->id, sizeof head->id);
    redo_get_bytes(&at, head->previous, sizeof head->previous);
    head->copy.size = (int64_t)redo_get_64(&at);
    redo_get_bytes(&at, head->copy_hash, sizeof head->copy_hash);
    head->copy.ino = redo_get_64(&at);
    head->copy.mtime = (int64_t)redo_get_64(&at);
    head->place = redo_get_place(&at);
    head->stopped = !redo_is_zero(bytes + REDO_STOPPED_AT, sizeof redo_stopped);
    bool usable = head->page_size >= REDO_PAGE_MIN && head->page_size <= FRAMES_PAGE_MAX &&
                  (head->page_size & (head->page_size - 1)) == 0;
    return usable ? 0 : -EUCLEAN;
}

static void redo_chain_of_head(const uint8_t bytes[REDO_HEAD_SIZE], uint8_t chain[REDO_HASH_BYTES])
{
    memcpy(chain, bytes + REDO_HEAD_HASHED, REDO_HASH_BYTES);
}

errint redo_create(const char *path, const struct redo_head *head, struct redo *out)
{
    uint8_t bytes[REDO_HEAD_SIZE];
    *out = (struct redo){.fd = -1, .head = *head, .at.offset = REDO_HEAD_SIZE};
    if (getrandom(out->head.id, sizeof out->head.id, 0) != (ssize_t)sizeof out->head.id)
        return -EIO;
    redo_encode_head(&out->head, bytes);
    redo_chain_of_head(bytes, out->at.chain);
    out->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    return out->fd < 0 ? -errno : transfer_write(out->fd, bytes, sizeof bytes, 0);
}

errint redo_open(const char *path, bool writable, struct redo *out)
{
    uint8_t bytes[REDO_HEAD_SIZE];
    struct stat status;
    *out = (struct redo){.fd = -1};
    out->fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
    if (out->fd < 0 || fstat(out->fd, &status) < 0)
        return -errno;
    out->size = status.st_size;
    if (out->size < REDO_HEAD_SIZE)
        return -EUCLEAN;
    errint error = transfer_read(out->fd, bytes, sizeof bytes, 0);
    if (!error)
        error = redo_decode_head(bytes, &out->head);
    if (!error)
        redo_rewind(out);
    return error;
}

void redo_close(struct redo *redo)
{
    if (redo->fd >= 0)
        close(redo->fd);
    free(redo->buffer);
    *redo = (struct redo){.fd = -1};
}

void redo_rewind(struct redo *redo)
{
    uint8_t bytes[REDO_HEAD_SIZE];
    redo_encode_head(&redo->head, bytes);
    redo->at = (struct redo_point){.offset = REDO_HEAD_SIZE};
    redo_chain_of_head(bytes, redo->at.chain);
}

/* -- records ----------------------------------------------------------------------------------------------
 */

static size_t redo_payload(const struct redo *redo, uint32_t page_count)
{
    return (size_t)page_count * (sizeof(uint32_t) + redo->head.page_size);
}

static uint8_t *redo_buffer(struct redo *redo)
{
    size_t pages = redo_pages_max(redo->head.page_size);
    if (!redo->buffer)
        redo->buffer = malloc(REDO_RECORD_SIZE + redo_payload(redo, (uint32_t)pages));
    return redo->buffer;
}

uint8_t *redo_pages(struct redo *redo)
{
    uint8_t *buffer = redo_buffer(redo);
    return buffer ? buffer + REDO_RECORD_SIZE : NULL;
}

/* The header in front of the pages, which are there. `chain`: of the record before; then, of this one. */
static void redo_encode(const struct redo *redo, const struct redo_record *record, uint8_t *bytes,
                        uint8_t chain[REDO_HASH_BYTES])
{
    uint8_t hashed[REDO_RECORD_HASHED + REDO_HASH_BYTES];
    memset(bytes, 0, REDO_RECORD_SIZE);
    uint8_t *at = redo_put_bytes(bytes, redo_record_magic, sizeof redo_record_magic);
    at = redo_put_32(at, record->kind);
    at = redo_put_64(at, redo->at.number + 1);
    at = redo_put_64(at, (uint64_t)record->time);
    at = redo_put_place(at, &record->place);
    at = redo_put_32(at, record->page_count);
    at = redo_put_32(at, record->database_size);
    at = redo_put_32(at, 0);
    at = redo_put_64(at, record->database.ino);
    at = redo_put_64(at, (uint64_t)record->database.size);
    at = redo_put_64(at, (uint64_t)record->database.mtime);
    redo_hash(bytes + REDO_RECORD_SIZE, redo_payload(redo, record->page_count), at);
    memcpy(hashed, bytes, REDO_RECORD_HASHED);
    memcpy(hashed + REDO_RECORD_HASHED, chain, REDO_HASH_BYTES);
    redo_hash(hashed, sizeof hashed, bytes + REDO_RECORD_HASHED);
    memcpy(chain, bytes + REDO_RECORD_HASHED, REDO_HASH_BYTES);
}

errint redo_append(struct redo *redo, const struct redo_record *record)
{
    uint8_t *buffer = redo_buffer(redo);
    struct redo_point behind = redo->at;
    if (!buffer)
        return -ENOMEM;
    redo_encode(redo, record, buffer, behind.chain);
    size_t length = REDO_RECORD_SIZE + redo_payload(redo, record->page_count);
    errint error = transfer_write(redo->fd, buffer, length, redo->at.offset);
    if (error) {
        if (ftruncate(redo->fd, redo->at.offset) < 0)
            return error; /* what is there is no whole record, and ends the journal as well */
        return error;
    }
    behind.offset += (int64_t)length;
    behind.number++;
    behind.time = record->time;
    redo->at = behind;
    return 0;
}

errint redo_stop(struct redo *redo)
{
    redo->head.stopped = true;
    errint error = transfer_write(redo->fd, redo_stopped, sizeof redo_stopped, REDO_STOPPED_AT);
    if (!error && ftruncate(redo->fd, redo->at.offset) < 0)
        error = -errno;
    return error ? error : redo_sync(redo);
}

errint redo_cut(struct redo *redo, const struct redo_point *point)
{
    redo->at = *point;
    return ftruncate(redo->fd, point->offset) < 0 ? -errno : 0;
}

errint redo_sync(struct redo *redo)
{
    return fdatasync(redo->fd) < 0 ? -errno : 0;
}

/* -- reading ----------------------------------------------------------------------------------------------
 */

/* False: this is not what was written there, as the next record of this journal. */
static bool redo_decode(const struct redo *redo, const uint8_t bytes[REDO_RECORD_SIZE],
                        struct redo_record *record, uint8_t payload_hash[REDO_HASH_BYTES],
                        uint8_t chain[REDO_HASH_BYTES])
{
    uint8_t hashed[REDO_RECORD_HASHED + REDO_HASH_BYTES], hash[REDO_HASH_BYTES];
    memcpy(hashed, bytes, REDO_RECORD_HASHED);
    memcpy(hashed + REDO_RECORD_HASHED, redo->at.chain, REDO_HASH_BYTES);
    redo_hash(hashed, sizeof hashed, hash);
    if (memcmp(hash, bytes + REDO_RECORD_HASHED, sizeof hash) != 0 ||
        memcmp(bytes, redo_record_magic, sizeof redo_record_magic) != 0)
        return false;
    const uint8_t *at = bytes + sizeof redo_record_magic;
    uint32_t kind = redo_get_32(&at);
    uint64_t number = redo_get_64(&at);
    *record = (struct redo_record){.kind = kind, .time = (int64_t)redo_get_64(&at)};
    record->place = redo_get_place(&at);
    record->page_count = redo_get_32(&at);
    record->database_size = redo_get_32(&at);
    at += sizeof(uint32_t);
    record->database.ino = redo_get_64(&at);
    record->database.size = (int64_t)redo_get_64(&at);
    record->database.mtime = (int64_t)redo_get_64(&at);
    memcpy(payload_hash, at, REDO_HASH_BYTES);
    memcpy(chain, hash, sizeof hash);
    return number == redo->at.number + 1 && (kind == REDO_PAGES || kind == REDO_SETTLED) &&
           record->page_count <= redo_pages_max(redo->head.page_size);
}

static int redo_end(struct redo *redo, enum redo_ending ending)
{
    redo->ending = ending;
    return 0;
}

int redo_next(struct redo *redo, struct redo_record *out)
{
    uint8_t payload_hash[REDO_HASH_BYTES], hash[REDO_HASH_BYTES];
    struct redo_point behind = redo->at;
    int64_t left = redo->size - redo->at.offset;
    uint8_t *buffer = redo_buffer(redo);
    if (!buffer)
        return -ENOMEM;
    if (left < REDO_RECORD_SIZE)
        return redo_end(redo, left == 0 ? REDO_ENDS : REDO_TORN);
    errint error = transfer_read(redo->fd, buffer, REDO_RECORD_SIZE, redo->at.offset);
    if (error)
        return error == -EIO ? redo_end(redo, REDO_DAMAGED) : error;
    if (!redo_decode(redo, buffer, out, payload_hash, behind.chain))
        return redo_end(redo, redo_is_zero(buffer, REDO_RECORD_SIZE) ? REDO_TORN : REDO_DAMAGED);
    size_t payload = redo_payload(redo, out->page_count);
    if (left - REDO_RECORD_SIZE < (int64_t)payload)
        return redo_end(redo, REDO_TORN);
    error = transfer_read(redo->fd, buffer + REDO_RECORD_SIZE, payload, redo->at.offset + REDO_RECORD_SIZE);
    if (error)
        return error == -EIO ? redo_end(redo, REDO_DAMAGED) : error;
    redo_hash(buffer + REDO_RECORD_SIZE, payload, hash);
    if (memcmp(hash, payload_hash, sizeof hash) != 0)
        return redo_end(redo, REDO_DAMAGED);
    behind.offset += REDO_RECORD_SIZE + (int64_t)payload;
    behind.number++;
    behind.time = out->time;
    redo->at = behind;
    return 1;
}

/* -- putting it over a database ---------------------------------------------------------------------------
 */

static bool redo_is_same_place(const struct frames_place *a, const struct frames_place *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* The point behind the last whole commit. -ESTALE: it does not come to `from` (NULL: no matter). */
static errint redo_find_end(struct redo *redo, const struct frames_place *from, struct redo_point *end,
                            struct frames_place *place)
{
    struct redo_record record;
    redo_rewind(redo);
    *end = redo->at;
    *place = redo->head.place;
    bool met = !from || redo_is_same_place(from, place);
    int more;
    while ((more = redo_next(redo, &record)) > 0) {
        if (!redo_ends_commit(&record))
            continue;
        *end = redo->at;
        *place = record.place;
        met = met || redo_is_same_place(from, place);
    }
    return more ? more : met ? 0 : -ESTALE;
}

static errint redo_put_pages(struct redo *redo, const struct redo_record *record, int database_fd)
{
    const uint8_t *numbers = redo_pages(redo);
    const uint8_t *page = numbers + record->page_count * sizeof(uint32_t);
    errint error = 0;
    for (uint32_t i = 0; !error && i < record->page_count; i++) {
        uint32_t number = redo_get_32(&numbers);
        if (number == 0)
            return -EUCLEAN;
        error = transfer_write(database_fd, page, redo->head.page_size,
                               (int64_t)(number - 1) * (int64_t)redo->head.page_size);
        page += redo->head.page_size;
    }
    return error;
}

errint redo_apply(struct redo *redo, int database_fd, const struct frames_place *from,
                  struct redo_outcome *out)
{
    struct redo_record record;
    struct redo_point end;
    struct frames_place place;
    uint32_t database_size = 0;
    errint error = redo_find_end(redo, from, &end, &place);
    *out = (struct redo_outcome){.time = end.time,
                                 .place = place,
                                 .ending = redo->ending,
                                 .offset = end.offset,
                                 .unused = redo->size - end.offset};
    redo_rewind(redo);
    while (!error && redo->at.offset < end.offset) {
        int more = redo_next(redo, &record);
        if (more <= 0)
            return more < 0 ? more : -EIO; /* it was there a moment ago */
        error = redo_put_pages(redo, &record, database_fd);
        if (record.database_size > 0)
            database_size = record.database_size;
    }
    if (!error && database_size > 0 &&
        ftruncate(database_fd, (int64_t)database_size * (int64_t)redo->head.page_size) < 0)
        error = -errno;
    return error;
}

/* -- other files ------------------------------------------------------------------------------------------
 */

errint redo_hash_file(int fd, uint8_t hash[REDO_HASH_BYTES])
{
    XXH128_canonical_t canonical;
    cleanup_free uint8_t *block = malloc(REDO_FILE_BLOCK);
    XXH3_state_t *state = XXH3_createState();
    errint error = block && state ? 0 : -ENOMEM;
    if (!error)
        XXH3_128bits_reset(state);
    for (int64_t offset = 0; !error;) {
        ssize_t got = pread(fd, block, REDO_FILE_BLOCK, offset);
        if (got < 0 && errno != EINTR)
            error = -errno;
        if (got == 0)
            break;
        if (got > 0) {
            XXH3_128bits_update(state, block, (size_t)got);
            offset += got;
        }
    }
    if (!error) {
        XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
        memcpy(hash, canonical.digest, REDO_HASH_BYTES);
    }
    XXH3_freeState(state);
    return error;
}

errint redo_look_at(const char *path, struct redo_file *out)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return -errno;
    *out = (struct redo_file){
        .ino = status.st_ino, .size = status.st_size, .mtime = clock_from_timespec(&status.st_mtim)};
    return 0;
}
