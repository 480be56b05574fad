/* SPDX-License-Identifier: Apache-2.0 */
/* Which rows a rank has, by what torch says of a DTensor's placements. */
#include <errno.h>
#include <string.h>

#include "check.h"
#include "ckpt/placement.h"

enum { TEST_ROWS_MAX = 64 };

/* The rows of the first dimension that a rank has, in order; -1: the call failed. */
static int64_t find_rows(int64_t length, const struct placement *placements, size_t count,
                         int64_t rows[TEST_ROWS_MAX])
{
    cleanup_arena struct arena arena = {.limit = 1 << 20};
    struct placement_rows found[2];
    const int64_t sizes[] = {length, 3};
    int64_t total = 0;
    if (placement_find_rows(&(struct tensor_shape){2, sizes}, placements, count, &arena, found) != 0)
        return -1;
    for (size_t i = 0; i < found[0].count; i++) {
        CHECK(found[0].runs[i].length > 0);
        for (int64_t k = 0; k < found[0].runs[i].length && total < TEST_ROWS_MAX; k++)
            rows[total++] = found[0].runs[i].start + k;
    }
    CHECK_EQUAL(found[0].length, total);
    return total;
}

static void check_rows(int64_t length, const struct placement *placements, size_t count,
                       int64_t expected_count, const int64_t *expected)
{
    int64_t rows[TEST_ROWS_MAX];
    CHECK_EQUAL(expected_count, find_rows(length, placements, count, rows));
    for (int64_t i = 0; i < expected_count; i++)
        CHECK_EQUAL(expected[i], rows[i]);
}

#define CHECK_ROWS(length, placements, ...)                                                                  \
    do {                                                                                                     \
        const int64_t expected[] = {__VA_ARGS__};                                                            \
        check_rows(length, placements, sizeof(placements) / sizeof *(placements),                            \
                   sizeof expected / sizeof *expected, expected);                                            \
    } while (0)

#define SHARD(size_, position_)                                                                              \
    {                                                                                                        \
        .sharded = true, .factor = 1, .size = (size_), .position = (position_)                               \
    }
#define STRIDED(factor_, size_, position_)                                                                   \
    {                                                                                                        \
        .sharded = true, .factor = (factor_), .size = (size_), .position = (position_)                       \
    }
#define REPLICATE(size_, position_)                                                                          \
    {                                                                                                        \
        .size = (size_), .position = (position_)                                                             \
    }

static void test_rows_are_cut_as_torch_chunk_does(void)
{
    const struct placement first[] = {SHARD(3, 0)}, last[] = {SHARD(3, 2)}, fourth[] = {SHARD(4, 3)};
    CHECK_ROWS(7, first, 0, 1, 2);
    CHECK_ROWS(7, last, 6);
    check_rows(5, fourth, 1, 0, NULL); /* 2, 2, 1 and nothing */
    check_rows(0, first, 1, 0, NULL);
    CHECK_ROWS(1, first, 0);
    check_rows(1, last, 1, 0, NULL);
}

static void test_dimensions_of_ranks_follow_each_other(void)
{
    const struct placement both[] = {SHARD(2, 1), SHARD(2, 0)};
    const struct placement replicas[] = {REPLICATE(2, 1), SHARD(2, 1)};
    CHECK_ROWS(10, both, 5, 6, 7);
    CHECK_ROWS(10, replicas, 5, 6, 7, 8, 9);
}

/* torch's own example: split in two first, then each half among two ranks. */
static void test_strided_shards(void)
{
    const struct placement strided[] = {STRIDED(2, 2, 0)}, inner[] = {SHARD(2, 0), STRIDED(2, 2, 1)};
    const struct placement uneven[] = {STRIDED(2, 2, 0), SHARD(2, 1)};
    CHECK_ROWS(8, strided, 0, 1, 4, 5);
    CHECK_ROWS(8, inner, 1, 3);
    CHECK_ROWS(9, uneven, 5, 6);
}

/* Every row is some rank's, and no two ranks'. */
static void test_ranks_cover_all_rows(void)
{
    for (int64_t length = 0; length < 30; length++) {
        unsigned seen[TEST_ROWS_MAX] = {0};
        for (int64_t rank = 0; rank < 6; rank++) {
            const struct placement placements[] = {STRIDED(3, 2, rank / 3), SHARD(3, rank % 3)};
            int64_t rows[TEST_ROWS_MAX], count = find_rows(length, placements, 2, rows);
            for (int64_t i = 0; i < count; i++)
                seen[rows[i]]++;
        }
        for (int64_t row = 0; row < length; row++)
            CHECK_EQUAL(1, seen[row]);
    }
}

static void test_nonsense_is_refused(void)
{
    int64_t rows[TEST_ROWS_MAX];
    const struct placement wrong[] = {SHARD(0, 0), SHARD(2, 2), SHARD(2, -1), STRIDED(0, 2, 0),
                                      STRIDED(INT64_MAX, 2, 0)};
    struct placement dimension = SHARD(2, 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_EQUAL(-1, find_rows(8, &wrong[i], 1, rows));
    dimension.split = 2;
    CHECK_EQUAL(-1, find_rows(8, &dimension, 1, rows));
}

static void test_memory_is_bounded(void)
{
    cleanup_arena struct arena arena = {.limit = 64};
    struct placement_rows found[1];
    const int64_t sizes[] = {100000};
    const struct placement placement = STRIDED(1000, 2, 0);
    CHECK_EQUAL(-ENOMEM, placement_find_rows(&(struct tensor_shape){1, sizes}, &placement, 1, &arena, found));
}

int main(void)
{
    check_run("rows are cut as torch.chunk does", test_rows_are_cut_as_torch_chunk_does);
    check_run("dimensions of ranks follow each other", test_dimensions_of_ranks_follow_each_other);
    check_run("strided shards", test_strided_shards);
    check_run("ranks cover all rows, each once", test_ranks_cover_all_rows);
    check_run("nonsense is refused", test_nonsense_is_refused);
    check_run("memory is bounded", test_memory_is_bounded);
    return check_done();
}
