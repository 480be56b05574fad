/* SPDX-License-Identifier: Apache-2.0 */
/* What looks find of what is kept, and how it is dropped. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "fs/checkpoints.h"
#include "fs/discard.h"
#include "fs/filesystem.h"
#include "fs/keep_remove.h"
#include "fs/policy.h"
#include "fs/rewrite_internal.h"
#include "fs/trash.h"

enum { REWRITE_LEVELS = 512 };

/* Whether one of those who changed something lives still, as far as they are known. */
static bool rewrite_lives(const struct rewrite_entry *entry)
{
    bool lives = false;
    for (size_t i = 0; i < entry->writer_count && !lives; i++) {
        struct pollfd fd = {.fd = entry->writers[i].fd, .events = POLLIN};
        lives = poll(&fd, 1, 0) == 0;
    }
    return lives;
}

static bool rewrite_ended_well(const struct rewrite_entry *entry)
{
    bool well = !entry->strangers && entry->writer_count > 0;
    for (size_t i = 0; i < entry->writer_count && well; i++)
        well = process_ended_well(entry->writers[i].fd);
    return well;
}

/* Its space is given back by whoever looks next. */
static void rewrite_drop(struct filesystem *fs, struct rewrite_entry *entry)
{
    struct rewrite *rewrite = fs->rewrite;
    uint64_t ino = entry->kept.ino;
    errint error = meta_kept_drop(fs->meta, &entry->kept, clock_file_time());
    if (error) {
        log_warning("inode %llu: what was kept of it cannot be dropped now: %s",
                    (unsigned long long)entry->kept.checkpoint, strerror(-error));
        return;
    }
    rewrite_end_entry(rewrite, entry);
    if (ids_append(&rewrite->dropped, ino) < 0)
        log_warning("no memory to remove what was kept now; the next mount does it");
}

/* -- looks ------------------------------------------------------------------------------------------------
 */

bool rewrite_find(struct filesystem *fs, uint64_t checkpoint, struct rewrite_seen *out)
{
    struct rewrite *rewrite = fs->rewrite;
    *out = (struct rewrite_seen){0};
    if (!rewrite || atomic_load(&rewrite->any) == 0)
        return false;
    pthread_mutex_lock(&rewrite->lock);
    const struct rewrite_entry *entry = rewrite_entry_of(rewrite, checkpoint);
    if (entry)
        *out = (struct rewrite_seen){entry->kept, entry->touches, rewrite_lives(entry),
                                     rewrite_ended_well(entry)};
    pthread_mutex_unlock(&rewrite->lock);
    return entry != NULL;
}

uint64_t rewrite_kept(struct filesystem *fs, uint64_t checkpoint)
{
    if (!rewrite_has_any(fs))
        return 0;
    pthread_mutex_lock(&fs->rewrite->lock);
    const struct rewrite_entry *entry = rewrite_entry_of(fs->rewrite, checkpoint);
    uint64_t kept = entry ? entry->kept.ino : 0;
    pthread_mutex_unlock(&fs->rewrite->lock);
    return kept;
}

errint rewrite_list(struct rewrite *rewrite, struct ids *out)
{
    errint error = 0;
    pthread_mutex_lock(&rewrite->lock);
    for (size_t i = 0; i < rewrite->count && !error; i++)
        error = ids_append(out, rewrite->at[i].kept.checkpoint);
    pthread_mutex_unlock(&rewrite->lock);
    return error;
}

bool rewrite_is_in(struct filesystem *fs, uint64_t run)
{
    cleanup_ids struct ids checkpoints = {0};
    if (!rewrite_has_any(fs))
        return false;
    if (rewrite_list(fs->rewrite, &checkpoints) < 0)
        return true;
    for (size_t i = 0; i < checkpoints.count; i++) {
        struct meta_checkpoint row;
        if (checkpoints_get(fs, checkpoints.at[i], &row) == 0 && row.run == run)
            return true;
    }
    return false;
}

void rewrite_finish(struct filesystem *fs, const struct rewrite_seen *seen)
{
    struct rewrite *rewrite = fs->rewrite;
    pthread_mutex_lock(&rewrite->lock);
    struct rewrite_entry *entry = rewrite_entry_of(rewrite, seen->kept.checkpoint);
    if (entry && entry->touches == seen->touches && entry->kept.ino == seen->kept.ino)
        rewrite_drop(fs, entry);
    pthread_mutex_unlock(&rewrite->lock);
}

void rewrite_returned(struct filesystem *fs, uint64_t checkpoint)
{
    struct rewrite *rewrite = fs->rewrite;
    pthread_mutex_lock(&rewrite->lock);
    struct rewrite_entry *entry = rewrite_entry_of(rewrite, checkpoint);
    if (entry)
        rewrite_end_entry(rewrite, entry);
    pthread_mutex_unlock(&rewrite->lock);
}

/* Whether a path on the mount leads to it. An error: it may. */
static bool rewrite_is_reached(struct filesystem *fs, uint64_t directory)
{
    for (int level = 0; level < REWRITE_LEVELS && directory != META_ROOT_INO; level++) {
        struct meta_name name;
        size_t count = 0;
        errint error = meta_find_names(fs->meta, directory, NULL, &name, 1, &count);
        if (error || count == 0)
            return error && error != -ENOENT;
        directory = name.parent;
    }
    return true;
}

void rewrite_check(struct filesystem *fs, uint64_t checkpoint)
{
    struct rewrite *rewrite = fs->rewrite;
    struct rewrite_seen seen;
    if (!rewrite_find(fs, checkpoint, &seen) || rewrite_is_reached(fs, checkpoint))
        return;
    pthread_mutex_lock(&rewrite->lock);
    struct rewrite_entry *entry = rewrite_entry_of(rewrite, checkpoint);
    if (entry)
        rewrite_drop(fs, entry);
    pthread_mutex_unlock(&rewrite->lock);
}

static bool rewrite_to_trash(struct filesystem *fs, const struct meta_kept_removal *removal)
{
    bool keeps;
    if (policy_trash(fs, removal->parent, &keeps, NULL) < 0 || !keeps)
        return false;
    errint error = meta_kept_remove(fs->meta, removal);
    if (error)
        log_warning("%s: what was kept of it cannot go to the trash: %s", removal->name, strerror(-error));
    return !error;
}

void rewrite_removed(struct filesystem *fs, uint64_t checkpoint, uint64_t parent, const char *name,
                     uint32_t remover)
{
    struct rewrite *rewrite = fs->rewrite;
    struct rewrite_seen seen;
    if (!rewrite_find(fs, checkpoint, &seen))
        return;
    const struct meta_kept_removal removal = {seen.kept,    parent,  name,
                                              strlen(name), remover, clock_file_time()};
    bool trashed = false;
    pthread_mutex_lock(&rewrite->lock);
    struct rewrite_entry *entry = rewrite_entry_of(rewrite, checkpoint);
    if (entry)
        trashed = rewrite_to_trash(fs, &removal);
    if (trashed)
        rewrite_end_entry(rewrite, entry);
    else if (entry)
        rewrite_drop(fs, entry);
    pthread_mutex_unlock(&rewrite->lock);
    if (trashed)
        trash_note_entry(fs);
}

static void rewrite_check_all(struct filesystem *fs)
{
    cleanup_ids struct ids checkpoints = {0};
    if (rewrite_list(fs->rewrite, &checkpoints) < 0)
        return;
    for (size_t i = 0; i < checkpoints.count; i++)
        rewrite_check(fs, checkpoints.at[i]);
    atomic_store(&fs->rewrite->checked, true);
}

static uint64_t rewrite_next_dropped(struct rewrite *rewrite)
{
    pthread_mutex_lock(&rewrite->lock);
    uint64_t ino = rewrite->dropped.count > 0 ? rewrite->dropped.at[--rewrite->dropped.count] : 0;
    pthread_mutex_unlock(&rewrite->lock);
    return ino;
}

void rewrite_tidy(struct filesystem *fs)
{
    if (!fs->rewrite)
        return;
    if (!atomic_load(&fs->rewrite->checked))
        rewrite_check_all(fs);
    for (uint64_t ino = rewrite_next_dropped(fs->rewrite); ino; ino = rewrite_next_dropped(fs->rewrite)) {
        errint error = keep_remove_hidden(fs, ino);
        if (error)
            log_warning("inode %llu: its space is given back at the next start: %s", (unsigned long long)ino,
                        strerror(-error));
    }
}

/* -- space ------------------------------------------------------------------------------------------------
 */

bool rewrite_has_any(struct filesystem *fs)
{
    return fs->rewrite && atomic_load(&fs->rewrite->any) > 0;
}

bool rewrite_give_up(struct filesystem *fs)
{
    struct rewrite *rewrite = fs->rewrite;
    cleanup_free char *path = NULL;
    if (!rewrite_has_any(fs))
        return false;
    pthread_mutex_lock(&rewrite->lock);
    size_t before = rewrite->count;
    struct meta_kept kept = before > 0 ? rewrite->at[0].kept : (struct meta_kept){0};
    if (before > 0)
        rewrite_drop(fs, &rewrite->at[0]);
    bool given = rewrite->count < before;
    pthread_mutex_unlock(&rewrite->lock);
    if (!given)
        return false;
    if (meta_path(fs->meta, kept.checkpoint, &path) == 0)
        log_warning("path=\"%s\": what it was before it is written over is given up: the space is needed",
                    path);
    rewrite_tidy(fs);
    discard_flush(fs);
    return true;
}
