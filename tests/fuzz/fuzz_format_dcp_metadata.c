/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a .metadata file: items whose boxes lie in their tensors, or one line that says why not. */
/* fuzz-sources: src/format src/base/arena.c src/base/grow.c src/base/name_table.c */
/* fuzz-libs: -lxxhash */
#include "format/dcp_metadata.h"

#include "fuzz_source.h"

static void fuzz_check_chunk(const struct dcp_metadata *metadata, const struct dcp_item *item,
                             const struct dcp_chunk *chunk)
{
    int64_t end;
    if (chunk->offset < 0 || chunk->length < 0 ||
        __builtin_add_overflow(chunk->offset, chunk->length, &end) ||
        (chunk->file != DCP_NO_FILE && chunk->file >= metadata->file_count))
        abort();
    for (uint32_t i = 0; i < item->shape.rank; i++) {
        if (chunk->starts[i] < 0 || chunk->sizes[i] < 0 ||
            chunk->sizes[i] > item->shape.sizes[i] - chunk->starts[i])
            abort();
    }
}

static void fuzz_check(const struct dcp_metadata *metadata)
{
    for (size_t i = 0; i < metadata->file_count; i++) {
        if (!dcp_metadata_is_file_name(metadata->files[i], strlen(metadata->files[i])))
            abort();
    }
    for (size_t i = 0; i < metadata->item_count; i++) {
        const struct dcp_item *item = &metadata->items[i];
        for (size_t k = 0; k < item->path_count; k++) {
            if (!item->path[k])
                abort();
        }
        if (!item->name || item->shape.rank > TENSOR_RANK_MAX ||
            (!item->is_tensor && item->chunk_count > 0) ||
            (!item->foreign_type && item->type >= TENSOR_TYPE_COUNT))
            abort();
        for (size_t k = 0; k < item->chunk_count; k++)
            fuzz_check_chunk(metadata, item, &item->chunks[k]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const struct format_source source = fuzz_source(&input);
    cleanup_dcp_metadata struct dcp_metadata metadata;
    struct format_problem problem = {0};
    int result = dcp_metadata_read(&source, &metadata, &problem);
    if (result < 0 || (result == 0) != (problem.text[0] == '\0'))
        abort();
    if (result == 0)
        fuzz_check(&metadata);
    return 0;
}
