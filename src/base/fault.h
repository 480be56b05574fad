/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults that can be switched on in the shipped binary, so that each step of a protocol can be hit by a test.
 *
 * CKPTFS_FAULT holds a comma-separated list of POINT:ACTION[:COUNT]. POINT is the name at a fault_hit() call;
 * ACTION is an errno name (ENOSPC, EIO, ENOMEM, EOPNOTSUPP), `kill` (SIGKILL to the own process) or `hang`
 * (never returns); COUNT is the hit that acts (1 is the first, the default); `COUNT+` means from that one on.
 * With CKPTFS_FAULT_STARTS=N only the first N daemons of a mount are armed: one that is armed to die at a
 * step of its recovery would else never come up. The later ones are armed with CKPTFS_FAULT_LATER, if that is
 * set. Costs one load when nothing is armed.
 */
#ifndef CKPTFS_BASE_FAULT_H
#define CKPTFS_BASE_FAULT_H

#include <stdbool.h>

#include "base/cleanup.h"

extern bool fault_armed;

/* Reads CKPTFS_FAULT. -EINVAL (and a message) when it cannot be understood. Call before threads start. */
errint fault_configure(void);

/* For the keeper, before it starts its `start`-th daemon (1 is the first): takes the faults out of its
 * environment when no more daemons are to be armed. Not thread-safe. */
void fault_count_start(unsigned start);

errint fault_act(const char *point);

/* 0, or the negative errno that is armed for this point. Thread-safe. */
static inline errint fault_hit(const char *point)
{
    return __builtin_expect(fault_armed, 0) ? fault_act(point) : 0;
}

#endif
