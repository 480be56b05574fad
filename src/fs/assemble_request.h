/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assemblies that somebody asked for, and what became of each, for as long as who asked may want to know.
 * They are forgotten with the daemon: who waits for one asks the next daemon again.
 *
 * Every function is thread-safe; none blocks for long.
 */
#ifndef CKPTFS_FS_ASSEMBLE_REQUEST_H
#define CKPTFS_FS_ASSEMBLE_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "fs/control.h"

struct assemble_requests;

/* NULL: no memory. */
struct assemble_requests *assemble_requests_make(void);
void assemble_requests_free(struct assemble_requests *requests); /* NULL is allowed */

/* Waits from now on, unless it does so already. -ENOMEM; -EBUSY: too many wait. */
errint assemble_requests_add(struct assemble_requests *requests, uint64_t directory);
/* Whether the directory's assembly was asked for and has not ended. */
bool assemble_requests_wants(struct assemble_requests *requests, uint64_t directory);
void assemble_requests_progress(struct assemble_requests *requests, uint64_t directory, int64_t done,
                                int64_t total);
/* It has to wait: the reason says for what. */
void assemble_requests_wait(struct assemble_requests *requests, uint64_t directory, const char *reason);
/* It has ended: assembled, where there is no reason (NULL or ""). */
void assemble_requests_finish(struct assemble_requests *requests, uint64_t directory, const char *reason);
/* Fills in the answer: state, progress and reason. */
void assemble_requests_tell(struct assemble_requests *requests, uint64_t directory,
                            struct control_assemble *answer);

#endif
