/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the filesystem should hold, in memory: directories with their entries, files with their bytes, links,
 * symbolic links, extended attributes, modes, and the times as far as they are known. It knows no system
 * call. Memory that cannot be had ends the program.
 */
#ifndef CKPTFS_TESTS_RANDOM_MODEL_H
#define CKPTFS_TESTS_RANDOM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

enum node_type { NODE_FILE, NODE_DIRECTORY, NODE_SYMLINK };

enum { ATTRIBUTE_COUNT = 4, HISTORY_LENGTH = 30 };

/* The value of one extended attribute; data is NULL where the node has none of that name. */
struct attribute {
    unsigned char *data;
    size_t length;
};

struct entry {
    char *name;
    struct node *node;
};

struct node {
    enum node_type type;
    unsigned number;     /* counts the nodes that were made; only for messages */
    unsigned links;      /* names, without the own and the children's dots of a directory */
    unsigned references; /* handles and mappings that keep it without a name */
    mode_t mode;
    ino_t inode; /* 0 until it was looked at */
    bool copied; /* bytes of it were copied by the filesystem, from it or to it */

    unsigned char *data; /* a file's bytes, or a symbolic link's target */
    size_t size;
    size_t capacity;

    struct node *parent; /* a directory's */
    struct entry *entries;
    size_t entry_count;

    struct attribute attributes[ATTRIBUTE_COUNT];

    /* A known time must be found unchanged; whatever may move it forgets it, and the next look learns it. */
    bool modified_known;
    bool changed_known;
    bool times_float; /* stores through a mapping may move them at any time until the next mount */
    struct timespec modified;
    struct timespec changed;

    char *history[HISTORY_LENGTH]; /* a ring of what was done to it */
    size_t history_next;
};

struct model {
    struct node *root;
    unsigned nodes_made;
    size_t names; /* entries in all directories */
};

/* Makes a model of an empty directory; model_free gives all of it back. */
void model_init(struct model *model);
void model_free(struct model *model);

/* A new node without a name; it goes away when it has neither names nor references. */
struct node *node_make(struct model *model, enum node_type type, mode_t mode);
void node_hold(struct node *node);
void node_release(struct node *node);

/* The entry of that name, or NULL. The pointer holds until the directory changes. */
struct entry *directory_find(const struct node *directory, const char *name);

/* Adds a name that is not there yet; a directory gets its parent. */
void directory_add(struct model *model, struct node *directory, const char *name, struct node *node);

/* Takes a name away that is there. */
void directory_remove(struct model *model, struct node *directory, const char *name);

/* Whether directory is ancestor, or lies below it. */
bool directory_is_below(const struct node *directory, const struct node *ancestor);

/* How many links Linux shows: a directory's count its own dot and its children's. */
unsigned node_link_count(const struct node *node);

/* Bytes of a file: what lies between the old end and a later offset is zero. */
void file_resize(struct node *file, size_t size);
void file_write(struct node *file, size_t offset, const unsigned char *data, size_t length);
void file_zero(struct node *file, size_t offset, size_t length);

void node_set_attribute(struct node *node, int index, const unsigned char *data, size_t length);
void node_remove_attribute(struct node *node, int index);

/* Notes that an operation may have moved ctime; or mtime too. */
void node_forget_changed(struct node *node);
void node_forget_times(struct node *node);

/* Adds a line to the history of a node; prints that history, the oldest line first. */
void node_note(struct node *node, const char *line);
void node_print_history(const struct node *node);

/* malloc and realloc that end the program when there is no memory. */
void *memory_get(size_t length);
void *memory_resize(void *memory, size_t length);
char *memory_copy_text(const char *text);

#endif
