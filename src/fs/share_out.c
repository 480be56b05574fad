/* SPDX-License-Identifier: Apache-2.0 */
/* Re-pointing files whose bytes another object has too. */
#include "fs/share_out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "ckpt/match.h"
#include "fs/content.h"
#include "fs/discard.h"
#include "fs/filesystem.h"
#include "fs/share_compare.h"
#include "meta/damage.h"

/* From so many files on, an older object stays and the new one gives way. */
enum { SHARE_ELDER_FILES = 64 };

static bool share_may_touch(struct node *node)
{
    return node->kind == META_EXTENTS && node->mode != NODE_PASSTHROUGH && node->writers == 0 &&
           !node->overlay && !content_is_mapped(node);
}

/* One older file. -EBUSY: not now. */
static errint share_repoint(struct filesystem *fs, uint64_t ino, uint64_t to, const uint8_t *to_root,
                            const struct match *match)
{
    cleanup_ids struct ids freed = {0};
    struct meta_inode row;
    bool changed = false;
    struct node *node = node_get(fs, ino);
    if (!node)
        return -ENOMEM;
    node_lock(node);
    errint error = node_load(fs, node);
    if (!error && !share_may_touch(node))
        error = -EBUSY;
    if (!error)
        error = fault_hit("fs.share");
    if (!error)
        error = meta_repoint(fs->meta, ino, to, to_root, match->moves, match->move_count, &changed, &freed);
    /* The bytes are the same: what the kernel has cached of the file stays right. */
    if (!error && changed)
        error = meta_get(fs->meta, ino, &row);
    if (!error && changed)
        error = node_adopt_row(fs, node, &row);
    node_unlock(node);
    node_put(fs, node);
    discard_objects(fs, &freed);
    return error == -ENOENT ? 0 : error;
}

static errint share_find_files(struct filesystem *fs, const struct match *match, uint32_t uid,
                               struct ids *out)
{
    errint error = 0;
    for (size_t i = 0; !error && i < match->objects.count; i++)
        error = meta_find_users_of(fs->meta, match->objects.at[i], uid, out);
    return error;
}

/* 1 when the move is all of an older, durable, undamaged object and of the new one, and enough files have the
 * older one; 0 or an error. */
static int share_is_elder(struct filesystem *fs, const struct meta_move *move, int64_t new_size, uint32_t uid)
{
    cleanup_ids struct ids files = {0};
    int64_t size;
    if (move->offset != 0 || move->to_offset != 0 || move->length != new_size)
        return 0;
    errint error = meta_object_size(fs->meta, move->object, &size);
    if (error || size != new_size)
        return error == -ENOENT ? 0 : error;
    /* The new object is on stable storage, and may go for it: so must the older one be. */
    int durable = meta_object_is_shared_out(fs->meta, move->object);
    if (durable <= 0)
        return durable;
    int damaged = meta_object_damaged(fs->meta, move->object);
    if (damaged)
        return damaged < 0 ? damaged : 0;
    error = meta_find_users_of(fs->meta, move->object, uid, &files);
    return error ? error : files.count >= SHARE_ELDER_FILES;
}

/*
 * The older object that equals all of the new one and is so many files that they shall not all give way to
 * it; NULL: there is none. Each save of a file that all checkpoints have would change the rows of all of
 * them.
 */
static errint share_find_elder(struct filesystem *fs, const struct match *match, const struct sums *sums,
                               uint32_t uid, const struct meta_move **out)
{
    *out = NULL;
    for (size_t i = 0; i < match->move_count; i++) {
        int found = share_is_elder(fs, &match->moves[i], sums->size, uid);
        if (found < 0)
            return found;
        if (found) {
            *out = &match->moves[i];
            return 0;
        }
    }
    return 0;
}

/* What gives way to which object. */
struct share_turn {
    uint64_t to;
    const uint8_t *root;
    const struct match *match;
    struct ids files;
    uint64_t keep; /* of the files, one that does not */
};

static errint share_turn_all(struct filesystem *fs, const struct share_turn *turn,
                             bool (*stops)(struct filesystem *fs))
{
    bool busy = false;
    errint error = 0;
    uint64_t last = 0;
    for (size_t i = 0; !error && i < turn->files.count && !stops(fs); i++) {
        if (turn->files.at[i] == last || turn->files.at[i] == turn->keep)
            continue;
        last = turn->files.at[i];
        error = share_repoint(fs, last, turn->to, turn->root, turn->match);
        busy |= error == -EBUSY;
        error = error == -EBUSY ? 0 : error;
    }
    return error ? error : busy ? -EBUSY : 0;
}

/* -- which side gives way ---------------------------------------------------------------------------------
 */

/* A match by what becomes of the other objects. `moves` and `objects` only, as in a match. */
struct share_sides {
    struct match older; /* give way to the object */
    struct match newer; /* the object gives way to them */
};

static void share_sides_release(struct share_sides *sides)
{
    match_release(&sides->older);
    match_release(&sides->newer);
}

#define cleanup_sides __attribute__((cleanup(share_sides_release)))

/*
 * 1 when the other object stays whole: it is newer, and came first only because this one had to wait, for the
 * disk or for a reader. One that has given way itself already gives way again. 0 or an error.
 */
static int share_keeps(struct filesystem *fs, uint64_t object, uint64_t other)
{
    if (other < object)
        return 0;
    uint64_t whole;
    errint error = meta_find_whole(fs->meta, other, &whole);
    if (error || !whole)
        return error;
    int damaged = meta_object_damaged(fs->meta, other);
    return damaged < 0 ? damaged : !damaged;
}

static errint share_divide(struct filesystem *fs, uint64_t object, const struct match *match,
                           struct share_sides *sides)
{
    if (match->move_count == 0)
        return 0;
    sides->older.moves = calloc(match->move_count, sizeof *match->moves);
    sides->newer.moves = calloc(match->move_count, sizeof *match->moves);
    if (!sides->older.moves || !sides->newer.moves)
        return -ENOMEM;
    errint error = 0;
    for (size_t i = 0, next = 0; !error && i < match->objects.count; i++) {
        uint64_t other = match->objects.at[i];
        int keeps = share_keeps(fs, object, other);
        if (keeps < 0)
            return keeps;
        struct match *side = keeps ? &sides->newer : &sides->older;
        error = ids_append(&side->objects, other);
        for (; next < match->move_count && match->moves[next].object == other; next++)
            side->moves[side->move_count++] = match->moves[next];
    }
    return error;
}

static int share_compare_moves(const void *a, const void *b)
{
    const struct meta_move *left = a, *right = b;
    return (left->offset > right->offset) - (left->offset < right->offset);
}

/* The moves from `other` to the object, the other way round: sorted by the object's ranges, each byte once.
 */
static errint share_reverse(const struct match *match, uint64_t other, uint64_t object, const uint8_t *root,
                            struct match *out)
{
    out->moves = calloc(match->move_count, sizeof *out->moves);
    if (!out->moves)
        return -ENOMEM;
    size_t count = 0;
    for (size_t i = 0; i < match->move_count; i++) {
        const struct meta_move *move = &match->moves[i];
        if (move->object == other)
            out->moves[count++] =
                (struct meta_move){object, move->to_offset, move->length, move->offset, root};
    }
    qsort(out->moves, count, sizeof *out->moves, share_compare_moves);
    int64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        struct meta_move move = out->moves[i];
        int64_t again = end > move.offset ? end - move.offset : 0;
        if (again >= move.length)
            continue;
        move.offset += again;
        move.to_offset += again;
        move.length -= again;
        end = move.offset + move.length;
        out->moves[out->move_count++] = move;
    }
    return 0;
}

/* All files that have something of the object give way to one newer object. */
static errint share_yield_to(struct filesystem *fs, const struct match_request *request,
                             const struct match *newer, uint64_t to, const uint8_t *root,
                             bool (*stops)(struct filesystem *fs))
{
    cleanup_match struct match back = {0};
    struct share_turn turn = {.to = to, .match = &back};
    for (size_t i = 0; i < newer->move_count; i++) {
        if (newer->moves[i].object == to)
            turn.root = newer->moves[i].root;
    }
    errint error = share_reverse(newer, to, request->object, root, &back);
    if (!error)
        error = meta_find_users_of(fs->meta, request->object, request->uid, &turn.files);
    if (!error)
        error = share_turn_all(fs, &turn, stops);
    ids_release(&turn.files);
    return error;
}

/* Equal to all of an older object that stays, the new object's files are re-pointed there. */
static errint share_yield_to_elder(struct filesystem *fs, const struct match_request *request,
                                   const struct meta_move *elder, const uint8_t *root,
                                   bool (*stops)(struct filesystem *fs))
{
    struct meta_move back = {.object = request->object, .length = request->sums->size, .root = root};
    const struct match backwards = {.moves = &back, .move_count = 1};
    struct share_turn turn = {.to = elder->object, .root = elder->root, .match = &backwards};
    errint error = meta_find_users_of(fs->meta, request->object, request->uid, &turn.files);
    if (!error)
        error = share_turn_all(fs, &turn, stops);
    ids_release(&turn.files);
    return error;
}

/*
 * Older files give way to the object, then the object to newer ones, the newest first. Only a whole object
 * takes others in, so that what the older files have in common with this one alone comes first.
 */
static errint share_turn(struct filesystem *fs, const struct match_request *request,
                         const struct match *match, const uint8_t *root, bool (*stops)(struct filesystem *fs))
{
    cleanup_sides struct share_sides sides = {0};
    const struct meta_move *elder;
    errint error = share_find_elder(fs, match, request->sums, request->uid, &elder);
    if (!error && elder)
        return share_yield_to_elder(fs, request, elder, root, stops);
    if (!error)
        error = share_divide(fs, request->object, match, &sides);
    struct share_turn turn = {
        .to = request->object, .root = root, .match = &sides.older, .keep = request->ino};
    if (!error)
        error = share_find_files(fs, &sides.older, request->uid, &turn.files);
    if (!error)
        error = share_turn_all(fs, &turn, stops);
    ids_release(&turn.files);
    for (size_t i = sides.newer.objects.count; !error && i-- > 0 && !stops(fs);)
        error = share_yield_to(fs, request, &sides.newer, sides.newer.objects.at[i], root, stops);
    return error;
}

/* The table of a hashed object. One that is lost or wrong is made anew by the next visit: -EBUSY. */
static errint share_load(struct filesystem *fs, uint64_t object, struct sums *sums,
                         uint8_t root[META_ROOT_BYTES])
{
    uint8_t found[META_ROOT_BYTES];
    errint error = meta_object_root(fs->meta, object, root);
    if (error)
        return error;
    error = sums_read(fs->store, object, sums);
    if (!error) {
        hash_to_bytes(sums->root, found);
        error = memcmp(root, found, sizeof found) == 0 ? 0 : -EUCLEAN;
    }
    if (error != -ENOENT && error != -EUCLEAN)
        return error;
    error = meta_object_unsummed(fs->meta, object);
    return error ? error : -EBUSY;
}

errint share_out(struct filesystem *fs, uint64_t ino, uint32_t uid, uint64_t object,
                 bool (*stops)(struct filesystem *fs))
{
    cleanup_sums struct sums sums = {0};
    cleanup_match struct match match = {0};
    uint8_t root[META_ROOT_BYTES];
    errint error = share_load(fs, object, &sums, root);
    if (error)
        return error;
    const struct match_request request = {
        .store = fs->store,
        .meta = fs->meta,
        .object = object,
        .sums = &sums,
        .ino = ino,
        .uid = uid,
    };
    error = match_find(&request, &match);
    if (!error && fs->options->verify_on_share)
        error = share_compare(fs, object, &match);
    if (!error)
        error = share_turn(fs, &request, &match, root, stops);
    discard_kick(fs);
    if (error)
        return error;
    return stops(fs) ? -ECANCELED : meta_object_shared_out(fs->meta, object);
}
