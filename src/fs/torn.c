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
#include "fs/checkpoints_internal.h"
#include "fs/events.h"
#include "fs/torn_room.h"
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
    return !fs->options->read_only && checkpoints_may_be_torn(fs, directory);
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

/* `started`: when the process started that lists the run. */
static bool torn_is(const struct checkpoints_seen *seen, const struct checkpoints_found *found,
                    int64_t started)
{
    return found->row.state == CHECKPOINT_INCOMPLETE && found->row.directory != seen->run &&
           !(found->row.marks & CHECKPOINT_COPY) && found->row.step >= 0 && found->newest < started &&
           torn_has_older(seen, &found->row);
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

/* Under its own name, or with a number behind it where an earlier one has that. */
static errint torn_rename(struct filesystem *fs, uint64_t checkpoint, const struct meta_name *name,
                          uint64_t target)
{
    errint error = -EEXIST;
    for (int number = 1; number <= TORN_NAMES && error == -EEXIST; number++) {
        char text[META_NAME_MAX + 16];
        cleanup_ids struct ids freed = {0};
        int length = number == 1 ? snprintf(text, sizeof text, "%s", name->bytes)
                                 : snprintf(text, sizeof text, "%.240s.%d", name->bytes, number);
        struct meta_rename rename = {
            .parent = name->parent,
            .name = name->bytes,
            .length = name->length,
            .new_parent = target,
            .new_name = text,
            .new_length = (size_t)length,
            .flags = RENAME_NOREPLACE,
            .expected = checkpoint,
            .now = clock_file_time(),
        };
        error = meta_rename(fs->meta, &rename, 0, &freed);
    }
    return error;
}

static errint torn_move(struct filesystem *fs, const struct meta_checkpoint *row)
{
    struct meta_name name;
    size_t count = 0;
    uint64_t target;
    cleanup_free char *path = NULL;
    errint error = fault_hit("fs.torn");
    if (!error)
        error = meta_find_names(fs->meta, row->directory, NULL, &name, 1, &count);
    if (!error && count != 1)
        error = -ENOENT;
    if (!error)
        error = meta_path(fs->meta, row->directory, &path);
    /* It was complete, and is being removed: the rest goes where the other files are. */
    if (!error && (row->marks & CHECKPOINT_WHOLE) &&
        trash_take_directory(fs, row->directory, "what was left of a removal") == 0)
        return 0;
    if (!error)
        error = torn_mirror(fs, name.parent, 0, &target);
    if (!error)
        error = torn_rename(fs, row->directory, &name, target);
    if (error)
        return error;
    torn_room_note(fs);
    fuse_lowlevel_notify_inval_entry(fs->session, name.parent, name.bytes, name.length);
    log_warning("torn path=\"%s\" step=%" PRId64
                ": who saved it is gone, and it is not complete: it is below "
                ".ckptfs/torn now",
                path, row->step);
    events_emit(fs, &(struct event){.kind = EVENT_TORN,
                                    .ino = row->directory,
                                    .path = path,
                                    .step = row->step,
                                    .bytes = row->bytes,
                                    .reason = "who saved it is gone, and it is not complete"});
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
        if (!error && (seen->run != directory || seen->writers != WRITERS_GONE))
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
        if (!torn_is(&seen, &seen.at[i], started))
            continue;
        errint error = torn_move(fs, &seen.at[i].row);
        if (error && error != -ENOENT)
            log_warning("inode %" PRIu64 ": it is torn, and cannot be taken away now: %s",
                        seen.at[i].row.directory, strerror(-error));
        moved |= !error;
    }
    checkpoints_release_seen(&seen);
    if (moved && checkpoints_look_now(fs, directory, &seen) < 0)
        checkpoints_touch_directory(fs, directory);
}
