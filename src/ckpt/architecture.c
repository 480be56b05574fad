/* SPDX-License-Identifier: Apache-2.0 */
/* The question to the library, and its answer. */
#include "ckpt/architecture.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Counts and sizes are sent as JSON numbers. */
#define ARCHITECTURE_NUMBER_MAX 1e15

/* -- the question -----------------------------------------------------------------------------------------
 */

static void architecture_print_text(struct text *out, const char *word)
{
    text_append_byte(out, '"');
    for (; *word; word++) {
        unsigned char byte = (unsigned char)*word;
        if (byte < 0x20)
            text_print(out, "\\u%04x", byte);
        else if (byte == '"' || byte == '\\')
            text_print(out, "\\%c", byte);
        else
            text_append_byte(out, byte);
    }
    text_append_byte(out, '"');
}

static void architecture_print_tensor(struct text *out, const struct model_tensor *tensor)
{
    text_append_byte(out, '[');
    architecture_print_text(out, tensor->name);
    text_print(out, ", \"%s\", [", tensor_type_name(tensor->type));
    for (uint32_t d = 0; d < tensor->shape.rank; d++)
        text_print(out, "%s%" PRId64, d > 0 ? ", " : "", tensor->shape.sizes[d]);
    text_append_word(out, "]]");
}

errint architecture_ask(const struct model *model, const char *config, size_t length, bool names_tied,
                        enum tensor_type type, struct text *out)
{
    bool first = true;
    text_print(out, "%zu\n", length);
    text_append(out, config, length);
    text_print(out, "{\"dtype\": \"%s\", \"tensors\": [", tensor_type_torch_name(type));
    for (size_t i = 0; i < model->tensor_count; i++) {
        if (model->tensors[i].tied && !names_tied)
            continue;
        text_append_word(out, first ? "" : ",\n");
        architecture_print_tensor(out, &model->tensors[i]);
        first = false;
    }
    text_append_word(out, "]}");
    return out->failed ? -ENOMEM : 0;
}

/* -- the answer -------------------------------------------------------------------------------------------
 */

/* What is read of it, and whether all that was asked for was there. */
struct architecture_answer {
    const cJSON *root;
    struct loadable *out;
    bool fine;
    errint error;
};

static const cJSON *architecture_get(struct architecture_answer *answer, const char *key,
                                     cJSON_bool (*is)(const cJSON *))
{
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(answer->root, key);
    answer->fine = answer->fine && is(found);
    return answer->fine ? found : NULL;
}

static int64_t architecture_get_count(struct architecture_answer *answer, const char *key)
{
    const cJSON *found = architecture_get(answer, key, cJSON_IsNumber);
    double number = found ? found->valuedouble : 0;
    answer->fine = answer->fine && number >= 0 && number <= ARCHITECTURE_NUMBER_MAX;
    return answer->fine ? (int64_t)number : 0;
}

/* "[3, 4]", into text[size]; false: it is no array of sizes. */
static bool architecture_print_sizes(const cJSON *sizes, char *text, size_t size)
{
    size_t length = (size_t)snprintf(text, size, "[");
    const cJSON *item;
    cJSON_ArrayForEach(item, sizes)
    {
        if (!cJSON_IsNumber(item) || item->valuedouble < 0 || item->valuedouble > ARCHITECTURE_NUMBER_MAX ||
            length + 24 >= size)
            return false;
        length += (size_t)snprintf(text + length, size - length, "%s%.0f", length > 1 ? ", " : "",
                                   item->valuedouble);
    }
    snprintf(text + length, size - length, "]");
    return cJSON_IsArray(sizes);
}

/* A name, or an object of a name and two shapes. */
static void architecture_read_item(struct architecture_answer *answer, struct loadable_list *list,
                                   const cJSON *item)
{
    char found[LOADABLE_TEXT_LENGTH], expected[LOADABLE_TEXT_LENGTH];
    const char *name = cJSON_GetStringValue(item);
    if (name) {
        answer->error = loadable_add(answer->out, list, "%s", name);
        return;
    }
    name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "name"));
    answer->fine =
        name &&
        architecture_print_sizes(cJSON_GetObjectItemCaseSensitive(item, "found"), found, sizeof found) &&
        architecture_print_sizes(cJSON_GetObjectItemCaseSensitive(item, "expected"), expected,
                                 sizeof expected);
    if (answer->fine)
        answer->error = loadable_add(answer->out, list, "%s is %s, expected %s", name, found, expected);
}

static void architecture_read_list(struct architecture_answer *answer, const char *key, const char *count_key,
                                   struct loadable_list *list)
{
    const cJSON *items = architecture_get(answer, key, cJSON_IsArray), *item;
    int64_t count = architecture_get_count(answer, count_key);
    cJSON_ArrayForEach(item, items)
    {
        if (answer->fine && !answer->error && list->listed < LOADABLE_LISTED)
            architecture_read_item(answer, list, item);
    }
    answer->fine = answer->fine && count >= (int64_t)list->listed && (count == 0 || list->listed > 0);
    list->count = count;
}

static void architecture_mark_kept(struct architecture_answer *answer, struct model *model)
{
    const cJSON *names = architecture_get(answer, "kept", cJSON_IsArray), *item;
    cJSON_ArrayForEach(item, names)
    {
        const char *name = cJSON_GetStringValue(item);
        struct model_tensor *tensor = name && model ? model_find_tensor(model, name) : NULL;
        if (tensor)
            tensor->keeps_type = true;
    }
}

static void architecture_read_verdict(struct architecture_answer *answer, struct model *kept)
{
    struct loadable *out = answer->out;
    architecture_read_list(answer, "missing", "missing_count", &out->missing);
    architecture_read_list(answer, "unexpected", "unexpected_count", &out->unexpected);
    architecture_read_list(answer, "mismatched", "mismatched_count", &out->mismatched);
    const cJSON *heads = architecture_get(answer, "only_heads", cJSON_IsBool);
    const cJSON *name = architecture_get(answer, "class", cJSON_IsString);
    const cJSON *library = architecture_get(answer, "library", cJSON_IsString);
    if (!answer->fine || answer->error)
        return;
    answer->error = loadable_say_against(out, "%s of %s", name->valuestring, library->valuestring);
    loadable_judge(out, cJSON_IsTrue(heads));
    architecture_mark_kept(answer, kept);
}

errint architecture_read(const char *text, size_t length, struct model *kept, struct loadable *out)
{
    cJSON *root = length <= ARCHITECTURE_ANSWER_MAX ? cJSON_ParseWithLength(text, length) : NULL;
    struct architecture_answer answer = {.root = root, .out = out, .fine = cJSON_IsObject(root)};
    const char *reason = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "reason"));
    if (reason)
        answer.error = loadable_say_reason(out, "%s", reason);
    else if (answer.fine)
        architecture_read_verdict(&answer, kept);
    if (!answer.fine && !answer.error) {
        out->missing = out->unexpected = out->mismatched = (struct loadable_list){0};
        out->against = NULL;
        answer.error = loadable_say_reason(out, "the library's answer is not understood");
    }
    cJSON_Delete(root);
    return answer.error;
}
