/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which checkpoints of a run are to be kept: the keys of the policy that say so, read from their texts.
 */
#ifndef CKPTFS_CKPT_KEEP_POLICY_H
#define CKPTFS_CKPT_KEEP_POLICY_H

#include <stdbool.h>
#include <stddef.h>

#include "ckpt/trainer_progress.h"

enum keep_direction {
    KEEP_DIRECTION_OF_NAME, /* as the Trainer: what ends in "loss" is better when it is lower */
    KEEP_MIN,
    KEEP_MAX,
};

/* 0 is what nobody has set. */
struct keep_policy {
    int64_t last, best, every, hourly, daily;
    char metric[TRAINER_NAME_MAX]; /* of `best`; "": the one that the Trainer chooses by, else eval_loss */
    enum keep_direction direction;
    int64_t max_bytes;
    int64_t max_age; /* ns */
    bool shed;       /* for space, optimizers' state of older checkpoints goes before the checkpoints */
};

/* "off" as a value: as if nobody had set it, here and below. */
#define KEEP_OFF "off"
/* The key that gives up parts of checkpoints alone, and its value. */
#define KEEP_SHED           "shed"
#define KEEP_SHED_OPTIMIZER "optimizer"

/* The keys. */
extern const char *const keep_policy_keys[];
extern const size_t keep_policy_key_count;
bool keep_policy_has_key(const char *key);

/* Whether the value may be set for the key, one of these. It is in the policy then, which may be NULL. */
bool keep_policy_set(struct keep_policy *policy, const char *key, const char *value);

/* Whether a rule says what is kept, so that all else goes. */
bool keep_policy_has_rule(const struct keep_policy *policy);
/* Whether a checkpoint may ever go. */
bool keep_policy_is_set(const struct keep_policy *policy);
/* Whether anything may, be it only a part of one. */
bool keep_policy_gives(const struct keep_policy *policy);

#endif
