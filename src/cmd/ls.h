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
};

struct ls_run {
    const char *path; /* as it was given, continued */
    const struct run *run;
    struct ls_mounted *mounted; /* of each checkpoint */
};

/* Reads the run that the directory is; `why`: with all reasons. Released in any case. */
errint ls_read(const char *path, bool why, struct run *run);
/* What the mount says of a checkpoint of the run at `path`. Nothing is known where it is no mount of ours, or
 * an older daemon's. -ENOMEM. */
errint ls_ask(const char *path, const struct run_checkpoint *checkpoint, struct ls_mounted *out);

/* "writing", "torn", "durable", or how it was judged (complete_state_name). */
const char *ls_state(const struct run_checkpoint *checkpoint, const struct ls_mounted *mounted);

/* Prints a table; `why`: what is missing, and what else is worth knowing, below each. -ENOMEM. */
errint ls_print(const struct ls_run *run, bool why);
/* Appends an object to the array. -ENOMEM. */
errint ls_add_json(cJSON *array, const struct ls_run *run);

#endif
