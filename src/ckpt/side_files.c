/* SPDX-License-Identifier: Apache-2.0 */
/* Side files, by name; the type in config.json. */
#include "ckpt/side_files.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fnmatch.h>
#include <string.h>

/* config.json is written by hand too, but never large. */
enum { SIDE_CONFIG_MAX = 16 << 20 };

/*
 * Patterns of names. training_args.bin is not among them: no loader reads it, and it tells of the machine
 * that trained.
 */
static const char *const side_patterns[] = {
    "*config.json", /* config, generation_config, tokenizer_config, adapter_config, of processors */
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*tokenizer*.model",
    "*sentencepiece*.model",
    "spiece.model",
    "*.tiktoken",
    "*.jinja",
    "chat_template.json",
    "modules.json",
    "README.md",
    "LICENSE*",
    "*.py",
};

/* DeepSpeed's tools, which it puts beside every checkpoint. */
static const char *const side_tools[] = {"zero_to_fp32.py", "zero_to_torch.py"};

bool side_file_is(const char *name)
{
    for (size_t i = 0; i < sizeof side_tools / sizeof *side_tools; i++) {
        if (strcmp(side_tools[i], name) == 0)
            return false;
    }
    for (size_t i = 0; i < sizeof side_patterns / sizeof *side_patterns; i++) {
        if (fnmatch(side_patterns[i], name, FNM_PERIOD) == 0)
            return true;
    }
    return false;
}

/* The type that an object names; models of several parts name it in the part that writes text. */
static bool side_find_type(const cJSON *config, enum tensor_type *out)
{
    static const char *const keys[] = {"dtype", "torch_dtype"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(config, keys[i]));
        if (name && tensor_type_parse(name, strlen(name), out))
            return true;
    }
    const cJSON *inner = cJSON_GetObjectItemCaseSensitive(config, "text_config");
    return inner && side_find_type(inner, out);
}

errint side_config_read(const struct folder *folder, const struct folder_listing *listing,
                        struct side_config *out)
{
    static const char name[] = "config.json";
    cleanup_free char *text = NULL;
    size_t length;
    *out = (struct side_config){0};
    if (!folder_find(listing, name))
        return 0;
    errint error = folder_read_text(folder, name, SIDE_CONFIG_MAX, &text, &length);
    if (error)
        return error == -EFBIG || error == -EISDIR || error == -ENOENT ? 0 : error;
    cJSON *config = cJSON_ParseWithLength(text, length);
    if (cJSON_IsObject(config)) {
        out->found = true;
        out->has_type = side_find_type(config, &out->type);
        out->quantized = cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(config, "quantization_config"));
    }
    cJSON_Delete(config);
    return 0;
}
