/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What policies give up when the disk is full: of the runs that have a policy for it, the optimizer's state
 * of older checkpoints (fs/shed.h), and then checkpoints that nothing protects (ckpt/keep.h: never the
 * latest, the best, pinned, open, ...), even those that a rule wants. The trash's thread asks for it when the
 * trash has nothing more to give (fs/trash.h).
 */
#ifndef CKPTFS_FS_KEEP_ROOM_H
#define CKPTFS_FS_KEEP_ROOM_H

#include <stdbool.h>
#include <stdint.h>

struct filesystem;

/* Whether a policy says anything of what is kept: else nothing is ever given up. Cheap. */
bool keep_room_is_possible(struct filesystem *fs);

/*
 * The size of the largest of the runs' latest checkpoints: what the next save may need. One of more than
 * `most` bytes, of which holes are a part, does not count. 0: none is known.
 */
int64_t keep_room_for_next(struct filesystem *fs, int64_t most);

/* What there is to give up, in bytes that no other file has. */
struct keep_room_survey {
    int64_t sheds;      /* of optimizers' state */
    int64_t goes;       /* of checkpoints that go in any case */
    int64_t expendable; /* of those that would go for space, without what they would shed before */
};
/* Looks at all runs; reads headers. `stops` ends it early, with what was found so far. */
void keep_room_look(struct filesystem *fs, bool (*stops)(struct filesystem *fs),
                    struct keep_room_survey *out);

/*
 * Sheds the oldest checkpoint that may be shed; where there is none, removes the one checkpoint whose turn it
 * is first: one that goes anyway, one that no rule wants, else the oldest. False: there is none. Reads
 * headers of all runs; no lock may be held. `stops` ends it early. room.hope tells afterwards whether it may
 * be otherwise soon.
 */
bool keep_room_make(struct filesystem *fs, bool (*stops)(struct filesystem *fs));

#endif
