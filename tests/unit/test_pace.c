/* SPDX-License-Identifier: Apache-2.0 */
/* Rates, forecasts, metrics' text, and who writes. */
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "check.h"
#include "ckpt/forecast.h"
#include "fs/counters.h"
#include "fs/exposition.h"
#include "fs/pace.h"

#define SECOND CLOCK_NS_PER_SECOND
#define MIB    INT64_C(1048576)

/* -- pace -------------------------------------------------------------------------------------------------
 */

static void test_rate_of_steady_growth(void)
{
    struct pace pace = {0};
    pace_note(&pace, 5 * MIB, 100 * SECOND);
    CHECK(pace.rate < 0);
    for (int64_t i = 1; i <= 20; i++)
        pace_note(&pace, 5 * MIB + i * 10 * MIB, 100 * SECOND + i * SECOND);
    CHECK(fabs(pace.rate - 10.0 * (double)MIB) < 1);
}

static void test_rate_follows_a_change(void)
{
    struct pace pace = {0};
    int64_t bytes = 0, now = SECOND;
    pace_note(&pace, bytes, now);
    for (int i = 0; i < 10; i++)
        pace_note(&pace, bytes += 100 * MIB, now += SECOND);
    for (int i = 0; i < 10; i++)
        pace_note(&pace, bytes += MIB, now += SECOND);
    CHECK(pace.rate > 0.9 * (double)MIB && pace.rate < 3.0 * (double)MIB);
    for (int i = 0; i < 60; i++)
        pace_note(&pace, bytes, now += SECOND);
    CHECK(pace.rate >= 0 && pace.rate < 1000);
}

static void test_rate_of_close_looks(void)
{
    struct pace pace = {0};
    pace_note(&pace, 0, SECOND);
    /* Two who look at the same time see the same; and many do not make it jump. */
    for (int64_t i = 1; i <= 1000; i++)
        pace_note(&pace, i * MIB / 100, SECOND + i * SECOND / 100);
    CHECK(fabs(pace.rate - (double)MIB) < 0.01 * (double)MIB);
    pace_note(&pace, 1000 * MIB, pace.time + 1);
    CHECK(fabs(pace.rate - (double)MIB) < 0.01 * (double)MIB);
}

static void test_rate_begins_anew(void)
{
    struct pace pace = {0};
    pace_note(&pace, 100 * MIB, SECOND);
    pace_note(&pace, 200 * MIB, 2 * SECOND);
    pace_note(&pace, MIB, 3 * SECOND);
    CHECK(pace.rate < 0);
    pace_note(&pace, 3 * MIB, 4 * SECOND);
    CHECK(fabs(pace.rate - 2.0 * (double)MIB) < 1);
}

static void test_time_left(void)
{
    CHECK_EQUAL(10, pace_left(0, 100, 10));
    CHECK_EQUAL(4, pace_left(1, 11, 3));
    CHECK_EQUAL(0, pace_left(100, 100, 10));
    CHECK_EQUAL(0, pace_left(101, 100, -1));
    CHECK_EQUAL(-1, pace_left(1, 100, 0));
    CHECK_EQUAL(-1, pace_left(1, 100, -1));
    CHECK_EQUAL(-1, pace_left(0, INT64_MAX, 1e-9));
    CHECK(pace_average(10, 5 * SECOND, 5 * SECOND) < 0);
    CHECK(pace_average(10, 6 * SECOND, 5 * SECOND) < 0);
    CHECK(fabs(pace_average(10, 5 * SECOND, 7 * SECOND) - 5) < 1e-9);
}

/* -- forecast ---------------------------------------------------------------------------------------------
 */

static struct forecast forecast(int64_t available, int64_t size, int64_t fresh)
{
    const struct forecast_asked asked = {.available = available,
                                         .size = size,
                                         .fresh = fresh,
                                         .step = 300,
                                         .steps = 100,
                                         .time = 1000 * SECOND,
                                         .apart = 60 * SECOND};
    struct forecast out;
    forecast_make(&asked, &out);
    return out;
}

static void test_forecast(void)
{
    struct forecast out = forecast(35, 10, 10);
    CHECK(out.fits);
    CHECK_EQUAL(3, out.count); /* 400, 500, 600 */
    CHECK_EQUAL(700, out.step);
    CHECK_EQUAL((1000 + 4 * 60) * SECOND, out.time);
    /* Each leaves 2 behind, and needs 10 while it is written. */
    out = forecast(15, 10, 2);
    CHECK_EQUAL(3, out.count);
    CHECK_EQUAL(700, out.step);
    out = forecast(10, 10, 10);
    CHECK(out.fits);
    CHECK_EQUAL(1, out.count);
    out = forecast(9, 10, 2);
    CHECK(!out.fits);
    CHECK_EQUAL(0, out.count);
    CHECK_EQUAL(400, out.step);
}

static void test_forecast_without_end(void)
{
    struct forecast out = forecast(15, 10, 0);
    CHECK(out.fits);
    CHECK(out.count < 0);
    CHECK_EQUAL(-1, out.step);
    CHECK_EQUAL(0, out.time);
    /* What does not fit does not fit, though nothing of it would be new. */
    out = forecast(5, 10, 0);
    CHECK(!out.fits);
    CHECK_EQUAL(400, out.step);
}

static void test_forecast_of_what_is_not_known(void)
{
    const struct forecast_asked asked = {
        .available = 100, .size = 10, .fresh = 10, .step = -1, .steps = 0, .time = 5, .apart = 0};
    struct forecast out;
    forecast_make(&asked, &out);
    CHECK_EQUAL(10, out.count);
    CHECK_EQUAL(-1, out.step);
    CHECK_EQUAL(0, out.time);
    const struct forecast_asked huge = {.available = INT64_MAX,
                                        .size = 1,
                                        .fresh = 1,
                                        .step = 1,
                                        .steps = 1000,
                                        .time = 1,
                                        .apart = INT64_MAX / 2};
    forecast_make(&huge, &out);
    CHECK_EQUAL(-1, out.step);
    CHECK_EQUAL(0, out.time);
}

/* -- metrics' text ----------------------------------------------------------------------------------------
 */

static void check_label(const char *expected, const char *value)
{
    cleanup_text struct text text = {0};
    exposition_label_value(&text, value);
    text_append(&text, "", 1);
    CHECK_TEXT(expected, text.at);
}

static void test_labels(void)
{
    check_label("/run 1", "/run 1");
    check_label("a\\\"b", "a\"b");
    check_label("a\\\\b", "a\\b");
    check_label("\xc3\xa9\xe2\x82\xac", "\xc3\xa9\xe2\x82\xac");
    /* What would break a line, or is no text, is shown; and what looks like that is not mistaken for it. */
    check_label("a\\\\x0ab", "a\nb");
    check_label("\\\\xffz", "\xffz");
    check_label("\\\\xc2\\\\x85", "\xc2\x85");
    check_label("\\\\x5cx0a", "\\x0a");
    check_label("\\\\xe2\\\\x82", "\xe2\x82");
    check_label("", "");
}

static void test_samples(void)
{
    cleanup_text struct text text = {0};
    const struct exposition_label labels[] = {{"run", "/a"}, {"le", "+Inf"}, {0}};
    exposition_family(&text, "x_total", "counter", "One \\ two\nthree");
    exposition_sample(&text, "x_total", NULL, 12345678901234.0);
    exposition_sample(&text, "x_total", labels, 0.25);
    exposition_sample(&text, "y", NULL, INFINITY);
    exposition_sample(&text, "y", NULL, -INFINITY);
    exposition_sample(&text, "y", NULL, NAN);
    exposition_sample(&text, "y", NULL, -3);
    text_append(&text, "", 1);
    CHECK_TEXT("# HELP x_total One \\\\ two\\nthree\n# TYPE x_total counter\nx_total 12345678901234\n"
               "x_total{run=\"/a\",le=\"+Inf\"} 0.25\ny +Inf\ny -Inf\ny NaN\ny -3\n",
               text.at);
}

static void test_fsync_buckets(void)
{
    static struct counters counters;
    static const double bounds[] = COUNTERS_FSYNC_BOUNDS;
    CHECK_EQUAL(COUNTERS_FSYNC_BUCKETS, sizeof bounds / sizeof *bounds + 1);
    counters_add_fsync(&counters, 0);
    counters_add_fsync(&counters, SECOND / 1000); /* a bound belongs to its bucket */
    counters_add_fsync(&counters, SECOND / 1000 + 1);
    counters_add_fsync(&counters, 1000 * SECOND);
    CHECK_EQUAL(2, counters.fsyncs[0]);
    CHECK_EQUAL(1, counters.fsyncs[1]);
    CHECK_EQUAL(1, counters.fsyncs[COUNTERS_FSYNC_BUCKETS - 1]);
    CHECK_EQUAL(1000 * SECOND + SECOND / 500 + 1, counters.fsync_ns);
}

/* -- who writes -------------------------------------------------------------------------------------------
 */

int main(void)
{
    check_run("the rate of steady growth", test_rate_of_steady_growth);
    check_run("the rate follows a change", test_rate_follows_a_change);
    check_run("looks that are close together", test_rate_of_close_looks);
    check_run("what shrinks is begun anew", test_rate_begins_anew);
    check_run("the time that is left", test_time_left);
    check_run("when the disk is full", test_forecast);
    check_run("a disk that is never full", test_forecast_without_end);
    check_run("steps and times that are not known, or too large", test_forecast_of_what_is_not_known);
    check_run("values of labels", test_labels);
    check_run("samples", test_samples);
    check_run("buckets of fsyncs", test_fsync_buckets);
    return check_done();
}
