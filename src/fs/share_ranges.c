/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing a model file's tensors with the pieces that shards have of them. */
#include "fs/share_ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/grow.h"
#include "base/transfer.h"
#include "ckpt/match.h"
#include "fs/filesystem.h"
#include "fs/share_out.h"
#include "meta/damage.h"

enum {
    RANGES_BUFFER = 1 << 20,
    RANGES_BLOCK = 64 << 10,      /* equal bytes of a range that differs are found in blocks of this */
    RANGES_PROBE = 4096,          /* bytes that are read for a first look */
    RANGES_PROBES = 256,          /* places of the whole model that are looked at first, */
    RANGES_SPOTS = 8,             /* and of one range: when all differ, the rest is thought to, too */
    RANGES_PROBED_MIN = 1 << 20,  /* shorter ranges are compared at once */
    RANGES_OBJECTS_MAX = 1 << 16, /* more of them are left out */
};

/* An object that has a part of one side. */
struct ranges_object {
    uint64_t object;
    int64_t size;
    uint8_t root[META_ROOT_BYTES]; /* before it was read */
    enum { RANGES_GOOD, RANGES_EARLY, RANGES_BAD } state;
};

/* One side: the extents of a file. */
struct ranges_file {
    bool loaded;
    struct meta_extent *extents;
    size_t count;
};

/* A range of an object that equals one of another object. */
struct ranges_found {
    uint64_t object, to;
    int64_t offset, length, to_offset;
};

struct ranges_work {
    struct filesystem *fs;
    const struct share_ranges *request;
    bool (*stops)(struct filesystem *fs);
    struct ranges_file whole, *pieces;
    struct ranges_object *objects;
    size_t object_count, object_capacity;
    struct ranges_found *found;
    size_t found_count, found_capacity;
    struct backing *open[2]; /* of the last objects of either side */
    char *buffers[2];
    bool early; /* some object was not ready */
};

/* Where a part of a range is, in the objects of both sides. */
struct ranges_part {
    size_t object, to; /* in the table */
    int64_t offset, to_offset, length;
    bool same;   /* one object */
    bool absent; /* a hole, or an object that is left alone */
};

static void ranges_release(struct ranges_work *work)
{
    for (size_t i = 0; work->pieces && i < work->request->piece_count; i++)
        free(work->pieces[i].extents);
    free(work->pieces);
    free(work->whole.extents);
    free(work->objects);
    free(work->found);
    for (size_t i = 0; i < 2; i++) {
        backing_put(&work->fs->backings, work->open[i]);
        free(work->buffers[i]);
    }
}

#define cleanup_ranges __attribute__((cleanup(ranges_release)))

/* -- where the bytes are ----------------------------------------------------------------------------------
 */

static errint ranges_load(struct ranges_work *work, struct ranges_file *file, uint64_t ino)
{
    if (file->loaded)
        return 0;
    errint error = ino ? meta_extents(work->fs->meta, ino, &file->extents, &file->count) : 0;
    file->loaded = !error || error == -ENOENT;
    return file->loaded ? 0 : error;
}

/* Whether bytes of the object may be given to, or taken from, others. */
static errint ranges_judge(struct ranges_work *work, struct ranges_object *object)
{
    struct filesystem *fs = work->fs;
    uint32_t uid;
    object->state = RANGES_BAD;
    errint error = meta_object_size(fs->meta, object->object, &object->size);
    if (!error)
        error = meta_object_root(fs->meta, object->object, object->root);
    if (error == -ENOENT)
        object->state = RANGES_EARLY;
    if (!error)
        error = meta_object_uid(fs->meta, object->object, &uid);
    if (error)
        return error == -ENOENT ? 0 : error;
    int damaged = meta_object_damaged(fs->meta, object->object);
    if (damaged == 0 && (uid == work->request->uid || fs->options->share_owners))
        object->state = RANGES_GOOD;
    return damaged < 0 ? damaged : 0;
}

/* The object's place in the table; SIZE_MAX: it is left alone. */
static errint ranges_find_object(struct ranges_work *work, uint64_t id, size_t *out)
{
    size_t at = work->object_count;
    while (at > 0 && work->objects[at - 1].object != id)
        at--;
    *out = SIZE_MAX;
    if (at == 0) {
        if (work->object_count == RANGES_OBJECTS_MAX)
            return 0;
        if (!grow_reserve(work->objects, work->object_capacity, work->object_count + 1))
            return -ENOMEM;
        work->objects[work->object_count] = (struct ranges_object){.object = id};
        errint error = ranges_judge(work, &work->objects[work->object_count]);
        if (error)
            return error;
        at = ++work->object_count;
    }
    work->early |= work->objects[at - 1].state == RANGES_EARLY;
    if (work->objects[at - 1].state == RANGES_GOOD)
        *out = at - 1;
    return 0;
}

/* The extent that has the offset, or the next one; NULL: there is none. They are sorted. */
static const struct meta_extent *ranges_find_extent(const struct ranges_file *file, int64_t offset)
{
    size_t low = 0, high = file->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (file->extents[middle].offset + file->extents[middle].length <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < file->count ? &file->extents[low] : NULL;
}

/* How far one side goes in one extent or hole from `offset` on, and where: NULL, a hole. */
static const struct meta_extent *ranges_reach(const struct ranges_file *file, int64_t offset, int64_t *length)
{
    const struct meta_extent *extent = ranges_find_extent(file, offset);
    if (!extent)
        return NULL;
    int64_t end = extent->offset > offset ? extent->offset : extent->offset + extent->length;
    if (end - offset < *length)
        *length = end - offset;
    return extent->offset > offset ? NULL : extent;
}

/* The first part of what is left of a range after `done` bytes. */
static errint ranges_part(struct ranges_work *work, const struct counterpart *range, int64_t done,
                          struct ranges_part *out)
{
    struct ranges_file *file = &work->pieces[range->file];
    errint error = ranges_load(work, file, work->request->pieces[range->file]);
    if (error)
        return error;
    *out = (struct ranges_part){.length = range->length - done, .absent = true};
    const struct meta_extent *piece = ranges_reach(file, range->from + done, &out->length);
    const struct meta_extent *whole = ranges_reach(&work->whole, range->whole + done, &out->length);
    if (!piece || !whole)
        return 0;
    out->same = piece->object == whole->object;
    out->offset = piece->object_offset + (range->from + done - piece->offset);
    out->to_offset = whole->object_offset + (range->whole + done - whole->offset);
    if (out->same)
        return 0;
    error = ranges_find_object(work, piece->object, &out->object);
    if (!error)
        error = ranges_find_object(work, whole->object, &out->to);
    out->absent = out->object == SIZE_MAX || out->to == SIZE_MAX;
    return error;
}

/* -- comparing --------------------------------------------------------------------------------------------
 */

static errint ranges_read(struct ranges_work *work, unsigned side, size_t object, int64_t offset,
                          size_t length)
{
    struct backing_table *table = &work->fs->backings;
    const uint64_t id = work->objects[object].object;
    if (!work->open[side] || work->open[side]->object != id) {
        struct backing *next;
        errint error = backing_get(table, id, &next);
        if (error)
            return error;
        backing_put(table, work->open[side]);
        work->open[side] = next;
    }
    return transfer_read(work->open[side]->fd, work->buffers[side], length, offset);
}

/* Reads both sides, from `at` on in the part. */
static errint ranges_read_both(struct ranges_work *work, const struct ranges_part *part, int64_t at,
                               size_t length)
{
    if (work->stops(work->fs))
        return -ECANCELED;
    errint error = ranges_read(work, 0, part->object, part->offset + at, length);
    return error ? error : ranges_read(work, 1, part->to, part->to_offset + at, length);
}

static errint ranges_note(struct ranges_work *work, const struct ranges_part *part, int64_t at,
                          int64_t length)
{
    if (length < COUNTERPART_PART_MIN || work->found_count == COUNTERPART_RANGES_MAX)
        return 0;
    if (!grow_reserve(work->found, work->found_capacity, work->found_count + 1))
        return -ENOMEM;
    work->found[work->found_count++] =
        (struct ranges_found){work->objects[part->object].object, work->objects[part->to].object,
                              part->offset + at, length, part->to_offset + at};
    return 0;
}

/* 1: some place of the part has the same bytes on both sides; 0: none that was looked at. */
static int ranges_probe(struct ranges_work *work, const struct ranges_part *part, unsigned spots)
{
    int64_t room = part->length - RANGES_PROBE;
    for (unsigned i = 0; i < spots; i++) {
        int64_t at = room > 0 && spots > 1 ? room / (spots - 1) * i : 0;
        size_t length = room >= 0 ? RANGES_PROBE : (size_t)part->length;
        errint error = ranges_read_both(work, part, at, length);
        if (error)
            return error;
        if (memcmp(work->buffers[0], work->buffers[1], length) == 0)
            return 1;
    }
    return 0;
}

/* Notes the runs of equal blocks of a part. */
static errint ranges_compare(struct ranges_work *work, const struct ranges_part *part)
{
    int64_t begin = 0; /* of the run of equal bytes that ends at the block that is looked at */
    errint error = 0;
    for (int64_t done = 0; done < part->length && !error;) {
        int64_t left = part->length - done;
        size_t length = left < RANGES_BUFFER ? (size_t)left : RANGES_BUFFER;
        error = ranges_read_both(work, part, done, length);
        for (size_t at = 0; at < length && !error; at += RANGES_BLOCK) {
            size_t block = length - at < RANGES_BLOCK ? length - at : RANGES_BLOCK;
            if (memcmp(work->buffers[0] + at, work->buffers[1] + at, block) == 0)
                continue;
            int64_t here = done + (int64_t)at;
            error = ranges_note(work, part, begin, here - begin);
            begin = here + (int64_t)block;
        }
        done += (int64_t)length;
    }
    return error ? error : ranges_note(work, part, begin, part->length - begin);
}

/* What cannot be read stays as it is; who verifies the store tells of it. */
static errint ranges_forgive(errint error)
{
    return error == -EIO || error == -ENOENT ? 0 : error;
}

static errint ranges_compare_range(struct ranges_work *work, const struct counterpart *range)
{
    struct ranges_part part;
    for (int64_t done = 0; done < range->length; done += part.length) {
        errint error = ranges_part(work, range, done, &part);
        if (error)
            return error;
        if (part.same || part.absent || part.length < COUNTERPART_PART_MIN)
            continue;
        int likely = part.length >= RANGES_PROBED_MIN ? ranges_probe(work, &part, RANGES_SPOTS) : 1;
        error = likely < 0 ? likely : likely ? ranges_compare(work, &part) : 0;
        error = ranges_forgive(error);
        if (error)
            return error;
    }
    return 0;
}

/* As ranges_probe, at one place of a range. Bytes that are stored once already are equal. */
static int ranges_probe_at(struct ranges_work *work, const struct counterpart *range, int64_t at)
{
    struct ranges_part part;
    errint error = ranges_part(work, range, at, &part);
    if (error)
        return error;
    if (part.same || part.absent)
        return part.same;
    int likely = ranges_probe(work, &part, 1);
    return likely < 0 ? ranges_forgive(likely) : likely;
}

/* 1: some places, at equal distances over the bytes of all ranges, are alike; 0: all of them differ. */
static int ranges_are_likely(struct ranges_work *work)
{
    const struct share_ranges *request = work->request;
    int64_t total = 0, before = 0, next = 0;
    for (size_t i = 0; i < request->range_count; i++)
        total += request->ranges[i].length;
    for (size_t i = 0; i < request->range_count; i++) {
        const struct counterpart *range = &request->ranges[i];
        for (; next < before + range->length; next += total / RANGES_PROBES + 1) {
            int likely = ranges_probe_at(work, range, next - before);
            if (likely)
                return likely;
        }
        before += range->length;
    }
    return 0;
}

/* -- giving way -------------------------------------------------------------------------------------------
 */

static int ranges_order(const void *one, const void *other)
{
    const struct ranges_found *a = one, *b = other;
    if (a->to != b->to)
        return a->to < b->to ? -1 : 1;
    if (a->object != b->object)
        return a->object < b->object ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

static int ranges_order_objects(const void *one, const void *other)
{
    const struct ranges_object *a = one, *b = other;
    return (a->object > b->object) - (a->object < b->object);
}

/* Objects by their ids, as moves are sorted. */
static void ranges_sort(struct ranges_work *work)
{
    if (work->object_count > 0)
        qsort(work->objects, work->object_count, sizeof *work->objects, ranges_order_objects);
    if (work->found_count > 0)
        qsort(work->found, work->found_count, sizeof *work->found, ranges_order);
}

static const struct ranges_object *ranges_object_of(const struct ranges_work *work, uint64_t id)
{
    const struct ranges_object key = {.object = id};
    return bsearch(&key, work->objects, work->object_count, sizeof key, ranges_order_objects);
}

/* What was found of one object, [first, last): each byte once. */
static void ranges_clip(const struct ranges_work *work, size_t first, size_t last, struct match *match)
{
    const struct ranges_object *object = ranges_object_of(work, work->found[first].object);
    int64_t end = 0;
    for (size_t i = first; i < last; i++) {
        const struct ranges_found *found = &work->found[i];
        int64_t again = end > found->offset ? end - found->offset : 0;
        if (found->length - again < COUNTERPART_PART_MIN)
            continue;
        match->moves[match->move_count++] =
            (struct meta_move){object->object, found->offset + again, found->length - again,
                               found->to_offset + again, object->root};
        end = found->offset + found->length;
    }
}

/* Adds the moves of one object: of those that lie side by side in it, MATCH_LENGTH_MIN together. */
static errint ranges_add_moves(const struct ranges_work *work, size_t begin, size_t end, struct match *match)
{
    const struct ranges_object *object = ranges_object_of(work, work->found[begin].object);
    const size_t before = match->move_count;
    struct meta_move *moves = match->moves;
    size_t kept = before, next;
    int64_t bytes = 0;
    ranges_clip(work, begin, end, match);
    for (size_t first = before; first < match->move_count; first = next) {
        int64_t run = moves[first].length;
        for (next = first + 1; next < match->move_count &&
                               moves[next - 1].offset + moves[next - 1].length == moves[next].offset;
             next++)
            run += moves[next].length;
        if (run < MATCH_LENGTH_MIN)
            continue;
        memmove(&moves[kept], &moves[first], (next - first) * sizeof *moves);
        kept += next - first;
        bytes += run;
    }
    match->move_count = match_pays(object->size, bytes) ? kept : before;
    return match->move_count > before ? ids_append(&match->objects, object->object) : 0;
}

/* What equals one object, [first, last) of what was found. */
static errint ranges_share(struct ranges_work *work, size_t first, size_t last)
{
    const struct ranges_object *to = ranges_object_of(work, work->found[first].to);
    cleanup_match struct match match = {.moves = calloc(last - first, sizeof *match.moves)};
    errint error = match.moves ? fault_hit("fs.share.ranges") : -ENOMEM;
    for (size_t next; first < last && !error; first = next) {
        for (next = first; next < last && work->found[next].object == work->found[first].object;)
            next++;
        error = ranges_add_moves(work, first, next, &match);
    }
    if (error || match.move_count == 0)
        return error;
    int durable = meta_object_is_shared_out(work->fs->meta, to->object);
    if (durable <= 0)
        return durable < 0 ? durable : -EAGAIN;
    return share_out_compared(work->fs, to->object, to->root, work->request->uid, &match, work->stops);
}

static errint ranges_share_all(struct ranges_work *work)
{
    errint later = 0;
    ranges_sort(work);
    for (size_t first = 0, next; first < work->found_count; first = next) {
        for (next = first; next < work->found_count && work->found[next].to == work->found[first].to;)
            next++;
        errint error = ranges_share(work, first, next);
        if (error && error != -EBUSY && error != -EAGAIN)
            return error;
        later = error ? error : later;
    }
    return later;
}

errint share_ranges(struct filesystem *fs, const struct share_ranges *request,
                    bool (*stops)(struct filesystem *fs))
{
    cleanup_ranges struct ranges_work work = {.fs = fs, .request = request, .stops = stops};
    work.pieces = calloc(request->piece_count + 1, sizeof *work.pieces);
    for (size_t i = 0; i < 2; i++)
        work.buffers[i] = malloc(RANGES_BUFFER);
    if (!work.pieces || !work.buffers[0] || !work.buffers[1])
        return -ENOMEM;
    errint error = ranges_load(&work, &work.whole, request->whole);
    int likely = error ? error : ranges_are_likely(&work);
    if (likely < 0)
        return likely;
    for (size_t i = 0; likely && i < request->range_count && !error; i++)
        error = ranges_compare_range(&work, &request->ranges[i]);
    if (!error)
        error = ranges_share_all(&work);
    return error ? error : work.early ? -EAGAIN : 0;
}
