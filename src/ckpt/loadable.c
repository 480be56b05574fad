/* SPDX-License-Identifier: Apache-2.0 */
/* The verdict on a model, in words; a model compared with another. */
#include "ckpt/loadable.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Texts and the tables of prefixes. */
enum { LOADABLE_MEMORY = 1 << 20 };

void loadable_begin(struct loadable *loadable)
{
    *loadable = (struct loadable){.arena = {.limit = LOADABLE_MEMORY}};
}

void loadable_release(struct loadable *loadable)
{
    arena_release(&loadable->arena);
    *loadable = (struct loadable){0};
}

/* -- what is said -----------------------------------------------------------------------------------------
 */

static const char *loadable_format(struct loadable *loadable, const char *format, va_list arguments)
{
    char text[LOADABLE_TEXT_LENGTH + 1];
    if (vsnprintf(text, sizeof text, format, arguments) < 0)
        return NULL;
    return arena_copy_text(&loadable->arena, text, strlen(text));
}

errint loadable_add(struct loadable *loadable, struct loadable_list *list, const char *format, ...)
{
    list->count++;
    if (list->listed == LOADABLE_LISTED)
        return 0;
    va_list arguments;
    va_start(arguments, format);
    const char *text = loadable_format(loadable, format, arguments);
    va_end(arguments);
    if (text)
        list->at[list->listed++] = text;
    return text ? 0 : -ENOMEM;
}

errint loadable_say_against(struct loadable *loadable, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    loadable->against = loadable_format(loadable, format, arguments);
    va_end(arguments);
    return loadable->against ? 0 : -ENOMEM;
}

errint loadable_say_reason(struct loadable *loadable, const char *format, ...)
{
    const char *before = loadable->reason;
    va_list arguments;
    va_start(arguments, format);
    const char *reason = loadable_format(loadable, format, arguments);
    va_end(arguments);
    loadable->state = LOADABLE_NOT_CHECKED;
    if (reason && before) {
        size_t size = strlen(before) + strlen(reason) + 3;
        char *both = arena_take(&loadable->arena, size);
        if (both)
            snprintf(both, size, "%s; %s", before, reason);
        reason = both;
    }
    loadable->reason = reason ? reason : before;
    return reason ? 0 : -ENOMEM;
}

void loadable_judge(struct loadable *loadable, bool only_heads)
{
    if (loadable->mismatched.count > 0 || (loadable->missing.count > 0 && !only_heads))
        loadable->state = LOADABLE_NO;
    else
        loadable->state = loadable->missing.count > 0 ? LOADABLE_PARTLY : LOADABLE_YES;
}

const char *loadable_state_name(enum loadable_state state)
{
    static const char *const names[] = {"not checked", "yes", "in part", "no"};
    return names[state];
}

static void loadable_print_list(const struct loadable_list *list, struct text *text)
{
    for (size_t i = 0; i < list->listed; i++) {
        text_append_word(text, i > 0 ? ", " : "");
        text_append_word(text, list->at[i]);
    }
    if (list->count > (int64_t)list->listed)
        text_print(text, " and %" PRId64 " more", list->count - (int64_t)list->listed);
}

void loadable_print(const struct loadable *loadable, struct text *text)
{
    const char *before = ": ";
    text_append_word(text, loadable_state_name(loadable->state));
    if (loadable->state == LOADABLE_NOT_CHECKED) {
        text_append_word(text, loadable->reason ? ": " : "");
        text_append_word(text, loadable->reason ? loadable->reason : "");
        return;
    }
    text_append_word(text, ", checked against ");
    text_append_word(text, loadable->against ? loadable->against : "nothing");
    if (loadable->missing.count > 0) {
        text_append_word(text, loadable->state == LOADABLE_PARTLY ? ": it loads, but " : before);
        loadable_print_list(&loadable->missing, text);
        text_append_word(text, loadable->state == LOADABLE_PARTLY ? " would be initialised anew"
                               : loadable->missing.count > 1      ? " are missing"
                                                                  : " is missing");
        before = "; ";
    }
    if (loadable->mismatched.count > 0) {
        text_append_word(text, before);
        loadable_print_list(&loadable->mismatched, text);
        before = "; ";
    }
    if (loadable->unexpected.count > 0) {
        text_append_word(text, before);
        text_append_word(text, "unknown, and left out by loaders: ");
        loadable_print_list(&loadable->unexpected, text);
    }
}

/* -- names ------------------------------------------------------------------------------------------------
 */

static size_t loadable_first_length(const char *name)
{
    const char *dot = strchr(name, '.');
    return dot ? (size_t)(dot - name) + 1 : 0;
}

static bool loadable_starts_like(const char *name, const char *other, size_t length)
{
    return loadable_first_length(name) == length && memcmp(name, other, length) == 0;
}

const char *loadable_prefix(const struct model *model, struct arena *arena)
{
    const char *found = "";
    size_t length = 0, votes = 0, count = 0;
    /* What more than half of them have outlives being paired off with the others. */
    for (size_t i = 0; i < model->tensor_count; i++) {
        const char *name = model->tensors[i].name;
        if (votes == 0) {
            found = name;
            length = loadable_first_length(name);
            votes = 1;
        } else {
            votes = loadable_starts_like(name, found, length) ? votes + 1 : votes - 1;
        }
    }
    for (size_t i = 0; i < model->tensor_count && length > 0; i++)
        count += loadable_starts_like(model->tensors[i].name, found, length);
    return arena_copy_text(arena, found, 2 * count > model->tensor_count ? length : 0);
}

const struct model_tensor *loadable_find(const struct model *expected, const char *prefix,
                                         const char *own_prefix, const char *name)
{
    const struct model_tensor *found = model_find_tensor(expected, name);
    size_t own = strlen(own_prefix);
    if (found)
        return found;
    if (own > 0 && strncmp(name, own_prefix, own) == 0)
        found = model_find_tensor(expected, name + own);
    size_t size = strlen(prefix) + strlen(name) + 1;
    cleanup_free char *longer = !found && *prefix ? malloc(size) : NULL;
    if (!longer)
        return found;
    snprintf(longer, size, "%s%s", prefix, name);
    return model_find_tensor(expected, longer);
}

/* -- comparing --------------------------------------------------------------------------------------------
 */

static void loadable_print_shape(const struct tensor_shape *shape, struct text *text)
{
    text_append_byte(text, '[');
    for (uint32_t d = 0; d < shape->rank; d++)
        text_print(text, "%s%" PRId64, d > 0 ? ", " : "", shape->sizes[d]);
    text_append_byte(text, ']');
    text_append_byte(text, '\0');
}

static bool loadable_is_number(enum tensor_type type)
{
    return model_can_cast(type, TENSOR_F32);
}

static errint loadable_compare_tensor(const struct model_tensor *tensor, const struct model_tensor *expected,
                                      struct loadable *out)
{
    if (loadable_is_number(tensor->type) != loadable_is_number(expected->type))
        return loadable_add(out, &out->mismatched, "%s is %s, expected %s", tensor->name,
                            tensor_type_name(tensor->type), tensor_type_name(expected->type));
    if (tensor_shape_equal(&tensor->shape, &expected->shape))
        return 0;
    cleanup_text struct text found = {0}, wanted = {0};
    loadable_print_shape(&tensor->shape, &found);
    loadable_print_shape(&expected->shape, &wanted);
    if (found.failed || wanted.failed)
        return -ENOMEM;
    return loadable_add(out, &out->mismatched, "%s is %s, expected %s", tensor->name, found.at, wanted.at);
}

/* What of the other model nothing was found for, and what loaders do not make of something that was. */
static errint loadable_list_missing(const struct model *expected, const bool *seen, struct loadable *out)
{
    errint error = 0;
    for (size_t i = 0; i < expected->tensor_count && !error; i++) {
        const struct model_tensor *tensor = &expected->tensors[i];
        const struct model_tensor *kept = tensor->tied ? model_find_tensor(expected, tensor->tied) : NULL;
        if (!seen[i] && !(kept && seen[kept - expected->tensors]))
            error = loadable_add(out, &out->missing, "%s", tensor->name);
    }
    return error;
}

errint loadable_compare(const struct model *model, const struct model *expected, struct loadable *out)
{
    const char *prefix = loadable_prefix(expected, &out->arena);
    const char *own_prefix = loadable_prefix(model, &out->arena);
    cleanup_free bool *seen = calloc(expected->tensor_count + 1, sizeof *seen);
    errint error = prefix && own_prefix && seen ? 0 : -ENOMEM;
    for (size_t i = 0; i < model->tensor_count && !error; i++) {
        const struct model_tensor *tensor = &model->tensors[i];
        const struct model_tensor *other = loadable_find(expected, prefix, own_prefix, tensor->name);
        if (other) {
            seen[other - expected->tensors] = true;
            error = loadable_compare_tensor(tensor, other, out);
        } else if (!tensor->tied) {
            error = loadable_add(out, &out->unexpected, "%s", tensor->name);
        }
    }
    if (!error)
        error = loadable_list_missing(expected, seen, out);
    loadable_judge(out, false);
    return error;
}
