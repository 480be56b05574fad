/* SPDX-License-Identifier: Apache-2.0 */
/* Models in pieces: what the check accepts, and what it refuses. */
#include <stdlib.h>

#include "check.h"
#include "ckpt/model.h"

#define SIZES(...)                                                                                           \
    (const int64_t[])                                                                                        \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }

static struct model model;

static void begin(int64_t file_size)
{
    uint32_t file;
    model_begin(&model);
    CHECK_EQUAL(0, model_add_file(&model, "a", file_size, &file));
    CHECK_EQUAL(0, file);
}

static struct model_tensor *add_tensor(const char *name, enum tensor_type type, uint32_t rank,
                                       const int64_t *sizes)
{
    struct model_tensor *tensor;
    const struct tensor_shape shape = {.rank = rank, .sizes = sizes};
    CHECK_EQUAL(0, model_add_tensor(&model, name, type, &shape, &tensor));
    return tensor;
}

static void add_run(struct model_tensor *tensor, int64_t offset, int64_t first, int64_t count)
{
    CHECK_EQUAL(0, model_add_piece(&model, tensor,
                                   &(struct model_piece){.offset = offset, .first = first, .count = count}));
}

static void add_box(struct model_tensor *tensor, int64_t offset, const int64_t *starts, const int64_t *sizes,
                    const int64_t *strides)
{
    CHECK_EQUAL(0,
                model_add_piece(&model, tensor,
                                &(struct model_piece){
                                    .offset = offset, .starts = starts, .sizes = sizes, .strides = strides}));
}

/* Checks the model, and releases it. */
static bool is_whole(void)
{
    CHECK_EQUAL(0, model_check(&model));
    bool whole = model_is_whole(&model);
    model_release(&model);
    return whole;
}

/* The check says this of the model; releases it. */
static void expect_note(const char *part)
{
    bool found = false;
    CHECK_EQUAL(0, model_check(&model));
    CHECK(!model_is_whole(&model));
    for (size_t i = 0; i < model.note_count; i++)
        found |= model.notes[i].missing && strstr(model.notes[i].text, part);
    if (!found)
        printf("# notes: %s\n", model.note_count > 0 ? model.notes[0].text : "none");
    CHECK(found);
    model_release(&model);
}

static void test_runs(void)
{
    begin(100);
    struct model_tensor *tensor = add_tensor("t", TENSOR_F32, 1, SIZES(10));
    add_run(tensor, 60, 6, 4);
    add_run(tensor, 0, 0, 6);
    CHECK_EQUAL(0, model_check(&model));
    CHECK(model_is_whole(&model));
    CHECK_EQUAL(0, model.tensors[0].pieces[0].first);
    CHECK_EQUAL(60, model.tensors[0].pieces[1].offset);
    model_release(&model);

    begin(100);
    tensor = add_tensor("gap", TENSOR_F32, 1, SIZES(10));
    add_run(tensor, 0, 0, 5);
    add_run(tensor, 60, 6, 4);
    expect_note("element 5 of 10");

    begin(100);
    tensor = add_tensor("twice", TENSOR_F32, 1, SIZES(10));
    add_run(tensor, 0, 0, 7);
    add_run(tensor, 60, 6, 4);
    expect_note("element 6 of 10");

    begin(100);
    add_tensor("nothing", TENSOR_F32, 1, SIZES(10));
    expect_note("element 0 of 10");
}

static void test_bounds(void)
{
    begin(39);
    add_run(add_tensor("t", TENSOR_F32, 1, SIZES(10)), 0, 0, 10);
    expect_note("reaches behind the end of its file");

    begin(INT64_MAX);
    add_run(add_tensor("t", TENSOR_F32, 1, SIZES(10)), INT64_MAX - 3, 0, 10);
    expect_note("reaches behind the end of its file");

    begin(INT64_MAX);
    add_run(add_tensor("t", TENSOR_F32, 1, SIZES(10)), -4, 0, 10);
    expect_note("reaches behind the end of its file");

    begin(100);
    add_run(add_tensor("t", TENSOR_F32, 1, SIZES(10)), 0, 4, INT64_MAX);
    expect_note("lies outside the tensor");

    begin(100);
    add_run(add_tensor("t", TENSOR_F32, 1, SIZES(10)), 0, -1, 10);
    expect_note("lies outside the tensor");

    begin(100);
    add_run(add_tensor("t", TENSOR_F64, 2, SIZES(INT64_MAX / 2, 4)), 0, 0, 1);
    expect_note("its shape does not fit");

    begin(INT64_MAX);
    add_run(add_tensor("t", TENSOR_F64, 1, SIZES(INT64_MAX / 4)), 0, 0, INT64_MAX / 4);
    expect_note("its shape does not fit");

    begin(100);
    add_box(add_tensor("t", TENSOR_F32, 2, SIZES(2, 2)), 0, SIZES(0, 1), SIZES(2, INT64_MAX), NULL);
    expect_note("lies outside the tensor");

    begin(100);
    add_box(add_tensor("t", TENSOR_F32, 2, SIZES(2, 2)), 0, SIZES(0, 0), SIZES(2, 2), SIZES(INT64_MAX, 1));
    expect_note("reaches behind the end of its file");

    begin(100);
    struct model_tensor *tensor = add_tensor("t", TENSOR_F32, 1, SIZES(2));
    CHECK_EQUAL(0, model_add_piece(&model, tensor, &(struct model_piece){.file = 7, .count = 2}));
    expect_note("is in no file");
}

/* A view that repeats what it has: a little of it is fine. */
static void test_repeated(void)
{
    begin(100);
    add_box(add_tensor("t", TENSOR_F32, 2, SIZES(1000, 2)), 0, SIZES(0, 0), SIZES(1000, 2), SIZES(0, 1));
    CHECK(is_whole());
    begin(100);
    add_box(add_tensor("t", TENSOR_F32, 2, SIZES(1LL << 40, 2)), 0, SIZES(0, 0), SIZES(1LL << 40, 2),
            SIZES(0, 1));
    expect_note("repeats elements");
}

static void test_boxes(void)
{
    /* Two by two, of uneven sizes. */
    begin(1000);
    struct model_tensor *tensor = add_tensor("mesh", TENSOR_F16, 2, SIZES(5, 7));
    add_box(tensor, 0, SIZES(0, 0), SIZES(3, 4), NULL);
    add_box(tensor, 100, SIZES(3, 4), SIZES(2, 3), NULL);
    add_box(tensor, 200, SIZES(0, 4), SIZES(3, 3), NULL);
    add_box(tensor, 300, SIZES(3, 0), SIZES(2, 4), NULL);
    CHECK(is_whole());

    /* A pinwheel, which no plane cuts. */
    begin(1000);
    tensor = add_tensor("pinwheel", TENSOR_F16, 2, SIZES(3, 3));
    add_box(tensor, 0, SIZES(0, 0), SIZES(1, 2), NULL);
    add_box(tensor, 0, SIZES(0, 2), SIZES(2, 1), NULL);
    add_box(tensor, 0, SIZES(2, 1), SIZES(1, 2), NULL);
    add_box(tensor, 0, SIZES(1, 0), SIZES(2, 1), NULL);
    add_box(tensor, 0, SIZES(1, 1), SIZES(1, 1), NULL);
    CHECK(is_whole());

    begin(1000);
    tensor = add_tensor("hole", TENSOR_F16, 2, SIZES(3, 3));
    add_box(tensor, 0, SIZES(0, 0), SIZES(1, 2), NULL);
    add_box(tensor, 0, SIZES(0, 2), SIZES(2, 1), NULL);
    add_box(tensor, 0, SIZES(2, 1), SIZES(1, 2), NULL);
    add_box(tensor, 0, SIZES(1, 0), SIZES(2, 1), NULL);
    expect_note("its 4 pieces overlap, leave gaps");

    /* As many elements as the tensor has, and yet not all of it. */
    begin(1000);
    tensor = add_tensor("overlap", TENSOR_F16, 2, SIZES(2, 4));
    add_box(tensor, 0, SIZES(0, 0), SIZES(2, 2), NULL);
    add_box(tensor, 0, SIZES(0, 1), SIZES(2, 2), NULL);
    expect_note("its 2 pieces overlap, leave gaps");

    begin(1000);
    tensor = add_tensor("rest", TENSOR_F16, 2, SIZES(2, 4));
    add_box(tensor, 0, SIZES(0, 0), SIZES(2, 1), NULL);
    add_box(tensor, 0, SIZES(0, 1), SIZES(2, 2), NULL);
    expect_note("its 2 pieces overlap, leave gaps");
}

/* Whole rows that lie in the file as they are in the tensor are copied. */
static void test_boxes_become_runs(void)
{
    begin(1000);
    struct model_tensor *tensor = add_tensor("rows", TENSOR_F16, 3, SIZES(4, 2, 3));
    add_box(tensor, 100, SIZES(3, 0, 0), SIZES(1, 2, 3), NULL);
    add_box(tensor, 0, SIZES(0, 0, 0), SIZES(3, 2, 3), SIZES(6, 3, 1));
    CHECK_EQUAL(0, model_check(&model));
    CHECK(model_is_whole(&model));
    tensor = &model.tensors[0];
    CHECK_EQUAL(2, tensor->piece_count);
    CHECK(!tensor->pieces[0].starts && !tensor->pieces[1].starts);
    CHECK_EQUAL(18, tensor->pieces[1].first);
    CHECK_EQUAL(6, tensor->pieces[1].count);
    model_release(&model);

    /* Transposed in the file: gathered. */
    begin(1000);
    tensor = add_tensor("transposed", TENSOR_F16, 2, SIZES(4, 3));
    add_box(tensor, 0, SIZES(0, 0), SIZES(4, 3), SIZES(1, 4));
    CHECK_EQUAL(0, model_check(&model));
    CHECK(model_is_whole(&model) && model.tensors[0].pieces[0].starts);
    model_release(&model);

    /* Runs beside boxes. */
    begin(1000);
    tensor = add_tensor("mixed", TENSOR_F16, 2, SIZES(4, 4));
    add_run(tensor, 0, 0, 8);
    add_box(tensor, 0, SIZES(2, 0), SIZES(2, 2), NULL);
    add_box(tensor, 0, SIZES(2, 2), SIZES(2, 2), NULL);
    CHECK(is_whole());
    begin(1000);
    tensor = add_tensor("mixed", TENSOR_F16, 2, SIZES(4, 4));
    add_run(tensor, 0, 0, 9);
    add_box(tensor, 0, SIZES(2, 0), SIZES(2, 2), NULL);
    expect_note("overlap, leave gaps");
}

/* A large mesh is understood; a large heap that was made to be slow is refused, and soon. */
static void test_many_boxes(void)
{
    enum { SIDE = 200, HEAP = 100000 };
    begin(1000);
    struct model_tensor *tensor = add_tensor("mesh", TENSOR_U8, 2, SIZES(SIDE, SIDE));
    for (int64_t i = 0; i < SIDE * SIDE; i++)
        add_box(tensor, i % 1000, SIZES(i * 7919 % SIDE, i / SIDE), SIZES(1, 1), NULL);
    CHECK(is_whole());

    begin(1000);
    tensor = add_tensor("heap", TENSOR_U8, 2, SIZES(2 * HEAP, 2 * HEAP));
    for (int64_t i = 0; i < HEAP; i++)
        add_box(tensor, 0, SIZES(i, i), SIZES(2, 2), NULL);
    expect_note("overlap, leave gaps");
}

static void test_small_ones(void)
{
    begin(100);
    add_run(add_tensor("scalar", TENSOR_F64, 0, NULL), 92, 0, 1);
    add_tensor("empty", TENSOR_F32, 2, SIZES(0, 5));
    struct model_tensor *tensor = add_tensor("also empty", TENSOR_F32, 1, SIZES(0));
    add_run(tensor, 1000, 0, 0);
    tensor = add_tensor("empty ranks", TENSOR_F32, 2, SIZES(2, 2));
    add_box(tensor, 0, SIZES(0, 0), SIZES(2, 2), NULL);
    add_box(tensor, 0, SIZES(2, 0), SIZES(0, 2), NULL);
    tensor = add_tensor("four bits", TENSOR_F4, 1, SIZES(6));
    add_run(tensor, 0, 0, 4);
    add_run(tensor, 7, 4, 2);
    int64_t elements, bytes;
    CHECK_EQUAL(0, model_check(&model));
    CHECK(model_is_whole(&model));
    model_count(&model, &elements, &bytes);
    CHECK_EQUAL(1 + 4 + 6, elements);
    CHECK_EQUAL(8 + 16 + 3, bytes);
    model_release(&model);

    begin(100);
    tensor = add_tensor("four bits", TENSOR_F4, 1, SIZES(6));
    add_run(tensor, 0, 0, 3);
    add_run(tensor, 7, 3, 3);
    expect_note("is not of whole bytes");

    begin(100);
    CHECK(!is_whole()); /* No tensors. */
}

static void test_names(void)
{
    begin(100);
    add_run(add_tensor("t", TENSOR_F32, 0, NULL), 0, 0, 1);
    CHECK(!add_tensor("t", TENSOR_F32, 0, NULL));
    expect_note("two tensors are called t");

    begin(100);
    add_run(add_tensor("t\xff", TENSOR_F32, 0, NULL), 0, 0, 1);
    expect_note("its name is not UTF-8");

    uint32_t file;
    begin(100);
    CHECK_EQUAL(0, model_add_file(&model, "b", 1, &file));
    CHECK_EQUAL(1, file);
    CHECK_EQUAL(0, model_add_file(&model, "a", 100, &file));
    CHECK_EQUAL(0, file);
    CHECK_EQUAL(2, model.file_count);
    for (int i = 0; i < 10000; i++) {
        char name[32];
        snprintf(name, sizeof name, "tensor %d", i);
        add_run(add_tensor(name, TENSOR_F32, 0, NULL), i % 90, 0, 1);
    }
    CHECK_TEXT("tensor 7777", model_find_tensor(&model, "tensor 7777")->name);
    CHECK(!model_find_tensor(&model, "tensor 10000"));
    model_release(&model);
}

static void test_types(void)
{
    begin(100);
    struct model_tensor *tensor = add_tensor("t", TENSOR_BF16, 1, SIZES(2));
    tensor->stored = TENSOR_F32;
    add_run(tensor, 0, 0, 2);
    CHECK(is_whole());
    begin(100);
    tensor = add_tensor("t", TENSOR_BF16, 1, SIZES(2));
    tensor->stored = TENSOR_I32;
    add_run(tensor, 0, 0, 2);
    expect_note("BF16 cannot be made of I32");
}

static void test_tied(void)
{
    begin(100);
    add_run(add_tensor("first", TENSOR_F32, 2, SIZES(2, 2)), 8, 0, 4);
    add_run(add_tensor("other shape", TENSOR_F32, 1, SIZES(4)), 40, 0, 4);
    add_run(add_tensor("same", TENSOR_F32, 2, SIZES(2, 2)), 8, 0, 4);
    add_tensor("said", TENSOR_F32, 2, SIZES(2, 2))->tied = "same";
    CHECK_EQUAL(0, model_check(&model));
    CHECK(model_is_whole(&model));
    CHECK(!model.tensors[0].tied && !model.tensors[1].tied);
    CHECK_TEXT("first", model.tensors[2].tied);
    CHECK_TEXT("first", model.tensors[3].tied);
    model_release(&model);

    begin(100);
    add_tensor("lost", TENSOR_F32, 2, SIZES(2, 2))->tied = "nobody";
    expect_note("is the same as nobody");
    begin(100);
    add_run(add_tensor("t", TENSOR_F32, 1, SIZES(4)), 0, 0, 4);
    add_tensor("larger", TENSOR_F32, 1, SIZES(5))->tied = "t";
    expect_note("is the same as t, which is missing or another one");
}

static void test_notes(void)
{
    begin(100);
    for (int i = 0; i < 3 * MODEL_NOTES_MAX; i++)
        CHECK_EQUAL(0, model_add_note(&model, i == 2 * MODEL_NOTES_MAX, "note\n%d\x1b", i));
    CHECK_EQUAL(MODEL_NOTES_MAX, model.note_count);
    CHECK_TEXT("note?0?", model.notes[0].text);
    CHECK_TEXT("2001 notes more are left out", model.notes[MODEL_NOTES_MAX - 1].text);
    CHECK(model.missing && model.notes[MODEL_NOTES_MAX - 1].missing);
    model_release(&model);
}

int main(void)
{
    check_run("runs fill a tensor exactly once", test_runs);
    check_run("pieces inside their tensor and their file", test_bounds);
    check_run("views that repeat elements", test_repeated);
    check_run("boxes fill a tensor exactly once", test_boxes);
    check_run("boxes of whole rows become runs", test_boxes_become_runs);
    check_run("many boxes take no long time", test_many_boxes);
    check_run("scalars, empty tensors, half bytes", test_small_ones);
    check_run("names of tensors and files", test_names);
    check_run("types that can be had from others", test_types);
    check_run("tied tensors", test_tied);
    check_run("notes are bounded and safe to print", test_notes);
    return check_done();
}
