/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a checkpoint that was written over in its place is one save again, or some of its files are of the
 * new one and some of the old: each of them may be whole.
 */
#ifndef CKPTFS_CKPT_REWRITTEN_H
#define CKPTFS_CKPT_REWRITTEN_H

#include "ckpt/tree.h"

/*
 * True where files of the two saves are mixed: a file with tensors, or with the trainer's state, is another
 * than before, and another such file is the same. A file is the same that has the same path, size and time.
 * What a save writes last tells that it came to its end, whatever it did not write again: where `before` has
 * such files (trainer_state.json, .metadata), and all of them are others now, nothing is mixed.
 */
bool rewritten_is_mixed(const struct tree *before, const struct tree *now);

/* True where no such file is another than before, none is gone, and none has come: what was changed is what
 * describes the model, or no part of it. */
bool rewritten_is_edit(const struct tree *before, const struct tree *now);

/* Whether a file of that name, without its directories, can be one that somebody needs who loads the
 * checkpoint or resumes from it: not what tells people of it. */
bool rewritten_is_needed(const char *name);

/* True where all files that are needed of `before` are there, and are the same: things were only added. */
bool rewritten_is_added_to(const struct tree *before, const struct tree *now);

#endif
