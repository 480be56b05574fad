/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters of PEFT (peft/utils/save_and_load.py, 0.21). */
#include "ckpt/adapter.h"

#include <string.h>

/* Weights of the model that the adapter is for are called base_layer when both are saved. */
static bool adapter_is_name(const char *name)
{
    static const char prefix[] = "base_model.model.";
    return strncmp(name, prefix, sizeof prefix - 1) == 0 && !strstr(name, ".base_layer.");
}

void adapter_mark(struct model *model)
{
    for (size_t i = 0; i < model->tensor_count; i++) {
        if (!adapter_is_name(model->tensors[i].name))
            return;
    }
    if (model->tensor_count > 0)
        model->stem = "adapter_model";
}
