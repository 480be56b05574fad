/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are not read again: those that were found whole, a hash each, and what the Trainer told. */
#include <stdlib.h>
#include <string.h>

#include "fs/checkpoints_internal.h"
#include "fs/filesystem.h"
#include "store/hash.h"

/* Of so many files 8 MiB; then all is forgotten and read once more. */
enum { MEMORY_FILES_MAX = 1 << 19, MEMORY_FIRST = 1 << 10, MEMORY_PATH_MAX = 8192 };
/* Places for what one file told, one of which gives way. */
enum { MEMORY_PLACES = 8 };

struct checkpoints_progress {
    uint64_t hash;
    struct trainer_progress told;
};

/* 0: a path too long to be remembered. */
static uint64_t memory_hash(const struct checkpoints_reader *reader, const struct tree_entry *file)
{
    struct {
        uint64_t run;
        int64_t size, time;
        char paths[MEMORY_PATH_MAX];
    } key = {.run = reader->run, .size = file->size, .time = file->time};
    size_t first = strlen(reader->checkpoint), second = strlen(file->path);
    if (first + 1 + second > sizeof key.paths)
        return 0;
    memcpy(key.paths, reader->checkpoint, first + 1);
    memcpy(key.paths + first + 1, file->path, second);
    size_t length = offsetof(__typeof__(key), paths) + first + 1 + second;
    uint64_t hash = hash_of(reader->fs->store, &key, length).low;
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
    const struct checkpoints_reader *reader = context;
    struct checkpoints_memory *memory = &reader->fs->checkpoints->memory;
    uint64_t hash = memory_hash(reader, file);
    pthread_mutex_lock(&memory->lock);
    bool whole = hash && memory->capacity && *memory_slot(memory->slots, memory->capacity, hash) == hash;
    pthread_mutex_unlock(&memory->lock);
    return whole;
}

static void memory_keep_whole(void *context, const struct tree_entry *file)
{
    const struct checkpoints_reader *reader = context;
    struct checkpoints_memory *memory = &reader->fs->checkpoints->memory;
    uint64_t hash = memory_hash(reader, file);
    pthread_mutex_lock(&memory->lock);
    /* One that is not remembered is read again. */
    if (hash && memory_grow(memory)) {
        uint64_t *slot = memory_slot(memory->slots, memory->capacity, hash);
        memory->count += *slot == 0;
        *slot = hash;
    }
    pthread_mutex_unlock(&memory->lock);
}

/* The place that has the hash; else a free one, else the first. The lock is held. */
static struct checkpoints_progress **memory_place(struct checkpoints_memory *memory, uint64_t hash)
{
    size_t first = hash % (CHECKPOINTS_PROGRESSES / MEMORY_PLACES) * MEMORY_PLACES, place = first;
    for (size_t i = first; i < first + MEMORY_PLACES; i++) {
        if (memory->progresses[i] && memory->progresses[i]->hash == hash)
            return &memory->progresses[i];
        if (!memory->progresses[i])
            place = i;
    }
    return &memory->progresses[place];
}

static bool memory_recall_progress(void *context, const struct tree_entry *file, struct trainer_progress *out)
{
    const struct checkpoints_reader *reader = context;
    struct checkpoints_memory *memory = &reader->fs->checkpoints->memory;
    uint64_t hash = memory_hash(reader, file);
    pthread_mutex_lock(&memory->lock);
    const struct checkpoints_progress *found = *memory_place(memory, hash);
    bool known = hash && found && found->hash == hash;
    if (known)
        *out = found->told;
    pthread_mutex_unlock(&memory->lock);
    return known;
}

static void memory_keep_progress(void *context, const struct tree_entry *file,
                                 const struct trainer_progress *progress)
{
    const struct checkpoints_reader *reader = context;
    struct checkpoints_memory *memory = &reader->fs->checkpoints->memory;
    uint64_t hash = memory_hash(reader, file);
    struct checkpoints_progress *kept = hash ? malloc(sizeof *kept) : NULL;
    if (!kept)
        return; /* it is read again */
    *kept = (struct checkpoints_progress){hash, *progress};
    pthread_mutex_lock(&memory->lock);
    struct checkpoints_progress **place = memory_place(memory, hash), *former = *place;
    *place = kept;
    pthread_mutex_unlock(&memory->lock);
    free(former);
}

const struct complete_memory *checkpoints_memory_of(void *context, const char *path)
{
    struct checkpoints_reader *reader = context;
    reader->checkpoint = path;
    reader->asked = (struct complete_memory){.context = reader,
                                             .is_whole = memory_is_whole,
                                             .keep_whole = memory_keep_whole,
                                             .recall_progress = memory_recall_progress,
                                             .keep_progress = memory_keep_progress};
    return &reader->asked;
}

void checkpoints_memory_prepare(struct checkpoints_memory *memory)
{
    *memory = (struct checkpoints_memory){0};
    pthread_mutex_init(&memory->lock, NULL);
}

void checkpoints_memory_release(struct checkpoints_memory *memory)
{
    for (size_t i = 0; i < CHECKPOINTS_PROGRESSES; i++)
        free(memory->progresses[i]);
    free(memory->slots);
    pthread_mutex_destroy(&memory->lock);
    *memory = (struct checkpoints_memory){0};
}
