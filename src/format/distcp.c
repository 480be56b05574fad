/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One zip archive, or several one after the other.
 *
 * torch.distributed.checkpoint writes each tensor as an archive of its own into one file, with no index but
 * the .metadata beside it. Its local headers say no sizes (they come behind the data), so the way through the
 * file is backwards: an archive's end records say where it starts, and there the one before it ends. What is
 * left in front when the way ends is one opaque segment.
 */
#include <errno.h>

#include "base/grow.h"
#include "format/torch_zip.h"

/* Archives and entries together: far more than any rank writes, and what the memory bound allows. */
enum { DISTCP_RECORDS_MAX = 1000000 };

struct distcp_archives {
    struct zip_archive *at; /* the last of the file first */
    size_t count, capacity;
    uint64_t records;
};

static void distcp_release(struct distcp_archives *archives)
{
    free(archives->at);
}

static errint distcp_note(struct distcp_archives *archives, const struct zip_archive *archive)
{
    if (!grow_reserve(archives->at, archives->capacity, archives->count + 1))
        return -ENOMEM;
    archives->at[archives->count++] = *archive;
    return 0;
}

/* Walks backwards while there is an archive. 0 also when there is none at all. */
static int distcp_walk(const struct format_source *source, struct distcp_archives *archives)
{
    for (int64_t end = source->size; end > 0;) {
        struct zip_archive archive;
        int result = zip_find_archive(source, end, &archive);
        if (result)
            return result == FORMAT_FOREIGN ? 0 : result;
        if (archive.count >= DISTCP_RECORDS_MAX - archives->records)
            return 0;
        archives->records += archive.count + 1;
        errint error = distcp_note(archives, &archive);
        if (error)
            return error;
        end = archive.start;
    }
    return 0;
}

/* Appends archive after archive, forwards; *understood: how many of them. One that is damaged is opaque. */
static int distcp_append(const struct format_source *source, const struct distcp_archives *archives,
                         struct segment_list *list, size_t *understood)
{
    cleanup_zip_directory struct zip_directory directory = {0};
    *understood = 0;
    for (size_t i = archives->count; i-- > 0;) {
        const struct zip_archive *archive = &archives->at[i];
        int result = torch_zip_append(source, archive, &directory, list);
        if (result == 0)
            (*understood)++;
        else if (result == FORMAT_FOREIGN)
            result = segment_list_append(
                list, (struct format_segment){
                          .offset = archive->start, .length = archive->end - archive->start, .opaque = true});
        if (result)
            return result;
    }
    return 0;
}

int distcp_find(const struct format_source *source, struct segment_list *list, enum format_kind *kind)
{
    __attribute__((cleanup(distcp_release))) struct distcp_archives archives = {0};
    int result = distcp_walk(source, &archives);
    if (result)
        return result;
    if (archives.count == 0)
        return FORMAT_FOREIGN;
    int64_t first = archives.at[archives.count - 1].start;
    errint error = 0;
    if (first > 0)
        error = segment_list_append(list, (struct format_segment){.length = first, .opaque = true});
    if (error)
        return error;
    size_t understood;
    result = distcp_append(source, &archives, list, &understood);
    if (result)
        return result;
    *kind = archives.count == 1 && first == 0 ? FORMAT_TORCH_ZIP : FORMAT_DISTCP;
    return understood > 0 ? 0 : FORMAT_FOREIGN;
}

int distcp_name(const struct format_source *source, int64_t offset, char *name, size_t size)
{
    uint64_t records = 0;
    for (int64_t end = source->size; end > offset;) {
        struct zip_archive archive;
        int result = zip_find_archive(source, end, &archive);
        if (result)
            return result;
        if (archive.count >= DISTCP_RECORDS_MAX - records)
            return FORMAT_FOREIGN;
        if (archive.start <= offset)
            return torch_zip_name(source, &archive, offset, name, size);
        records += archive.count + 1;
        end = archive.start;
    }
    return FORMAT_FOREIGN;
}
