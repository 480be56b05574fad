/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors of a torch.save file: torch's functions that rebuild them (torch/_utils.py, 2.13), read. */
#include <errno.h>
#include <string.h>

#include "format/torch_storages.h"

/* A parameter of a class of its own around a tensor: more do not occur. */
enum { TORCH_WRAPPERS_MAX = 16 };

/* A call, with the wrappers around it taken off. */
struct torch_call {
    const struct pickle_node *function;
    const struct pickle_node *arguments; /* a call or a tuple, whose items they are */
};

static const struct pickle_node *torch_argument(const struct torch_call *call, size_t i)
{
    return i < call->arguments->count ? call->arguments->items[i] : NULL;
}

static bool torch_calls(const struct torch_call *call, const char *module_and_name)
{
    return pickle_is_global(call->function, module_and_name);
}

static bool torch_is_parameter(const struct torch_call *call)
{
    return torch_calls(call, "torch._utils _rebuild_parameter") ||
           torch_calls(call, "torch._utils _rebuild_parameter_with_state");
}

static bool torch_is_from_type(const struct torch_call *call)
{
    return torch_calls(call, "torch._tensor _rebuild_from_type_v2") ||
           torch_calls(call, "torch._tensor _rebuild_from_type");
}

static bool torch_is_device_copy(const struct torch_call *call)
{
    return torch_calls(call, "torch._utils _rebuild_device_tensor_from_cpu_tensor");
}

/* Fills the call that a node is; false: it is none. */
static bool torch_call_begin(const struct pickle_node *node, struct torch_call *call)
{
    if (!node || node->kind != PICKLE_CALL || !node->function || node->function->kind != PICKLE_GLOBAL)
        return false;
    *call = (struct torch_call){node->function, node};
    return true;
}

/* Takes one wrapper off; false: there is none, or something else in it. */
static bool torch_call_unwrap(struct torch_call *call)
{
    if (torch_is_parameter(call) || torch_is_device_copy(call))
        return torch_call_begin(torch_argument(call, 0), call);
    if (!torch_is_from_type(call))
        return false;
    const struct pickle_node *function = torch_argument(call, 0), *arguments = torch_argument(call, 2);
    if (!function || function->kind != PICKLE_GLOBAL || !arguments || arguments->kind != PICKLE_TUPLE)
        return false;
    *call = (struct torch_call){function, arguments};
    return true;
}

static bool torch_is_rebuild(const struct torch_call *call)
{
    return torch_calls(call, "torch._utils _rebuild_tensor_v2") ||
           torch_calls(call, "torch._utils _rebuild_tensor_v3") ||
           torch_calls(call, "torch._utils _rebuild_tensor");
}

/* Takes all wrappers off, down to what makes a tensor of a storage; false: it is not that. *type: the type
 * that a copy to a device names, or NULL. */
static bool torch_call_open(const struct pickle_node *node, struct torch_call *call,
                            const struct pickle_node **type)
{
    *type = NULL;
    if (!torch_call_begin(node, call))
        return false;
    for (unsigned depth = 0; depth < TORCH_WRAPPERS_MAX && !torch_is_rebuild(call); depth++) {
        if (torch_is_device_copy(call))
            *type = torch_argument(call, 1);
        if (!torch_call_unwrap(call))
            return false;
    }
    return torch_is_rebuild(call);
}

bool torch_file_is_tensor(const struct pickle_node *node)
{
    struct torch_call call;
    const struct pickle_node *type;
    return torch_call_open(node, &call, &type);
}

/* A state may be a dict, or a pair of one and the slots. */
static const struct pickle_node *torch_state_get(const struct pickle_node *state, const char *name)
{
    if (!state || state->kind != PICKLE_TUPLE)
        return pickle_get(state, name);
    const struct pickle_node *value = pickle_get(pickle_item(state, 1), name);
    return value ? value : pickle_get(pickle_item(state, 0), name);
}

const struct pickle_node *torch_file_attribute(const struct pickle_node *node, const char *name)
{
    struct torch_call call;
    const struct pickle_node *value = pickle_attribute(node, name);
    if (value || !torch_call_begin(node, &call))
        return value;
    for (unsigned depth = 0; depth < TORCH_WRAPPERS_MAX && !value; depth++) {
        if (torch_is_from_type(&call) || torch_calls(&call, "torch._utils _rebuild_parameter_with_state"))
            value = torch_state_get(torch_argument(&call, 3), name);
        if (!torch_call_unwrap(&call))
            return value;
    }
    return value;
}

/* -- where its bytes are ----------------------------------------------------------------------------------
 */

/* "torch float32" */
static bool torch_parse_type(const struct pickle_node *node, enum tensor_type *type)
{
    static const char module[] = "torch ";
    size_t start = sizeof module - 1;
    return node && node->kind == PICKLE_GLOBAL && node->length > start &&
           memcmp(node->text, module, start) == 0 &&
           tensor_type_parse(node->text + start, node->length - start, type);
}

/* The call that a node is, or what it is in a message. */
static const char *torch_describe(const struct pickle_node *node)
{
    struct torch_call call;
    if (!torch_call_begin(node, &call))
        return pickle_describe(node);
    for (unsigned depth = 0; depth < TORCH_WRAPPERS_MAX; depth++) {
        if (!torch_call_unwrap(&call))
            break;
    }
    return call.function->text;
}

/* A storage and the type of what is in it. */
struct torch_place {
    const struct torch_storage *storage;
    int64_t bytes; /* as the reference says, which the file has */
    enum tensor_type type;
};

static int torch_find_place(struct torch_file *file, const struct torch_call *call, struct torch_place *place,
                            struct format_problem *problem)
{
    const struct pickle_node *key;
    int result = torch_storage_reference(torch_argument(call, 0), &key, &place->type, &place->bytes, problem);
    if (result)
        return result;
    place->storage = torch_storages_find(file, key->text, key->length);
    if (!place->storage)
        return format_problem_set(problem, -1, "expected storage %.60s in the file, found none", key->text);
    if (place->bytes > place->storage->length)
        return format_problem_set(problem, place->storage->offset,
                                  "expected %lld bytes of storage %.60s, found %lld", (long long)place->bytes,
                                  key->text, (long long)place->storage->length);
    if (!torch_calls(call, "torch._utils _rebuild_tensor_v3"))
        return 0;
    const struct pickle_node *type = torch_argument(call, 6);
    if (!torch_parse_type(type, &place->type))
        return format_problem_set(problem, -1, "expected a type of elements, found %.80s",
                                  type && type->kind == PICKLE_GLOBAL ? type->text : pickle_describe(type));
    return 0;
}

static int torch_find_call(const struct pickle_node *node, struct torch_call *call,
                           const struct pickle_node **type, struct format_problem *problem)
{
    return torch_call_open(node, call, type)
               ? 0
               : format_problem_set(problem, -1, "expected a tensor with bytes of its own, found %.100s",
                                    torch_describe(node));
}

int64_t torch_file_storage_offset(struct torch_file *file, const struct pickle_node *node, int64_t *length)
{
    struct torch_call call;
    struct torch_place place;
    const struct pickle_node *type;
    if (torch_find_call(node, &call, &type, NULL) || torch_find_place(file, &call, &place, NULL))
        return -1;
    *length = place.bytes;
    return place.storage->offset;
}

/* -- shape and strides ------------------------------------------------------------------------------------
 */

/* Whole numbers >= 0, as many as the node has elements. */
static int torch_take_numbers(struct torch_file *file, const struct pickle_node *node, const int64_t **out,
                              struct format_problem *problem)
{
    size_t count = pickle_count(node);
    int64_t *numbers = arena_take_array(&file->arena, count, sizeof *numbers);
    if (!numbers)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct pickle_node *number = pickle_item(node, i);
        if (!pickle_integer(number, &numbers[i]))
            return format_problem_set(problem, -1, "expected a size or stride, found %s",
                                      pickle_describe(number));
        if (numbers[i] < 0)
            return format_problem_set(problem, -1, "expected a size or stride of 0 or more, found %lld",
                                      (long long)numbers[i]);
    }
    *out = numbers;
    return 0;
}

static bool torch_is_contiguous(const struct tensor_shape *shape, const int64_t *strides)
{
    int64_t expected = 1;
    for (uint32_t i = shape->rank; i-- > 0;) {
        if (shape->sizes[i] != 1 && strides[i] != expected)
            return false;
        expected *= shape->sizes[i];
    }
    return true;
}

/* How many elements there are from the first to the last one, both included. */
static bool torch_span(const struct tensor *tensor, int64_t *span)
{
    *span = 1;
    for (uint32_t i = 0; i < tensor->shape.rank; i++) {
        int64_t step;
        if (__builtin_mul_overflow(tensor->shape.sizes[i] - 1, tensor->strides[i], &step) ||
            __builtin_add_overflow(*span, step, span))
            return false;
    }
    return true;
}

/* The last dimension counts pairs in torch, single elements in safetensors. */
static int torch_double_last(struct torch_file *file, struct tensor *tensor, struct format_problem *problem)
{
    uint32_t rank = tensor->shape.rank;
    if (rank == 0 || tensor->strides)
        return format_problem_set(problem, tensor->offset,
                                  "expected rows of 4-bit pairs, found another layout");
    int64_t *sizes = arena_take_array(&file->arena, rank, sizeof *sizes);
    if (!sizes)
        return -ENOMEM;
    memcpy(sizes, tensor->shape.sizes, rank * sizeof *sizes);
    tensor->shape.sizes = sizes;
    if (__builtin_mul_overflow(sizes[rank - 1], 2, &sizes[rank - 1]))
        return format_problem_set(problem, tensor->offset,
                                  "expected a shape that fits, found one that is too large");
    return 0;
}

static int torch_read_layout(struct torch_file *file, const struct torch_call *call, struct tensor *out,
                             struct format_problem *problem)
{
    const struct pickle_node *sizes = torch_argument(call, 2), *strides = torch_argument(call, 3);
    size_t rank = pickle_count(sizes);
    if (rank > TENSOR_RANK_MAX || pickle_count(strides) != rank || !sizes || !strides)
        return format_problem_set(problem, -1,
                                  "expected as many strides as sizes, at most %d, found %zu and %zu",
                                  TENSOR_RANK_MAX, pickle_count(strides), rank);
    out->shape.rank = (uint32_t)rank;
    if (rank == 0)
        return 0;
    int result = torch_take_numbers(file, sizes, &out->shape.sizes, problem);
    return result ? result : torch_take_numbers(file, strides, &out->strides, problem);
}

/* Sets the offset, after a check that every element lies in the storage. */
static int torch_place_elements(const struct torch_place *place, int64_t first, struct tensor *out,
                                struct format_problem *problem)
{
    int64_t count, span, end, end_bytes, first_bytes, bits = tensor_type_bits(out->type);
    out->offset = place->storage->offset;
    if (!tensor_count(&out->shape, &count))
        return format_problem_set(problem, place->storage->offset,
                                  "expected a shape that fits, found one that is too large");
    if (count == 0) {
        out->strides = NULL;
        return 0;
    }
    /* A pair of them is what torch counts as one. */
    int64_t size = bits < 8 ? 1 : bits / 8;
    if (!torch_span(out, &span) || first < 0 || __builtin_add_overflow(first, span, &end) ||
        __builtin_mul_overflow(end, size, &end_bytes) || end_bytes > place->bytes)
        return format_problem_set(
            problem, place->storage->offset,
            "expected a tensor inside its storage of %lld bytes, found one that leaves it",
            (long long)place->bytes);
    first_bytes = first * size;
    out->offset += first_bytes;
    if (torch_is_contiguous(&out->shape, out->strides))
        out->strides = NULL;
    return 0;
}

/* Conjugated and negated tensors are stored as they were before. */
static bool torch_is_lazy(const struct torch_call *call)
{
    const struct pickle_node *metadata =
        torch_argument(call, torch_calls(call, "torch._utils _rebuild_tensor_v3") ? 7 : 6);
    for (size_t i = 0; i < pickle_dict_count(metadata); i++) {
        const struct pickle_node *value = pickle_dict_value(metadata, i);
        if (!value || value->kind != PICKLE_BOOL || value->integer)
            return true;
    }
    return false;
}

int torch_file_tensor(struct torch_file *file, const struct pickle_node *node, struct tensor *out,
                      struct format_problem *problem)
{
    struct torch_call call;
    struct torch_place place;
    const struct pickle_node *type;
    enum tensor_type copied;
    int64_t first;
    *out = (struct tensor){0};
    int result = torch_find_call(node, &call, &type, problem);
    if (!result)
        result = torch_find_place(file, &call, &place, problem);
    if (!result)
        result = torch_read_layout(file, &call, out, problem);
    if (result)
        return result;
    out->type = place.type;
    if (torch_is_lazy(&call))
        return format_problem_set(problem, -1,
                                  "expected a tensor's own values, found them conjugated or negated");
    if (type && (!torch_parse_type(type, &copied) || copied != place.type))
        return format_problem_set(problem, -1, "expected a tensor's own type, found it cast");
    if (!pickle_integer(torch_argument(&call, 1), &first))
        return format_problem_set(problem, -1, "expected a tensor's offset in its storage, found %s",
                                  pickle_describe(torch_argument(&call, 1)));
    result = torch_place_elements(&place, first, out, problem);
    return !result && out->type == TENSOR_F4 ? torch_double_last(file, out, problem) : result;
}
