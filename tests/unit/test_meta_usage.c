/* SPDX-License-Identifier: Apache-2.0 */
/* What files and trees cost, against figures worked out by hand. */
#include <errno.h>
#include <time.h>

#include "meta/usage.h"
#include "test_meta_frame.h"

enum { ALICE = 1000, BOB = 1001 };

static uint64_t make_directory(uint64_t parent, const char *name)
{
    return frame_make(parent, name, S_IFDIR | 0755);
}

static uint64_t make_empty(uint64_t parent, const char *name)
{
    uint64_t ino = frame_make(parent, name, S_IFREG | 0644);
    const struct meta_inode root = {.uid = 0};
    CHECK_EQUAL(0, meta_set(meta, ino, META_SET_UID, &root, 0, NULL));
    return ino;
}

static void clone_range(uint64_t from, int64_t from_offset, uint64_t to, int64_t to_offset, int64_t length)
{
    CHECK_EQUAL(0, meta_clone(meta, from, from_offset, to, to_offset, length, FRAME_NOW, NULL));
}

static void give_to(uint64_t ino, uint32_t uid)
{
    const struct meta_inode values = {.uid = uid};
    CHECK_EQUAL(0, meta_set(meta, ino, META_SET_UID, &values, 0, NULL));
}

static void add_link(uint64_t ino, uint64_t parent, const char *name)
{
    struct meta_inode ignored;
    CHECK_EQUAL(0, meta_link(meta, ino, parent, name, strlen(name), FRAME_NOW, 0, &ignored));
}

/* "files extents logical stored unique", for root; or for `uid`. */
static const char *usage_of(uint64_t ino, uint32_t uid)
{
    static char text[200];
    struct meta_usage_request request = {.ino = ino, .uid = uid, .everybody = uid == 0};
    struct meta_usage usage;
    errint error = meta_usage_compute(meta, &request, &usage);
    if (error)
        snprintf(text, sizeof text, "error %d", error);
    else
        snprintf(text, sizeof text, "%llu %llu %lld %lld %lld", (unsigned long long)usage.files,
                 (unsigned long long)usage.extents, (long long)usage.logical_bytes,
                 (long long)usage.stored_bytes, (long long)usage.unique_bytes);
    return text;
}

static void test_alone(void)
{
    uint64_t a = frame_make_sealed(1, "a", 20000);
    CHECK_TEXT("1 1 20000 20000 20000", usage_of(a, 0));
    CHECK_TEXT("1 1 20000 20000 20000", usage_of(1, 0));
    CHECK_TEXT("1 0 0 0 0", usage_of(make_empty(1, "empty"), 0));
    CHECK_TEXT("0 0 0 0 0", usage_of(make_directory(1, "d"), 0));
    CHECK_TEXT("error -2", usage_of(987654, 0));
}

static void test_clones(void)
{
    uint64_t a = frame_make_sealed(1, "a", 20000), b = make_empty(1, "b");
    clone_range(a, 0, b, 0, 20000);
    /* Each alone frees nothing; together they are one. */
    CHECK_TEXT("1 1 20000 20000 0", usage_of(a, 0));
    CHECK_TEXT("1 1 20000 20000 0", usage_of(b, 0));
    CHECK_TEXT("2 2 40000 20000 20000", usage_of(1, 0));
    CHECK_EQUAL(0, frame_unlink(1, "b", true, NULL));
    CHECK_TEXT("1 1 20000 20000 20000", usage_of(a, 0));
}

static void test_partial_overlap(void)
{
    uint64_t in = make_directory(1, "in"), out = make_directory(1, "out");
    uint64_t a = frame_make_sealed(in, "a", 10000), b = make_empty(in, "b"), c = make_empty(out, "c");
    /* The object: a has [0, 10000), b twice [2000, 5000), c [4000, 6000) and [9000, 10000). */
    clone_range(a, 2000, b, 0, 3000);
    clone_range(a, 2000, b, 50000, 3000);
    clone_range(a, 4000, c, 0, 2000);
    clone_range(a, 9000, c, 8000, 1000);
    CHECK_TEXT("2 3 63000 10000 7000", usage_of(in, 0));
    CHECK_TEXT("1 2 9000 3000 0", usage_of(c, 0));
    CHECK_TEXT("1 2 53000 3000 0", usage_of(b, 0));
    /* [0, 2000) and [6000, 9000). */
    CHECK_TEXT("1 1 10000 10000 5000", usage_of(a, 0));
}

static void test_hard_links(void)
{
    uint64_t in = make_directory(1, "in"), out = make_directory(1, "out");
    uint64_t a = frame_make_sealed(in, "a", 7000);
    add_link(a, in, "again");
    /* Counted once, and all its names are inside. */
    CHECK_TEXT("1 1 7000 7000 7000", usage_of(in, 0));
    /* One name of two. */
    CHECK_TEXT("1 1 7000 7000 0", usage_of(a, 0));
    add_link(a, out, "outside");
    CHECK_TEXT("1 1 7000 7000 0", usage_of(in, 0));
    CHECK_TEXT("1 1 7000 7000 0", usage_of(out, 0));
    CHECK_TEXT("1 1 7000 7000 7000", usage_of(1, 0));
    /* What another file of the tree has of it is kept too. */
    uint64_t b = make_empty(in, "b");
    clone_range(a, 1000, b, 0, 1000);
    CHECK_TEXT("2 2 8000 7000 0", usage_of(in, 0));
    CHECK_EQUAL(0, frame_unlink(out, "outside", true, NULL));
    CHECK_TEXT("2 2 8000 7000 7000", usage_of(in, 0));
}

static void test_nested_directories(void)
{
    uint64_t first = make_directory(1, "1"), second = make_directory(first, "2");
    uint64_t third = make_directory(second, "3");
    uint64_t a = frame_make_sealed(first, "a", 1000);
    frame_make_sealed(second, "b", 200);
    uint64_t c = make_empty(third, "c");
    clone_range(a, 0, c, 0, 600);
    frame_make(third, "link", S_IFIFO | 0600);
    CHECK_TEXT("1 1 600 600 0", usage_of(third, 0));
    CHECK_TEXT("2 2 800 800 200", usage_of(second, 0));
    CHECK_TEXT("3 3 1800 1200 1200", usage_of(first, 0));
}

static void test_inline_and_written(void)
{
    uint64_t small = frame_make_object(1, "small"), again = make_directory(1, "d");
    CHECK_TEXT("1 0 0 0 0", usage_of(small, 0));
    CHECK_EQUAL(0, meta_to_inline(meta, small, "0123456789", 10, FRAME_NOW, FRAME_NOW, NULL));
    CHECK_TEXT("1 0 10 10 10", usage_of(small, 0));
    CHECK_EQUAL(0, meta_truncate(meta, small, 500, FRAME_NOW, 0, NULL));
    CHECK_TEXT("1 0 500 10 10", usage_of(small, 0));
    add_link(small, again, "small");
    CHECK_TEXT("1 0 500 10 0", usage_of(again, 0));
    CHECK_TEXT("1 0 500 10 10", usage_of(1, 0));
}

static int64_t size_of_written(void *context, const struct meta_inode *row)
{
    (void)row;
    return *(const int64_t *)context;
}

static void test_size_of_written(void)
{
    int64_t size = 12345;
    uint64_t ino = frame_make_object(1, "written");
    const struct meta_usage_request request = {
        .ino = ino, .everybody = true, .size = size_of_written, .context = &size};
    struct meta_usage usage;
    CHECK_EQUAL(0, meta_usage_compute(meta, &request, &usage));
    CHECK_EQUAL(12345, usage.logical_bytes);
    CHECK_EQUAL(12345, usage.stored_bytes);
    CHECK_EQUAL(12345, usage.unique_bytes);
    CHECK_EQUAL(1, usage.extents);
}

static void test_owners(void)
{
    uint64_t d = make_directory(1, "d"), a = frame_make_sealed(d, "a", 8000), b = make_empty(1, "b");
    uint64_t c = make_empty(d, "c");
    clone_range(a, 0, b, 0, 8000);
    clone_range(a, 0, c, 0, 3000);
    give_to(a, ALICE);
    give_to(b, BOB);
    give_to(c, BOB);
    /* To Alice her file is alone, whatever Bob has of it; and the other way round. */
    CHECK_TEXT("1 1 8000 8000 8000", usage_of(d, ALICE));
    CHECK_TEXT("1 1 8000 8000 8000", usage_of(a, ALICE));
    CHECK_TEXT("0 0 0 0 0", usage_of(b, ALICE));
    CHECK_TEXT("1 1 3000 3000 0", usage_of(d, BOB));
    CHECK_TEXT("2 2 11000 8000 8000", usage_of(1, BOB));
    CHECK_TEXT("2 2 11000 8000 0", usage_of(d, 0));
}

static void test_nameless(void)
{
    uint64_t a = frame_make_sealed(1, "a", 8000), b = make_empty(1, "b");
    clone_range(a, 0, b, 0, 8000);
    /* Somebody has b still open. */
    CHECK_EQUAL(0, frame_unlink(1, "b", false, NULL));
    CHECK_TEXT("1 1 8000 8000 8000", usage_of(1, 0));
    CHECK_TEXT("1 1 8000 8000 0", usage_of(b, 0));
}

/* More extents than are read at a time, in the file and at one place of the object. */
static void test_many_extents(void)
{
    enum { PIECES = 3000, LENGTH = 4096 };
    uint64_t a = frame_make_sealed(1, "a", (int64_t)PIECES * LENGTH), b = make_empty(1, "b");
    for (int i = 0; i < PIECES; i++)
        clone_range(a, (int64_t)(PIECES - 1 - i) * LENGTH, b, (int64_t)i * LENGTH, LENGTH - 1);
    uint64_t c = make_empty(1, "c");
    for (int i = 0; i < PIECES; i++)
        clone_range(a, 0, c, (int64_t)i * LENGTH, LENGTH);
    CHECK_TEXT("1 3000 12287999 12285000 0", usage_of(b, 0));
    CHECK_TEXT("1 3000 12288000 4096 0", usage_of(c, 0));
    CHECK_TEXT("1 1 12288000 12288000 2999", usage_of(a, 0)); /* the last bytes of all pieces but the first */
    CHECK_TEXT("3 6001 36863999 12288000 12288000", usage_of(1, 0));
}

static bool stop_at_once(void *context)
{
    ++*(int *)context;
    return true;
}

static void test_stop(void)
{
    int asked = 0;
    const struct meta_usage_request request = {
        .ino = 1, .everybody = true, .stop = stop_at_once, .context = &asked};
    struct meta_usage usage;
    CHECK_EQUAL(-ECANCELED, meta_usage_compute(meta, &request, &usage));
    CHECK_EQUAL(1, asked);
}

static void test_root(void)
{
    static const uint8_t expected[META_ROOT_BYTES] = "root of the file";
    uint8_t root[META_ROOT_BYTES];
    uint64_t a = frame_make_sealed(1, "a", 8000), b = make_empty(1, "b");
    CHECK_EQUAL(-ENODATA, meta_usage_root(meta, a, root));
    CHECK_EQUAL(0, meta_object_summed(meta, frame_object_of(a), expected, 0, NULL, 0));
    CHECK_EQUAL(0, meta_usage_root(meta, a, root));
    CHECK(memcmp(root, expected, sizeof root) == 0);
    clone_range(a, 0, b, 0, 8000);
    CHECK_EQUAL(0, meta_usage_root(meta, b, root));
    clone_range(a, 0, b, 8000, 10);
    CHECK_EQUAL(-ENODATA, meta_usage_root(meta, b, root));
    clone_range(a, 0, a, 0, 10);
    CHECK_EQUAL(0, meta_truncate(meta, a, 7999, FRAME_NOW, 0, NULL));
    CHECK_EQUAL(-ENODATA, meta_usage_root(meta, a, root));
    CHECK_EQUAL(-ENODATA, meta_usage_root(meta, 1, root));
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void test_speed(void)
{
    enum { DIRECTORIES = 10, FILES = 1000 };
    for (int i = 0; i < DIRECTORIES; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        uint64_t directory = make_directory(1, name);
        for (int j = 0; j < FILES; j++) {
            snprintf(name, sizeof name, "%d", j);
            frame_make_sealed(directory, name, 4096 + j);
        }
    }
    double start = seconds_now();
    CHECK_TEXT("10000 10000 45955000 45955000 45955000", usage_of(1, 0));
    double took = seconds_now() - start;
    printf("# 10,000 files: %.3f s\n", took);
    /* A hundred times what it takes, for machines under load and sanitizers. */
    CHECK(took < 20);
}

int main(void)
{
    frame_run("a file alone", test_alone);
    frame_run("clones", test_clones);
    frame_run("partial overlap", test_partial_overlap);
    frame_run("hard links", test_hard_links);
    frame_run("nested directories", test_nested_directories);
    frame_run("files inside the database", test_inline_and_written);
    frame_run("a file that is being written", test_size_of_written);
    frame_run("each owner sees his own", test_owners);
    frame_run("files without a name", test_nameless);
    frame_run("many extents", test_many_extents);
    frame_run("stopping", test_stop);
    frame_run("the root of a whole file", test_root);
    frame_run("10,000 files", test_speed);
    return check_done();
}
