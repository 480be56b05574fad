/* SPDX-License-Identifier: Apache-2.0 */
/* The opcodes of a pickle (Python, Lib/pickletools.py, 3.13), each reduced to what it builds. */
#include <errno.h>
#include <string.h>

#include "base/grow.h"
#include "format/pickle_machine.h"
#include "format/utf8.h"

enum { PICKLE_PROTOCOL_MAX = 5 };

const struct pickle_limits pickle_default_limits = {
    .size = INT64_C(256) << 20,
    .nodes = 10000000,
    .memo = 10000000,
    .depth = 10000000,
};

/* -- values -----------------------------------------------------------------------------------------------
 */

/* They have no parts and are never changed: one of each is enough. */
static struct pickle_node pickle_none = {.kind = PICKLE_NONE};
static struct pickle_node pickle_false = {.kind = PICKLE_BOOL, .integer = 0};
static struct pickle_node pickle_true = {.kind = PICKLE_BOOL, .integer = 1};
static struct pickle_node pickle_empty_tuple = {.kind = PICKLE_TUPLE};

static int pickle_do_none(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    return pickle_push(machine, &pickle_none);
}

static int pickle_do_bool(struct pickle_machine *machine, unsigned value)
{
    return pickle_push(machine, value ? &pickle_true : &pickle_false);
}

static int pickle_do_empty_tuple(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    return pickle_push(machine, &pickle_empty_tuple);
}

/* Only the one of four bytes has a sign. */
static int pickle_do_binint(struct pickle_machine *machine, unsigned width)
{
    uint64_t value;
    int result = pickle_take_number(machine, width, &value);
    if (result)
        return result;
    return pickle_push_integer(machine, PICKLE_INTEGER, width == 4 ? (int32_t)value : (int64_t)value);
}

/* A length of `width` bytes that fits into what is left. */
static int pickle_take_length(struct pickle_machine *machine, unsigned width, size_t *length)
{
    uint64_t value;
    int result = pickle_take_number(machine, width, &value);
    if (result)
        return result;
    if (value > (uint64_t)pickle_left(machine))
        return pickle_fail(machine, "expected at most %lld bytes, found a length of %llu",
                           (long long)pickle_left(machine), (unsigned long long)value);
    *length = (size_t)value;
    return 0;
}

/* The bytes behind a length of `width` bytes as a node, which is not pushed yet. */
static int pickle_take_text(struct pickle_machine *machine, enum pickle_kind kind, unsigned width,
                            struct pickle_node **node)
{
    size_t length = 0;
    int result = pickle_take_length(machine, width, &length);
    if (!result)
        result = pickle_make(machine, kind, node);
    if (result)
        return result;
    char *text = pickle_allocate(machine, length + 1, 1, &result);
    if (!text)
        return result;
    (*node)->text = text;
    (*node)->length = length;
    return length > 0 ? pickle_take(machine, text, length) : 0;
}

static int pickle_do_bytes(struct pickle_machine *machine, unsigned width)
{
    struct pickle_node *node;
    int result = pickle_take_text(machine, PICKLE_BYTES, width, &node);
    return result ? result : pickle_push(machine, node);
}

static int pickle_do_text(struct pickle_machine *machine, unsigned width)
{
    struct pickle_node *node;
    int result = pickle_take_text(machine, PICKLE_TEXT, width, &node);
    if (result)
        return result;
    if (!utf8_is_valid(node->text, node->length))
        node->kind = PICKLE_BYTES;
    return pickle_push(machine, node);
}

static int pickle_do_binlong(struct pickle_machine *machine, unsigned width)
{
    struct pickle_node *node;
    int result = pickle_take_text(machine, PICKLE_LARGE, width, &node);
    if (result)
        return result;
    size_t length = node->length;
    if (length <= sizeof node->integer) {
        const uint8_t *bytes = (const uint8_t *)node->text;
        uint64_t value = length > 0 && bytes[length - 1] >= 0x80 ? UINT64_MAX : 0;
        for (size_t i = length; i-- > 0;)
            value = value << 8 | bytes[i];
        node->kind = PICKLE_INTEGER;
        node->integer = (int64_t)value;
        node->text = NULL;
    }
    return pickle_push(machine, node);
}

static int pickle_do_binfloat(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    uint64_t bits;
    struct pickle_node *node;
    int result = pickle_take_number(machine, 8, &bits);
    if (!result)
        result = pickle_make(machine, PICKLE_FLOAT, &node);
    if (result)
        return result;
    bits = __builtin_bswap64(bits);
    memcpy(&node->number, &bits, sizeof bits);
    return pickle_push(machine, node);
}

/* -- containers -------------------------------------------------------------------------------------------
 */

static int pickle_do_new(struct pickle_machine *machine, unsigned kind)
{
    struct pickle_node *node;
    int result = pickle_make(machine, (enum pickle_kind)kind, &node);
    return result ? result : pickle_push(machine, node);
}

static int pickle_do_mark(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    if (machine->mark_count == machine->limits->depth)
        return pickle_fail(machine, "expected at most %zu marks, found more", machine->limits->depth);
    if (!grow_reserve(machine->marks, machine->mark_capacity, machine->mark_count + 1))
        return -ENOMEM;
    machine->marks[machine->mark_count++] = machine->depth;
    return 0;
}

static int pickle_check_pairs(struct pickle_machine *machine, size_t count)
{
    return count % 2 == 0 ? 0
                          : pickle_fail(machine, "expected a value for each key, found %zu objects", count);
}

/* A tuple, list, dict or set of all above the mark. */
static int pickle_do_collect(struct pickle_machine *machine, unsigned kind)
{
    struct pickle_node *node, **items;
    size_t count;
    int result = pickle_pop_mark(machine, &items, &count);
    if (!result && kind == PICKLE_DICT)
        result = pickle_check_pairs(machine, count);
    if (!result && kind == PICKLE_TUPLE)
        result = pickle_make_fixed(machine, PICKLE_TUPLE, items, count, &node);
    else if (!result) {
        result = pickle_make(machine, (enum pickle_kind)kind, &node);
        if (!result)
            result = pickle_add_items(machine, node, items, count);
    }
    return result ? result : pickle_push(machine, node);
}

static int pickle_do_tuple(struct pickle_machine *machine, unsigned count)
{
    struct pickle_node *items[3], *node;
    for (unsigned i = count; i-- > 0;) {
        int result = pickle_pop(machine, &items[i]);
        if (result)
            return result;
    }
    int result = pickle_make_fixed(machine, PICKLE_TUPLE, items, count, &node);
    return result ? result : pickle_push(machine, node);
}

/* Adds to the topmost object: itself, when it is of this kind, or beside a call (a class of its own). */
static int pickle_add(struct pickle_machine *machine, enum pickle_kind kind, struct pickle_node **items,
                      size_t count)
{
    struct pickle_node *node;
    int result = pickle_top(machine, &node);
    if (!result && kind == PICKLE_DICT)
        result = pickle_check_pairs(machine, count);
    if (result)
        return result;
    if (node->kind == PICKLE_CALL) {
        if (!node->added)
            result = pickle_make(machine, kind, &node->added);
        if (result)
            return result;
        node = node->added;
    }
    if (node->kind != kind)
        return pickle_fail(machine, "expected %s to add to, found %s",
                           pickle_describe(&(struct pickle_node){.kind = kind}), pickle_describe(node));
    return pickle_add_items(machine, node, items, count);
}

/* One element, or a key and its value. */
static int pickle_do_add(struct pickle_machine *machine, unsigned kind)
{
    struct pickle_node *items[2];
    unsigned count = kind == PICKLE_DICT ? 2 : 1;
    for (unsigned i = count; i-- > 0;) {
        int result = pickle_pop(machine, &items[i]);
        if (result)
            return result;
    }
    return pickle_add(machine, (enum pickle_kind)kind, items, count);
}

/* All above the mark. */
static int pickle_do_add_all(struct pickle_machine *machine, unsigned kind)
{
    struct pickle_node **items;
    size_t count;
    int result = pickle_pop_mark(machine, &items, &count);
    return result ? result : pickle_add(machine, (enum pickle_kind)kind, items, count);
}

/* -- memo and stack ---------------------------------------------------------------------------------------
 */

static int pickle_remember(struct pickle_machine *machine, uint64_t index)
{
    struct pickle_node *node;
    int result = pickle_top(machine, &node);
    if (result)
        return result;
    /* Writers count from 0 on and take a byte or more for each, so that what was read bounds the index. */
    if (index >= machine->limits->memo || index > (uint64_t)(pickle_tell(machine) - machine->start))
        return pickle_fail(machine, "expected a memo index that was counted up to, found %llu",
                           (unsigned long long)index);
    size_t before = machine->memo_capacity;
    if (!grow_reserve(machine->memo, machine->memo_capacity, (size_t)index + 1))
        return -ENOMEM;
    struct pickle_node **memo = machine->memo;
    if (machine->memo_capacity > before)
        memset(memo + before, 0, (machine->memo_capacity - before) * sizeof *memo);
    if (!memo[index])
        machine->memo_count++;
    memo[index] = node;
    return 0;
}

/* An index of `width` bytes, or in a line. */
static int pickle_take_memo_index(struct pickle_machine *machine, unsigned width, uint64_t *index)
{
    return width > 0 ? pickle_take_number(machine, width, index) : pickle_take_index(machine, index);
}

static int pickle_do_put(struct pickle_machine *machine, unsigned width)
{
    uint64_t index;
    int result = pickle_take_memo_index(machine, width, &index);
    return result ? result : pickle_remember(machine, index);
}

static int pickle_do_memoize(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    return pickle_remember(machine, machine->memo_count);
}

static int pickle_do_get(struct pickle_machine *machine, unsigned width)
{
    uint64_t index;
    int result = pickle_take_memo_index(machine, width, &index);
    if (result)
        return result;
    if (index >= machine->memo_capacity || !machine->memo[index])
        return pickle_fail(machine, "expected a memo index that was put, found %llu",
                           (unsigned long long)index);
    return pickle_push(machine, machine->memo[index]);
}

/* Takes a mark when nothing is above it. */
static int pickle_do_pop(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    struct pickle_node *node;
    if (machine->mark_count > 0 && machine->marks[machine->mark_count - 1] == machine->depth) {
        machine->mark_count--;
        return 0;
    }
    return pickle_pop(machine, &node);
}

static int pickle_do_pop_mark(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    struct pickle_node **items;
    size_t count;
    return pickle_pop_mark(machine, &items, &count);
}

static int pickle_do_dup(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    struct pickle_node *node;
    int result = pickle_top(machine, &node);
    return result ? result : pickle_push(machine, node);
}

/* -- the rest ---------------------------------------------------------------------------------------------
 */

static int pickle_do_proto(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    uint64_t protocol;
    int result = pickle_take_number(machine, 1, &protocol);
    if (!result && protocol > PICKLE_PROTOCOL_MAX)
        return pickle_fail(machine, "expected a pickle of protocol %d at most, found %u", PICKLE_PROTOCOL_MAX,
                           (unsigned)protocol);
    return result;
}

/* A frame only says how much to read ahead. */
static int pickle_do_frame(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    size_t length;
    return pickle_take_length(machine, 8, &length);
}

static int pickle_do_buffer(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    return pickle_push_integer(machine, PICKLE_EXTENSION, 0);
}

static int pickle_do_readonly(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    struct pickle_node *node;
    return pickle_top(machine, &node);
}

static int pickle_do_stop(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    if (machine->mark_count > 0 || machine->depth != 1)
        return pickle_fail(machine, "expected one object at a pickle's end, found %zu and %zu marks",
                           machine->depth, machine->mark_count);
    machine->stopped = true;
    return 0;
}

static const struct {
    int (*run)(struct pickle_machine *machine, unsigned argument);
    unsigned argument;
} pickle_opcodes[UINT8_MAX + 1] = {
    ['('] = {pickle_do_mark, 0},
    ['.'] = {pickle_do_stop, 0},
    ['0'] = {pickle_do_pop, 0},
    ['1'] = {pickle_do_pop_mark, 0},
    ['2'] = {pickle_do_dup, 0},
    ['F'] = {pickle_do_float, 0},
    ['I'] = {pickle_do_int, 0},
    ['J'] = {pickle_do_binint, 4},
    ['K'] = {pickle_do_binint, 1},
    ['L'] = {pickle_do_long, 0},
    ['M'] = {pickle_do_binint, 2},
    ['N'] = {pickle_do_none, 0},
    ['P'] = {pickle_do_persistent, true},
    ['Q'] = {pickle_do_persistent, false},
    ['R'] = {pickle_do_call, 0},
    ['S'] = {pickle_do_string, 0},
    ['T'] = {pickle_do_text, 4},
    ['U'] = {pickle_do_text, 1},
    ['V'] = {pickle_do_unicode, 0},
    ['X'] = {pickle_do_text, 4},
    ['a'] = {pickle_do_add, PICKLE_LIST},
    ['b'] = {pickle_do_build, 0},
    ['c'] = {pickle_do_global, 0},
    ['d'] = {pickle_do_collect, PICKLE_DICT},
    ['}'] = {pickle_do_new, PICKLE_DICT},
    ['e'] = {pickle_do_add_all, PICKLE_LIST},
    ['g'] = {pickle_do_get, 0},
    ['h'] = {pickle_do_get, 1},
    ['i'] = {pickle_do_obj, true},
    ['j'] = {pickle_do_get, 4},
    ['l'] = {pickle_do_collect, PICKLE_LIST},
    [']'] = {pickle_do_new, PICKLE_LIST},
    ['o'] = {pickle_do_obj, false},
    ['p'] = {pickle_do_put, 0},
    ['q'] = {pickle_do_put, 1},
    ['r'] = {pickle_do_put, 4},
    ['s'] = {pickle_do_add, PICKLE_DICT},
    ['t'] = {pickle_do_collect, PICKLE_TUPLE},
    [')'] = {pickle_do_empty_tuple, 0},
    ['u'] = {pickle_do_add_all, PICKLE_DICT},
    ['G'] = {pickle_do_binfloat, 0},
    ['B'] = {pickle_do_bytes, 4},
    ['C'] = {pickle_do_bytes, 1},
    [0x80] = {pickle_do_proto, 0},
    [0x81] = {pickle_do_call, 0},
    [0x82] = {pickle_do_extension, 1},
    [0x83] = {pickle_do_extension, 2},
    [0x84] = {pickle_do_extension, 4},
    [0x85] = {pickle_do_tuple, 1},
    [0x86] = {pickle_do_tuple, 2},
    [0x87] = {pickle_do_tuple, 3},
    [0x88] = {pickle_do_bool, true},
    [0x89] = {pickle_do_bool, false},
    [0x8a] = {pickle_do_binlong, 1},
    [0x8b] = {pickle_do_binlong, 4},
    [0x8c] = {pickle_do_text, 1},
    [0x8d] = {pickle_do_text, 8},
    [0x8e] = {pickle_do_bytes, 8},
    [0x8f] = {pickle_do_new, PICKLE_SET},
    [0x90] = {pickle_do_add_all, PICKLE_SET},
    [0x91] = {pickle_do_collect, PICKLE_SET},
    [0x92] = {pickle_do_newobj_ex, 0},
    [0x93] = {pickle_do_stack_global, 0},
    [0x94] = {pickle_do_memoize, 0},
    [0x95] = {pickle_do_frame, 0},
    [0x96] = {pickle_do_bytes, 8},
    [0x97] = {pickle_do_buffer, 0},
    [0x98] = {pickle_do_readonly, 0},
};

static int pickle_run(struct pickle_machine *machine)
{
    while (!machine->stopped) {
        uint8_t opcode;
        machine->opcode = pickle_tell(machine);
        if (pickle_left(machine) == 0)
            return pickle_fail(machine, "expected a pickle's next opcode, found its end after %lld bytes",
                               (long long)(machine->end - machine->start));
        int result = pickle_take(machine, &opcode, 1);
        if (result)
            return result;
        if (!pickle_opcodes[opcode].run)
            return pickle_fail(machine, "expected a pickle's opcode, found byte 0x%02x", opcode);
        result = pickle_opcodes[opcode].run(machine, pickle_opcodes[opcode].argument);
        if (result)
            return result;
    }
    return 0;
}

static void pickle_machine_free(struct pickle_machine **machine)
{
    if (!*machine)
        return;
    free((*machine)->line);
    free((*machine)->stack);
    free((*machine)->marks);
    free((*machine)->memo);
    free(*machine);
}

int pickle_read_references(const struct format_source *source, int64_t offset, int64_t length,
                           const struct pickle_limits *limits, struct arena *arena,
                           const struct pickle_node **root, const struct pickle_node **persistent,
                           int64_t *end, struct format_problem *problem)
{
    if (offset < 0 || length < 0 || length > source->size || offset > source->size - length)
        return format_problem_set(problem, offset, "expected a pickle inside the file, found it outside");
    __attribute__((cleanup(pickle_machine_free))) struct pickle_machine *machine = malloc(sizeof *machine);
    if (!machine)
        return -ENOMEM;
    memset(machine, 0, offsetof(struct pickle_machine, buffer));
    machine->source = source;
    machine->arena = arena;
    machine->limits = limits;
    machine->problem = problem;
    machine->start = machine->next = offset;
    machine->end = offset + (length < limits->size ? length : limits->size);
    machine->at = machine->limit = machine->buffer;
    int result = pickle_run(machine);
    if (result)
        return result;
    *root = machine->stack[0];
    *persistent = machine->persistent;
    *end = pickle_tell(machine);
    return 0;
}

int pickle_read(const struct format_source *source, int64_t offset, int64_t length,
                const struct pickle_limits *limits, struct arena *arena, const struct pickle_node **root,
                int64_t *end, struct format_problem *problem)
{
    const struct pickle_node *persistent;
    return pickle_read_references(source, offset, length, limits, arena, root, &persistent, end, problem);
}
