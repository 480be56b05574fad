/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting and hashing an object in one pass over its bytes. */
#include "store/sums.h"

#include <errno.h>
#include <string.h>

#include "base/grow.h"
#include "store/chunker.h"
#include "store/sums_table.h"

enum {
    SUMS_ALIGNMENT =
        4096, /* of memory, offset and length of every read: `fd` may have been opened O_DIRECT */
    SUMS_BUFFER = 4 << 20,
};

_Static_assert(SUMS_BUFFER >= 2 * SUMS_CHUNK_MAX, "a chunk and what is left of a read must fit");
_Static_assert(SUMS_CHUNK <= SUMS_CHUNK_MAX, "chunks of both kinds have one bound");

static int64_t sums_round_up(int64_t value)
{
    return (value + SUMS_ALIGNMENT - 1) / SUMS_ALIGNMENT * SUMS_ALIGNMENT;
}

/*
 * Reads up to `length` bytes at `offset`, and at least `needed` of them: -EIO when the object ends before.
 * The number of bytes read, or a negative errno.
 */
static ssize_t sums_pread(int fd, void *bytes, size_t length, size_t needed, int64_t offset)
{
    size_t done = 0;
    while (done < needed) {
        ssize_t got = pread(fd, (char *)bytes + done, length - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return -EIO;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* One pass over an object. */
struct sums_pass {
    const struct sums_request *request;
    struct chunker chunker;
    uint8_t *buffer;
    size_t start, end; /* what was read and not yet hashed: buffer[start, end) */
    int64_t read;      /* where the next read begins in the object */
    struct sums sums;
    size_t capacity; /* of sums.chunks */
};

/* Brings the next `length` bytes of the object, at most SUMS_CHUNK_MAX, into the buffer. */
static errint sums_fill(struct sums_pass *pass, size_t length)
{
    size_t left = pass->end - pass->start;
    if (left >= length)
        return 0;
    /* What is left ends where an aligned read may begin. */
    size_t end = (size_t)sums_round_up((int64_t)left);
    memmove(pass->buffer + end - left, pass->buffer + pass->start, left);
    pass->start = end - left;
    pass->end = end;
    int64_t rest = pass->request->size - pass->read;
    size_t needed = SUMS_BUFFER - end;
    if (rest < (int64_t)needed)
        needed = (size_t)rest;
    ssize_t got = sums_pread(pass->request->fd, pass->buffer + end, (size_t)sums_round_up((int64_t)needed),
                             needed, pass->read);
    if (got < 0)
        return (errint)got;
    /* An object may have grown: its new bytes were not asked for. */
    pass->end += needed;
    pass->read += (int64_t)needed;
    return 0;
}

static errint sums_append(struct sums_pass *pass, size_t length, bool starts_segment)
{
    struct sums *sums = &pass->sums;
    if (!grow_reserve(sums->chunks, pass->capacity, sums->chunk_count + 1))
        return -ENOMEM;
    sums->chunks[sums->chunk_count++] = (struct sums_chunk){
        .offset = sums->size,
        .length = (uint32_t)length,
        .starts_segment = starts_segment,
        .hash = hash_of(pass->request->store, pass->buffer + pass->start, length),
    };
    sums->size += (int64_t)length;
    return 0;
}

/* The next chunk of a part, of which `rest` bytes are left. */
static errint sums_cut(struct sums_pass *pass, const struct sums_part *part, int64_t rest,
                       struct chunker_cut *cut)
{
    int64_t most = part->opaque ? SUMS_CHUNK_MAX : SUMS_CHUNK;
    size_t length = (size_t)(rest < most ? rest : most);
    errint error = sums_fill(pass, length);
    if (error)
        return error;
    *cut = part->opaque ? chunker_cut(&pass->chunker, pass->buffer + pass->start, length)
                        : (struct chunker_cut){.length = length};
    return 0;
}

static errint sums_pass_part(struct sums_pass *pass, size_t number, const struct sums_part *part)
{
    const struct sums_request *request = pass->request;
    bool starts_segment = true;
    size_t in_segment = 0;
    for (int64_t rest = part->length; rest > 0;) {
        if (request->stop && request->stop(request->context))
            return -ECANCELED;
        struct chunker_cut cut;
        errint error = sums_cut(pass, part, rest, &cut);
        if (!error)
            error = sums_append(pass, cut.length, starts_segment);
        if (error)
            return error;
        if (request->bytes)
            request->bytes(request->context, number, pass->buffer + pass->start, cut.length);
        pass->start += cut.length;
        rest -= (int64_t)cut.length;
        in_segment = starts_segment ? 1 : in_segment + 1;
        starts_segment = part->opaque && (cut.ends_segment || in_segment == SUMS_SEGMENT_CHUNKS_MAX);
    }
    return 0;
}

static errint sums_check_request(const struct sums_request *request)
{
    if (request->size < 0)
        return -EINVAL;
    int64_t left = request->size;
    for (size_t i = 0; request->parts && i < request->part_count; i++) {
        if (request->parts[i].length <= 0 || request->parts[i].length > left)
            return -EINVAL;
        left -= request->parts[i].length;
    }
    return request->parts && left ? -EINVAL : 0;
}

static errint sums_pass_object(struct sums_pass *pass)
{
    const struct sums_request *request = pass->request;
    const struct sums_part whole = {.length = request->size, .opaque = true};
    const struct sums_part *parts = request->parts ? request->parts : &whole;
    size_t count = request->parts ? request->part_count : 1;
    for (size_t i = 0; i < count; i++) {
        errint error = sums_pass_part(pass, i, &parts[i]);
        if (error)
            return error;
    }
    return sums_table_index(request->store, &pass->sums);
}

errint sums_compute(const struct sums_request *request, struct sums *out)
{
    errint error = sums_check_request(request);
    if (error)
        return error;
    cleanup_free uint8_t *buffer = aligned_alloc(SUMS_ALIGNMENT, SUMS_BUFFER);
    if (!buffer)
        return -ENOMEM;
    struct sums_pass pass = {.request = request, .buffer = buffer};
    chunker_init(&pass.chunker);
    error = sums_pass_object(&pass);
    if (error) {
        sums_release(&pass.sums);
        return error;
    }
    *out = pass.sums;
    return 0;
}

int sums_check_chunk(const struct store *store, int fd, const struct sums_chunk *chunk)
{
    int64_t begin = chunk->offset / SUMS_ALIGNMENT * SUMS_ALIGNMENT;
    size_t before = (size_t)(chunk->offset - begin);
    size_t length = (size_t)sums_round_up((int64_t)(before + chunk->length));
    cleanup_free uint8_t *bytes = aligned_alloc(SUMS_ALIGNMENT, length);
    if (!bytes)
        return -ENOMEM;
    ssize_t got = sums_pread(fd, bytes, length, before + chunk->length, begin);
    if (got < 0)
        return (int)got;
    return hash_equal(hash_of(store, bytes + before, chunk->length), chunk->hash);
}
