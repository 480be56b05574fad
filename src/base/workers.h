/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads that do what a thread that answers the kernel must not wait for: syncs above all. Jobs start
 * in the order of their submission. Thread-safe.
 */
#ifndef CKPTFS_BASE_WORKERS_H
#define CKPTFS_BASE_WORKERS_H

#include "base/cleanup.h"

struct workers;

/* `job` runs in a worker; `worker` is its index, from 0. */
typedef void workers_job(void *context, unsigned worker);

errint workers_start(unsigned count, const char *name, struct workers **out);
/* -ENOMEM; else the job will run exactly once. */
errint workers_submit(struct workers *workers, workers_job *job, void *context);
/* Runs what is queued, ends the threads and frees everything. NULL is allowed. */
void workers_stop(struct workers *workers);

#endif
