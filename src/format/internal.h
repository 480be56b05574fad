/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parsers of this room share: the list that they fill, and how they say that bytes are not theirs.
 *
 * A parser returns 0; FORMAT_FOREIGN when the bytes are not what it knows (damaged, hostile, or another
 * format: no error, and nothing is said about it); or a negative errno: -ENOMEM, or what the source returned.
 */
#ifndef CKPTFS_FORMAT_INTERNAL_H
#define CKPTFS_FORMAT_INTERNAL_H

#include "format/segments.h"

/* Bytes between known ranges are cut by content above this size. */
enum { FORMAT_GAP_OPAQUE = 1 << 20 };

/* FNV-1a: tells names apart. Names made to collide only keep their own file from being understood. */
#define FORMAT_HASH_START UINT64_C(0xcbf29ce484222325)

static inline uint64_t format_hash_byte(uint64_t hash, uint8_t byte)
{
    return (hash ^ byte) * UINT64_C(0x100000001b3);
}

/* Sorts; FORMAT_FOREIGN when two are equal. */
int format_check_distinct(uint64_t *hashes, size_t count);

struct segment_list {
    struct format_segment *at;
    size_t count, capacity;
};

/* Appends a copy. -ENOMEM leaves the list as it was. */
errint segment_list_append(struct segment_list *list, struct format_segment segment);
/* Appends the bytes from `from` to `to`, of which no more is known; nothing when there are none. */
errint segment_list_append_gap(struct segment_list *list, int64_t from, int64_t to);
/* Makes room for so many in all. */
errint segment_list_reserve(struct segment_list *list, size_t count);
void segment_list_release(struct segment_list *list);

#define cleanup_segment_list __attribute__((cleanup(segment_list_release)))

/* Writes at most size - 1 bytes and a NUL; control characters become '?'. `size` is at least 1. */
void format_print_name(const char *text, size_t length, char *name, size_t size);

/* The parsers. Each appends the segments of the whole source; on a failure what it appended means nothing. */
int safetensors_find(const struct format_source *source, struct segment_list *list);
int distcp_find(const struct format_source *source, struct segment_list *list, enum format_kind *kind);

/* The names. FORMAT_FOREIGN also when no tensor or entry is at the offset. */
int safetensors_name(const struct format_source *source, int64_t offset, char *name, size_t size);
int distcp_name(const struct format_source *source, int64_t offset, char *name, size_t size);

#endif
