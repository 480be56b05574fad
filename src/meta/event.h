/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon has told of: the last events, as texts with numbers that only grow, so that a daemon that
 * takes over, and the next mount, go on where the one before was. What a text says is not known here.
 * Otherwise as meta.h.
 */
#ifndef CKPTFS_META_EVENT_H
#define CKPTFS_META_EVENT_H

#include "meta/meta.h"

struct meta_event {
    uint64_t sequence;  /* from 1 */
    uint64_t directory; /* whose policies hold for it; 0: none */
    uint32_t uid;       /* who may see it; UINT32_MAX: only who sees all */
    bool pending;       /* something is to be run because of it, and was not yet */
    const char *text;
    size_t length;
};

/* Adds them, in one transaction, and forgets all but the last `kept` of all. -EEXIST: a number is taken. */
errint meta_event_add(struct meta *meta, const struct meta_event *events, size_t count, uint64_t kept);
/* Nothing is to be run any more for it. 0 also where it is forgotten. */
errint meta_event_settle(struct meta *meta, uint64_t sequence);
/* All of them, in the order of their numbers; `each` must not call meta. */
errint meta_event_list(struct meta *meta, void (*each)(void *context, const struct meta_event *event),
                       void *context);

#endif
