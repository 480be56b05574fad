/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing bytes before they are shared. */
#include "fs/share_compare.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/transfer.h"
#include "ckpt/match.h"
#include "fs/filesystem.h"

enum { SHARE_COMPARE_BUFFER = 1 << 20 };

/* Both sides of what is compared. */
struct share_pair {
    struct filesystem *fs;
    bool (*stops)(struct filesystem *fs);
    struct backing *older, *newer;
    char *one, *other; /* SHARE_COMPARE_BUFFER bytes each */
};

/* 1: the same bytes, 0: other ones, or a negative errno. */
static int share_compare_range(const struct share_pair *pair, int64_t offset, int64_t to_offset,
                               int64_t length)
{
    for (int64_t done = 0; done < length;) {
        int64_t left = length - done;
        size_t part = left < SHARE_COMPARE_BUFFER ? (size_t)left : SHARE_COMPARE_BUFFER;
        errint error = pair->stops(pair->fs) ? -ECANCELED : 0;
        if (!error)
            error = transfer_read(pair->older->fd, pair->one, part, offset + done);
        if (!error)
            error = transfer_read(pair->newer->fd, pair->other, part, to_offset + done);
        if (error)
            return error;
        if (memcmp(pair->one, pair->other, part) != 0)
            return 0;
        done += (int64_t)part;
    }
    return 1;
}

/* What is dead may be punched already: only live ranges are compared. */
static int share_compare_move(const struct share_pair *pair, const struct meta_move *move,
                              const struct meta_range *live, size_t live_count)
{
    int same = 1;
    for (size_t i = 0; i < live_count && same == 1; i++) {
        int64_t from = live[i].offset > move->offset ? live[i].offset : move->offset;
        int64_t live_end = live[i].offset + live[i].length, move_end = move->offset + move->length;
        int64_t end = live_end < move_end ? live_end : move_end;
        if (from < end)
            same = share_compare_range(pair, from, move->to_offset + (from - move->offset), end - from);
    }
    return same;
}

static void share_compare_report(uint64_t object, const struct meta_move *move, int same)
{
    if (same < 0)
        log_warning("object %016" PRIx64 ": bytes %" PRId64 " to %" PRId64 " cannot be compared and stay: %s",
                    move->object, move->offset, move->offset + move->length, strerror(-same));
    else
        log_error("object %016" PRIx64 ": bytes %" PRId64 " to %" PRId64
                  " have the hash of object %016" PRIx64 " from %" PRId64
                  " on and are not the same: one is damaged, or the hashes collide; both stay",
                  move->object, move->offset, move->offset + move->length, object, move->to_offset);
}

/* The moves of one older object, from `first` on: those that are kept move to `*kept`. */
static errint share_compare_object(uint64_t object, struct share_pair *pair, struct match *match,
                                   size_t first, size_t *kept)
{
    struct filesystem *fs = pair->fs;
    cleanup_free struct meta_range *live = NULL;
    size_t live_count;
    const uint64_t older = match->moves[first].object;
    errint error = meta_live_ranges(fs->meta, older, &live, &live_count);
    if (!error)
        error = backing_get(&fs->backings, older, &pair->older);
    /* It is gone: there is nothing of it to re-point. */
    if (error)
        return error == -ENOENT ? 0 : error;
    for (size_t i = first; !error && i < match->move_count && match->moves[i].object == older; i++) {
        int same = share_compare_move(pair, &match->moves[i], live, live_count);
        if (same == 1)
            match->moves[(*kept)++] = match->moves[i];
        else if (same == -ECANCELED)
            error = same;
        else
            share_compare_report(object, &match->moves[i], same);
    }
    backing_put(&fs->backings, pair->older);
    return error;
}

errint share_compare(struct filesystem *fs, uint64_t object, const struct ids *which, struct match *match,
                     bool (*stops)(struct filesystem *fs))
{
    cleanup_free char *one = malloc(SHARE_COMPARE_BUFFER);
    cleanup_free char *other = malloc(SHARE_COMPARE_BUFFER);
    struct share_pair pair = {.fs = fs, .stops = stops, .one = one, .other = other};
    if (!one || !other)
        return -ENOMEM;
    errint error = backing_get(&fs->backings, object, &pair.newer);
    if (error)
        return error;
    size_t kept = 0, next;
    for (size_t first = 0; !error && first < match->move_count; first = next) {
        /* Kept moves are written behind what was read: the object's number must be known before. */
        for (next = first;
             next < match->move_count && match->moves[next].object == match->moves[first].object;)
            next++;
        if (ids_contain(which, match->moves[first].object))
            error = share_compare_object(object, &pair, match, first, &kept);
        else
            for (size_t i = first; i < next; i++)
                match->moves[kept++] = match->moves[i];
    }
    match->move_count = kept;
    backing_put(&fs->backings, pair.newer);
    return error;
}
