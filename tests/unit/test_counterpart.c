/* SPDX-License-Identifier: Apache-2.0 */
/* Which ranges of a model file and of shards hold the same elements. */
#include <stdlib.h>

#include "check.h"
#include "ckpt/counterpart.h"

#define SIZES(...)                                                                                           \
    (const int64_t[])                                                                                        \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }

enum { FILES = 3, FILE_SIZE = 1 << 30, DATA = 1000 /* where tensors of the whole file start */ };

static struct model whole, pieces;
static struct counterpart *ranges;
static size_t count;
static int64_t whole_end;

static void begin(void)
{
    static const char *const names[FILES] = {"0", "1", "2"};
    uint32_t file;
    model_begin(&whole);
    model_begin(&pieces);
    CHECK_EQUAL(0, model_add_file(&whole, "whole", FILE_SIZE, &file));
    for (size_t i = 0; i < FILES; i++)
        CHECK_EQUAL(0, model_add_file(&pieces, names[i], FILE_SIZE, &file));
    whole_end = DATA;
}

static void end(void)
{
    model_release(&whole);
    model_release(&pieces);
    free(ranges);
    ranges = NULL;
}

/* The next tensor of the whole file. */
static void add_whole(const char *name, enum tensor_type type, uint32_t rank, const int64_t *sizes)
{
    const struct tensor tensor = {.name = name, .type = type, .shape = {rank, sizes}, .offset = whole_end};
    int64_t elements, bytes = 0;
    CHECK(tensor_count(&tensor.shape, &elements) && tensor_bytes(type, elements, &bytes));
    whole_end += bytes;
    CHECK_EQUAL(0, model_add_whole(&whole, &tensor, name, 0));
}

static struct model_tensor *add_tensor(const char *name, enum tensor_type type, uint32_t rank,
                                       const int64_t *sizes)
{
    const struct tensor_shape shape = {rank, sizes};
    struct model_tensor *tensor;
    CHECK_EQUAL(0, model_add_tensor(&pieces, name, type, &shape, &tensor));
    return tensor;
}

static void add_run(struct model_tensor *tensor, uint32_t file, int64_t offset, int64_t first, int64_t run)
{
    const struct model_piece piece = {.file = file, .offset = offset, .first = first, .count = run};
    CHECK_EQUAL(0, model_add_piece(&pieces, tensor, &piece));
}

static void add_box(struct model_tensor *tensor, uint32_t file, int64_t offset, const int64_t *starts,
                    const int64_t *sizes, const int64_t *strides)
{
    const struct model_piece piece = {
        .file = file, .offset = offset, .starts = starts, .sizes = sizes, .strides = strides};
    CHECK_EQUAL(0, model_add_piece(&pieces, tensor, &piece));
}

static void find(size_t expected)
{
    CHECK_EQUAL(0, model_check(&whole));
    CHECK_EQUAL(0, model_check(&pieces));
    CHECK(model_is_whole(&whole) && model_is_whole(&pieces));
    free(ranges);
    CHECK_EQUAL(0, counterpart_find(&whole, &pieces, &ranges, &count));
    CHECK_EQUAL(expected, count);
}

static void expect(size_t at, uint32_t file, int64_t from, int64_t to, int64_t length)
{
    if (at >= count)
        return;
    CHECK_EQUAL(file, ranges[at].file);
    CHECK_EQUAL(from, ranges[at].from);
    CHECK_EQUAL(0, ranges[at].whole_file);
    CHECK_EQUAL(to, ranges[at].whole);
    CHECK_EQUAL(length, ranges[at].length);
}

/* 5 rows of 3000 bytes on two ranks: the pieces start in the middle of the whole tensor. */
static void test_rows(void)
{
    begin();
    add_whole("t", TENSOR_F32, 2, SIZES(5, 750));
    struct model_tensor *tensor = add_tensor("t", TENSOR_F32, 2, SIZES(5, 750));
    add_run(tensor, 1, 64, 3 * 750, 2 * 750);
    add_box(tensor, 0, 128, SIZES(0, 0), SIZES(3, 750), NULL);
    find(2);
    expect(0, 0, 128, DATA, 9000);
    expect(1, 1, 64, DATA + 9000, 6000);
    end();
}

/* Neighbours in both files are one range, so that small ones between them count; alone they do not. */
static void test_small(void)
{
    begin();
    add_whole("a", TENSOR_U8, 1, SIZES(5000));
    add_whole("b", TENSOR_U8, 1, SIZES(8));
    add_whole("c", TENSOR_U8, 1, SIZES(3000));
    add_whole("d", TENSOR_U8, 1, SIZES(4095));
    add_whole("e", TENSOR_U8, 1, SIZES(4096));
    add_whole("f", TENSOR_U8, 1, SIZES(300));
    add_whole("g", TENSOR_U8, 1, SIZES(255));
    /* In a shard where they follow a large one; elsewhere in the whole file. */
    add_run(add_tensor("e", TENSOR_U8, 1, SIZES(4096)), 2, 0, 0, 4096);
    add_run(add_tensor("g", TENSOR_U8, 1, SIZES(255)), 2, 4096, 0, 255);
    add_run(add_tensor("f", TENSOR_U8, 1, SIZES(300)), 2, 4096 + 255, 0, 300);
    add_run(add_tensor("d", TENSOR_U8, 1, SIZES(4095)), 1, 0, 0, 4095);
    add_run(add_tensor("c", TENSOR_U8, 1, SIZES(3000)), 0, 6008, 0, 3000);
    add_run(add_tensor("a", TENSOR_U8, 1, SIZES(5000)), 0, 1000, 0, 5000);
    add_run(add_tensor("b", TENSOR_U8, 1, SIZES(8)), 0, 6000, 0, 8);
    find(3);
    expect(0, 0, 1000, DATA, 8008);
    expect(1, 2, 0, DATA + 8008 + 4095, 4096);
    expect(2, 2, 4096 + 255, DATA + 8008 + 4095 + 4096, 300);
    end();
}

/* Only what has the same name, type and shape. */
static void test_others(void)
{
    begin();
    add_whole("type", TENSOR_F16, 1, SIZES(4096));
    add_whole("shape", TENSOR_F16, 2, SIZES(64, 64));
    add_whole("name", TENSOR_F16, 1, SIZES(4096));
    add_whole("cast", TENSOR_F16, 1, SIZES(4096));
    add_run(add_tensor("type", TENSOR_BF16, 1, SIZES(4096)), 0, 0, 0, 4096);
    add_run(add_tensor("shape", TENSOR_F16, 1, SIZES(4096)), 0, 10000, 0, 4096);
    add_run(add_tensor("names", TENSOR_F16, 1, SIZES(4096)), 0, 20000, 0, 4096);
    struct model_tensor *cast = add_tensor("cast", TENSOR_F16, 1, SIZES(4096));
    cast->stored = TENSOR_F32;
    add_run(cast, 0, 40000, 0, 4096);
    find(0);
    end();
}

static void test_names(void)
{
    begin();
    add_whole("model.layer", TENSOR_U8, 1, SIZES(4096));
    add_whole("module.other", TENSOR_U8, 1, SIZES(4096));
    add_whole("embed", TENSOR_U8, 1, SIZES(4096));
    add_run(add_tensor("layer", TENSOR_U8, 1, SIZES(4096)), 0, 0, 0, 4096);
    add_run(add_tensor("other", TENSOR_U8, 1, SIZES(4096)), 1, 0, 0, 4096);
    add_run(add_tensor("model.embed", TENSOR_U8, 1, SIZES(4096)), 2, 0, 0, 4096);
    find(3);
    expect(0, 0, 0, DATA, 4096);
    expect(1, 1, 0, DATA + 4096, 4096);
    expect(2, 2, 0, DATA + 8192, 4096);
    end();
}

/* What is tied is the bytes of another tensor. */
static void test_tied(void)
{
    begin();
    add_whole("head", TENSOR_U8, 1, SIZES(4096));
    add_run(add_tensor("embed", TENSOR_U8, 1, SIZES(4096)), 1, 500, 0, 4096);
    struct model_tensor *head = add_tensor("head", TENSOR_U8, 1, SIZES(4096));
    head->tied = "embed";
    find(1);
    expect(0, 1, 500, DATA, 4096);
    end();
}

/* Columns: each row of a piece is a range when it is long enough. */
static void test_columns(void)
{
    begin();
    add_whole("long", TENSOR_U8, 2, SIZES(3, 10000));
    add_whole("short", TENSOR_U8, 2, SIZES(3, 8000));
    struct model_tensor *tensor = add_tensor("long", TENSOR_U8, 2, SIZES(3, 10000));
    add_box(tensor, 0, 100, SIZES(0, 0), SIZES(3, 4000), NULL);
    add_box(tensor, 1, 200, SIZES(0, 4000), SIZES(3, 6000), NULL);
    tensor = add_tensor("short", TENSOR_U8, 2, SIZES(3, 8000));
    add_box(tensor, 0, 20000, SIZES(0, 0), SIZES(3, 4000), NULL);
    add_box(tensor, 1, 20000, SIZES(0, 4000), SIZES(3, 4000), NULL);
    find(3);
    for (size_t i = 0; i < 3; i++)
        expect(i, 1, 200 + (int64_t)i * 6000, DATA + (int64_t)i * 10000 + 4000, 6000);
    end();
}

/* A box in three dimensions, whose planes lie apart in the file as well. */
static void test_strides(void)
{
    begin();
    add_whole("t", TENSOR_U8, 3, SIZES(2, 4, 3000));
    struct model_tensor *tensor = add_tensor("t", TENSOR_U8, 3, SIZES(2, 4, 3000));
    add_box(tensor, 0, 0, SIZES(0, 0, 0), SIZES(2, 2, 3000), SIZES(20000, 3000, 1));
    add_box(tensor, 1, 0, SIZES(0, 2, 0), SIZES(2, 2, 3000), SIZES(3000, 6000, 1));
    find(2);
    expect(0, 0, 0, DATA, 6000);
    expect(1, 0, 20000, DATA + 12000, 6000);
    end();
}

/* All rows of a piece, or none. */
static void test_many_rows(void)
{
    const int64_t rows = COUNTERPART_ROWS_MAX;
    begin();
    add_whole("many", TENSOR_U8, 2, SIZES(rows + 1, 8192));
    add_whole("just", TENSOR_U8, 2, SIZES(rows, 4096 + 1));
    struct model_tensor *tensor = add_tensor("many", TENSOR_U8, 2, SIZES(rows + 1, 8192));
    add_box(tensor, 0, 0, SIZES(0, 0), SIZES(rows + 1, 4096), NULL);
    add_box(tensor, 1, 0, SIZES(0, 4096), SIZES(rows + 1, 4096), NULL);
    tensor = add_tensor("just", TENSOR_U8, 2, SIZES(rows, 4096 + 1));
    add_box(tensor, 1, 500000000, SIZES(0, 0), SIZES(rows, 4096), NULL);
    add_box(tensor, 2, 0, SIZES(0, 4096), SIZES(rows, 1), NULL);
    find((size_t)rows);
    expect(0, 1, 500000000, DATA + (rows + 1) * 8192, 4096);
    end();
}

/* A tensor of the whole file that is not stored row by row is left out. */
static void test_transposed(void)
{
    const struct tensor tensor = {
        .type = TENSOR_U8, .shape = {2, SIZES(100, 50)}, .offset = 0, .strides = SIZES(1, 100)};
    begin();
    CHECK_EQUAL(0, model_add_whole(&whole, &tensor, "t", 0));
    add_run(add_tensor("t", TENSOR_U8, 2, SIZES(100, 50)), 0, 0, 0, 5000);
    find(0);
    end();
}

int main(void)
{
    check_run("pieces of rows", test_rows);
    check_run("small tensors count with their neighbours", test_small);
    check_run("other names, types and shapes", test_others);
    check_run("names with prefixes", test_names);
    check_run("tied tensors", test_tied);
    check_run("pieces of columns", test_columns);
    check_run("boxes with strides", test_strides);
    check_run("the number of rows is bounded", test_many_rows);
    check_run("whole tensors that are not contiguous", test_transposed);
    return check_done();
}
