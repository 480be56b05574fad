/* SPDX-License-Identifier: Apache-2.0 */
/* Taking torn checkpoints out of the way. */
#include "fs/torn.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "fs/assembler.h"
#include "fs/checkpoints_internal.h"
#include "fs/events.h"
#include "fs/rewrite.h"
#include "fs/trash.h"
#include "fs/writeback.h"
#include "meta/hidden.h"

/* What was closed just now is sealed and synced in so many steps. */
#define TORN_STEP_NS (CLOCK_NS_PER_SECOND / 50)

enum {
    TORN_STEPS = 150,
    TORN_STEPS_BEHIND = 3000, /* while files are sealed, which takes long where they are large */
    TORN_NAMES = 10000,       /* the same checkpoint was torn so often, and never removed */
    TORN_DEPTH_MAX = 512,
};

bool torn_may_be_in(struct filesystem *fs, uint64_t directory)
{
    return !fs->options->read_only &&
           (checkpoints_may_be_torn(fs, directory) || rewrite_is_in(fs, directory));
}

/* -- judging ----------------------------------------------------------------------------------------------
 */

static bool torn_has_older(const struct checkpoints_seen *seen, const struct meta_checkpoint *torn)
{
    for (size_t i = 0; i < seen->count; i++) {
        const struct meta_checkpoint *row = &seen->at[i].row;
        if (row->state == CHECKPOINT_COMPLETE && row->step < torn->step)
            return true;
    }
    return false;
}

/* Whether who lists the run has something else to go on with: what it was, or an older one. */
static bool torn_is_replaced(const struct checkpoints_seen *seen, const struct checkpoints_found *found)
{
    return (found->rewrite.kept.checkpoint && !found->edited) ||
           (found->row.step >= 0 && torn_has_older(seen, &found->row));
}

/* `started`: when the process started that lists the run. */
static bool torn_is(const struct checkpoints_seen *seen, const struct checkpoints_found *found,
                    int64_t started)
{
    return found->row.state == CHECKPOINT_INCOMPLETE && found->row.directory != seen->run &&
           !(found->row.marks & CHECKPOINT_COPY) && found->newest < started && torn_is_replaced(seen, found);
}

/* A resume would begin with its weights alone: it has the highest step, and a complete one has a lower. */
static bool torn_is_shed(const struct checkpoints_seen *seen, const struct checkpoints_found *found)
{
    bool highest = found->row.state == CHECKPOINT_WEIGHTS && (found->row.marks & CHECKPOINT_SHED) &&
                   found->row.directory != seen->run && found->row.step >= 0;
    for (size_t i = 0; i < seen->count && highest; i++)
        highest = seen->at[i].row.state != CHECKPOINT_COMPLETE || seen->at[i].row.step < found->row.step;
    return highest && torn_has_older(seen, &found->row);
}

static bool torn_is_busy(const struct checkpoints_seen *seen)
{
    for (size_t i = 0; i < seen->count; i++) {
        if (seen->at[i].busy)
            return true;
    }
    return false;
}

/* -- moving -----------------------------------------------------------------------------------------------
 */

/* The directory below the hidden one that has the same path, made where it is missing. */
static errint torn_mirror(struct filesystem *fs, uint64_t directory, unsigned depth, uint64_t *out)
{
    struct meta_name name;
    struct meta_inode row, made;
    size_t count = 0;
    uint64_t above;
    if (directory == META_ROOT_INO)
        return meta_hidden_make(fs->meta, META_HIDDEN_TORN, clock_file_time(), out);
    errint error =
        depth < TORN_DEPTH_MAX ? meta_find_names(fs->meta, directory, NULL, &name, 1, &count) : -ELOOP;
    if (!error && count != 1)
        error = -ENOENT;
    if (!error)
        error = torn_mirror(fs, name.parent, depth + 1, &above);
    if (!error)
        error = meta_get(fs->meta, directory, &row);
    if (error)
        return error;
    error = meta_lookup(fs->meta, above, name.bytes, name.length, &made);
    if (error == -ENOENT) {
        const struct meta_new new = {
            .parent = above,
            .name = name.bytes,
            .length = name.length,
            .mode = S_IFDIR | (row.mode & 0777),
            .uid = row.uid,
            .gid = row.gid,
            .now = clock_file_time(),
        };
        error = meta_create(fs->meta, &new, 0, &made);
    }
    *out = made.ino;
    return error ? error : S_ISDIR(made.mode) ? 0 : -ENOTDIR;
}

/* A checkpoint that goes to another directory, and what takes its name, if anything. */
struct torn_way {
    uint64_t checkpoint, target;
    struct meta_name name;
    const struct meta_kept *kept; /* NULL: nothing */
};

static errint torn_rename_to(struct filesystem *fs, const struct torn_way *way, const char *text,
                             size_t length)
{
    cleanup_ids struct ids freed = {0};
    if (way->kept) {
        const struct meta_kept_restore restore = {*way->kept, way->target, text, length, clock_file_time()};
        return meta_kept_restore(fs->meta, &restore);
    }
    const struct meta_rename rename = {
        .parent = way->name.parent,
        .name = way->name.bytes,
        .length = way->name.length,
        .new_parent = way->target,
        .new_name = text,
        .new_length = length,
        .flags = RENAME_NOREPLACE,
        .expected = way->checkpoint,
        .now = clock_file_time(),
    };
    return meta_rename(fs->meta, &rename, 0, &freed);
}

/* Under its own name, or with a number behind it where an earlier one has that. */
static errint torn_rename(struct filesystem *fs, const struct torn_way *way)
{
    errint error = -EEXIST;
    for (int number = 1; number <= TORN_NAMES && error == -EEXIST; number++) {
        char text[META_NAME_MAX + 16];
        int length = number == 1 ? snprintf(text, sizeof text, "%s", way->name.bytes)
                                 : snprintf(text, sizeof text, "%.240s.%d", way->name.bytes, number);
        error = torn_rename_to(fs, way, text, (size_t)length);
    }
    return error;
}

/* What it was before has the name again. */
static void torn_returned(struct filesystem *fs, const struct torn_way *way, const char *path, int64_t step)
{
    rewrite_returned(fs, way->checkpoint);
    rewrite_forget_directories(fs);
    assembler_touch_directory(fs, way->name.parent);
    assembler_touch_directory(fs, way->kept->ino);
    checkpoints_touch_directory(fs, way->kept->ino);
    log_warning("path=\"%s\" step=%" PRId64 ": it is again what it was before it was written over", path,
                step);
    events_emit(fs, &(struct event){.kind = EVENT_RESTORED,
                                    .ino = way->kept->ino,
                                    .path = path,
                                    .step = step,
                                    .bytes = -1,
                                    .reason = "it was being written over, and that was not finished"});
}

static void torn_tell(struct filesystem *fs, const struct meta_checkpoint *row, const char *path)
{
    const char *reason =
        row->marks & CHECKPOINT_SHED
            ? "its optimizer's state was given up for its space, and no complete one is newer"
            : "who saved it is gone, and it is not complete";
    log_warning("torn path=\"%s\" step=%" PRId64 ": %s: it is below .ckptfs/torn now", path, row->step,
                reason);
    checkpoints_emit(fs, EVENT_TORN, row, path, reason);
}

static errint torn_move(struct filesystem *fs, const struct checkpoints_found *found)
{
    const struct meta_checkpoint *row = &found->row;
    struct torn_way way = {.checkpoint = row->directory,
                           .kept = found->rewrite.kept.checkpoint ? &found->rewrite.kept : NULL};
    size_t count = 0;
    cleanup_free char *path = NULL;
    errint error = fault_hit("fs.torn");
    if (!error)
        error = meta_find_names(fs->meta, row->directory, NULL, &way.name, 1, &count);
    if (!error && count != 1)
        error = -ENOENT;
    if (!error)
        error = meta_path(fs->meta, row->directory, &path);
    /* It was complete, and is being removed: the rest goes where the other files are. */
    if (!error && (row->marks & CHECKPOINT_WHOLE) && !(row->marks & CHECKPOINT_SHED) &&
        trash_take_directory(fs, row->directory, "what was left of a removal") == 0)
        return 0;
    if (!error)
        error = torn_mirror(fs, way.name.parent, 0, &way.target);
    if (!error)
        error = torn_rename(fs, &way);
    if (error)
        return error;
    fault_hit("fs.torn.moved"); /* too late for an error: it is there to kill */
    fuse_lowlevel_notify_inval_entry(fs->session, way.name.parent, way.name.bytes, way.name.length);
    torn_tell(fs, row, path);
    if (way.kept)
        torn_returned(fs, &way, path, row->step);
    trash_note_entry(fs);
    return 0;
}

/* -- a listing --------------------------------------------------------------------------------------------
 */

static bool torn_waits(struct filesystem *fs, int step)
{
    return step < TORN_STEPS || (step < TORN_STEPS_BEHIND && writeback_count(fs).files > 0);
}

/* What was seen, after all that was closed is sealed and synced; false: it is not known. */
static bool torn_look(struct filesystem *fs, uint64_t directory, bool (*stops)(void *context), void *context,
                      struct checkpoints_seen *seen)
{
    const struct timespec step = clock_to_timespec(TORN_STEP_NS);
    for (int i = 0; torn_waits(fs, i) && !stops(context); i++) {
        checkpoints_release_seen(seen);
        errint error = checkpoints_look_now(fs, directory, seen);
        if (!error && (seen->run != directory || seen->writers.state != WRITERS_GONE))
            return false;
        if (!error && !torn_is_busy(seen))
            return true;
        /* On a full disk room is made meanwhile. */
        if (error || checkpoints_sync_busy(fs, seen) < 0)
            nanosleep(&step, NULL);
    }
    return false;
}

void torn_take_away(struct filesystem *fs, uint64_t directory, pid_t opener, bool (*stops)(void *context),
                    void *context)
{
    cleanup_seen struct checkpoints_seen seen = {0};
    struct process process;
    bool moved = false;
    if (opener <= 0 || process_of_thread(opener, &process) < 0 ||
        !torn_look(fs, directory, stops, context, &seen))
        return;
    int64_t started = process_start_time(&process);
    for (size_t i = 0; i < seen.count && !stops(context); i++) {
        if (!torn_is(&seen, &seen.at[i], started) && !torn_is_shed(&seen, &seen.at[i]))
            continue;
        errint error = torn_move(fs, &seen.at[i]);
        if (error && error != -ENOENT)
            log_warning("inode %" PRIu64 ": it is torn, and cannot be taken away now: %s",
                        seen.at[i].row.directory, strerror(-error));
        moved |= !error;
    }
    checkpoints_release_seen(&seen);
    if (moved && checkpoints_look_now(fs, directory, &seen) < 0)
        checkpoints_touch_directory(fs, directory);
}
