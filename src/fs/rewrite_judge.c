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

/* Asks the one of the two trees that were and are there. */
static errint rewrite_compare(struct filesystem *fs, const struct rewrite_seen *seen,
                              bool (*is)(const struct tree *before, const struct tree *now), bool *result)
{
    cleanup_tree struct tree before = {0}, now = {0};
    errint error = rewrite_read_tree(fs, seen->kept.ino, &before);
    if (!error)
        error = rewrite_read_tree(fs, seen->kept.checkpoint, &now);
    *result = !error && is(&before, &now);
    return error;
}

/* Whether who writes has gone on to another checkpoint, and completed that. */
static bool rewrite_has_gone_on(struct filesystem *fs, const struct rewrite_case *rewrite)
{
    cleanup_free struct meta_checkpoint *rows = NULL;
    size_t count = 0;
    bool found = false;
    if (!rewrite->seen->lives || checkpoints_of_run(fs, rewrite->run, &rows, &count) < 0)
        return false;
    for (size_t i = 0; i < count && !found; i++)
        found = rows[i].directory != rewrite->seen->kept.checkpoint && rows[i].state == CHECKPOINT_COMPLETE &&
                rows[i].completed > rewrite->newest;
    return found;
}

errint rewrite_judge(struct filesystem *fs, const struct rewrite_case *rewrite, enum checkpoint_state *state)
{
    const struct rewrite_seen *seen = rewrite->seen;
    bool less = *state == CHECKPOINT_WEIGHTS && !seen->kept.partial, mixed = false;
    if ((rewrite->writers == WRITERS_GONE && seen->ended_well) || rewrite_has_gone_on(fs, rewrite))
        return 0;
    errint error = less ? 0 : rewrite_compare(fs, seen, rewritten_is_mixed, &mixed);
    if (error || (!less && !mixed))
        return error == -ENOENT ? 0 : error; /* it was dropped, or removed, meanwhile */
    *state = rewrite->writers == WRITERS_ALIVE  ? CHECKPOINT_WRITING
             : rewrite->writers == WRITERS_GONE ? CHECKPOINT_INCOMPLETE
                                                : CHECKPOINT_UNKNOWN;
    return 0;
}

errint rewrite_is_edit(struct filesystem *fs, const struct rewrite_seen *seen, bool *edit)
{
    errint error = rewrite_compare(fs, seen, rewritten_is_edit, edit);
    return error == -ENOENT ? 0 : error;
}

errint rewrite_only_adds(struct filesystem *fs, const struct rewrite_seen *seen, bool *adds)
{
    return rewrite_compare(fs, seen, rewritten_is_added_to, adds);
}
