/* SPDX-License-Identifier: Apache-2.0 */
/* Opcodes that name globals and call them: what would have been called is kept, with what. */
#include <string.h>

#include "format/pickle_machine.h"
#include "format/utf8.h"

/* Modules that Python 3 renamed, as its own reader maps them. */
static const char *pickle_module(const char *name, size_t *length)
{
    static const struct {
        const char *old, *now;
    } renamed[] = {{"__builtin__", "builtins"}, {"copy_reg", "copyreg"}};
    for (unsigned i = 0; i < sizeof renamed / sizeof *renamed; i++) {
        if (strlen(renamed[i].old) == *length && memcmp(renamed[i].old, name, *length) == 0) {
            *length = strlen(renamed[i].now);
            return renamed[i].now;
        }
    }
    return name;
}

static int pickle_make_global(struct pickle_machine *machine, const char *module, size_t module_length,
                              const char *name, size_t name_length, struct pickle_node **out)
{
    module = pickle_module(module, &module_length);
    int result = pickle_make(machine, PICKLE_GLOBAL, out);
    if (result)
        return result;
    size_t length = module_length + 1 + name_length;
    char *text = pickle_allocate(machine, length + 1, 1, &result);
    if (!text)
        return result;
    memcpy(text, module, module_length);
    text[module_length] = ' ';
    memcpy(text + module_length + 1, name, name_length);
    (*out)->text = text;
    (*out)->length = length;
    return 0;
}

/* Of two lines. */
static int pickle_take_global(struct pickle_machine *machine, struct pickle_node **out)
{
    int result = pickle_take_line(machine);
    if (result)
        return result;
    cleanup_free char *module = steal_pointer(machine->line);
    size_t length = machine->line_length;
    machine->line_capacity = 0;
    result = pickle_take_line(machine);
    if (result)
        return result;
    return pickle_make_global(machine, module, length, machine->line, machine->line_length, out);
}

int pickle_do_global(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    struct pickle_node *node;
    int result = pickle_take_global(machine, &node);
    return result ? result : pickle_push(machine, node);
}

int pickle_do_stack_global(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    struct pickle_node *module, *name, *node;
    int result = pickle_pop(machine, &name);
    if (!result)
        result = pickle_pop(machine, &module);
    if (result)
        return result;
    if (module->kind != PICKLE_TEXT || name->kind != PICKLE_TEXT)
        return pickle_fail(machine, "expected a module and a name, found %s and %s", pickle_describe(module),
                           pickle_describe(name));
    result = pickle_make_global(machine, module->text, module->length, name->text, name->length, &node);
    return result ? result : pickle_push(machine, node);
}

/* `arguments` is a tuple, whose items the call shares: tuples do not change. */
static int pickle_push_call(struct pickle_machine *machine, const struct pickle_node *function,
                            const struct pickle_node *arguments, const struct pickle_node *keywords)
{
    struct pickle_node *node;
    if (arguments->kind != PICKLE_TUPLE)
        return pickle_fail(machine, "expected a tuple of arguments, found %s", pickle_describe(arguments));
    int result = pickle_make(machine, PICKLE_CALL, &node);
    if (result)
        return result;
    node->function = function;
    node->items = arguments->items;
    node->count = arguments->count;
    node->keywords = keywords;
    return pickle_push(machine, node);
}

int pickle_do_call(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    struct pickle_node *function, *arguments;
    int result = pickle_pop(machine, &arguments);
    if (!result)
        result = pickle_pop(machine, &function);
    return result ? result : pickle_push_call(machine, function, arguments, NULL);
}

int pickle_do_newobj_ex(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    struct pickle_node *function, *arguments, *keywords;
    int result = pickle_pop(machine, &keywords);
    if (!result)
        result = pickle_pop(machine, &arguments);
    if (!result)
        result = pickle_pop(machine, &function);
    return result ? result : pickle_push_call(machine, function, arguments, keywords);
}

int pickle_do_obj(struct pickle_machine *machine, unsigned named)
{
    struct pickle_node *function, *arguments, **items;
    size_t count;
    int result = named ? pickle_take_global(machine, &function) : 0;
    if (!result)
        result = pickle_pop_mark(machine, &items, &count);
    if (result)
        return result;
    if (!named) {
        if (count == 0)
            return pickle_fail(machine, "expected a class above the mark, found nothing");
        function = items[0];
        items++;
        count--;
    }
    result = pickle_make_fixed(machine, PICKLE_TUPLE, items, count, &arguments);
    return result ? result : pickle_push_call(machine, function, arguments, NULL);
}

int pickle_do_build(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    struct pickle_node *node, *state;
    int result = pickle_pop(machine, &state);
    if (!result)
        result = pickle_top(machine, &node);
    if (result)
        return result;
    if (node->kind != PICKLE_CALL)
        return pickle_fail(machine, "expected an object to give a state to, found %s", pickle_describe(node));
    node->state = state;
    return 0;
}

int pickle_do_persistent(struct pickle_machine *machine, unsigned line)
{
    struct pickle_node *id, *node;
    int result = line ? pickle_take_line(machine) : 0;
    if (!result && line)
        result = pickle_push_text(
            machine, utf8_is_valid(machine->line, machine->line_length) ? PICKLE_TEXT : PICKLE_BYTES,
            machine->line, machine->line_length);
    if (!result)
        result = pickle_pop(machine, &id);
    if (!result)
        result = pickle_make_fixed(machine, PICKLE_PERSISTENT, &id, 1, &node);
    if (result)
        return result;
    node->function = machine->persistent;
    machine->persistent = node;
    return pickle_push(machine, node);
}

int pickle_do_extension(struct pickle_machine *machine, unsigned width)
{
    uint64_t code;
    int result = pickle_take_number(machine, width, &code);
    if (result)
        return result;
    if (code == 0 || code > INT32_MAX)
        return pickle_fail(machine, "expected a code of copyreg, found %llu", (unsigned long long)code);
    return pickle_push_integer(machine, PICKLE_EXTENSION, (int64_t)code);
}
