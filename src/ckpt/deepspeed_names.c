/* SPDX-License-Identifier: Apache-2.0 */
/* The files of one tag, by their names. */
#include "ckpt/deepspeed.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* -- one name ---------------------------------------------------------------------------------------------
 */

static bool names_take(const char **at, const char *word)
{
    size_t length = strlen(word);
    if (strncmp(*at, word, length) != 0)
        return false;
    *at += length;
    return true;
}

/* Up to nine digits: a rank or a layer. */
static bool names_take_number(const char **at, int64_t *number)
{
    int64_t value = 0;
    size_t digits = 0;
    for (; **at >= '0' && **at <= '9' && digits < 9; digits++)
        value = value * 10 + (*(*at)++ - '0');
    *number = value;
    return digits > 0;
}

/* zero_pp_rank_DP_mp_rank_MP_... */
static bool names_parse_zero(const char *at, struct deepspeed_name *out)
{
    bool prefixed = names_take(&at, "bf16_") || names_take(&at, "fp16_");
    if (!names_take(&at, "zero_pp_rank_") || !names_take_number(&at, &out->dp) ||
        !names_take(&at, "_mp_rank_") || !names_take_number(&at, &out->mp))
        return false;
    if (strcmp(at, "_optim_states.pt") == 0)
        out->kind = DEEPSPEED_OPTIMIZER;
    else if (!prefixed && strcmp(at, "_model_states.pt") == 0)
        out->kind = DEEPSPEED_PARTITIONED;
    return out->kind != DEEPSPEED_NONE;
}

/* [layer_LAYER_]expert_N_mp_rank_MP_model_states.pt */
static bool names_parse_expert(const char *at, struct deepspeed_name *out)
{
    out->kind = DEEPSPEED_EXPERT;
    if (names_take(&at, "layer_") && (!names_take_number(&at, &out->layer) || !names_take(&at, "_")))
        return false;
    return names_take(&at, "expert_") && names_take_number(&at, &out->dp) && names_take(&at, "_mp_rank_") &&
           names_take_number(&at, &out->mp) && strcmp(at, "_model_states.pt") == 0;
}

/* layer_LAYER[-AXIS_MP]-model_states.pt; the axis is mostly called model. */
static bool names_parse_layer(const char *at, struct deepspeed_name *out)
{
    out->kind = DEEPSPEED_LAYER;
    if (!names_take(&at, "layer_") || !names_take_number(&at, &out->layer) || !names_take(&at, "-"))
        return false;
    if (strcmp(at, "model_states.pt") == 0)
        return true;
    while (*at != '_' && *at != '-' && *at)
        at++;
    return names_take(&at, "_") && names_take_number(&at, &out->mp) && strcmp(at, "-model_states.pt") == 0;
}

static bool names_parse_whole(const char *at, struct deepspeed_name *out)
{
    out->kind = DEEPSPEED_MODEL;
    return names_take(&at, "mp_rank_") && names_take_number(&at, &out->mp) &&
           strcmp(at, "_model_states.pt") == 0;
}

static bool names_parse_expert_optimizer(const char *at, struct deepspeed_name *out)
{
    out->kind = DEEPSPEED_EXPERT_OPTIMIZER;
    return names_take(&at, "expp_rank_") && names_take_number(&at, &out->dp) &&
           names_take(&at, "_mp_rank_") && names_take_number(&at, &out->mp) &&
           strcmp(at, "_optim_states.pt") == 0;
}

bool deepspeed_parse_name(const char *file, struct deepspeed_name *out)
{
    static bool (*const parsers[])(const char *at, struct deepspeed_name *out) = {
        names_parse_zero,
        names_parse_whole,
        names_parse_expert,
        names_parse_layer,
        names_parse_expert_optimizer,
    };
    for (size_t i = 0; i < sizeof parsers / sizeof *parsers; i++) {
        *out = (struct deepspeed_name){.file = file};
        if (parsers[i](file, out))
            return true;
    }
    return false;
}

/* -- all of a directory -----------------------------------------------------------------------------------
 */

static int names_compare(const void *a, const void *b)
{
    const struct deepspeed_name *one = a, *other = b;
    if (one->kind != other->kind)
        return one->kind < other->kind ? -1 : 1;
    if (one->mp != other->mp)
        return one->mp < other->mp ? -1 : 1;
    if (one->layer != other->layer)
        return one->layer < other->layer ? -1 : 1;
    if (one->dp != other->dp)
        return one->dp < other->dp ? -1 : 1;
    return strcmp(one->file, other->file);
}

int deepspeed_tag_read(const struct folder *folder, const char *path, struct model *model,
                       struct deepspeed_tag *out)
{
    *out = (struct deepspeed_tag){.folder = folder, .path = path, .model = model};
    struct folder_listing listing = {0};
    errint error = folder_read(folder, path, &listing);
    if (error)
        return error;
    out->listing = listing;
    out->names = calloc(listing.count + 1, sizeof *out->names);
    if (!out->names)
        return -ENOMEM;
    for (size_t i = 0; i < listing.count; i++) {
        if (!listing.at[i].directory &&
            deepspeed_parse_name(listing.at[i].name, &out->names[out->name_count]))
            out->name_count++;
    }
    qsort(out->names, out->name_count, sizeof *out->names, names_compare);
    return 0;
}

void deepspeed_tag_release(struct deepspeed_tag *tag)
{
    free(tag->names);
    folder_listing_release(&tag->listing);
    *tag = (struct deepspeed_tag){0};
}

const struct deepspeed_name *deepspeed_tag_find(const struct deepspeed_tag *tag, enum deepspeed_kind kind,
                                                size_t *count)
{
    size_t first = 0;
    while (first < tag->name_count && tag->names[first].kind != kind)
        first++;
    size_t end = first;
    while (end < tag->name_count && tag->names[end].kind == kind)
        end++;
    *count = end - first;
    return end > first ? &tag->names[first] : NULL;
}

const struct deepspeed_name *deepspeed_tag_find_rank(const struct deepspeed_tag *tag,
                                                     enum deepspeed_kind kind, int64_t mp, size_t *count)
{
    size_t all;
    const struct deepspeed_name *names = deepspeed_tag_find(tag, kind, &all);
    size_t first = 0;
    while (first < all && names[first].mp != mp)
        first++;
    size_t end = first;
    while (end < all && names[end].mp == mp)
        end++;
    *count = end - first;
    return end > first ? &names[first] : NULL;
}

/* -- all ranks --------------------------------------------------------------------------------------------
 */

static errint names_note_missing(const struct deepspeed_tag *tag, const struct deepspeed_name *like,
                                 size_t rank, size_t count, int64_t world_size, bool missing)
{
    const char *ending = like->kind == DEEPSPEED_OPTIMIZER ? "optim_states.pt" : "model_states.pt";
    int prefix = (int)(strstr(like->file, "zero_pp_rank_") - like->file);
    return model_add_note(tag->model, missing,
                          "%.*szero_pp_rank_%zu_mp_rank_%02" PRId64 "_%s is not here: the save had %" PRId64
                          " ranks, %zu files are there",
                          prefix, like->file, rank, like->mp, ending, world_size, count);
}

int deepspeed_tag_check_ranks(const struct deepspeed_tag *tag, const struct deepspeed_name *names,
                              size_t count, int64_t world_size, bool missing)
{
    size_t first = 0; /* the first that is not its rank's */
    while (first < count && names[first].dp == (int64_t)first)
        first++;
    if ((int64_t)count == world_size && first == count)
        return 0;
    errint error;
    if ((int64_t)first < world_size && (first == count || names[first].dp > (int64_t)first))
        error = names_note_missing(tag, &names[0], first, count, world_size, missing);
    else
        error = model_add_note(
            tag->model, missing, "%s is of another save: this one had %" PRId64 " ranks, %zu files are there",
            names[(int64_t)first < world_size ? first : (size_t)world_size].file, world_size, count);
    return error ? error : FORMAT_FOREIGN;
}
