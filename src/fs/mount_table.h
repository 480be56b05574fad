/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is mounted in this process's mount namespace, read from /proc/self/mountinfo. Never touches a mount,
 * so it cannot hang on a dead one.
 */
#ifndef CKPTFS_FS_MOUNT_TABLE_H
#define CKPTFS_FS_MOUNT_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

/* The type that every mount of this program has. */
#define MOUNT_TYPE "fuse.ckptfs"

struct mount_entry {
    char *source;     /* of ours: the store's absolute path */
    char *mountpoint; /* absolute */
    char *type;
    char *device; /* "0:52": the same for every copy of the mount, in every namespace */
};

/* In the kernel's order: a later entry with the same mountpoint hides an earlier one. */
struct mount_table {
    struct mount_entry *entries;
    size_t count;
};

/* The caller releases `out`, whatever this returns. */
errint mount_table_read(struct mount_table *out);
void mount_table_release(struct mount_table *table);
#define cleanup_mount_table __attribute__((cleanup(mount_table_release)))

/* The topmost mount at exactly this path, or NULL. */
const struct mount_entry *mount_table_find(const struct mount_table *table, const char *mountpoint);
/* The last mount of ours whose source is this store, or NULL. */
const struct mount_entry *mount_table_find_store(const struct mount_table *table, const char *store);
bool mount_entry_is_ours(const struct mount_entry *entry);

/*
 * The absolute path that `path` means, without asking the filesystem that is mounted there. When it cannot be
 * opened (*error_out tells why; 0 otherwise) it is made absolute as text. The caller frees it; NULL: no
 * memory.
 */
char *mount_table_resolve(const char *path, errint *error_out);

#endif
