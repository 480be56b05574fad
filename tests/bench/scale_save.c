/* SPDX-License-Identifier: Apache-2.0 */
#include "scale_save.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/grow.h"

enum { SAVE_SHARE_MIN = 4096, SAVE_HEADER_TENSOR = 104, SAVE_ELDER_FILES = 64, SAVE_UID = 1000 };

static const int64_t save_file_max = 5000000000;

int64_t scale_clock(void)
{
    return clock_monotonic();
}

static void save_count(struct scale_timing *timing, int64_t since, uint64_t calls)
{
    int64_t ns = scale_clock() - since;
    timing->count += calls;
    timing->ns += ns;
    if (ns > timing->longest_ns)
        timing->longest_ns = ns;
}

static uint64_t save_mix(uint64_t value)
{
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

/* -- one file ---------------------------------------------------------------------------------------------
 */

struct save_file {
    char name[64];
    struct meta_segment *segments;
    size_t count, capacity;
    int64_t size;
};

static errint save_append(struct save_file *file, int64_t length, uint64_t content)
{
    if (!grow_reserve(file->segments, file->capacity, file->count + 1))
        return -ENOMEM;
    file->segments[file->count++] =
        (struct meta_segment){file->size, length, save_mix(content), save_mix(~content)};
    file->size += length;
    return 0;
}

static void save_sample(struct scale_state *state, const struct meta_segment *segment, uint64_t object)
{
    uint64_t seen = state->segments++;
    state->random = save_mix(state->random);
    uint64_t slot = seen < SCALE_SAMPLES ? seen : state->random % (seen + 1);
    if (slot < SCALE_SAMPLES)
        state->samples[slot] = (struct scale_sample){*segment, object};
}

/* The file as the index has it: the whole, and what is long enough. Returns the number of rows. */
static size_t save_rows(struct scale_state *state, const struct save_file *file, uint64_t object,
                        struct meta_segment *rows)
{
    struct meta_segment whole = {0, file->size, 1, 1};
    size_t count = 1;
    for (size_t i = 0; i < file->count; i++) {
        const struct meta_segment *segment = &file->segments[i];
        whole.low = save_mix(whole.low ^ segment->low);
        whole.high = save_mix(whole.high ^ segment->high);
        if (segment->length >= SAVE_SHARE_MIN && segment->length < file->size)
            rows[count++] = *segment;
    }
    rows[0] = whole;
    for (size_t i = 0; i < count; i++)
        save_sample(state, &rows[i], object);
    return count;
}

/* Under another name first, as safetensors does. */
static errint save_create(struct scale_state *state, uint64_t directory, const char *name, uint64_t *ino,
                          uint64_t *object)
{
    struct meta_inode inode;
    *object = meta_object_next(state->meta);
    const struct meta_new new = {.parent = directory,
                                 .name = ".tmpAbCdEf",
                                 .length = 10,
                                 .mode = S_IFREG | 0644,
                                 .uid = SAVE_UID,
                                 .gid = SAVE_UID,
                                 .object = *object,
                                 .now = clock_file_time()};
    if (!*object)
        return -EIO;
    int64_t since = scale_clock();
    errint error = meta_create(state->meta, &new, 0, &inode);
    save_count(&state->create, since, 1);
    const struct meta_rename rename = {.parent = directory,
                                       .name = ".tmpAbCdEf",
                                       .length = 10,
                                       .new_parent = directory,
                                       .new_name = name,
                                       .new_length = strlen(name),
                                       .expected = inode.ino,
                                       .reap = true,
                                       .now = clock_file_time()};
    *ino = inode.ino;
    return error ? error : meta_rename(state->meta, &rename, 0, NULL);
}

/* -- sharing ----------------------------------------------------------------------------------------------
 */

struct save_moves {
    struct meta_move *at;
    size_t count, capacity;
};

static errint save_add_move(struct save_moves *moves, const struct meta_range *range, int64_t to_offset,
                            const uint8_t *root)
{
    if (!grow_reserve(moves->at, moves->capacity, moves->count + 1))
        return -ENOMEM;
    moves->at[moves->count++] =
        (struct meta_move){range->object, range->offset, range->length, to_offset, root};
    return 0;
}

static int save_compare_moves(const void *a, const void *b)
{
    const struct meta_move *left = a, *right = b;
    if (left->object != right->object)
        return left->object < right->object ? -1 : 1;
    if (left->offset != right->offset)
        return left->offset < right->offset ? -1 : 1;
    return (left->length < right->length) - (left->length > right->length);
}

/* Sorts; drops what another one covers, and joins neighbours, as matching by chunks does. */
static void save_settle_moves(struct save_moves *moves)
{
    size_t kept = 0;
    if (moves->count)
        qsort(moves->at, moves->count, sizeof *moves->at, save_compare_moves);
    for (size_t i = 0; i < moves->count; i++) {
        const struct meta_move *move = &moves->at[i];
        struct meta_move *last = kept ? &moves->at[kept - 1] : NULL;
        bool same = last && last->object == move->object;
        if (same && move->offset < last->offset + last->length)
            continue;
        if (same && move->offset == last->offset + last->length &&
            move->to_offset == last->to_offset + last->length)
            last->length += move->length;
        else
            moves->at[kept++] = *move;
    }
    moves->count = kept;
}

/* Drops what is only a little of an older object, as matching does. */
static errint save_drop_small(struct scale_state *state, struct save_moves *moves)
{
    size_t kept = 0, next;
    errint error = 0;
    for (size_t first = 0; !error && first < moves->count; first = next) {
        int64_t bytes = 0, size = 0;
        for (next = first; next < moves->count && moves->at[next].object == moves->at[first].object; next++)
            bytes += moves->at[next].length;
        error = meta_object_size(state->meta, moves->at[first].object, &size);
        if (error || bytes < (size / 64 < 1 << 20 ? size / 64 : 1 << 20))
            continue;
        memmove(&moves->at[kept], &moves->at[first], (next - first) * sizeof *moves->at);
        kept += next - first;
    }
    moves->count = kept;
    return error;
}

static errint save_find(struct scale_state *state, const struct meta_segment *segment, uint64_t object,
                        struct save_moves *moves)
{
    cleanup_free struct meta_range *ranges = NULL;
    size_t count = 0;
    int64_t since = scale_clock();
    errint error = meta_find_segment(state->meta, segment, SAVE_UID, object, &ranges, &count);
    save_count(&state->find, since, 1);
    for (size_t i = 0; !error && i < count; i++)
        error = save_add_move(moves, &ranges[i], segment->object_offset, NULL);
    return error;
}

static errint save_forget(struct scale_state *state, struct ids *freed)
{
    errint error = freed->count ? meta_object_forget(state->meta, freed) : 0;
    freed->count = 0;
    return error;
}

/* The roots of the moves' objects, and the files that cover them. `roots`: META_ROOT_BYTES a move. */
static errint save_find_users(struct scale_state *state, struct save_moves *moves, uint8_t *roots,
                              struct ids *files)
{
    errint error = 0;
    for (size_t i = 0; !error && i < moves->count; i++) {
        struct meta_move *move = &moves->at[i];
        move->root = &roots[i * META_ROOT_BYTES];
        if (i > 0 && move->object == move[-1].object) {
            move->root = move[-1].root;
            continue;
        }
        error = meta_object_root(state->meta, move->object, &roots[i * META_ROOT_BYTES]);
        if (!error)
            error = meta_find_users_of(state->meta, move->object, SAVE_UID, files);
    }
    return error;
}

/* The older object that is so many files that the new one gives way; 0: there is none (fs/share_out.c). */
static uint64_t save_find_elder(struct scale_state *state, const struct save_moves *moves, int64_t size)
{
    int64_t object_size;
    for (size_t i = 0; i < moves->count; i++) {
        const struct meta_move *move = &moves->at[i];
        cleanup_ids struct ids files = {0};
        if (move->offset == 0 && move->to_offset == 0 && move->length == size &&
            meta_object_size(state->meta, move->object, &object_size) == 0 && object_size == size &&
            meta_find_users_of(state->meta, move->object, SAVE_UID, &files) == 0 &&
            files.count >= SAVE_ELDER_FILES)
            return move->object;
    }
    return 0;
}

static errint save_repoint(struct scale_state *state, uint64_t ino, uint64_t to, const uint8_t *root,
                           const struct save_moves *moves, struct ids *freed)
{
    int64_t moved;
    int64_t since = scale_clock();
    errint error = meta_repoint(state->meta, ino, to, root, moves->at, moves->count, &moved, freed);
    save_count(&state->repoint, since, 1);
    return error;
}

static errint save_share_out(struct scale_state *state, uint64_t ino, uint64_t object, const uint8_t *root,
                             struct save_moves *moves, int64_t size)
{
    cleanup_ids struct ids files = {0}, freed = {0};
    cleanup_free uint8_t *roots = calloc(moves->count + 1, META_ROOT_BYTES);
    uint64_t elder = state->eager ? 0 : save_find_elder(state, moves, size);
    uint8_t elder_root[META_ROOT_BYTES];
    errint error = roots ? 0 : -ENOMEM;
    if (!error && elder) {
        struct meta_move back = {.object = object, .length = size, .root = root};
        error = meta_object_root(state->meta, elder, elder_root);
        if (!error)
            error = save_repoint(state, ino, elder, elder_root, &(struct save_moves){&back, 1, 1}, &freed);
    } else if (!error) {
        error = save_find_users(state, moves, roots, &files);
    }
    for (size_t i = 0; !error && i < files.count; i++) {
        if (files.at[i] != ino && (i == 0 || files.at[i] != files.at[i - 1]))
            error = save_repoint(state, files.at[i], object, root, moves, &freed);
    }
    if (!error)
        error = save_forget(state, &freed);
    return error ? error : meta_object_shared_out(state->meta, object);
}

static errint save_share(struct scale_state *state, uint64_t ino, uint64_t object,
                         const struct meta_segment *rows, size_t count)
{
    struct save_moves moves = {0};
    uint8_t root[META_ROOT_BYTES];
    uint64_t before;
    memcpy(root, &rows[0].low, 8);
    memcpy(root + 8, &rows[0].high, 8);
    int64_t since = scale_clock();
    errint error = meta_object_summed(state->meta, object, root, SAVE_UID, rows, count);
    save_count(&state->summed, since, count);
    for (size_t i = 0; !error && i < count; i++)
        error = save_find(state, &rows[i], object, &moves);
    since = scale_clock();
    if (!error)
        error = meta_find_predecessor(state->meta, ino, SAVE_UID, &before);
    save_count(&state->predecessor, since, 1);
    if (!error) {
        save_settle_moves(&moves);
        error = state->eager ? 0 : save_drop_small(state, &moves);
    }
    if (!error)
        error = save_share_out(state, ino, object, root, &moves, rows[0].length);
    free(moves.at);
    return error;
}

/* Creates, seals, syncs, hashes and shares. */
static errint save_put(struct scale_state *state, uint64_t directory, const struct save_file *file)
{
    uint64_t ino, object;
    int64_t now = clock_file_time();
    cleanup_free struct meta_segment *rows = calloc(file->count + 1, sizeof *rows);
    if (!rows)
        return -ENOMEM;
    errint error = save_create(state, directory, file->name, &ino, &object);
    int64_t since = scale_clock();
    if (!error)
        error = meta_seal(state->meta, ino, file->size, now, now, NULL);
    save_count(&state->seal, since, 1);
    if (!error)
        error = meta_synced(state->meta, ino, file->size, true, NULL);
    if (error)
        return error;
    state->files++;
    state->saved_bytes += file->size;
    return save_share(state, ino, object, rows, save_rows(state, file, object, rows));
}

/* -- what is dead -----------------------------------------------------------------------------------------
 */

static errint save_reclaim_object(struct scale_state *state, uint64_t object)
{
    cleanup_free struct meta_range *live = NULL, *dead = NULL;
    size_t count, dead_count = 0;
    int64_t size, at = 0, since = scale_clock();
    errint error = meta_live_ranges(state->meta, object, &live, &count);
    save_count(&state->live, since, 1);
    if (!error)
        error = meta_object_size(state->meta, object, &size);
    dead = error ? NULL : calloc(count + 1, sizeof *dead);
    if (!dead)
        return error ? error : -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        if (live[i].offset > at)
            dead[dead_count++] = (struct meta_range){object, at, live[i].offset - at};
        at = live[i].offset + live[i].length;
    }
    if (at < size)
        dead[dead_count++] = (struct meta_range){object, at, size - at};
    since = scale_clock();
    error = meta_shrunk_done(state->meta, object, live, count, dead, dead_count);
    save_count(&state->shrunk_done, since, 1);
    return error;
}

static errint save_reclaim(struct scale_state *state)
{
    cleanup_ids struct ids objects = {0};
    int64_t since = scale_clock();
    errint error = meta_find_shrunk(state->meta, 0, 1 << 20, &objects);
    save_count(&state->find_shrunk, since, 1);
    for (size_t i = 0; !error && i < objects.count; i++)
        error = save_reclaim_object(state, objects.at[i]);
    return error;
}

/* -- a save -----------------------------------------------------------------------------------------------
 */

errint scale_add_directory(struct scale_state *state, uint64_t parent, const char *name, uint64_t *ino)
{
    struct meta_inode inode;
    const struct meta_new new = {.parent = parent,
                                 .name = name,
                                 .length = strlen(name),
                                 .mode = S_IFDIR | 0755,
                                 .uid = SAVE_UID,
                                 .gid = SAVE_UID,
                                 .now = clock_file_time()};
    errint error = meta_create(state->meta, &new, 0, &inode);
    *ino = inode.ino;
    return error;
}

errint scale_add_file(struct scale_state *state, uint64_t directory, const char *name, int64_t size,
                      bool inlined, uint64_t content)
{
    static const char bytes[16384];
    cleanup_ids struct ids freed = {0};
    if (inlined) {
        uint64_t ino, object;
        int64_t now = clock_file_time();
        errint error = save_create(state, directory, name, &ino, &object);
        if (!error)
            error = meta_to_inline(state->meta, ino, bytes, (size_t)size, now, now, &freed);
        state->files++;
        return error ? error : save_forget(state, &freed);
    }
    struct save_file file = {0};
    snprintf(file.name, sizeof file.name, "%s", name);
    errint error = save_append(&file, size, content);
    if (!error)
        error = save_put(state, directory, &file);
    free(file.segments);
    return error;
}

static uint64_t save_content(const struct scale_run *run, size_t tensor, int part, int version)
{
    return (run->number << 40) ^ ((uint64_t)tensor << 16) ^ ((uint64_t)part << 12) ^ (uint64_t)version;
}

/* The files of one kind: weights (part 0), or the optimizer's states (1 and 2). */
struct save_series {
    struct scale_state *state;
    uint64_t directory;
    const char *name;
    int files;
    struct save_file file;
};

static errint save_flush(struct save_series *series)
{
    struct save_file *file = &series->file;
    if (file->count == 0)
        return 0;
    snprintf(file->name, sizeof file->name, "%s-%05d.safetensors", series->name, ++series->files);
    errint error = save_append(file, (int64_t)(file->count * SAVE_HEADER_TENSOR + 15) / 8 * 8,
                               save_mix(file->segments[0].length) ^ file->count);
    if (!error)
        error = save_put(series->state, series->directory, file);
    file->count = 0;
    file->size = 0;
    return error;
}

static errint save_tensors(struct save_series *series, const struct scale_run *run, int part, int version)
{
    errint error = 0;
    for (size_t i = 0; !error && i < run->tensor_count; i++) {
        const struct scale_tensor *tensor = &run->tensors[i];
        int64_t length = tensor->elements * (part ? 4 : run->kind->model->element_bytes);
        if (part && !tensor->trained)
            continue;
        if (series->file.size + length > save_file_max)
            error = save_flush(series);
        int changed = part || tensor->trained ? version : 0;
        if (!error)
            error = save_append(&series->file, length, save_content(run, i, part, changed));
        if (version == 0 || tensor->trained)
            series->state->stored_bytes += length;
    }
    return error;
}

static errint save_small(struct scale_state *state, const struct scale_run *run, uint64_t directory)
{
    static const char *const names[] = {"config.json", "generation_config.json", "trainer_state.json",
                                        "training_args.bin", "rng_state.pth"};
    errint error = 0;
    for (size_t i = 0; !error && i < sizeof names / sizeof *names; i++)
        error = scale_add_file(state, directory, names[i], 1000 + (int64_t)i * 1500, true, 0);
    /* Equal within a run only: what equal files of all runs cost is measured by itself. */
    return error ? error
                 : scale_add_file(state, directory, "tokenizer.json", 9085698, false,
                                  save_content(run, 0, 9, 0));
}

errint scale_save(struct scale_state *state, const struct scale_run *run, int number)
{
    char name[64];
    struct save_series weights = {.state = state, .name = "model"};
    struct save_series states = {.state = state, .name = "optimizer"};
    snprintf(name, sizeof name, "checkpoint-%d", (number + 1) * 500);
    errint error = scale_add_directory(state, run->ino, name, &weights.directory);
    states.directory = weights.directory;
    if (!error)
        error = save_tensors(&weights, run, 0, number);
    if (!error)
        error = save_flush(&weights);
    for (int part = 1; !error && run->kind->optimizer && part <= 2; part++)
        error = save_tensors(&states, run, part, number);
    if (!error)
        error = save_flush(&states);
    if (!error)
        error = save_small(state, run, weights.directory);
    free(weights.file.segments);
    free(states.file.segments);
    state->checkpoints++;
    return error ? error : save_reclaim(state);
}

errint scale_begin_run(struct scale_state *state, const struct scale_kind *kind, struct scale_run *run)
{
    char name[64];
    *run = (struct scale_run){.kind = kind, .number = ++state->runs};
    run->tensors = scale_tensors(kind, &run->tensor_count);
    if (!run->tensors)
        return -ENOMEM;
    snprintf(name, sizeof name, "%s-%llu", kind->model->name, (unsigned long long)run->number);
    return scale_add_directory(state, META_ROOT_INO, name, &run->ino);
}

void scale_end_run(struct scale_run *run)
{
    free(run->tensors);
    run->tensors = NULL;
}

/* -- deleting ---------------------------------------------------------------------------------------------
 */

struct save_entry {
    char name[META_NAME_MAX + 1];
    uint64_t ino;
    bool directory;
};

static bool save_take_entry(void *context, const char *name, size_t length, uint64_t cookie,
                            const struct meta_inode *inode)
{
    struct save_entry *entry = context;
    (void)cookie;
    memcpy(entry->name, name, length);
    entry->name[length] = '\0';
    entry->ino = inode->ino;
    entry->directory = S_ISDIR(inode->mode);
    return false;
}

/* As rm -r; directories are at most two deep. */
static errint save_empty(struct scale_state *state, uint64_t directory)
{
    for (;;) {
        cleanup_ids struct ids freed = {0};
        struct save_entry entry = {0};
        errint error = meta_list(state->meta, directory, 0, save_take_entry, &entry);
        if (error || !entry.ino)
            return error;
        if (entry.directory)
            error = save_empty(state, entry.ino);
        if (error)
            return error;
        if (entry.directory)
            error = meta_rmdir(state->meta, directory, entry.name, strlen(entry.name), entry.ino, true,
                               clock_file_time(), 0);
        else
            error = meta_unlink(state->meta, directory, entry.name, strlen(entry.name), entry.ino, true,
                                clock_file_time(), 0, &freed);
        if (!error)
            error = save_forget(state, &freed);
        if (error)
            return error;
    }
}

errint scale_delete(struct scale_state *state, const struct scale_run *run, int number)
{
    char name[64];
    struct meta_inode inode;
    uint64_t parent = number < 0 ? META_ROOT_INO : run->ino;
    if (number < 0)
        snprintf(name, sizeof name, "%s-%llu", run->kind->model->name, (unsigned long long)run->number);
    else
        snprintf(name, sizeof name, "checkpoint-%d", (number + 1) * 500);
    errint error = meta_lookup(state->meta, parent, name, strlen(name), &inode);
    if (!error)
        error = save_empty(state, inode.ino);
    if (!error)
        error = meta_rmdir(state->meta, parent, name, strlen(name), inode.ino, true, clock_file_time(), 0);
    return error ? error : save_reclaim(state);
}
