/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are open: of those the one that was not used for longest gives way. */
#include "ckpt/assemble_source.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"

/* The slot that has the file, else a free one or the oldest. */
static struct assemble_source *assemble_source_slot(struct assemble_sources *sources, uint32_t file)
{
    struct assemble_source *chosen = &sources->slots[0];
    for (size_t i = 0; i < ASSEMBLE_SOURCES_MAX; i++) {
        struct assemble_source *slot = &sources->slots[i];
        if (slot->used && slot->file == file)
            return slot;
        if (slot->used < chosen->used)
            chosen = slot;
    }
    return chosen;
}

errint assemble_source_get(struct assemble_sources *sources, uint32_t file, const struct format_source **out)
{
    const struct model_file *known = &sources->model->files[file];
    struct assemble_source *slot = assemble_source_slot(sources, file);
    if (!slot->used || slot->file != file) {
        if (slot->used)
            folder_close(sources->folder, &slot->source);
        slot->used = 0;
        errint error = folder_open(sources->folder, known->path, &slot->source);
        if (error) {
            log_error("%s: %s", known->path, strerror(-error));
            return error;
        }
        if (slot->source.size != known->size) {
            log_error("%s: changed meanwhile: it had %" PRId64 " bytes and has %" PRId64, known->path,
                      known->size, slot->source.size);
            folder_close(sources->folder, &slot->source);
            return -ESTALE;
        }
        slot->file = file;
    }
    slot->used = ++sources->clock;
    *out = &slot->source;
    return 0;
}

errint assemble_source_read(void *context, uint32_t file, void *buffer, size_t length, int64_t offset)
{
    struct assemble_sources *sources = context;
    const struct format_source *source;
    errint error = assemble_source_get(sources, file, &source);
    if (error)
        return error;
    error = source->read(source->context, buffer, length, offset);
    if (error)
        log_error("%s, offset %" PRId64 ": %s", sources->model->files[file].path, offset, strerror(-error));
    return error;
}

void assemble_sources_release(struct assemble_sources *sources)
{
    for (size_t i = 0; i < ASSEMBLE_SOURCES_MAX; i++) {
        if (sources->slots[i].used)
            folder_close(sources->folder, &sources->slots[i].source);
        sources->slots[i].used = 0;
    }
}
