/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at what a pickle described. */
#include <string.h>

#include "format/pickle.h"

static bool pickle_text_equals(const struct pickle_node *node, enum pickle_kind kind, const char *text)
{
    return node && node->kind == kind && node->length == strlen(text) &&
           memcmp(node->text, text, node->length) == 0;
}

bool pickle_is_text(const struct pickle_node *node, const char *text)
{
    return pickle_text_equals(node, PICKLE_TEXT, text);
}

bool pickle_is_global(const struct pickle_node *node, const char *module_and_name)
{
    return pickle_text_equals(node, PICKLE_GLOBAL, module_and_name);
}

static bool pickle_calls(const struct pickle_node *node, const char *module_and_name)
{
    return node && node->kind == PICKLE_CALL && pickle_is_global(node->function, module_and_name);
}

bool pickle_is_call(const struct pickle_node *node, const char *module_and_name)
{
    if (pickle_calls(node, module_and_name))
        return true;
    /* Protocols 0 and 1 make an object of a class through copyreg, whose first argument is the class. */
    return (pickle_calls(node, "copyreg _reconstructor") || pickle_calls(node, "copyreg __newobj__")) &&
           node->count > 0 && pickle_is_global(node->items[0], module_and_name);
}

bool pickle_integer(const struct pickle_node *node, int64_t *value)
{
    if (!node || node->kind != PICKLE_INTEGER)
        return false;
    *value = node->integer;
    return true;
}

const char *pickle_describe(const struct pickle_node *node)
{
    static const char *const names[] = {
        [PICKLE_NONE] = "None",
        [PICKLE_BOOL] = "a bool",
        [PICKLE_INTEGER] = "a whole number",
        [PICKLE_LARGE] = "a large whole number",
        [PICKLE_FLOAT] = "a float",
        [PICKLE_TEXT] = "a text",
        [PICKLE_BYTES] = "bytes",
        [PICKLE_TUPLE] = "a tuple",
        [PICKLE_LIST] = "a list",
        [PICKLE_SET] = "a set",
        [PICKLE_DICT] = "a dict",
        [PICKLE_GLOBAL] = "a class or function",
        [PICKLE_CALL] = "an object",
        [PICKLE_PERSISTENT] = "a reference",
        [PICKLE_EXTENSION] = "an extension",
    };
    return node ? names[node->kind] : "nothing";
}

/* -- dicts ------------------------------------------------------------------------------------------------
 */

/* What a call of a dict class starts with: a dict, or a list of pairs; NULL: nothing. */
static const struct pickle_node *pickle_dict_base(const struct pickle_node *node)
{
    /* defaultdict's first argument is what makes the values. */
    size_t at = pickle_is_global(node->function, "collections defaultdict") ? 1 : 0;
    return at < node->count ? node->items[at] : NULL;
}

bool pickle_is_dict(const struct pickle_node *node)
{
    return node && (node->kind == PICKLE_DICT || pickle_calls(node, "collections OrderedDict") ||
                    pickle_calls(node, "collections defaultdict") ||
                    pickle_calls(node, "collections Counter") || pickle_calls(node, "builtins dict"));
}

static size_t pickle_base_count(const struct pickle_node *base)
{
    if (!base)
        return 0;
    return base->kind == PICKLE_DICT ? base->count / 2 : base->kind == PICKLE_LIST ? base->count : 0;
}

static size_t pickle_added_count(const struct pickle_node *node)
{
    return node->added && node->added->kind == PICKLE_DICT ? node->added->count / 2 : 0;
}

size_t pickle_dict_count(const struct pickle_node *dict)
{
    if (!pickle_is_dict(dict))
        return 0;
    if (dict->kind == PICKLE_DICT)
        return dict->count / 2;
    return pickle_base_count(pickle_dict_base(dict)) + pickle_added_count(dict);
}

/* The key (0) or value (1) of the i-th entry. */
static const struct pickle_node *pickle_dict_part(const struct pickle_node *dict, size_t i, size_t part)
{
    if (i >= pickle_dict_count(dict))
        return NULL;
    if (dict->kind == PICKLE_DICT)
        return dict->items[2 * i + part];
    const struct pickle_node *base = pickle_dict_base(dict);
    size_t base_count = pickle_base_count(base);
    if (i >= base_count)
        return dict->added->items[2 * (i - base_count) + part];
    if (base->kind == PICKLE_DICT)
        return base->items[2 * i + part];
    const struct pickle_node *pair = base->items[i];
    return pickle_count(pair) == 2 ? pickle_item(pair, part) : NULL;
}

const struct pickle_node *pickle_dict_key(const struct pickle_node *dict, size_t i)
{
    return pickle_dict_part(dict, i, 0);
}

const struct pickle_node *pickle_dict_value(const struct pickle_node *dict, size_t i)
{
    return pickle_dict_part(dict, i, 1);
}

const struct pickle_node *pickle_get(const struct pickle_node *dict, const char *key)
{
    for (size_t i = pickle_dict_count(dict); i-- > 0;) {
        if (pickle_is_text(pickle_dict_key(dict, i), key))
            return pickle_dict_value(dict, i);
    }
    return NULL;
}

/* -- sequences --------------------------------------------------------------------------------------------
 */

static bool pickle_is_sequence(const struct pickle_node *node)
{
    return node && (node->kind == PICKLE_TUPLE || node->kind == PICKLE_LIST || node->kind == PICKLE_SET);
}

/* The node that holds the elements; NULL: there are none. */
static const struct pickle_node *pickle_sequence(const struct pickle_node *node)
{
    if (!node || pickle_is_sequence(node))
        return node;
    if (node->kind != PICKLE_CALL)
        return NULL;
    bool known = pickle_calls(node, "torch Size") || pickle_calls(node, "builtins set") ||
                 pickle_calls(node, "builtins frozenset") || pickle_calls(node, "builtins list") ||
                 pickle_calls(node, "builtins tuple");
    if (known && node->count == 1)
        return pickle_is_sequence(node->items[0]) ? node->items[0] : NULL;
    return pickle_is_sequence(node->added) ? node->added : NULL;
}

size_t pickle_count(const struct pickle_node *node)
{
    const struct pickle_node *sequence = pickle_sequence(node);
    return sequence ? sequence->count : 0;
}

const struct pickle_node *pickle_item(const struct pickle_node *node, size_t i)
{
    const struct pickle_node *sequence = pickle_sequence(node);
    return sequence && i < sequence->count ? sequence->items[i] : NULL;
}

/* -- attributes -------------------------------------------------------------------------------------------
 */

const struct pickle_node *pickle_attribute(const struct pickle_node *node, const char *name)
{
    if (!node || node->kind != PICKLE_CALL || !node->state)
        return NULL;
    const struct pickle_node *state = node->state;
    if (state->kind != PICKLE_TUPLE)
        return pickle_get(state, name);
    /* (dict, slots): a class with __slots__; the dict may be None. */
    const struct pickle_node *value = pickle_get(pickle_item(state, 1), name);
    return value || state->count != 2 ? value : pickle_get(pickle_item(state, 0), name);
}
