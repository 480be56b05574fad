/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of `ckptfs ls` share: a run as it is listed, for people and as JSON. */
#ifndef CKPTFS_CMD_LS_H
#define CKPTFS_CMD_LS_H

#include <cjson/cJSON.h>

#include "ckpt/run.h"
#include "fs/control.h"

/* What a mount says of a checkpoint. */
struct ls_mounted {
    bool known; /* it is on a mount, and the daemon has answered */
    struct control_usage usage;
    struct control_life life;
    bool marked; /* and what follows is known; not of an older daemon */
    struct control_marks marks;
};

struct ls_run {
    const char *path; /* as it was given, continued */
    const struct run *run;
    struct ls_mounted *mounted; /* of each checkpoint */
};

/* PATH/NAME; the caller frees it. NULL: no memory. */
char *ls_join(const char *path, const char *name);
/* How a run is read. */
struct ls_wish {
    bool why;    /* with all that is missing */
    bool awaits; /* on a mount: what processes that write the run are expected to write still, is missing */
};
/* The checkpoints of a directory on any disk. -errno; `run` is given to run_release in any case. */
errint ls_read(const char *path, struct ls_wish wish, struct run *run);
/* What the mount says of one of them: nothing where it is no mount of ours. -ENOMEM. */
errint ls_ask(const char *path, const struct run_checkpoint *checkpoint, struct ls_mounted *out);

/* Whether the mount knows it as complete: it looks at what is there, and at who writes. */
bool ls_is_known_complete(const struct ls_mounted *mounted);
/* "writing", "torn", "durable", or how it was judged (complete_state_name): on a mount what that says, unless
 * it has not seen yet that something is gone. */
const char *ls_state(const struct run_checkpoint *checkpoint, const struct ls_mounted *mounted);
/* Whether that state is one of a complete checkpoint. */
bool ls_state_is_complete(const char *state);

/* Prints a table; `why`: what is missing, and what else is worth knowing, below each. -ENOMEM. */
errint ls_print(const struct ls_run *run, bool why);
/* Appends an object to the array. -ENOMEM. */
errint ls_add_json(cJSON *array, const struct ls_run *run);

#endif
