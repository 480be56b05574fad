/* SPDX-License-Identifier: Apache-2.0 */
/* The last events: kept with their numbers, over the end of the process, and no more than asked for. */
#include <errno.h>
#include <string.h>

#include "meta/event.h"
#include "test_meta_frame.h"

static uint64_t listed[16];
static size_t listed_count, pending_count;
static char last_text[64];

static void note(void *context, const struct meta_event *event)
{
    (void)context;
    if (listed_count < sizeof listed / sizeof *listed)
        listed[listed_count++] = event->sequence;
    pending_count += event->pending;
    snprintf(last_text, sizeof last_text, "%.*s", (int)event->length, event->text);
}

static void list(void)
{
    listed_count = pending_count = 0;
    last_text[0] = '\0';
    CHECK_EQUAL(0, meta_event_list(meta, note, NULL));
}

static errint add(uint64_t sequence, bool pending, uint64_t kept)
{
    const struct meta_event event = {sequence, META_ROOT_INO, 7, pending, "text", 4};
    return meta_event_add(meta, &event, 1, kept);
}

static void test_kept(void)
{
    for (uint64_t i = 1; i <= 5; i++)
        CHECK_EQUAL(0, add(i, i == 4, 3));
    list();
    CHECK_EQUAL(3, listed_count);
    CHECK_EQUAL(3, listed[0]);
    CHECK_EQUAL(5, listed[2]);
    CHECK_EQUAL(1, pending_count);
    CHECK_TEXT("text", last_text);
    frame_reopen();
    list();
    CHECK_EQUAL(3, listed_count);
    CHECK_EQUAL(1, pending_count);
    CHECK_EQUAL(0, meta_event_settle(meta, 4));
    CHECK_EQUAL(0, meta_event_settle(meta, 1));
    list();
    CHECK_EQUAL(0, pending_count);
}

/* All or none. */
static void test_taken_number(void)
{
    const struct meta_event two[] = {{2, 1, 7, false, "b", 1}, {1, 1, 7, false, "a", 1}};
    CHECK_EQUAL(0, add(1, false, 3));
    CHECK_EQUAL(-EEXIST, meta_event_add(meta, two, 2, 3));
    list();
    CHECK_EQUAL(1, listed_count);
    CHECK_TEXT("text", last_text);
}

int main(void)
{
    frame_run("the last ones are kept", test_kept);
    frame_run("no number is taken twice", test_taken_number);
    return check_done();
}
