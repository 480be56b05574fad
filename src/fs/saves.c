/* SPDX-License-Identifier: Apache-2.0 */
/* Saves under way, and what was seen of them before. */
#include "fs/saves.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/process.h"
#include "ckpt/detect.h"
#include "fs/pace.h"
#include "fs/tree_sum.h"

/* Between two files of a save. */
#define SAVES_BETWEEN_NS (5 * CLOCK_NS_PER_SECOND)

enum { SAVES_MAX = 256 /* at a time; more are not told */ };

/* What is known of a save from one look to the next. */
struct saves_entry {
    uint64_t directory;
    bool own_only;
    int64_t seen; /* clock_monotonic() of the last look that found a file of it open for writing */
    struct pace pace;
    struct save_writer writers[SAVES_WRITERS_MAX];
    size_t writer_count, writers_left_out;
    uint64_t open; /* as the present look finds it */
};

struct saves_memory {
    pthread_mutex_t lock; /* one look at a time */
    struct saves_entry at[SAVES_MAX];
    size_t count;
};

errint saves_start(struct filesystem *fs)
{
    struct saves_memory *memory = calloc(1, sizeof *memory);
    if (!memory)
        return -ENOMEM;
    pthread_mutex_init(&memory->lock, NULL);
    fs->saves_memory = memory;
    return 0;
}

void saves_stop(struct filesystem *fs)
{
    if (!fs->saves_memory)
        return;
    pthread_mutex_destroy(&fs->saves_memory->lock);
    free(fs->saves_memory);
    fs->saves_memory = NULL;
}

/* -- who writes where -------------------------------------------------------------------------------------
 */

/* NULL: there are too many. */
static struct saves_entry *saves_enter(struct saves_memory *memory, uint64_t directory)
{
    for (size_t i = 0; i < memory->count; i++) {
        if (memory->at[i].directory == directory)
            return &memory->at[i];
    }
    if (memory->count == SAVES_MAX)
        return NULL;
    struct saves_entry *entry = &memory->at[memory->count++];
    *entry = (struct saves_entry){.directory = directory};
    return entry;
}

static void saves_add_writer(struct saves_entry *entry, int32_t thread)
{
    struct save_writer writer = {0};
    struct process process;
    if (thread > 0 && process_of_thread(thread, &process) == 0) {
        writer.pid = process.pid;
        snprintf(writer.name, sizeof writer.name, "%s", process.name);
    }
    for (size_t i = 0; i < entry->writer_count; i++) {
        if (entry->writers[i].pid == writer.pid)
            return;
    }
    if (entry->writer_count < SAVES_WRITERS_MAX)
        entry->writers[entry->writer_count++] = writer;
    else
        entry->writers_left_out++;
}

static void saves_take_handle(struct filesystem *fs, const struct state_handle *handle, struct saves *out)
{
    struct saves_memory *memory = fs->saves_memory;
    uint64_t directory;
    bool own_only;
    if (saves_find_checkpoint(fs, handle->ino, &directory, &own_only) != 0) {
        out->elsewhere++;
        return;
    }
    struct saves_entry *entry = saves_enter(memory, directory);
    if (!entry)
        return;
    if (entry->open == 0)
        entry->writer_count = entry->writers_left_out = 0;
    entry->seen = clock_monotonic();
    entry->own_only = own_only;
    entry->open++;
    saves_add_writer(entry, handle->opener);
}

/* A slot may be given up and taken anew while it is read: then what is read is a file that was open a moment
 * ago. */
static void saves_take_handles(struct filesystem *fs, struct saves *out)
{
    uint32_t used = atomic_load(&fs->state->handles_used);
    for (uint32_t i = 0; i < used; i++) {
        const struct state_handle *slot = &fs->state->handles[i];
        bool file = slot->mode >= STATE_PASSTHROUGH && slot->mode <= STATE_DIRECT;
        bool writes = file && atomic_load(&slot->fh) != 0 && (slot->flags & O_ACCMODE) != O_RDONLY;
        if (writes)
            saves_take_handle(fs, slot, out);
    }
}

/* -- what there is of each --------------------------------------------------------------------------------
 */

/* What the run's last one takes, and at least what its own files say that they will. */
static int64_t saves_expect(const struct outlook *outlook, const struct save *save, int64_t sizes)
{
    const struct outlook_run *run = outlook_find_run(outlook, save->run);
    int64_t expected = run && run->last && run->step >= 0 ? run->bytes : -1;
    if (sizes > save->written && sizes > expected)
        expected = sizes;
    return expected >= 0 && expected < save->written ? save->written : expected;
}

static bool saves_is_completed(const struct outlook *outlook, const struct save *save)
{
    const struct outlook_run *run = outlook_find_run(outlook, save->run);
    const struct outlook_run *itself = outlook_find_run(outlook, save->directory);
    return (run && ids_contain(&run->completed, save->directory)) ||
           (itself && ids_contain(&itself->completed, save->directory));
}

/* Before there is a rate, the time since the first file was made tells one. */
static void saves_note(struct pace *pace, const struct tree_sum *sum)
{
    double average =
        sum->begun > 0 ? pace_average(sum->written, sum->begun, clock_read_ns(CLOCK_REALTIME)) : -1;
    if (pace->begun && pace->rate < 0)
        pace->rate = average;
    pace_note(pace, sum->written, clock_monotonic());
    if (pace->rate < 0)
        pace->rate = average;
}

static errint saves_describe(struct filesystem *fs, const struct outlook *outlook, struct saves_entry *entry,
                             struct save *out)
{
    struct tree_sum sum;
    struct meta_name name = {0};
    size_t count = 0;
    const struct tree_sum_asked asked = {.ino = entry->directory, .own_only = entry->own_only};
    errint error = tree_sum_add_up(fs, &asked, &sum);
    if (!error)
        error = meta_parent(fs->meta, entry->directory, &out->run);
    if (!error)
        error = meta_find_names(fs->meta, entry->directory, NULL, &name, 1, &count);
    if (!error)
        error = meta_path(fs->meta, entry->directory, &out->path);
    if (error)
        return error;
    out->directory = entry->directory;
    out->step = detect_step_of_name(name.bytes);
    out->files = sum.files;
    out->open = entry->open;
    out->written = sum.written;
    out->expected = saves_expect(outlook, out, sum.bytes);
    saves_note(&entry->pace, &sum);
    out->rate = entry->pace.rate;
    out->left = out->expected < 0 ? -1 : pace_left(out->written, out->expected, out->rate);
    memcpy(out->writers, entry->writers, sizeof out->writers);
    out->writer_count = entry->writer_count;
    out->writers_left_out = entry->writers_left_out;
    return 0;
}

static int saves_compare(const void *one, const void *other)
{
    const struct save *a = one, *b = other;
    return strcmp(a->path, b->path);
}

/* Describes what is under way, and forgets what is not. */
static errint saves_describe_all(struct filesystem *fs, const struct outlook *outlook, struct saves *out)
{
    struct saves_memory *memory = fs->saves_memory;
    size_t kept = 0;
    errint error = 0;
    for (size_t i = 0; i < memory->count; i++) {
        struct saves_entry *entry = &memory->at[i];
        struct save *save = &out->at[out->count];
        bool fresh = entry->open > 0 || clock_monotonic() - entry->seen < SAVES_BETWEEN_NS;
        errint failed = error || !fresh ? -ENOENT : saves_describe(fs, outlook, entry, save);
        bool over = failed || (entry->open == 0 && saves_is_completed(outlook, save));
        if (failed && failed != -ENOENT)
            error = failed;
        if (over)
            free(steal_pointer(save->path));
        else
            out->count++;
        if (!over || error)
            memory->at[kept++] = *entry;
    }
    memory->count = kept;
    return error;
}

errint saves_look(struct filesystem *fs, const struct outlook *outlook, struct saves *out)
{
    struct saves_memory *memory = fs->saves_memory;
    *out = (struct saves){0};
    if (!memory)
        return 0;
    out->at = calloc(SAVES_MAX + 1, sizeof *out->at);
    if (!out->at)
        return -ENOMEM;
    pthread_mutex_lock(&memory->lock);
    for (size_t i = 0; i < memory->count; i++)
        memory->at[i].open = 0;
    saves_take_handles(fs, out);
    errint error = saves_describe_all(fs, outlook, out);
    pthread_mutex_unlock(&memory->lock);
    qsort(out->at, out->count, sizeof *out->at, saves_compare);
    return error;
}

void saves_release(struct saves *saves)
{
    for (size_t i = 0; i < saves->count; i++)
        free(saves->at[i].path);
    free(saves->at);
    *saves = (struct saves){0};
}
