/* SPDX-License-Identifier: Apache-2.0 */
/* torch.save files of both forms: where each tensor's bytes are, and that none is said to be outside. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "format/torch_file.h"
#include "test_format_files.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* -- pickles ----------------------------------------------------------------------------------------------
 */

/* A tensor as it is written; sizes and strides are opcodes. */
struct test_tensor {
    const char *key, *class, *sizes, *strides;
    int64_t count, offset;
    const char *type; /* NULL: that of the storage */
    const char *tail; /* further arguments */
};

static void test_put_arguments(struct bytes *pickle, const struct test_tensor *tensor)
{
    bytes_print(pickle, "((S'storage'\nctorch\n%s\nS'%s'\nS'cpu'\nI%lld\ntQI%lld\n", tensor->class,
                tensor->key, (long long)tensor->count, (long long)tensor->offset);
    bytes_print(pickle, "(%st(%stI00\nccollections\nOrderedDict\n)R", tensor->sizes, tensor->strides);
    if (tensor->type)
        bytes_print(pickle, "ctorch\n%s\n", tensor->type);
    bytes_print(pickle, "%st", tensor->tail ? tensor->tail : "");
}

static void test_put_tensor(struct bytes *pickle, const struct test_tensor *tensor)
{
    bytes_print(pickle, "ctorch._utils\n_rebuild_tensor_v%d\n", tensor->type ? 3 : 2);
    test_put_arguments(pickle, tensor);
    bytes_print(pickle, "R");
}

static const struct test_tensor test_plain = {
    .key = "0", .class = "FloatStorage", .count = 8, .sizes = "I2\nI3\n", .strides = "I3\nI1\n"};

/* A list of one tensor, as a whole pickle. */
static void test_put_only(struct bytes *pickle, const struct test_tensor *tensor)
{
    bytes_print(pickle, "(");
    test_put_tensor(pickle, tensor);
    bytes_print(pickle, "l.");
}

/* -- files ------------------------------------------------------------------------------------------------
 */

enum { TEST_PICKLE, TEST_ORDER, TEST_FIRST, TEST_SECOND, TEST_VERSION, TEST_ENTRIES };

/* A file of a pickle and storages "0" of 32 and "1" of 16 bytes. Starts as {0}; test_release. */
struct test_file {
    struct bytes pickle, bytes;
    struct archive_entry entries[TEST_ENTRIES];
    struct archive archive;
    int64_t storages[2]; /* where they are */
    struct counted_source counted;
    struct torch_file file;
    struct format_problem problem;
    unsigned fail_at;
};

static void test_release(struct test_file *test)
{
    bytes_release(&test->pickle);
    bytes_release(&test->bytes);
    torch_file_release(&test->file);
}

#define cleanup_test __attribute__((cleanup(test_release)))

static void test_set_entries(struct test_file *test)
{
    static const struct archive_entry entries[TEST_ENTRIES] = {
        [TEST_PICKLE] = {.name = "model/data.pkl"},
        [TEST_ORDER] = {.name = "model/byteorder", .size = 6, .content = "little"},
        [TEST_FIRST] = {.name = "model/data/0", .size = 32},
        [TEST_SECOND] = {.name = "model/data/1", .size = 16},
        [TEST_VERSION] = {.name = "model/version", .size = 2, .content = "3\n"},
    };
    memcpy(test->entries, entries, sizeof entries);
    test->archive = (struct archive){.entries = test->entries, .count = TEST_ENTRIES};
}

static void test_build(struct test_file *test)
{
    test->entries[TEST_PICKLE].size = test->pickle.count;
    test->entries[TEST_PICKLE].content = test->pickle.at;
    archive_build(&test->bytes, &test->archive);
    test->storages[0] = (int64_t)test->entries[TEST_FIRST].data;
    test->storages[1] = (int64_t)test->entries[TEST_SECOND].data;
}

static const char test_legacy_head[] =
    "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";

static void test_build_legacy_as(struct test_file *test, const char *system, const char *keys)
{
    bytes_put(&test->bytes, test_legacy_head, sizeof test_legacy_head - 1);
    bytes_print(&test->bytes, "%s", system);
    bytes_put(&test->bytes, test->pickle.at, test->pickle.count);
    bytes_print(&test->bytes, "%s", keys);
    for (unsigned i = 0; i < 2; i++) {
        bytes_put_number(&test->bytes, i == 0 ? 8 : 16, 8);
        test->storages[i] = (int64_t)test->bytes.count;
        bytes_fill(&test->bytes, (uint8_t)i, i == 0 ? 32 : 16);
    }
}

static void test_build_legacy(struct test_file *test)
{
    test_build_legacy_as(test, "(dS'little_endian'\nI01\ns.", "(S'0'\nS'1'\nl.");
}

static int test_read_range(struct test_file *test, int64_t start, int64_t length)
{
    torch_file_release(&test->file);
    counted_source_open(&test->counted, &test->bytes);
    test->counted.fail_at = test->fail_at;
    test->problem = (struct format_problem){0};
    int result = torch_file_read(&test->counted.source, start, length, &test->file, &test->problem);
    CHECK_EQUAL(0, test->counted.outside);
    CHECK((result == FORMAT_FOREIGN) == (test->problem.text[0] != '\0'));
    return result;
}

static int test_read(struct test_file *test)
{
    return test_read_range(test, 0, (int64_t)test->bytes.count);
}

static void test_is_refused(struct test_file *test, const char *words)
{
    CHECK_EQUAL(FORMAT_FOREIGN, test_read(test));
    if (!strstr(test->problem.text, words))
        CHECK_TEXT(words, test->problem.text);
}

/* -- tensors ----------------------------------------------------------------------------------------------
 */

/* The tensor that item `i` of the root is. */
static struct tensor test_tensor_at(struct test_file *test, size_t i)
{
    struct tensor tensor;
    struct format_problem problem = {0};
    const struct pickle_node *node = pickle_item(test->file.root, i);
    CHECK(torch_file_is_tensor(node));
    CHECK_EQUAL(0, torch_file_tensor(&test->file, node, &tensor, &problem));
    CHECK_TEXT("", problem.text);
    CHECK(!tensor.name);
    return tensor;
}

static void test_is_shape(const struct tensor *tensor, int64_t first, int64_t second)
{
    CHECK(tensor->shape.rank == 2 && tensor->shape.sizes[0] == first && tensor->shape.sizes[1] == second);
}

static void test_put_layouts(struct bytes *pickle)
{
    static const struct test_tensor tensors[] = {
        {.key = "0",
         .class = "FloatStorage",
         .count = 8,
         .offset = 2,
         .sizes = "I2\nI3\n",
         .strides = "I3\nI1\n"},
        {.key = "0", .class = "FloatStorage", .count = 8, .sizes = "I3\nI2\n", .strides = "I1\nI3\n"},
        {.key = "0", .class = "FloatStorage", .count = 8, .offset = 7, .sizes = "", .strides = ""},
        {.key = "0",
         .class = "FloatStorage",
         .count = 8,
         .offset = 99,
         .sizes = "I0\nI3\n",
         .strides = "I3\nI1\n"},
        {.key = "0", .class = "FloatStorage", .count = 8, .sizes = "I1\nI8\n", .strides = "I77\nI1\n"},
        {.key = "0", .class = "FloatStorage", .count = 8, .sizes = "I4\nI2\n", .strides = "I0\nI1\n"},
        {.key = "1",
         .class = "UntypedStorage",
         .count = 16,
         .offset = 3,
         .sizes = "I2\nI2\n",
         .strides = "I2\nI1\n",
         .type = "uint16"},
        {.key = "1",
         .class = "UntypedStorage",
         .count = 16,
         .sizes = "I2\nI8\n",
         .strides = "I8\nI1\n",
         .type = "float4_e2m1fn_x2"},
        {.key = "1",
         .class = "BFloat16Storage",
         .count = 8,
         .offset = 1,
         .sizes = "I1\nI7\n",
         .strides = "I7\nI1\n",
         .tail = "(dS'conj'\nI00\ns"},
    };
    bytes_print(pickle, "(");
    for (size_t i = 0; i < COUNT(tensors); i++)
        test_put_tensor(pickle, &tensors[i]);
    bytes_print(pickle, "l.");
}

static void test_layouts(void (*build)(struct test_file *))
{
    static const struct {
        enum tensor_type type;
        unsigned storage;
        int64_t offset;
        int64_t sizes[2];
        bool strided;
    } expected[] = {
        {TENSOR_F32, 0, 8, {2, 3}, false},  {TENSOR_F32, 0, 0, {3, 2}, true},
        {TENSOR_F32, 0, 28, {0}, false},    {TENSOR_F32, 0, 0, {0, 3}, false},
        {TENSOR_F32, 0, 0, {1, 8}, false},  {TENSOR_F32, 0, 0, {4, 2}, true},
        {TENSOR_U16, 1, 6, {2, 2}, false},  {TENSOR_F4, 1, 0, {2, 16}, false},
        {TENSOR_BF16, 1, 2, {1, 7}, false},
    };
    cleanup_test struct test_file test = {0};
    test_set_entries(&test);
    test_put_layouts(&test.pickle);
    build(&test);
    CHECK_EQUAL(0, test_read(&test));
    for (size_t i = 0; i < COUNT(expected); i++) {
        struct tensor tensor = test_tensor_at(&test, i);
        int64_t length;
        CHECK_EQUAL(expected[i].type, tensor.type);
        CHECK_EQUAL(test.storages[expected[i].storage] + expected[i].offset, tensor.offset);
        CHECK_EQUAL(expected[i].strided, tensor.strides != NULL);
        if (i != 2)
            test_is_shape(&tensor, expected[i].sizes[0], expected[i].sizes[1]);
        CHECK_EQUAL(test.storages[expected[i].storage],
                    torch_file_storage_offset(&test.file, pickle_item(test.file.root, i), &length));
        CHECK_EQUAL(expected[i].storage == 0 ? 32 : 16, length);
    }
    struct tensor turned = test_tensor_at(&test, 1);
    CHECK(turned.strides[0] == 1 && turned.strides[1] == 3);
}

static void test_archive_layouts(void)
{
    test_layouts(test_build);
}

static void test_legacy_layouts(void)
{
    test_layouts(test_build_legacy);
}

static void test_wrappers(void)
{
    cleanup_test struct test_file test = {0};
    test_set_entries(&test);
    bytes_print(&test.pickle, "(ctorch._utils\n_rebuild_parameter\n(");
    test_put_tensor(&test.pickle, &test_plain);
    bytes_print(&test.pickle, "I01\nNtRctorch._utils\n_rebuild_parameter_with_state\n(");
    test_put_tensor(&test.pickle, &test_plain);
    bytes_print(&test.pickle,
                "I01\nN(dS'note'\nI5\nstR"
                "ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\ncmy\nTensor\n");
    test_put_arguments(&test.pickle, &test_plain);
    bytes_print(&test.pickle, "(N(dS'note'\nI6\nsttR"
                              "ctorch._utils\n_rebuild_device_tensor_from_cpu_tensor\n(");
    test_put_tensor(&test.pickle, &test_plain);
    bytes_print(&test.pickle,
                "ctorch\nfloat32\nS'xla:0'\nI00\ntR"
                "ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_wrapper_subclass\n"
                "cd\nDTensor\n(t(dS'_local_tensor'\n");
    test_put_tensor(&test.pickle, &test_plain);
    bytes_print(&test.pickle, "stRl.");
    test_build(&test);
    CHECK_EQUAL(0, test_read(&test));
    for (size_t i = 0; i < 4; i++) {
        struct tensor tensor = test_tensor_at(&test, i);
        CHECK_EQUAL(test.storages[0], tensor.offset);
        test_is_shape(&tensor, 2, 3);
    }
    int64_t note = 0;
    CHECK(pickle_integer(torch_file_attribute(pickle_item(test.file.root, 1), "note"), &note) && note == 5);
    CHECK(pickle_integer(torch_file_attribute(pickle_item(test.file.root, 2), "note"), &note) && note == 6);
    CHECK(!torch_file_attribute(pickle_item(test.file.root, 3), "note") &&
          !torch_file_attribute(NULL, "note"));
    const struct pickle_node *distributed = pickle_item(test.file.root, 4);
    CHECK(!torch_file_is_tensor(distributed));
    CHECK(torch_file_is_tensor(torch_file_attribute(distributed, "_local_tensor")));
}

/* What is said about the tensor of a file that is fine otherwise. */
static void test_tensor_refused(const char *pickle, const struct test_tensor *tensor, const char *words)
{
    cleanup_test struct test_file test = {0};
    struct tensor out;
    struct format_problem problem = {0};
    test_set_entries(&test);
    if (tensor)
        test_put_only(&test.pickle, tensor);
    else
        bytes_print(&test.pickle, "%s", pickle);
    test_build(&test);
    CHECK_EQUAL(0, test_read(&test));
    CHECK_EQUAL(FORMAT_FOREIGN,
                torch_file_tensor(&test.file, pickle_item(test.file.root, 0), &out, &problem));
    if (!strstr(problem.text, words))
        CHECK_TEXT(words, problem.text);
}

static void test_tensors_refused(void)
{
    static const struct {
        struct test_tensor tensor;
        const char *words;
    } tensors[] = {
        {{"0", "FloatStorage", "I2\nI3\n", "I3\nI1\n", 8, 3, NULL, NULL}, "leaves it"},
        {{"0", "FloatStorage", "I2\nI3\n", "I3\nI1\n", 8, -1, NULL, NULL}, "leaves it"},
        {{"0", "FloatStorage", "I2\nI3\n", "I3\nI1\n", 8, INT64_MAX, NULL, NULL}, "leaves it"},
        {{"0", "FloatStorage", "I2\nI3\n", "I6\nI1\n", 8, 0, NULL, NULL}, "leaves it"},
        {{"0", "FloatStorage", "I2\nI2\n", "I9223372036854775807\nI1\n", 8, 0, NULL, NULL}, "leaves it"},
        {{"0", "FloatStorage", "I4294967296\nI4294967296\n", "I0\nI0\n", 8, 0, NULL, NULL}, "too large"},
        {{"0", "FloatStorage", "I9223372036854775808\n", "I0\n", 8, 0, NULL, NULL}, "a large whole number"},
        {{"0", "FloatStorage", "I-2\n", "I1\n", 8, 0, NULL, NULL}, "found -2"},
        {{"0", "FloatStorage", "I2\n", "I-1\n", 8, 0, NULL, NULL}, "found -1"},
        {{"0", "FloatStorage", "I2\n", "", 8, 0, NULL, NULL}, "as many strides as sizes"},
        {{"0", "FloatStorage", "N", "I1\n", 8, 0, NULL, NULL}, "found None"},
        {{"0", "FloatStorage", "I2\n", "I1\n", 9, 0, NULL, NULL}, "expected 36 bytes of storage 0, found 32"},
        {{"0", "FloatStorage", "I2\n", "I1\n", -1, 0, NULL, NULL}, "the id of a storage"},
        {{"0", "FloatStorage", "I2\n", "I1\n", INT64_MAX, 0, NULL, NULL}, "the size of storage 0"},
        {{"2", "FloatStorage", "I2\n", "I1\n", 8, 0, NULL, NULL}, "storage 2 in the file"},
        {{"0", "QInt8Storage", "I2\n", "I1\n", 8, 0, NULL, NULL}, "torch QInt8Storage"},
        {{"0", "UntypedStorage", "I2\n", "I1\n", 8, 0, "int5", NULL}, "torch int5"},
        {{"0", "ComplexFloatStorage", "I2\n", "I1\n", 4, 0, NULL, "(dS'conj'\nI01\ns"}, "conjugated"},
        {{"0", "UntypedStorage", "", "", 8, 0, "float4_e2m1fn_x2", NULL}, "4-bit pairs"},
        {{"0", "UntypedStorage", "I2\nI2\n", "I1\nI2\n", 8, 0, "float4_e2m1fn_x2", NULL}, "4-bit pairs"},
    };
    for (size_t i = 0; i < COUNT(tensors); i++)
        test_tensor_refused(NULL, &tensors[i].tensor, tensors[i].words);
    test_tensor_refused("(Nl.", NULL, "found None");
    test_tensor_refused("(l.", NULL, "found nothing");
    test_tensor_refused("(ctorch._utils\n_rebuild_sparse_tensor\n)Rl.", NULL, "_rebuild_sparse_tensor");
    test_tensor_refused("(ctorch._utils\n_rebuild_tensor_v2\n)Rl.", NULL,
                        "a tensor's storage, found nothing");
    test_tensor_refused("(ctorch._utils\n_rebuild_tensor_v2\n(NQtRl.", NULL, "the id of a storage");
    test_tensor_refused("(cos\nsystem\n(S'id'\ntRl.", NULL, "os system");
    /* A parameter that holds itself. */
    test_tensor_refused(
        "(ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN(lp0\n0NNtRl.",
        NULL, "expected a tensor");
}

/* -- archives ---------------------------------------------------------------------------------------------
 */

static void test_set_plain(struct test_file *test)
{
    test_set_entries(test);
    test_put_only(&test->pickle, &test_plain);
}

static void test_archive_refused(void)
{
    static const struct {
        unsigned entry;
        struct archive_entry changed;
        const char *words;
    } changes[] = {
        {TEST_FIRST, {.name = "model/data/0", .size = 32, .method = 8}, "stored entries, found model/data/0"},
        {TEST_ORDER, {.name = "model/byteorder", .size = 3, .content = "big"}, "found \"big\""},
        {TEST_ORDER, {.name = "model/byteorder", .size = 0}, "found \"\""},
        {TEST_ORDER, {.name = "model/data.pkl", .size = 1, .content = "N"}, "one entry model/data.pkl"},
        {TEST_ORDER, {.name = "model/data/1", .size = 1}, "two of 1"},
        {TEST_ORDER, {.name = "model/constants.pkl", .size = 1}, "TorchScript"},
        {TEST_ORDER, {.name = "model/code/a.py", .size = 1, .method = 8}, "TorchScript"},
    };
    for (size_t i = 0; i < COUNT(changes); i++) {
        cleanup_test struct test_file test = {0};
        test_set_plain(&test);
        test.entries[changes[i].entry] = changes[i].changed;
        test_build(&test);
        test_is_refused(&test, changes[i].words);
    }
}

static void test_archive_folders(void)
{
    cleanup_test struct test_file test = {0}, other = {0}, loose = {0}, bare = {0};
    struct tensor tensor;
    test_set_plain(&test);
    test.entries[TEST_VERSION].name = "other/data.pkl";
    test_build(&test);
    CHECK_EQUAL(0, test_read(&test));
    test_set_plain(&other);
    other.entries[TEST_PICKLE].name = "other/data.pkl";
    test_build(&other);
    CHECK_EQUAL(0, test_read(&other));
    CHECK_EQUAL(FORMAT_FOREIGN,
                torch_file_tensor(&other.file, pickle_item(other.file.root, 0), &tensor, NULL));
    /* A NUL in the folder's name. */
    bytes_set_number(&other.bytes, other.entries[TEST_PICKLE].header + 30, 0, 1);
    bytes_set_number(&other.bytes, other.entries[TEST_PICKLE].central + 46, 0, 1);
    CHECK_EQUAL(0, test_read(&other));
    test_set_plain(&loose);
    loose.entries[TEST_PICKLE].name = "data.pkl";
    test_build(&loose);
    test_is_refused(&loose, "in a folder, found the entry data.pkl");
    test_set_plain(&bare);
    bare.archive.entries++;
    bare.archive.count--;
    test_build(&bare);
    test_is_refused(&bare, "an entry model/data.pkl");
}

static void test_archive_lies(void)
{
    cleanup_test struct test_file test = {0};
    test_set_plain(&test);
    test_build(&test);
    CHECK_EQUAL(0, test_read(&test));
    /* An entry whose local header is another one's; one that says that it is larger. */
    size_t first = test.entries[TEST_FIRST].central, second = test.entries[TEST_SECOND].central;
    bytes_set_number(&test.bytes, second + 42, test.entries[TEST_FIRST].header, 4);
    test_is_refused(&test, "a local header as the directory says for model/data/1");
    bytes_set_number(&test.bytes, second + 42, test.entries[TEST_SECOND].header, 4);
    bytes_set_number(&test.bytes, first + 20, 100, 4);
    bytes_set_number(&test.bytes, first + 24, 100, 4);
    test_is_refused(&test, "an entry to start behind the one before it");
    bytes_set_number(&test.bytes, first + 20, INT32_MAX, 4);
    bytes_set_number(&test.bytes, first + 24, INT32_MAX, 4);
    test_is_refused(&test, "an entry of the zip directory");
}

/* Several in one file, as the distributed writer puts them. */
static void test_archive_ranges(void)
{
    cleanup_test struct test_file test = {0};
    test_set_plain(&test);
    bytes_fill(&test.bytes, 'x', 100);
    test_build(&test);
    int64_t length = (int64_t)test.bytes.count - 100;
    bytes_fill(&test.bytes, 'y', 50);
    CHECK_EQUAL(0, test_read_range(&test, 100, length));
    CHECK_EQUAL(test.storages[0], test_tensor_at(&test, 0).offset);
    CHECK_EQUAL(FORMAT_FOREIGN, test_read_range(&test, 99, length + 1));
    CHECK_EQUAL(FORMAT_FOREIGN, test_read_range(&test, 101, length - 1));
    CHECK_EQUAL(FORMAT_FOREIGN, test_read_range(&test, 100, length + 1));
    CHECK_EQUAL(FORMAT_FOREIGN, test_read_range(&test, 100, length + 51));
    CHECK_EQUAL(FORMAT_FOREIGN, test_read_range(&test, -1, length));
    CHECK_EQUAL(FORMAT_FOREIGN, test_read_range(&test, INT64_MAX, INT64_MAX));
    CHECK_EQUAL(FORMAT_FOREIGN, test_read_range(&test, 0, 0));
}

static void test_many_storages(void)
{
    enum { MANY = 60000, NAME = 24 };
    cleanup_test struct test_file test = {0};
    cleanup_free struct archive_entry *entries = calloc(MANY + 1, sizeof *entries);
    cleanup_free char *names = calloc(MANY, NAME);
    CHECK(entries && names);
    if (!entries || !names)
        return;
    test.pickle.count = 0;
    bytes_print(&test.pickle, "(");
    for (size_t i = 0; i < MANY; i++) {
        char key[12];
        snprintf(key, sizeof key, "%zu", i);
        snprintf(names + i * NAME, NAME, "m/data/%s", key);
        entries[i + 1] = (struct archive_entry){.name = names + i * NAME, .size = 1};
        test_put_tensor(&test.pickle,
                        &(struct test_tensor){
                            .key = key, .class = "ByteStorage", .count = 1, .sizes = "", .strides = ""});
    }
    bytes_print(&test.pickle, "l.");
    entries[0] =
        (struct archive_entry){.name = "m/data.pkl", .content = test.pickle.at, .size = test.pickle.count};
    test.archive = (struct archive){.entries = entries, .count = MANY + 1};
    archive_build(&test.bytes, &test.archive);
    CHECK_EQUAL(0, test_read(&test));
    CHECK(test.counted.read_bytes < 4 * test.bytes.count);
    size_t wrong = 0;
    for (size_t i = 0; i < MANY; i++) {
        struct tensor tensor;
        if (torch_file_tensor(&test.file, pickle_item(test.file.root, i), &tensor, NULL) != 0 ||
            tensor.offset != (int64_t)entries[i + 1].data)
            wrong++;
    }
    CHECK_EQUAL(0, wrong);
}

/* -- the older form ---------------------------------------------------------------------------------------
 */

static void test_legacy_refused(void)
{
    static const struct {
        const char *system, *keys, *words;
    } files[] = {
        {"(dS'little_endian'\nI00\ns.", "(S'0'\nl.", "big-endian"},
        {"(d.", "(S'7'\nl.", "the object refers to, found 7"},
        {"(d.", "(I0\nl.", "the object refers to, found a whole number"},
        {"(d.", "N.", "a list of storages, found None"},
        {"(d.", "(S'0'\n", "opcode"},
    };
    for (size_t i = 0; i < COUNT(files); i++) {
        cleanup_test struct test_file test = {0};
        test_put_only(&test.pickle, &test_plain);
        test_build_legacy_as(&test, files[i].system, files[i].keys);
        test_is_refused(&test, files[i].words);
    }
    cleanup_test struct test_file test = {0};
    test_put_only(&test.pickle, &test_plain);
    test_build_legacy_as(&test, "(d.", "(S'0'\nl.");
    CHECK_EQUAL(0, test_read(&test));
    static const uint64_t counts[] = {UINT64_MAX, (uint64_t)1 << 63, INT64_MAX, 15};
    for (size_t i = 0; i < COUNT(counts); i++) {
        bytes_set_number(&test.bytes, (size_t)test.storages[0] - 8, counts[i], 8);
        test_is_refused(&test, "storage 0 in the 64 bytes left");
    }
    bytes_set_number(&test.bytes, (size_t)test.storages[0] - 8, 14, 8);
    CHECK_EQUAL(0, test_read(&test));
    bytes_set_number(&test.bytes, sizeof test_legacy_head - 4, 1002, 2);
    test_is_refused(&test, "version 1001, found 1002");
    cleanup_test struct test_file twice = {0};
    test_put_only(&twice.pickle, &test_plain);
    test_build_legacy_as(&twice, "(d.", "(S'0'\nS'0'\nl.");
    bytes_set_number(&twice.bytes, (size_t)twice.storages[1] - 8, 4, 8);
    test_is_refused(&twice, "two of 0");
}

static void test_likely(void)
{
    static const char *const protocols[] = {"L119547037146038801333356L\n.",
                                            "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
                                            "\x80\x04\x95\x0d",
                                            "PK\x03\x04",
                                            "PK\x01\x02",
                                            "{\"a\": 1}",
                                            ""};
    static const bool expected[] = {true, true, false, true, false, false, false};
    for (size_t i = 0; i < COUNT(protocols); i++) {
        cleanup_bytes struct bytes bytes = {0};
        struct counted_source counted;
        bytes_print(&bytes, "%s", protocols[i]);
        counted_source_open(&counted, &bytes);
        CHECK_EQUAL(expected[i], torch_file_is_likely(&counted.source));
        CHECK_EQUAL(0, counted.outside);
    }
}

/* -- any bytes --------------------------------------------------------------------------------------------
 */

/* Whatever a file says, no tensor of it is outside. */
static void test_any(struct test_file *test)
{
    int result = test_read(test);
    CHECK(result == 0 || result == FORMAT_FOREIGN);
    for (size_t i = 0; result == 0 && i < pickle_count(test->file.root); i++) {
        struct tensor tensor;
        int64_t length, offset;
        const struct pickle_node *node = pickle_item(test->file.root, i);
        if (torch_file_tensor(&test->file, node, &tensor, NULL) != 0)
            continue;
        offset = torch_file_storage_offset(&test->file, node, &length);
        CHECK(offset >= 0 && tensor.offset >= offset && length <= test->counted.source.size - offset);
        CHECK(tensor.offset <= offset + length);
    }
}

static void test_cut_and_changed(void)
{
    static void (*const builds[])(struct test_file *) = {test_build, test_build_legacy};
    for (size_t i = 0; i < COUNT(builds); i++) {
        cleanup_test struct test_file test = {0};
        test_set_entries(&test);
        test_put_layouts(&test.pickle);
        builds[i](&test);
        CHECK_EQUAL(0, test_read(&test));
        size_t whole = test.bytes.count;
        for (size_t at = 0; at < whole; at++) {
            test.bytes.count = at;
            CHECK_EQUAL(FORMAT_FOREIGN, test_read(&test));
        }
        test.bytes.count = whole;
        static const uint8_t changes[] = {1, 0x80, 0xff};
        for (size_t at = 0; at < whole; at++) {
            for (size_t change = 0; change < COUNT(changes); change++) {
                test.bytes.at[at] ^= changes[change];
                test_any(&test);
                test.bytes.at[at] ^= changes[change];
            }
        }
    }
}

static void test_read_failures(void)
{
    static void (*const builds[])(struct test_file *) = {test_build, test_build_legacy};
    for (size_t i = 0; i < COUNT(builds); i++) {
        cleanup_test struct test_file test = {0};
        test_set_entries(&test);
        test_put_layouts(&test.pickle);
        builds[i](&test);
        CHECK_EQUAL(0, test_read(&test));
        unsigned reads = test.counted.reads;
        /* The first read only looks which form it is. */
        for (test.fail_at = 2; test.fail_at <= reads; test.fail_at++)
            CHECK_EQUAL(-EIO, test_read(&test));
        CHECK(reads > 3);
    }
}

int main(void)
{
    check_run("where tensors of an archive are", test_archive_layouts);
    check_run("where tensors of the older form are", test_legacy_layouts);
    check_run("parameters and tensors of classes of their own", test_wrappers);
    check_run("tensors that are refused, with a line that says why", test_tensors_refused);
    check_run("archives that are refused", test_archive_refused);
    check_run("records lie in the folder of the first entry", test_archive_folders);
    check_run("a directory and local headers that lie", test_archive_lies);
    check_run("an archive inside a file", test_archive_ranges);
    check_run("many storages", test_many_storages);
    check_run("files of the older form that are refused", test_legacy_refused);
    check_run("what is likely to be such a file", test_likely);
    check_run("files cut after any byte, and with any byte changed", test_cut_and_changed);
    check_run("a read that fails is the caller's to know", test_read_failures);
    return check_done();
}
