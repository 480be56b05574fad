/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the tensors of a file begin and end: the cuts that deduplication is made along.
 *
 * Formats are recognised by content, never by name. A file that starts like a known format and is not (or is
 * damaged, or needs more memory than the stated bound) is FORMAT_UNKNOWN: never an error, since any bytes may
 * be saved. Total on any input: no crash, no read outside the source, no allocation over
 * FORMAT_SEGMENTS_MEMORY, time linear in what is parsed.
 *
 *   safetensors   the header (with its padding) is one segment, each tensor one, gaps their own
 *                 (safetensors, safetensors/src/tensor.rs, 0.8)
 *   torch zip     each stored entry's bytes are one segment; what lies between (local headers with their
 * padding, the central directory) is grouped into segments of its own (PyTorch,
 * caffe2/serialize/inline_container.cc, 2.13) distcp        archives and raw tensors one after the other,
 * without an index in the file: each zip archive is found by walking local headers and its end record; what
 * is no archive is left to be cut by content (PyTorch, torch/distributed/checkpoint/filesystem.py, 2.13)
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
 * The name of the tensor or entry at `offset`, for a message; control characters become '?', cut to fit.
 * "bytes" when it has none.
 */
void format_segment_name(const struct format_source *source, int64_t offset, char *name, size_t size);

#define cleanup_segments __attribute__((cleanup(format_segments_release)))

#endif
