/* SPDX-License-Identifier: Apache-2.0 */
/* A set of inodes' numbers. */
#include "fs/inputs.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fs/assembler.h"
#include "fs/events.h"
#include "fs/filesystem.h"
#include "fs/writeback.h"
#include "meta/beside.h"

/* Open addressing; 0 is a free slot, UINT64_MAX one that was freed. */
#define INPUTS_FREED UINT64_MAX
enum { INPUTS_SLOTS_MIN = 64 };

struct inputs {
    pthread_mutex_t lock;
    uint64_t *slots;
    size_t slot_count, used; /* a power of two; slots that are not 0 */
    atomic_bool any;
    bool spoiled; /* a file in it was changed since the last begin */
};

/* -- the set ----------------------------------------------------------------------------------------------
 */

/* The slot of the number, or the one that it would get. */
static uint64_t *inputs_slot(const struct inputs *inputs, uint64_t ino)
{
    size_t mask = inputs->slot_count - 1;
    size_t at = (size_t)(ino * UINT64_C(0x9e3779b97f4a7c15) >> 32) & mask;
    while (inputs->slots[at] != 0 && inputs->slots[at] != ino)
        at = (at + 1) & mask;
    return &inputs->slots[at];
}

static errint inputs_grow(struct inputs *inputs)
{
    if (inputs->slots && inputs->used + 1 <= inputs->slot_count / 2)
        return 0;
    struct inputs larger = {.slot_count = inputs->slot_count ? inputs->slot_count * 2 : INPUTS_SLOTS_MIN};
    larger.slots = calloc(larger.slot_count, sizeof *larger.slots);
    if (!larger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < inputs->slot_count; i++) {
        uint64_t ino = inputs->slots[i];
        if (ino == 0 || ino == INPUTS_FREED)
            continue;
        *inputs_slot(&larger, ino) = ino;
        larger.used++;
    }
    free(inputs->slots);
    inputs->slots = larger.slots;
    inputs->slot_count = larger.slot_count;
    inputs->used = larger.used;
    return 0;
}

/* The lock is held. */
static errint inputs_add(struct inputs *inputs, uint64_t ino)
{
    errint error = inputs_grow(inputs);
    if (error)
        return error;
    uint64_t *slot = inputs_slot(inputs, ino);
    inputs->used += *slot == 0;
    *slot = ino;
    atomic_store(&inputs->any, true);
    return 0;
}

/* -- changes ----------------------------------------------------------------------------------------------
 */

static void inputs_tell(struct filesystem *fs, uint64_t directory)
{
    assembler_touch_directory(fs, directory);
    events_emit(fs, &(struct event){.kind = EVENT_WITHDRAWN,
                                    .ino = directory,
                                    .step = -1,
                                    .bytes = -1,
                                    .reason = "a file that it was made from changes"});
}

/* The set's lock is held, so that nothing is published meanwhile that was made from the file. */
static void inputs_withdraw(struct filesystem *fs, uint64_t ino)
{
    cleanup_ids struct ids directories = {0};
    errint error = meta_assembled_withdraw_input(fs->meta, ino, &directories);
    if (error)
        log_error("inode %llu: what was assembled from it is older than it now, and stays: %s",
                  (unsigned long long)ino, strerror(-error));
    for (size_t i = 0; i < directories.count; i++)
        inputs_tell(fs, directories.at[i]);
    if (directories.count > 0)
        writeback_kick(fs); /* that one removes what was withdrawn */
}

void inputs_change(struct filesystem *fs, uint64_t ino)
{
    struct inputs *inputs = fs->inputs;
    if (!inputs || !atomic_load(&inputs->any))
        return;
    pthread_mutex_lock(&inputs->lock);
    uint64_t *slot = inputs_slot(inputs, ino);
    if (*slot == ino) {
        *slot = INPUTS_FREED;
        inputs->spoiled = true;
        inputs_withdraw(fs, ino);
    }
    pthread_mutex_unlock(&inputs->lock);
}

bool inputs_has(struct filesystem *fs, uint64_t ino)
{
    struct inputs *inputs = fs->inputs;
    if (!inputs || !atomic_load(&inputs->any))
        return false;
    pthread_mutex_lock(&inputs->lock);
    bool found = *inputs_slot(inputs, ino) == ino;
    pthread_mutex_unlock(&inputs->lock);
    return found;
}

/* -- assembling -------------------------------------------------------------------------------------------
 */

void inputs_begin(struct filesystem *fs)
{
    pthread_mutex_lock(&fs->inputs->lock);
    fs->inputs->spoiled = false;
    pthread_mutex_unlock(&fs->inputs->lock);
}

errint inputs_watch(struct filesystem *fs, uint64_t ino)
{
    pthread_mutex_lock(&fs->inputs->lock);
    errint error = inputs_add(fs->inputs, ino);
    pthread_mutex_unlock(&fs->inputs->lock);
    return error;
}

errint inputs_publish(struct filesystem *fs, uint64_t directory, const char *name, uint64_t ino, bool beside,
                      const struct meta_assembled_input *inputs, size_t count)
{
    pthread_mutex_lock(&fs->inputs->lock);
    errint error = fs->inputs->spoiled
                       ? -EBUSY
                       : meta_assembled_publish(fs->meta, directory, name, ino, beside, inputs, count);
    pthread_mutex_unlock(&fs->inputs->lock);
    return error;
}

errint inputs_publish_more(struct filesystem *fs, uint64_t directory, const char *name, uint64_t ino)
{
    pthread_mutex_lock(&fs->inputs->lock);
    errint error = fs->inputs->spoiled ? -EBUSY : meta_assembled_publish_more(fs->meta, directory, name, ino);
    pthread_mutex_unlock(&fs->inputs->lock);
    return error;
}

/* -- start and end ----------------------------------------------------------------------------------------
 */

static errint inputs_withdraw_torn(struct filesystem *fs)
{
    cleanup_ids struct ids directories = {0};
    errint error = meta_assembled_torn(fs->meta, &directories);
    for (size_t i = 0; !error && i < directories.count; i++)
        error = meta_assembled_withdraw(fs->meta, directories.at[i], NULL);
    return error;
}

errint inputs_load(struct filesystem *fs)
{
    cleanup_ids struct ids all = {0};
    struct inputs *inputs = calloc(1, sizeof *inputs);
    if (!inputs)
        return -ENOMEM;
    pthread_mutex_init(&inputs->lock, NULL);
    fs->inputs = inputs;
    errint error = fs->options->read_only ? 0 : inputs_withdraw_torn(fs);
    if (!error && !fs->options->read_only && fs->options->assemble == POLICY_ASSEMBLING_VIEW)
        error = meta_assembled_hide_all(fs->meta);
    if (!error)
        error = meta_assembled_all_inputs(fs->meta, &all);
    for (size_t i = 0; !error && i < all.count; i++)
        error = inputs_add(inputs, all.at[i]);
    return error;
}

void inputs_release(struct filesystem *fs)
{
    struct inputs *inputs = fs->inputs;
    if (!inputs)
        return;
    fs->inputs = NULL;
    pthread_mutex_destroy(&inputs->lock);
    free(inputs->slots);
    free(inputs);
}
