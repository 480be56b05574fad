/* SPDX-License-Identifier: Apache-2.0 */
/* Verifying and repairing objects by their chunk hashes. */
#include "ckpt/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/transfer.h"
#include "store/object.h"

enum { VERIFY_FOUND_MAX = 64 /* damaged chunks; then the step ends */ };

struct verify_range {
    int64_t offset, length;
    enum verify_finding finding;
};

struct verify_pass {
    const struct verify_request *request;
    struct verify_answer *answer;
    uint8_t root[META_ROOT_BYTES];
    int fd;            /* -1: not open */
    int64_t size;      /* recorded */
    int64_t file_size; /* of the object's file */
    struct meta_range *live;
    size_t live_count;
    struct sums sums;
    struct verify_range found[VERIFY_FOUND_MAX];
    size_t found_count;
};

bool verify_is_damage(enum verify_finding finding)
{
    switch (finding) {
    case VERIFY_DIFFERS:
    case VERIFY_UNREADABLE:
    case VERIFY_SHORT:
    case VERIFY_MISSING:
    case VERIFY_NOT_REPAIRED: return true;
    case VERIFY_REPAIRED:
    case VERIFY_TABLE_MISSING:
    case VERIFY_TABLE_DAMAGED: break;
    }
    return false;
}

/* -- what is said -----------------------------------------------------------------------------------------
 */

static void verify_add_line(struct verify_answer *answer, const struct meta_use *use,
                            enum verify_finding finding, const char *path, size_t *used)
{
    size_t length = strlen(path) + 1;
    if (answer->lines == VERIFY_LINES_MAX || length > sizeof answer->text - *used) {
        answer->left_out++;
        return;
    }
    memcpy(answer->text + *used, path, length);
    answer->line[answer->lines++] = (struct verify_line){
        .ino = use->ino,
        .offset = use->offset,
        .length = use->length,
        .object_offset = use->object_offset,
        .finding = finding,
        .path = (uint32_t)*used,
    };
    *used += length;
}

/* A line for each part of a file that the range is in. */
static errint verify_report_range(const struct verify_pass *pass, const struct verify_range *range,
                                  size_t *used)
{
    struct meta *meta = pass->request->meta;
    const struct meta_range where = {pass->request->object, range->offset, range->length};
    cleanup_free struct meta_use *uses = NULL;
    size_t count;
    errint error = meta_find_uses(meta, &where, &uses, &count);
    for (size_t i = 0; !error && i < count; i++) {
        cleanup_free char *path = NULL;
        error = meta_path(meta, uses[i].ino, &path);
        if (!error)
            verify_add_line(pass->answer, &uses[i], range->finding, path, used);
    }
    return error;
}

/* Neighbouring chunks of one finding are one range. */
static errint verify_report(struct verify_pass *pass)
{
    size_t used = 0;
    errint error = 0;
    for (size_t i = 0; !error && i < pass->found_count;) {
        struct verify_range range = pass->found[i++];
        for (; i < pass->found_count && pass->found[i].finding == range.finding &&
               pass->found[i].offset == range.offset + range.length;
             i++)
            range.length += pass->found[i].length;
        pass->answer->damaged += verify_is_damage(range.finding);
        error = verify_report_range(pass, &range, &used);
    }
    return error;
}

static void verify_add(struct verify_pass *pass, int64_t offset, int64_t length, enum verify_finding finding)
{
    if (pass->found_count < VERIFY_FOUND_MAX)
        pass->found[pass->found_count++] = (struct verify_range){offset, length, finding};
}

/* -- one object -------------------------------------------------------------------------------------------
 */

/* Whether the object still is what it was hashed as: 1, 0 or an error. */
static int verify_is_unchanged(const struct verify_pass *pass)
{
    uint8_t root[META_ROOT_BYTES];
    errint error = meta_object_root(pass->request->meta, pass->request->object, root);
    if (error)
        return error == -ENOENT ? 0 : error;
    return memcmp(root, pass->root, sizeof root) == 0;
}

static bool verify_is_live(const struct verify_pass *pass, const struct sums_chunk *chunk)
{
    size_t low = 0, high = pass->live_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pass->live[middle].offset + pass->live[middle].length <= chunk->offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < pass->live_count && pass->live[low].offset < chunk->offset + chunk->length;
}

static errint verify_read_live(struct verify_pass *pass)
{
    free(pass->live);
    pass->live = NULL;
    pass->live_count = 0;
    return meta_live_ranges(pass->request->meta, pass->request->object, &pass->live, &pass->live_count);
}

/* By O_DIRECT, where the disk can: what memory holds says nothing about the disk. */
static errint verify_open(struct verify_pass *pass)
{
    const struct verify_request *request = pass->request;
    pass->fd = object_open(request->store, request->object, O_RDONLY | O_DIRECT);
    if (pass->fd == -EINVAL)
        pass->fd = object_open(request->store, request->object, O_RDONLY);
    return pass->fd < 0 ? pass->fd : 0;
}

/* Others notice that it is open. */
static void verify_close(struct verify_pass *pass)
{
    if (pass->fd >= 0)
        close(pass->fd);
    pass->fd = -1;
}

static int verify_check(const struct verify_pass *pass, const struct sums_chunk *chunk)
{
    if (chunk->offset + chunk->length > pass->file_size)
        return 0;
    return sums_check_chunk(pass->request->store, pass->fd, chunk);
}

static enum verify_finding verify_name(const struct verify_pass *pass, const struct sums_chunk *chunk,
                                       int result)
{
    if (chunk->offset + chunk->length > pass->file_size)
        return VERIFY_SHORT;
    return result < 0 ? VERIFY_UNREADABLE : VERIFY_DIFFERS;
}

/*
 * A chunk that is not right is looked at again: it may have died and been given back, or been written, since
 * the step began. -EBUSY: the object was written.
 */
static errint verify_suspect(struct verify_pass *pass, const struct sums_chunk *chunk)
{
    int unchanged = verify_is_unchanged(pass);
    if (unchanged <= 0)
        return unchanged < 0 ? unchanged : -EBUSY;
    errint error = verify_read_live(pass);
    if (error || !verify_is_live(pass, chunk))
        return error;
    int result = verify_check(pass, chunk);
    if (result == -ENOMEM)
        return result;
    if (result <= 0)
        verify_add(pass, chunk->offset, chunk->length, verify_name(pass, chunk, result));
    return 0;
}

/* The chunks from the request's offset on. */
static errint verify_chunks(struct verify_pass *pass)
{
    const struct sums *sums = &pass->sums;
    struct verify_answer *answer = pass->answer;
    size_t i = sums_chunk_at(sums, pass->request->offset);
    for (; i < sums->chunk_count; i++) {
        const struct sums_chunk *chunk = &sums->chunks[i];
        if (answer->checked >= pass->request->budget || pass->found_count == VERIFY_FOUND_MAX) {
            answer->next = chunk->offset;
            return 0;
        }
        if (!verify_is_live(pass, chunk))
            continue;
        answer->checked += chunk->length;
        int result = verify_check(pass, chunk);
        if (result == -ENOMEM)
            return result;
        errint error = result == 1 ? 0 : verify_suspect(pass, chunk);
        if (error)
            return error;
    }
    return 0;
}

/* -- the record -------------------------------------------------------------------------------------------
 */

/* What this step found is what is known of the part that it looked at. */
static errint verify_record(struct verify_pass *pass)
{
    const struct verify_request *request = pass->request;
    struct meta_range rows[VERIFY_FOUND_MAX];
    size_t count = 0;
    for (size_t i = 0; i < pass->found_count; i++) {
        if (verify_is_damage(pass->found[i].finding))
            rows[count++] =
                (struct meta_range){request->object, pass->found[i].offset, pass->found[i].length};
    }
    int64_t end = pass->answer->next < 0 ? INT64_MAX : pass->answer->next;
    const struct meta_range within = {request->object, request->offset, end - request->offset};
    bool changed;
    errint error = meta_damage_replace(request->meta, &within, pass->root, rows, count, &changed);
    if (!error && changed && request->recorded)
        request->recorded(request->context, request->object);
    return error;
}

/* -- repair -----------------------------------------------------------------------------------------------
 */

/* The chunk's bytes from one place, when they have its hash there: 1, 0 or -ENOMEM. */
static int verify_take(const struct verify_pass *pass, const struct sums_chunk *chunk, uint64_t object,
                       int64_t offset, uint8_t *bytes)
{
    cleanup_fd int fd = object_open(pass->request->store, object, O_RDONLY);
    if (fd < 0 || transfer_read(fd, bytes, chunk->length, offset) < 0)
        return 0;
    return hash_equal(hash_of(pass->request->store, bytes, chunk->length), chunk->hash);
}

/* The chunk's bytes from anywhere that the index knows a segment with it: 1, 0 or an error. */
static int verify_find(const struct verify_pass *pass, const struct sums_chunk *chunk,
                       const struct meta_segment *segment, uint8_t *bytes)
{
    const struct meta_range except = {pass->request->object, segment->object_offset, segment->length};
    cleanup_free struct meta_range *copies = NULL;
    size_t count;
    int found = meta_find_copies(pass->request->meta, segment, &except, &copies, &count);
    for (size_t i = 0; found == 0 && i < count; i++)
        found = verify_take(pass, chunk, copies[i].object,
                            copies[i].offset + (chunk->offset - segment->object_offset), bytes);
    return found;
}

/* In a segment like the one that the chunk is of, or in an object like the whole one. */
static int verify_find_bytes(const struct verify_pass *pass, const struct sums_chunk *chunk, uint8_t *bytes)
{
    const struct sums *sums = &pass->sums;
    const struct meta_segment whole = {0, sums->size, sums->root.low, sums->root.high};
    size_t i = 0;
    while (i < sums->segment_count && sums->segments[i].offset + sums->segments[i].length <= chunk->offset)
        i++;
    int found = 0;
    if (i < sums->segment_count) {
        const struct sums_segment *at = &sums->segments[i];
        const struct meta_segment segment = {at->offset, at->length, at->hash.low, at->hash.high};
        found = verify_find(pass, chunk, &segment, bytes);
    }
    return found ? found : verify_find(pass, chunk, &whole, bytes);
}

/* Writes right bytes into their place, and reads them back. */
static errint verify_put(struct verify_pass *pass, const struct sums_chunk *chunk, const uint8_t *bytes)
{
    const struct verify_request *request = pass->request;
    cleanup_fd int fd = object_open(request->store, request->object, O_RDWR);
    struct stat status;
    errint error = fd < 0 ? fd : transfer_write(fd, bytes, chunk->length, chunk->offset);
    if (!error && fsync(fd) != 0)
        error = -errno;
    if (!error && fstat(fd, &status) < 0)
        error = -errno;
    if (error)
        return error;
    pass->file_size = status.st_size;
    return verify_check(pass, chunk) == 1 ? 0 : -EIO;
}

static errint verify_repair_range(struct verify_pass *pass, struct verify_range *range, bool may_write)
{
    size_t index = sums_chunk_at(&pass->sums, range->offset);
    if (index == pass->sums.chunk_count || range->length > SUMS_CHUNK_MAX)
        return 0;
    const struct sums_chunk *chunk = &pass->sums.chunks[index];
    cleanup_free uint8_t *bytes = malloc(chunk->length);
    if (!bytes)
        return -ENOMEM;
    int found = verify_find_bytes(pass, chunk, bytes);
    if (found <= 0)
        return found;
    if (!may_write) {
        range->finding = VERIFY_NOT_REPAIRED;
        return 0;
    }
    errint error = verify_put(pass, chunk, bytes);
    if (!error)
        range->finding = VERIFY_REPAIRED;
    else
        log_error("object %016llx: bytes %lld to %lld cannot be repaired: %s",
                  (unsigned long long)pass->request->object, (long long)chunk->offset,
                  (long long)(chunk->offset + chunk->length), strerror(-error));
    return 0;
}

/* What is recorded as damaged is written in place by nobody else. */
static errint verify_repair(struct verify_pass *pass)
{
    const struct verify_request *request = pass->request;
    bool may_write = !request->may_write || request->may_write(request->context, request->object);
    errint error = verify_open(pass);
    for (size_t i = 0; !error && i < pass->found_count; i++)
        error = verify_repair_range(pass, &pass->found[i], may_write);
    verify_close(pass);
    return error ? error : verify_record(pass);
}

/* -- the step ---------------------------------------------------------------------------------------------
 */

/* What files need behind the end of the object. */
static void verify_add_cut(struct verify_pass *pass)
{
    const struct meta_range *last = pass->live_count ? &pass->live[pass->live_count - 1] : NULL;
    int64_t end = last ? last->offset + last->length : 0;
    if (end > pass->file_size)
        verify_add(pass, pass->file_size, end - pass->file_size, VERIFY_SHORT);
}

/* The table of hashes, when it is the one that the namespace knows; else what it is not. */
static errint verify_read_table(struct verify_pass *pass, enum verify_finding *finding)
{
    uint8_t root[META_ROOT_BYTES];
    errint error = sums_read_alone(pass->request->store, pass->request->object, &pass->sums);
    *finding = error == -ENOENT ? VERIFY_TABLE_MISSING : VERIFY_TABLE_DAMAGED;
    if (error)
        return error == -ENOMEM ? error : 0;
    hash_to_bytes(pass->sums.root, root);
    if (pass->sums.size == pass->size && memcmp(root, pass->root, sizeof root) == 0)
        *finding = 0;
    return 0;
}

/* The table goes with the object, and both go before the namespace forgets them. */
static errint verify_without_table(struct verify_pass *pass, enum verify_finding finding)
{
    int unchanged = verify_is_unchanged(pass);
    errint error = unchanged < 0 ? unchanged : verify_read_live(pass);
    if (error)
        return error;
    if (!unchanged || pass->live_count == 0)
        return -EBUSY;
    pass->answer->state = VERIFY_UNVERIFIABLE;
    verify_add(pass, 0, pass->size, finding);
    verify_add_cut(pass);
    return 0;
}

static errint verify_hashed(struct verify_pass *pass)
{
    enum verify_finding finding;
    errint error = verify_read_table(pass, &finding);
    if (error)
        return error;
    if (finding)
        return verify_without_table(pass, finding);
    error = verify_open(pass);
    if (error)
        return error == -ENOENT ? -EBUSY : error;
    error = verify_chunks(pass);
    verify_close(pass);
    if (!error)
        error = verify_record(pass);
    if (!error && pass->request->repair && pass->found_count > 0)
        error = verify_repair(pass);
    return error;
}

/* It may have been removed just now, with all that needed it. */
static errint verify_missing(struct verify_pass *pass)
{
    const struct meta_range whole = {pass->request->object, 0, INT64_MAX};
    cleanup_free struct meta_use *uses = NULL;
    size_t count;
    errint error = meta_find_uses(pass->request->meta, &whole, &uses, &count);
    if (!error && count == 0)
        return -EBUSY;
    verify_add(pass, 0, INT64_MAX, VERIFY_MISSING);
    return error;
}

static errint verify_object(struct verify_pass *pass)
{
    const struct verify_request *request = pass->request;
    errint error = meta_object_size(request->meta, request->object, &pass->size);
    if (!error)
        error = verify_read_live(pass);
    if (error)
        return error == -ENOENT ? -EBUSY : error;
    error = meta_object_root(request->meta, request->object, pass->root);
    if (error && error != -ENOENT)
        return error;
    pass->answer->state = error ? VERIFY_UNHASHED : VERIFY_LOOKED_AT;
    pass->file_size = object_file_size(request->store, request->object);
    if (pass->file_size < 0)
        return pass->file_size == -ENOENT ? verify_missing(pass) : (errint)pass->file_size;
    if (pass->answer->state == VERIFY_LOOKED_AT)
        return verify_hashed(pass);
    verify_add_cut(pass);
    return 0;
}

errint verify_step(const struct verify_request *request, struct verify_answer *out)
{
    *out = (struct verify_answer){.object = request->object, .next = -1};
    if (request->offset < 0)
        return -EINVAL;
    struct verify_pass *pass = calloc(1, sizeof *pass);
    if (!pass)
        return -ENOMEM;
    *pass = (struct verify_pass){.request = request, .answer = out, .fd = -1};
    errint error = verify_object(pass);
    if (!error)
        error = verify_report(pass);
    if (error == -EBUSY) {
        out->state = VERIFY_CHANGED;
        out->next = -1;
        out->lines = out->left_out = out->damaged = 0;
        error = 0;
    }
    verify_close(pass);
    free(pass->live);
    sums_release(&pass->sums);
    free(pass);
    return error;
}
