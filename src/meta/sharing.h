/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the namespace knows about equal bytes: the index of segments by hash, which objects were hashed, and
 * which ones have lost extents and may have bytes that nothing needs.
 *
 * The index only says where to look: bytes are found dead or alive from the extents alone, so a row too many
 * or too few costs space and never data. All rows of an object go when it is opened for writing again, is
 * torn, or is forgotten. Otherwise as meta.h.
 */
#ifndef CKPTFS_META_SHARING_H
#define CKPTFS_META_SHARING_H

#include "meta/meta.h"

enum { META_ROOT_BYTES = 16 };

/* Instead of a user: everybody. No file is of this one. */
#define META_ANYONE UINT32_MAX

/* A segment of an object, by its 128-bit hash. */
struct meta_segment {
    int64_t object_offset, length;
    uint64_t low, high;
};

/* A range of an object; or of another object that has the same bytes. */
struct meta_range {
    uint64_t object;
    int64_t offset, length;
};

/*
 * The object was hashed: its root, and its segments as `uid`'s. What was there before goes. -EBUSY when the
 * object is being written or is known to be damaged, -ENOENT when it has no row. Many segments take several
 * transactions; they count from the last one on, in which the root is recorded.
 */
errint meta_object_summed(struct meta *meta, uint64_t object, const uint8_t root[META_ROOT_BYTES],
                          uint32_t uid, const struct meta_segment *segments, size_t count);
/* What meta_object_summed has recorded goes: the object's table of hashes is lost. */
errint meta_object_unsummed(struct meta *meta, uint64_t object);
/* The root that was recorded; -ENOENT when there is none. */
errint meta_object_root(struct meta *meta, uint64_t object, uint8_t root[META_ROOT_BYTES]);
/* The files that have equal bytes in older objects were looked after. Does nothing for an object without a
 * root. */
errint meta_object_shared_out(struct meta *meta, uint64_t object);
/* Whether they were: 1, 0 or an error. Then its bytes were on stable storage. */
int meta_object_is_shared_out(struct meta *meta, uint64_t object);
/*
 * Sealed objects that were not hashed, or not looked after, yet, in the order of their ids: a part of the
 * table after `*after`, which moves on. 1, 0 when that was the last part, or an error. Appended.
 */
int meta_find_unshared_after(struct meta *meta, uint64_t *after, struct ids *out);
/* Objects of a META_EXTENTS file that are sealed and have no root. Appended. */
errint meta_find_unsummed(struct meta *meta, uint64_t ino, struct ids *out);

/*
 * Where else the index of `uid`, or of META_ANYONE, has a segment of this hash and length: ranges of objects
 * that were looked after before (meta_object_shared_out), other than `except`; of the newest objects, where
 * they are very many. The caller frees *out.
 */
errint meta_find_segment(struct meta *meta, const struct meta_segment *segment, uint32_t uid, uint64_t except,
                         struct meta_range **out, size_t *count);
/* The files of `uid`, or of META_ANYONE, that cover a byte of the object and have a name or are assembled.
 * Appended. */
errint meta_find_users_of(struct meta *meta, uint64_t object, uint32_t uid, struct ids *out);
/* Whether a file of somebody else than `uid` covers a byte of the object: 1, 0 or an error. */
int meta_object_has_others(struct meta *meta, uint64_t object, uint32_t uid);
/* A file that is the object, whole and nothing else, or 0. */
errint meta_find_whole(struct meta *meta, uint64_t object, uint64_t *out);
/*
 * The newest other file of `uid`, or of META_ANYONE, with one of this inode's names below the same
 * grandparent (the same file of another checkpoint of the run), or 0.
 */
errint meta_find_predecessor(struct meta *meta, uint64_t ino, uint32_t uid, uint64_t *out);

/* Bytes [offset, + length) of `object`, which has that root, are also at `to_offset` of another object. */
struct meta_move {
    uint64_t object;
    int64_t offset, length;
    int64_t to_offset;
    const uint8_t *root; /* META_ROOT_BYTES */
};

/*
 * Re-points what the file has of the moves' ranges to the object `to`, and joins neighbours. The moves are
 * sorted by object and offset, and do not overlap. Nothing else of the file changes. `moved` tells how
 * many bytes were re-pointed; 0: nothing was to do. -EBUSY when it is not a META_EXTENTS file, when one of
 * the objects has not the given root any more (it was written since), or when no file is all of `to` any
 * more, or `to` is known to be damaged.
 */
errint meta_repoint(struct meta *meta, uint64_t ino, uint64_t to, const uint8_t to_root[META_ROOT_BYTES],
                    const struct meta_move *moves, size_t count, int64_t *moved, struct ids *freed);

/* The owner that the index knows the object's segments by; -ENOENT when it has none of it. */
errint meta_object_uid(struct meta *meta, uint64_t object, uint32_t *uid);

/*
 * Gives a new object, which nothing refers to yet, its row: whatever becomes of its making, the next start
 * finds it there, and removes what is no file's.
 */
errint meta_object_make(struct meta *meta, uint64_t object, int64_t size);

/* All that is alive of an object, copied to another one. */
struct meta_repack {
    uint64_t from, to;
    const uint8_t *from_root, *to_root; /* META_ROOT_BYTES */
    /* Every live range of `from`, sorted, each as one move; their roots are not looked at. */
    const struct meta_move *moves;
    size_t count;
    const struct ids *files; /* all that have something of it, sorted (meta_find_users) */
};

/*
 * Re-points all files of the object to its copy, in one transaction; the old object is put on `freed`.
 * -EBUSY, and nothing changes, when it is being written, has not the given root any more, is known to be
 * damaged, or has other live ranges or files by now; or when the copy has not its root any more.
 */
errint meta_repack(struct meta *meta, const struct meta_repack *repack, struct ids *freed);

/*
 * The ranges of the object that some file covers: sorted, not touching each other; none when nothing covers
 * it. The caller frees *out.
 */
errint meta_live_ranges(struct meta *meta, uint64_t object, struct meta_range **out, size_t *count);
/*
 * The same of an object that nobody writes. -EBUSY: a file is written into it, which covers it as a whole and
 * has no extents. What is dead of a sealed object stays dead, and such an object is written no more.
 */
errint meta_sealed_ranges(struct meta *meta, uint64_t object, struct meta_range **out, size_t *count);
/* Sealed and hashed objects that lost extents since they were last tended: at most `limit`, from `after` on,
 * in order. Appended. */
errint meta_find_shrunk(struct meta *meta, uint64_t after, size_t limit, struct ids *out);
/*
 * The object's dead ranges were given back: its mark goes, and with it the index's rows inside `dead`. -EBUSY
 * when its live ranges are not `live` any more: then it has lost something since, and keeps its mark.
 */
errint meta_shrunk_done(struct meta *meta, uint64_t object, const struct meta_range *live, size_t live_count,
                        const struct meta_range *dead, size_t dead_count);

#endif
