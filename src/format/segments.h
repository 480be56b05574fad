/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the tensors of a file begin and end: the cuts that deduplication is made along.
 *
 * Formats are recognised by content, never by name. A file that starts like a known format and is not (or is
 * damaged, or needs more memory than the stated bound) is FORMAT_UNKNOWN: never an error, since any bytes may
 * be saved. Total on any input: no crash, no read outside the source, no allocation over
 * FORMAT_SEGMENTS_MEMORY, time linear in what is parsed.
 *
 * safetensors: the header with its padding is one segment, each tensor one; bytes of no tensor are segments
 * of their own (safetensors, safetensors/src/tensor.rs, 0.8).
 *
 * torch zip: each stored entry's bytes are one segment, a compressed entry's one opaque segment; what lies
 * between (local headers with their padding, descriptors, the central directory) is grouped into segments of
 * its own (PyTorch, caffe2/serialize/inline_container.cc, 2.13). Any other zip archive is cut the same way.
 *
 * distcp: archives one after the other, without an index in the file. They are found from the end of the
 * file, since a local header of torch does not say how long its data is; the bytes in front of the first one
 * found, and an archive that is damaged inside, are one opaque segment each. A file that does not end with an
 * archive is FORMAT_UNKNOWN (PyTorch, torch/distributed/checkpoint/filesystem.py, 2.13).
 */
#ifndef CKPTFS_FORMAT_SEGMENTS_H
#define CKPTFS_FORMAT_SEGMENTS_H

#include <stdbool.h>

#include "format/source.h"

enum format_kind { FORMAT_UNKNOWN, FORMAT_SAFETENSORS, FORMAT_TORCH_ZIP, FORMAT_DISTCP };

enum { FORMAT_SEGMENTS_MEMORY = 256 << 20 };

struct format_segment {
    int64_t offset, length; /* length > 0 */
    bool opaque;            /* nothing is known about what is inside: to be cut by content */
    bool has_crc32;         /* an entry of a zip whose CRC-32 is filled in */
    uint32_t crc32;
};

/* The whole file, in order, without gap or overlap. FORMAT_UNKNOWN: count is 0. */
struct format_segments {
    enum format_kind kind;
    struct format_segment *at;
    size_t count;
};

/*
 * Finds the segments. 0, or a negative errno: -ENOMEM, or what source->read returned. The caller gives `out`
 * to format_segments_release. Thread-safe.
 */
errint format_segments_find(const struct format_source *source, struct format_segments *out);
void format_segments_release(struct format_segments *segments);

/*
 * The name of the tensor or entry whose bytes `offset` is among, for a message: as it is written in the file,
 * without undoing escapes; control characters become '?', cut to fit. "bytes" when there is none, or the file
 * cannot be read. Reads the whole header or directory again.
 */
void format_segment_name(const struct format_source *source, int64_t offset, char *name, size_t size);

#define cleanup_segments __attribute__((cleanup(format_segments_release)))

#endif
