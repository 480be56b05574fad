/* SPDX-License-Identifier: Apache-2.0 */
/* A look at a run: which one it is, what its checkpoints are, and bringing them to stable storage. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fault.h"
#include "fs/checkpoints_internal.h"
#include "fs/filesystem.h"
#include "fs/namespace_folder.h"
#include "fs/rewrite_judge.h"
#include "fs/writeback.h"
#include "meta/hidden.h"
#include "meta/journal.h"

/* A file of a checkpoint lies so many levels below it at most: RUN/checkpoint-1/global_step1/, and one more.
 */
enum { LOOK_LEVELS = 3 };

static bool look_stops(struct filesystem *fs)
{
    return fs->checkpoints->queue && directory_queue_stops(fs->checkpoints->queue);
}

/* -- which run --------------------------------------------------------------------------------------------
 */

/* The run that is looked for, and the way to it. */
struct look_way {
    struct filesystem *fs;
    char path[(LOOK_LEVELS + 1) * (META_NAME_MAX + 1)]; /* of the directory, in the one that is looked at */
    struct meta_name name;                              /* of the one that is looked at; "": the root */
};

/* Whether the path is, or lies below, one of these checkpoints: 2; in the directory's own: 1; or 0. */
static int look_covers(const struct detect *detect, const char *path)
{
    int covers = 0;
    for (size_t i = 0; i < detect->count && covers < 2; i++) {
        const struct detected *at = &detect->at[i];
        size_t length = strlen(at->path);
        if (length == 0)
            covers = !at->own_level || !*path ? 1 : covers;
        else if (!at->file && strncmp(path, at->path, length) == 0 && (!path[length] || path[length] == '/'))
            covers = 2;
    }
    /* A run that was named itself: all its checkpoints are looked at. */
    return covers || *path ? covers : detect->count > 0;
}

static errint look_detect(struct look_way *way, uint64_t directory, int *covers)
{
    cleanup_namespace_folder struct namespace_folder held = {0};
    cleanup_detect struct detect detect = {0};
    struct folder folder;
    errint error = namespace_folder_open(way->fs, directory, look_stops, &held, &folder);
    held.looks = true;
    if (!error)
        error = detect_checkpoints(&folder, way->name.bytes, &detect);
    *covers = error ? 0 : look_covers(&detect, way->path);
    return error;
}

static errint look_read_name(struct look_way *way, uint64_t directory)
{
    size_t count = 0;
    way->name.bytes[0] = '\0';
    way->name.parent = META_ROOT_INO;
    if (directory == META_ROOT_INO)
        return 0;
    errint error = meta_find_names(way->fs->meta, directory, NULL, &way->name, 1, &count);
    return error ? error : count == 1 ? 0 : -ENOENT;
}

static void look_step_up(struct look_way *way)
{
    size_t length = strlen(way->path), name = way->name.length;
    if (length > 0) {
        memmove(way->path + name + 1, way->path, length + 1);
        way->path[name] = '/';
    } else {
        way->path[name] = '\0';
    }
    memcpy(way->path, way->name.bytes, name);
}

/* The highest directory that has a checkpoint which this one belongs to; else the highest that is one itself.
 */
static errint look_find_run(struct filesystem *fs, uint64_t directory, uint64_t *run, struct meta_name *name)
{
    struct look_way way = {.fs = fs};
    int best = 0;
    *run = 0;
    for (unsigned level = 0; level <= LOOK_LEVELS; level++) {
        int covers = 0;
        errint error = look_read_name(&way, directory);
        if (!error)
            error = look_detect(&way, directory, &covers);
        if (error)
            return error == -ENOENT || error == -ENOTDIR ? 0 : error;
        if (covers && covers >= best) {
            best = covers;
            *run = directory;
            *name = way.name;
        }
        if (way.name.parent == META_HIDDEN_PARENT) {
            *run = 0; /* what is hidden is nobody's run */
            break;
        }
        if (directory == META_ROOT_INO)
            break;
        look_step_up(&way);
        directory = way.name.parent;
    }
    return 0;
}

/* -- stable storage ---------------------------------------------------------------------------------------
 */

struct look_files {
    const struct meta_checkpoint *before; /* the checkpoint, as it was known */
    uint64_t kept;                        /* rewrite_kept */
    struct ids directories, files, dirty, added;
    bool busy, adding;
    errint error;
};

static bool look_take_entry(void *context, const char *name, size_t length, uint64_t cookie,
                            const struct meta_inode *inode)
{
    (void)cookie;
    struct look_files *files = context;
    char text[META_NAME_MAX + 1];
    memcpy(text, name, length);
    text[length] = '\0';
    const struct checkpoints_file file = {text, inode->ino, inode->btime};
    if (S_ISDIR(inode->mode))
        files->error = ids_append(&files->directories, inode->ino);
    else if (S_ISREG(inode->mode) && checkpoints_is_addition(files->before, files->kept, &file))
        files->error = ids_append(&files->added, inode->ino);
    else if (S_ISREG(inode->mode) && inode->kind == META_OBJECT)
        files->busy = true;
    else if (S_ISREG(inode->mode))
        files->error = ids_append(inode->state & META_DIRTY ? &files->dirty : &files->files, inode->ino);
    return !files->error && !files->busy;
}

static errint look_sync(struct filesystem *fs, uint64_t ino)
{
    struct node *node = node_get(fs, ino);
    if (!node)
        return -ENOMEM;
    node_lock_shared(node);
    bool busy = node->writers > 0;
    node_unlock(node);
    errint error = busy ? -EBUSY : writeback_sync_node(fs, node);
    node_put(fs, node);
    return error;
}

static void look_release_files(struct look_files *files)
{
    ids_release(&files->directories);
    ids_release(&files->files);
    ids_release(&files->dirty);
    ids_release(&files->added);
}

/* Whether somebody can write the file, though it is not changed yet. */
static bool look_has_writers(struct filesystem *fs, uint64_t ino)
{
    struct node *node = node_find(fs, ino);
    if (!node)
        return false;
    node_lock_shared(node);
    bool open = node->writers > 0;
    node_unlock(node);
    node_put(fs, node);
    return open;
}

static bool look_is_open(struct filesystem *fs, const struct ids *files)
{
    bool open = false;
    for (size_t i = 0; i < files->count && !open; i++)
        open = look_has_writers(fs, files->at[i]);
    return open;
}

/* The checkpoint is complete without them: those that somebody writes are for the next look. */
static errint look_sync_added(struct filesystem *fs, struct look_files *files)
{
    for (size_t i = 0; i < files->added.count; i++) {
        struct meta_inode row;
        errint error = look_stops(fs) ? -ECANCELED : meta_get(fs->meta, files->added.at[i], &row);
        if (!error && (row.kind == META_OBJECT || look_has_writers(fs, row.ino)))
            error = -EBUSY;
        else if (!error && (row.state & META_DIRTY))
            error = look_sync(fs, row.ino);
        files->adding |= error == -EBUSY;
        if (error && error != -EBUSY && error != -ENOENT)
            return error;
    }
    return 0;
}

/* Every file of the checkpoint is on stable storage when this gives 0. -EBUSY: one is being written, which
 * the checkpoint was complete with; `adding`: another one is. */
static errint look_secure(struct filesystem *fs, uint64_t directory, const struct meta_checkpoint *before,
                          bool *adding)
{
    __attribute__((cleanup(look_release_files))) struct look_files files = {
        .before = before, .kept = rewrite_kept(fs, directory)};
    errint error = ids_append(&files.directories, directory);
    while (!error && files.directories.count > 0) {
        if (look_stops(fs))
            return -ECANCELED;
        error =
            meta_list(fs->meta, files.directories.at[--files.directories.count], 0, look_take_entry, &files);
        if (!error)
            error = files.busy ? -EBUSY : files.error;
    }
    if (!error && look_is_open(fs, &files.files))
        error = -EBUSY;
    for (size_t i = 0; i < files.dirty.count && !error; i++)
        error = look_stops(fs) ? -ECANCELED : look_sync(fs, files.dirty.at[i]);
    /* That may have taken long. */
    if (!error && files.dirty.count > 0 && (look_is_open(fs, &files.files) || look_is_open(fs, &files.dirty)))
        error = -EBUSY;
    if (!error)
        error = look_sync_added(fs, &files);
    *adding |= files.adding;
    return error ? error : meta_sync_journal(fs->meta);
}

/* -- what it is -------------------------------------------------------------------------------------------
 */

static enum checkpoint_state look_state(const struct run_checkpoint *checkpoint)
{
    if (checkpoint->error == -EBUSY)
        return CHECKPOINT_WRITING;
    if (checkpoint->error)
        return CHECKPOINT_INCOMPLETE; /* it has lost bytes */
    switch (checkpoint->complete.state) {
    case COMPLETE_NOT: return CHECKPOINT_INCOMPLETE;
    case COMPLETE_WEIGHTS: return CHECKPOINT_WEIGHTS;
    case COMPLETE_YES: return CHECKPOINT_COMPLETE;
    case COMPLETE_UNKNOWN: break;
    }
    return CHECKPOINT_UNKNOWN;
}

static bool look_is_safe(enum checkpoint_state state)
{
    return state == CHECKPOINT_COMPLETE || state == CHECKPOINT_WEIGHTS;
}

static unsigned look_marks(const struct run_checkpoint *checkpoint, bool alone,
                           const struct meta_checkpoint *before, enum checkpoint_state state)
{
    /* Not the model in the run's own directory: what comes and goes there is no part of it. */
    bool whole = look_is_safe(state) && (*checkpoint->path || alone);
    unsigned marks = checkpoint->best && look_is_safe(state) ? CHECKPOINT_BEST : 0;
    /* Files that are gone make nothing newer. */
    bool lost = state != CHECKPOINT_WRITING && (before->marks & CHECKPOINT_WHOLE) &&
                checkpoint->complete.time <= before->completed && checkpoint->complete.bytes <= before->bytes;
    marks |= checkpoint->complete.shed ? CHECKPOINT_SHED : 0;
    return whole || lost ? marks | CHECKPOINT_WHOLE : marks;
}

/* A checkpoint of a run, as it was judged, and what is known besides. */
struct look_one {
    const struct run_checkpoint *checkpoint;
    bool alone;               /* it is the run's only one */
    const struct ids *copies; /* directories that were copied just now */
    const struct ids *added_to;
    enum writers_state writers;
    int64_t begun; /* when the look began: what is changed from then on is newer than what is found */
};

/* Whether it is what it was before, though something is said to be missing: what a rank that is gone never
 * wrote, the processes of a later save do not bring, nor who adds something; and what others of the run have
 * got since is nothing that it has lost. `known`: nothing in it is another than before. */
static bool look_stays(const struct look_one *one, const struct checkpoints_found *found, bool known,
                       bool adding)
{
    const struct complete *complete = &one->checkpoint->complete;
    bool outside = complete->missing > 0 && complete->missing == complete->awaits + complete->others;
    bool grown =
        found->before.state == CHECKPOINT_COMPLETE && (adding || complete->bytes >= found->before.bytes);
    return !one->checkpoint->error && outside && (known || grown);
}

/* It is on stable storage, if it is complete. The row's directory and marks are set. */
static errint look_judge(struct filesystem *fs, const struct look_one *one, struct checkpoints_found *out,
                         enum checkpoint_state *state)
{
    const struct meta_checkpoint *before = &out->before;
    const struct complete *complete = &one->checkpoint->complete;
    bool rewritten = rewrite_find(fs, out->row.directory, &out->rewrite), known;
    errint error = 0;
    *state = look_state(one->checkpoint);
    if (look_is_safe(*state) && rewritten && !(out->row.marks & CHECKPOINT_COPY))
        error = rewrite_judge(
            fs, &(struct rewrite_case){&out->rewrite, one->writers, out->row.run, complete->time}, state);
    else if (rewritten && *state == CHECKPOINT_INCOMPLETE)
        error = rewrite_is_edit(fs, &out->rewrite, &out->edited);
    known = look_is_safe((enum checkpoint_state)before->state) && before->bytes == complete->bytes &&
            complete->time <= before->completed && !rewritten;
    bool adding = ids_contain(one->added_to, out->row.directory);
    if (*state == CHECKPOINT_INCOMPLETE && look_stays(one, out, known, adding))
        *state = (enum checkpoint_state)before->state;
    out->adding = !error && known && adding && *state == (enum checkpoint_state)before->state;
    if (error || !look_is_safe(*state) || known)
        return error;
    error = look_secure(fs, out->row.directory, before, &adding);
    out->adding = !error && adding && *state == (enum checkpoint_state)before->state;
    if (error == -EBUSY)
        *state = CHECKPOINT_WRITING;
    else if (!error && !out->adding)
        out->row.completed = one->begun;
    /* A clock that was ahead has set a file's time: it is not newer than what is known at the next look. */
    if (!error && !out->adding && out->row.completed < complete->time)
        out->row.completed = complete->time;
    return error == -EBUSY ? 0 : error;
}

/* -ENOENT: it was removed meanwhile. */
static errint look_at_one(struct filesystem *fs, uint64_t run, const struct look_one *one,
                          struct checkpoints_found *out)
{
    const struct run_checkpoint *checkpoint = one->checkpoint;
    struct meta_inode inode;
    enum checkpoint_state state;
    errint error = namespace_find(fs, run, checkpoint->path, strlen(checkpoint->path), &inode);
    if (error)
        return error;
    if (checkpoints_get(fs, inode.ino, &out->before) < 0)
        out->before = (struct meta_checkpoint){0};
    const struct meta_checkpoint *before = &out->before;
    out->row = (struct meta_checkpoint){
        .directory = inode.ino,
        .run = run,
        .marks = ids_contain(one->copies, inode.ino) ? CHECKPOINT_COPY : before->marks & CHECKPOINT_COPY,
        .step = checkpoint->step,
        .completed = before->completed,
        .bytes = checkpoint->complete.bytes,
    };
    error = look_judge(fs, one, out, &state);
    if (error)
        return error;
    out->busy = state == CHECKPOINT_WRITING;
    out->awaits = state == CHECKPOINT_INCOMPLETE && checkpoint->complete.awaits;
    out->newest = checkpoint->complete.time;
    out->row.state = state;
    out->row.marks |= look_marks(checkpoint, one->alone, before, state);
    if (out->adding)
        out->row.marks = (out->row.marks & ~(unsigned)CHECKPOINT_WHOLE) | (before->marks & CHECKPOINT_WHOLE);
    /* What it had when it was whole tells whether it has lost files only. */
    if (out->adding || (!look_is_safe(state) && (out->row.marks & CHECKPOINT_WHOLE)))
        out->row.bytes = before->bytes;
    return 0;
}

static errint look_at_run(struct filesystem *fs, const struct ids *copies, const struct ids *added_to,
                          const struct run *run, struct checkpoints_seen *seen)
{
    errint error = 0;
    for (size_t i = 0; i < run->count && !error; i++) {
        if (run->at[i].file)
            continue;
        const struct look_one one = {&run->at[i], run->count == 1,     copies,
                                     added_to,    seen->writers.state, seen->begun};
        error = look_stops(fs) ? -ECANCELED : look_at_one(fs, seen->run, &one, &seen->at[seen->count]);
        seen->count += !error;
        error = error == -ENOENT ? 0 : error;
    }
    return error;
}

/* The checkpoint that a copied directory lies in was copied, too: the directories above come to the list. */
static errint look_spread_copies(struct filesystem *fs, uint64_t run, struct ids *copies)
{
    errint error = 0;
    for (size_t i = 0, count = copies->count; i < count && !error; i++) {
        uint64_t directory = copies->at[i];
        for (unsigned level = 1; level < LOOK_LEVELS && directory != run && !error; level++) {
            if (meta_parent(fs->meta, directory, &directory) < 0)
                break;
            if (!ids_contain(copies, directory))
                error = ids_append(copies, directory);
        }
    }
    return error;
}

errint checkpoints_read_run(struct filesystem *fs, const struct checkpoints_asked *asked, struct run *out)
{
    cleanup_namespace_folder struct namespace_folder held = {0};
    struct checkpoints_reader reader = {.fs = fs, .run = asked->run};
    struct folder folder;
    const struct run_asked run_asked = {
        .name = asked->name,
        .separately = true,
        .awaited = asked->awaited,
        .since = asked->since,
        .memory = checkpoints_memory_of,
        .context = &reader,
    };
    errint error = namespace_folder_open(fs, asked->run, asked->stops, &held, &folder);
    held.looks = true;
    held.peeks = asked->unsafe;
    held.added_to = asked->added_to;
    return error ? error : run_read(&folder, &run_asked, out);
}

static errint look_read_run(struct filesystem *fs, const char *name, const struct ids *copies,
                            struct checkpoints_seen *out)
{
    cleanup_run struct run read = {0};
    cleanup_ids struct ids added_to = {0};
    const struct checkpoints_asked asked = {.run = out->run,
                                            .name = name,
                                            .awaited = out->writers.state == WRITERS_ALIVE,
                                            .since = out->writers.since,
                                            .added_to = &added_to,
                                            .stops = look_stops};
    errint error = checkpoints_read_run(fs, &asked, &read);
    if (!error && read.count > 0 && !(out->at = calloc(read.count, sizeof *out->at)))
        error = -ENOMEM;
    return error ? error : look_at_run(fs, copies, &added_to, &read, out);
}

errint checkpoints_look(struct filesystem *fs, uint64_t directory, struct checkpoints_seen *out)
{
    cleanup_ids struct ids copies = {0};
    struct meta_name name;
    *out = (struct checkpoints_seen){.begun = clock_file_time()};
    errint error = look_find_run(fs, directory, &out->run, &name);
    if (error || !out->run)
        return error;
    error = checkpoints_note_look(fs->checkpoints, out->run);
    if (!error)
        error = writers_gather(fs, out->run, &copies, &out->writers);
    if (!error)
        error = fault_hit("fs.look");
    if (!error)
        error = look_spread_copies(fs, out->run, &copies);
    return error ? error : look_read_run(fs, name.bytes, &copies, out);
}

void checkpoints_release_seen(struct checkpoints_seen *seen)
{
    free(seen->at);
    *seen = (struct checkpoints_seen){0};
}

errint checkpoints_sync_busy(struct filesystem *fs, const struct checkpoints_seen *seen)
{
    errint error = 0;
    const struct meta_checkpoint none = {0}; /* all that is there counts */
    bool adding = false;
    for (size_t i = 0; i < seen->count && !error; i++) {
        if (seen->at[i].busy)
            error = look_secure(fs, seen->at[i].row.directory, &none, &adding);
    }
    return error;
}
