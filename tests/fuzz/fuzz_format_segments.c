/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a file: the segments cover it, and nothing outside of it is read. */
/* fuzz-sources: src/format src/base/arena.c src/base/grow.c src/base/name_table.c */
/* fuzz-libs: -lxxhash */
#include "format/segments.h"

#include "fuzz_source.h"

static void fuzz_check_coverage(const struct format_segments *segments, int64_t size)
{
    int64_t at = 0;
    for (size_t i = 0; i < segments->count; i++) {
        const struct format_segment *segment = &segments->at[i];
        if (segment->offset != at || segment->length <= 0 || segment->length > size - at)
            abort();
        at += segment->length;
    }
    if (segments->kind == FORMAT_UNKNOWN ? segments->count != 0 : at != size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const struct format_source source = fuzz_source(&input);
    cleanup_segments struct format_segments segments;
    if (format_segments_find(&source, &segments) != 0)
        abort();
    fuzz_check_coverage(&segments, source.size);
    for (size_t i = 0; i < segments.count && i < 8; i++) {
        char name[32];
        format_segment_name(&source, segments.at[i].offset, name, 1 + i * 4);
        if (strnlen(name, sizeof name) > i * 4)
            abort();
    }
    return 0;
}
