/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters of PEFT beside their adapter_config.json (peft/tuners/lora, 0.19). */
#include "ckpt/adapter_config.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { ADAPTER_CONFIG_MAX = 16 << 20, ADAPTER_RANK_MAX = 1 << 20 };

#define ADAPTER_PREFIX "base_model.model."

void adapter_config_release(struct adapter_config *config)
{
    free(config->base);
    *config = (struct adapter_config){0};
}

static bool adapter_config_has(const cJSON *root, const char *key)
{
    return cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(root, key)) > 0;
}

static errint adapter_config_parse(const cJSON *root, struct adapter_config *out)
{
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "peft_type"));
    const char *base =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "base_model_name_or_path"));
    const cJSON *rank = cJSON_GetObjectItemCaseSensitive(root, "r");
    out->found = true;
    /* Those of parameters have other shapes. */
    out->lora = type && strcmp(type, "LORA") == 0 && !adapter_config_has(root, "target_parameters");
    out->patterns = adapter_config_has(root, "rank_pattern");
    if (cJSON_IsNumber(rank) && rank->valuedouble >= 1 && rank->valuedouble <= ADAPTER_RANK_MAX)
        out->rank = (int64_t)rank->valuedouble;
    if (base && *base)
        out->base = strdup(base);
    return base && *base && !out->base ? -ENOMEM : 0;
}

errint adapter_config_read(const struct folder *folder, const struct folder_listing *listing,
                           struct adapter_config *out)
{
    static const char name[] = "adapter_config.json";
    cleanup_free char *text = NULL;
    size_t length;
    *out = (struct adapter_config){0};
    if (!folder_find(listing, name))
        return 0;
    errint error = folder_read_text(folder, name, ADAPTER_CONFIG_MAX, &text, &length);
    if (error)
        return error == -EFBIG || error == -EISDIR || error == -ENOENT ? 0 : error;
    cJSON *root = cJSON_ParseWithLength(text, length);
    error = cJSON_IsObject(root) ? adapter_config_parse(root, out) : 0;
    cJSON_Delete(root);
    return error;
}

/* -- checking ---------------------------------------------------------------------------------------------
 */

/* The halves of a pair: their endings, and where the rank is in the shape. */
static const struct adapter_half {
    const char *ending, *other;
    uint32_t rank_at;
} adapter_halves[] = {
    {".lora_A.weight", ".lora_B.weight", 0},
    {".lora_B.weight", ".lora_A.weight", 1},
    {".lora_embedding_A", ".lora_embedding_B", 0},
    {".lora_embedding_B", ".lora_embedding_A", 1},
};

struct adapter_check {
    const struct adapter_config *config;
    const struct model *adapter, *base;
    const char *base_prefix;
    struct loadable *out;
};

static const struct adapter_half *adapter_find_half(const char *name, size_t *stem)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof adapter_halves / sizeof *adapter_halves; i++) {
        size_t ending = strlen(adapter_halves[i].ending);
        if (length > ending && strcmp(name + length - ending, adapter_halves[i].ending) == 0) {
            *stem = length - ending;
            return &adapter_halves[i];
        }
    }
    return NULL;
}

static const struct model_tensor *adapter_find_base(const struct adapter_check *check, const char *name,
                                                    size_t stem, const char *ending)
{
    size_t prefix = strlen(ADAPTER_PREFIX), size = stem + strlen(ending) + 1;
    cleanup_free char *inner = stem > prefix ? malloc(size) : NULL;
    if (!inner)
        return NULL;
    snprintf(inner, size, "%.*s%s", (int)(stem - prefix), name + prefix, ending);
    return loadable_find(check->base, check->base_prefix, check->base_prefix, inner);
}

/* The first two sizes of the base's weight are the pair's outer ones; some classes keep theirs transposed. */
static bool adapter_fits(const struct model_tensor *weight, int64_t in, int64_t out)
{
    if (weight->shape.rank < 2 || !model_can_cast(weight->type, TENSOR_F32))
        return true; /* packed by a quantizer, say: nothing is known */
    const int64_t *sizes = weight->shape.sizes;
    return (sizes[0] == out && sizes[1] == in) || (sizes[0] == in && sizes[1] == out);
}

static errint adapter_check_base(const struct adapter_check *check, const struct model_tensor *a,
                                 const struct model_tensor *b, size_t stem)
{
    const struct model_tensor *weight = adapter_find_base(check, a->name, stem, ".weight");
    struct loadable *out = check->out;
    if (!weight)
        return loadable_add(out, &out->mismatched, "%s is for a module that the base model lacks", a->name);
    if (adapter_fits(weight, a->shape.sizes[1], b->shape.sizes[0]))
        return 0;
    return loadable_add(
        out, &out->mismatched,
        "%s is for %" PRId64 " x %" PRId64 ", the base model's weight is %" PRId64 " x %" PRId64, a->name,
        b->shape.sizes[0], a->shape.sizes[1], weight->shape.sizes[0], weight->shape.sizes[1]);
}

static errint adapter_check_half(const struct adapter_check *check, const struct model_tensor *tensor,
                                 const struct adapter_half *half, size_t stem)
{
    struct loadable *out = check->out;
    size_t size = stem + strlen(half->other) + 1;
    cleanup_free char *name = malloc(size);
    if (!name)
        return -ENOMEM;
    snprintf(name, size, "%.*s%s", (int)stem, tensor->name, half->other);
    const struct model_tensor *other = model_find_tensor(check->adapter, name);
    if (!other)
        return loadable_add(out, &out->missing, "%s", name);
    if (tensor->shape.rank < 2)
        return loadable_add(out, &out->mismatched, "%s has %u dimensions", tensor->name, tensor->shape.rank);
    int64_t rank = tensor->shape.sizes[half->rank_at];
    if (!check->config->patterns && check->config->rank > 0 && rank != check->config->rank)
        return loadable_add(out, &out->mismatched, "%s has rank %" PRId64 ", expected %" PRId64, tensor->name,
                            rank, check->config->rank);
    if (half->rank_at != 0 || other->shape.rank < 2)
        return 0; /* the other half tells the rest */
    if (rank != other->shape.sizes[1])
        return loadable_add(out, &out->mismatched, "%s has rank %" PRId64 ", its other half %" PRId64,
                            tensor->name, rank, other->shape.sizes[1]);
    return check->base ? adapter_check_base(check, tensor, other, stem) : 0;
}

/* A module that was trained whole: as in the base model, if that has it. */
static errint adapter_check_whole(const struct adapter_check *check, const struct model_tensor *tensor)
{
    struct loadable *out = check->out;
    const struct model_tensor *weight =
        check->base ? adapter_find_base(check, tensor->name, strlen(tensor->name), "") : NULL;
    if (!weight || tensor_shape_equal(&weight->shape, &tensor->shape))
        return 0;
    return loadable_add(out, &out->mismatched, "%s has another shape than in the base model", tensor->name);
}

static errint adapter_check_all(const struct adapter_check *check)
{
    errint error = 0;
    for (size_t i = 0; i < check->adapter->tensor_count && !error; i++) {
        const struct model_tensor *tensor = &check->adapter->tensors[i];
        size_t stem;
        const struct adapter_half *half = adapter_find_half(tensor->name, &stem);
        error = half ? adapter_check_half(check, tensor, half, stem) : adapter_check_whole(check, tensor);
    }
    return error;
}

errint adapter_config_check(const struct adapter_config *config, const struct model *adapter,
                            const struct model *base, const char *base_name, struct loadable *out)
{
    struct adapter_check check = {.config = config, .adapter = adapter, .base = base, .out = out};
    if (!config->found)
        return loadable_say_reason(out, "no adapter_config.json is there");
    if (!config->lora)
        return loadable_say_reason(out, "it is an adapter of another kind than LoRA of modules");
    check.base_prefix = base ? loadable_prefix(base, &out->arena) : "";
    errint error = check.base_prefix ? adapter_check_all(&check) : -ENOMEM;
    if (error)
        return error;
    loadable_judge(out, false);
    if (base)
        return loadable_say_against(out, "adapter_config.json and %s", base_name);
    if (out->state == LOADABLE_NO)
        return loadable_say_against(out, "adapter_config.json");
    out->state = LOADABLE_NOT_CHECKED;
    return 0;
}
