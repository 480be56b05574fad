/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: the bytes of the files that are made, gathering, casting. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "ckpt/assemble_cast.h"
#include "ckpt/framework.h"
#include "format/safetensors_file.h"
#include "format/torch_file.h"
#include "test_ckpt_folder.h"

#define SIZES(...)                                                                                           \
    (const int64_t[])                                                                                        \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }

enum { MEMORY = 4096 };

static uint8_t memory_bytes[2][MEMORY];
static struct memory_folder memory;
static struct model model;
static struct assemble_plan plan;
static struct format_problem problem;

/* A model over two files of known bytes. */
static void begin(void)
{
    uint32_t file;
    memory = (struct memory_folder){0};
    for (size_t i = 0; i < MEMORY; i++) {
        memory_bytes[0][i] = (uint8_t)(i * 7 + i / 256);
        memory_bytes[1][i] = (uint8_t)(i * 11 + 3 + i / 256);
    }
    memory_folder_add(&memory, "a", memory_bytes[0], MEMORY);
    memory_folder_add(&memory, "b", memory_bytes[1], MEMORY);
    model_begin(&model);
    CHECK_EQUAL(0, model_add_file(&model, "a", MEMORY, &file));
    CHECK_EQUAL(0, model_add_file(&model, "b", MEMORY, &file));
}

static struct model_tensor *add(const char *name, enum tensor_type type, uint32_t rank, const int64_t *sizes)
{
    struct model_tensor *tensor;
    const struct tensor_shape shape = {.rank = rank, .sizes = sizes};
    CHECK_EQUAL(0, model_add_tensor(&model, name, type, &shape, &tensor));
    return tensor;
}

static void add_run(struct model_tensor *tensor, uint32_t file, int64_t offset, int64_t first, int64_t count)
{
    const struct model_piece piece = {.file = file, .offset = offset, .first = first, .count = count};
    CHECK_EQUAL(0, model_add_piece(&model, tensor, &piece));
}

static void make(struct assemble_wish wish)
{
    CHECK_EQUAL(0, model_check(&model));
    CHECK(model_is_whole(&model));
    for (size_t i = 0; i < model.note_count; i++)
        printf("# %s\n", model.notes[i].text);
    CHECK_EQUAL(0, assemble_plan(&model, &wish, &plan, &problem));
}

static void end(void)
{
    assemble_release(&plan);
    model_release(&model);
}

/* All bytes of a file of the plan; the caller frees them. */
static uint8_t *read_file(size_t index)
{
    struct plan_reader reader = {.memory = &memory, .model = &model, .file = &plan.files[index]};
    uint8_t *bytes = malloc((size_t)reader.file->size + 1);
    CHECK_EQUAL(0, plan_reader_read(&reader, bytes, (size_t)reader.file->size, 0));
    bytes[reader.file->size] = 0;
    return bytes;
}

/* -- layouts ----------------------------------------------------------------------------------------------
 */

static void test_safetensors(void)
{
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"long\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[0,16]},"
        "\"a\\\"\\\\\\n\\u0001\xc3\xa4\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[16,40]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[40,44]},"
        "\"empty\":{\"dtype\":\"F16\",\"shape\":[0,4],\"data_offsets\":[44,44]},"
        "\"mask\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[44,47]}}";
    begin();
    add("empty", TENSOR_F16, 2, SIZES(0, 4));
    add_run(add("mask", TENSOR_BOOL, 1, SIZES(3)), 1, 500, 0, 3);
    add_run(add("b", TENSOR_F32, 0, NULL), 0, 124, 0, 1);
    struct model_tensor *tensor = add("a\"\\\n\x01\xc3\xa4", TENSOR_F32, 2, SIZES(2, 3));
    add_run(tensor, 0, 112, 3, 3);
    add_run(tensor, 0, 100, 0, 3);
    add_run(add("long", TENSOR_I64, 1, SIZES(2)), 1, 8, 0, 2);
    make((struct assemble_wish){0});
    CHECK_EQUAL(1, plan.file_count);
    CHECK_TEXT("model.safetensors", plan.files[0].name);
    uint8_t *bytes = read_file(0);
    uint64_t length;
    memcpy(&length, bytes, 8);
    CHECK_EQUAL((sizeof header - 1 + 7) / 8 * 8, length);
    CHECK(memcmp(bytes + 8, header, sizeof header - 1) == 0);
    for (size_t i = sizeof header - 1; i < length; i++)
        CHECK_EQUAL(' ', bytes[8 + i]);
    const uint8_t *data = bytes + 8 + length;
    CHECK_EQUAL(8 + length + 47, plan.files[0].size);
    CHECK(memcmp(data, memory_bytes[1] + 8, 16) == 0);
    CHECK(memcmp(data + 16, memory_bytes[0] + 100, 28) == 0);
    CHECK(memcmp(data + 44, memory_bytes[1] + 500, 3) == 0);
    /* Two parts of header, and the three pieces in a row are one. */
    CHECK_EQUAL(5, plan.files[0].part_count);
    free(bytes);
    end();
}

static void test_alignment(void)
{
    begin();
    add_run(add("t", TENSOR_U8, 1, SIZES(10)), 0, 0, 0, 10);
    make((struct assemble_wish){.alignment = 4096});
    CHECK_EQUAL(4096 + 10, plan.files[0].size);
    uint8_t *bytes = read_file(0);
    CHECK(memcmp(bytes + 4096, memory_bytes[0], 10) == 0);
    CHECK_EQUAL(' ', bytes[4095]);
    free(bytes);
    end();
}

static void test_refusals(void)
{
    begin();
    add_run(add("t", TENSOR_C128, 1, SIZES(2)), 0, 0, 0, 2);
    CHECK_EQUAL(0, model_check(&model));
    CHECK_EQUAL(-EINVAL, assemble_plan(&model, &(struct assemble_wish){0}, &plan, &problem));
    CHECK_TEXT("safetensors cannot hold t, which is complex128", problem.text);
    assemble_release(&plan);
    struct assemble_wish torch = {.format = ASSEMBLE_TORCH};
    CHECK_EQUAL(0, assemble_plan(&model, &torch, &plan, &problem));
    end();

    begin();
    add_run(add("t", TENSOR_F6_E2M3, 1, SIZES(4)), 0, 0, 0, 4);
    CHECK_EQUAL(0, model_check(&model));
    CHECK_EQUAL(-EINVAL, assemble_plan(&model, &torch, &plan, &problem));
    CHECK_TEXT("torch cannot hold t, which is F6_E2M3", problem.text);
    end();
}

/* -- shards -----------------------------------------------------------------------------------------------
 */

/* As the hub's splitter does: a tensor that is too large stands before the shard that was being filled. */
static void test_shards(void)
{
    static const char index[] = "{\n"
                                "  \"metadata\": {\n"
                                "    \"total_parameters\": 190,\n"
                                "    \"total_size\": 200\n"
                                "  },\n"
                                "  \"weight_map\": {\n"
                                "    \"a\": \"model-00002-of-00003.safetensors\",\n"
                                "    \"b\": \"model-00002-of-00003.safetensors\",\n"
                                "    \"c\\u00e4\\ud83d\\ude00\\\"\": \"model-00003-of-00003.safetensors\",\n"
                                "    \"huge\": \"model-00001-of-00003.safetensors\"\n"
                                "  }\n"
                                "}\n";
    begin();
    add_run(add("b", TENSOR_U8, 1, SIZES(40)), 0, 0, 0, 40);
    add_run(add("huge", TENSOR_U8, 1, SIZES(101)), 0, 200, 0, 101);
    struct model_tensor *buffer = add("a", TENSOR_U8, 1, SIZES(10));
    buffer->buffer = true;
    add_run(buffer, 1, 0, 0, 10);
    add_run(add("c\xc3\xa4\xf0\x9f\x98\x80\"", TENSOR_U8, 1, SIZES(49)), 1, 100, 0, 49);
    add("tied", TENSOR_U8, 1, SIZES(40))->tied = "b";
    make((struct assemble_wish){.shard_size = 98});
    CHECK_EQUAL(4, plan.file_count);
    CHECK_TEXT("model-00001-of-00003.safetensors", plan.files[0].name);
    CHECK_TEXT("model.safetensors.index.json", plan.files[3].name);
    uint8_t *bytes = read_file(3);
    CHECK_TEXT(index, (const char *)bytes);
    free(bytes);
    end();

    /* One shard is no shard. */
    begin();
    model.stem = "adapter_model";
    add_run(add("b", TENSOR_U8, 1, SIZES(40)), 0, 0, 0, 40);
    make((struct assemble_wish){.shard_size = 40, .format = ASSEMBLE_TORCH});
    CHECK_EQUAL(1, plan.file_count);
    CHECK_TEXT("adapter_model.bin", plan.files[0].name);
    end();
}

/* -- torch ------------------------------------------------------------------------------------------------
 */

static void test_torch(void)
{
    begin();
    add_run(add("half", TENSOR_BF16, 2, SIZES(2, 5)), 0, 10, 0, 10);
    add_run(add("scalar", TENSOR_I64, 0, NULL), 1, 16, 0, 1);
    add_run(add("eight", TENSOR_F8_E4M3, 3, SIZES(2, 1, 3)), 1, 99, 0, 6);
    add("empty", TENSOR_F32, 2, SIZES(3, 0));
    add("tied", TENSOR_BF16, 2, SIZES(2, 5))->tied = "half";
    make((struct assemble_wish){.format = ASSEMBLE_TORCH});
    CHECK_TEXT("pytorch_model.bin", plan.files[0].name);

    struct plan_reader reader = {.memory = &memory, .model = &model, .file = &plan.files[0]};
    struct format_source source = plan_reader_source(&reader);
    cleanup_torch_file struct torch_file file = {0};
    CHECK(torch_file_is_likely(&source));
    CHECK_EQUAL(0, torch_file_read(&source, 0, source.size, &file, &problem));
    CHECK_EQUAL(5, pickle_dict_count(file.root));
    int64_t half = 0;
    for (size_t i = 0; i < 5; i++) {
        struct tensor tensor;
        const struct model_tensor *wanted = &model.tensors[i];
        CHECK_TEXT(wanted->name, pickle_dict_key(file.root, i)->text);
        CHECK_EQUAL(0, torch_file_tensor(&file, pickle_dict_value(file.root, i), &tensor, &problem));
        CHECK_EQUAL(wanted->type, tensor.type);
        CHECK(tensor_shape_equal(&wanted->shape, &tensor.shape));
        CHECK(!tensor.strides);
        if (i == 0)
            half = tensor.offset;
        if (i == 4)
            CHECK_EQUAL(half, tensor.offset); /* One storage. */
        if (i < 3) {
            uint8_t bytes[20];
            int64_t count = 0, size = 0;
            CHECK_EQUAL(0, tensor.offset % 64);
            CHECK(tensor_count(&tensor.shape, &count) && tensor_bytes(tensor.type, count, &size));
            CHECK_EQUAL(0, source.read(source.context, bytes, (size_t)size, tensor.offset));
            CHECK(memcmp(bytes, memory_bytes[wanted->pieces->file] + wanted->pieces->offset, (size_t)size) ==
                  0);
        }
    }
    end();
}

/* Tensors, offsets and directories beyond four GiB, without the bytes. */
static void test_torch_large(void)
{
    const int64_t large = INT64_C(5) << 30;
    uint32_t number;
    begin();
    memory_folder_add(&memory, "zeros", NULL, 2 * large);
    CHECK_EQUAL(0, model_add_file(&model, "zeros", 2 * large, &number));
    add_run(add("large", TENSOR_U8, 1, SIZES(large)), number, 0, 0, large);
    add_run(add("small", TENSOR_U8, 1, SIZES(7)), 0, 1000, 0, 7);
    add_run(add("larger", TENSOR_F32, 2, SIZES(large / 8, 2)), number, 0, 0, large / 4);
    make((struct assemble_wish){.format = ASSEMBLE_TORCH});
    struct plan_reader reader = {.memory = &memory, .model = &model, .file = &plan.files[0]};
    struct format_source source = plan_reader_source(&reader);
    cleanup_torch_file struct torch_file file = {0};
    problem = (struct format_problem){.offset = -1};
    CHECK_EQUAL(0, torch_file_read(&source, 0, source.size, &file, &problem));
    if (problem.text[0])
        printf("# %s\n", problem.text);
    struct tensor tensor;
    uint8_t bytes[7];
    CHECK_EQUAL(0, torch_file_tensor(&file, pickle_get(file.root, "small"), &tensor, &problem));
    CHECK(tensor.offset > large);
    CHECK_EQUAL(0, source.read(source.context, bytes, 7, tensor.offset));
    CHECK(memcmp(bytes, memory_bytes[0] + 1000, 7) == 0);
    CHECK_EQUAL(0, torch_file_tensor(&file, pickle_get(file.root, "larger"), &tensor, &problem));
    CHECK_EQUAL(large / 8, tensor.shape.sizes[0]);
    end();
}

/* More entries than the old end of a directory can count. */
static void test_torch_many(void)
{
    enum { COUNT = 70000 };
    begin();
    for (int i = 0; i < COUNT; i++) {
        char name[32];
        snprintf(name, sizeof name, "t%d", i);
        add_run(add(name, TENSOR_U8, 1, SIZES(1)), 0, i % MEMORY, 0, 1);
    }
    CHECK_EQUAL(0, model_check(&model));
    /* What lies at one place would have one entry. */
    for (int i = 0; i < COUNT; i++)
        model.tensors[i].tied = NULL;
    struct assemble_wish wish = {.format = ASSEMBLE_TORCH};
    CHECK_EQUAL(0, assemble_plan(&model, &wish, &plan, &problem));
    struct plan_reader reader = {.memory = &memory, .model = &model, .file = &plan.files[0]};
    uint8_t *bytes = read_file(0);
    struct memory_folder whole = {0};
    memory_folder_add(&whole, "file", bytes, reader.file->size);
    struct folder folder = memory_folder_open(&whole);
    struct format_source source;
    CHECK_EQUAL(0, folder_open(&folder, "file", &source));
    cleanup_torch_file struct torch_file file = {0};
    CHECK_EQUAL(0, torch_file_read(&source, 0, source.size, &file, &problem));
    CHECK_EQUAL(COUNT, pickle_dict_count(file.root));
    struct tensor tensor;
    CHECK_EQUAL(0, torch_file_tensor(&file, pickle_get(file.root, "t69999"), &tensor, &problem));
    CHECK_EQUAL(memory_bytes[0][69999 % MEMORY], bytes[tensor.offset]);
    free(bytes);
    end();
}

/* -- gathering --------------------------------------------------------------------------------------------
 */

static uint64_t random_state = 1;

static int64_t random_below(int64_t limit)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int64_t)(random_state >> 33) % limit;
}

enum { GATHER_RANK = 3, GATHER_MAX = 1 << 16 };

struct gather_case {
    int64_t sizes[GATHER_RANK];
    size_t element;
    uint8_t wanted[GATHER_MAX];
    uint8_t file[4 * GATHER_MAX];
    int64_t file_size;
};

/* Puts a box into the file, in an order of dimensions of its own and with gaps, and adds it as a piece. */
static void gather_add_box(struct gather_case *test, struct model_tensor *tensor, const int64_t *starts,
                           const int64_t *sizes)
{
    int64_t strides[GATHER_RANK], order[GATHER_RANK] = {2, 1, 0}, step = 1;
    bool plain = random_below(2) == 0;
    for (int i = 0; i < GATHER_RANK && !plain; i++) {
        int64_t j = random_below(GATHER_RANK), moved = order[i];
        order[i] = order[j];
        order[j] = moved;
    }
    for (int i = 0; i < GATHER_RANK; i++) {
        strides[order[i]] = step;
        step *= sizes[order[i]];
        step += plain ? 0 : random_below(3);
    }
    int64_t offset = test->file_size;
    for (int64_t i = 0; i < sizes[0]; i++) {
        for (int64_t j = 0; j < sizes[1]; j++) {
            for (int64_t k = 0; k < sizes[2]; k++) {
                int64_t from =
                    ((starts[0] + i) * test->sizes[1] + starts[1] + j) * test->sizes[2] + starts[2] + k;
                int64_t to =
                    offset + (i * strides[0] + j * strides[1] + k * strides[2]) * (int64_t)test->element;
                memcpy(test->file + to, test->wanted + from * (int64_t)test->element, test->element);
            }
        }
    }
    test->file_size += (step + random_below(5)) * (int64_t)test->element;
    const struct model_piece piece = {
        .offset = offset, .starts = starts, .sizes = sizes, .strides = plain ? NULL : strides};
    CHECK_EQUAL(0, model_add_piece(&model, tensor, &piece));
}

/* Cuts the box in two until it is small enough. */
static void gather_cut_box(struct gather_case *test, struct model_tensor *tensor, const int64_t *starts,
                           const int64_t *sizes, int depth)
{
    int64_t d = random_below(GATHER_RANK);
    if (depth == 0 || sizes[d] < 2) {
        gather_add_box(test, tensor, starts, sizes);
        return;
    }
    int64_t low[GATHER_RANK], part[GATHER_RANK], cut = 1 + random_below(sizes[d] - 1);
    memcpy(low, starts, sizeof low);
    memcpy(part, sizes, sizeof part);
    part[d] = cut;
    gather_cut_box(test, tensor, low, part, depth - 1);
    low[d] += cut;
    part[d] = sizes[d] - cut;
    gather_cut_box(test, tensor, low, part, depth - 1);
}

static void gather_once(struct gather_case *test)
{
    static const enum tensor_type types[] = {TENSOR_U8, TENSOR_F16, TENSOR_F32, TENSOR_I64, TENSOR_C128};
    enum tensor_type type = types[random_below(5)];
    uint32_t file;
    test->element = tensor_type_bits(type) / 8;
    test->file_size = random_below(100);
    int64_t count = 1;
    for (int d = 0; d < GATHER_RANK; d++) {
        test->sizes[d] = 1 + random_below(14);
        count *= test->sizes[d];
    }
    int64_t size = count * (int64_t)test->element;
    for (int64_t i = 0; i < size; i++)
        test->wanted[i] = (uint8_t)random_below(256);
    memory = (struct memory_folder){0};
    model_begin(&model);
    struct model_tensor *tensor = add("t", type, GATHER_RANK, test->sizes);
    gather_cut_box(test, tensor, SIZES(0, 0, 0), test->sizes, (int)random_below(5));
    memory_folder_add(&memory, "a", test->file, test->file_size);
    CHECK_EQUAL(0, model_add_file(&model, "a", test->file_size, &file));
    make((struct assemble_wish){.format = ASSEMBLE_TORCH});

    struct plan_reader reader = {.memory = &memory, .model = &model, .file = &plan.files[0]};
    struct format_source source = plan_reader_source(&reader);
    cleanup_torch_file struct torch_file made = {0};
    struct tensor found = {0};
    CHECK_EQUAL(0, torch_file_read(&source, 0, source.size, &made, &problem));
    CHECK_EQUAL(0, torch_file_tensor(&made, pickle_get(made.root, "t"), &found, &problem));
    for (int i = 0; i < 20; i++) {
        static uint8_t bytes[GATHER_MAX];
        int64_t from = i == 0 ? 0 : random_below(size),
                length = i == 0 ? size : random_below(size - from + 1);
        CHECK_EQUAL(0, source.read(source.context, bytes, (size_t)length, found.offset + from));
        CHECK(memcmp(bytes, test->wanted + from, (size_t)length) == 0);
    }
    end();
}

static void test_gather(void)
{
    struct gather_case *test = malloc(sizeof *test);
    for (int i = 0; i < 500; i++)
        gather_once(test);
    free(test);
}

/* Columns of many shards are read in blocks, each shard forward; not row by row. */
struct count_reads {
    int64_t reads, last[2], backwards;
};

static errint count_read(void *context, uint32_t file, void *buffer, size_t length, int64_t offset)
{
    struct count_reads *count = context;
    count->reads++;
    count->backwards += offset < count->last[file];
    count->last[file] = offset + (int64_t)length;
    memset(buffer, 0, length);
    return 0;
}

static void test_gather_columns(void)
{
    enum { ROWS = 65536, COLUMNS = 32 };
    struct count_reads count = {0};
    model_begin(&model);
    struct model_tensor *tensor = add("t", TENSOR_F32, 2, SIZES(ROWS, COLUMNS));
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t file;
        CHECK_EQUAL(0, model_add_file(&model, i == 0 ? "a" : "b", ROWS * COLUMNS * 2, &file));
        const struct model_piece piece = {
            .file = i, .starts = SIZES(0, (int64_t)i * COLUMNS / 2), .sizes = SIZES(ROWS, COLUMNS / 2)};
        CHECK_EQUAL(0, model_add_piece(&model, tensor, &piece));
    }
    make((struct assemble_wish){0});
    const struct assemble_part *part = &plan.files[0].parts[plan.files[0].part_count - 1];
    CHECK_EQUAL(ASSEMBLE_COMPUTE, part->kind);
    uint8_t *out = malloc(4 << 20);
    for (int64_t from = 0; from < part->length; from += 4 << 20)
        CHECK_EQUAL(0, assemble_compute(&model, part, from, 4 << 20, out, count_read, &count));
    CHECK_EQUAL(8, count.reads); /* of a MiB each */
    CHECK_EQUAL(0, count.backwards);
    free(out);
    end();
}

/* -- casting ----------------------------------------------------------------------------------------------
 */

static void expect_half(float number, uint16_t expected)
{
    uint16_t half;
    assemble_cast(TENSOR_F32, TENSOR_F16, &number, &half, 1);
    CHECK_EQUAL(expected, half);
}

static void expect_bfloat16(float number, uint16_t expected)
{
    uint16_t half;
    assemble_cast(TENSOR_F32, TENSOR_BF16, &number, &half, 1);
    CHECK_EQUAL(expected, half);
}

static void test_cast(void)
{
    expect_half(1.0f, 0x3c00);
    expect_half(-2.0f, 0xc000);
    expect_half(-0.0f, 0x8000);
    expect_half(65504.0f, 0x7bff);
    expect_half(65519.9f, 0x7bff);
    expect_half(65520.0f, 0x7c00);
    expect_half(-1e30f, 0xfc00);
    expect_half(INFINITY, 0x7c00);
    expect_half(1.0f + 0x1p-11f, 0x3c00);            /* a tie, to even */
    expect_half(1.0f + 3 * 0x1p-11f, 0x3c02);        /* a tie, to even */
    expect_half(1.0f + 0x1p-11f + 0x1p-23f, 0x3c01); /* above it */
    expect_half(0x1p-24f, 1);
    expect_half(0x1p-25f, 0);
    expect_half(0x1.8p-24f, 2);
    expect_half(-0x1.000002p-25f, 0x8001);
    expect_half(0x1.ffcp-15f, 0x0400 - 0); /* the largest subnormal, rounded up to a normal number */
    expect_half(0x1.ff8p-15f, 0x03ff);
    expect_bfloat16(1.0f, 0x3f80);
    expect_bfloat16(1.0f + 0x1p-8f, 0x3f80);
    expect_bfloat16(1.0f + 3 * 0x1p-8f, 0x3f82);
    expect_bfloat16(3.4e38f, 0x7f80);
    expect_bfloat16(-INFINITY, 0xff80);
    expect_bfloat16(0x1p-133f, 0x0001);
}

static bool is_nan_half(uint16_t half)
{
    return (half & 0x7c00) == 0x7c00 && (half & 0x3ff);
}

/* Every number of 16 bits is the same after a way over 32. */
static void test_cast_back(void)
{
    for (uint32_t i = 0; i <= UINT16_MAX; i++) {
        uint16_t in = (uint16_t)i, out;
        float number;
        assemble_cast(TENSOR_F16, TENSOR_F32, &in, &number, 1);
        assemble_cast(TENSOR_F32, TENSOR_F16, &number, &out, 1);
        CHECK(is_nan_half(in) ? isnan(number) && is_nan_half(out) : in == out);
        assemble_cast(TENSOR_BF16, TENSOR_F32, &in, &number, 1);
        assemble_cast(TENSOR_F32, TENSOR_BF16, &number, &out, 1);
        CHECK(isnan(number) ? (out & 0x7f80) == 0x7f80 && (out & 0x7f) : in == out);
    }
    /* A NaN that has only low bits. */
    uint32_t bits = 0x7f800001;
    uint16_t out;
    assemble_cast(TENSOR_F32, TENSOR_BF16, &bits, &out, 1);
    CHECK((out & 0x7f80) == 0x7f80 && (out & 0x7f));
    assemble_cast(TENSOR_F32, TENSOR_F16, &bits, &out, 1);
    CHECK(is_nan_half(out));
}

/* A part that starts and ends in the middle of elements. */
static void test_cast_parts(void)
{
    enum { COUNT = 700 };
    begin();
    struct model_tensor *tensor = add("t", TENSOR_F64, 1, SIZES(COUNT / 2));
    for (size_t i = 0; i < COUNT / 2; i++) {
        double number = (double)i * 1.25 - 100;
        memcpy(memory_bytes[0] + 8 + 8 * i, &number, 8);
    }
    add_run(tensor, 0, 8, 0, COUNT / 2);
    make((struct assemble_wish){.cast = true, .type = TENSOR_F32});
    const struct assemble_part *part = &plan.files[0].parts[2];
    CHECK_EQUAL(ASSEMBLE_COMPUTE, part->kind);
    CHECK_EQUAL(2 * COUNT, part->length);
    struct plan_reader reader = {.memory = &memory, .model = &model, .file = &plan.files[0]};
    for (int64_t from = 0; from < part->length; from += 13) {
        uint8_t bytes[37];
        size_t length = part->length - from < 37 ? (size_t)(part->length - from) : 37;
        CHECK_EQUAL(0, plan_reader_read(&reader, bytes, length, part->offset + from));
        for (size_t i = 0; i < length; i++) {
            float number = (float)((from + (int64_t)i) / 4) * 1.25f - 100;
            uint8_t wanted[4];
            memcpy(wanted, &number, 4);
            CHECK_EQUAL(wanted[(from + (int64_t)i) % 4], bytes[i]);
        }
    }
    end();
}

/* Buffers, and what is no floating-point number of 16 bits or more, stay as they are. */
static void test_cast_some(void)
{
    begin();
    add_run(add("weight", TENSOR_F32, 1, SIZES(2)), 0, 0, 0, 2);
    struct model_tensor *buffer = add("buffer", TENSOR_F32, 1, SIZES(2));
    buffer->buffer = true;
    add_run(buffer, 0, 8, 0, 2);
    add_run(add("scale", TENSOR_F8_E4M3, 1, SIZES(2)), 0, 16, 0, 2);
    add_run(add("ids", TENSOR_I64, 1, SIZES(2)), 0, 24, 0, 2);
    make((struct assemble_wish){.cast = true, .type = TENSOR_BF16});
    struct plan_reader reader = {.memory = &memory, .model = &model, .file = &plan.files[0]};
    struct format_source source = plan_reader_source(&reader);
    cleanup_safetensors_file struct safetensors_file file = {0};
    CHECK_EQUAL(0, safetensors_file_read(&source, &file, &problem));
    CHECK_EQUAL(TENSOR_BF16, safetensors_file_tensor(&file, "weight")->type);
    CHECK_EQUAL(TENSOR_F32, safetensors_file_tensor(&file, "buffer")->type);
    CHECK_EQUAL(TENSOR_F8_E4M3, safetensors_file_tensor(&file, "scale")->type);
    CHECK_EQUAL(TENSOR_I64, safetensors_file_tensor(&file, "ids")->type);
    end();
}

/* -- frameworks -------------------------------------------------------------------------------------------
 */

static void put_text(struct memory_folder *folder, const char *path, const char *text)
{
    memory_folder_add(folder, path, text, (int64_t)strlen(text));
}

/* Names out of an index lead nowhere else. */
static void test_paths(void)
{
    CHECK(folder_path_is_safe("a/b.c"));
    CHECK(folder_path_is_safe(""));
    static const char *const bad[] = {"/a",     "a/", "a//b", "..",    "../a", "a/..",
                                      "a/../b", ".",  "./a",  "a/./b", "/"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!folder_path_is_safe(bad[i]));
    CHECK(folder_compare_names("rank_2", "rank_10") < 0);
    CHECK(folder_compare_names("rank_02", "rank_2") != 0);
    CHECK(folder_compare_names("a1b", "a1c") < 0);

    struct memory_folder hostile = {0};
    put_text(&hostile, "model.safetensors.index.json", "{\"weight_map\":{\"w\":\"../secret\"}}");
    put_text(&hostile, "../secret", "x");
    struct folder folder = memory_folder_open(&hostile);
    CHECK_EQUAL(0, framework_load(&folder, NULL, &model));
    CHECK_TEXT("sharded", model.framework);
    CHECK(!model_is_whole(&model));
    CHECK_EQUAL(0, model.file_count);
    model_release(&model);
}

static void test_step(void)
{
    struct memory_folder files = {0};
    static const char header[] = "\x02\0\0\0\0\0\0\0{}";
    memory_folder_add(&files, "model.safetensors", header, sizeof header - 1);
    put_text(&files, "trainer_state.json",
             "{\"best_metric\": -Infinity, \"log_history\": [{\"loss\": NaN, \"global_step\": 3}],\n"
             " \"x\": \"\\\"global_step\\\": 4\", \"global_step\" : 120}");
    put_text(&files, "rng_state_0.pth", "");
    put_text(&files, "rng_state_1.pth", "");
    struct folder folder = memory_folder_open(&files);
    CHECK_EQUAL(0, framework_load(&folder, NULL, &model));
    CHECK_EQUAL(120, model.step);
    CHECK_EQUAL(2, model.world_size);
    model_release(&model);
    put_text(&files, "rng_state_3.pth", "");
    CHECK_EQUAL(0, framework_load(&folder, NULL, &model));
    CHECK_EQUAL(0, model.world_size);
    model_release(&model);
}

static void test_nothing(void)
{
    struct memory_folder files = {0};
    struct folder folder = memory_folder_open(&files);
    CHECK_EQUAL(-ENOENT, framework_load(&folder, NULL, &model));
    model_release(&model);
    put_text(&files, "notes.txt", "hello, this is no model");
    CHECK_EQUAL(-ENOENT, framework_load(&folder, NULL, &model));
    model_release(&model);
}

int main(void)
{
    check_run("safetensors as the library lays it out", test_safetensors);
    check_run("a header that fills blocks", test_alignment);
    check_run("types that a format cannot hold", test_refusals);
    check_run("shards and their index", test_shards);
    check_run("torch's file is read again", test_torch);
    check_run("a torch file of more than 4 GiB", test_torch_large);
    check_run("a torch file of more than 65535 entries", test_torch_many);
    check_run("boxes are gathered in any order", test_gather);
    check_run("columns are read in blocks", test_gather_columns);
    check_run("casts round as torch does", test_cast);
    check_run("numbers of 16 bits are the same after a way over 32", test_cast_back);
    check_run("parts of elements", test_cast_parts);
    check_run("what is not cast", test_cast_some);
    check_run("names lead nowhere else", test_paths);
    check_run("what the Trainer's files tell", test_step);
    check_run("folders without a model", test_nothing);
    return check_done();
}
