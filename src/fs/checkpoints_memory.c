/* SPDX-License-Identifier: Apache-2.0 */
/* Files that were found whole and are not read again, a hash each. */
#include <stdlib.h>
#include <string.h>

#include "fs/checkpoints_internal.h"
#include "fs/filesystem.h"
#include "store/hash.h"

/* Of so many files 8 MiB; then all is forgotten and read once more. */
enum { MEMORY_FILES_MAX = 1 << 19, MEMORY_FIRST = 1 << 10, MEMORY_PATH_MAX = 8192 };

/* 0: a path too long to be remembered. */
static uint64_t memory_hash(const struct checkpoints_memory *memory, const struct tree_entry *file)
{
    struct {
        uint64_t run;
        int64_t size, time;
        char paths[MEMORY_PATH_MAX];
    } key = {.run = memory->run, .size = file->size, .time = file->time};
    size_t first = strlen(memory->checkpoint), second = strlen(file->path);
    if (first + 1 + second > sizeof key.paths)
        return 0;
    memcpy(key.paths, memory->checkpoint, first + 1);
    memcpy(key.paths + first + 1, file->path, second);
    size_t length = offsetof(__typeof__(key), paths) + first + 1 + second;
    uint64_t hash = hash_of(memory->fs->store, &key, length).low;
    return hash ? hash : 1;
}

/* The slot that has the hash, or that it belongs into. */
static uint64_t *memory_slot(uint64_t *slots, size_t capacity, uint64_t hash)
{
    size_t at = hash & (capacity - 1);
    while (slots[at] && slots[at] != hash)
        at = (at + 1) & (capacity - 1);
    return &slots[at];
}

static bool memory_grow(struct checkpoints_memory *memory)
{
    if (memory->count >= MEMORY_FILES_MAX) {
        memset(memory->slots, 0, memory->capacity * sizeof *memory->slots);
        memory->count = 0;
        return true;
    }
    if (2 * memory->count < memory->capacity)
        return true;
    size_t capacity = memory->capacity ? 2 * memory->capacity : MEMORY_FIRST;
    uint64_t *slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < memory->capacity; i++) {
        if (memory->slots[i])
            *memory_slot(slots, capacity, memory->slots[i]) = memory->slots[i];
    }
    free(memory->slots);
    memory->slots = slots;
    memory->capacity = capacity;
    return true;
}

static bool memory_is_whole(void *context, const struct tree_entry *file)
{
    const struct checkpoints_memory *memory = context;
    uint64_t hash = memory_hash(memory, file);
    return hash && memory->capacity && *memory_slot(memory->slots, memory->capacity, hash) == hash;
}

static void memory_keep_whole(void *context, const struct tree_entry *file)
{
    struct checkpoints_memory *memory = context;
    uint64_t hash = memory_hash(memory, file);
    /* One that is not remembered is read again. */
    if (!hash || !memory_grow(memory))
        return;
    uint64_t *slot = memory_slot(memory->slots, memory->capacity, hash);
    memory->count += *slot == 0;
    *slot = hash;
}

const struct complete_memory *checkpoints_memory_of(void *context, const char *path)
{
    struct checkpoints_memory *memory = context;
    memory->checkpoint = path;
    memory->asked = (struct complete_memory){memory, memory_is_whole, memory_keep_whole};
    return &memory->asked;
}

void checkpoints_memory_release(struct checkpoints_memory *memory)
{
    free(memory->slots);
    *memory = (struct checkpoints_memory){0};
}
