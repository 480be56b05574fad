/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of one reading of a pickle, and what its opcodes are made of: input, nodes, stack. Each function
 * that returns int returns 0, FORMAT_FOREIGN with the problem filled, or a negative errno.
 */
#ifndef CKPTFS_FORMAT_PICKLE_MACHINE_H
#define CKPTFS_FORMAT_PICKLE_MACHINE_H

#include "format/pickle.h"

enum { PICKLE_BUFFER = 32 * 1024, PICKLE_SMALL = 256 };

struct pickle_machine {
    const struct format_source *source;
    struct arena *arena;
    const struct pickle_limits *limits;
    struct format_problem *problem;

    int64_t start, end;        /* of what may be read, in the source */
    int64_t next;              /* where the source is read on, behind the buffer */
    int64_t opcode;            /* offset of the opcode that is running, for messages */
    const uint8_t *at, *limit; /* what is left of the buffer */
    char *line;                /* the text line that was read last, with a NUL behind */
    size_t line_length, line_capacity;

    struct pickle_node **stack;
    size_t depth, stack_capacity;
    size_t *marks; /* the stack's depth at each mark */
    size_t mark_count, mark_capacity;
    struct pickle_node **memo;
    size_t memo_count, memo_capacity; /* memo_count: as MEMOIZE counts, without holes */
    size_t nodes;
    struct pickle_node *small[PICKLE_SMALL]; /* the whole numbers from 0 on that were met, which are shared */
    const struct pickle_node *persistent;    /* the last one */
    bool stopped;
    uint8_t buffer[PICKLE_BUFFER];
};

/* -- input ------------------------------------------------------------------------------------------------
 */

int64_t pickle_tell(const struct pickle_machine *machine);
int64_t pickle_left(const struct pickle_machine *machine);
int pickle_take(struct pickle_machine *machine, void *out, size_t length);
/* A little-endian number of 1 to 8 bytes. */
int pickle_take_number(struct pickle_machine *machine, unsigned width, uint64_t *value);
/* Up to the next newline, which is taken too, into machine->line. */
int pickle_take_line(struct pickle_machine *machine);

/* -- nodes and stack --------------------------------------------------------------------------------------
 */

/* Zeroed memory of the arena for so many items. NULL: *result says why, FORMAT_FOREIGN at the arena's limit.
 */
void *pickle_allocate(struct pickle_machine *machine, size_t count, size_t size, int *result);
int pickle_make(struct pickle_machine *machine, enum pickle_kind kind, struct pickle_node **out);
/* Makes one of items that nothing is added to later. */
int pickle_make_fixed(struct pickle_machine *machine, enum pickle_kind kind, struct pickle_node **items,
                      size_t count, struct pickle_node **out);
int pickle_push(struct pickle_machine *machine, struct pickle_node *node);
/* Makes and pushes. */
int pickle_push_integer(struct pickle_machine *machine, enum pickle_kind kind, int64_t value);
int pickle_push_text(struct pickle_machine *machine, enum pickle_kind kind, const char *text, size_t length);
/* The topmost one above the last mark. */
int pickle_top(struct pickle_machine *machine, struct pickle_node **out);
int pickle_pop(struct pickle_machine *machine, struct pickle_node **out);
/* Takes the last mark and what is above it; the items stay where they are until something is pushed. */
int pickle_pop_mark(struct pickle_machine *machine, struct pickle_node ***items, size_t *count);
/* Appends to a list, set or dict. */
int pickle_add_items(struct pickle_machine *machine, struct pickle_node *node, struct pickle_node **items,
                     size_t count);
/* Says what is wrong at the opcode that is running. */
int pickle_fail(struct pickle_machine *machine, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* -- globals and calls ------------------------------------------------------------------------------------
 */

int pickle_do_global(struct pickle_machine *machine, unsigned unused);
int pickle_do_stack_global(struct pickle_machine *machine, unsigned unused);
/* REDUCE and NEWOBJ. */
int pickle_do_call(struct pickle_machine *machine, unsigned unused);
int pickle_do_newobj_ex(struct pickle_machine *machine, unsigned unused);
/* OBJ: the class is the first above the mark. INST, `named`: two lines name it. */
int pickle_do_obj(struct pickle_machine *machine, unsigned named);
int pickle_do_build(struct pickle_machine *machine, unsigned unused);
/* `line`: the id is a line of text, and not on the stack. */
int pickle_do_persistent(struct pickle_machine *machine, unsigned line);
int pickle_do_extension(struct pickle_machine *machine, unsigned width);

/* -- arguments in text: protocol 0 ------------------------------------------------------------------------
 */

int pickle_do_int(struct pickle_machine *machine, unsigned unused);
int pickle_do_long(struct pickle_machine *machine, unsigned unused);
int pickle_do_float(struct pickle_machine *machine, unsigned unused);
int pickle_do_string(struct pickle_machine *machine, unsigned unused);
int pickle_do_unicode(struct pickle_machine *machine, unsigned unused);
/* A decimal memo index. */
int pickle_take_index(struct pickle_machine *machine, uint64_t *index);

#endif
