/* SPDX-License-Identifier: Apache-2.0 */
/* What the opcodes of a pickle are made of. */
#include "format/pickle_machine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/grow.h"

int pickle_fail(struct pickle_machine *machine, const char *format, ...)
{
    char text[sizeof machine->problem->text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return format_problem_set(machine->problem, machine->opcode, "%s", text);
}

/* -- input ------------------------------------------------------------------------------------------------
 */

int64_t pickle_tell(const struct pickle_machine *machine)
{
    return machine->next - (machine->limit - machine->at);
}

int64_t pickle_left(const struct pickle_machine *machine)
{
    return machine->end - pickle_tell(machine);
}

static int pickle_fill(struct pickle_machine *machine)
{
    int64_t left = machine->end - machine->next;
    if (left == 0)
        return pickle_fail(machine, "expected the end of a line, found the pickle's");
    size_t length = left < PICKLE_BUFFER ? (size_t)left : PICKLE_BUFFER;
    errint error = machine->source->read(machine->source->context, machine->buffer, length, machine->next);
    if (error)
        return error;
    machine->next += (int64_t)length;
    machine->at = machine->buffer;
    machine->limit = machine->buffer + length;
    return 0;
}

int pickle_take(struct pickle_machine *machine, void *out, size_t length)
{
    if (length > (uint64_t)pickle_left(machine))
        return pickle_fail(machine, "expected %zu bytes of an opcode, found %lld up to the end", length,
                           (long long)pickle_left(machine));
    size_t buffered = (size_t)(machine->limit - machine->at);
    size_t first = length < buffered ? length : buffered;
    if (first > 0)
        memcpy(out, machine->at, first);
    machine->at += first;
    if (length - first >= PICKLE_BUFFER) {
        int64_t offset = machine->next;
        machine->next += (int64_t)(length - first);
        return machine->source->read(machine->source->context, (char *)out + first, length - first, offset);
    }
    if (length > first) {
        int result = pickle_fill(machine);
        if (result)
            return result;
        memcpy((char *)out + first, machine->at, length - first);
        machine->at += length - first;
    }
    return 0;
}

int pickle_take_number(struct pickle_machine *machine, unsigned width, uint64_t *value)
{
    uint8_t bytes[8];
    int result = pickle_take(machine, bytes, width);
    *value = 0;
    for (unsigned i = 0; i < width && !result; i++)
        *value |= (uint64_t)bytes[i] << (8 * i);
    return result;
}

int pickle_take_line(struct pickle_machine *machine)
{
    machine->line_length = 0;
    for (;;) {
        if (machine->at == machine->limit) {
            int result = pickle_fill(machine);
            if (result)
                return result;
        }
        size_t buffered = (size_t)(machine->limit - machine->at);
        const uint8_t *newline = memchr(machine->at, '\n', buffered);
        size_t length = newline ? (size_t)(newline - machine->at) : buffered;
        if (!grow_reserve(machine->line, machine->line_capacity, machine->line_length + length + 1))
            return -ENOMEM;
        memcpy(machine->line + machine->line_length, machine->at, length);
        machine->line_length += length;
        machine->line[machine->line_length] = '\0';
        machine->at += length;
        if (newline) {
            machine->at++;
            return 0;
        }
    }
}

/* -- nodes ------------------------------------------------------------------------------------------------
 */

void *pickle_allocate(struct pickle_machine *machine, size_t count, size_t size, int *result)
{
    const struct arena *arena = machine->arena;
    void *memory = arena_take_array(machine->arena, count, size);
    size_t room = arena->taken < arena->limit ? arena->limit - arena->taken : 0;
    *result = 0;
    if (!memory)
        *result =
            count <= room / size
                ? -ENOMEM
                : pickle_fail(machine, "expected objects that take %zu bytes of memory at most, found more",
                              arena->limit);
    return memory;
}

int pickle_make(struct pickle_machine *machine, enum pickle_kind kind, struct pickle_node **out)
{
    *out = NULL;
    if (machine->nodes == machine->limits->nodes)
        return pickle_fail(machine, "expected at most %zu objects in a pickle, found more",
                           machine->limits->nodes);
    int result;
    struct pickle_node *node = pickle_allocate(machine, 1, sizeof *node, &result);
    if (!node)
        return result;
    machine->nodes++;
    node->kind = kind;
    *out = node;
    return 0;
}

int pickle_make_fixed(struct pickle_machine *machine, enum pickle_kind kind, struct pickle_node **items,
                      size_t count, struct pickle_node **out)
{
    int result = pickle_make(machine, kind, out);
    if (result || count == 0)
        return result;
    (*out)->items = pickle_allocate(machine, count, sizeof(struct pickle_node *), &result);
    if (!(*out)->items)
        return result;
    memcpy((*out)->items, items, count * sizeof(struct pickle_node *));
    (*out)->count = count;
    return 0;
}

/* What room items of a growing node have, by their number alone: a power of two, so that adding one at a time
 * copies each a bounded number of times. */
static size_t pickle_capacity(size_t count)
{
    if (count == 0)
        return 0;
    size_t capacity = 4;
    while (capacity < count)
        capacity *= 2;
    return capacity;
}

int pickle_add_items(struct pickle_machine *machine, struct pickle_node *node, struct pickle_node **items,
                     size_t count)
{
    size_t total = node->count + count;
    if (total > pickle_capacity(node->count)) {
        int result;
        struct pickle_node **grown =
            pickle_allocate(machine, pickle_capacity(total), sizeof(struct pickle_node *), &result);
        if (!grown)
            return result;
        if (node->count > 0)
            memcpy(grown, node->items, node->count * sizeof *grown);
        node->items = grown;
    }
    if (count > 0)
        memcpy(node->items + node->count, items, count * sizeof(struct pickle_node *));
    node->count = total;
    return 0;
}

/* -- stack ------------------------------------------------------------------------------------------------
 */

int pickle_push(struct pickle_machine *machine, struct pickle_node *node)
{
    if (machine->depth == machine->limits->depth)
        return pickle_fail(machine, "expected at most %zu objects on a pickle's stack, found more",
                           machine->limits->depth);
    if (!grow_reserve(machine->stack, machine->stack_capacity, machine->depth + 1))
        return -ENOMEM;
    machine->stack[machine->depth++] = node;
    return 0;
}

int pickle_push_integer(struct pickle_machine *machine, enum pickle_kind kind, int64_t value)
{
    bool small = kind == PICKLE_INTEGER && value >= 0 && value < PICKLE_SMALL;
    struct pickle_node *node = small ? machine->small[value] : NULL;
    int result = node ? 0 : pickle_make(machine, kind, &node);
    if (result)
        return result;
    node->integer = value;
    if (small)
        machine->small[value] = node;
    return pickle_push(machine, node);
}

int pickle_push_text(struct pickle_machine *machine, enum pickle_kind kind, const char *text, size_t length)
{
    struct pickle_node *node;
    int result = pickle_make(machine, kind, &node);
    if (result)
        return result;
    char *copy = pickle_allocate(machine, length + 1, 1, &result);
    if (!copy)
        return result;
    if (length > 0)
        memcpy(copy, text, length);
    node->text = copy;
    node->length = length;
    return pickle_push(machine, node);
}

static size_t pickle_floor(const struct pickle_machine *machine)
{
    return machine->mark_count > 0 ? machine->marks[machine->mark_count - 1] : 0;
}

int pickle_top(struct pickle_machine *machine, struct pickle_node **out)
{
    if (machine->depth == pickle_floor(machine))
        return pickle_fail(machine, "expected an object on a pickle's stack, found none");
    *out = machine->stack[machine->depth - 1];
    return 0;
}

int pickle_pop(struct pickle_machine *machine, struct pickle_node **out)
{
    int result = pickle_top(machine, out);
    if (!result)
        machine->depth--;
    return result;
}

int pickle_pop_mark(struct pickle_machine *machine, struct pickle_node ***items, size_t *count)
{
    if (machine->mark_count == 0)
        return pickle_fail(machine, "expected a mark on a pickle's stack, found none");
    size_t mark = machine->marks[--machine->mark_count];
    *items = mark < machine->depth ? machine->stack + mark : NULL;
    *count = machine->depth - mark;
    machine->depth = mark;
    return 0;
}
