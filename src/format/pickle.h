/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pickles, read without running anything: a tree of inert nodes. A GLOBAL is two strings, a REDUCE a node
 * that holds what would have been called and with what; nothing is looked up, imported or called, and what is
 * not known stays a node that says what it would have been.
 *
 * Protocols 0 to 5 as CPython writes them (Lib/pickletools.py, 3.13), with memo and framing. Total on any
 * input: opcodes, depth of marks, memo indexes, lengths and the number of nodes are checked; the memory is
 * the arena's, at most 80 times the bytes of the pickle, and half as much beside them while it is read. Nodes
 * may form cycles by the memo (a list that holds itself): who walks them bounds the depth.
 */
#ifndef CKPTFS_FORMAT_PICKLE_H
#define CKPTFS_FORMAT_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "format/problem.h"
#include "format/source.h"

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,    /* integer: 0 or 1 */
    PICKLE_INTEGER, /* one that fits 64 bits */
    PICKLE_LARGE,   /* an integer that does not: text holds its little-endian two's complement bytes */
    PICKLE_FLOAT,
    PICKLE_TEXT,  /* str, and Python 2's str: UTF-8 */
    PICKLE_BYTES, /* bytes, bytearray; also a str of either that is no UTF-8 */
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_SET,        /* also frozenset */
    PICKLE_DICT,       /* items: key, value, key, value... in the order of insertion; duplicates are kept */
    PICKLE_GLOBAL,     /* text: "module name", one space between them, Python 3's modules: "builtins set" */
    PICKLE_CALL,       /* REDUCE, NEWOBJ, OBJ, INST: function, items: its positional arguments */
    PICKLE_PERSISTENT, /* items[0]: the id */
    PICKLE_EXTENSION,  /* integer: a copyreg code, or an out-of-band buffer: opaque */
};

struct pickle_node {
    enum pickle_kind kind;
    union {
        int64_t integer;
        double number;
        size_t length; /* of text */
        size_t count;  /* of items */
    };
    union {
        const char *text; /* with a NUL behind; a NUL may be inside */
        struct pickle_node **items;
    };
    /* PICKLE_CALL: what was called. PICKLE_PERSISTENT: the one before it in the pickle, or NULL. */
    const struct pickle_node *function;
    const struct pickle_node *keywords; /* a dict, or NULL (NEWOBJ_EX) */
    /* What BUILD gave the object: a dict, a tuple, or anything; the last one. NULL: none. Items that APPENDS
     * and SETITEMS added to a PICKLE_CALL (an OrderedDict) are in `added`: key, value pairs or elements. */
    const struct pickle_node *state;
    struct pickle_node *added; /* a dict or a list; NULL: none */
};

struct pickle_limits {
    int64_t size; /* bytes that are read at most */
    size_t nodes; /* in all */
    size_t memo;  /* entries */
    size_t depth; /* of the stack, and of marks in it */
};

/* 256 MiB, ten million nodes. */
extern const struct pickle_limits pickle_default_limits;

/*
 * Reads one pickle from `offset` on, to its STOP; `end` is the offset behind it. 0; FORMAT_FOREIGN with
 * `problem` filled, also where the arena's limit is reached; a negative errno. The nodes live in the
 * arena. `problem` may be NULL.
 */
int pickle_read(const struct format_source *source, int64_t offset, int64_t length,
                const struct pickle_limits *limits, struct arena *arena, const struct pickle_node **root,
                int64_t *end, struct format_problem *problem);
/* The same; `persistent` is the last persistent id of the pickle, from which all are found, or NULL. */
int pickle_read_references(const struct format_source *source, int64_t offset, int64_t length,
                           const struct pickle_limits *limits, struct arena *arena,
                           const struct pickle_node **root, const struct pickle_node **persistent,
                           int64_t *end, struct format_problem *problem);

/* -- looking at nodes ----- NULL and nodes of other kinds are allowed everywhere ----------------------------
 */

/* The value of a text key; the last one of equal ones, as Python has it. Also in an OrderedDict (a call). */
const struct pickle_node *pickle_get(const struct pickle_node *dict, const char *key);
/* A dict's or OrderedDict's entries: their number, and the i-th key and value. */
size_t pickle_dict_count(const struct pickle_node *dict);
const struct pickle_node *pickle_dict_key(const struct pickle_node *dict, size_t i);
const struct pickle_node *pickle_dict_value(const struct pickle_node *dict, size_t i);
/* Whether it is a dict, or a call of an OrderedDict, defaultdict or Counter. */
bool pickle_is_dict(const struct pickle_node *node);
/* Elements of a tuple, list or set, also of a call of builtins' set, frozenset, list or tuple or of
 * torch.Size, and what was appended to any other call; their number, and the i-th. */
size_t pickle_count(const struct pickle_node *node);
const struct pickle_node *pickle_item(const struct pickle_node *node, size_t i);
bool pickle_is_text(const struct pickle_node *node, const char *text);
bool pickle_is_global(const struct pickle_node *node, const char *module_and_name);
/* Whether it is a call of this global, or what copyreg writes in its place for an object of that class. */
bool pickle_is_call(const struct pickle_node *node, const char *module_and_name);
/* "a dict", "nothing": for messages. */
const char *pickle_describe(const struct pickle_node *node);
/* A whole number of 64 bits; no bool. */
bool pickle_integer(const struct pickle_node *node, int64_t *value);
/* An attribute that BUILD gave: of the state's dict, or of the dict in a (dict, slots) pair. */
const struct pickle_node *pickle_attribute(const struct pickle_node *node, const char *name);

#endif
