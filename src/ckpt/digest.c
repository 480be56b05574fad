/* SPDX-License-Identifier: Apache-2.0 */
/* Hashing an object along its tensors. */
#include "ckpt/digest.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static errint digest_read(void *context, void *buffer, size_t length, int64_t offset)
{
    const struct digest_request *request = context;
    for (size_t done = 0; done < length;) {
        ssize_t got = pread(request->fd, (char *)buffer + done, length - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        done += (size_t)got;
    }
    return 0;
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
    const struct sums_request wanted = {
        .store = request->store,
        .fd = request->fd,
        .size = request->size,
        .parts = parts,
        .part_count = segments.count,
        .stop = request->stop,
        .context = request->context,
    };
    return sums_compute(&wanted, out);
}
