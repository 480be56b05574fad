/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index over shards, as transformers writes it (modeling_utils.py, save_pretrained, 5.23): Python's
 * json.dumps(index, indent=2, sort_keys=True) and a newline.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "ckpt/assemble_internal.h"

struct assemble_index_row {
    const char *name;
    size_t shard;
};

static int assemble_compare_rows(const void *one, const void *other)
{
    const struct assemble_index_row *a = one, *b = other;
    return strcmp(a->name, b->name);
}

/* The code point at the start of valid UTF-8, and its length. */
static size_t assemble_decode(const char *at, uint32_t *code)
{
    uint8_t first = (uint8_t)*at;
    size_t size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    *code = size == 1 ? first : first & (0x7fU >> size);
    for (size_t i = 1; i < size; i++)
        *code = *code << 6 | ((uint8_t)at[i] & 0x3f);
    return size;
}

/* As Python's json does with ensure_ascii. */
static void assemble_append_ascii(struct text *text, const char *string)
{
    uint32_t code;
    text_append_byte(text, '"');
    for (const char *at = string; *at;) {
        at += assemble_decode(at, &code);
        const char *escape = code < 0x20 ? memchr("b\bf\fn\nr\rt\t", (int)code, 10) : NULL;
        if (escape)
            text_print(text, "\\%c", escape[-1]);
        else if (code == '"' || code == '\\')
            text_print(text, "\\%c", (char)code);
        else if (code >= 0x20 && code < 0x7f)
            text_append_byte(text, (uint8_t)code);
        else if (code < 0x10000)
            text_print(text, "\\u%04x", code);
        else
            text_print(text, "\\u%04x\\u%04x", 0xd7c0 + (code >> 10), 0xdc00 + (code & 0x3ff));
    }
    text_append_byte(text, '"');
}

/* Torch's files hold every name, safetensors' each tensor once. */
static size_t assemble_index_rows(const struct assemble_shard *all, struct assemble_index_row *rows)
{
    size_t count = 0;
    for (size_t i = 0; i < all->model->tensor_count; i++) {
        const struct model_tensor *tensor = &all->model->tensors[i];
        if (!tensor->tied || all->wish->format == ASSEMBLE_TORCH)
            rows[count++] =
                (struct assemble_index_row){.name = tensor->name, .shard = all->by_tensor[i]->shard};
    }
    qsort(rows, count, sizeof *rows, assemble_compare_rows);
    return count;
}

static void assemble_index_count(const struct assemble_shard *all, int64_t *parameters, int64_t *bytes)
{
    *parameters = *bytes = 0;
    for (size_t i = 0; i < all->model->tensor_count; i++) {
        if (all->model->tensors[i].tied)
            continue;
        *bytes += all->by_tensor[i]->bytes;
        if (!all->model->tensors[i].buffer)
            *parameters += all->by_tensor[i]->count;
    }
}

errint assemble_index(const struct assemble_shard *all, const char *const *names,
                      struct assemble_builder *builder)
{
    cleanup_text struct text text = {0};
    cleanup_free struct assemble_index_row *rows = calloc(all->model->tensor_count, sizeof *rows);
    int64_t parameters, bytes;
    if (!rows)
        return -ENOMEM;
    assemble_index_count(all, &parameters, &bytes);
    text_print(&text,
               "{\n  \"metadata\": {\n    \"total_parameters\": %" PRId64 ",\n    \"total_size\": %" PRId64
               "\n  },\n  \"weight_map\": {",
               parameters, bytes);
    size_t count = assemble_index_rows(all, rows);
    for (size_t i = 0; i < count; i++) {
        text_append_word(&text, i > 0 ? ",\n    " : "\n    ");
        assemble_append_ascii(&text, rows[i].name);
        text_print(&text, ": \"%s\"", names[rows[i].shard]);
    }
    text_append_word(&text, "\n  }\n}\n");
    return assemble_add_text(builder, &text);
}
