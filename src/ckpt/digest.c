/* SPDX-License-Identifier: Apache-2.0 */
/* Hashing an object along its tensors. */
#include "ckpt/digest.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/transfer.h"

static errint digest_read(void *context, void *buffer, size_t length, int64_t offset)
{
    const struct digest_request *request = context;
    return transfer_read(request->fd, buffer, length, offset);
}

/* What goes on while an object is hashed. */
struct digest_work {
    const struct digest_request *request;
    const struct format_source *source;
    const struct format_segments *segments;
    size_t part;
    int64_t done; /* bytes of it */
    uint32_t crc32;
};

static void digest_check_entry(const struct digest_work *work)
{
    const struct format_segment *segment = &work->segments->at[work->part];
    char name[256];
    if (work->crc32 == segment->crc32)
        return;
    format_segment_name(work->source, segment->offset, name, sizeof name);
    work->request->mismatch(work->request->context, name, segment->offset, segment->crc32, work->crc32);
}

static void digest_see_bytes(void *context, size_t part, const void *data, size_t length)
{
    struct digest_work *work = context;
    const struct format_segment *segment = &work->segments->at[part];
    if (!segment->has_crc32)
        return;
    if (part != work->part || work->done == 0) {
        work->part = part;
        work->done = 0;
        work->crc32 = 0;
    }
    work->crc32 = libdeflate_crc32(work->crc32, data, length);
    work->done += (int64_t)length;
    if (work->done == segment->length)
        digest_check_entry(work);
}

static bool digest_stops(void *context)
{
    const struct digest_work *work = context;
    return work->request->stop && work->request->stop(work->request->context);
}

static struct sums_part *digest_parts(const struct format_segments *segments)
{
    struct sums_part *parts = calloc(segments->count, sizeof *parts);
    for (size_t i = 0; parts && i < segments->count; i++)
        parts[i] = (struct sums_part){.length = segments->at[i].length, .opaque = segments->at[i].opaque};
    return parts;
}

errint digest_object(const struct digest_request *request, struct sums *out, enum format_kind *kind)
{
    cleanup_segments struct format_segments segments = {0};
    const struct format_source source = {
        .context = (void *)(uintptr_t)request,
        .size = request->size,
        .read = digest_read,
    };
    errint error = request->whole ? format_segments_find(&source, &segments) : 0;
    if (error)
        return error;
    *kind = segments.kind;
    cleanup_free struct sums_part *parts = segments.count ? digest_parts(&segments) : NULL;
    if (segments.count && !parts)
        return -ENOMEM;
    struct digest_work work = {.request = request, .source = &source, .segments = &segments};
    bool checks = request->mismatch && (segments.kind == FORMAT_TORCH_ZIP || segments.kind == FORMAT_DISTCP);
    const struct sums_request wanted = {
        .store = request->store,
        .fd = request->fd,
        .size = request->size,
        .parts = parts,
        .part_count = segments.count,
        .bytes = checks ? digest_see_bytes : NULL,
        .stop = digest_stops,
        .context = &work,
    };
    return sums_compute(&wanted, out);
}
