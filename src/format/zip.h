/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zip archives as torch writes them (caffe2/serialize/inline_container.cc over miniz), and what else follows
 * APPNOTE.TXT closely: one disk, no comment, the directory straight before its end records.
 *
 * The directory is the truth and the local headers must agree with it: a file that two readers understand
 * differently is not understood here. An archive is found from its end, as its local headers need not say how
 * long their data is.
 */
#ifndef CKPTFS_FORMAT_ZIP_H
#define CKPTFS_FORMAT_ZIP_H

#include "format/window.h"

/* Offsets are in the source; an archive's own are relative to `start`. */
struct zip_archive {
    int64_t start, directory, directory_end, end;
    uint64_t count; /* entries, at most as many as the directory has room for */
};

struct zip_entry {
    int64_t header; /* offset of its local header; after zip_locate_data: of its data */
    int64_t size;   /* bytes as stored */
    uint64_t name;  /* hash */
    uint32_t crc32;
    uint16_t flags, method;
};

enum { ZIP_STORED = 0, ZIP_ENCRYPTED = 1 << 0, ZIP_DESCRIPTOR = 1 << 3 };

/* The archive that ends at `end`, judged by its end records alone. FORMAT_FOREIGN: none does. */
int zip_find_archive(const struct format_source *source, int64_t end, struct zip_archive *out);

/* Goes through a directory from its first entry; {0} before zip_directory_open. */
struct zip_directory {
    const struct zip_archive *archive;
    struct window entries, headers;
    int64_t at;
    uint64_t left;
    const char *name; /* of the entry that was read last; valid until the next */
    size_t name_length;
};

/* `archive` has to outlive the directory, which may be opened again for another one. -ENOMEM. */
errint zip_directory_open(struct zip_directory *directory, const struct format_source *source,
                          const struct zip_archive *archive);
void zip_directory_release(struct zip_directory *directory);

#define cleanup_zip_directory __attribute__((cleanup(zip_directory_release)))

/* The next entry, while directory->left is not 0. After the last one the directory has to be used up. */
int zip_directory_next(struct zip_directory *directory, struct zip_entry *entry);
/* The offset of an entry's data, from its local header, which has to agree. */
int zip_locate_data(struct zip_directory *directory, const struct zip_entry *entry, int64_t *data);

#endif
