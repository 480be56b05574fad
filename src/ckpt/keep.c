/* SPDX-License-Identifier: Apache-2.0 */
/* The rules. */
#include "ckpt/keep.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define KEEP_HOUR (3600 * CLOCK_NS_PER_SECOND)
#define KEEP_DAY  (24 * KEEP_HOUR)

/* So many complete checkpoints stay as they are, whatever is shed. */
enum { KEEP_NEWEST = 2 };

struct keeper {
    const struct keep_policy *policy;
    struct keep_item *items; /* of each checkpoint, in the order that the rule at work needs */
    size_t count;
};

/* A checkpoint, as it is sorted. */
struct keep_item {
    const struct keep_checkpoint *checkpoint;
    struct keep_verdict *verdict;
    double value;   /* of the metric; smaller is better */
    bool protected; /* nothing takes it away */
    bool wanted;    /* by a rule */
    bool counts;    /* for the rules */
    bool newest;    /* one of the two newest that a resume can begin with */
};

static void keep_say(struct keep_verdict *verdict, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* One reason more. */
static void keep_say(struct keep_verdict *verdict, const char *format, ...)
{
    size_t length = strlen(verdict->reason);
    va_list arguments;
    if (length > 0 && length + 2 < sizeof verdict->reason)
        length += (size_t)snprintf(verdict->reason + length, sizeof verdict->reason - length, ", ");
    va_start(arguments, format);
    vsnprintf(verdict->reason + length, sizeof verdict->reason - length, format, arguments);
    va_end(arguments);
}

/* -- orders -----------------------------------------------------------------------------------------------
 */

static int keep_compare(int64_t one, int64_t other)
{
    return one < other ? -1 : one > other;
}

/* The oldest first. */
static int keep_by_time(const void *one, const void *other)
{
    const struct keep_checkpoint *a = ((const struct keep_item *)one)->checkpoint;
    const struct keep_checkpoint *b = ((const struct keep_item *)other)->checkpoint;
    int order = keep_compare(a->time, b->time);
    if (!order)
        order = keep_compare(a->step, b->step);
    return order ? order : strcmp(a->path, b->path);
}

static int keep_by_step(const void *one, const void *other)
{
    const struct keep_checkpoint *a = ((const struct keep_item *)one)->checkpoint;
    const struct keep_checkpoint *b = ((const struct keep_item *)other)->checkpoint;
    int order = keep_compare(a->step, b->step);
    if (!order)
        order = keep_compare(a->time, b->time);
    return order ? order : strcmp(a->path, b->path);
}

/* The best first; of equal ones the earlier, as the Trainer has it. */
static int keep_by_value(const void *one, const void *other)
{
    double a = ((const struct keep_item *)one)->value, b = ((const struct keep_item *)other)->value;
    bool measured_a = isfinite(a), measured_b = isfinite(b);
    if (measured_a != measured_b)
        return measured_a ? -1 : 1;
    if (measured_a && a != b)
        return a < b ? -1 : 1;
    return keep_by_step(one, other);
}

/* In which what can go goes: what goes anyway, what no rule wants, what is old. */
static int keep_by_turn(const void *one, const void *other)
{
    const struct keep_item *a = one, *b = other;
    if (a->protected != b->protected)
        return a->protected ? 1 : -1;
    if (a->verdict->goes != b->verdict->goes)
        return a->verdict->goes ? -1 : 1;
    if (a->wanted != b->wanted)
        return a->wanted ? 1 : -1;
    return keep_by_time(one, other);
}

static void keep_sort(struct keeper *keeper, int (*compare)(const void *one, const void *other))
{
    qsort(keeper->items, keeper->count, sizeof *keeper->items, compare);
}

/* -- what is protected ------------------------------------------------------------------------------------
 */

static void keep_protect(struct keep_item *item, const char *why)
{
    item->protected = true;
    keep_say(item->verdict, "%s", why);
}

static bool keep_is_whole(const struct keep_checkpoint *checkpoint)
{
    bool whole = checkpoint->state == COMPLETE_YES || checkpoint->state == COMPLETE_WEIGHTS;
    return whole && !checkpoint->unsettled && !checkpoint->torn;
}

static void keep_protect_one(struct keep_item *item)
{
    const struct keep_checkpoint *checkpoint = item->checkpoint;
    item->counts = keep_is_whole(checkpoint) && checkpoint->numbered;
    if (!checkpoint->numbered)
        keep_protect(item, *checkpoint->path ? "no step in its name" : "the run's own directory");
    if (checkpoint->torn)
        keep_protect(item, "torn");
    else if (checkpoint->unsettled)
        keep_protect(item, "being written");
    else if (checkpoint->state == COMPLETE_NOT)
        keep_protect(item, "incomplete");
    else if (checkpoint->state == COMPLETE_UNKNOWN)
        keep_protect(item, "unknown state");
    if (checkpoint->pinned)
        keep_protect(item, "pinned");
    if (checkpoint->best)
        keep_protect(item, "best by trainer_state.json");
    if (checkpoint->named)
        keep_protect(item, "named for a resume");
    if (checkpoint->loaded)
        keep_protect(item, "loaded by a running job");
    if (checkpoint->exported)
        keep_protect(item, "not exported yet");
    if (checkpoint->open)
        keep_protect(item, "open");
    if (checkpoint->foreign)
        keep_protect(item, "another user's");
    /* What has a higher step may await a rank still. */
    if (checkpoint->latest)
        keep_protect(item, "latest");
}

/* The last one of the items, as they are sorted, with all that a resume needs, and the last whole one. */
static void keep_protect_latest(struct keeper *keeper, bool by_step)
{
    bool whole = false, complete = false;
    for (size_t i = keeper->count; i-- > 0 && !complete;) {
        struct keep_item *item = &keeper->items[i];
        if (!item->counts || (by_step && item->checkpoint->step < 0))
            continue;
        complete = item->checkpoint->state == COMPLETE_YES;
        if ((complete || !whole) && !strstr(item->verdict->reason, "latest"))
            keep_protect(item, "latest");
        whole = true;
    }
}

/* As the items are sorted. */
static void keep_mark_newest(struct keeper *keeper, bool by_step)
{
    int left = KEEP_NEWEST;
    for (size_t i = keeper->count; i-- > 0 && left > 0;) {
        struct keep_item *item = &keeper->items[i];
        if (!item->counts || item->checkpoint->state != COMPLETE_YES ||
            (by_step && item->checkpoint->step < 0))
            continue;
        item->newest = true;
        left--;
    }
}

/* -- rules ------------------------------------------------------------------------------------------------
 */

static void keep_want(struct keep_item *item, const char *rule, int64_t number)
{
    char text[64];
    snprintf(text, sizeof text, "%s %" PRId64, rule, number);
    item->wanted = true;
    if (!strstr(item->verdict->reason, text))
        keep_say(item->verdict, "%s", text);
}

static void keep_last(struct keeper *keeper, bool by_step)
{
    int64_t left = keeper->policy->last;
    for (size_t i = keeper->count; i-- > 0 && left > 0;) {
        struct keep_item *item = &keeper->items[i];
        if (!item->counts || (by_step && item->checkpoint->step < 0))
            continue;
        keep_want(item, "keep-last", keeper->policy->last);
        left--;
    }
}

static void keep_every(struct keeper *keeper)
{
    for (size_t i = 0; i < keeper->count && keeper->policy->every > 0; i++) {
        struct keep_item *item = &keeper->items[i];
        if (item->counts && item->checkpoint->step >= 0 &&
            item->checkpoint->step % keeper->policy->every == 0)
            keep_want(item, "keep-every", keeper->policy->every);
    }
}

/* Which hour, or day, a time lies in; times before 1970 too. */
static int64_t keep_period(int64_t time, int64_t length)
{
    return time / length - (time % length < 0);
}

/* Of the last `number` periods that have any, each one's last. The items are sorted by time. */
static void keep_periodic(struct keeper *keeper, const char *rule, int64_t number, int64_t length)
{
    int64_t left = number, period = 0;
    for (size_t i = keeper->count; i-- > 0 && left > 0;) {
        struct keep_item *item = &keeper->items[i];
        int64_t own = keep_period(item->checkpoint->time, length);
        if (!item->counts || item->checkpoint->time == 0 || (left < number && own == period))
            continue;
        period = own;
        keep_want(item, rule, number);
        left--;
    }
}

static bool keep_is_lower_better(const struct keep_policy *policy, const char *metric)
{
    size_t length = strlen(metric);
    if (policy->direction != KEEP_DIRECTION_OF_NAME)
        return policy->direction == KEEP_MIN;
    return length >= 4 && strcmp(metric + length - 4, "loss") == 0;
}

static void keep_best(struct keeper *keeper)
{
    const struct keep_policy *policy = keeper->policy;
    const char *metric = *policy->metric ? policy->metric : "eval_loss";
    bool lower = keep_is_lower_better(policy, metric);
    int64_t left = policy->best;
    for (size_t i = 0; i < keeper->count; i++) {
        struct keep_item *item = &keeper->items[i];
        const struct trainer_progress *progress = item->checkpoint->progress;
        item->value = NAN;
        if (item->counts && progress && trainer_progress_find(progress, metric, &item->value) && !lower)
            item->value = -item->value;
    }
    keep_sort(keeper, keep_by_value);
    for (size_t i = 0; i < keeper->count && left > 0 && isfinite(keeper->items[i].value); i++, left--) {
        keeper->items[i].wanted = true;
        keep_say(keeper->items[i].verdict, "keep-best %" PRId64 " by %s", policy->best, metric);
    }
}

/* -- what goes --------------------------------------------------------------------------------------------
 */

static void keep_let_go(struct keep_item *item, const char *why)
{
    item->verdict->goes = true;
    snprintf(item->verdict->reason, sizeof item->verdict->reason, "%s", why);
}

static void keep_drop_unwanted(struct keeper *keeper)
{
    for (size_t i = 0; i < keeper->count; i++) {
        struct keep_item *item = &keeper->items[i];
        if (!item->protected && !item->wanted && keep_policy_has_rule(keeper->policy))
            keep_let_go(item, "no rule wants it");
    }
}

static void keep_drop_old(struct keeper *keeper, int64_t now)
{
    for (size_t i = 0; i < keeper->count && keeper->policy->max_age > 0; i++) {
        struct keep_item *item = &keeper->items[i];
        int64_t time = item->checkpoint->time;
        /* A time to come, of a clock that was wrong, is no age. */
        if (!item->protected && time > 0 && time < now && now - time > keeper->policy->max_age)
            keep_let_go(item, "older than max-age");
    }
}

/* Sums of sizes that were made up end at the greatest number. */
static int64_t keep_sum(int64_t sum, int64_t bytes)
{
    return bytes <= 0 ? sum : sum > INT64_MAX - bytes ? INT64_MAX : sum + bytes;
}

/* The items are sorted by turns. */
static void keep_drop_over(struct keeper *keeper)
{
    int64_t sum = 0;
    for (size_t i = keeper->count; i-- > 0 && keeper->policy->max_bytes > 0;) {
        struct keep_item *item = &keeper->items[i];
        if (item->verdict->goes)
            continue;
        /* From the last to go on, so many as there is room for. */
        sum = keep_sum(sum, item->checkpoint->bytes);
        if (sum > keeper->policy->max_bytes && !item->protected)
            keep_let_go(item, "over max-bytes");
    }
}

static void keep_number(struct keeper *keeper)
{
    size_t order = 0;
    keep_sort(keeper, keep_by_turn);
    for (size_t i = 0; i < keeper->count; i++) {
        struct keep_item *item = &keeper->items[i];
        item->verdict->expendable = !item->protected && keep_policy_is_set(keeper->policy);
        item->verdict->order = item->verdict->expendable ? ++order : 0;
        item->verdict->sheds = keeper->policy->shed && !item->protected && !item->newest &&
                               item->checkpoint->state == COMPLETE_YES;
        if (!item->verdict->reason[0])
            keep_say(item->verdict, "%s",
                     keep_policy_is_set(keeper->policy) ? "within the limits" : "no keep policy");
    }
}

errint keep_judge(const struct keep_policy *policy, const struct keep_checkpoint *at, size_t count,
                  int64_t now, struct keep_verdict *out)
{
    cleanup_free struct keep_item *items = calloc(count + 1, sizeof *items);
    struct keeper keeper = {policy, items, count};
    if (!items)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        out[i] = (struct keep_verdict){0};
        items[i] = (struct keep_item){.checkpoint = &at[i], .verdict = &out[i]};
        keep_protect_one(&items[i]);
    }
    keep_sort(&keeper, keep_by_step);
    keep_protect_latest(&keeper, true);
    keep_mark_newest(&keeper, true);
    keep_last(&keeper, true);
    keep_every(&keeper);
    keep_sort(&keeper, keep_by_time);
    keep_protect_latest(&keeper, false);
    keep_mark_newest(&keeper, false);
    keep_last(&keeper, false);
    keep_periodic(&keeper, "keep-hourly", policy->hourly, KEEP_HOUR);
    keep_periodic(&keeper, "keep-daily", policy->daily, KEEP_DAY);
    keep_best(&keeper);
    keep_drop_unwanted(&keeper);
    keep_drop_old(&keeper, now);
    keep_sort(&keeper, keep_by_turn);
    keep_drop_over(&keeper);
    keep_number(&keeper);
    return 0;
}
