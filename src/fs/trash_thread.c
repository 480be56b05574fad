/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up what is in the trash. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "fs/discard.h"
#include "fs/keep_room.h"
#include "fs/policy.h"
#include "fs/rewrite.h"
#include "fs/torn_expire.h"
#include "fs/trash_internal.h"
#include "meta/hidden.h"
#include "meta/usage.h"
#include "store/object.h"

enum {
    TRASH_BATCH = 256,     /* names that are given up in one transaction */
    TRASH_RECOUNTED = 256, /* entries, at most, that are all counted anew whenever something is changed */
    TRASH_DISK_PART = 32,  /* of the disk is kept free in any case */
};

/* A removal is counted when it is over: the names of one come close together. */
#define TRASH_GATHER_NS (CLOCK_NS_PER_SECOND / 4)
/* So often the disk, and the time, are looked at while there is something to give up; and where too little is
 * free. In between only the disk is, since what is written by passthrough cannot wait (room_pace). */
#define TRASH_LOOK_NS  CLOCK_NS_PER_SECOND
#define TRASH_WATCH_NS (CLOCK_NS_PER_SECOND / 10)
/* Whatever has changed the policies that hold for an entry, it is seen after so long. */
#define TRASH_REVIEW_NS (60 * CLOCK_NS_PER_SECOND)
/* When policies have nothing to give up, they are asked again after so long, unless somebody waits. */
#define TRASH_POLICIES_NS (5 * CLOCK_NS_PER_SECOND)

/* The rows, as of the round. */
struct trash_round {
    struct filesystem *fs;
    struct meta_trash *rows;
    size_t count;
    size_t given; /* entries that were given up */
};

static bool trash_stops(struct filesystem *fs)
{
    thread_lock(&fs->trash->thread);
    bool stops = thread_is_stopping(&fs->trash->thread);
    thread_unlock(&fs->trash->thread);
    return stops;
}

/* -- giving up --------------------------------------------------------------------------------------------
 */

static void trash_log(struct filesystem *fs, const struct meta_trash *row, const char *why)
{
    cleanup_free char *path = NULL;
    if (meta_trash_path(fs->meta, row, &path) == 0)
        log_info("%s: removed from the trash: %s", path, why);
}

static void trash_give_up(struct trash_round *round, struct meta_trash *row, const char *why)
{
    struct filesystem *fs = round->fs;
    int more = fault_hit("fs.trash");
    if (row->kind != META_TRASH_GOING)
        trash_log(fs, row, why);
    do {
        cleanup_ids struct ids released = {0};
        if (more >= 0)
            more = meta_trash_give_up(fs->meta, row->ino, TRASH_BATCH, clock_file_time(), &released);
        node_reap_all(fs, &released);
    } while (more > 0 && !trash_stops(fs));
    if (more < 0)
        log_warning("trash %llu: it cannot be given up now: %s", (unsigned long long)row->ino,
                    strerror(-more));
    round->given += more == 0;
    row->kind = META_TRASH_ABOVE; /* nothing more is done with it in this round */
}

static bool trash_is_entry(const struct meta_trash *row)
{
    return row->kind == META_TRASH_CLOSED || row->kind == META_TRASH_OPEN;
}

/* Why it goes, by the policy of the directory that it was in; NULL: it stays, until `*end` at the latest. */
static const char *trash_find_end(struct filesystem *fs, const struct meta_trash *row, int64_t now,
                                  int64_t *end)
{
    bool keeps;
    int64_t age;
    uint64_t above;
    *end = INT64_MAX;
    if (meta_trash_find_above(fs->meta, row, &above) != 0 || policy_trash(fs, above, &keeps, &age) != 0)
        return NULL;
    *end = row->removed + age;
    return !keeps ? "the trash is off" : now >= *end ? "its time is up" : NULL;
}

static void trash_give_up_expired(struct trash_round *round)
{
    struct filesystem *fs = round->fs;
    int64_t now = clock_wall(), due = now + TRASH_REVIEW_NS;
    for (size_t i = 0; i < round->count && !trash_stops(fs); i++) {
        int64_t end = INT64_MAX;
        struct meta_trash *row = &round->rows[i];
        const char *why = trash_is_entry(row) ? trash_find_end(fs, row, now, &end) : NULL;
        if (why || row->kind == META_TRASH_GOING)
            trash_give_up(round, row, why);
        else if (end < due)
            due = end;
    }
    round->given += torn_expire(fs, now, &due);
    fs->trash->due = due;
}

/* What was torn, then the oldest entries, until there is room: at least one of them, if somebody waits. */
static void trash_give_up_for_room(struct trash_round *round, bool asked)
{
    struct filesystem *fs = round->fs;
    while (!trash_stops(fs) && (asked || room_free(fs) < trash_kept(fs)) && torn_give_up_first(fs)) {
        round->given++;
        discard_flush(fs);
        asked = false;
    }
    for (size_t i = 0; i < round->count && !trash_stops(fs); i++) {
        if (!trash_is_entry(&round->rows[i]))
            continue;
        if (!asked && room_free(fs) >= trash_kept(fs))
            return;
        trash_give_up(round, &round->rows[i], "the space is needed");
        discard_flush(fs);
        asked = false;
    }
}

static errint trash_read(struct trash_round *round)
{
    free(round->rows);
    errint error = meta_trash_read(round->fs->meta, &round->rows, &round->count);
    if (error)
        log_warning("the trash cannot be read now: %s", strerror(-error));
    return error;
}

/* What policies give up goes for good, by way of the trash where they have one. */
static bool trash_give_up_by_policy(struct trash_round *round)
{
    size_t before = round->given;
    if (!keep_room_make(round->fs, trash_stops) || trash_read(round) != 0)
        return false;
    trash_give_up_for_room(round, true);
    /* One that did not come into the trash is gone, too. */
    round->given += round->given == before;
    discard_flush(round->fs);
    return true;
}

static void trash_ask_policies(struct trash_round *round, bool asked)
{
    struct filesystem *fs = round->fs;
    struct trash *trash = fs->trash;
    bool gives = true;
    if (!asked && clock_monotonic() < trash->policies_at)
        return;
    while (gives && !trash_stops(fs) && (asked || room_free(fs) < room_kept(fs, 0))) {
        gives = trash_give_up_by_policy(round);
        asked = false;
    }
    /* To look at all runs is much, and they change when a save ends. */
    if (!gives)
        trash->policies_at = clock_monotonic() + TRASH_POLICIES_NS;
}

/* -- counting ---------------------------------------------------------------------------------------------
 */

struct trash_counting {
    struct filesystem *fs;
    int64_t disk; /* bytes that the disk has for the objects */
};

static bool trash_count_stops(void *context)
{
    const struct trash_counting *counting = context;
    return trash_stops(counting->fs);
}

static void trash_count_object(void *context, uint64_t object)
{
    struct trash_counting *counting = context;
    int64_t bytes = object_file_stored_bytes(counting->fs->store, object);
    counting->disk += bytes > 0 ? bytes : 0;
}

static errint trash_count(struct filesystem *fs, uint64_t ino, struct trash_size *out)
{
    struct meta_usage usage;
    struct trash_counting counting = {.fs = fs};
    const struct meta_usage_request request = {.ino = ino,
                                               .everybody = true,
                                               .stop = trash_count_stops,
                                               .object = trash_count_object,
                                               .context = &counting};
    errint error = meta_usage_compute(fs->meta, &request, &usage);
    *out = (struct trash_size){.ino = ino};
    if (error)
        return error;
    out->files = usage.files;
    out->bytes = usage.logical_bytes;
    out->unique_bytes = usage.unique_bytes;
    /* Holes are none of what a save has to write, and a file of nothing but holes may have any size. */
    out->save_bytes = counting.disk < usage.logical_bytes ? counting.disk : usage.logical_bytes;
    return 0;
}

/* Of many, those that get no more files are counted once, though what only they have may change later. */
static bool trash_count_entry(const struct trash_round *round, const struct meta_trash *row,
                              struct trash_size *out)
{
    bool known = round->count > TRASH_RECOUNTED && row->kind == META_TRASH_CLOSED &&
                 trash_find_size(round->fs, row->ino, out) && out->closed;
    if (!known && trash_count(round->fs, row->ino, out) != 0)
        return false;
    out->closed = row->kind == META_TRASH_CLOSED;
    return true;
}

static int trash_compare_sizes(const void *a, const void *b)
{
    const struct trash_size *left = a, *right = b;
    return (left->ino > right->ino) - (left->ino < right->ino);
}

/* What is kept free: as much as the largest entry had, or a part of the disk. */
static int64_t trash_wants(struct filesystem *fs, const struct trash_size *sizes, size_t count)
{
    struct statvfs disk;
    int64_t wanted = 0;
    if (fstatvfs(fs->store->fd, &disk) == 0)
        wanted = (int64_t)(disk.f_blocks * disk.f_frsize) / TRASH_DISK_PART;
    for (size_t i = 0; i < count; i++)
        wanted = sizes[i].save_bytes > wanted ? sizes[i].save_bytes : wanted;
    return wanted;
}

static void trash_count_all(struct trash_round *round)
{
    struct filesystem *fs = round->fs;
    struct trash *trash = fs->trash;
    struct trash_size all = {0};
    uint64_t hidden;
    struct trash_size *sizes = calloc(round->count + 1, sizeof *sizes);
    size_t counted = 0;
    for (size_t i = 0; sizes && i < round->count; i++) {
        const struct meta_trash *row = &round->rows[i];
        counted += trash_is_entry(row) && trash_count_entry(round, row, &sizes[counted]);
    }
    if (counted > 0)
        qsort(sizes, counted, sizeof *sizes, trash_compare_sizes);
    if (counted > 0 && meta_hidden_find(fs->meta, META_HIDDEN_TRASH, &hidden) == 0)
        trash_count(fs, hidden, &all);
    atomic_store(&trash->wanted, trash_wants(fs, sizes, counted));
    atomic_store(&trash->bytes, all.unique_bytes);
    thread_lock(&trash->thread);
    free(trash->sizes);
    trash->sizes = sizes;
    trash->size_count = counted;
    thread_unlock(&trash->thread);
}

/* -- the thread -------------------------------------------------------------------------------------------
 */

static void trash_look_at_rows(struct trash_round *round, bool changed, bool asked)
{
    struct filesystem *fs = round->fs;
    if (trash_read(round) != 0)
        return;
    trash_give_up_expired(round);
    if (round->given > 0)
        discard_flush(fs);
    if (changed || round->given > 0)
        trash_count_all(round);
    trash_give_up_for_room(round, asked && round->given == 0);
}

/* Whether an entry's time is up, or the space is wanted: to read all of them is much when they are many. */
static bool trash_is_called_for(struct filesystem *fs)
{
    return trash_has_any(fs) && (clock_wall() >= fs->trash->due || room_free(fs) < trash_kept(fs));
}

/* The number of entries that were given up. */
static size_t trash_look(struct filesystem *fs, bool changed, bool asked)
{
    struct trash_round round = {.fs = fs};
    room_look(fs);
    bool looks = changed || asked || trash_is_called_for(fs);
    if (looks)
        trash_look_at_rows(&round, changed, asked);
    size_t before = round.given;
    if (keep_room_is_possible(fs))
        trash_ask_policies(&round, asked && before == 0);
    if (round.given > 0 && trash_read(&round) == 0)
        trash_count_all(&round);
    if (asked && round.given == 0)
        round.given += rewrite_give_up(fs);
    looks |= round.given > 0;
    bool any = looks && (round.count > 0 || torn_has_any(fs));
    thread_lock(&fs->trash->thread);
    /* One that came meanwhile has kicked. */
    if (looks && !fs->trash->kicked)
        atomic_store(&fs->trash->any, any);
    thread_unlock(&fs->trash->thread);
    free(round.rows);
    return round.given;
}

/* Whether the time for a look has come. `*until`: when it may have. */
static bool trash_is_due(struct filesystem *fs, int64_t since, int64_t *until)
{
    int64_t kept = trash_kept(fs), now = clock_monotonic();
    bool little = room_free(fs) < kept;
    int64_t due = since + (little ? TRASH_WATCH_NS : TRASH_LOOK_NS), look = now + room_pace(fs, kept);
    *until = look < due ? look : due;
    return now >= due;
}

/* Returns when there is something to do. The lock is held. */
static void trash_wait(struct filesystem *fs)
{
    struct trash *trash = fs->trash;
    int64_t since = clock_monotonic(), look;
    while (!trash->kicked && trash->asked == trash->answered && !thread_is_stopping(&trash->thread)) {
        if (!trash_may_give(fs)) {
            thread_sleep(&trash->thread);
            continue;
        }
        if (trash_is_due(fs, since, &look))
            return;
        thread_sleep_until(&trash->thread, look);
    }
    int64_t until = clock_monotonic() + TRASH_GATHER_NS;
    while (trash->asked == trash->answered && !thread_is_stopping(&trash->thread) &&
           thread_sleep_until(&trash->thread, until))
        continue;
}

void *trash_run(void *context)
{
    struct filesystem *fs = context;
    struct trash *trash = fs->trash;
    thread_lock(&trash->thread);
    while (!thread_is_stopping(&trash->thread)) {
        trash_wait(fs);
        if (thread_is_stopping(&trash->thread))
            break;
        uint64_t ticket = trash->asked;
        bool changed = trash->kicked, asked = trash->asked != trash->answered;
        trash->kicked = false;
        thread_unlock(&trash->thread);
        size_t given = trash_look(fs, changed, asked);
        thread_lock(&trash->thread);
        trash->given += given;
        /* What was given up meanwhile is for who asked meanwhile, too: they try again before more is. */
        trash->answered = given > 0 ? trash->asked : ticket;
        pthread_cond_broadcast(&trash->round);
    }
    thread_unlock(&trash->thread);
    return NULL;
}
