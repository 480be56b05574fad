/* SPDX-License-Identifier: Apache-2.0 */
/* Zip archives: their end records, their directory, their local headers. */
#include "format/zip.h"

#include <string.h>

enum {
    ZIP_LOCAL = 0x04034b50,
    ZIP_CENTRAL = 0x02014b50,
    ZIP_END = 0x06054b50,
    ZIP64_END = 0x06064b50,
    ZIP64_LOCATOR = 0x07064b50,

    ZIP_LOCAL_SIZE = 30,
    ZIP_CENTRAL_SIZE = 46,
    ZIP_END_SIZE = 22,
    ZIP64_END_SIZE = 56,
    ZIP64_LOCATOR_SIZE = 20,

    ZIP64_EXTRA = 1,
};

/* A field with this value has its true one in a zip64 record. */
#define ZIP_SATURATED_16 UINT16_MAX
#define ZIP_SATURATED_32 UINT32_MAX

/* Local headers of small entries lie this close together. */
enum { ZIP_HEADERS_AHEAD = 4096 };

static uint16_t zip_get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t zip_get32(const uint8_t *at)
{
    return zip_get16(at) | (uint32_t)zip_get16(at + 2) << 16;
}

static uint64_t zip_get64(const uint8_t *at)
{
    return zip_get32(at) | (uint64_t)zip_get32(at + 4) << 32;
}

static uint64_t zip_hash(const uint8_t *name, size_t length)
{
    uint64_t hash = FORMAT_HASH_START;
    for (size_t i = 0; i < length; i++)
        hash = format_hash_byte(hash, name[i]);
    return hash;
}

/* -- the end ----------------------------------------------------------------------------------------------
 */

/* The end records of an archive, which are read in one piece. */
struct zip_tail {
    uint8_t bytes[ZIP64_END_SIZE + ZIP64_LOCATOR_SIZE + ZIP_END_SIZE];
    int64_t offset; /* in the source */
    size_t length;
};

static const uint8_t *zip_tail_end(const struct zip_tail *tail)
{
    return tail->bytes + tail->length - ZIP_END_SIZE;
}

/* A classic field is the true value, or says that it is elsewhere. */
static bool zip_agrees16(uint16_t classic, uint64_t value)
{
    return classic == value || classic == ZIP_SATURATED_16;
}

static bool zip_agrees32(uint32_t classic, uint64_t value)
{
    return classic == value || classic == ZIP_SATURATED_32;
}

/* Count, directory's size and its offset from the archive's start. */
struct zip_directory_place {
    uint64_t count, size, offset;
};

static bool zip_read_end(const struct zip_tail *tail, struct zip_directory_place *place)
{
    const uint8_t *end = zip_tail_end(tail);
    place->count = zip_get16(end + 10);
    place->size = zip_get32(end + 12);
    place->offset = zip_get32(end + 16);
    return zip_get16(end + 4) == 0 && zip_get16(end + 6) == 0 && zip_get16(end + 8) == place->count;
}

/* True also when there is no zip64 record; *record: where the locator says that it is, or -1. */
static bool zip_read_end64(const struct zip_tail *tail, struct zip_directory_place *place, int64_t *record)
{
    *record = -1;
    if (tail->length < sizeof tail->bytes)
        return true;
    const uint8_t *end = zip_tail_end(tail), *locator = end - ZIP64_LOCATOR_SIZE;
    const uint8_t *end64 = locator - ZIP64_END_SIZE;
    if (zip_get32(locator) != ZIP64_LOCATOR)
        return true;
    struct zip_directory_place place64 = {
        .count = zip_get64(end64 + 32), .size = zip_get64(end64 + 40), .offset = zip_get64(end64 + 48)};
    uint64_t place_of_record = zip_get64(locator + 8);
    if (zip_get32(end64) != ZIP64_END || zip_get64(end64 + 4) != ZIP64_END_SIZE - 12 ||
        zip_get32(end64 + 16) != 0 || zip_get32(end64 + 20) != 0 || zip_get64(end64 + 24) != place64.count ||
        zip_get32(locator + 4) != 0 || zip_get32(locator + 16) > 1 || place_of_record > INT64_MAX ||
        !zip_agrees16(zip_get16(end + 10), place64.count) ||
        !zip_agrees32(zip_get32(end + 12), place64.size) ||
        !zip_agrees32(zip_get32(end + 16), place64.offset))
        return false;
    *place = place64;
    *record = (int64_t)place_of_record;
    return true;
}

static int zip_read_tail(const struct format_source *source, int64_t end, struct zip_tail *tail)
{
    tail->length = end < (int64_t)sizeof tail->bytes ? (size_t)end : sizeof tail->bytes;
    tail->offset = end - (int64_t)tail->length;
    if (tail->length < ZIP_END_SIZE)
        return FORMAT_FOREIGN;
    errint error = source->read(source->context, tail->bytes, tail->length, tail->offset);
    if (error)
        return error;
    const uint8_t *record = zip_tail_end(tail);
    return zip_get32(record) == ZIP_END && zip_get16(record + 20) == 0 ? 0 : FORMAT_FOREIGN;
}

int zip_find_archive(const struct format_source *source, int64_t end, struct zip_archive *out)
{
    struct zip_tail tail;
    struct zip_directory_place place;
    int64_t record;
    int result = zip_read_tail(source, end, &tail);
    if (result)
        return result;
    if (!zip_read_end(&tail, &place) || !zip_read_end64(&tail, &place, &record))
        return FORMAT_FOREIGN;
    int64_t directory_end = record >= 0 ? tail.offset : end - ZIP_END_SIZE;
    if (place.size > (uint64_t)directory_end || place.offset > (uint64_t)directory_end - place.size ||
        place.count == 0 || place.count > place.size / ZIP_CENTRAL_SIZE)
        return FORMAT_FOREIGN;
    *out = (struct zip_archive){
        .start = directory_end - (int64_t)place.size - (int64_t)place.offset,
        .directory = directory_end - (int64_t)place.size,
        .directory_end = directory_end,
        .end = end,
        .count = place.count,
    };
    return record < 0 || record == directory_end - out->start ? 0 : FORMAT_FOREIGN;
}

/* -- the directory ----------------------------------------------------------------------------------------
 */

errint zip_directory_open(struct zip_directory *directory, const struct format_source *source,
                          const struct zip_archive *archive)
{
    directory->archive = archive;
    directory->at = archive->directory;
    directory->left = archive->count;
    errint error =
        window_aim(&directory->entries, source, archive->directory, archive->directory_end, WINDOW_SIZE);
    if (error)
        return error;
    return window_aim(&directory->headers, source, archive->start, archive->directory, ZIP_HEADERS_AHEAD);
}

void zip_directory_release(struct zip_directory *directory)
{
    window_release(&directory->entries);
    window_release(&directory->headers);
}

/* Finds the zip64 field; FORMAT_FOREIGN when fields run over the end or it is there twice. */
static int zip_find_extra64(const uint8_t *extra, size_t length, const uint8_t **field, size_t *field_length)
{
    *field = NULL;
    *field_length = 0;
    while (length > 0) {
        if (length < 4 || zip_get16(extra + 2) > length - 4)
            return FORMAT_FOREIGN;
        size_t size = zip_get16(extra + 2);
        if (zip_get16(extra) == ZIP64_EXTRA) {
            if (*field)
                return FORMAT_FOREIGN;
            *field = extra + 4;
            *field_length = size;
        }
        extra += 4 + size;
        length -= 4 + size;
    }
    return 0;
}

/* Replaces a value that is elsewhere by the next one of the zip64 field. */
static bool zip_take64(uint64_t *value, const uint8_t **field, size_t *length)
{
    if (*value != ZIP_SATURATED_32)
        return true;
    if (*length < 8)
        return false;
    *value = zip_get64(*field);
    *field += 8;
    *length -= 8;
    return true;
}

static int zip_read_central(const struct zip_archive *archive, const uint8_t *bytes, struct zip_entry *entry)
{
    size_t name_length = zip_get16(bytes + 28), extra_length = zip_get16(bytes + 30), length;
    const uint8_t *name = bytes + ZIP_CENTRAL_SIZE, *field;
    uint64_t size = zip_get32(bytes + 24), stored = zip_get32(bytes + 20), header = zip_get32(bytes + 42);
    int result = zip_find_extra64(name + name_length, extra_length, &field, &length);
    if (result)
        return result;
    if (!zip_take64(&size, &field, &length) || !zip_take64(&stored, &field, &length) ||
        !zip_take64(&header, &field, &length) || zip_get16(bytes + 34) != 0)
        return FORMAT_FOREIGN;
    uint64_t room = (uint64_t)(archive->directory - archive->start);
    if (header > room || stored > room - header)
        return FORMAT_FOREIGN;
    *entry = (struct zip_entry){
        .header = archive->start + (int64_t)header,
        .size = (int64_t)stored,
        .name = zip_hash(name, name_length),
        .crc32 = zip_get32(bytes + 16),
        .flags = zip_get16(bytes + 8),
        .method = zip_get16(bytes + 10),
    };
    bool plain = entry->method == ZIP_STORED && !(entry->flags & ZIP_ENCRYPTED);
    return plain && size != stored ? FORMAT_FOREIGN : 0;
}

int zip_directory_next(struct zip_directory *directory, struct zip_entry *entry)
{
    const uint8_t *bytes;
    int result = window_get(&directory->entries, directory->at, ZIP_CENTRAL_SIZE, &bytes);
    if (result)
        return result;
    if (zip_get32(bytes) != ZIP_CENTRAL)
        return FORMAT_FOREIGN;
    directory->name_length = zip_get16(bytes + 28);
    size_t length = ZIP_CENTRAL_SIZE + directory->name_length + zip_get16(bytes + 30) + zip_get16(bytes + 32);
    result = window_get(&directory->entries, directory->at, length, &bytes);
    if (result)
        return result;
    directory->name = (const char *)bytes + ZIP_CENTRAL_SIZE;
    directory->at += (int64_t)length;
    directory->left--;
    if (directory->left == 0 && directory->at != directory->archive->directory_end)
        return FORMAT_FOREIGN;
    return zip_read_central(directory->archive, bytes, entry);
}

/* -- local headers ----------------------------------------------------------------------------------------
 */

int zip_locate_data(struct zip_directory *directory, const struct zip_entry *entry, int64_t *data)
{
    const uint8_t *bytes;
    int result = window_get(&directory->headers, entry->header, ZIP_LOCAL_SIZE, &bytes);
    if (result)
        return result;
    size_t name_length = zip_get16(bytes + 26), extra_length = zip_get16(bytes + 28);
    result = window_get(&directory->headers, entry->header, ZIP_LOCAL_SIZE + name_length, &bytes);
    if (result)
        return result;
    uint32_t size = zip_get32(bytes + 18);
    if (zip_get32(bytes) != ZIP_LOCAL || zip_get16(bytes + 6) != entry->flags ||
        zip_get16(bytes + 8) != entry->method || zip_hash(bytes + ZIP_LOCAL_SIZE, name_length) != entry->name)
        return FORMAT_FOREIGN;
    /* With a descriptor the sizes come behind the data; torch leaves them 0 here. */
    if (!(entry->flags & ZIP_DESCRIPTOR) && !zip_agrees32(size, (uint64_t)entry->size))
        return FORMAT_FOREIGN;
    *data = entry->header + ZIP_LOCAL_SIZE + (int64_t)name_length + (int64_t)extra_length;
    return *data > directory->archive->directory - entry->size ? FORMAT_FOREIGN : 0;
}
