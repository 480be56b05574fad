/* SPDX-License-Identifier: Apache-2.0 */
/* The segments of one zip archive: every entry's bytes, and what is between them. */
#include "format/torch_zip.h"

#include <errno.h>
#include <string.h>

/* An entry and where its data is. */
struct torch_zip_entry {
    int64_t header, data;
    struct format_segment segment;
};

static struct format_segment torch_zip_segment(const struct zip_entry *entry, int64_t data)
{
    struct format_segment segment = {.offset = data, .length = entry->size};
    segment.opaque = entry->method != ZIP_STORED || (entry->flags & ZIP_ENCRYPTED);
    /* torch writes 0 for all when it is told to compute none (torch.serialization.set_crc32_options). */
    if (!segment.opaque && entry->crc32 != 0) {
        segment.has_crc32 = true;
        segment.crc32 = entry->crc32;
    }
    return segment;
}

static int torch_zip_compare(const void *one, const void *other)
{
    const struct torch_zip_entry *a = one, *b = other;
    return (a->header > b->header) - (a->header < b->header);
}

/* Writers write the directory in the entries' order: nothing to sort then. */
static void torch_zip_sort(struct torch_zip_entry *entries, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (entries[i].header < entries[i - 1].header) {
            qsort(entries, count, sizeof *entries, torch_zip_compare);
            return;
        }
    }
}

static int torch_zip_read(struct zip_directory *directory, struct torch_zip_entry *entries, uint64_t *names)
{
    for (size_t i = 0; directory->left > 0; i++) {
        struct zip_entry entry;
        int64_t data;
        int result = zip_directory_next(directory, &entry);
        if (!result)
            result = zip_locate_data(directory, &entry, &data);
        if (result)
            return result;
        entries[i] = (struct torch_zip_entry){entry.header, data, torch_zip_segment(&entry, data)};
        names[i] = entry.name;
    }
    return 0;
}

/* Local headers, descriptors and the directory belong to no entry: they are gaps. */
static int torch_zip_tile(const struct zip_archive *archive, const struct torch_zip_entry *entries,
                          struct segment_list *list)
{
    int64_t at = archive->start, free_from = archive->start;
    for (size_t i = 0; i < archive->count; i++) {
        const struct torch_zip_entry *entry = &entries[i];
        if (entry->header < free_from)
            return FORMAT_FOREIGN;
        free_from = entry->data + entry->segment.length;
        if (entry->segment.length == 0)
            continue;
        errint error = segment_list_append_gap(list, at, entry->data);
        if (!error)
            error = segment_list_append(list, entry->segment);
        if (error)
            return error;
        at = free_from;
    }
    return segment_list_append_gap(list, at, archive->end);
}

static int torch_zip_collect(const struct zip_archive *archive, struct zip_directory *directory,
                             struct segment_list *list)
{
    cleanup_free struct torch_zip_entry *entries = calloc(archive->count, sizeof *entries);
    cleanup_free uint64_t *names = calloc(archive->count, sizeof *names);
    if (!entries || !names)
        return -ENOMEM;
    int result = torch_zip_read(directory, entries, names);
    if (!result)
        result = format_check_distinct(names, archive->count);
    if (result)
        return result;
    torch_zip_sort(entries, archive->count);
    /* Bytes before the first header would be no part of the archive. */
    if (entries[0].header != archive->start)
        return FORMAT_FOREIGN;
    return torch_zip_tile(archive, entries, list);
}

int torch_zip_append(const struct format_source *source, const struct zip_archive *archive,
                     struct zip_directory *directory, struct segment_list *list)
{
    errint error = zip_directory_open(directory, source, archive);
    if (error)
        return error;
    size_t before = list->count;
    int result = torch_zip_collect(archive, directory, list);
    if (result)
        list->count = before;
    return result;
}

/* -- a name -----------------------------------------------------------------------------------------------
 */

int torch_zip_name(const struct format_source *source, const struct zip_archive *archive, int64_t offset,
                   char *name, size_t size)
{
    cleanup_zip_directory struct zip_directory directory = {0};
    errint error = zip_directory_open(&directory, source, archive);
    if (error)
        return error;
    /* The entry that starts last before the offset; its name is printed as long as no later one is found. */
    struct zip_entry nearest = {.header = -1};
    while (directory.left > 0) {
        struct zip_entry entry;
        int result = zip_directory_next(&directory, &entry);
        if (result)
            return result;
        if (entry.header <= offset && entry.header > nearest.header) {
            nearest = entry;
            format_print_name(directory.name, directory.name_length, name, size);
        }
    }
    int64_t data;
    int result = nearest.header < 0 ? FORMAT_FOREIGN : zip_locate_data(&directory, &nearest, &data);
    if (result)
        return result;
    return offset >= data && offset - data < nearest.size ? 0 : FORMAT_FOREIGN;
}
