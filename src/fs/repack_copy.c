/* SPDX-License-Identifier: Apache-2.0 */
/* Copying what is alive of an object. */
#include "fs/repack_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/grow.h"
#include "base/transfer.h"
#include "fs/filesystem.h"
#include "store/object.h"
#include "store/sums_table.h"

enum {
    REPACK_BLOCK = 4096, /* of zeros, which are not written */
    REPACK_FLUSH =
        64 << 20, /* no more than this waits to be written: a save needs the memory, a stop the end */
};

struct repack_pass {
    struct repack_copy *copy;
    int from_fd, to_fd;
    uint8_t *bytes;  /* of the chunk: SUMS_CHUNK_MAX */
    size_t capacity; /* of copy->sums.chunks */
    int64_t flushed; /* bytes of `to` that were sent to the disk */
};

void repack_copy_release(struct repack_copy *copy)
{
    sums_release(&copy->sums);
    free(copy->moves);
}

static bool repack_is_zero(const uint8_t *bytes, size_t length)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* The length of the block that `offset` is in, from there on; at most `left`. */
static size_t repack_block_length(int64_t offset, size_t left)
{
    size_t length = REPACK_BLOCK - (size_t)(offset % REPACK_BLOCK);
    return length < left ? length : left;
}

/* Writes all but whole blocks of zeros. */
static errint repack_write(int fd, const uint8_t *bytes, size_t length, int64_t offset)
{
    errint error = 0;
    for (size_t at = 0; !error && at < length;) {
        size_t end = at;
        while (end < length) {
            size_t block = repack_block_length(offset + (int64_t)end, length - end);
            if (block == REPACK_BLOCK && repack_is_zero(bytes + end, block))
                break;
            end += block;
        }
        if (end > at)
            error = transfer_write(fd, bytes + at, end - at, offset + (int64_t)at);
        at = end < length ? end + REPACK_BLOCK : end;
    }
    return error;
}

static errint repack_append_chunk(struct repack_pass *pass, const struct sums_chunk *chunk)
{
    struct sums *sums = &pass->copy->sums;
    if (!grow_reserve(sums->chunks, pass->capacity, sums->chunk_count + 1))
        return -ENOMEM;
    sums->chunks[sums->chunk_count++] = *chunk;
    sums->size += chunk->length;
    return 0;
}

/* What goes wrong here, the sync at the end tells. */
static void repack_flush(struct repack_pass *pass)
{
    int64_t written = pass->copy->sums.size - pass->flushed;
    if (written < REPACK_FLUSH)
        return;
    sync_file_range(pass->to_fd, pass->flushed, written,
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    pass->flushed += written;
}

/* What a live range has of the chunk, which is in pass->bytes. */
static errint repack_put(struct repack_pass *pass, const struct sums_chunk *chunk,
                         const struct meta_range *live)
{
    struct repack_copy *copy = pass->copy;
    const int64_t chunk_end = chunk->offset + chunk->length, live_end = live->offset + live->length;
    int64_t from = live->offset > chunk->offset ? live->offset : chunk->offset;
    int64_t end = live_end < chunk_end ? live_end : chunk_end;
    const uint8_t *bytes = pass->bytes + (from - chunk->offset);
    struct sums_chunk piece = {.offset = copy->sums.size, .length = (uint32_t)(end - from)};
    bool whole = piece.length == chunk->length;
    piece.hash = whole ? chunk->hash : hash_of(copy->fs->store, bytes, piece.length);
    /* Where something was left out, what follows is a run of its own. */
    piece.starts_segment = from == live->offset || (from == chunk->offset && chunk->starts_segment);
    if (from == live->offset)
        copy->moves[copy->move_count++] = (struct meta_move){
            .object = copy->from,
            .offset = live->offset,
            .length = live->length,
            .to_offset = piece.offset,
        };
    errint error = fault_hit("fs.repack.write");
    if (!error)
        error = repack_write(pass->to_fd, bytes, piece.length, piece.offset);
    return error ? error : repack_append_chunk(pass, &piece);
}

/* Reads the chunk: -EUCLEAN when it is not what its hash says, or the disk does not give it. */
static errint repack_take(struct repack_pass *pass, const struct sums_chunk *chunk)
{
    struct repack_copy *copy = pass->copy;
    errint error = transfer_read(pass->from_fd, pass->bytes, chunk->length, chunk->offset);
    if (error && error != -EIO)
        return error;
    if (!error && hash_equal(hash_of(copy->fs->store, pass->bytes, chunk->length), chunk->hash))
        return 0;
    copy->damaged = (struct meta_range){copy->from, chunk->offset, chunk->length};
    return -EUCLEAN;
}

/* Every chunk that has a live byte, once. */
static errint repack_pass_chunks(struct repack_pass *pass)
{
    struct repack_copy *copy = pass->copy;
    const struct reclaim_plan *plan = copy->plan;
    errint error = 0;
    size_t first = 0;
    for (size_t i = 0; !error && i < plan->sums.chunk_count; i++) {
        const struct sums_chunk *chunk = &plan->sums.chunks[i];
        const int64_t end = chunk->offset + chunk->length;
        while (first < plan->live_count &&
               plan->live[first].offset + plan->live[first].length <= chunk->offset)
            first++;
        if (first == plan->live_count || plan->live[first].offset >= end)
            continue;
        error = copy->stops(copy->fs) ? -ECANCELED : repack_take(pass, chunk);
        for (size_t j = first; !error && j < plan->live_count && plan->live[j].offset < end; j++)
            error = repack_put(pass, chunk, &plan->live[j]);
        repack_flush(pass);
    }
    return error;
}

static errint repack_finish_file(const struct repack_pass *pass)
{
    struct repack_copy *copy = pass->copy;
    if (ftruncate(pass->to_fd, copy->sums.size) < 0)
        return -errno;
    errint error = fault_hit("fs.repack.sync");
    return error ? error : object_sync(copy->fs->store, copy->to, pass->to_fd);
}

static errint repack_copy_bytes(struct repack_copy *copy, const struct backing *from)
{
    cleanup_fd int fd = object_create(copy->fs->store, copy->to);
    cleanup_free uint8_t *bytes = malloc(SUMS_CHUNK_MAX);
    copy->moves = calloc(copy->plan->live_count, sizeof *copy->moves);
    if (fd < 0 || !bytes || !copy->moves)
        return fd < 0 ? fd : -ENOMEM;
    struct repack_pass pass = {.copy = copy, .from_fd = from->fd, .to_fd = fd, .bytes = bytes};
    errint error = repack_pass_chunks(&pass);
    if (!error)
        error = repack_finish_file(&pass);
    return error ? error : sums_table_index(copy->fs->store, &copy->sums);
}

errint repack_copy_make(struct repack_copy *copy)
{
    /* Through the descriptor that all share: a second one would look like somebody else's. */
    struct backing *from;
    errint error = backing_get(&copy->fs->backings, copy->from, &from);
    if (error)
        return error;
    error = repack_copy_bytes(copy, from);
    backing_put(&copy->fs->backings, from);
    return error;
}
