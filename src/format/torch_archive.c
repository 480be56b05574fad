/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The zip form of torch.save: records under one folder, whose name is that of the first entry
 * (PyTorch, caffe2/serialize/inline_container.cc, 2.13).
 */
#include <errno.h>
#include <string.h>

#include "format/torch_storages.h"
#include "format/zip.h"

/* More than any file has. */
enum { TORCH_RECORDS_MAX = 8 << 20 };

struct torch_record {
    int64_t offset, length; /* offset -1: not there */
};

/* What an entry takes in the file. */
struct torch_span {
    int64_t start, end;
};

struct torch_archive {
    const struct format_source *source;
    struct torch_file *file;
    struct format_problem *problem;
    struct zip_directory directory;
    struct torch_span *spans;
    size_t span_count;
    char *folder; /* with the slash */
    size_t folder_length;
    struct torch_record pickle, byteorder;
};

static void torch_archive_free(struct torch_archive *archive)
{
    zip_directory_release(&archive->directory);
    free(archive->spans);
    free(archive->folder);
}

/* -- records ----------------------------------------------------------------------------------------------
 */

static int torch_archive_set_folder(struct torch_archive *archive)
{
    const char *name = archive->directory.name;
    const char *slash = memchr(name, '/', archive->directory.name_length);
    if (!slash)
        return format_problem_set(archive->problem, archive->directory.at,
                                  "expected torch.save's records in a folder, found the entry %.*s",
                                  (int)archive->directory.name_length, name);
    archive->folder_length = (size_t)(slash - name) + 1;
    /* A NUL may be in it. */
    archive->folder = calloc(archive->folder_length + 1, 1);
    if (!archive->folder)
        return -ENOMEM;
    memcpy(archive->folder, name, archive->folder_length);
    return 0;
}

/* What follows the folder in the entry's name; NULL: it is in another. */
static const char *torch_archive_record_name(const struct torch_archive *archive, size_t *length)
{
    const struct zip_directory *directory = &archive->directory;
    if (directory->name_length < archive->folder_length ||
        memcmp(directory->name, archive->folder, archive->folder_length) != 0)
        return NULL;
    *length = directory->name_length - archive->folder_length;
    return directory->name + archive->folder_length;
}

static bool torch_name_is(const char *name, size_t length, const char *wanted)
{
    return length == strlen(wanted) && memcmp(name, wanted, length) == 0;
}

static bool torch_name_starts(const char *name, size_t length, const char *start)
{
    return length >= strlen(start) && memcmp(name, start, strlen(start)) == 0;
}

/* Whether the directory stands at a record that only TorchScript has. */
static bool torch_archive_is_script(const struct torch_archive *archive)
{
    size_t length;
    const char *name = torch_archive_record_name(archive, &length);
    return name && (torch_name_is(name, length, "constants.pkl") || torch_name_starts(name, length, "code/"));
}

static int torch_archive_set_record(struct torch_archive *archive, struct torch_record *record,
                                    struct torch_record value)
{
    if (record->offset >= 0)
        return format_problem_set(archive->problem, value.offset,
                                  "expected one entry %.*s in the archive, found two",
                                  (int)archive->directory.name_length, archive->directory.name);
    *record = value;
    return 0;
}

static int torch_archive_add_storage(struct torch_archive *archive, const char *key, size_t length,
                                     struct torch_record record)
{
    struct torch_file *file = archive->file;
    char *copy = arena_copy_text(&file->arena, key, length);
    if (!copy)
        return -ENOMEM;
    file->storages[file->storage_count++] = (struct torch_storage){
        .key = copy, .key_length = length, .offset = record.offset, .length = record.length};
    return 0;
}

/* Notes the record that the directory stands at. */
static int torch_archive_note(struct torch_archive *archive, struct torch_record record)
{
    size_t length;
    const char *name = torch_archive_record_name(archive, &length);
    if (!name)
        return 0;
    if (torch_name_is(name, length, "data.pkl"))
        return torch_archive_set_record(archive, &archive->pickle, record);
    if (torch_name_is(name, length, "byteorder"))
        return torch_archive_set_record(archive, &archive->byteorder, record);
    if (torch_name_starts(name, length, "data/"))
        return torch_archive_add_storage(archive, name + 5, length - 5, record);
    return 0;
}

static int torch_archive_read_entry(struct torch_archive *archive)
{
    struct zip_entry entry;
    int64_t at = archive->directory.at, data;
    int result = zip_directory_next(&archive->directory, &entry);
    if (result == FORMAT_FOREIGN)
        return format_problem_set(archive->problem, at,
                                  "expected an entry of the zip directory, found a damaged one");
    if (!result && !archive->folder)
        result = torch_archive_set_folder(archive);
    if (result)
        return result;
    int name_length = (int)archive->directory.name_length;
    if (torch_archive_is_script(archive))
        return format_problem_set(archive->problem, entry.header,
                                  "expected a file of torch.save, found a TorchScript archive with %.*s",
                                  name_length, archive->directory.name);
    if (entry.method != ZIP_STORED || (entry.flags & ZIP_ENCRYPTED))
        return format_problem_set(archive->problem, entry.header,
                                  "expected stored entries, found %.*s compressed or encrypted", name_length,
                                  archive->directory.name);
    result = zip_locate_data(&archive->directory, &entry, &data);
    if (result == FORMAT_FOREIGN)
        return format_problem_set(archive->problem, entry.header,
                                  "expected a local header as the directory says for %.*s, found another",
                                  name_length, archive->directory.name);
    if (result)
        return result;
    archive->spans[archive->span_count++] = (struct torch_span){entry.header, data + entry.size};
    return torch_archive_note(archive, (struct torch_record){data, entry.size});
}

static int torch_span_compare(const void *one, const void *other)
{
    const struct torch_span *a = one, *b = other;
    return (a->start > b->start) - (a->start < b->start);
}

/* Entries that lie in each other would be read one way here and another way there. */
static int torch_archive_check_spans(const struct torch_archive *archive)
{
    qsort(archive->spans, archive->span_count, sizeof *archive->spans, torch_span_compare);
    for (size_t i = 1; i < archive->span_count; i++) {
        if (archive->spans[i].start < archive->spans[i - 1].end)
            return format_problem_set(
                archive->problem, archive->spans[i].start,
                "expected an entry to start behind the one before it, which ends at %lld",
                (long long)archive->spans[i - 1].end);
    }
    return 0;
}

static int torch_archive_read_directory(struct torch_archive *archive, const struct zip_archive *zip)
{
    errint error = zip_directory_open(&archive->directory, archive->source, zip);
    if (error)
        return error;
    archive->spans = reallocarray(NULL, (size_t)zip->count, sizeof *archive->spans);
    archive->file->storages =
        arena_take_array(&archive->file->arena, (size_t)zip->count, sizeof *archive->file->storages);
    if (!archive->spans || !archive->file->storages)
        return -ENOMEM;
    while (archive->directory.left > 0) {
        int result = torch_archive_read_entry(archive);
        if (result)
            return result;
    }
    int result = torch_archive_check_spans(archive);
    return result ? result : torch_storages_sort(archive->file, archive->problem);
}

/* -- the archive ------------------------------------------------------------------------------------------
 */

static int torch_archive_check_byteorder(const struct torch_archive *archive)
{
    char order[8] = "";
    const struct torch_record *record = &archive->byteorder;
    if (record->offset < 0)
        return 0;
    size_t length = record->length < (int64_t)sizeof order ? (size_t)record->length : sizeof order - 1;
    errint error = 0;
    if (length > 0)
        error = archive->source->read(archive->source->context, order, length, record->offset);
    if (error)
        return error;
    if (record->length != 6 || memcmp(order, "little", 6) != 0)
        return format_problem_set(archive->problem, record->offset,
                                  "expected the byte order \"little\", found \"%s\"", order);
    return 0;
}

static int torch_archive_find(const struct format_source *source, int64_t start, int64_t length,
                              struct zip_archive *zip, struct format_problem *problem)
{
    int64_t end = start + length;
    int result = zip_find_archive(source, end, zip);
    if (result == FORMAT_FOREIGN)
        return format_problem_set(
            problem, end, "expected the end of a zip archive or torch.save's older form, found neither");
    if (result)
        return result;
    if (zip->start != start)
        return format_problem_set(problem, end, "expected an archive that starts at %lld, found %lld",
                                  (long long)start, (long long)zip->start);
    if (zip->count > TORCH_RECORDS_MAX)
        return format_problem_set(problem, zip->directory, "expected at most %d entries, found %llu",
                                  TORCH_RECORDS_MAX, (unsigned long long)zip->count);
    return 0;
}

int torch_archive_read(const struct format_source *source, int64_t start, int64_t length,
                       struct torch_file *file, struct format_problem *problem)
{
    struct zip_archive zip;
    int result = torch_archive_find(source, start, length, &zip, problem);
    if (result)
        return result;
    __attribute__((cleanup(torch_archive_free))) struct torch_archive archive = {
        .source = source,
        .file = file,
        .problem = problem,
        .pickle.offset = -1,
        .byteorder.offset = -1,
    };
    result = torch_archive_read_directory(&archive, &zip);
    if (!result && archive.pickle.offset < 0)
        return format_problem_set(problem, zip.directory, "expected an entry %.60sdata.pkl, found none",
                                  archive.folder);
    if (!result)
        result = torch_archive_check_byteorder(&archive);
    int64_t end;
    if (!result)
        result = pickle_read(source, archive.pickle.offset, archive.pickle.length, &pickle_default_limits,
                             &file->arena, &file->root, &end, problem);
    return result;
}
