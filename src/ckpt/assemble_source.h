/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a model, opened when they are needed, a limited number at a time: there may be more shards
 * than descriptors.
 */
#ifndef CKPTFS_CKPT_ASSEMBLE_SOURCE_H
#define CKPTFS_CKPT_ASSEMBLE_SOURCE_H

#include "ckpt/folder.h"
#include "ckpt/model.h"

enum { ASSEMBLE_SOURCES_MAX = 256 };

/* Of one thread; starts with the first two filled in. */
struct assemble_sources {
    const struct model *model;
    const struct folder *folder;
    struct assemble_source {
        struct format_source source;
        uint32_t file;
        uint64_t used; /* when; 0: the slot is free */
    } slots[ASSEMBLE_SOURCES_MAX];
    uint64_t clock;
};

/*
 * The opened file; valid until the next call. A file that is gone, or has another size than the model knows,
 * is an error that is logged: -ENOENT, -ESTALE, ...
 */
errint assemble_source_get(struct assemble_sources *sources, uint32_t file, const struct format_source **out);
/* An assemble_read (ckpt/assemble.h) over them. */
errint assemble_source_read(void *context, uint32_t file, void *buffer, size_t length, int64_t offset);
void assemble_sources_release(struct assemble_sources *sources);

#endif
