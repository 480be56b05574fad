/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another program, run as the caller with limits, that reads one text and writes another.
 */
#ifndef CKPTFS_CMD_CHILD_H
#define CKPTFS_CMD_CHILD_H

#include "base/text.h"

struct child {
    const char *const *arguments; /* the first is the program, looked for in PATH; NULL behind the last */
    const char *input;
    size_t input_length;
    size_t output_max; /* bytes */
    size_t memory_max; /* bytes of its own, as RLIMIT_DATA counts them */
    unsigned seconds;  /* that it may take */
};

/*
 * Runs it in the root directory, in a process group of its own that ends with it, without a core file; what
 * it writes to its standard error is dropped. `status` is what waitpid(2) says; 127 as exit status: it could
 * not be started. 0; -ETIME or -EFBIG when it took too long or wrote too much and was killed; -EINTR after a
 * signal that has a handler; or another negative errno. Not for a process with threads.
 */
errint child_run(const struct child *child, struct text *output, int *status);

#endif
