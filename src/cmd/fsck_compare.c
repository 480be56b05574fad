/* SPDX-License-Identifier: Apache-2.0 */
/* What a restored backup says of objects that were changed after it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cmd/fsck.h"
#include "fs/sequence.h"
#include "meta/sharing.h"
#include "store/object.h"
#include "store/sums.h"

/* Ranges of an object that some file should have and whose bytes are gone. */
struct compare_lost {
    struct meta_range *at;
    size_t count;
};

static void compare_lost_release(struct compare_lost *lost)
{
    free(lost->at);
}

#define cleanup_lost __attribute__((cleanup(compare_lost_release)))

static int64_t compare_overlap(int64_t a, int64_t a_length, int64_t b, int64_t b_length)
{
    int64_t from = a > b ? a : b;
    int64_t to = a + a_length < b + b_length ? a + a_length : b + b_length;
    return to > from ? to - from : 0;
}

/* -- telling ----------------------------------------------------------------------------------------------
 */

static errint compare_mark_torn(struct fsck *fsck, const struct meta_inode *row)
{
    const struct meta_inode torn = {.state = row->state | META_TORN};
    return meta_set(fsck->meta, row->ino, META_SET_STATE, &torn, 0, NULL);
}

static errint compare_tell(struct fsck *fsck, enum meta_finding_kind kind, const char *code, uint64_t ino,
                           uint64_t object, const char *text)
{
    cleanup_free char *path = NULL;
    errint error = ino ? meta_path(fsck->meta, ino, &path) : 0;
    if (error)
        return error;
    const struct meta_finding finding = {
        .kind = kind, .code = code, .ino = ino, .object = object, .path = path, .text = text};
    fsck->complaints += kind == META_FINDING_LEFT;
    fsck->result.notes += kind == META_FINDING_NOTE;
    fsck_tell(fsck, &finding);
    return 0;
}

static errint compare_tell_user(struct fsck *fsck, uint64_t object, uint64_t ino,
                                const struct compare_lost *lost)
{
    cleanup_free struct meta_extent *extents = NULL;
    size_t count = 0;
    struct meta_inode row;
    int64_t bytes = 0;
    errint error = meta_extents(fsck->meta, ino, &extents, &count);
    if (!error)
        error = meta_get(fsck->meta, ino, &row);
    if (error)
        return error;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; extents[i].object == object && j < lost->count; j++)
            bytes += compare_overlap(extents[i].object_offset, extents[i].length, lost->at[j].offset,
                                     lost->at[j].length);
    }
    if (bytes == 0)
        return 0;
    char text[200];
    snprintf(text, sizeof text,
             "%lld bytes of it, in object %016llx, were given back to the disk after the backup: they read "
             "as zeros",
             (long long)bytes, (unsigned long long)object);
    error = compare_tell(fsck, META_FINDING_LEFT, "bytes-gone", ino, object, text);
    return error ? error : compare_mark_torn(fsck, &row);
}

/* -- comparing --------------------------------------------------------------------------------------------
 */

static bool compare_is_live(const struct meta_range *live, size_t count, const struct sums_chunk *chunk)
{
    for (size_t i = 0; i < count && live[i].offset < chunk->offset + chunk->length; i++) {
        if (live[i].offset + live[i].length > chunk->offset)
            return true;
    }
    return false;
}

/* Chunks with a hole that files use: all that punching can have taken. A hole may also have been written. */
static errint compare_find_lost(const struct fsck *fsck, int fd, const struct sums *sums,
                                const struct meta_range *live, size_t live_count, struct compare_lost *out)
{
    out->at = calloc(sums->chunk_count + 1, sizeof *out->at);
    if (!out->at)
        return -ENOMEM;
    for (size_t i = 0; i < sums->chunk_count; i++) {
        const struct sums_chunk *chunk = &sums->chunks[i];
        while (live_count > 0 && live->offset + live->length <= chunk->offset) {
            live++;
            live_count--;
        }
        off_t hole = lseek(fd, chunk->offset, SEEK_HOLE);
        if (hole < 0 || hole >= chunk->offset + chunk->length || !compare_is_live(live, live_count, chunk))
            continue;
        int equal = sums_check_chunk(fsck->store, fd, chunk);
        if (equal < 0 && equal != -EIO)
            return equal;
        if (equal <= 0)
            out->at[out->count++] = (struct meta_range){.offset = chunk->offset, .length = chunk->length};
    }
    return 0;
}

static errint compare_bytes(struct fsck *fsck, uint64_t object, const struct sums *sums)
{
    cleanup_lost struct compare_lost lost = {0};
    cleanup_free struct meta_range *live = NULL;
    cleanup_ids struct ids users = {0};
    size_t live_count = 0;
    cleanup_fd int fd = object_open(fsck->store, object, O_RDONLY);
    errint error = fd < 0 ? fd : meta_live_ranges(fsck->meta, object, &live, &live_count);
    if (!error)
        error = compare_find_lost(fsck, fd, sums, live, live_count, &lost);
    if (!error && lost.count > 0)
        error = meta_find_users(fsck->meta, object, &users);
    for (size_t i = 0; !error && i < users.count; i++)
        error = compare_tell_user(fsck, object, users.at[i], &lost);
    return error;
}

static errint compare_object(struct fsck *fsck, uint64_t object)
{
    uint8_t root[META_ROOT_BYTES], now[HASH_BYTES];
    cleanup_sums struct sums sums = {0};
    errint known = meta_object_root(fsck->meta, object, root);
    if (known && known != -ENOENT)
        return known;
    errint error = sums_read(fsck->store, object, &sums);
    if (error == -ENOMEM || error == -EIO)
        return error;
    if (!error)
        hash_to_bytes(sums.root, now);
    if (!known && (error || memcmp(root, now, sizeof now) != 0)) {
        error = compare_tell(fsck, META_FINDING_NOTE, "object-newer", 0, object,
                             "it was written after the backup: its files have what was written last");
        return error ? error : meta_object_unsummed(fsck->meta, object);
    }
    return error ? 0 : compare_bytes(fsck, object, &sums);
}

/* What was being written then may be whole by now, or not: nobody knows any more. */
static errint compare_dirty(struct fsck *fsck)
{
    cleanup_ids struct ids dirty = {0};
    errint error = meta_find_dirty(fsck->meta, &dirty);
    for (size_t i = 0; !error && i < dirty.count; i++) {
        struct meta_inode row;
        error = meta_get(fsck->meta, dirty.at[i], &row);
        if (!error)
            error = compare_mark_torn(fsck, &row);
        if (!error)
            error = compare_tell(fsck, META_FINDING_NOTE, "dirty", row.ino, 0,
                                 "it was being written at the time of the backup: it is marked as torn");
    }
    return error;
}

errint fsck_compare_backup(struct fsck *fsck)
{
    char epoch[128];
    errint error = fsck->followed ? 0 : compare_dirty(fsck);
    for (size_t i = 0; !error && i < fsck->file_count; i++)
        error = compare_object(fsck, fsck->files[i].object);
    /* What the next mount would conclude from the backup's own time of day is done here. */
    if (!error && !fsck->followed)
        error = store_epoch(fsck->store, epoch);
    if (!error && !fsck->followed)
        error = meta_setting_put(fsck->meta, "epoch", epoch);
    if (!error && !fsck->followed)
        error = meta_setting_put(fsck->meta, "clean", "1");
    /* It is the newest now; what was in its place, and what it was made of, are older copies. */
    return error ? error : sequence_advance(fsck->store, fsck->meta);
}
