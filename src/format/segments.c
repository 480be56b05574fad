/* SPDX-License-Identifier: Apache-2.0 */
/* Which format a file has, and the list of its segments. */
#include "format/segments.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/grow.h"
#include "format/internal.h"

/* -- the list ---------------------------------------------------------------------------------------------
 */

errint segment_list_reserve(struct segment_list *list, size_t count)
{
    if (count <= list->capacity)
        return 0;
    struct format_segment *at = reallocarray(list->at, count, sizeof *at);
    if (!at)
        return -ENOMEM;
    list->at = at;
    list->capacity = count;
    return 0;
}

errint segment_list_append(struct segment_list *list, struct format_segment segment)
{
    if (!grow_reserve(list->at, list->capacity, list->count + 1))
        return -ENOMEM;
    list->at[list->count++] = segment;
    return 0;
}

errint segment_list_append_gap(struct segment_list *list, int64_t from, int64_t to)
{
    if (from == to)
        return 0;
    struct format_segment gap = {
        .offset = from, .length = to - from, .opaque = to - from > FORMAT_GAP_OPAQUE};
    return segment_list_append(list, gap);
}

void segment_list_release(struct segment_list *list)
{
    free(list->at);
    *list = (struct segment_list){0};
}

void format_segments_release(struct format_segments *segments)
{
    free(segments->at);
    *segments = (struct format_segments){0};
}

/* -- names ------------------------------------------------------------------------------------------------
 */

static int format_compare_hashes(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

int format_check_distinct(uint64_t *hashes, size_t count)
{
    if (count > 1)
        qsort(hashes, count, sizeof *hashes, format_compare_hashes);
    for (size_t i = 1; i < count; i++) {
        if (hashes[i] == hashes[i - 1])
            return FORMAT_FOREIGN;
    }
    return 0;
}

void format_print_name(const char *text, size_t length, char *name, size_t size)
{
    size_t end = length < size - 1 ? length : size - 1;
    for (size_t i = 0; i < end; i++) {
        unsigned char byte = (unsigned char)text[i];
        name[i] = byte < 0x20 || byte == 0x7f ? '?' : text[i];
    }
    name[end] = '\0';
}

/* -- recognition ------------------------------------------------------------------------------------------
 */

/* 1: the source starts with a zip archive's first local header; 0: it does not; or a negative errno. */
static int format_starts_like_zip(const struct format_source *source)
{
    static const uint8_t signature[4] = {'P', 'K', 3, 4};
    uint8_t start[sizeof signature];
    if (source->size < (int64_t)sizeof start)
        return 0;
    errint error = source->read(source->context, start, sizeof start, 0);
    return error ? error : memcmp(start, signature, sizeof start) == 0;
}

errint format_segments_find(const struct format_source *source, struct format_segments *out)
{
    *out = (struct format_segments){0};
    cleanup_segment_list struct segment_list list = {0};
    enum format_kind kind = FORMAT_SAFETENSORS;
    int zip = format_starts_like_zip(source);
    if (zip < 0)
        return zip;
    int result = zip ? distcp_find(source, &list, &kind) : safetensors_find(source, &list);
    if (result)
        return result == FORMAT_FOREIGN ? 0 : result;
    /* To give back what is not needed cannot fail in a way that matters. */
    struct format_segment *at = reallocarray(list.at, list.count, sizeof *at);
    if (at)
        list.at = at;
    *out = (struct format_segments){.kind = kind, .at = steal_pointer(list.at), .count = list.count};
    return 0;
}

void format_segment_name(const struct format_source *source, int64_t offset, char *name, size_t size)
{
    if (size == 0)
        return;
    int result = FORMAT_FOREIGN;
    if (offset >= 0 && offset < source->size) {
        int zip = format_starts_like_zip(source);
        if (zip >= 0)
            result =
                zip ? distcp_name(source, offset, name, size) : safetensors_name(source, offset, name, size);
    }
    if (result)
        snprintf(name, size, "bytes");
}
