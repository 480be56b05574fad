/* SPDX-License-Identifier: Apache-2.0 */
/* The type that a model is written as. */
#include "cmd/assemble_type.h"

#include <stdlib.h>
#include <string.h>

bool assemble_type_parse(const char *text, enum assemble_type_wish *wish, struct assemble_wish *form)
{
    static const struct {
        const char *name;
        enum tensor_type type;
    } names[] = {{"fp32", TENSOR_F32}, {"fp16", TENSOR_F16}, {"bf16", TENSOR_BF16}};
    *wish = ASSEMBLE_TYPE_KEEP;
    form->cast = false;
    for (size_t i = 0; i < sizeof names / sizeof *names && !form->cast; i++) {
        if (strcmp(text, names[i].name) == 0 || strcmp(text, tensor_type_torch_name(names[i].type)) == 0) {
            *wish = ASSEMBLE_TYPE_GIVEN;
            form->cast = true;
            form->type = names[i].type;
        }
    }
    return form->cast || strcmp(text, "keep") == 0;
}

bool assemble_type_parse_format(const char *text, struct assemble_wish *form)
{
    form->format = strcmp(text, "bin") == 0 ? ASSEMBLE_TORCH : ASSEMBLE_SAFETENSORS;
    return form->format == ASSEMBLE_TORCH || strcmp(text, "safetensors") == 0;
}

enum tensor_type assemble_type_most(const struct model *model, const struct assemble_wish *form)
{
    int64_t bytes[TENSOR_TYPE_COUNT] = {0};
    enum tensor_type most = TENSOR_F32;
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct model_tensor *tensor = &model->tensors[i];
        int64_t count, size;
        enum tensor_type type = form ? assemble_type_of(tensor, form) : tensor->type;
        if (tensor->tied || !tensor_count(&tensor->shape, &count) || !tensor_bytes(type, count, &size))
            continue;
        bytes[type] += size;
        if (bytes[type] > bytes[most])
            most = type;
    }
    return most;
}

bool assemble_type_follow_config(const struct model *model, const struct side_config *config,
                                 struct assemble_wish *form)
{
    enum tensor_type most = assemble_type_most(model, NULL), type = config->type;
    bool known = type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
    if (!config->has_type || config->quantized || !known || most == type || !model_can_cast(most, type) ||
        strcmp(model->stem, "adapter_model") == 0)
        return false;
    form->cast = true;
    form->type = type;
    return true;
}
