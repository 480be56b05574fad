/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing what is there with what was kept. */
#include "fs/rewrite_judge.h"

#include <errno.h>

#include "ckpt/rewritten.h"
#include "fs/namespace_folder.h"

static errint rewrite_read_tree(struct filesystem *fs, uint64_t directory, struct tree *out)
{
    cleanup_namespace_folder struct namespace_folder held = {0};
    struct folder folder;
    errint error = namespace_folder_open(fs, directory, NULL, &held, &folder);
    held.looks = true;
    return error ? error : tree_read(&folder, TREE_DEPTH_MAX, out);
}

static errint rewrite_is_mixed(struct filesystem *fs, const struct rewrite_seen *seen, bool *mixed)
{
    cleanup_tree struct tree before = {0}, now = {0};
    errint error = rewrite_read_tree(fs, seen->kept.ino, &before);
    if (!error)
        error = rewrite_read_tree(fs, seen->kept.checkpoint, &now);
    *mixed = !error && rewritten_is_mixed(&before, &now);
    return error;
}

errint rewrite_judge(struct filesystem *fs, const struct rewrite_seen *seen, enum writers_state writers,
                     enum checkpoint_state *state)
{
    bool less = *state == CHECKPOINT_WEIGHTS && !seen->kept.partial, mixed = false;
    if (writers == WRITERS_GONE && seen->ended_well)
        return 0;
    errint error = less ? 0 : rewrite_is_mixed(fs, seen, &mixed);
    if (error || (!less && !mixed))
        return error == -ENOENT ? 0 : error; /* it was dropped, or removed, meanwhile */
    *state = writers == WRITERS_ALIVE  ? CHECKPOINT_WRITING
             : writers == WRITERS_GONE ? CHECKPOINT_INCOMPLETE
                                       : CHECKPOINT_UNKNOWN;
    return 0;
}
