/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the known formats, built in memory byte by byte, so that a test can make each field lie; and a
 * source over such bytes that notices reads outside of them.
 */
#ifndef CKPTFS_TESTS_UNIT_FORMAT_FILES_H
#define CKPTFS_TESTS_UNIT_FORMAT_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/segments.h"

/* Starts as {0}; bytes_release. Ends the program when there is no memory. */
struct bytes {
    uint8_t *at;
    size_t count, capacity;
};

void bytes_put(struct bytes *bytes, const void *data, size_t length);
void bytes_fill(struct bytes *bytes, uint8_t value, size_t length);
void bytes_put_number(struct bytes *bytes, uint64_t value, unsigned width);
void bytes_set_number(struct bytes *bytes, size_t offset, uint64_t value, unsigned width);
void bytes_print(struct bytes *bytes, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bytes_release(struct bytes *bytes);

#define cleanup_bytes __attribute__((cleanup(bytes_release)))

/* The length of the header that follows, then the header, then `data` bytes. */
void safetensors_build(struct bytes *file, const char *header, size_t data);

/* One entry, with what it says about itself. */
struct archive_entry {
    const char *name;
    size_t size;
    const void *content; /* its bytes; NULL: some of the test's own */
    uint16_t method;
    bool no_crc32;  /* writes 0 */
    bool zip64;     /* sizes and offset are in the zip64 field */
    bool local;     /* sizes are in the local header and no descriptor follows */
    size_t header;  /* set when it is built: where its local header is */
    size_t data;    /* ... its data */
    size_t central; /* ... and its entry of the directory */
    uint32_t crc32;
};

/* An archive as torch writes it: each entry's data is aligned to 64 bytes of the archive. */
struct archive {
    struct archive_entry *entries; /* the test's */
    size_t count;
    bool no_zip64; /* leaves out the zip64 records */
    size_t start, directory, end64, end;
    struct archive_entry tensor[4]; /* what archive_build_tensor makes: such an archive is not copied */
};

/* Appends it to the file. Entries are in `archive`; the offsets in it are set. */
void archive_build(struct bytes *file, struct archive *archive);
/* The same of one tensor of `size` bytes. */
void archive_build_tensor(struct bytes *file, struct archive *archive, size_t size);

/* A source over bytes that end where the allocation ends. */
struct counted_source {
    struct format_source source;
    const struct bytes *bytes;
    unsigned reads, outside;
    unsigned fail_at; /* from this read on, counted from 1, all fail with -EIO; 0: none */
    uint64_t read_bytes;
};

void counted_source_open(struct counted_source *counted, const struct bytes *bytes);

/*
 * Finds the segments and checks what holds for any input: the segments cover the file, nothing outside of it
 * was read, every segment has a name. `out` has to be released.
 */
void format_check(const struct bytes *bytes, enum format_kind kind, struct format_segments *out);
/* The same where the kind is any. */
enum format_kind format_check_any(const struct bytes *bytes);

#endif
