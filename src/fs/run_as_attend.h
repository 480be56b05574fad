/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process between the daemon and what it runs for a user: when that ends, or is to end, everything that
 * it has started ends with it, what has left its process group and its session, too.
 *
 * Where the daemon is root's, they have a namespace of process numbers of their own, which the kernel empties
 * when this process ends, the daemon's death included. Elsewhere this process inherits whoever loses his
 * parent, and kills until nobody is left: then they are all the daemon's own user's, who could kill that,
 * too.
 */
#ifndef CKPTFS_FS_RUN_AS_ATTEND_H
#define CKPTFS_FS_RUN_AS_ATTEND_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct run_as_shared;

struct run_as_attendant {
    pid_t pid;     /* 0 in the process itself */
    bool isolated; /* it dies with all others when it is killed */
    struct run_as_shared *shared;
};

/* As fork(2): returns twice. -errno. The daemon gives it to run_as_attend_release. */
errint run_as_attend_fork(struct run_as_attendant *out);
/*
 * In the new process, which has the descriptors that what is run shall have, and no others: forks again, and
 * returns in that child only, with *parent the number that its getppid has to have.
 */
void run_as_attend(const struct run_as_attendant *attendant, pid_t *parent);

/* In the daemon. SIGTERM reaches the group of what is run. */
void run_as_attend_ask(const struct run_as_attendant *attendant);
/* Ends all; `pid_fd` is the attendant's. Waits for a moment, and kills then. */
void run_as_attend_end(const struct run_as_attendant *attendant, int pid_fd);
/* What waitpid(2) would say of what was run, once the attendant has ended with the status `own`. */
int run_as_attend_status(const struct run_as_attendant *attendant, int own);
void run_as_attend_release(struct run_as_attendant *attendant);

#endif
