/* SPDX-License-Identifier: Apache-2.0 */
/* Re-pointing files whose bytes another object has too. */
#include "fs/share_out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "ckpt/match.h"
#include "fs/content.h"
#include "fs/discard.h"
#include "fs/filesystem.h"
#include "fs/share.h"
#include "fs/share_compare.h"
#include "meta/damage.h"

/* From so many files on, an older object stays and the new one gives way. */
enum { SHARE_ELDER_FILES = 64 };

/*
 * Shards of more ranks than this give way to the whole model though it is older: for each object that it gave
 * way to, all rows of its extents would be written anew.
 */
enum { SHARE_NEWER_OBJECTS = 64 };

/* One older file. -EBUSY: not now. */
static errint share_repoint(struct filesystem *fs, uint64_t ino, uint64_t to, const uint8_t *to_root,
                            const struct match *match)
{
    cleanup_ids struct ids freed = {0};
    struct meta_inode row;
    int64_t moved = 0;
    struct node *node = node_get(fs, ino);
    if (!node)
        return -ENOMEM;
    node_lock(node);
    errint error = node_load(fs, node);
    if (!error && !content_may_repoint(node))
        error = -EBUSY;
    if (!error)
        error = fault_hit("fs.share");
    if (!error)
        error = meta_repoint(fs->meta, ino, to, to_root, match->moves, match->move_count, &moved, &freed);
    /* The bytes are the same: what the kernel has cached of the file stays right. */
    if (!error && moved > 0) {
        atomic_fetch_add(&fs->counters.shared_bytes, (uint64_t)moved);
        error = meta_get(fs->meta, ino, &row);
        if (!error)
            error = node_adopt_row(fs, node, &row);
    }
    node_unlock(node);
    node_put(fs, node);
    discard_objects(fs, &freed);
    return error == -ENOENT ? 0 : error;
}

/* What a new object is shared with. */
struct share_plan {
    const struct match_request *request;
    const struct match *match;
    const uint8_t *root;        /* of the new object */
    const struct ids *compared; /* older objects whose bytes were compared, not only their hashes */
    bool partial;               /* no file is all of the object any more: none can give way to it */
    bool many;                  /* it takes the newer ones in, too */
};

/* Whose files may give way where the older object has a part in it: what was not compared stays one owner's.
 */
static uint32_t share_whose(struct filesystem *fs, const struct share_plan *plan, uint64_t older)
{
    bool anyone = fs->options->share_owners && ids_contain(plan->compared, older);
    return anyone ? META_ANYONE : plan->request->uid;
}

static errint share_find_files(struct filesystem *fs, const struct share_plan *plan,
                               const struct ids *objects, struct ids *out)
{
    errint error = 0;
    for (size_t i = 0; !error && i < objects->count; i++)
        error = meta_find_users_of(fs->meta, objects->at[i], share_whose(fs, plan, objects->at[i]), out);
    return error;
}

/* 1 when the move is all of an older, durable, undamaged object and of the new one, and at least so many
 * files have the older one; 0 or an error. */
static int share_is_elder(struct filesystem *fs, const struct share_plan *plan, const struct meta_move *move,
                          size_t files_min)
{
    cleanup_ids struct ids files = {0};
    const int64_t new_size = plan->request->sums->size;
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
    error = meta_find_users_of(fs->meta, move->object, share_whose(fs, plan, move->object), &files);
    return error ? error : files.count >= files_min;
}

/*
 * The older object that equals all of the new one and is so many files that they shall not all give way to
 * it; NULL: there is none. Each save of a file that all checkpoints have would change the rows of all of
 * them.
 */
static errint share_find_elder(struct filesystem *fs, const struct share_plan *plan,
                               const struct meta_move **out)
{
    const struct match *match = plan->match;
    *out = NULL;
    for (size_t i = 0; i < match->move_count; i++) {
        int found = share_is_elder(fs, plan, &match->moves[i], SHARE_ELDER_FILES);
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
 * disk or for a reader; or this one is `partial` and can take nothing in. One that has given way itself
 * already gives way again. 0 or an error.
 */
static int share_keeps(struct filesystem *fs, const struct share_plan *plan, uint64_t other)
{
    if ((other < plan->request->object && !plan->partial) || plan->many)
        return 0;
    uint64_t whole;
    errint error = meta_find_whole(fs->meta, other, &whole);
    if (error || !whole)
        return error;
    /* This object's bytes are on stable storage, and may go for it: so must those be. */
    int durable = meta_object_is_shared_out(fs->meta, other);
    if (durable <= 0)
        return durable;
    int damaged = meta_object_damaged(fs->meta, other);
    return damaged < 0 ? damaged : !damaged;
}

static errint share_divide(struct filesystem *fs, const struct share_plan *plan, struct share_sides *sides)
{
    const struct match *match = plan->match;
    if (match->move_count == 0)
        return 0;
    sides->older.moves = calloc(match->move_count, sizeof *match->moves);
    sides->newer.moves = calloc(match->move_count, sizeof *match->moves);
    if (!sides->older.moves || !sides->newer.moves)
        return -ENOMEM;
    errint error = 0;
    for (size_t i = 0, next = 0; !error && i < match->objects.count; i++) {
        uint64_t other = match->objects.at[i];
        int keeps = share_keeps(fs, plan, other);
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

/* The moves from `other` to the object, the other way round: sorted by the object's ranges, each byte once;
 * none that is too short. */
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
        if (move.length >= MATCH_LENGTH_MIN)
            out->moves[out->move_count++] = move;
    }
    return 0;
}

/* All files that have something of the object give way to one newer object. */
static errint share_yield_to(struct filesystem *fs, const struct share_plan *plan, const struct match *newer,
                             uint64_t to, bool (*stops)(struct filesystem *fs))
{
    const uint64_t object = plan->request->object;
    cleanup_match struct match back = {0};
    struct share_turn turn = {.to = to, .match = &back};
    for (size_t i = 0; i < newer->move_count; i++) {
        if (newer->moves[i].object == to)
            turn.root = newer->moves[i].root;
    }
    errint error = share_reverse(newer, to, object, plan->root, &back);
    if (!error)
        error = meta_find_users_of(fs->meta, object, share_whose(fs, plan, to), &turn.files);
    if (!error)
        error = share_turn_all(fs, &turn, stops);
    ids_release(&turn.files);
    return error;
}

/* Equal to all of an older object that stays, the new object's files are re-pointed there. */
static errint share_yield_to_elder(struct filesystem *fs, const struct share_plan *plan,
                                   const struct meta_move *elder, bool (*stops)(struct filesystem *fs))
{
    const uint64_t object = plan->request->object;
    struct meta_move back = {.object = object, .length = plan->request->sums->size, .root = plan->root};
    const struct match backwards = {.moves = &back, .move_count = 1};
    struct share_turn turn = {.to = elder->object, .root = elder->root, .match = &backwards};
    errint error = meta_find_users_of(fs->meta, object, share_whose(fs, plan, elder->object), &turn.files);
    if (!error)
        error = share_turn_all(fs, &turn, stops);
    ids_release(&turn.files);
    return error;
}

/*
 * Older files give way to the object, then the object to newer ones, the newest first. Only a whole object
 * takes others in, so that what the older files have in common with this one alone comes first.
 */
static errint share_turn_sides(struct filesystem *fs, const struct share_plan *plan,
                               bool (*stops)(struct filesystem *fs))
{
    cleanup_sides struct share_sides sides = {0};
    const struct match_request *request = plan->request;
    errint error = share_divide(fs, plan, &sides);
    struct share_turn turn = {
        .to = request->object, .root = plan->root, .match = &sides.older, .keep = request->ino};
    if (!error && !plan->partial)
        error = share_find_files(fs, plan, &sides.older.objects, &turn.files);
    if (!error)
        error = share_turn_all(fs, &turn, stops);
    ids_release(&turn.files);
    for (size_t i = sides.newer.objects.count; !error && i-- > 0 && !stops(fs);)
        error = share_yield_to(fs, plan, &sides.newer, sides.newer.objects.at[i], stops);
    return error;
}

static errint share_turn(struct filesystem *fs, const struct share_plan *plan,
                         bool (*stops)(struct filesystem *fs))
{
    const struct meta_move *elder;
    errint error = share_find_elder(fs, plan, &elder);
    if (!error && elder)
        return share_yield_to_elder(fs, plan, elder, stops);
    return error ? error : share_turn_sides(fs, plan, stops);
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
    log_warning("object %016llx: its table of hashes is %s: it is made anew of the bytes that are there now",
                (unsigned long long)object, error == -ENOENT ? "missing" : "not the one it had");
    error = meta_object_unsummed(fs->meta, object);
    return error ? error : -EBUSY;
}

/* Of which older objects the bytes are to be compared: of all, or of those that other owners' files have. */
static errint share_find_compared(struct filesystem *fs, const struct match *match, uint32_t uid,
                                  struct ids *out)
{
    const struct fs_options *options = fs->options;
    for (size_t i = 0; i < match->objects.count; i++) {
        uint64_t object = match->objects.at[i];
        int others = !options->verify_on_share && options->share_owners
                         ? meta_object_has_others(fs->meta, object, uid)
                         : options->verify_on_share;
        errint error = others > 0 ? ids_append(out, object) : others;
        if (error)
            return error;
    }
    return 0;
}

static bool share_has_equal(const struct match *match, int64_t size)
{
    for (size_t i = 0; i < match->move_count; i++) {
        const struct meta_move *move = &match->moves[i];
        if (move->offset == 0 && move->to_offset == 0 && move->length == size)
            return true;
    }
    return false;
}

/* 1: the new file gave way to this older object; 0: that is none to give way to. */
static int share_give_way(struct filesystem *fs, const struct match_request *request, const uint8_t *root,
                          uint64_t elder, bool (*stops)(struct filesystem *fs))
{
    cleanup_ids struct ids objects = {0}, compared = {0};
    const int64_t size = request->sums->size;
    /* The same bytes, hence the same root. */
    struct meta_move move = {.object = elder, .length = size, .root = root};
    struct meta_move back = {.object = request->object, .length = size, .root = root};
    const struct match backwards = {.moves = &back, .move_count = 1};
    errint error = ids_append(&objects, elder);
    struct match match = {.moves = &move, .move_count = 1, .objects = objects};
    const struct share_plan plan = {.request = request, .match = &match, .root = root, .compared = &compared};
    if (!error)
        error = share_find_compared(fs, &match, request->uid, &compared);
    int usable = error ? error : share_is_elder(fs, &plan, &move, 1);
    if (usable > 0 && compared.count)
        error = share_compare(fs, request->object, &compared, &match, stops);
    if (error || usable <= 0 || match.move_count == 0)
        return error ? error : usable < 0 ? usable : 0;
    error = share_repoint(fs, request->ino, elder, root, &backwards);
    return error ? error : 1;
}

int share_forward(struct filesystem *fs, uint64_t ino, uint32_t uid, uint64_t object,
                  bool (*stops)(struct filesystem *fs))
{
    cleanup_sums struct sums sums = {0};
    cleanup_free struct meta_range *ranges = NULL;
    uint8_t root[META_ROOT_BYTES];
    size_t count = 0;
    errint error = share_load(fs, object, &sums, root);
    if (error || sums.size < MATCH_LENGTH_MIN)
        return error;
    const struct meta_segment whole = {0, sums.size, sums.root.low, sums.root.high};
    const struct match_request request = {
        .store = fs->store, .meta = fs->meta, .object = object, .sums = &sums, .ino = ino, .uid = uid};
    int done = meta_find_segment(fs->meta, &whole, uid, object, &ranges, &count);
    for (size_t i = 0; done == 0 && i < count; i++) {
        if (ranges[i].offset == 0)
            done = share_give_way(fs, &request, root, ranges[i].object, stops);
        if (done > 0)
            share_expect(fs, uid, sums.size, ranges[i].object);
    }
    return done;
}

errint share_out(struct filesystem *fs, uint64_t ino, uint32_t uid, uint64_t object,
                 bool (*stops)(struct filesystem *fs))
{
    cleanup_sums struct sums sums = {0};
    cleanup_match struct match match = {0};
    cleanup_ids struct ids compared = {0};
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
        .anyone = fs->options->share_owners,
    };
    const struct share_plan plan = {
        .request = &request, .match = &match, .root = root, .compared = &compared};
    error = match_find(&request, &match);
    if (!error && share_has_equal(&match, sums.size))
        share_expect(fs, uid, sums.size, object);
    if (!error)
        error = share_find_compared(fs, &match, uid, &compared);
    if (!error && compared.count)
        error = share_compare(fs, object, &compared, &match, stops);
    if (!error)
        error = share_turn(fs, &plan, stops);
    discard_kick(fs);
    if (error)
        return error;
    return stops(fs) ? -ECANCELED : meta_object_shared_out(fs->meta, object);
}

errint share_out_compared(struct filesystem *fs, uint64_t object, const uint8_t *root, uint32_t uid,
                          const struct match *match, bool (*stops)(struct filesystem *fs))
{
    uint64_t whole;
    errint error = meta_find_whole(fs->meta, object, &whole);
    const struct match_request request = {
        .store = fs->store, .meta = fs->meta, .object = object, .ino = whole, .uid = uid};
    const struct share_plan plan = {.request = &request,
                                    .match = match,
                                    .root = root,
                                    .compared = &match->objects,
                                    .partial = whole == 0,
                                    .many = whole && match->objects.count > SHARE_NEWER_OBJECTS};
    if (!error)
        error = share_turn_sides(fs, &plan, stops);
    discard_kick(fs);
    return error ? error : stops(fs) ? -ECANCELED : 0;
}
