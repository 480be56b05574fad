/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters of PEFT (peft/utils/save_and_load.py, 0.21). */
#include "ckpt/adapter.h"

#include <errno.h>
#include <string.h>

/* What PEFT calls an adapter that was given no name. */
#define ADAPTER_DEFAULT ".default"

/* Weights of the model that the adapter is for are called base_layer when both are saved. */
static bool adapter_is_name(const char *name)
{
    static const char prefix[] = "base_model.model.";
    return strncmp(name, prefix, sizeof prefix - 1) == 0 && !strstr(name, ".base_layer.");
}

/* The adapter's name in it, with the dot before; NULL: it has none. */
static char *adapter_find_own_name(char *name)
{
    char *found = strstr(name, ADAPTER_DEFAULT);
    char next = found ? found[sizeof ADAPTER_DEFAULT - 1] : 0;
    return found && (next == '.' || next == '\0') ? found : NULL;
}

static errint adapter_take_out_own_name(struct model *model, struct model_tensor *tensor)
{
    char *name = arena_copy_text(&model->arena, tensor->name, strlen(tensor->name));
    char *own = name ? adapter_find_own_name(name) : NULL;
    if (!name)
        return -ENOMEM;
    if (!own)
        return 0;
    memmove(own, own + sizeof ADAPTER_DEFAULT - 1, strlen(own + sizeof ADAPTER_DEFAULT - 1) + 1);
    if (!model_find_tensor(model, name))
        tensor->name = name;
    return 0;
}

errint adapter_mark(struct model *model)
{
    errint error = 0;
    for (size_t i = 0; i < model->tensor_count; i++) {
        if (!adapter_is_name(model->tensors[i].name))
            return 0;
    }
    if (model->tensor_count > 0)
        model->stem = "adapter_model";
    for (size_t i = 0; i < model->tensor_count && !error; i++)
        error = adapter_take_out_own_name(model, &model->tensors[i]);
    return error;
}
