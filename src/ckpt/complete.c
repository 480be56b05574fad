/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a checkpoint is complete: markers, files one by one, and the verdict over all parts. */
#include "ckpt/complete.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/complete_internal.h"
#include "ckpt/complete_markers.h"
#include "ckpt/complete_names.h"
#include "ckpt/optimizer_files.h"
#include "format/internal.h"

enum { COMPLETE_MEMORY = 32 << 20, COMPLETE_CONFIG_MAX = 16 << 20 };

const char *complete_state_name(enum complete_state state)
{
    static const char *const names[] = {
        [COMPLETE_UNKNOWN] = "unknown",
        [COMPLETE_NOT] = "incomplete",
        [COMPLETE_WEIGHTS] = "weights-only",
        [COMPLETE_YES] = "complete",
    };
    return names[state];
}

errint complete_add_note(struct complete *out, bool missing, const char *format, ...)
{
    char text[COMPLETE_NOTE_LENGTH];
    va_list arguments;
    out->missing += missing;
    if (out->note_count == COMPLETE_NOTES_MAX) {
        out->notes_left_out++;
        return 0;
    }
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0)
        return -EINVAL;
    for (char *at = text; *at; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    }
    const char *copy = arena_copy_text(&out->arena, text, strlen(text));
    if (!copy)
        return -ENOMEM;
    out->notes[out->note_count++] = (struct complete_note){missing, copy};
    return 0;
}

/* -- markers ----------------------------------------------------------------------------------------------
 */

static errint complete_judge_markers(struct complete_work *work)
{
    const struct complete_asked *asked = work->asked;
    errint error = 0;
    if (complete_marker_of(asked->name, true) == MARKER_UNFINISHED)
        error = complete_miss(work, "its name, %s, says that it is not finished", asked->name);
    for (size_t i = 0; i < work->tree.count && !error; i++) {
        const struct tree_entry *entry = &work->tree.at[i];
        enum complete_marker marker = complete_marker_of(entry->name, entry->directory);
        if (marker == MARKER_UNFINISHED)
            error = complete_miss(work, "%s is there: the save has not ended", entry->path);
        else if (marker == MARKER_PROOF && tree_directory_length(entry) == 0)
            work->marker = entry->name;
    }
    return error;
}

/* -- files one by one -------------------------------------------------------------------------------------
 */

static errint complete_judge_file(struct complete_work *work, const struct tree_entry *file)
{
    const struct complete_memory *memory = work->asked->memory;
    struct format_problem problem;
    enum file_state state;
    if (memory && memory->is_whole(memory->context, file))
        return 0;
    errint error = file_check(work->folder, file->path, &state, &problem);
    if (error == -ENOENT || error == -EISDIR)
        return complete_miss(work, "%s was removed meanwhile", file->path);
    if (error)
        return error;
    if (state == FILE_CUT && problem.offset >= 0)
        return complete_miss(work, "%s, offset %" PRId64 ": %s", file->path, problem.offset, problem.text);
    if (state == FILE_CUT)
        return complete_miss(work, "%s: %s", file->path, problem.text);
    if (memory && state == FILE_WHOLE)
        memory->keep_whole(memory->context, file);
    return 0;
}

errint complete_judge_files(struct complete_work *work)
{
    errint error = 0;
    for (size_t i = 0; i < work->tree.count && !error && complete_may_read(work); i++) {
        if (!work->tree.at[i].directory && !work->tree.at[i].shed)
            error = complete_judge_file(work, &work->tree.at[i]);
    }
    return error;
}

/* Files whose bytes, or some of them, were given up were whole before, and are not read. */
static errint complete_judge_shed(struct complete_work *work)
{
    struct complete *out = work->out;
    for (size_t i = 0; i < work->tree.count; i++) {
        struct tree_entry *entry = &work->tree.at[i];
        entry->shed = !entry->directory && entry->size > 0 &&
                      (optimizer_file_is(entry->path) || optimizer_file_may_be_mixed(entry->path)) &&
                      folder_is_shed(work->folder, entry->path);
        out->shed |= entry->shed;
    }
    return out->shed ? complete_add_note(out, false, "the optimizer's state was given up for its space") : 0;
}

static bool complete_has_config(const struct tree *tree)
{
    for (size_t i = 0; i < tree->count; i++) {
        const struct tree_entry *entry = &tree->at[i];
        if (!entry->directory &&
            (strcmp(entry->name, "config.json") == 0 || strcmp(entry->name, "adapter_config.json") == 0))
            return true;
    }
    return false;
}

/* -- what it is compared with others by -------------------------------------------------------------------
 */

static errint complete_hash_config(struct complete_work *work)
{
    static const char *const files[] = {"config.json", "adapter_config.json"};
    struct complete *out = work->out;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        cleanup_free char *text = NULL;
        size_t length;
        if (!tree_find_file(&work->tree, "", 0, files[i]))
            continue;
        errint error = folder_read_text(work->folder, files[i], COMPLETE_CONFIG_MAX, &text, &length);
        if (error)
            return error == -EFBIG || error == -ENOENT || error == -EISDIR ? 0 : error;
        out->config_hash = FORMAT_HASH_START;
        for (size_t at = 0; at < length; at++)
            out->config_hash = format_hash_byte(out->config_hash, (uint8_t)text[at]);
        out->config_hash |= out->config_hash == 0;
        return 0;
    }
    return 0;
}

/* -- the verdict ------------------------------------------------------------------------------------------
 */

static enum complete_state complete_decide(const struct complete_work *work)
{
    bool proven = work->asked->proof || work->marker;
    if (work->missing)
        return COMPLETE_NOT;
    if (work->unsure || !work->model)
        return !proven ? COMPLETE_UNKNOWN : work->out->shed ? COMPLETE_WEIGHTS : COMPLETE_YES;
    return work->optimizer && !work->out->shed ? COMPLETE_YES : COMPLETE_WEIGHTS;
}

static errint complete_conclude(struct complete_work *work)
{
    struct complete *out = work->out;
    const char *proof = work->marker ? work->marker : work->asked->proof;
    errint error = 0;
    if (work->tree.cut)
        error = complete_doubt(work, "it has too many files, or directories too deep, to be looked through");
    if (!error && work->tree.files == 0)
        error = complete_miss(work, "no file is in it");
    else if (!error && !work->missing && !work->model)
        error = complete_add_note(out, false, "no model of a known format is in it");
    if (!error && proof)
        error = complete_add_note(out, false, "%s says that it is complete", proof);
    out->state = complete_decide(work);
    return error;
}

static errint complete_judge_parts(struct complete_work *work)
{
    static errint (*const parts[])(struct complete_work * work) = {
        complete_judge_markers, complete_judge_shed,      complete_judge_sets,
        complete_judge_indexes, complete_judge_deepspeed, complete_judge_dcp,
        complete_judge_trainer, complete_judge_files,     complete_hash_config,
    };
    errint error = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !error; i++)
        error = parts[i](work);
    return error;
}

errint complete_judge(const struct folder *folder, const struct complete_asked *asked, struct complete *out)
{
    struct complete_work work = {.folder = folder, .asked = asked, .out = out};
    *out = (struct complete){
        .arena = {.limit = COMPLETE_MEMORY}, .framework = "unknown", .step = -1, .progress.step = -1};
    errint error = tree_read(folder, asked->own_level ? 0 : TREE_DEPTH_MAX, &work.tree);
    out->bytes = work.tree.bytes;
    out->time = work.tree.newest;
    out->files = work.tree.files;
    out->config = complete_has_config(&work.tree);
    if (!error)
        error = complete_judge_parts(&work);
    if (!error)
        error = complete_names_collect(&work.tree, out);
    if (!error)
        error = complete_conclude(&work);
    if (!error && asked->expected)
        error = complete_expect(out, asked->expected);
    tree_release(&work.tree);
    return error;
}

/* What a checkpoint may lack that the others have. */
struct complete_leave {
    bool
        resume; /* it was saved as a model only: the Trainer's last file is there, and nothing for a resume */
    bool lent;  /* its shards came without anything that loaders need besides: the others were lent theirs */
};

static struct complete_leave complete_find_leave(const struct complete *complete)
{
    struct complete_leave leave = {.resume = complete->state == COMPLETE_WEIGHTS && complete->progress.whole,
                                   .lent = complete->sharded};
    for (size_t i = 0; i < complete->names.count && leave.lent; i++)
        leave.lent = !complete_names_is_lent(complete->names.at[i]);
    return leave;
}

errint complete_expect(struct complete *complete, const struct complete_names *expected)
{
    errint error = 0;
    const struct complete_leave leave = complete_find_leave(complete);
    for (size_t i = 0; i < expected->count && !error; i++) {
        const char *name = expected->at[i];
        if (complete_names_has(&complete->names, name) ||
            (leave.resume && complete_names_is_for_resume(name)) ||
            (leave.lent && complete_names_is_lent(name)))
            continue;
        complete->state = COMPLETE_NOT;
        complete->others++;
        error = complete_add_note(complete, true, "%s is missing: the run's other checkpoints have it", name);
    }
    return error;
}

void complete_release(struct complete *complete)
{
    arena_release(&complete->arena);
    *complete = (struct complete){0};
}
