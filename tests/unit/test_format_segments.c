/* SPDX-License-Identifier: Apache-2.0 */
/* Segments: where tensors begin and end in each format, and that any bytes at all are taken. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "format/segments.h"
#include "test_format_files.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct format_segment *test_at(const struct format_segments *segments, size_t offset)
{
    for (size_t i = 0; i < segments->count; i++) {
        if (segments->at[i].offset == (int64_t)offset)
            return &segments->at[i];
    }
    return NULL;
}

static void test_is_segment(const struct format_segments *segments, size_t offset, size_t length)
{
    const struct format_segment *segment = test_at(segments, offset);
    CHECK(segment && segment->length == (int64_t)length);
}

static void test_is_named(const struct bytes *file, size_t offset, const char *expected)
{
    struct counted_source counted;
    char name[64];
    counted_source_open(&counted, file);
    format_segment_name(&counted.source, (int64_t)offset, name, sizeof name);
    CHECK_TEXT(expected, name);
}

static void test_unknown(const struct bytes *file)
{
    cleanup_segments struct format_segments segments;
    format_check(file, FORMAT_UNKNOWN, &segments);
}

/* -- safetensors ------------------------------------------------------------------------------------------
 */

#define TENSOR(name, range) "\"" name "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" range "]}"

static void test_safetensors(void)
{
    /* As the library writes it: metadata first, data in order, the header padded with spaces. */
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"a.weight\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[0,16]},"
                                 "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[16,16]},"
                                 "\"b\":{\"dtype\":\"BF16\",\"shape\":[1,3],\"data_offsets\":[16,22]},"
                                 "\"mask\":{\"dtype\":\"BOOL\",\"shape\":[],\"data_offsets\":[22,23]}}     ";
    cleanup_bytes struct bytes file = {0};
    cleanup_segments struct format_segments segments;
    safetensors_build(&file, header, 23);
    format_check(&file, FORMAT_SAFETENSORS, &segments);
    size_t data = 8 + strlen(header);
    CHECK_EQUAL(4, segments.count);
    test_is_segment(&segments, 0, data);
    test_is_segment(&segments, data, 16);
    test_is_segment(&segments, data + 16, 6);
    test_is_segment(&segments, data + 22, 1);
    for (size_t i = 0; i < segments.count; i++)
        CHECK(!segments.at[i].opaque && !segments.at[i].has_crc32);
    test_is_named(&file, 0, "bytes");
    test_is_named(&file, data, "a.weight");
    test_is_named(&file, data + 15, "a.weight");
    test_is_named(&file, data + 16, "b");
    test_is_named(&file, data + 22, "mask");
    test_is_named(&file, data + 23, "bytes");
}

static void test_safetensors_disorder(void)
{
    /* Tensors in any order and spelling, bytes of no tensor before, between and after. */
    static const char header[] = "{ \"z\\u0041\\\"\t\" : { \"extra\" : [ {} , -1.5e+3, [true,null] ] ,\n"
                                 " \"data_offsets\" : [ 30 , 40 ] , \"shape\":[2], \"dtype\":\"F99\" } ,"
                                 "\"\x01\":{}}";
    static const char fine[] = "{ \"z\\u0041\\\"\" : { \"extra\" : [ {} , -1.5e+3, [true,null] ] ,\n"
                               " \"data_offsets\" : [ 30 , 40 ] , \"shape\":[2], \"dtype\":\"F99\" } ,"
                               " \"y\x7f\" : {\"shape\":[],\"dtype\":\"U8\",\"data_offsets\":[4,20]}}";
    cleanup_bytes struct bytes file = {0}, bad = {0};
    cleanup_segments struct format_segments segments;
    safetensors_build(&bad, header, 50);
    test_unknown(&bad);
    safetensors_build(&file, fine, 50);
    bytes_fill(&file, 0, FORMAT_SEGMENTS_MEMORY >> 7);
    format_check(&file, FORMAT_SAFETENSORS, &segments);
    size_t data = 8 + strlen(fine);
    CHECK_EQUAL(6, segments.count);
    test_is_segment(&segments, data, 4);
    test_is_segment(&segments, data + 4, 16);
    test_is_segment(&segments, data + 20, 10);
    test_is_segment(&segments, data + 30, 10);
    test_is_segment(&segments, data + 40, 10 + (2 << 20));
    CHECK(!test_at(&segments, data + 20)->opaque && test_at(&segments, data + 40)->opaque);
    test_is_named(&file, data + 4, "y?");
    test_is_named(&file, data + 30, "z\\u0041\\\"");
}

static void test_safetensors_refused(void)
{
    static const char *const headers[] = {
        "",
        "{",
        "[]",
        " {}",
        "{}x",
        "{},",
        "{,}",
        "{\"a\"}",
        "{\"a\":1}",
        "{\"a\":{}}",
        "{" TENSOR("a", "0,8") ",}",
        "{" TENSOR("a", "0,8") TENSOR("b", "8,16") "}",
        "{" TENSOR("a", "0,8") "," TENSOR("a", "8,16") "}",
        "{" TENSOR("a", "0,0") "," TENSOR("a", "0,8") "}",
        "{" TENSOR("a", "0,8") "," TENSOR("b", "7,16") "}",
        "{" TENSOR("a", "0,8") "," TENSOR("b", "0,8") "}",
        "{" TENSOR("a", "8,4") "}",
        "{" TENSOR("a", "0,17") "}",
        "{" TENSOR("a", "17,17") "}",
        "{" TENSOR("a", "-1,8") "}",
        "{" TENSOR("a", "00,8") "}",
        "{" TENSOR("a", "0,8.0") "}",
        "{" TENSOR("a", "0,8e0") "}",
        "{" TENSOR("a", "0,\"8\"") "}",
        "{" TENSOR("a", "0,") "}",
        "{" TENSOR("a", "0,8,8") "}",
        "{" TENSOR("a", "0") "}",
        "{" TENSOR("a", "0,9223372036854775807") "}",
        "{" TENSOR("a", "0,9223372036854775808") "}",
        "{" TENSOR("a", "9223372036854775800,9223372036854775807") "}",
        "{" TENSOR("a", "0,18446744073709551624") "}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":5,\"shape\":[2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}",
        "{\"__metadata__\":{},\"__metadata__\":{}}",
        "{\"__metadata__\":{\"a\":tru}}",
        "{\"__metadata__\":{\"a\":1.}}",
        "{\"__metadata__\":{\"a\":01}}",
        "{\"__metadata__\":{\"a\":-}}",
        "{\"__metadata__\":{\"a\":\"\\x\"}}",
        "{\"__metadata__\":{\"a\":\"\\u12g4\"}}",
        "{\"__metadata__\":[1,]}",
        "{\"__metadata__\":[}",
        "{\"__metadata__\":{1:2}}",
    };
    for (size_t i = 0; i < COUNT(headers); i++) {
        cleanup_bytes struct bytes file = {0};
        unsigned before = check_failures;
        safetensors_build(&file, headers[i], 16);
        test_unknown(&file);
        if (check_failures != before)
            printf("# %s\n", headers[i]);
    }
}

static void test_safetensors_nesting(void)
{
    for (unsigned depth = 120; depth < 140; depth++) {
        cleanup_bytes struct bytes header = {0}, file = {0};
        cleanup_segments struct format_segments segments;
        bytes_print(&header, "{\"__metadata__\":");
        bytes_fill(&header, '[', depth);
        bytes_fill(&header, ']', depth);
        bytes_put(&header, "}", 2);
        safetensors_build(&file, (const char *)header.at, 0);
        format_check(&file, depth <= 128 ? FORMAT_SAFETENSORS : FORMAT_UNKNOWN, &segments);
    }
    cleanup_bytes struct bytes file = {0};
    bytes_put_number(&file, 50000000, 8);
    bytes_print(&file, "{\"__metadata__\":");
    bytes_fill(&file, '[', 50000000);
    test_unknown(&file);
}

static void test_safetensors_length(void)
{
    static const uint64_t lengths[] = {0,         1,          3,         99999999,          100000000,
                                       100000001, UINT32_MAX, INT64_MAX, (uint64_t)1 << 63, UINT64_MAX};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        cleanup_bytes struct bytes file = {0};
        bytes_put_number(&file, lengths[i], 8);
        bytes_print(&file, "{}");
        test_unknown(&file);
    }
    /* The limit itself, and one more. */
    for (unsigned more = 0; more < 2; more++) {
        cleanup_bytes struct bytes file = {0};
        cleanup_segments struct format_segments segments;
        bytes_put_number(&file, 100000000 + more, 8);
        bytes_print(&file, "{}");
        bytes_fill(&file, ' ', 100000000 + more - 2);
        format_check(&file, more ? FORMAT_UNKNOWN : FORMAT_SAFETENSORS, &segments);
    }
}

/* -- zip archives -----------------------------------------------------------------------------------------
 */

static void test_check_archive(const struct bytes *file, const struct format_segments *segments,
                               const struct archive *archive)
{
    for (size_t i = 0; i < archive->count; i++) {
        const struct archive_entry *entry = &archive->entries[i];
        if (entry->size == 0)
            continue;
        const struct format_segment *segment = test_at(segments, entry->data);
        test_is_segment(segments, entry->data, entry->size);
        test_is_named(file, entry->data, entry->name);
        test_is_named(file, entry->data + entry->size - 1, entry->name);
        if (!segment)
            continue;
        CHECK_EQUAL(entry->method != 0, segment->opaque);
        CHECK_EQUAL(entry->method == 0 && !entry->no_crc32, segment->has_crc32);
        if (segment->has_crc32)
            CHECK_EQUAL(entry->crc32, segment->crc32);
    }
    test_is_named(file, archive->start, "bytes");
    test_is_named(file, archive->directory, "bytes");
}

static void test_zip(void)
{
    for (unsigned variant = 0; variant < 4; variant++) {
        cleanup_bytes struct bytes file = {0};
        cleanup_segments struct format_segments segments;
        bool zip64 = variant & 1;
        struct archive archive = {
            .entries =
                (struct archive_entry[]){{.name = "model/data.pkl", .size = 200},
                                         {.name = "model/byteorder", .size = 6, .zip64 = zip64},
                                         {.name = "model/data/0", .size = 4096, .zip64 = zip64},
                                         {.name = "model/data/1", .size = 0},
                                         {.name = "model/data/2", .size = 1, .no_crc32 = true},
                                         {.name = "model/code", .size = 300, .method = 8},
                                         {.name = "model/local", .size = 64, .local = true, .zip64 = zip64}},
            .count = 7,
            .no_zip64 = variant & 2,
        };
        archive_build(&file, &archive);
        format_check(&file, FORMAT_TORCH_ZIP, &segments);
        /* Six entries with bytes, what is before each, and the rest. */
        CHECK_EQUAL(6 + 6 + 1, segments.count);
        test_check_archive(&file, &segments, &archive);
    }
}

/* One field of an archive that lies, and what the file is then. */
struct lie {
    const char *what;
    enum { IN_LOCAL, IN_CENTRAL, IN_END64, IN_LOCATOR, IN_END } where;
    unsigned offset, width;
    uint64_t value;
};

static size_t lie_place(const struct lie *lie, const struct archive *archive)
{
    switch (lie->where) {
    case IN_LOCAL: return archive->entries[2].header;
    case IN_CENTRAL: return archive->entries[2].central;
    case IN_END64: return archive->end64;
    case IN_LOCATOR: return archive->end64 + 56;
    default: return archive->end;
    }
}

static void test_zip_lies(void)
{
    static const struct lie lies[] = {
        {"signature of a local header", IN_LOCAL, 0, 4, 0x04034b51},
        {"flags of a local header", IN_LOCAL, 6, 2, 0},
        {"method of a local header", IN_LOCAL, 8, 2, 8},
        {"name's length of a local header", IN_LOCAL, 26, 2, 13},
        {"a long name of a local header", IN_LOCAL, 26, 2, UINT16_MAX},
        {"a long extra field of a local header", IN_LOCAL, 28, 2, UINT16_MAX},
        {"another name in the local header", IN_LOCAL, 30, 1, 'b'},
        {"signature of the directory", IN_CENTRAL, 0, 4, 0x02014b51},
        {"method in the directory", IN_CENTRAL, 10, 2, 8},
        {"stored size that is not the size", IN_CENTRAL, 20, 4, 499},
        {"both sizes too large", IN_CENTRAL, 20, 8, UINT64_C(0x7000000070000000)},
        {"overlap with the next entry", IN_CENTRAL, 20, 8, UINT64_C(0x0000024000000240)},
        {"size that is elsewhere, and is not", IN_CENTRAL, 24, 4, UINT32_MAX},
        {"name's length in the directory", IN_CENTRAL, 28, 2, 13},
        {"extra field's length in the directory", IN_CENTRAL, 30, 2, UINT16_MAX},
        {"comment's length in the directory", IN_CENTRAL, 32, 2, 1},
        {"another disk", IN_CENTRAL, 34, 2, 1},
        {"offset of another header", IN_CENTRAL, 42, 4, 0},
        {"offset past the directory", IN_CENTRAL, 42, 4, UINT32_MAX - 1},
        {"signature of the zip64 record", IN_END64, 0, 4, 0},
        {"size of the zip64 record", IN_END64, 4, 8, 45},
        {"disk of the zip64 record", IN_END64, 16, 4, 1},
        {"counts of the zip64 record", IN_END64, 24, 8, 5},
        {"count of the zip64 record", IN_END64, 32, 8, UINT64_C(1) << 63},
        {"directory's size in the zip64 record", IN_END64, 40, 8, UINT64_C(1) << 63},
        {"directory's offset in the zip64 record", IN_END64, 48, 8, UINT64_MAX},
        {"disk of the locator", IN_LOCATOR, 4, 4, 1},
        {"offset of the zip64 record", IN_LOCATOR, 8, 8, 0},
        {"large offset of the zip64 record", IN_LOCATOR, 8, 8, UINT64_C(1) << 63},
        {"number of disks", IN_LOCATOR, 16, 4, 2},
        {"signature of the end", IN_END, 0, 4, 0},
        {"disk of the end", IN_END, 4, 2, 1},
        {"counts of the end", IN_END, 8, 2, 5},
        {"count of the end", IN_END, 10, 2, 3},
        {"directory's size in the end", IN_END, 12, 4, 1},
        {"directory's offset in the end", IN_END, 16, 4, 1},
        {"comment", IN_END, 20, 2, 1},
    };
    for (size_t i = 0; i < COUNT(lies); i++) {
        cleanup_bytes struct bytes file = {0};
        struct archive archive;
        unsigned before = check_failures;
        archive_build_tensor(&file, &archive, 500);
        bytes_set_number(&file, lie_place(&lies[i], &archive) + lies[i].offset, lies[i].value, lies[i].width);
        test_unknown(&file);
        if (check_failures != before)
            printf("# lie: %s\n", lies[i].what);
    }
}

static void test_zip_duplicates(void)
{
    cleanup_bytes struct bytes file = {0}, shared = {0}, count = {0}, empty = {0};
    struct archive_entry entries[] = {{.name = "a/data/0", .size = 9}, {.name = "a/data/0", .size = 9}};
    struct archive archive = {.entries = entries, .count = 2};
    archive_build(&file, &archive);
    test_unknown(&file);

    /* Two entries of the directory, one local header. */
    archive.entries[1].name = "a/data/1";
    archive_build(&shared, &archive);
    bytes_set_number(&shared, archive.entries[1].central + 42, archive.entries[0].header, 4);
    bytes_set_number(&shared, archive.entries[1].central + 46 + 7, '0', 1);
    test_unknown(&shared);

    /* One entry of the directory hidden behind a count that is one too small. */
    archive_build(&count, &archive);
    bytes_set_number(&count, archive.end64 + 24, 1, 8);
    bytes_set_number(&count, archive.end64 + 32, 1, 8);
    bytes_set_number(&count, archive.end + 8, 1, 2);
    bytes_set_number(&count, archive.end + 10, 1, 2);
    test_unknown(&count);

    archive.count = 0;
    archive_build(&empty, &archive);
    test_unknown(&empty);
}

static void test_zip_prefix(void)
{
    /* An archive that counts from bytes before its first header, which belong to nobody. */
    enum { PREFIX = 64 };
    cleanup_bytes struct bytes file = {0};
    struct archive archive;
    bytes_put(&file, "PK\3\4", 4);
    bytes_fill(&file, 0, PREFIX - 4);
    archive_build_tensor(&file, &archive, 500);
    for (size_t i = 0; i < archive.count; i++)
        bytes_set_number(&file, archive.entries[i].central + 42, archive.entries[i].header, 4);
    bytes_set_number(&file, archive.end64 + 48, archive.directory, 8);
    bytes_set_number(&file, archive.end64 + 56 + 8, archive.end64, 8);
    bytes_set_number(&file, archive.end + 16, archive.directory, 4);
    test_unknown(&file);
}

static void test_zip_disorder(void)
{
    /* The directory may list the entries in another order than the file has them. */
    cleanup_bytes struct bytes file = {0};
    cleanup_segments struct format_segments segments;
    struct archive archive;
    archive_build_tensor(&file, &archive, 500);
    size_t one = archive.entries[0].central, other = archive.entries[2].central;
    size_t one_end = archive.entries[1].central, other_end = archive.entries[3].central;
    cleanup_bytes struct bytes swapped = {0};
    bytes_put(&swapped, file.at, one);
    bytes_put(&swapped, file.at + other, other_end - other);
    bytes_put(&swapped, file.at + one_end, other - one_end);
    bytes_put(&swapped, file.at + one, one_end - one);
    bytes_put(&swapped, file.at + other_end, file.count - other_end);
    format_check(&swapped, FORMAT_TORCH_ZIP, &segments);
    test_check_archive(&swapped, &segments, &archive);
}

/* -- distcp -----------------------------------------------------------------------------------------------
 */

enum { DISTCP_ARCHIVES = 5 };

static void test_build_distcp(struct bytes *file, struct archive archives[DISTCP_ARCHIVES])
{
    for (size_t i = 0; i < DISTCP_ARCHIVES; i++)
        archive_build_tensor(file, &archives[i], i * 333);
}

static void test_distcp(void)
{
    cleanup_bytes struct bytes file = {0};
    cleanup_segments struct format_segments segments;
    struct archive archives[DISTCP_ARCHIVES];
    test_build_distcp(&file, archives);
    format_check(&file, FORMAT_DISTCP, &segments);
    for (size_t i = 0; i < DISTCP_ARCHIVES; i++)
        test_check_archive(&file, &segments, &archives[i]);
    /* The first has a tensor without bytes: one segment and the gap before it less. */
    CHECK_EQUAL(DISTCP_ARCHIVES * (4 + 4 + 1) - 2, segments.count);
}

static void test_distcp_damage(void)
{
    struct archive archives[DISTCP_ARCHIVES];
    cleanup_bytes struct bytes inside = {0}, between = {0}, tail = {0};
    cleanup_segments struct format_segments inside_found, between_found;
    /* An archive that is damaged inside is one opaque segment; the others are understood. */
    test_build_distcp(&inside, archives);
    bytes_set_number(&inside, archives[1].entries[2].central, 0, 4);
    format_check(&inside, FORMAT_DISTCP, &inside_found);
    test_is_segment(&inside_found, archives[1].start, archives[2].start - archives[1].start);
    CHECK(test_at(&inside_found, archives[1].start)->opaque);
    test_check_archive(&inside, &inside_found, &archives[0]);
    test_check_archive(&inside, &inside_found, &archives[2]);
    test_is_named(&inside, archives[1].entries[2].data, "bytes");

    /* Behind bytes that end with no archive nothing is found. */
    test_build_distcp(&between, archives);
    bytes_set_number(&between, archives[2].end, 0, 4);
    format_check(&between, FORMAT_DISTCP, &between_found);
    test_is_segment(&between_found, 0, archives[3].start);
    CHECK(between_found.at[0].opaque);
    test_check_archive(&between, &between_found, &archives[3]);

    test_build_distcp(&tail, archives);
    bytes_fill(&tail, 0, 100);
    test_unknown(&tail);
}

/* -- any bytes --------------------------------------------------------------------------------------------
 */

static void test_build_small(struct bytes *file, enum format_kind kind, size_t ends[2])
{
    struct archive archive;
    ends[0] = ends[1] = 0;
    if (kind == FORMAT_SAFETENSORS) {
        safetensors_build(
            file, "{\"__metadata__\":{\"k\":\"v\"}," TENSOR("a", "0,8") "," TENSOR("b", "8,16") "}", 16);
        return;
    }
    archive_build_tensor(file, &archive, 100);
    for (size_t i = 0; i < 2 && kind == FORMAT_DISTCP; i++) {
        ends[i] = file->count;
        archive_build_tensor(file, &archive, 10);
    }
}

static const enum format_kind test_kinds[] = {FORMAT_SAFETENSORS, FORMAT_TORCH_ZIP, FORMAT_DISTCP};

static void test_truncation(void)
{
    for (size_t i = 0; i < COUNT(test_kinds); i++) {
        cleanup_bytes struct bytes file = {0};
        size_t ends[2];
        test_build_small(&file, test_kinds[i], ends);
        CHECK_EQUAL(test_kinds[i], format_check_any(&file));
        while (file.count-- > 0) {
            enum format_kind expected = file.count == 0         ? FORMAT_UNKNOWN
                                        : file.count == ends[0] ? FORMAT_TORCH_ZIP
                                        : file.count == ends[1] ? FORMAT_DISTCP
                                                                : FORMAT_UNKNOWN;
            enum format_kind found = format_check_any(&file);
            if (found != expected)
                printf("# cut to %zu bytes\n", file.count);
            CHECK_EQUAL(expected, found);
            if (file.count == 0)
                break;
        }
    }
}

static void test_changed_bytes(void)
{
    static const uint8_t changes[] = {1, 0x20, 0x80, 0xff};
    for (size_t i = 0; i < COUNT(test_kinds); i++) {
        cleanup_bytes struct bytes file = {0};
        size_t ends[2];
        test_build_small(&file, test_kinds[i], ends);
        for (size_t at = 0; at < file.count; at++) {
            for (size_t change = 0; change < COUNT(changes); change++) {
                file.at[at] ^= changes[change];
                (void)format_check_any(&file);
                file.at[at] ^= changes[change];
            }
        }
    }
}

static void test_read_failures(void)
{
    for (size_t i = 0; i < COUNT(test_kinds); i++) {
        cleanup_bytes struct bytes file = {0};
        size_t ends[2];
        test_build_small(&file, test_kinds[i], ends);
        errint error = -EIO;
        for (unsigned fail_at = 1; error; fail_at++) {
            struct counted_source counted;
            cleanup_segments struct format_segments segments;
            counted_source_open(&counted, &file);
            counted.fail_at = fail_at;
            error = format_segments_find(&counted.source, &segments);
            CHECK_EQUAL(counted.reads >= fail_at ? -EIO : 0, error);
            CHECK(!error || (segments.count == 0 && !segments.at));
        }
    }
}

int main(void)
{
    check_run("tensors of a safetensors file are segments, with their names", test_safetensors);
    check_run("tensors in any order, and bytes of no tensor", test_safetensors_disorder);
    check_run("a safetensors header that is wrong in any way is not understood", test_safetensors_refused);
    check_run("a header may nest, within a limit", test_safetensors_nesting);
    check_run("a header's length is judged before it is read", test_safetensors_length);
    check_run("entries of a zip archive are segments, with their CRC-32 and names", test_zip);
    check_run("any field of an archive that lies makes it unknown", test_zip_lies);
    check_run("entries that are there twice, hidden, or not at all", test_zip_duplicates);
    check_run("bytes in front of an archive that it counts as its own", test_zip_prefix);
    check_run("a directory in another order than the file", test_zip_disorder);
    check_run("archives one after the other", test_distcp);
    check_run("what is damaged between archives is opaque", test_distcp_damage);
    check_run("files cut after any byte", test_truncation);
    check_run("files with any byte changed", test_changed_bytes);
    check_run("a read that fails is the caller's to know", test_read_failures);
    return check_done();
}
