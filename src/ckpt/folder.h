/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory that a checkpoint lies in, as those read it who know neither a disk nor a mount: names, and
 * files as sources of bytes. `folder_plain` makes one of a directory on any disk; the mounted filesystem has
 * its own.
 *
 * Paths are relative to the folder, with '/' between components; "" is the folder itself. A path with an
 * empty component, "." or "..", or one that starts with '/', is refused with -EINVAL before it reaches the
 * disk: names that come out of files are given to these calls as they are.
 */
#ifndef CKPTFS_CKPT_FOLDER_H
#define CKPTFS_CKPT_FOLDER_H

#include <stdbool.h>

#include "format/source.h"

struct folder_entry {
    const char *name;
    bool directory;
    int64_t size; /* of a regular file; what is neither is not listed */
    int64_t time; /* of its last change (mtime), ns since the epoch; 0: not known */
};

struct folder {
    void *context;
    /* Calls `visit` for each entry until it returns false, in any order. */
    errint (*list)(void *context, const char *path,
                   bool (*visit)(void *visit_context, const struct folder_entry *entry), void *visit_context);
    /* -ENOENT, -EISDIR; else the caller gives it to `close`. The source reads what was opened, whatever
     * becomes of the name; a read behind the end is -EIO. */
    errint (*open)(void *context, const char *path, struct format_source *out);
    void (*close)(void *context, struct format_source *source);
    /* Whether bytes of the file, all or some, were given up for their space: they cannot be read. NULL: of
     * none. */
    bool (*is_shed)(void *context, const char *path);
};

/* Whether the path may be given to a folder: it cannot lead out of it. */
bool folder_path_is_safe(const char *path);

/* The same calls, with the path checked first. Thread-safe as far as the folder is. */
errint folder_list(const struct folder *folder, const char *path,
                   bool (*visit)(void *visit_context, const struct folder_entry *entry), void *visit_context);
errint folder_open(const struct folder *folder, const char *path, struct format_source *out);
void folder_close(const struct folder *folder, struct format_source *source);
bool folder_is_shed(const struct folder *folder, const char *path);

/* The order of listings: numbers in names count as numbers (rank 2 before rank 10). As strcmp. */
int folder_compare_names(const char *one, const char *other);

/* All entries of one directory, sorted by name. The caller gives it to folder_listing_release when 0 came
 * back. */
struct folder_listing {
    struct folder_entry *at;
    size_t count;
};
errint folder_read(const struct folder *folder, const char *path, struct folder_listing *out);
void folder_listing_release(struct folder_listing *listing);
const struct folder_entry *folder_find(const struct folder_listing *listing, const char *name);

/* A whole small file, with a NUL behind it; -EFBIG over `limit` bytes. The caller frees *out. */
errint folder_read_text(const struct folder *folder, const char *path, size_t limit, char **out,
                        size_t *length);

/*
 * A directory on a disk, or a file there: then a folder that holds it alone. Symbolic links are followed.
 * -errno of open(2). The caller gives it to folder_plain_release when 0 came back. Thread-safe.
 */
errint folder_plain(const char *path, struct folder *out);
/*
 * A directory in whose path no symbolic link may be (-ELOOP), and none of whose entries that are ones is
 * seen: for whoever may read more than the directory's owner. -ENOSYS before Linux 5.6.
 */
errint folder_plain_strict(const char *path, struct folder *out);
void folder_plain_release(struct folder *folder);
/* The descriptor of its directory, which stays the folder's. */
int folder_plain_directory(const struct folder *folder);
/* The descriptor that a source of folder_plain reads from, still the source's; -1: it is not from there. */
int folder_plain_descriptor(const struct format_source *source);

#define cleanup_folder_listing __attribute__((cleanup(folder_listing_release)))
#define cleanup_folder_plain   __attribute__((cleanup(folder_plain_release)))

#endif
