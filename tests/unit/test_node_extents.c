/* SPDX-License-Identifier: Apache-2.0 */
/* The list of a file's extents while ranges are appended, and finding one in it. */
#include <stdlib.h>

#include "check.h"
#include "fs/node_extents.h"

/* A file of three extents with a hole between the last two. */
static struct node file_of_three(void)
{
    static const struct meta_extent extents[] = {{0, 100, 7, 0}, {100, 50, 8, 1000}, {200, 10, 9, 5}};
    struct node node = {.kind = META_EXTENTS, .extent_count = 3, .extent_capacity = 3};
    node.extents = malloc(sizeof extents);
    if (node.extents)
        memcpy(node.extents, extents, sizeof extents);
    CHECK(node.extents != NULL);
    return node;
}

static void test_find(void)
{
    struct node node = file_of_three();
    CHECK_EQUAL(0, node_find_extent(&node, 0));
    CHECK_EQUAL(0, node_find_extent(&node, 99));
    CHECK_EQUAL(1, node_find_extent(&node, 100));
    CHECK_EQUAL(1, node_find_extent(&node, 149));
    CHECK_EQUAL(2, node_find_extent(&node, 150)); /* in the hole: the next one */
    CHECK_EQUAL(2, node_find_extent(&node, 209));
    CHECK_EQUAL(3, node_find_extent(&node, 210));
    node_forget_extents(&node);
    CHECK_EQUAL(0, node_find_extent(&node, 0));
}

static void test_append(void)
{
    struct node node = file_of_three();
    node_note_extent(&node, &(struct meta_extent){210, 20, 9, 15}); /* continues the last one */
    CHECK_EQUAL(3, node.extent_count);
    CHECK_EQUAL(30, node.extents[2].length);
    node_note_extent(&node, &(struct meta_extent){230, 20, 9, 40}); /* there is a gap in the object */
    CHECK_EQUAL(4, node.extent_count);
    for (int64_t i = 0; i < 1000; i++)
        node_note_extent(&node, &(struct meta_extent){250 + i * 10, 10, (uint64_t)i % 2 + 1, i * 100});
    CHECK_EQUAL(1004, node.extent_count);
    CHECK_EQUAL(504, node_find_extent(&node, 250 + 5005));
    CHECK_EQUAL(50000, node.extents[504].object_offset);
    node_forget_extents(&node);
}

/* What lies elsewhere makes the list be read again. */
static void test_forget(void)
{
    struct node node = file_of_three();
    node_note_extent(&node, &(struct meta_extent){205, 20, 9, 100});
    CHECK(!node.extents && node.extent_count == 0);
    node = file_of_three();
    node_note_extent(&node, &(struct meta_extent){300, 20, 0, 0}); /* a hole is no extent */
    CHECK(!node.extents && node.extent_count == 0);
    node_note_extent(&node, &(struct meta_extent){0, 20, 3, 0}); /* nothing is known to append to */
    CHECK(!node.extents && node.extent_count == 0);
}

int main(void)
{
    check_run("an extent is found by an offset in it, or before it", test_find);
    check_run("a range behind all others is appended, or continues the last one", test_append);
    check_run("any other range makes the list unknown", test_forget);
    return check_done();
}
