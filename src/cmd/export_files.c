/* SPDX-License-Identifier: Apache-2.0 */
/* The list of files of an export. */
#include "cmd/export_files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/grow.h"
#include "base/log.h"
#include "cmd/exit.h"
#include "format/plain_text.h"

/* -- the list ---------------------------------------------------------------------------------------------
 */

static bool files_has(const struct export_files *files, const char *name)
{
    for (size_t i = 0; i < files->job.count; i++) {
        if (strcmp(files->job.files[i].name, name) == 0)
            return true;
    }
    return false;
}

/* A name that a line of the manifest cannot have. */
static bool files_is_printable(const char *name)
{
    for (; *name; name++) {
        if ((uint8_t)*name < ' ' || *name == 0x7f)
            return false;
    }
    return true;
}

/* One that is there already, or that the export has of its own, stays what it is. */
static errint files_add(struct export_files *files, const struct export_file *file)
{
    if (files_has(files, file->name) || strcmp(file->name, EXPORT_SUMS) == 0 ||
        strcmp(file->name, EXPORT_FACTS) == 0)
        return 0;
    if (!files_is_printable(file->name)) {
        cleanup_free char *plain = plain_text(file->name);
        log_warning("%s is left out: its name has control characters", plain ? plain : "?");
        return 0;
    }
    if (!grow_reserve(files->job.files, files->capacity, files->job.count + 1))
        return -ENOMEM;
    files->job.files[files->job.count++] = *file;
    return 0;
}

static errint files_add_copy(struct export_files *files, const struct folder *folder, const char *path,
                             int64_t size)
{
    const struct export_file file = {.name = path, .folder = folder, .path = path, .size = size};
    return files_add(files, &file);
}

/* -- weights ----------------------------------------------------------------------------------------------
 */

/* The kind of weights that a file's name says; NULL: none that loaders look for. */
static const struct weights_kind *files_kind_of(const char *name)
{
    const struct weights_kind *kind;
    char whole[WEIGHTS_NAME_MAX];
    for (size_t i = 0; i < WEIGHTS_KIND_COUNT; i++) {
        if (strcmp(weights_whole_name(&weights_kinds[i], whole), name) == 0)
            return &weights_kinds[i];
    }
    return weights_is_shard(name, &kind, NULL, NULL) ? kind : NULL;
}

/*
 * Whether the model's files are what loaders take, so that they are copied as they are. Files of torch's are
 * made safetensors, which all loaders take, unless they were asked for; but a quantized model stays as it is.
 */
static bool files_are_standard(const struct model_source *source, const struct model_source_wish *wish)
{
    const struct model *model = &source->model;
    if (wish->form.cast || wish->form.shard_size || wish->framework.master || model->file_count == 0)
        return false;
    if (strcmp(model->framework, "single") != 0 && strcmp(model->framework, "sharded") != 0)
        return false;
    for (size_t i = 0; i < model->file_count; i++) {
        const struct weights_kind *kind = files_kind_of(model->files[i].path);
        bool torch = kind && strcmp(kind->suffix, "bin") == 0;
        if (!kind || (torch != (wish->form.format == ASSEMBLE_TORCH) && !source->config.quantized))
            return false;
    }
    return true;
}

/* The index of shards is needed, too; without one they are no standard files. */
static errint files_add_standard(const struct model_source *source, struct export_files *files)
{
    const struct model *model = &source->model;
    struct folder_listing listing;
    errint error = folder_read(&source->folder, "", &listing);
    if (error)
        return error;
    weights_index_name(files_kind_of(model->files[0].path), files->index);
    const struct folder_entry *entry = folder_find(&listing, files->index);
    bool sharded = strcmp(model->framework, "sharded") == 0;
    if (sharded && !entry)
        error = -ENOENT;
    for (size_t i = 0; i < model->file_count && !error; i++)
        error = files_add_copy(files, &source->folder, model->files[i].path, model->files[i].size);
    if (!error && sharded)
        error = files_add_copy(files, &source->folder, files->index, entry->size);
    folder_listing_release(&listing);
    return error;
}

static int files_add_planned(const struct model_source *source, const struct model_source_wish *wish,
                             struct export_files *files)
{
    struct format_problem problem;
    errint error = assemble_plan(&source->model, &wish->form, &files->plan, &problem);
    if (error == -EINVAL) {
        cleanup_free char *text = plain_text(problem.text);
        log_error("%s: %s", source->path, text ? text : "no memory");
    }
    for (size_t i = 0; i < files->plan.file_count && !error; i++) {
        const struct assemble_file *planned = &files->plan.files[i];
        const struct export_file file = {.name = planned->name, .planned = planned, .size = planned->size};
        error = files_add(files, &file);
    }
    return error;
}

/* -- the rest ---------------------------------------------------------------------------------------------
 */

static errint files_add_beside(const struct model_source *source, struct export_files *files)
{
    const struct folder_listing *listing = &source->side.listing;
    errint error = 0;
    for (size_t i = 0; i < listing->count && !error; i++) {
        const struct folder_entry *entry = &listing->at[i];
        if (!entry->directory && side_file_is(entry->name))
            error = files_add_copy(files, &source->side.folder, entry->name, entry->size);
    }
    return error;
}

/* Whether a component of the path is hidden. */
static bool files_is_hidden(const char *path)
{
    return path[0] == '.' || strstr(path, "/.");
}

/* Whether a file is weights that the planned ones take the place of: loaders might take it instead. */
static bool files_is_superseded(const struct model *model, const struct export_files *files, const char *path)
{
    const struct weights_kind *kind = files_kind_of(path);
    char index[WEIGHTS_NAME_MAX];
    if (files->plan.file_count == 0)
        return false;
    if (kind)
        return name_table_find(&model->files_by_path, path, NULL);
    kind = model->file_count > 0 ? files_kind_of(model->files[0].path) : NULL;
    return kind && strcmp(weights_index_name(kind, index), path) == 0;
}

static errint files_add_all(const struct model_source *source, struct export_files *files)
{
    errint error = tree_read(&source->folder, TREE_DEPTH_MAX, &files->tree);
    if (!error && files->tree.cut)
        log_warning("%s: what lies deeper than %d directories, or beyond %d names, is left out", source->path,
                    TREE_DEPTH_MAX, TREE_ENTRIES_MAX);
    for (size_t i = 0; i < files->tree.count && !error; i++) {
        const struct tree_entry *entry = &files->tree.at[i];
        if (!entry->directory && !files_is_hidden(entry->path) &&
            !files_is_superseded(&source->model, files, entry->path))
            error = files_add_copy(files, &source->folder, entry->path, entry->size);
    }
    return error;
}

int export_files_choose(const struct model_source *source, const struct model_source_wish *wish, bool all,
                        struct export_files *out)
{
    struct export_job *job = &out->job;
    job->model = &source->model;
    job->folder = &source->folder;
    bool standard = files_are_standard(source, wish);
    errint error = standard ? files_add_standard(source, out) : -ENOENT;
    if (error == -ENOENT)
        error = files_add_planned(source, wish, out);
    if (!error)
        error = files_add_beside(source, out);
    if (!error && all)
        error = files_add_all(source, out);
    snprintf(out->form, sizeof out->form, "%d %d %d %lld", (int)wish->form.format, wish->form.cast,
             (int)wish->form.type, (long long)wish->form.shard_size);
    if (!error)
        error = export_identify(job, out->form);
    if (error == -EINVAL)
        return EXIT_FAILED; /* said where it was found */
    if (error)
        log_error("%s: %s", source->path, strerror(-error));
    return error ? EXIT_FAILED : EXIT_FINE;
}

bool export_files_are_unchanged(const struct export_files *files)
{
    struct export_job now = files->job;
    return export_identify(&now, files->form) == 0 && strcmp(now.fingerprint, files->job.fingerprint) == 0;
}

void export_files_release(struct export_files *files)
{
    free(files->job.files);
    tree_release(&files->tree);
    assemble_release(&files->plan);
    *files = (struct export_files){0};
}
