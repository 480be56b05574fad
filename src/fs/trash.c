/* SPDX-License-Identifier: Apache-2.0 */
/* What goes into the trash, and what operations and others are told of it. trash_thread.c gives up. */
#include "fs/trash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "fs/checkpoints.h"
#include "fs/keep_room.h"
#include "fs/policy.h"
#include "fs/rewrite.h"
#include "fs/torn_expire.h"
#include "fs/trash_internal.h"
#include "fs/writeback.h"

/* Directories are no deeper than that below a checkpoint. */
enum { TRASH_LEVELS = 64 };
/* Who waits for room is asked so often whether it still does. */
#define TRASH_ASK_NS (CLOCK_NS_PER_SECOND / 20)

/* -- checkpoints that something was removed of ------------------------------------------------------------
 */

/* From what is known: 1, 0, or -1 when it has to be looked up. The lock is held. */
static int trash_recall(struct trash *trash, uint64_t directory, uint64_t *checkpoint)
{
    *checkpoint = 0;
    if (trash->begun.count == 0)
        return 0;
    for (size_t i = 0; i < TRASH_RECENT; i++) {
        if (trash->recent[i].directory == directory) {
            *checkpoint = trash->recent[i].checkpoint;
            return *checkpoint != 0;
        }
    }
    return -1;
}

static void trash_remember(struct trash *trash, uint64_t directory, uint64_t checkpoint, uint64_t generation)
{
    thread_lock(&trash->thread);
    if (generation == trash->generation) {
        trash->recent[trash->next_recent].directory = directory;
        trash->recent[trash->next_recent].checkpoint = checkpoint;
        trash->next_recent = (trash->next_recent + 1) % TRASH_RECENT;
    }
    thread_unlock(&trash->thread);
}

/* The lock is held. */
static void trash_forget_recent(struct trash *trash)
{
    memset(trash->recent, 0, sizeof trash->recent);
    trash->generation++;
    atomic_store(&trash->begun_count, trash->begun.count);
}

uint64_t trash_find_begun(struct filesystem *fs, uint64_t directory)
{
    struct trash *trash = fs->trash;
    uint64_t checkpoint = 0;
    if (!trash || atomic_load(&trash->begun_count) == 0)
        return 0;
    thread_lock(&trash->thread);
    uint64_t generation = trash->generation;
    int known = trash_recall(trash, directory, &checkpoint);
    thread_unlock(&trash->thread);
    if (known >= 0)
        return checkpoint;
    uint64_t at = directory;
    for (int level = 0; level < TRASH_LEVELS && at > META_ROOT_INO && !checkpoint; level++) {
        thread_lock(&trash->thread);
        if (ids_contain(&trash->begun, at))
            checkpoint = at;
        thread_unlock(&trash->thread);
        if (!checkpoint && meta_parent(fs->meta, at, &at) != 0)
            break;
    }
    trash_remember(trash, directory, checkpoint, generation);
    return checkpoint;
}

uint64_t trash_find_checkpoint(struct filesystem *fs, uint64_t directory)
{
    bool keeps;
    uint64_t checkpoint = trash_find_begun(fs, directory);
    if (checkpoint || !fs->trash)
        return checkpoint;
    checkpoint = checkpoints_is_complete(fs, directory) ? checkpoints_root(fs, directory) : 0;
    /* The root cannot be given back. */
    if (!checkpoint || checkpoint == META_ROOT_INO || policy_trash(fs, checkpoint, &keeps, NULL) != 0 ||
        !keeps)
        return 0;
    return checkpoint;
}

void trash_kick(struct filesystem *fs)
{
    struct trash *trash = fs->trash;
    if (!trash)
        return;
    thread_lock(&trash->thread);
    trash->kicked = true;
    thread_wake(&trash->thread);
    thread_unlock(&trash->thread);
}

void trash_note_removal(struct filesystem *fs, uint64_t checkpoint)
{
    struct trash *trash = fs->trash;
    thread_lock(&trash->thread);
    if (!ids_contain(&trash->begun, checkpoint)) {
        /* Without memory for it what follows is removed for good. */
        if (ids_append(&trash->begun, checkpoint) < 0)
            log_warning("inode %llu: no memory: the rest of it does not go to the trash",
                        (unsigned long long)checkpoint);
        trash_forget_recent(trash);
    }
    atomic_store(&trash->any, true);
    trash->kicked = true;
    thread_wake(&trash->thread);
    thread_unlock(&trash->thread);
}

/* True when it was one. */
static bool trash_end_begun(struct trash *trash, uint64_t checkpoint)
{
    bool found = false;
    thread_lock(&trash->thread);
    for (size_t i = 0; i < trash->begun.count && !found; i++) {
        found = trash->begun.at[i] == checkpoint;
        if (found)
            trash->begun.at[i] = trash->begun.at[--trash->begun.count];
    }
    if (found) {
        trash_forget_recent(trash);
        trash->kicked = true;
        thread_wake(&trash->thread);
    }
    thread_unlock(&trash->thread);
    return found;
}

void trash_note_directory_removal(struct filesystem *fs, uint64_t directory)
{
    if (fs->trash && atomic_load(&fs->trash->begun_count) > 0)
        trash_end_begun(fs->trash, directory);
}

void trash_note_creation(struct filesystem *fs, uint64_t directory)
{
    uint64_t checkpoint = trash_find_begun(fs, directory);
    if (!checkpoint || !trash_end_begun(fs->trash, checkpoint))
        return;
    errint error = meta_trash_close(fs->meta, checkpoint);
    if (error)
        log_warning("inode %llu: its entry in the trash stays open: %s", (unsigned long long)checkpoint,
                    strerror(-error));
}

void trash_note_entry(struct filesystem *fs)
{
    if (!fs->trash)
        return;
    atomic_store(&fs->trash->any, true);
    trash_kick(fs);
}

void trash_note_move(struct filesystem *fs)
{
    struct trash *trash = fs->trash;
    if (!trash || atomic_load(&trash->begun_count) == 0)
        return;
    thread_lock(&trash->thread);
    trash_forget_recent(trash);
    thread_unlock(&trash->thread);
}

errint trash_take_directory(struct filesystem *fs, uint64_t directory, const char *reason)
{
    struct meta_name name;
    size_t count = 0;
    if (!fs->trash)
        return -EROFS;
    errint error = meta_find_names(fs->meta, directory, NULL, &name, 1, &count);
    if (!error && count == 0)
        error = -ENOENT;
    if (!error)
        error = meta_trash_take(fs->meta, directory, geteuid(), reason, clock_file_time(), clock_wall());
    if (error)
        return error;
    atomic_store(&fs->trash->any, true);
    trash_end_begun(fs->trash, directory);
    trash_note_move(fs);
    trash_kick(fs);
    writeback_kick(fs); /* that one removes what is left of the directory */
    fuse_lowlevel_notify_inval_entry(fs->session, name.parent, name.bytes, name.length);
    return 0;
}

/* -- space ------------------------------------------------------------------------------------------------
 */

int64_t trash_bytes(struct filesystem *fs)
{
    return fs->trash ? atomic_load(&fs->trash->bytes) : 0;
}

bool trash_has_any(struct filesystem *fs)
{
    return fs->trash && atomic_load(&fs->trash->any);
}

bool trash_may_give(struct filesystem *fs)
{
    return fs->trash && (trash_has_any(fs) || keep_room_is_possible(fs) || rewrite_has_any(fs));
}

bool trash_may_give_later(struct filesystem *fs)
{
    return fs->trash && (trash_has_any(fs) || rewrite_has_any(fs) ||
                         (keep_room_is_possible(fs) && atomic_load(&fs->room.hope)));
}

static int64_t trash_least(struct filesystem *fs)
{
    return trash_has_any(fs) ? atomic_load(&fs->trash->wanted) : 0;
}

int64_t trash_kept(struct filesystem *fs)
{
    return trash_may_give(fs) ? room_kept(fs, trash_least(fs)) : 0;
}

bool trash_is_short(struct filesystem *fs)
{
    return trash_may_give(fs) && !room_lets_pass(fs, trash_least(fs));
}

uint64_t trash_given(struct filesystem *fs)
{
    if (!fs->trash)
        return 0;
    thread_lock(&fs->trash->thread);
    uint64_t given = fs->trash->given;
    thread_unlock(&fs->trash->thread);
    return given;
}

bool trash_make_room(struct filesystem *fs, uint64_t given, bool (*stops)(void *context), void *context)
{
    struct trash *trash = fs->trash;
    if (!trash)
        return false;
    thread_lock(&trash->thread);
    /* Others may have waited for the same. */
    uint64_t ticket = trash->given == given ? ++trash->asked : 0;
    thread_wake(&trash->thread);
    while (trash->answered < ticket && !thread_is_stopping(&trash->thread) && !stops(context)) {
        struct timespec until = clock_to_timespec(clock_monotonic() + TRASH_ASK_NS);
        pthread_cond_clockwait(&trash->round, &trash->thread.lock, CLOCK_MONOTONIC, &until);
    }
    bool made = trash->given != given;
    thread_unlock(&trash->thread);
    return made;
}

static int trash_compare_size(const void *key, const void *member)
{
    uint64_t ino = *(const uint64_t *)key, other = ((const struct trash_size *)member)->ino;
    return (ino > other) - (ino < other);
}

bool trash_find_size(struct filesystem *fs, uint64_t ino, struct trash_size *out)
{
    struct trash *trash = fs->trash;
    if (!trash)
        return false;
    thread_lock(&trash->thread);
    const struct trash_size *found =
        trash->size_count == 0
            ? NULL
            : bsearch(&ino, trash->sizes, trash->size_count, sizeof *trash->sizes, trash_compare_size);
    if (found)
        *out = *found;
    thread_unlock(&trash->thread);
    return found;
}

/* -- start and stop ---------------------------------------------------------------------------------------
 */

static errint trash_load(struct filesystem *fs, struct trash *trash)
{
    cleanup_free struct meta_trash *rows = NULL;
    size_t count;
    errint error = meta_trash_read(fs->meta, &rows, &count);
    for (size_t i = 0; i < count && !error; i++) {
        if (rows[i].kind == META_TRASH_OPEN)
            error = ids_append(&trash->begun, rows[i].directory);
    }
    bool any = count > 0 || torn_has_any(fs);
    atomic_store(&trash->any, any);
    atomic_store(&trash->begun_count, trash->begun.count);
    trash->kicked = any;
    return error;
}

static void trash_free(struct trash *trash)
{
    ids_release(&trash->begun);
    free(trash->sizes);
    pthread_cond_destroy(&trash->round);
    thread_release(&trash->thread);
    free(trash);
}

errint trash_start(struct filesystem *fs)
{
    if (fs->options->read_only)
        return 0;
    struct trash *trash = calloc(1, sizeof *trash);
    if (!trash)
        return -ENOMEM;
    thread_init(&trash->thread);
    pthread_cond_init(&trash->round, NULL);
    errint error = trash_load(fs, trash);
    fs->trash = error ? NULL : trash;
    if (!error)
        error = thread_start(&trash->thread, "trash", trash_run, fs);
    if (error) {
        fs->trash = NULL;
        trash_free(trash);
    }
    return error;
}

void trash_stop(struct filesystem *fs)
{
    struct trash *trash = fs->trash;
    if (!trash)
        return;
    thread_ask_to_stop(&trash->thread);
    thread_lock(&trash->thread);
    pthread_cond_broadcast(&trash->round);
    thread_unlock(&trash->thread);
    thread_stop(&trash->thread);
    fs->trash = NULL;
    trash_free(trash);
}
