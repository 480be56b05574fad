/* SPDX-License-Identifier: Apache-2.0 */
/* Files of the known formats, built in memory; a source that counts. */
#include "test_format_files.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* -- bytes ------------------------------------------------------------------------------------------------
 */

static uint8_t *bytes_grow(struct bytes *bytes, size_t length)
{
    if (bytes->count + length > bytes->capacity) {
        bytes->capacity = (bytes->count + length) * 2;
        bytes->at = realloc(bytes->at, bytes->capacity);
        if (!bytes->at) {
            printf("Bail out! no memory\n");
            exit(1);
        }
    }
    bytes->count += length;
    return bytes->at + bytes->count - length;
}

void bytes_put(struct bytes *bytes, const void *data, size_t length)
{
    if (length > 0)
        memcpy(bytes_grow(bytes, length), data, length);
}

void bytes_fill(struct bytes *bytes, uint8_t value, size_t length)
{
    if (length > 0)
        memset(bytes_grow(bytes, length), value, length);
}

void bytes_set_number(struct bytes *bytes, size_t offset, uint64_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        bytes->at[offset + i] = (uint8_t)(value >> (8 * i));
}

void bytes_put_number(struct bytes *bytes, uint64_t value, unsigned width)
{
    bytes_grow(bytes, width);
    bytes_set_number(bytes, bytes->count - width, value, width);
}

void bytes_print(struct bytes *bytes, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    bytes_put(bytes, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
}

void bytes_release(struct bytes *bytes)
{
    free(bytes->at);
    *bytes = (struct bytes){0};
}

/* -- safetensors ------------------------------------------------------------------------------------------
 */

void safetensors_build(struct bytes *file, const char *header, size_t data)
{
    bytes_put_number(file, strlen(header), 8);
    bytes_put(file, header, strlen(header));
    for (size_t i = 0; i < data; i++)
        bytes_put_number(file, i, 1);
}

/* -- zip archives -----------------------------------------------------------------------------------------
 */

static uint32_t archive_crc32(const uint8_t *data, size_t length)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < length; i++) {
        crc ^= data[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

/* The local header, with the padding in an extra field "FB" that aligns the data. */
static void archive_put_local(struct bytes *file, const struct archive *archive, struct archive_entry *entry)
{
    size_t name = strlen(entry->name), fixed = 30 + name;
    entry->header = file->count;
    size_t padding = 4 + (64 - (file->count - archive->start + fixed + 4) % 64) % 64;
    entry->data = file->count + fixed + padding;
    bytes_put_number(file, 0x04034b50, 4);
    bytes_put_number(file, 0, 2);
    bytes_put_number(file, entry->local ? 0x800 : 0x808, 2);
    bytes_put_number(file, entry->method, 2);
    bytes_fill(file, 0, 8);
    bytes_put_number(file, entry->local ? entry->size : 0, 4);
    bytes_put_number(file, entry->local ? entry->size : 0, 4);
    bytes_put_number(file, name, 2);
    bytes_put_number(file, padding, 2);
    bytes_put(file, entry->name, name);
    bytes_put(file, "FB", 2);
    bytes_put_number(file, padding - 4, 2);
    bytes_fill(file, 'Z', padding - 4);
}

static void archive_put_data(struct bytes *file, struct archive_entry *entry)
{
    if (entry->content)
        bytes_put(file, entry->content, entry->size);
    for (size_t i = 0; i < entry->size && !entry->content; i++)
        bytes_put_number(file, i * 7 + entry->size, 1);
    entry->crc32 = entry->no_crc32 ? 0 : archive_crc32(file->at + entry->data, entry->size);
    if (entry->local)
        return;
    bytes_put(file, "PK\7\10", 4);
    bytes_put_number(file, entry->crc32, 4);
    bytes_put_number(file, entry->size, entry->zip64 ? 8 : 4);
    bytes_put_number(file, entry->size, entry->zip64 ? 8 : 4);
}

static void archive_put_central(struct bytes *file, const struct archive *archive,
                                struct archive_entry *entry)
{
    size_t offset = entry->header - archive->start;
    entry->central = file->count;
    bytes_put_number(file, 0x02014b50, 4);
    bytes_put_number(file, 0, 4);
    bytes_put_number(file, entry->local ? 0x800 : 0x808, 2);
    bytes_put_number(file, entry->method, 2);
    bytes_put_number(file, 0, 4);
    bytes_put_number(file, entry->crc32, 4);
    bytes_put_number(file, entry->zip64 ? UINT32_MAX : entry->size, 4);
    bytes_put_number(file, entry->zip64 ? UINT32_MAX : entry->size, 4);
    bytes_put_number(file, strlen(entry->name), 2);
    bytes_put_number(file, entry->zip64 ? 28 : 0, 2);
    bytes_fill(file, 0, 10);
    bytes_put_number(file, entry->zip64 ? UINT32_MAX : offset, 4);
    bytes_put(file, entry->name, strlen(entry->name));
    if (entry->zip64) {
        bytes_put_number(file, 1, 2);
        bytes_put_number(file, 24, 2);
        bytes_put_number(file, entry->size, 8);
        bytes_put_number(file, entry->size, 8);
        bytes_put_number(file, offset, 8);
    }
}

static void archive_put_end(struct bytes *file, struct archive *archive)
{
    size_t size = file->count - archive->directory, offset = archive->directory - archive->start;
    archive->end64 = file->count;
    if (!archive->no_zip64) {
        bytes_put_number(file, 0x06064b50, 4);
        bytes_put_number(file, 44, 8);
        bytes_fill(file, 0, 12);
        bytes_put_number(file, archive->count, 8);
        bytes_put_number(file, archive->count, 8);
        bytes_put_number(file, size, 8);
        bytes_put_number(file, offset, 8);
        bytes_put_number(file, 0x07064b50, 4);
        bytes_put_number(file, 0, 4);
        bytes_put_number(file, archive->end64 - archive->start, 8);
        bytes_put_number(file, 1, 4);
    }
    archive->end = file->count;
    bytes_put_number(file, 0x06054b50, 4);
    bytes_put_number(file, 0, 4);
    size_t count = archive->count < UINT16_MAX ? archive->count : UINT16_MAX;
    bytes_put_number(file, count, 2);
    bytes_put_number(file, count, 2);
    bytes_put_number(file, size, 4);
    bytes_put_number(file, offset, 4);
    bytes_put_number(file, 0, 2);
}

void archive_build(struct bytes *file, struct archive *archive)
{
    archive->start = file->count;
    for (size_t i = 0; i < archive->count; i++) {
        archive_put_local(file, archive, &archive->entries[i]);
        archive_put_data(file, &archive->entries[i]);
    }
    archive->directory = file->count;
    for (size_t i = 0; i < archive->count; i++)
        archive_put_central(file, archive, &archive->entries[i]);
    archive_put_end(file, archive);
}

void archive_build_tensor(struct bytes *file, struct archive *archive, size_t size)
{
    *archive = (struct archive){
        .tensor = {{.name = "archive/data.pkl", .size = 70},
                   {.name = "archive/byteorder", .size = 6},
                   {.name = "archive/data/0", .size = size},
                   {.name = "archive/version", .size = 2}},
        .count = 4,
    };
    archive->entries = archive->tensor;
    archive_build(file, archive);
}

/* -- the source -------------------------------------------------------------------------------------------
 */

static errint counted_source_read(void *context, void *buffer, size_t length, int64_t offset)
{
    struct counted_source *counted = context;
    counted->reads++;
    counted->read_bytes += length;
    if (counted->fail_at > 0 && counted->reads >= counted->fail_at)
        return -EIO;
    if (offset < 0 || length == 0 || (uint64_t)offset > counted->bytes->count ||
        length > counted->bytes->count - (size_t)offset) {
        counted->outside++;
        return -EFAULT;
    }
    memcpy(buffer, counted->bytes->at + offset, length);
    return 0;
}

void counted_source_open(struct counted_source *counted, const struct bytes *bytes)
{
    *counted = (struct counted_source){
        .source = {.context = counted, .size = (int64_t)bytes->count, .read = counted_source_read},
        .bytes = bytes,
    };
}

static void format_check_coverage(const struct bytes *bytes, const struct format_segments *segments)
{
    int64_t at = 0;
    bool fine = (segments->kind == FORMAT_UNKNOWN) == (segments->count == 0);
    for (size_t i = 0; i < segments->count && fine; i++) {
        const struct format_segment *segment = &segments->at[i];
        fine = segment->offset == at && segment->length > 0 &&
               segment->length <= (int64_t)bytes->count - at && !(segment->opaque && segment->has_crc32);
        at += segment->length;
    }
    CHECK(fine && (segments->kind == FORMAT_UNKNOWN || at == (int64_t)bytes->count));
}

static void format_check_names(struct counted_source *counted, const struct format_segments *segments)
{
    static const size_t sizes[] = {1, 2, 9, 80};
    char name[80];
    /* All of a small file, some of a large one: each reads the header again. */
    size_t step = segments->count / 64 + 1;
    for (size_t i = 0; i < segments->count; i += step) {
        size_t size = sizes[i % 4];
        memset(name, 'x', sizeof name);
        format_segment_name(&counted->source, segments->at[i].offset, name, size);
        CHECK(strnlen(name, size) < size && (size < 2 || name[0]));
    }
}

void format_check(const struct bytes *bytes, enum format_kind kind, struct format_segments *out)
{
    struct counted_source counted;
    counted_source_open(&counted, bytes);
    CHECK_EQUAL(0, format_segments_find(&counted.source, out));
    CHECK_EQUAL(kind, out->kind);
    format_check_coverage(bytes, out);
    format_check_names(&counted, out);
    CHECK_EQUAL(0, counted.outside);
}

enum format_kind format_check_any(const struct bytes *bytes)
{
    struct counted_source counted;
    cleanup_segments struct format_segments segments;
    char name[16];
    counted_source_open(&counted, bytes);
    CHECK_EQUAL(0, format_segments_find(&counted.source, &segments));
    format_check_coverage(bytes, &segments);
    format_segment_name(&counted.source, (int64_t)bytes->count / 2, name, sizeof name);
    CHECK_EQUAL(0, counted.outside);
    return segments.kind;
}
