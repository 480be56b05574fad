/* SPDX-License-Identifier: Apache-2.0 */
/* Tied weights: found by their names, and proven by their bytes. */
#include "ckpt/tied.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { TIED_BLOCK = 1 << 20, TIED_CONFIG_MAX = 1 << 20, TIED_CANDIDATES_MAX = 64 };

/* How the name of an output layer ends, and that of what it may be tied to. */
static const struct {
    const char *output, *input;
} tied_names[] = {
    {"lm_head.weight", "embed_tokens.weight"},
    {"lm_head.weight", "wte.weight"},
    {"lm_head.weight", "shared.weight"},
    {"lm_head.weight", "embeddings.weight"},
    {"lm_head.weight", "word_embeddings.weight"},
    {"embed_out.weight", "embed_in.weight"},
    {"proj_out.weight", "embed_tokens.weight"},
    {"output_projection.weight", "embed_tokens.weight"},
    {"encoder.embed_tokens.weight", "shared.weight"},
    {"decoder.embed_tokens.weight", "shared.weight"},
    {"decoder.weight", "word_embeddings.weight"},
    {"decoder.weight", "tok_embeddings.weight"},
    {"cls.predictions.decoder.bias", "cls.predictions.bias"},
    {"lm_head.decoder.bias", "lm_head.bias"},
};

enum { TIED_NAMES = sizeof tied_names / sizeof *tied_names };

/* Whole components at the end. */
static bool tied_ends_with(const char *name, const char *end)
{
    size_t name_length = strlen(name), length = strlen(end);
    return name_length >= length && strcmp(name + name_length - length, end) == 0 &&
           (name_length == length || name[name_length - length - 1] == '.');
}

errint tied_is_ruled_out(const struct folder *folder, bool *out)
{
    cleanup_free char *text = NULL;
    size_t length;
    *out = false;
    errint error = folder_read_text(folder, TIED_CONFIG_NAME, TIED_CONFIG_MAX, &text, &length);
    if (error)
        return error == -ENOMEM ? error : 0;
    cJSON *config = cJSON_ParseWithLength(text, length);
    *out = cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(config, "tie_word_embeddings"));
    cJSON_Delete(config);
    return 0;
}

/* What comparing needs. */
struct tied_search {
    const struct folder *folder;
    struct model *model;
    uint8_t *buffers; /* two of TIED_BLOCK bytes */
    int64_t left;     /* bytes that are still compared: a few times what the files have */
};

/* -- comparing --------------------------------------------------------------------------------------------
 */

static bool tied_numbers_are_equal(const int64_t *a, const int64_t *b, uint32_t rank)
{
    if (!a || !b || rank == 0)
        return a == b || rank == 0;
    return memcmp(a, b, rank * sizeof *a) == 0;
}

/* The elements of a piece that lies without gaps; false: it does not, or it says something impossible. */
static bool tied_piece_count(const struct model_piece *piece, uint32_t rank, int64_t *count)
{
    *count = piece->count;
    return !piece->strides &&
           (!piece->starts || tensor_count(&(struct tensor_shape){rank, piece->sizes}, count));
}

/* Whether both are cut the same way, so that equal bytes mean equal tensors. */
static bool tied_are_alike(const struct model_tensor *a, const struct model_tensor *b)
{
    if (a->type != b->type || a->stored != b->stored || !tensor_shape_equal(&a->shape, &b->shape) ||
        a->piece_count != b->piece_count || a->piece_count == 0)
        return false;
    for (size_t i = 0; i < a->piece_count; i++) {
        const struct model_piece *one = &a->pieces[i], *other = &b->pieces[i];
        uint32_t rank = a->shape.rank;
        int64_t count;
        if (!tied_piece_count(one, rank, &count) || other->strides || !one->starts != !other->starts ||
            !tied_numbers_are_equal(one->starts, other->starts, rank) ||
            !tied_numbers_are_equal(one->sizes, other->sizes, rank) ||
            (!one->starts && (one->first != other->first || one->count != other->count)))
            return false;
    }
    return true;
}

static errint tied_compare_ranges(struct tied_search *search, const struct format_source *a, int64_t a_offset,
                                  const struct format_source *b, int64_t b_offset, int64_t length,
                                  bool *equal)
{
    uint8_t *first = search->buffers, *second = search->buffers + TIED_BLOCK;
    *equal = a_offset >= 0 && b_offset >= 0 && a_offset <= a->size && b_offset <= b->size &&
             length <= a->size - a_offset && length <= b->size - b_offset;
    for (int64_t done = 0; *equal && done < length;) {
        size_t step = length - done < TIED_BLOCK ? (size_t)(length - done) : TIED_BLOCK;
        errint error = a->read(a->context, first, step, a_offset + done);
        if (!error)
            error = b->read(b->context, second, step, b_offset + done);
        if (error)
            return error;
        done += (int64_t)step;
        search->left -= (int64_t)step;
        *equal = search->left > 0 && memcmp(first, second, step) == 0;
    }
    return 0;
}

static errint tied_compare_pieces(struct tied_search *search, const struct model_piece *one,
                                  const struct model_piece *other, int64_t length, bool *equal)
{
    struct format_source a, b;
    const struct model_file *files = search->model->files;
    errint error = folder_open(search->folder, files[one->file].path, &a);
    if (error)
        return error;
    error = folder_open(search->folder, files[other->file].path, &b);
    if (!error) {
        error = tied_compare_ranges(search, &a, one->offset, &b, other->offset, length, equal);
        folder_close(search->folder, &b);
    }
    folder_close(search->folder, &a);
    return error;
}

static errint tied_compare(struct tied_search *search, const struct model_tensor *one,
                           const struct model_tensor *other, bool *equal)
{
    errint error = 0;
    *equal = tied_are_alike(one, other);
    for (size_t i = 0; i < one->piece_count && *equal && !error; i++) {
        int64_t count, length;
        *equal = tied_piece_count(&one->pieces[i], one->shape.rank, &count) &&
                 tensor_bytes(one->stored, count, &length);
        if (*equal && length > 0)
            error = tied_compare_pieces(search, &one->pieces[i], &other->pieces[i], length, equal);
    }
    return error;
}

/* -- pairs ------------------------------------------------------------------------------------------------
 */

struct tied_candidates {
    struct model_tensor *at[TIED_CANDIDATES_MAX];
    size_t count;
};

/* The tensors whose names end like an output's or an input's, whichever is asked for. */
static void tied_find_candidates(struct model *model, bool output, struct tied_candidates *found)
{
    found->count = 0;
    for (size_t i = 0; i < model->tensor_count && found->count < TIED_CANDIDATES_MAX; i++) {
        struct model_tensor *tensor = &model->tensors[i];
        bool fits = false;
        for (size_t row = 0; row < TIED_NAMES && !fits; row++)
            fits = tied_ends_with(tensor->name, output ? tied_names[row].output : tied_names[row].input);
        if (fits && !tensor->tied)
            found->at[found->count++] = tensor;
    }
}

static bool tied_is_among(const struct model_tensor *tensor, const struct tied_candidates *candidates)
{
    for (size_t i = 0; i < candidates->count; i++) {
        if (candidates->at[i] == tensor)
            return true;
    }
    return false;
}

static bool tied_is_pair(const struct model_tensor *output, const struct model_tensor *input)
{
    if (output == input || input->tied)
        return false;
    for (size_t row = 0; row < TIED_NAMES; row++) {
        if (tied_ends_with(output->name, tied_names[row].output) &&
            tied_ends_with(input->name, tied_names[row].input))
            return true;
    }
    return false;
}

static errint tied_mark_output(struct tied_search *search, struct model_tensor *output,
                               const struct tied_candidates *inputs)
{
    for (size_t i = 0; i < inputs->count; i++) {
        bool equal = false;
        if (!tied_is_pair(output, inputs->at[i]))
            continue;
        errint error = tied_compare(search, output, inputs->at[i], &equal);
        if (error)
            return error;
        if (!equal)
            continue;
        output->tied = inputs->at[i]->name;
        return model_add_note(search->model, false, "%s is tied to %s: it has the same bytes", output->name,
                              output->tied);
    }
    return 0;
}

errint tied_mark(const struct folder *folder, struct model *model)
{
    struct tied_candidates outputs, inputs;
    tied_find_candidates(model, true, &outputs);
    tied_find_candidates(model, false, &inputs);
    if (outputs.count == 0 || inputs.count == 0)
        return 0;
    bool ruled_out;
    errint error = tied_is_ruled_out(folder, &ruled_out);
    if (error || ruled_out || model->untied)
        return error;
    cleanup_free uint8_t *buffers = malloc((size_t)2 * TIED_BLOCK);
    if (!buffers)
        return -ENOMEM;
    struct tied_search search = {.folder = folder, .model = model, .buffers = buffers, .left = 1};
    for (size_t i = 0; i < model->file_count; i++)
        search.left += model->files[i].size < INT64_MAX / 8 - search.left ? 4 * model->files[i].size : 0;
    /* An embedding that is tied to another is no one's input: those first. */
    for (unsigned pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < outputs.count && !error; i++) {
            if (tied_is_among(outputs.at[i], &inputs) == (pass == 0))
                error = tied_mark_output(&search, outputs.at[i], &inputs);
        }
    }
    return error;
}
