/* SPDX-License-Identifier: Apache-2.0 */
/* Which checkpoints stay: each rule, how they combine, and a month of saves. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/quantity.h"
#include "check.h"
#include "ckpt/keep.h"
#include "ckpt/policy.h"

enum { MANY = 5000 };

#define HOUR (3600 * CLOCK_NS_PER_SECOND)
#define DAY  (24 * HOUR)
/* A midnight. */
#define START (INT64_C(20000) * DAY)

static struct keep_policy policy;
static struct keep_checkpoint at[MANY];
static struct keep_verdict verdicts[MANY];
static struct trainer_progress progress[MANY];
static char paths[MANY][32];
static size_t count;
static int64_t now;

static void begin(void)
{
    policy = (struct keep_policy){0};
    count = 0;
    now = START + DAY;
}

static struct keep_checkpoint *add(int64_t step, int64_t time)
{
    snprintf(paths[count], sizeof paths[count], "checkpoint-%lld", (long long)step);
    progress[count] = (struct trainer_progress){.whole = true, .step = step};
    at[count] = (struct keep_checkpoint){.path = paths[count],
                                         .step = step,
                                         .time = time,
                                         .bytes = 100,
                                         .state = COMPLETE_YES,
                                         .numbered = true,
                                         .progress = &progress[count]};
    return &at[count++];
}

/* Steps 1 to `number`, an hour apart. */
static void add_hourly(int64_t number)
{
    for (int64_t i = 1; i <= number; i++)
        add(i, START + i * HOUR);
}

static void measure(struct keep_checkpoint *checkpoint, const char *name, double value)
{
    struct trainer_progress *own = &progress[checkpoint - at];
    snprintf(own->metrics[own->metric_count].name, TRAINER_NAME_MAX, "%s", name);
    own->metrics[own->metric_count++].value = value;
}

static void set(const char *key, const char *value)
{
    CHECK(keep_policy_set(&policy, key, value));
}

/* The steps of those that stay: "3 5 ". */
static const char *staying(void)
{
    static char text[4096];
    size_t length = 0;
    text[0] = '\0';
    CHECK_EQUAL(0, keep_judge(&policy, at, count, now, verdicts));
    for (size_t i = 0; i < count && length < sizeof text - 32; i++) {
        CHECK(verdicts[i].reason[0] != '\0');
        CHECK(!verdicts[i].goes || verdicts[i].order > 0);
        if (!verdicts[i].goes)
            length += (size_t)snprintf(text + length, sizeof text - length, "%lld ", (long long)at[i].step);
    }
    return text;
}

/* -- each rule --------------------------------------------------------------------------------------------
 */

static void test_no_policy(void)
{
    begin();
    add_hourly(4);
    now = START + 10000 * DAY;
    CHECK_TEXT("1 2 3 4 ", staying());
    CHECK_TEXT("no keep policy", verdicts[0].reason);
    CHECK(!verdicts[0].expendable);
    set("keep-last", "off");
    CHECK_TEXT("1 2 3 4 ", staying());
}

static void test_last(void)
{
    begin();
    add_hourly(5);
    set("keep-last", "2");
    CHECK_TEXT("4 5 ", staying());
    CHECK_TEXT("latest, keep-last 2", verdicts[4].reason);
    CHECK_TEXT("keep-last 2", verdicts[3].reason);
    CHECK_TEXT("no rule wants it", verdicts[0].reason);
    CHECK_EQUAL(1, verdicts[0].order);
    CHECK_EQUAL(3, verdicts[2].order);
    CHECK(verdicts[3].expendable);
    CHECK_EQUAL(4, verdicts[3].order);
    CHECK(!verdicts[4].expendable);
    CHECK_EQUAL(0, verdicts[4].order);
    set("keep-last", "7");
    CHECK_TEXT("1 2 3 4 5 ", staying());
}

static void test_best(void)
{
    static const double losses[] = {5, 2, NAN, 3, 1, INFINITY, 4};
    begin();
    add_hourly(8);
    for (size_t i = 0; i < 7; i++)
        measure(&at[i], "eval_loss", losses[i]);
    set("keep-best", "2");
    CHECK_TEXT("2 5 8 ", staying());
    CHECK_TEXT("keep-best 2 by eval_loss", verdicts[1].reason);
    set("keep-best", "1:eval_loss:max");
    CHECK_TEXT("1 8 ", staying());
    set("keep-best", "3 by eval_loss (min)");
    CHECK_TEXT("2 4 5 8 ", staying());
    /* What is not measured is neither good nor bad. */
    set("keep-best", "20");
    CHECK_TEXT("1 2 4 5 7 8 ", staying());
    set("keep-best", "3:eval_accuracy");
    CHECK_TEXT("8 ", staying());
    /* Higher is better, and of equal ones the earlier. */
    measure(&at[3], "eval_accuracy", 0.5);
    measure(&at[2], "eval_accuracy", 0.5);
    measure(&at[1], "eval_accuracy", -0.5);
    set("keep-best", "1:eval_accuracy");
    CHECK_TEXT("3 8 ", staying());
    set("keep-best", "1:eval_accuracy:min");
    CHECK_TEXT("2 8 ", staying());
}

static void test_every(void)
{
    begin();
    add_hourly(10);
    add(-1, START);
    set("keep-every", "4");
    CHECK_TEXT("4 8 10 ", staying());
    CHECK_TEXT("keep-every 4", verdicts[3].reason);
}

static void test_periods(void)
{
    begin();
    for (int64_t i = 0; i < 12; i++)
        add(i, START + i * 20 * 60 * CLOCK_NS_PER_SECOND);
    set("keep-hourly", "2");
    CHECK_TEXT("8 11 ", staying());
    set("keep-hourly", "3");
    CHECK_TEXT("5 8 11 ", staying());
    begin();
    /* Hours without a checkpoint are not counted; times before 1970 are times. */
    add(1, START - 90 * DAY);
    add(2, START);
    add(3, START + HOUR - 1);
    add(4, START + 30 * HOUR);
    set("keep-hourly", "3");
    CHECK_TEXT("1 3 4 ", staying());
    set("keep-hourly", "off");
    set("keep-daily", "2");
    CHECK_TEXT("3 4 ", staying());
    begin();
    add(1, -2 * HOUR);
    add(2, -HOUR);
    add(3, HOUR);
    add(4, 2 * HOUR);
    set("keep-daily", "2");
    CHECK_TEXT("2 4 ", staying());
}

/* -- what is protected ------------------------------------------------------------------------------------
 */

static void test_protected(void)
{
    begin();
    add_hourly(13);
    at[0].pinned = true;
    at[1].open = true;
    at[2].best = true;
    at[3].loaded = true;
    at[4].exported = true;
    at[5].unsettled = true;
    at[6].torn = true;
    at[7].state = COMPLETE_UNKNOWN;
    at[8].state = COMPLETE_NOT;
    at[9].foreign = true;
    at[10].named = true;
    set("keep-last", "1");
    set("max-age", "1s");
    set("max-bytes", "1");
    now = START + 1000 * DAY;
    CHECK_TEXT("1 2 3 4 5 6 7 8 9 10 11 13 ", staying());
    static const char *const reasons[] = {"pinned",
                                          "open",
                                          "best by trainer_state.json",
                                          "loaded by a running job",
                                          "not exported yet",
                                          "being written",
                                          "torn",
                                          "unknown state",
                                          "incomplete",
                                          "another user's",
                                          "named for a resume"};
    for (size_t i = 0; i < 11; i++) {
        CHECK_TEXT(reasons[i], verdicts[i].reason);
        CHECK(!verdicts[i].expendable);
        CHECK_EQUAL(0, verdicts[i].order);
    }
    CHECK_TEXT("older than max-age", verdicts[11].reason);
    CHECK_TEXT("latest, keep-last 1", verdicts[12].reason);
}

/* Only what is whole is counted, and the last one that a resume can begin with is never removed. */
static void test_latest(void)
{
    begin();
    add_hourly(6);
    at[5].unsettled = true;
    at[4].state = COMPLETE_WEIGHTS;
    at[3].state = COMPLETE_NOT;
    set("keep-last", "1");
    CHECK_TEXT("3 4 5 6 ", staying());
    CHECK_TEXT("latest", verdicts[2].reason);
    CHECK_TEXT("latest, keep-last 1", verdicts[4].reason);
    /* Nothing but weights. */
    begin();
    add_hourly(3);
    for (int i = 0; i < 3; i++)
        at[i].state = COMPLETE_WEIGHTS;
    set("keep-last", "1");
    CHECK_TEXT("3 ", staying());
    /* Models that somebody put there are not counted, and stay. */
    at[1].numbered = at[2].numbered = false;
    CHECK_TEXT("1 2 3 ", staying());
    CHECK_TEXT("no step in its name", verdicts[2].reason);
    /* The files of the run's own directory. */
    begin();
    add_hourly(3);
    *add(-1, START) = (struct keep_checkpoint){.path = "", .step = -1, .state = COMPLETE_YES};
    set("keep-last", "1");
    CHECK_TEXT("3 -1 ", staying());
    CHECK_TEXT("the run's own directory", verdicts[3].reason);
}

static void test_clocks(void)
{
    begin();
    add_hourly(4);
    /* The clock went back: what is saved now is no less the last. */
    add(5, START - 100 * DAY);
    add(6, START - 99 * DAY);
    set("keep-last", "2");
    CHECK_TEXT("3 4 5 6 ", staying());
    /* The run went back: likewise. */
    begin();
    add_hourly(4);
    add(2, START + 5 * HOUR);
    snprintf(paths[4], sizeof paths[4], "again-2");
    set("keep-last", "1");
    CHECK_TEXT("4 2 ", staying());
    CHECK_TEXT("latest, keep-last 1", verdicts[3].reason);
    CHECK_TEXT("latest, keep-last 1", verdicts[4].reason);
    /* A time to come is no age, nor is one that is not known. */
    begin();
    add(1, now + 100 * DAY);
    add(2, 0);
    add(3, now - 2 * HOUR);
    add(4, now - HOUR);
    set("max-age", "1h");
    CHECK_TEXT("1 2 4 ", staying());
    CHECK_TEXT("older than max-age", verdicts[2].reason);
    /* Equal times. */
    begin();
    for (int i = 1; i <= 5; i++)
        add(i, START);
    set("keep-last", "2");
    CHECK_TEXT("4 5 ", staying());
    set("keep-last", "off");
    set("keep-hourly", "3");
    CHECK_TEXT("5 ", staying());
}

/* -- how they combine -------------------------------------------------------------------------------------
 */

static void test_union(void)
{
    begin();
    add_hourly(12);
    measure(&at[2], "eval_loss", 1);
    measure(&at[6], "eval_loss", 2);
    set("keep-last", "2");
    set("keep-best", "1");
    set("keep-every", "5");
    CHECK_TEXT("3 5 10 11 12 ", staying());
    CHECK_TEXT("keep-best 1 by eval_loss", verdicts[2].reason);
}

static void test_limits(void)
{
    begin();
    add_hourly(10);
    set("max-bytes", "450B");
    CHECK_TEXT("7 8 9 10 ", staying());
    CHECK_TEXT("over max-bytes", verdicts[0].reason);
    CHECK_TEXT("within the limits", verdicts[6].reason);
    /* What is protected takes its room, and the rest goes from the oldest on. */
    at[1].pinned = true;
    CHECK_TEXT("2 8 9 10 ", staying());
    at[7].bytes = 150;
    CHECK_TEXT("2 8 9 10 ", staying());
    at[7].bytes = 151;
    CHECK_TEXT("2 9 10 ", staying());
    at[9].bytes = INT64_MAX;
    at[8].bytes = INT64_MAX;
    CHECK_TEXT("2 10 ", staying());
    /* A rule's wish gives way, but after all else. */
    begin();
    add_hourly(6);
    set("keep-every", "2");
    set("max-bytes", "250");
    CHECK_TEXT("4 6 ", staying());
    CHECK_TEXT("over max-bytes", verdicts[1].reason);
    CHECK_EQUAL(4, verdicts[1].order);
    /* Ages give way to nothing but what is protected. */
    begin();
    add_hourly(6);
    set("keep-last", "4");
    set("max-age", "2h");
    now = START + 7 * HOUR;
    CHECK_TEXT("5 6 ", staying());
    CHECK_TEXT("older than max-age", verdicts[3].reason);
    now = START + 7 * DAY;
    CHECK_TEXT("6 ", staying());
}

/* Room is made from what no rule wants, the oldest first, then from what rules want. */
static void test_expendable(void)
{
    begin();
    add_hourly(6);
    at[0].pinned = true;
    set("max-bytes", "1TiB");
    CHECK_TEXT("1 2 3 4 5 6 ", staying());
    static const size_t orders[] = {0, 1, 2, 3, 4, 0};
    for (size_t i = 0; i < 6; i++) {
        CHECK_EQUAL(orders[i], verdicts[i].order);
        CHECK_EQUAL(orders[i] > 0, verdicts[i].expendable);
    }
}

/* Of which steps the optimizer's state may go: "1 2 ". */
static const char *shedding(void)
{
    static char text[256];
    size_t length = 0;
    text[0] = '\0';
    CHECK_EQUAL(0, keep_judge(&policy, at, count, now, verdicts));
    for (size_t i = 0; i < count; i++) {
        if (verdicts[i].sheds)
            length += (size_t)snprintf(text + length, sizeof text - length, "%lld ", (long long)at[i].step);
    }
    return text;
}

static void test_shed(void)
{
    begin();
    add_hourly(6);
    CHECK_TEXT("", shedding());
    set("shed", "optimizer");
    CHECK(keep_policy_gives(&policy) && !keep_policy_is_set(&policy));
    CHECK_TEXT("1 2 3 4 ", shedding());
    CHECK_TEXT("1 2 3 4 5 6 ", staying());
    CHECK(!verdicts[0].expendable);
    at[0].pinned = at[1].loaded = true;
    CHECK_TEXT("3 4 ", shedding());
    at[2].best = at[3].open = true;
    CHECK_TEXT("", shedding());
    /* What has no state of an optimizer counts for nothing, and what is not complete neither. */
    begin();
    add_hourly(6);
    set("shed", "optimizer");
    at[5].state = COMPLETE_WEIGHTS;
    at[4].state = COMPLETE_NOT;
    at[1].state = COMPLETE_UNKNOWN;
    CHECK_TEXT("1 ", shedding());
    /* The run went back to an earlier step: the two newest by steps stay, and those by time. */
    begin();
    add_hourly(6);
    add(2, START + 7 * HOUR);
    add(3, START + 8 * HOUR);
    set("shed", "optimizer");
    CHECK_TEXT("1 2 3 4 ", shedding());
    set("shed", "off");
    CHECK_TEXT("", shedding());
}

/* -- many -------------------------------------------------------------------------------------------------
 */

static void test_many(void)
{
    begin();
    for (int64_t i = 0; i < MANY; i++)
        measure(add(i, START + i % 7 * HOUR), "eval_loss", (double)(i * 7919 % MANY));
    set("keep-last", "10");
    set("keep-best", "10");
    set("keep-every", "1000");
    set("keep-hourly", "24");
    set("max-bytes", "1GiB");
    staying();
    size_t stay = 0;
    for (size_t i = 0; i < count; i++)
        stay += !verdicts[i].goes;
    /* 10 by step, 10 by time, 10 best, 5 steps, 7 hours; some are the same. */
    CHECK(stay >= 25 && stay <= 42);
    CHECK(!verdicts[MANY - 1].goes);
}

/* What goes is gone at the next save. */
static void remove_goers(void)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (verdicts[i].goes)
            continue;
        struct keep_checkpoint moved = at[i];
        memmove(paths[kept], paths[i], sizeof paths[i]);
        progress[kept] = progress[i];
        moved.path = paths[kept];
        moved.progress = &progress[kept];
        at[kept++] = moved;
    }
    count = kept;
}

static int64_t sum_of_bytes(void)
{
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += at[i].bytes;
    return sum;
}

/* A save every 20 minutes for 31 days, on a disk that takes 60 of them. */
static void test_month(void)
{
    const int saves = 31 * 24 * 3;
    begin();
    set("keep-last", "3");
    set("keep-best", "2");
    set("keep-hourly", "12");
    set("keep-daily", "40");
    set("keep-every", "300");
    set("max-bytes", "6000B");
    double best = INFINITY;
    int64_t best_step = 0;
    for (int i = 1; i <= saves; i++) {
        now = START + i * 20 * 60 * CLOCK_NS_PER_SECOND;
        double loss = 2 + i * 7919 % 100 / 100.0 + 1000.0 / i;
        best_step = loss < best ? i : best_step;
        best = loss < best ? loss : best;
        measure(add(i, now), "eval_loss", loss);
        CHECK_EQUAL(0, keep_judge(&policy, at, count, now, verdicts));
        CHECK(!verdicts[count - 1].goes);
        remove_goers();
        CHECK(sum_of_bytes() <= 6000);
    }
    /* The last three, the last of each of 12 hours and of each day (the present one's too), two best,
     * multiples of 300: all there is room for. */
    size_t last = 0, days = 0, hundreds = 0, found_best = 0;
    for (size_t i = 0; i < count; i++) {
        last += at[i].step > saves - 3;
        days += (at[i].step + 1) % 72 == 0;
        hundreds += at[i].step % 300 == 0;
        found_best += at[i].step == best_step;
    }
    CHECK_EQUAL(3, last);
    CHECK_EQUAL(31, days);
    CHECK_EQUAL(7, hundreds);
    CHECK_EQUAL(1, found_best);
    /* The disk gets smaller: the oldest go, and the days are not what they were. */
    set("max-bytes", "2000B");
    CHECK_EQUAL(0, keep_judge(&policy, at, count, now, verdicts));
    remove_goers();
    CHECK_EQUAL(20, count);
    CHECK_EQUAL(saves, at[count - 1].step);
    /* A year without a save: the last one stays. */
    set("max-age", "30d");
    now += 365 * DAY;
    CHECK_EQUAL(0, keep_judge(&policy, at, count, now, verdicts));
    remove_goers();
    CHECK_EQUAL(1, count);
    CHECK_EQUAL(saves, at[0].step);
}

/* -- values -----------------------------------------------------------------------------------------------
 */

static void check_refused(const char *key, const char *value)
{
    char problem[POLICY_PROBLEM_MAX] = "";
    CHECK_EQUAL(-EINVAL, policy_check(key, value, problem));
    CHECK(strstr(problem, key) && strstr(problem, "expected") && strstr(problem, "or off"));
}

static void test_values(void)
{
    static const char *const fine[][2] = {{"keep-last", "1"},           {"keep-last", "off"},
                                          {"keep-best", "3"},           {"keep-best", "3:loss"},
                                          {"keep-best", "3:acc:max"},   {"keep-best", "2 by eval_loss (min)"},
                                          {"keep-best", "2 by f1 max"}, {"keep-every", "1000"},
                                          {"keep-hourly", "24"},        {"keep-daily", "7"},
                                          {"max-bytes", "500GB"},       {"max-bytes", "1.5TiB"},
                                          {"max-bytes", "10G"},         {"max-bytes", "1048576"},
                                          {"max-age", "30d"},           {"max-age", "1.5h"},
                                          {"max-age", "90s"},           {"max-age", "off"},
                                          {"shed", "optimizer"},        {"shed", "off"}};
    static const char *const wrong[][2] = {
        {"keep-last", "0"},    {"keep-last", "-1"},        {"keep-last", "two"},
        {"keep-last", ""},     {"keep-last", "3 "},        {"keep-last", "99999999999"},
        {"keep-best", "loss"}, {"keep-best", "2:loss:up"}, {"keep-best", "2:a:min:b"},
        {"keep-best", ""},     {"keep-every", "1k"},       {"max-bytes", "0"},
        {"max-bytes", "-1G"},  {"max-bytes", "nan"},       {"max-bytes", "1e99"},
        {"max-bytes", "10 G"}, {"max-bytes", "0x10"},      {"max-age", "30"},
        {"max-age", "0.5s"},   {"max-age", "7 d"},         {"max-age", "1y"},
        {"max-age", "inf"},    {"shed", "weights"},        {"shed", ""}};
    char problem[POLICY_PROBLEM_MAX];
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        CHECK_EQUAL(0, policy_check(fine[i][0], fine[i][1], problem));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_refused(wrong[i][0], wrong[i][1]);
    for (size_t i = 0; i < keep_policy_key_count; i++)
        CHECK(policy_find_key(keep_policy_keys[i]) != NULL);
    begin();
    set("keep-best", "2:eval_f1:max");
    CHECK_TEXT("eval_f1", policy.metric);
    CHECK_EQUAL(KEEP_MAX, policy.direction);
    set("max-bytes", "1.5KiB");
    CHECK_EQUAL(1536, policy.max_bytes);
    set("max-bytes", "1.5KB");
    CHECK_EQUAL(1500, policy.max_bytes);
    set("max-age", "1.5h");
    CHECK_EQUAL(90 * 60 * CLOCK_NS_PER_SECOND, policy.max_age);
    set("keep-best", "off");
    set("max-bytes", "off");
    set("max-age", "off");
    CHECK(!keep_policy_is_set(&policy));
}

int main(void)
{
    check_run("without a policy nothing goes", test_no_policy);
    check_run("keep-last", test_last);
    check_run("keep-best: NaN is no value, and directions are known", test_best);
    check_run("keep-every", test_every);
    check_run("keep-hourly and keep-daily", test_periods);
    check_run("what is protected stays whatever the policy says", test_protected);
    check_run("the latest is one that a resume can begin with", test_latest);
    check_run("clocks and runs that go back", test_clocks);
    check_run("the rules are a union", test_union);
    check_run("max-bytes and max-age take what rules want, and nothing that is protected", test_limits);
    check_run("what is expendable, and in which order", test_expendable);
    check_run("what may give up its optimizer's state", test_shed);
    check_run("thousands", test_many);
    check_run("a month of saves with a limit", test_month);
    check_run("values are read, and refused with a line", test_values);
    return check_done();
}
