/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of whole files. */
#include "fs/checksum.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "fs/content.h"
#include "fs/filesystem.h"
#include "meta/checksum.h"

_Static_assert((int)SHA256_BYTES == (int)META_SUM_BYTES, "what is kept is what was computed");

/* A file as it was at one time. */
struct checksum_view {
    bool fixed; /* nobody can write it, and it has a basis */
    bool dirty;
    uint8_t basis[SHA256_BYTES];
    uint64_t changes; /* the node's */
    uint64_t damage;  /* changes of the record of damage */
};

static void checksum_see(void *context, const void *bytes, size_t length)
{
    sha256_add(context, bytes, length);
}

static errint checksum_find_basis(struct filesystem *fs, uint64_t ino, struct checksum_view *view)
{
    cleanup_sha256 struct sha256 *basis = NULL;
    errint error = sha256_begin(&basis);
    if (!error)
        error = meta_checksum_basis(fs->meta, ino, checksum_see, basis);
    if (!error)
        error = sha256_end(basis, view->basis);
    view->fixed = !error;
    return error == -ENODATA ? 0 : error;
}

static errint checksum_look(struct filesystem *fs, struct node *node, struct checksum_view *view)
{
    *view = (struct checksum_view){.damage = atomic_load(&fs->damage.changes)};
    node_lock(node);
    errint error = node_load(fs, node);
    view->changes = node->changes;
    view->dirty = node->dirty;
    bool closed = !error && node->kind == META_EXTENTS && node->writers == 0 && !node->overlay;
    if (closed)
        error = checksum_find_basis(fs, node->ino, view);
    node_unlock(node);
    return error;
}

static errint checksum_read(struct filesystem *fs, struct node *node, bool (*stops)(void *context),
                            void *context, uint8_t sum[SHA256_BYTES])
{
    cleanup_sha256 struct sha256 *state = NULL;
    cleanup_free char *buffer = aligned_alloc(CONTENT_ALIGNMENT, FS_MAX_WRITE + 2 * CONTENT_ALIGNMENT);
    errint error = buffer ? fault_hit("fs.checksum") : -ENOMEM;
    if (!error)
        error = sha256_begin(&state);
    int64_t offset = 0;
    while (!error) {
        char *data;
        if (stops(context))
            return -ECANCELED;
        ssize_t got = content_read(fs, node, buffer, FS_MAX_WRITE, offset, &data);
        if (got == 0)
            return sha256_end(state, sum);
        if (got < 0)
            return (errint)got;
        sha256_add(state, data, (size_t)got);
        offset += got;
    }
    return error;
}

static bool checksum_is_same(const struct checksum_view *a, const struct checksum_view *b)
{
    return a->fixed && b->fixed && a->changes == b->changes && a->damage == b->damage &&
           memcmp(a->basis, b->basis, sizeof a->basis) == 0;
}

/* What cannot be kept is computed again. */
static void checksum_keep(struct filesystem *fs, struct node *node, const struct checksum_view *before,
                          const uint8_t sum[SHA256_BYTES])
{
    struct checksum_view after;
    if (!before->fixed || fs->options->read_only || atomic_load(&fs->disk_full))
        return;
    errint error = checksum_look(fs, node, &after);
    if (!error && checksum_is_same(before, &after) && !after.dirty)
        error = meta_checksum_put(fs->meta, node->ino, before->basis, sum);
    if (error && error != -ENOENT)
        log_warning("inode %llu: its checksum is not kept: %s", (unsigned long long)node->ino,
                    strerror(-error));
}

static errint checksum_node(struct filesystem *fs, struct node *node, bool (*stops)(void *context),
                            void *context, uint8_t sum[SHA256_BYTES])
{
    struct checksum_view view;
    errint error = checksum_look(fs, node, &view);
    if (error)
        return error;
    error = view.fixed ? meta_checksum_get(fs->meta, node->ino, view.basis, sum) : -ENODATA;
    if (error != -ENODATA)
        return error;
    error = checksum_read(fs, node, stops, context, sum);
    if (!error)
        checksum_keep(fs, node, &view, sum);
    return error;
}

errint checksum_file(struct filesystem *fs, uint64_t ino, bool (*stops)(void *context), void *context,
                     uint8_t sum[SHA256_BYTES])
{
    struct node *node = node_get(fs, ino);
    if (!node)
        return -ENOMEM;
    errint error = checksum_node(fs, node, stops, context, sum);
    node_put(fs, node);
    return error;
}
