/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors of safetensors files, and indexes: what the library reads, and nothing that it does not. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "format/hf_index.h"
#include "format/safetensors_file.h"
#include "test_format_files.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Starts as {0}; test_release. */
struct test_file {
    struct bytes bytes;
    struct counted_source counted;
    struct safetensors_file file;
    struct format_problem problem;
    unsigned fail_at;
};

static void test_release(struct test_file *test)
{
    bytes_release(&test->bytes);
    safetensors_file_release(&test->file);
}

#define cleanup_test __attribute__((cleanup(test_release)))

static int test_read(struct test_file *test)
{
    safetensors_file_release(&test->file);
    counted_source_open(&test->counted, &test->bytes);
    test->counted.fail_at = test->fail_at;
    test->problem = (struct format_problem){0};
    int result = safetensors_file_read(&test->counted.source, &test->file, &test->problem);
    CHECK_EQUAL(0, test->counted.outside);
    CHECK((result == FORMAT_FOREIGN) == (test->problem.text[0] != '\0'));
    return result;
}

static int test_read_header(struct test_file *test, const char *header, size_t data)
{
    test->bytes.count = 0;
    safetensors_build(&test->bytes, header, data);
    return test_read(test);
}

static void test_is_tensor(const struct test_file *test, size_t i, const char *name, enum tensor_type type,
                           int64_t offset)
{
    const struct tensor *tensor = &test->file.tensors[i];
    CHECK_TEXT(name, tensor->name);
    CHECK_EQUAL(type, tensor->type);
    CHECK_EQUAL(test->file.data + offset, tensor->offset);
    CHECK(!tensor->strides);
    CHECK(safetensors_file_tensor(&test->file, name) == tensor);
}

/* -- what is read -----------------------------------------------------------------------------------------
 */

static const char test_header[] =
    "{\"__metadata__\":{\"format\":\"pt\",\"a\\u00e9\\ud83d\\ude00\":\"x\\\"\\\\\\/"
    "\\b\\f\\n\\r\\t\xc3\xa9\"},"
    "\"w\\u0041\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
    "\"\xf0\x9f\x98\x80\":{\"shape\":[1,3],\"extra\":[{}],\"data_offsets\":[25,31],\"dtype\":\"BF16\"},"
    "\"scalar\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[24,25]},"
    "\"none\":{\"dtype\":\"I64\",\"shape\":[0,9223372036854775807],\"data_offsets\":[24,24]} }   ";

static void test_tensors(void)
{
    cleanup_test struct test_file test = {0};
    CHECK_EQUAL(0, test_read_header(&test, test_header, 31));
    CHECK_EQUAL(8 + strlen(test_header), test.file.data);
    CHECK_EQUAL(4, test.file.tensor_count);
    if (test.file.tensor_count != 4)
        return;
    test_is_tensor(&test, 0, "wA", TENSOR_F32, 0);
    test_is_tensor(&test, 1, "none", TENSOR_I64, 24);
    test_is_tensor(&test, 2, "scalar", TENSOR_U8, 24);
    test_is_tensor(&test, 3, "\xf0\x9f\x98\x80", TENSOR_BF16, 25);
    const struct tensor_shape *shape = &test.file.tensors[0].shape;
    CHECK(shape->rank == 2 && shape->sizes[0] == 2 && shape->sizes[1] == 3);
    CHECK(test.file.tensors[2].shape.rank == 0 && !test.file.tensors[2].shape.sizes);
    CHECK_TEXT("pt", safetensors_file_metadata(&test.file, "format"));
    CHECK_TEXT("x\"\\/\b\f\n\r\t\xc3\xa9",
               safetensors_file_metadata(&test.file, "a\xc3\xa9\xf0\x9f\x98\x80"));
    CHECK(!safetensors_file_metadata(&test.file, "x") && !safetensors_file_tensor(&test.file, "w"));
}

static void test_types(void)
{
    for (unsigned type = 0; type < TENSOR_TYPE_COUNT; type++) {
        cleanup_test struct test_file test = {0};
        char header[200];
        unsigned bits = tensor_type_bits((enum tensor_type)type);
        snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%u]}}",
                 tensor_type_name((enum tensor_type)type), bits);
        /* complex128 is torch's alone. */
        CHECK_EQUAL(type == TENSOR_C128 ? FORMAT_FOREIGN : 0, test_read_header(&test, header, bits));
        CHECK(type == TENSOR_C128 || test.file.tensors[0].type == type);
        snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%u]}}",
                 tensor_type_torch_name((enum tensor_type)type), bits);
        CHECK_EQUAL(FORMAT_FOREIGN, test_read_header(&test, header, bits));
    }
}

static void test_empty(void)
{
    cleanup_test struct test_file test = {0};
    CHECK_EQUAL(0, test_read_header(&test, "{}", 0));
    CHECK_EQUAL(0, test_read_header(&test, "  { }  ", 0));
    CHECK_EQUAL(0, test_read_header(&test, "{\"__metadata__\":{}}", 0));
    CHECK_EQUAL(0, test_read_header(&test, "{\"__metadata__\":null}", 0));
    CHECK(test.file.tensor_count == 0 && test.file.metadata_count == 0);
}

/* -- what is refused --------------------------------------------------------------------------------------
 */

#define TENSOR(name, type, shape, range)                                                                     \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":[" shape "],\"data_offsets\":[" range "]}"

static void test_refused(void)
{
    static const struct {
        const char *header, *words;
        size_t data;
    } files[] = {
        {"", "other text", 0},
        {"{", "other text", 0},
        {"[]", "other text", 0},
        {"{}x", "other text", 0},
        {"{}", "the end behind the last tensor, found 1 bytes", 1},
        {"{" TENSOR("a", "F32", "2", "0,8") "}", "the end behind the last tensor, found 1 bytes", 9},
        {"{" TENSOR("a", "F32", "2", "0,8") "}", "inside the file", 7},
        {"{" TENSOR("a", "F32", "2", "0,9") "}", "as many bytes as the shape has, found others, of tensor a",
         9},
        {"{" TENSOR("a", "F32", "2", "8,0") "}", "inside the file", 8},
        {"{" TENSOR("a", "F32", "2", "1,9") "}", "a tensor here, found a at", 9},
        {"{" TENSOR("a", "U8", "4", "0,4") "," TENSOR("b", "U8", "4", "3,7") "}", "a tensor here, found b",
         7},
        {"{" TENSOR("a", "U8", "4", "0,4") "," TENSOR("b", "U8", "4", "0,4") "}", "a tensor here, found b",
         4},
        {"{" TENSOR("a", "U8", "4", "0,4") "," TENSOR("b", "U8", "4", "5,9") "}", "a tensor here, found b",
         9},
        {"{" TENSOR("a", "U8", "0", "1,1") "}", "a tensor here, found a", 1},
        {"{" TENSOR("a", "U8", "1", "0,1") "," TENSOR("\\u0061", "U8", "0", "1,1") "}", "found a twice", 1},
        {"{" TENSOR("a", "F4", "3", "0,1") "}", "a shape that fills whole bytes", 1},
        {"{" TENSOR("a", "F6_E2M3", "2", "0,1") "}", "a shape that fills whole bytes", 1},
        {"{" TENSOR("a", "F32", "4294967296,4294967296", "0,8") "}", "a shape that fills whole bytes", 8},
        {"{" TENSOR("a", "F64", "9223372036854775807", "0,8") "}", "a shape that fills whole bytes", 8},
        {"{" TENSOR("a", "F32", "9223372036854775808", "0,8") "}", "other text", 8},
        {"{" TENSOR("a", "F32", "-1", "0,8") "}", "other text", 8},
        {"{" TENSOR("a", "F32", "1.0", "0,4") "}", "other text", 4},
        {"{" TENSOR("a", "F32", "1", "0,18446744073709551616") "}", "other text", 4},
        {"{" TENSOR("a", "F33", "1", "0,4") "}", "a type that safetensors knows, found F33, of tensor a", 4},
        {"{" TENSOR("a", "f32", "1", "0,4") "}", "found f32", 4},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}",
         "dtype, shape and data_offsets, found fewer, of tensor a", 1},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         "found one twice", 1},
        {"{\"a\":7}", "other text", 0},
        {"{" TENSOR("a\\u0000b", "U8", "1", "0,1") "}", "other text", 1},
        {"{" TENSOR("a\\ud800", "U8", "1", "0,1") "}", "other text", 1},
        {"{" TENSOR("a\\ud800\\u0041", "U8", "1", "0,1") "}", "other text", 1},
        {"{" TENSOR("a\\udc00", "U8", "1", "0,1") "}", "other text", 1},
        {"{" TENSOR("a\\x", "U8", "1", "0,1") "}", "other text", 1},
        {"{" TENSOR("a\xff", "U8", "1", "0,1") "}", "other text", 1},
        {"{" TENSOR("a\xed\xa0\x80", "U8", "1", "0,1") "}", "other text", 1},
        {"{" TENSOR("a\xc0\x80", "U8", "1", "0,1") "}", "other text", 1},
        {"{\"__metadata__\":{\"a\":1}}", "other text", 0},
        {"{\"__metadata__\":{\"a\":\"1\",\"\\u0061\":\"2\"}}", "found a twice", 0},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", "one __metadata__, found two", 0},
    };
    for (size_t i = 0; i < COUNT(files); i++) {
        cleanup_test struct test_file test = {0};
        CHECK_EQUAL(FORMAT_FOREIGN, test_read_header(&test, files[i].header, files[i].data));
        if (!strstr(test.problem.text, files[i].words))
            CHECK_TEXT(files[i].words, test.problem.text);
        CHECK(test.problem.offset >= 0 && test.problem.offset <= (int64_t)test.bytes.count);
    }
}

static void test_rank(void)
{
    for (unsigned rank = TENSOR_RANK_MAX; rank <= TENSOR_RANK_MAX + 1; rank++) {
        cleanup_test struct test_file test = {0};
        cleanup_bytes struct bytes header = {0};
        bytes_print(&header, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1");
        for (unsigned i = 1; i < rank; i++)
            bytes_print(&header, ",1");
        bytes_print(&header, "],\"data_offsets\":[0,1]}}%c", '\0');
        CHECK_EQUAL(rank == TENSOR_RANK_MAX ? 0 : FORMAT_FOREIGN,
                    test_read_header(&test, (const char *)header.at, 1));
    }
}

static void test_lengths(void)
{
    static const uint64_t lengths[] = {3, 100000001, INT64_MAX, (uint64_t)1 << 63, UINT64_MAX};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        cleanup_test struct test_file test = {0};
        safetensors_build(&test.bytes, "{}", 0);
        bytes_set_number(&test.bytes, 0, lengths[i], 8);
        CHECK_EQUAL(FORMAT_FOREIGN, test_read(&test));
        CHECK_EQUAL(1, test.counted.reads);
    }
}

/* -- any bytes --------------------------------------------------------------------------------------------
 */

static void test_cut_and_changed(void)
{
    cleanup_test struct test_file test = {0};
    CHECK_EQUAL(0, test_read_header(&test, test_header, 31));
    size_t whole = test.bytes.count;
    for (size_t at = 0; at < whole; at++) {
        test.bytes.count = at;
        CHECK_EQUAL(FORMAT_FOREIGN, test_read(&test));
    }
    test.bytes.count = whole;
    for (size_t at = 0; at < 8 + strlen(test_header); at++) {
        uint8_t before = test.bytes.at[at];
        for (unsigned value = 0; value <= UINT8_MAX; value++) {
            test.bytes.at[at] = (uint8_t)value;
            int result = test_read(&test);
            CHECK(result == 0 || result == FORMAT_FOREIGN);
        }
        test.bytes.at[at] = before;
    }
}

static void test_read_failures(void)
{
    cleanup_test struct test_file test = {0};
    cleanup_bytes struct bytes header = {0};
    bytes_print(&header, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
    bytes_fill(&header, ' ', 200000);
    bytes_put_number(&header, 0, 1);
    CHECK_EQUAL(0, test_read_header(&test, (const char *)header.at, 1));
    unsigned reads = test.counted.reads;
    for (test.fail_at = 1; test.fail_at <= reads; test.fail_at++)
        CHECK_EQUAL(-EIO, test_read(&test));
    CHECK(reads > 3);
}

/* -- indexes ----------------------------------------------------------------------------------------------
 */

struct test_index {
    struct bytes bytes;
    struct hf_index index;
    struct format_problem problem;
};

static void test_index_release(struct test_index *test)
{
    bytes_release(&test->bytes);
    hf_index_release(&test->index);
}

#define cleanup_index __attribute__((cleanup(test_index_release)))

static int test_read_index(struct test_index *test, const char *text)
{
    struct counted_source counted;
    hf_index_release(&test->index);
    test->bytes.count = 0;
    test->problem = (struct format_problem){0};
    bytes_print(&test->bytes, "%s", text);
    counted_source_open(&counted, &test->bytes);
    int result = hf_index_read(&counted.source, &test->index, &test->problem);
    CHECK_EQUAL(0, counted.outside);
    CHECK((result == FORMAT_FOREIGN) == (test->problem.text[0] != '\0'));
    return result;
}

static void test_index(void)
{
    cleanup_index struct test_index test = {0};
    CHECK_EQUAL(0, test_read_index(&test,
                                   "{\"metadata\": {\"x\": [1], \"total_size\": 1234},\n"
                                   " \"weight_map\": {\"b\": \"m-2.bin\", \"a\\u00e9\": \"m-1.bin\"}}\n"));
    CHECK_EQUAL(1234, test.index.total_size);
    CHECK_EQUAL(2, test.index.count);
    if (test.index.count == 2) {
        CHECK_TEXT("a\xc3\xa9", test.index.entries[0].name);
        CHECK_TEXT("m-1.bin", test.index.entries[0].file);
        CHECK_TEXT("b", test.index.entries[1].name);
    }
    static const char *const sizes[] = {"1.5e3", "-1", "\"12\"", "99999999999999999999", "null", "[1]"};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        char text[100];
        snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":%s},\"weight_map\":{}}", sizes[i]);
        CHECK_EQUAL(0, test_read_index(&test, text));
        CHECK_EQUAL(-1, test.index.total_size);
    }
    CHECK_EQUAL(0, test_read_index(&test, "{\"weight_map\":{}}"));
}

static void test_index_refused(void)
{
    static const char *const texts[] = {
        "",
        "{}",
        "{\"weight_map\":[]}",
        "{\"weight_map\":{\"a\":1}}",
        "{\"weight_map\":{\"a\":\"\"}}",
        "{\"weight_map\":{\"a\":\"..\"}}",
        "{\"weight_map\":{\"a\":\".\"}}",
        "{\"weight_map\":{\"a\":\"../b\"}}",
        "{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
        "{\"weight_map\":{\"a\":\"\\u002e\\u002e\\u002fb\"}}",
        "{\"weight_map\":{\"a\":\"b\\u0000\"}}",
        "{\"weight_map\":{\"a\":\"b\",\"\\u0061\":\"c\"}}",
        "{\"weight_map\":{},\"weight_map\":{}}",
        "{\"weight_map\":{}}}",
        "{\"metadata\":{\"total_size\":01},\"weight_map\":{}}",
    };
    cleanup_index struct test_index test = {0};
    for (size_t i = 0; i < COUNT(texts); i++)
        CHECK_EQUAL(FORMAT_FOREIGN, test_read_index(&test, texts[i]));
    static const char whole[] = "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"a\":\"b\"}}";
    for (size_t length = 0; length < sizeof whole - 1; length++) {
        char cut[sizeof whole] = "";
        memcpy(cut, whole, length);
        CHECK_EQUAL(FORMAT_FOREIGN, test_read_index(&test, cut));
    }
    CHECK_EQUAL(0, test_read_index(&test, whole));
}

/* -- types ------------------------------------------------------------------------------------------------
 */

static void test_sizes(void)
{
    int64_t bytes, count;
    CHECK(tensor_bytes(TENSOR_F4, 6, &bytes) && bytes == 3 && !tensor_bytes(TENSOR_F4, 5, &bytes));
    CHECK(tensor_bytes(TENSOR_F6_E3M2, 4, &bytes) && bytes == 3 && !tensor_bytes(TENSOR_F6_E3M2, 6, &bytes));
    CHECK(tensor_bytes(TENSOR_U8, INT64_MAX, &bytes) && bytes == INT64_MAX);
    CHECK(tensor_bytes(TENSOR_F4, INT64_MAX - 1, &bytes) && bytes == INT64_MAX / 2);
    CHECK(!tensor_bytes(TENSOR_I16, INT64_MAX, &bytes) && !tensor_bytes(TENSOR_I16, -2, &bytes));
    CHECK(tensor_bytes(TENSOR_C128, 3, &bytes) && bytes == 48);
    const struct tensor_shape scalar = {0}, large = {2, (int64_t[]){INT64_MAX, 2}},
                              negative = {1, (int64_t[]){-1}}, plain = {2, (int64_t[]){3, 4}};
    CHECK(tensor_count(&scalar, &count) && count == 1 && tensor_count(&plain, &count) && count == 12);
    CHECK(!tensor_count(&large, &count) && !tensor_count(&negative, &count));
    CHECK(tensor_shape_equal(&scalar, &scalar) && !tensor_shape_equal(&scalar, &plain));
    CHECK(!tensor_shape_equal(&plain, &large) && tensor_shape_equal(&plain, &plain));
    for (unsigned type = 0; type < TENSOR_TYPE_COUNT; type++) {
        const char *names[] = {tensor_type_name((enum tensor_type)type),
                               tensor_type_torch_name((enum tensor_type)type)};
        for (size_t i = 0; i < COUNT(names); i++) {
            enum tensor_type parsed = TENSOR_TYPE_COUNT;
            CHECK(tensor_type_parse(names[i], strlen(names[i]), &parsed) && parsed == type);
            CHECK(!tensor_type_parse(names[i], strlen(names[i]) - 1, &parsed) || parsed != type);
        }
    }
}

static void test_problem(void)
{
    struct format_problem problem = {0}, long_one = {0}, damaged = {0};
    CHECK_EQUAL(FORMAT_FOREIGN, format_problem_set(NULL, 1, "nobody asks"));
    CHECK_EQUAL(FORMAT_FOREIGN, format_problem_set(&problem, 7, "found a\nb\tc\x7f, \xc3\xa9"));
    CHECK_EQUAL(FORMAT_FOREIGN, format_problem_set(&problem, 8, "a later one"));
    CHECK_TEXT("found a?b?c?, \xc3\xa9", problem.text);
    CHECK_EQUAL(7, problem.offset);
    (void)format_problem_set(&damaged, 0, "found \xff, \xc3\xa9");
    CHECK_TEXT("found ?, ??", damaged.text);
    char name[2 * sizeof long_one.text + 1] = "";
    for (size_t i = 0; i < sizeof long_one.text; i++)
        memcpy(name + 2 * i, "\xc3\xa9", 2);
    (void)format_problem_set(&long_one, 0, "%s", name);
    CHECK_EQUAL((sizeof long_one.text - 1) / 2 * 2, strlen(long_one.text));
    CHECK(memcmp(name, long_one.text, strlen(long_one.text)) == 0);
}

int main(void)
{
    check_run("tensors with their names, types, shapes and places; metadata", test_tensors);
    check_run("all types", test_types);
    check_run("files without tensors", test_empty);
    check_run("a header that the library would not read is refused, with a line that says why", test_refused);
    check_run("as many dimensions as torch has", test_rank);
    check_run("a header's length is judged before it is read", test_lengths);
    check_run("files cut after any byte, and headers with any byte changed", test_cut_and_changed);
    check_run("a read that fails is the caller's to know", test_read_failures);
    check_run("an index", test_index);
    check_run("an index that is wrong, or names a file elsewhere", test_index_refused);
    check_run("sizes of tensors", test_sizes);
    check_run("a problem is one line of text", test_problem);
    return check_done();
}
