/* SPDX-License-Identifier: Apache-2.0 */
/* The table of what can be set for a run. */
#include "ckpt/policy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

/* -- assemble ---------------------------------------------------------------------------------------------
 */

static const char *const policy_assembling_words[] = {
    [POLICY_ASSEMBLING_AUTO] = "auto",
    [POLICY_ASSEMBLING_VIEW] = "view",
    [POLICY_ASSEMBLING_OFF] = "off",
    [POLICY_ASSEMBLING_ASK] = "ask",
};

bool policy_parse_assembling(const char *text, enum policy_assembling *out)
{
    for (unsigned i = POLICY_ASSEMBLING_AUTO; i <= POLICY_ASSEMBLING_ASK; i++) {
        if (strcmp(text, policy_assembling_words[i]) == 0) {
            *out = (enum policy_assembling)i;
            return true;
        }
    }
    return false;
}

const char *policy_assembling_text(enum policy_assembling assembling)
{
    return policy_assembling_words[assembling];
}

static bool policy_is_assembling(const char *value)
{
    enum policy_assembling assembling;
    return policy_parse_assembling(value, &assembling);
}

/* -- template ---------------------------------------------------------------------------------------------
 */

static bool policy_is_path(const char *value)
{
    return value[0] == '/';
}

/* -- trash ------------------------------------------------------------------------------------------------
 */

bool policy_parse_trash(const char *text, bool *out)
{
    *out = strcmp(text, "on") == 0;
    return *out || strcmp(text, "off") == 0;
}

static bool policy_is_trash(const char *value)
{
    bool on;
    return policy_parse_trash(value, &on);
}

bool policy_parse_age(const char *text, int64_t *out)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 7 * 86400}};
    const int64_t most = INT64_C(10) * 366 * 86400;
    int64_t number = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && number <= most; at++)
        number = number * 10 + (*at - '0');
    if (at == text || strlen(text) >= POLICY_AGE_MAX || strlen(at) != 1)
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (*at == units[i].unit && number <= most / units[i].seconds) {
            *out = number * units[i].seconds * CLOCK_NS_PER_SECOND;
            return true;
        }
    }
    return false;
}

static bool policy_is_age(const char *value)
{
    int64_t age;
    return policy_parse_age(value, &age);
}

/* -- the table --------------------------------------------------------------------------------------------
 */

static const struct policy_key policy_table[] = {
    {.name = POLICY_ASSEMBLE,
     .expected = "auto, view, off or ask",
     .summary = "when the shards of a checkpoint become a model: by themselves, never, or when asked for",
     .fallback = "auto",
     .fits = policy_is_assembling},
    {.name = POLICY_TEMPLATE,
     .expected = "an absolute path",
     .summary = "the directory whose configuration and tokenizer are lent to checkpoints without their own",
     .command = "ckptfs template",
     .fits = policy_is_path},
    {.name = POLICY_TRASH,
     .expected = "on or off",
     .summary = "whether removed checkpoints can be had back for a while",
     .fallback = "on",
     .fits = policy_is_trash},
    {.name = POLICY_TRASH_AGE,
     .expected = "a time as 90s, 30m, 12h, 7d or 4w",
     .summary = "for how long, where the space is not needed before",
     .fallback = "1d",
     .fits = policy_is_age},
};

enum { POLICY_COUNT = sizeof policy_table / sizeof *policy_table };

const struct policy_key *policy_keys(size_t *count)
{
    *count = POLICY_COUNT;
    return policy_table;
}

const struct policy_key *policy_find_key(const char *name)
{
    for (size_t i = 0; i < POLICY_COUNT; i++) {
        if (strcmp(policy_table[i].name, name) == 0)
            return &policy_table[i];
    }
    return NULL;
}

static void policy_tell_unknown(const char *name, char problem[POLICY_PROBLEM_MAX])
{
    int length = snprintf(problem, POLICY_PROBLEM_MAX, "unknown key '%.64s'; the keys are", name);
    for (size_t i = 0; i < POLICY_COUNT && length < POLICY_PROBLEM_MAX; i++)
        length += snprintf(problem + length, (size_t)(POLICY_PROBLEM_MAX - length), "%s %s", i > 0 ? "," : "",
                           policy_table[i].name);
}

errint policy_check(const char *name, const char *value, char problem[POLICY_PROBLEM_MAX])
{
    const struct policy_key *key = policy_find_key(name);
    if (!key)
        policy_tell_unknown(name, problem);
    else if (key->command)
        snprintf(problem, POLICY_PROBLEM_MAX, "%s: is set by `%s`", name, key->command);
    else if (value && !key->fits(value))
        snprintf(problem, POLICY_PROBLEM_MAX, "%s: expected %s, found '%.64s'", name, key->expected, value);
    else
        return 0;
    return -EINVAL;
}
