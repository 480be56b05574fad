/* SPDX-License-Identifier: Apache-2.0 */
/* The model in memory of the random-operation test. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *memory_resize(void *memory, size_t length)
{
    void *resized = realloc(memory, length > 0 ? length : 1);
    if (resized == NULL) {
        fprintf(stderr, "random_ops: no memory for %zu bytes\n", length);
        exit(EXIT_FAILURE);
    }
    return resized;
}

void *memory_get(size_t length)
{
    return memory_resize(NULL, length);
}

char *memory_copy_text(const char *text)
{
    size_t length = strlen(text) + 1;
    return memcpy(memory_get(length), text, length);
}

void model_init(struct model *model)
{
    memset(model, 0, sizeof(*model));
    model->root = node_make(model, NODE_DIRECTORY, 0755);
    model->root->links = 1;
    model->root->parent = model->root;
}

static void node_free(struct node *node)
{
    for (size_t i = 0; i < node->entry_count; i++)
        free(node->entries[i].name);
    free(node->entries);
    for (int i = 0; i < ATTRIBUTE_COUNT; i++)
        free(node->attributes[i].data);
    for (size_t i = 0; i < HISTORY_LENGTH; i++)
        free(node->history[i]);
    free(node->data);
    free(node);
}

static void node_free_if_unused(struct node *node)
{
    if (node->links == 0 && node->references == 0)
        node_free(node);
}

static void directory_free_tree(struct node *directory)
{
    for (size_t i = 0; i < directory->entry_count; i++) {
        struct node *node = directory->entries[i].node;
        node->links--;
        if (node->type == NODE_DIRECTORY)
            directory_free_tree(node);
        else
            node_free_if_unused(node);
    }
    node_free(directory);
}

void model_free(struct model *model)
{
    directory_free_tree(model->root);
    model->root = NULL;
}

struct node *node_make(struct model *model, enum node_type type, mode_t mode)
{
    struct node *node = memory_get(sizeof(*node));
    memset(node, 0, sizeof(*node));
    node->type = type;
    node->mode = mode;
    node->number = model->nodes_made++;
    return node;
}

void node_hold(struct node *node)
{
    node->references++;
}

void node_release(struct node *node)
{
    node->references--;
    node_free_if_unused(node);
}

struct entry *directory_find(const struct node *directory, const char *name)
{
    for (size_t i = 0; i < directory->entry_count; i++)
        if (strcmp(directory->entries[i].name, name) == 0)
            return &directory->entries[i];
    return NULL;
}

void directory_add(struct model *model, struct node *directory, const char *name, struct node *node)
{
    size_t count = directory->entry_count + 1;
    directory->entries = memory_resize(directory->entries, count * sizeof(*directory->entries));
    directory->entries[count - 1] = (struct entry){.name = memory_copy_text(name), .node = node};
    directory->entry_count = count;
    node->links++;
    if (node->type == NODE_DIRECTORY)
        node->parent = directory;
    model->names++;
}

void directory_remove(struct model *model, struct node *directory, const char *name)
{
    struct entry *entry = directory_find(directory, name);
    struct node *node = entry->node;
    free(entry->name);
    *entry = directory->entries[--directory->entry_count];
    model->names--;
    node->links--;
    node_free_if_unused(node);
}

bool directory_is_below(const struct node *directory, const struct node *ancestor)
{
    while (directory != ancestor && directory != directory->parent)
        directory = directory->parent;
    return directory == ancestor;
}

unsigned node_link_count(const struct node *node)
{
    if (node->type != NODE_DIRECTORY)
        return node->links;
    if (node->links == 0)
        return 0;
    unsigned count = 2;
    for (size_t i = 0; i < node->entry_count; i++)
        count += node->entries[i].node->type == NODE_DIRECTORY;
    return count;
}

void file_resize(struct node *file, size_t size)
{
    if (size > file->capacity) {
        file->capacity = size + size / 4;
        file->data = memory_resize(file->data, file->capacity);
    }
    if (size > file->size)
        memset(file->data + file->size, 0, size - file->size);
    file->size = size;
}

void file_write(struct node *file, size_t offset, const unsigned char *data, size_t length)
{
    if (length == 0)
        return;
    if (offset + length > file->size)
        file_resize(file, offset + length);
    memcpy(file->data + offset, data, length);
}

void file_zero(struct node *file, size_t offset, size_t length)
{
    if (offset >= file->size)
        return;
    if (length > file->size - offset)
        length = file->size - offset;
    memset(file->data + offset, 0, length);
}

void node_set_attribute(struct node *node, int index, const unsigned char *data, size_t length)
{
    struct attribute *attribute = &node->attributes[index];
    attribute->data = memory_resize(attribute->data, length);
    memcpy(attribute->data, data, length);
    attribute->length = length;
}

void node_remove_attribute(struct node *node, int index)
{
    free(node->attributes[index].data);
    node->attributes[index] = (struct attribute){.data = NULL};
}

void node_forget_changed(struct node *node)
{
    node->changed_known = false;
}

void node_forget_times(struct node *node)
{
    node->modified_known = false;
    node->changed_known = false;
}

void node_note(struct node *node, const char *line)
{
    char **slot = &node->history[node->history_next % HISTORY_LENGTH];
    free(*slot);
    *slot = memory_copy_text(line);
    node->history_next++;
}

void node_print_history(const struct node *node)
{
    for (size_t i = 0; i < HISTORY_LENGTH; i++) {
        const char *line = node->history[(node->history_next + i) % HISTORY_LENGTH];
        if (line != NULL)
            fprintf(stderr, "    %s\n", line);
    }
}
