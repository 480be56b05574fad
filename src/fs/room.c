/* SPDX-License-Identifier: Apache-2.0 */
/* What saves need, and what is free. */
#include "fs/room.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/quantity.h"
#include "ckpt/detect.h"
#include "fs/filesystem.h"
#include "fs/keep_room.h"

/* So much can be written before more is given up: a part of a second at the speed of memory. */
#define ROOM_AHEAD ((int64_t)1 << 30)
/* What all writers together may write in a second. */
#define ROOM_RATE ((int64_t)8 << 30)
/* A filesystem keeps its own books of what it stores. */
#define ROOM_BOOKS ((int64_t)1 << 20)
/* Between two looks at the disk. */
#define ROOM_PACE_LEAST_NS (CLOCK_NS_PER_SECOND / 50)
#define ROOM_PACE_MOST_NS  CLOCK_NS_PER_SECOND

enum {
    ROOM_AHEAD_PART = 32, /* of the disk, where it is small */
    ROOM_BOOKS_PART = 64, /* of what is stored */
    ROOM_DEPTH = 32,
};

/* -- the option -------------------------------------------------------------------------------------------
 */

bool room_parse_least(const char *text, struct room_least *out)
{
    char *end;
    *out = (struct room_least){.set = strcmp(text, "auto") != 0};
    if (!out->set || strcmp(text, "0") == 0)
        return true;
    if (strlen(text) >= ROOM_TEXT_MAX)
        return false;
    if (text[strlen(text) - (*text != '\0')] != '%')
        return quantity_parse_size(text, &out->bytes);
    out->part = *text >= '0' && *text <= '9' && !strpbrk(text, "xX") ? strtod(text, &end) / 100 : -1;
    return out->part > 0 && out->part < 1 && strcmp(end, "%") == 0;
}

/* -- the disk ---------------------------------------------------------------------------------------------
 */

int64_t room_free(struct filesystem *fs)
{
    struct statvfs disk;
    if (fstatvfs(fs->store->fd, &disk) < 0)
        return INT64_MAX;
    return (int64_t)(disk.f_bavail * disk.f_frsize);
}

static int64_t room_total(struct filesystem *fs)
{
    struct statvfs disk;
    return fstatvfs(fs->store->fd, &disk) < 0 ? 0 : (int64_t)(disk.f_blocks * disk.f_frsize);
}

static int64_t room_larger(int64_t one, int64_t other)
{
    return one > other ? one : other;
}

/* What the next save, and those under way, need. */
static int64_t room_needed(struct filesystem *fs)
{
    int64_t saves = room_larger(atomic_load(&fs->room.next), atomic_load(&fs->room.saves));
    return room_larger(saves, atomic_load(&fs->room.promised));
}

int64_t room_kept(struct filesystem *fs, int64_t least)
{
    const struct room_least *set = &fs->options->min_free;
    int64_t total = room_total(fs), ahead = total / ROOM_AHEAD_PART;
    if (set->set)
        return room_larger(set->part > 0 ? (int64_t)(set->part * (double)total) : set->bytes,
                           atomic_load(&fs->room.promised));
    return room_larger(least, room_needed(fs) + (ahead < ROOM_AHEAD ? ahead : ROOM_AHEAD));
}

bool room_lets_pass(struct filesystem *fs, int64_t least)
{
    return room_free(fs) - ROOM_AHEAD >= room_larger(least, room_needed(fs));
}

int64_t room_pace(struct filesystem *fs, int64_t kept)
{
    int64_t beyond = room_free(fs) - kept;
    if (beyond >= ROOM_RATE)
        return ROOM_PACE_MOST_NS;
    int64_t pace = beyond <= 0 ? 0 : (int64_t)((double)beyond / (double)ROOM_RATE * 1e9);
    return room_larger(pace, ROOM_PACE_LEAST_NS);
}

/* -- what is being written --------------------------------------------------------------------------------
 */

/* The directory of the checkpoint that a file lies in, by the names above it; 0: it lies in none. */
static uint64_t room_find_checkpoint(struct filesystem *fs, uint64_t file)
{
    struct meta_name name;
    uint64_t at = file, found = 0;
    for (unsigned depth = 0; at != META_ROOT_INO && depth < ROOM_DEPTH; depth++) {
        size_t count = 0;
        if (meta_find_names(fs->meta, at, NULL, &name, 1, &count) != 0 || count == 0)
            return 0;
        /* DeepSpeed's tags lie in checkpoints: the outermost of neighbours is the one. */
        if (at != file && detect_step_of_name(name.bytes) >= 0)
            found = at;
        else if (found)
            break;
        at = name.parent;
    }
    return found;
}

/* Of a file that is being written: the size that it was given, less what the disk has of it. */
static int64_t room_of_file(struct filesystem *fs, uint64_t ino)
{
    struct stat object;
    int64_t missing = 0;
    struct node *node = node_find(fs, ino);
    if (!node)
        return 0;
    node_lock_shared(node);
    if (node->kind == META_OBJECT && node->backing && fstat(node->backing->fd, &object) == 0)
        missing = (int64_t)object.st_size - (int64_t)object.st_blocks * 512;
    node_unlock(node);
    node_put(fs, node);
    return missing > ROOM_BOOKS && room_find_checkpoint(fs, ino) ? missing : 0;
}

static int room_compare(const void *one, const void *other)
{
    const uint64_t *a = one, *b = other;
    return (*a > *b) - (*a < *b);
}

/* Files that are open for writing, each once, sorted. */
static errint room_list_files(struct filesystem *fs, struct ids *files)
{
    uint32_t used = atomic_load(&fs->state->handles_used);
    errint error = 0;
    size_t kept = 0;
    for (uint32_t i = 0; i < used && !error; i++) {
        const struct state_handle *slot = &fs->state->handles[i];
        bool file = slot->mode >= STATE_PASSTHROUGH && slot->mode <= STATE_DIRECT;
        if (file && atomic_load(&slot->fh) != 0 && (slot->flags & O_ACCMODE) != O_RDONLY)
            error = ids_append(files, slot->ino);
    }
    if (files->count > 0)
        qsort(files->at, files->count, sizeof *files->at, room_compare);
    for (size_t i = 0; i < files->count; i++) {
        if (i == 0 || files->at[i] != files->at[i - 1])
            files->at[kept++] = files->at[i];
    }
    files->count = kept;
    return error;
}

/* Sums of sizes that were made up end at the greatest number. */
static int64_t room_sum(int64_t one, int64_t other)
{
    int64_t sum;
    return __builtin_add_overflow(one, other, &sum) ? INT64_MAX / 2 : sum;
}

static int64_t room_promised(struct filesystem *fs, const struct ids *files, uint64_t except)
{
    int64_t promised = 0;
    for (size_t i = 0; i < files->count; i++)
        promised = files->at[i] == except ? promised : room_sum(promised, room_of_file(fs, files->at[i]));
    return promised;
}

/* How many checkpoints the files belong to. */
static size_t room_count_saves(struct filesystem *fs, const struct ids *files)
{
    cleanup_ids struct ids saves = {0};
    for (size_t i = 0; i < files->count; i++) {
        uint64_t checkpoint = room_find_checkpoint(fs, files->at[i]);
        if (checkpoint && !ids_contain(&saves, checkpoint) && ids_append(&saves, checkpoint) < 0)
            break;
    }
    return saves.count;
}

void room_look(struct filesystem *fs)
{
    cleanup_ids struct ids files = {0};
    /* More than the disk could ever have is meant to stay sparse. */
    int64_t next = keep_room_for_next(fs, room_total(fs));
    /* Without memory: what is known so far. */
    if (room_list_files(fs, &files) < 0)
        return;
    int64_t saves = files.count > 1 ? (int64_t)room_count_saves(fs, &files) : 1, all;
    atomic_store(&fs->room.next, next);
    atomic_store(&fs->room.saves, __builtin_mul_overflow(next, saves, &all) ? next : all);
    atomic_store(&fs->room.promised, room_promised(fs, &files, 0));
}

bool room_lacks(struct filesystem *fs, uint64_t ino, int64_t size)
{
    cleanup_ids struct ids files = {0};
    struct meta_inode row;
    struct stat status;
    if (meta_get(fs->meta, ino, &row) < 0 || !S_ISREG(row.mode))
        return false;
    node_stat_row(fs, &row, &status);
    int64_t grows = size - (int64_t)status.st_blocks * 512;
    /* More than the disk could ever have is meant to stay sparse. */
    if (grows <= ROOM_BOOKS || grows > room_total(fs) || !room_find_checkpoint(fs, ino) ||
        room_list_files(fs, &files) < 0)
        return false;
    int64_t needed = room_sum(room_promised(fs, &files, ino), grows + grows / ROOM_BOOKS_PART + ROOM_BOOKS);
    return room_free(fs) < needed;
}
