/* SPDX-License-Identifier: Apache-2.0 */
/* The table of what can be set for a run. */
#include "ckpt/policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/keep_policy.h"

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

/* -- keep -------------------------------------------------------------------------------------------------
 */

#define POLICY_EXPECTED_COUNT "a number from 1 on, or " KEEP_OFF

static bool policy_is_keep_last(const char *value)
{
    return keep_policy_set(NULL, "keep-last", value);
}

static bool policy_is_keep_best(const char *value)
{
    return keep_policy_set(NULL, "keep-best", value);
}

static bool policy_is_max_bytes(const char *value)
{
    return keep_policy_set(NULL, "max-bytes", value);
}

static bool policy_is_max_age(const char *value)
{
    return keep_policy_set(NULL, "max-age", value);
}

static bool policy_is_shed(const char *value)
{
    return keep_policy_set(NULL, KEEP_SHED, value);
}

/* -- hooks ------------------------------------------------------------------------------------------------
 */

static bool policy_is_command(const char *value)
{
    size_t length = strlen(value);
    for (const char *at = value; *at; at++) {
        if ((unsigned char)*at < ' ' && *at != '\t')
            return false;
    }
    return length > 0 && length <= POLICY_COMMAND_MAX && strspn(value, " \t") < length;
}

/* A whole number of seconds, from 1 to a week. */
static bool policy_is_time_limit(const char *value)
{
    enum { WEEK = 7 * 24 * 3600, DIGITS = 6 };
    size_t length = strlen(value);
    return length > 0 && length <= DIGITS && strspn(value, "0123456789") == length && atol(value) >= 1 &&
           atol(value) <= WEEK;
}

bool policy_is_hook(const char *key)
{
    const struct policy_key *row = policy_find_key(key);
    return row && row->fits == policy_is_command;
}

/* -- export -----------------------------------------------------------------------------------------------
 */

static bool policy_parse_every(const char *text, int64_t *steps)
{
    static const char every[] = "every ";
    char *end;
    if (strncmp(text, every, sizeof every - 1) != 0)
        return false;
    text += sizeof every - 1;
    if (*text < '1' || *text > '9')
        return false;
    errno = 0;
    *steps = strtoll(text, &end, 10);
    return *end == '\0' && errno == 0;
}

bool policy_parse_export_when(const char *text, struct policy_export_when *out)
{
    static const char *const words[] = {[POLICY_EXPORT_COMPLETE] = "complete",
                                        [POLICY_EXPORT_LATEST] = "latest",
                                        [POLICY_EXPORT_BEST] = "best",
                                        [POLICY_EXPORT_PINNED] = "pinned"};
    *out = (struct policy_export_when){.kind = POLICY_EXPORT_EVERY};
    if (policy_parse_every(text, &out->steps))
        return true;
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i]) == 0) {
            out->kind = (enum policy_export_kind)i;
            return true;
        }
    }
    return false;
}

static bool policy_is_export_when(const char *value)
{
    struct policy_export_when when;
    return policy_parse_export_when(value, &when);
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

#define POLICY_HOOK_ROW(event, when)                                                                         \
    {                                                                                                        \
        .name = POLICY_HOOK event, .expected = "a command line of at most 1000 bytes",                       \
        .summary = "what is run when " when, .fits = policy_is_command                                       \
    }

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
    {.name = "keep-last",
     .expected = POLICY_EXPECTED_COUNT,
     .summary = "how many of the newest checkpoints stay",
     .fits = policy_is_keep_last},
    {.name = "keep-best",
     .expected = "N, N:METRIC or N:METRIC:min|max, or " KEEP_OFF,
     .summary = "how many of the best checkpoints stay, and by what they are compared",
     .fits = policy_is_keep_best},
    {.name = "keep-every",
     .expected = POLICY_EXPECTED_COUNT,
     .summary = "checkpoints whose step is a multiple of it stay",
     .fits = policy_is_keep_last},
    {.name = "keep-hourly",
     .expected = POLICY_EXPECTED_COUNT,
     .summary = "of so many hours the last checkpoint stays",
     .fits = policy_is_keep_last},
    {.name = "keep-daily",
     .expected = POLICY_EXPECTED_COUNT,
     .summary = "of so many days the last checkpoint stays",
     .fits = policy_is_keep_last},
    {.name = "max-bytes",
     .expected = "a size as 500GB or 1.5TiB, or " KEEP_OFF,
     .summary = "what a run's checkpoints may take together",
     .fits = policy_is_max_bytes},
    {.name = "max-age",
     .expected = "a time as 12h, 30d or 8w, or " KEEP_OFF,
     .summary = "how old a checkpoint gets",
     .fits = policy_is_max_age},
    {.name = KEEP_SHED,
     .expected = KEEP_SHED_OPTIMIZER " or " KEEP_OFF,
     .summary = "what of older checkpoints goes first when the space is needed",
     .fits = policy_is_shed},
    POLICY_HOOK_ROW("complete", "a checkpoint is complete"),
    POLICY_HOOK_ROW("best", "a checkpoint is the best of its run"),
    POLICY_HOOK_ROW("removed", "a checkpoint was removed"),
    POLICY_HOOK_ROW("exported", "a checkpoint was exported"),
    POLICY_HOOK_ROW("export-failed", "a checkpoint could not be exported, which is tried again"),
    POLICY_HOOK_ROW("torn", "a checkpoint is torn"),
    POLICY_HOOK_ROW("assembled", "a model was made of a checkpoint's shards"),
    {.name = POLICY_HOOK_TIMEOUT,
     .expected = "a number of seconds, at most a week",
     .summary = "after so long a hook is killed",
     .fallback = "600",
     .fits = policy_is_time_limit},
    {.name = POLICY_EXPORT,
     .expected = "an absolute path",
     .summary = "the directory on the plain disk that models of checkpoints are exported to",
     .fits = policy_is_path},
    {.name = POLICY_EXPORT_WHEN,
     .expected = "complete, latest, best, pinned or 'every N' (steps)",
     .summary = "which checkpoints are exported",
     .fallback = "complete",
     .fits = policy_is_export_when},
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
