/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of events: what they say, which are kept, and reading them in pieces and too late. */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"
#include "fs/event.h"
#include "fs/event_ring.h"

static const struct event_viewer everybody = {.sees_all = true};
static struct event_ring ring;

static void add(uint64_t sequence, uint32_t uid)
{
    char text[64];
    snprintf(text, sizeof text, "{\"sequence\":%" PRIu64 "}\n", sequence);
    event_ring_add(&ring, &(struct event_line){sequence, uid, strdup(text), strlen(text)});
}

static void add_many(uint64_t from, uint64_t to)
{
    event_ring_release(&ring);
    ring = (struct event_ring){0};
    for (uint64_t i = from; i <= to; i++)
        add(i, 0);
}

/* What one read gives. */
static const char *read_from(struct event_place *place, const struct event_viewer *viewer, size_t room)
{
    static char out[4096];
    out[event_ring_read(&ring, place, viewer, out, room)] = '\0';
    return out;
}

static void test_whole_lines(void)
{
    struct event_place place = {.sequence = 1};
    add_many(1, 3);
    CHECK_TEXT("{\"sequence\":1}\n{\"sequence\":2}\n", read_from(&place, &everybody, 40));
    CHECK_EQUAL(3, place.sequence);
    CHECK(event_ring_has(&ring, &place, &everybody));
    CHECK_TEXT("{\"sequence\":3}\n", read_from(&place, &everybody, 4000));
    CHECK(!event_ring_has(&ring, &place, &everybody));
    CHECK_TEXT("", read_from(&place, &everybody, 4000));
    add(4, 0);
    CHECK_TEXT("{\"sequence\":4}\n", read_from(&place, &everybody, 4000));
    CHECK_EQUAL(1, event_ring_oldest(&ring));
    CHECK_EQUAL(4, event_ring_newest(&ring));
}

static void test_pieces(void)
{
    struct event_place place = {.sequence = 1};
    add_many(1, 2);
    CHECK_TEXT("{\"seq", read_from(&place, &everybody, 5));
    CHECK_TEXT("u", read_from(&place, &everybody, 1));
    CHECK_TEXT("ence\":1}\n", read_from(&place, &everybody, 12)); /* the next does not fit whole */
    CHECK_TEXT("{\"sequence\":2}", read_from(&place, &everybody, 14));
    CHECK_TEXT("\n", read_from(&place, &everybody, 14));
    CHECK_EQUAL(3, place.sequence);
    CHECK_EQUAL(0, place.offset);
}

static void test_lost(void)
{
    struct event_place place = {.sequence = 5}, small = place;
    add_many(1, 10 + EVENT_RING_LINES);
    CHECK_EQUAL(11, event_ring_oldest(&ring));
    static const char lost[] =
        "{\"sequence\":10,\"event\":\"lost\",\"count\":6,\"reason\":\"the reader was too slow\"}\n";
    CHECK_TEXT(lost, read_from(&place, &everybody, sizeof lost + 5));
    CHECK_EQUAL(11, place.sequence);
    CHECK_TEXT("{\"sequence\":11}\n", read_from(&place, &everybody, 20));
    /* Whoever has read a part of it reads the rest of the same, even when more are lost by then. */
    CHECK_TEXT("{\"sequence\":10", read_from(&small, &everybody, 14));
    add(11 + EVENT_RING_LINES, 0);
    CHECK_TEXT(lost + 14, read_from(&small, &everybody, sizeof lost - 1 - 14));
    CHECK(strstr(read_from(&small, &everybody, 200), "\"count\":1,") != NULL);
    CHECK_EQUAL(12, event_ring_oldest(&ring));
}

/* Numbers that never became lines are lost, too. */
static void test_gap(void)
{
    struct event_place place = {.sequence = 1};
    add_many(1, 2);
    add(5, 0);
    CHECK(strstr(read_from(&place, &everybody, 4000), "\"count\":2") != NULL);
    CHECK_EQUAL(6, place.sequence);
}

static void test_who_sees_what(void)
{
    const struct event_viewer seven = {.uid = 7}, nobody = {.uid = UINT32_MAX};
    struct event_place place = {.sequence = 1}, other = place;
    add_many(1, 2);
    add(3, 7);
    add(4, UINT32_MAX);
    CHECK_TEXT("{\"sequence\":3}\n", read_from(&place, &seven, 4000));
    CHECK(!event_ring_has(&ring, &place, &seven));
    CHECK_EQUAL(5, place.sequence);
    CHECK_TEXT("", read_from(&other, &nobody, 4000));
    /* A line that follows a gap behind one that is not seen is read once. */
    add(6, 7);
    CHECK(strstr(read_from(&place, &seven, 4000), "\"count\":1,") != NULL);
    CHECK_EQUAL(7, place.sequence);
    CHECK_TEXT("", read_from(&place, &seven, 4000));
}

static void test_line(void)
{
    const struct event event = {.kind = EVENT_REMOVED,
                                .path = "/run/checkpoint \"5\"",
                                .run = "run",
                                .step = 5,
                                .bytes = -1,
                                .reason = "keep-last\n3"};
    char *line = event_print(&event, 12, INT64_C(1764203400123456789));
    CHECK_TEXT("{\"sequence\":12,\"time\":\"2025-11-27T00:30:00.123Z\",\"event\":\"removed\","
               "\"path\":\"run/checkpoint \\\"5\\\"\",\"run\":\"run\",\"step\":5,\"framework\":null,"
               "\"reason\":\"keep-last\\n3\",\"bytes\":null}\n",
               line);
    free(line);
    for (unsigned i = 0; i < EVENT_KINDS; i++) {
        enum event_kind kind = EVENT_KINDS;
        CHECK(event_kind_parse(event_kind_name((enum event_kind)i), &kind) && kind == i);
    }
    enum event_kind kind;
    CHECK(!event_kind_parse("lost", &kind));
}

/* A path that would make the line longer than any reader expects is left out; the line stays one. */
static void test_long_path(void)
{
    static char path[4096];
    memset(path, 1, sizeof path - 1); /* each takes six bytes */
    const struct event event = {.kind = EVENT_COMPLETE, .path = path, .run = path, .step = -1, .bytes = 3};
    char *line = event_print(&event, 1, 0);
    CHECK(line && strlen(line) < EVENT_LINE_MAX);
    cJSON *object = cJSON_Parse(line);
    CHECK(cJSON_IsNull(cJSON_GetObjectItem(object, "path")));
    CHECK_TEXT("complete", cJSON_GetStringValue(cJSON_GetObjectItem(object, "event")));
    cJSON_Delete(object);
    free(line);
}

static void test_readable(void)
{
    char line[] = "a\xff\xc3\xa4\xc3\xf0\x9f\x98\x80\xed\xa0\x80z\n";
    event_make_readable(line);
    CHECK_TEXT("a?\xc3\xa4?\xf0\x9f\x98\x80???z\n", line);
}

int main(void)
{
    check_run("reads give whole lines", test_whole_lines);
    check_run("small reads give pieces of them", test_pieces);
    check_run("a slow reader is told how many it lost", test_lost);
    check_run("numbers without a line are lost", test_gap);
    check_run("each sees his own", test_who_sees_what);
    check_run("the line says it all", test_line);
    check_run("a line has a bound", test_long_path);
    check_run("bytes that are no text are question marks", test_readable);
    event_ring_release(&ring);
    return check_done();
}
