/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the keys of what is kept. */
#include "ckpt/keep_policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/quantity.h"

/* More is surely a slip, and an hour's number times that still fits. */
enum { KEEP_COUNT_MAX = 1000000000, KEEP_BEST_TEXT_MAX = TRAINER_NAME_MAX + 64 };

/* -- values: NULL is "off" ---------------------------------------------------------------------------------
 */

static bool keep_read_count(const char *text, int64_t *out)
{
    *out = 0;
    if (!text)
        return true;
    size_t length = strspn(text, "0123456789");
    if (length == 0 || length > 10 || text[length] != '\0')
        return false;
    *out = strtoll(text, NULL, 10);
    return *out >= 1 && *out <= KEEP_COUNT_MAX;
}

/* "2", "2:eval_loss", "2:eval_loss:min"; or in words, "2 by eval_loss (min)". */
static bool keep_read_best(const char *text, struct keep_policy *out)
{
    char copy[KEEP_BEST_TEXT_MAX], *rest = NULL;
    out->best = 0;
    out->metric[0] = '\0';
    out->direction = KEEP_DIRECTION_OF_NAME;
    if (!text)
        return true;
    if ((size_t)snprintf(copy, sizeof copy, "%s", text) >= sizeof copy)
        return false;
    char *word = strtok_r(copy, " :()", &rest);
    if (!word || !keep_read_count(word, &out->best))
        return false;
    word = strtok_r(NULL, " :()", &rest);
    if (word && strcmp(word, "by") == 0)
        word = strtok_r(NULL, " :()", &rest);
    if (word && strlen(word) >= sizeof out->metric)
        return false;
    if (word)
        strcpy(out->metric, word);
    word = word ? strtok_r(NULL, " :()", &rest) : NULL;
    if (word && strcmp(word, "min") == 0)
        out->direction = KEEP_MIN;
    else if (word && strcmp(word, "max") == 0)
        out->direction = KEEP_MAX;
    else if (word)
        return false;
    return !strtok_r(NULL, " :()", &rest);
}

/* -- keys -------------------------------------------------------------------------------------------------
 */

static bool keep_set_last(struct keep_policy *policy, const char *value)
{
    return keep_read_count(value, &policy->last);
}

static bool keep_set_best(struct keep_policy *policy, const char *value)
{
    return keep_read_best(value, policy);
}

static bool keep_set_every(struct keep_policy *policy, const char *value)
{
    return keep_read_count(value, &policy->every);
}

static bool keep_set_hourly(struct keep_policy *policy, const char *value)
{
    return keep_read_count(value, &policy->hourly);
}

static bool keep_set_daily(struct keep_policy *policy, const char *value)
{
    return keep_read_count(value, &policy->daily);
}

static bool keep_set_bytes(struct keep_policy *policy, const char *value)
{
    policy->max_bytes = 0;
    return !value || quantity_parse_size(value, &policy->max_bytes);
}

static bool keep_set_age(struct keep_policy *policy, const char *value)
{
    policy->max_age = 0;
    return !value || quantity_parse_span(value, &policy->max_age);
}

static bool keep_set_shed(struct keep_policy *policy, const char *value)
{
    policy->shed = value != NULL;
    return !value || strcmp(value, KEEP_SHED_OPTIMIZER) == 0;
}

const char *const keep_policy_keys[] = {"keep-last",  "keep-best", "keep-every", "keep-hourly",
                                        "keep-daily", "max-bytes", "max-age",    KEEP_SHED};
const size_t keep_policy_key_count = sizeof keep_policy_keys / sizeof *keep_policy_keys;

static bool (*const keep_setters[])(struct keep_policy *policy, const char *value) = {
    keep_set_last,  keep_set_best,  keep_set_every, keep_set_hourly,
    keep_set_daily, keep_set_bytes, keep_set_age,   keep_set_shed};

bool keep_policy_set(struct keep_policy *policy, const char *key, const char *value)
{
    struct keep_policy ignored;
    for (size_t i = 0; i < keep_policy_key_count; i++) {
        if (strcmp(keep_policy_keys[i], key) == 0)
            return keep_setters[i](policy ? policy : &ignored, strcmp(value, KEEP_OFF) == 0 ? NULL : value);
    }
    return false;
}

bool keep_policy_has_key(const char *key)
{
    for (size_t i = 0; i < keep_policy_key_count; i++) {
        if (strcmp(keep_policy_keys[i], key) == 0)
            return true;
    }
    return false;
}

bool keep_policy_has_rule(const struct keep_policy *policy)
{
    return policy->last || policy->best || policy->every || policy->hourly || policy->daily;
}

bool keep_policy_is_set(const struct keep_policy *policy)
{
    return keep_policy_has_rule(policy) || policy->max_bytes || policy->max_age;
}

bool keep_policy_gives(const struct keep_policy *policy)
{
    return keep_policy_is_set(policy) || policy->shed;
}
