/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors as its library writes it (safetensors/src/tensor.rs, prepare and serialize, 0.8): tensors in
 * descending order of their type, then by name; a compact header, padded with spaces.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/assemble_internal.h"

enum { SAFETENSORS_HEADER_MAX = 100000000, SAFETENSORS_LENGTH_SIZE = 8 };

static int assemble_compare_entries(const void *one, const void *other)
{
    const struct assemble_entry *a = *(const struct assemble_entry *const *)one;
    const struct assemble_entry *b = *(const struct assemble_entry *const *)other;
    if (a->type != b->type)
        return a->type > b->type ? -1 : 1;
    return strcmp(a->tensor->name, b->tensor->name);
}

/* As serde_json writes strings. */
static void assemble_append_string(struct text *text, const char *string)
{
    static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    text_append_byte(text, '"');
    for (const char *at = string; *at; at++) {
        uint8_t byte = (uint8_t)*at;
        const char *escape = NULL;
        for (const char *pair = shorts; *pair && !escape; pair += 2)
            escape = *pair == *at ? pair : NULL;
        if (escape) {
            text_append_byte(text, '\\');
            text_append_byte(text, (uint8_t)escape[1]);
        } else if (byte < 0x20) {
            text_print(text, "\\u%04x", byte);
        } else {
            text_append_byte(text, byte);
        }
    }
    text_append_byte(text, '"');
}

static void assemble_append_entry(struct text *text, const struct assemble_entry *entry, int64_t offset)
{
    const struct tensor_shape *shape = &entry->tensor->shape;
    text_append_byte(text, ',');
    assemble_append_string(text, entry->tensor->name);
    text_print(text, ":{\"dtype\":\"%s\",\"shape\":[", tensor_type_name(entry->type));
    for (uint32_t d = 0; d < shape->rank; d++)
        text_print(text, "%s%" PRId64, d > 0 ? "," : "", shape->sizes[d]);
    text_print(text, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", offset, offset + entry->bytes);
}

/* Spaces, so that the tensors' bytes start at a multiple of the alignment. */
static void assemble_pad_header(struct text *text, int64_t alignment)
{
    size_t unit = alignment > SAFETENSORS_LENGTH_SIZE ? (size_t)alignment : SAFETENSORS_LENGTH_SIZE;
    while (!text->failed && (text->length + SAFETENSORS_LENGTH_SIZE) % unit != 0)
        text_append_byte(text, ' ');
}

int assemble_safetensors(const struct assemble_shard *shard, struct assemble_builder *builder,
                         struct format_problem *problem)
{
    cleanup_text struct text header = {0};
    int64_t offset = 0;
    qsort(shard->entries, shard->count, sizeof *shard->entries, assemble_compare_entries);
    text_append_word(&header, "{\"__metadata__\":{\"format\":\"pt\"");
    for (size_t i = 0; i < shard->model->metadata_count; i++) {
        text_append_byte(&header, ',');
        assemble_append_string(&header, shard->model->metadata[i].key);
        text_append_byte(&header, ':');
        assemble_append_string(&header, shard->model->metadata[i].value);
    }
    text_append_byte(&header, '}');
    for (size_t i = 0; i < shard->count; i++) {
        const struct assemble_entry *entry = shard->entries[i];
        const char *name = entry->tensor->name;
        if (entry->type == TENSOR_C128 || strcmp(name, "__metadata__") == 0)
            return format_problem_set(problem, -1, "safetensors cannot hold %s, which is %s", name,
                                      tensor_type_torch_name(entry->type));
        assemble_append_entry(&header, entry, offset);
        offset += entry->bytes;
    }
    text_append_byte(&header, '}');
    assemble_pad_header(&header, shard->wish->alignment);
    if (header.length > SAFETENSORS_HEADER_MAX)
        return format_problem_set(
            problem, -1, "a header of %zu bytes, where safetensors allows %d: ask for smaller shards",
            header.length, SAFETENSORS_HEADER_MAX);
    cleanup_text struct text length = {0};
    text_append_number(&length, header.length, SAFETENSORS_LENGTH_SIZE);
    errint error = assemble_add_text(builder, &length);
    if (!error)
        error = assemble_add_text(builder, &header);
    for (size_t i = 0; i < shard->count && !error; i++)
        error = assemble_add_tensor(builder, shard->entries[i]);
    return error;
}
