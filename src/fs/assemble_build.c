/* SPDX-License-Identifier: Apache-2.0 */
/* From a directory's shards to a file of their extents. */
#include "fs/assemble_build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/transfer.h"
#include "ckpt/assemble.h"
#include "ckpt/assemble_source.h"
#include "ckpt/beside.h"
#include "ckpt/framework.h"
#include "ckpt/tied.h"
#include "fs/assemble_former.h"
#include "fs/assemble_names.h"
#include "fs/assemble_part.h"
#include "fs/discard.h"
#include "fs/events.h"
#include "fs/inputs.h"
#include "fs/namespace_folder.h"
#include "fs/policy.h"
#include "fs/share.h"
#include "fs/share_models.h"
#include "fs/stored.h"
#include "fs/writeback.h"
#include "meta/assembled.h"
#include "store/object.h"

enum {
    BUILD_BATCH = 256,      /* parts that one transaction maps */
    BUILD_PIECE = 8 << 20,  /* bytes that are computed or copied at a time */
    BUILD_FLUSH = 32 << 20, /* written bytes after which the disk is set to work */
};

/* -- who may read it ------------------------------------------------------------------------------------
 */

/*
 * The permissions of the directory's ordinary files: of its configuration, else those that all shards have
 * that are no safetensors files, which are made 0600 whatever the umask, else what the directory's own
 * suggest.
 */
static errint build_mode(const struct namespace_folder *folder, const struct meta_inode *directory,
                         uint32_t *mode)
{
    static const char *const configs[] = {"config.json", "adapter_config.json", "generation_config.json"};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct meta_inode row;
        errint error = namespace_find(folder->fs, directory->ino, configs[i], strlen(configs[i]), &row);
        if (error && error != -ENOENT)
            return error;
        if (!error && S_ISREG(row.mode) && row.uid == directory->uid && !(row.state & META_LENT)) {
            *mode = row.mode & 0666;
            return 0;
        }
    }
    bool ordinary = false;
    *mode = 0666;
    for (size_t i = 0; i < folder->input_count; i++) {
        size_t length = strlen(folder->inputs[i].path);
        static const char end[] = ".safetensors";
        if (length >= sizeof end && strcmp(folder->inputs[i].path + length - (sizeof end - 1), end) == 0)
            continue;
        ordinary = true;
        *mode &= folder->inputs[i].row.mode;
    }
    if (!ordinary)
        *mode = (directory->mode & 0444) | 0600;
    return 0;
}

/*
 * What the assembled file looks like. -EACCES: it would show somebody's bytes to somebody who may not read
 * them, as the owners differ.
 */
static errint build_describe(const struct namespace_folder *folder, struct meta_inode *like)
{
    struct meta_inode directory;
    errint error = meta_get(folder->fs->meta, folder->directory, &directory);
    if (!error)
        error = build_mode(folder, &directory, &like->mode);
    if (error)
        return error;
    like->uid = directory.uid;
    like->gid = directory.gid;
    like->mtime = 0;
    for (size_t i = 0; i < folder->input_count; i++) {
        const struct meta_inode *row = &folder->inputs[i].row;
        if (row->uid != directory.uid && !(row->mode & 0004))
            return -EACCES;
        if (row->gid != directory.gid)
            like->mode = (like->mode & ~(uint32_t)0070) | (like->mode & 0007) << 3;
        if (row->mtime > like->mtime)
            like->mtime = row->mtime;
    }
    return 0;
}

/* -- the file's own bytes -------------------------------------------------------------------------------
 */

struct build {
    struct filesystem *fs;
    struct namespace_folder *folder;
    const struct model *model;
    const struct assemble_file *file;
    struct assemble_sources sources;
    bool (*stops)(struct filesystem *fs);
    struct assemble_asked *asked; /* NULL: nobody */
    struct meta_assembled_part *parts;
    size_t part_count;
    uint64_t object; /* 0: none is made */
    int fd;
    int64_t written, flushed;
    bool named;   /* it gets its name in the directory too */
    uint64_t ino; /* 0: none is made */
    bool mapped;  /* the object is the inode's */
    bool wanted;  /* it was asked for, now or before */
    bool untied;  /* others' configuration, which was asked, says so */
    bool second;  /* the directory shows another form of the model already */
};

/* Half of the way is that all parts have their place, the other half that they are mapped. */
static void build_tell_progress(const struct build *build, int64_t done)
{
    if (build->asked && build->asked->progress)
        build->asked->progress(build->asked->context, build->folder->directory, done, build->file->size);
}

static errint build_open_object(struct build *build)
{
    if (build->object)
        return 0;
    uint64_t object = meta_object_next(build->fs->meta);
    if (!object)
        return -EIO;
    build->fd = object_create(build->fs->store, object);
    if (build->fd < 0)
        return build->fd;
    build->object = object;
    return 0;
}

static errint build_append(struct build *build, const void *bytes, size_t length)
{
    errint error = build_open_object(build);
    if (!error)
        error = fault_hit("fs.assemble.write");
    if (!error)
        error = transfer_write(build->fd, bytes, length, build->written);
    build->written += error ? 0 : (int64_t)length;
    if (build->written - build->flushed >= BUILD_FLUSH) {
        sync_file_range(build->fd, build->flushed, build->written - build->flushed,
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
        build->flushed = build->written;
    }
    return error;
}

/* A part that is no range of a shard's object: computed, or of a shard that has no object. */
static errint build_append_made(struct build *build, const struct assemble_part *part)
{
    cleanup_free uint8_t *piece = malloc(BUILD_PIECE);
    errint error = piece ? 0 : -ENOMEM;
    for (int64_t done = 0; done < part->length && !error;) {
        size_t length = part->length - done < BUILD_PIECE ? (size_t)(part->length - done) : BUILD_PIECE;
        if (build->stops(build->fs) || atomic_load(&build->fs->disk_full))
            return -ECANCELED;
        if (part->kind == ASSEMBLE_COMPUTE)
            error = assemble_compute(build->model, part, done, length, piece, assemble_source_read,
                                     &build->sources);
        else
            error =
                assemble_source_read(&build->sources, part->file, piece, length, part->file_offset + done);
        if (!error)
            error = build_append(build, piece, length);
        done += (int64_t)length;
    }
    return error;
}

/* Where the part's bytes are; those that are nowhere yet are written. */
static errint build_place(struct build *build, const struct assemble_part *part)
{
    struct meta_assembled_part *place = &build->parts[build->part_count];
    *place = (struct meta_assembled_part){.offset = part->offset, .length = part->length};
    if (part->length == 0)
        return 0;
    const struct namespace_input *input = NULL;
    if (part->kind == ASSEMBLE_COPY)
        input = namespace_folder_find(build->folder, build->model->files[part->file].path);
    if (part->kind == ASSEMBLE_COPY && !input)
        return -EBUSY;
    build->part_count++;
    if (input && input->row.kind == META_EXTENTS) {
        place->ino = input->row.ino;
        place->from = part->file_offset;
        return 0;
    }
    place->from = build->written;
    errint error = part->kind == ASSEMBLE_BYTES ? build_append(build, part->bytes, (size_t)part->length)
                                                : build_append_made(build, part);
    place->object = build->object;
    return error;
}

static errint build_place_all(struct build *build)
{
    build->parts = calloc(build->file->part_count + 1, sizeof *build->parts);
    if (!build->parts)
        return -ENOMEM;
    errint error = 0;
    for (size_t i = 0; i < build->file->part_count && !error; i++) {
        build_tell_progress(build, build->file->parts[i].offset / 2);
        error = build->stops(build->fs) ? -ECANCELED : build_place(build, &build->file->parts[i]);
    }
    if (!error && build->object)
        error = object_sync(build->fs->store, build->object, build->fd);
    return error;
}

/* -- the inode ------------------------------------------------------------------------------------------
 */

/* The own object first: from then on it belongs to the inode, whatever becomes of that. */
static int build_compare_parts(const void *a, const void *b)
{
    const struct meta_assembled_part *left = a, *right = b;
    bool left_own = left->object != 0, right_own = right->object != 0;
    if (left_own != right_own)
        return left_own ? -1 : 1;
    return (left->offset > right->offset) - (left->offset < right->offset);
}

static errint build_map(struct build *build)
{
    errint error = 0;
    qsort(build->parts, build->part_count, sizeof *build->parts, build_compare_parts);
    for (size_t i = 0; i < build->part_count && !error; i += BUILD_BATCH) {
        size_t rest = build->part_count - i;
        build_tell_progress(build, (build->file->size + build->parts[i].offset) / 2);
        error = build->stops(build->fs) ? -ECANCELED : fault_hit("fs.assemble.map");
        if (!error)
            error = meta_assembled_map(build->fs->meta, build->ino, build->parts + i,
                                       rest < BUILD_BATCH ? rest : BUILD_BATCH);
        build->mapped |= !error;
    }
    return error;
}

static errint build_publish(struct build *build)
{
    const struct namespace_folder *folder = build->folder;
    cleanup_free struct meta_assembled_input *inputs = calloc(folder->input_count + 2, sizeof *inputs);
    size_t count = folder->input_count;
    if (!inputs)
        return -ENOMEM;
    if (build->wanted)
        inputs[count++] =
            (struct meta_assembled_input){ASSEMBLE_ASKED_NAME, folder->directory, ASSEMBLE_NO_SHARD};
    if (folder->lacks) /* what another one may come to say of it */
        inputs[count++] = (struct meta_assembled_input){TIED_CONFIG_NAME, folder->directory,
                                                        build->untied ? ASSEMBLE_UNTIED : ASSEMBLE_NO_SHARD};
    for (size_t i = 0; i < folder->input_count; i++)
        inputs[i] = (struct meta_assembled_input){folder->inputs[i].path, folder->inputs[i].row.ino,
                                                  ASSEMBLE_NO_SHARD};
    for (size_t i = 0; i < build->model->file_count; i++) {
        const struct namespace_input *shard = namespace_folder_find(folder, build->model->files[i].path);
        if (shard)
            inputs[shard - folder->inputs].mtime = shard->row.mtime;
    }
    errint error = fault_hit("fs.assemble.publish");
    if (error)
        return error;
    if (build->second)
        return inputs_publish_more(build->fs, folder->directory, build->file->name, build->ino);
    error = inputs_publish(build->fs, folder->directory, build->file->name, build->ino, build->named, inputs,
                           count);
    if (!error)
        assemble_withdraw_parts(build->fs, folder->directory, build->model);
    return error;
}

/* What nobody will see is removed. */
static void build_undo(struct build *build)
{
    cleanup_ids struct ids freed = {0};
    if (build->ino && meta_reap(build->fs->meta, build->ino, &freed) < 0)
        log_warning("inode %llu: was not assembled; the next mount removes it",
                    (unsigned long long)build->ino);
    discard_objects(build->fs, &freed);
    if (build->object && !build->mapped)
        object_remove(build->fs->store, build->object);
}

static errint build_make(struct build *build)
{
    struct meta_inode like = {.size = build->file->size};
    errint error = build_describe(build->folder, &like);
    if (!error)
        error = build_place_all(build);
    if (!error)
        error = meta_assembled_begin(build->fs->meta, &like, &build->ino);
    if (!error)
        error = build_map(build);
    if (!error)
        error = build_publish(build);
    if (error)
        build_undo(build);
    return error;
}

static void build_release(struct build *build)
{
    assemble_sources_release(&build->sources);
    free(build->parts);
    if (build->fd >= 0)
        close(build->fd);
}

#define cleanup_build __attribute__((cleanup(build_release)))

static void build_tell(const struct build *build)
{
    cleanup_free char *path = NULL;
    atomic_fetch_add(&build->fs->counters.assembled, 1);
    if (meta_path(build->fs->meta, build->folder->directory, &path) < 0)
        path = NULL;
    log_info("assembled path=\"%s/%s\" framework=%s tensors=%zu bytes=%lld new_bytes=%lld", path ? path : "?",
             build->file->name, build->model->framework, build->model->tensor_count,
             (long long)build->file->size, (long long)build->written);
    events_emit(build->fs, &(struct event){.kind = EVENT_ASSEMBLED,
                                           .ino = build->folder->directory,
                                           .path = path,
                                           .step = -1,
                                           .framework = build->model->framework,
                                           .reason = build->file->name,
                                           .bytes = build->file->size});
}

/* -- the directory --------------------------------------------------------------------------------------
 */

/* The only file of weights under a name that no loader looks for: whose it is, the name does not say. */
static bool build_is_lone_file(const struct model *model)
{
    static const char *const standard[] = {"pytorch_model.bin", "adapter_model.bin"};
    if (model->framework != framework_single.name)
        return false;
    for (size_t i = 0; i < sizeof standard / sizeof *standard && model->file_count == 1; i++) {
        if (strcmp(model->files[0].path, standard[i]) == 0)
            return false;
    }
    return true;
}

/* Whether the file may have its name in the directory: 1, 0 or an error. */
static int build_goes_beside(const struct build *build)
{
    cleanup_folder_listing struct folder_listing listing = {0};
    enum policy_assembling assembling;
    errint error = policy_assemble(build->fs, build->folder->directory, &assembling, NULL);
    if (error || assembling == POLICY_ASSEMBLING_VIEW)
        return error;
    error = folder_read(build->sources.folder, "", &listing);
    return error ? error : beside_is_harmless(&listing, build->model);
}

static void build_refuse(struct assemble_asked *asked, const char *reason)
{
    if (asked && !asked->reason[0])
        snprintf(asked->reason, sizeof asked->reason, "%s", reason);
}

/* The first thing that is missing. */
static void build_explain(struct assemble_asked *asked, const struct model *model)
{
    for (size_t i = 0; i < model->note_count; i++) {
        if (model->notes[i].missing)
            build_refuse(asked, model->notes[i].text);
    }
    build_refuse(asked, model->tensor_count == 0 ? "no tensors are there" : "the model is not whole");
}

/* `start` has what is the same for every form of the model. */
static errint build_file(const struct build *start, enum assemble_format format)
{
    const struct assemble_wish wish = {.format = format};
    struct format_problem problem = {0};
    struct assemble_plan plan = {0};
    errint error = assemble_plan(start->model, &wish, &plan, &problem);
    if (!error && (plan.file_count != 1 || !assemble_names_has(plan.files[0].name)))
        error = -EINVAL;
    if (error == -EINVAL && problem.text[0])
        build_refuse(start->asked, problem.text);
    int named = error || start->second ? 0 : build_goes_beside(start);
    if (named < 0)
        error = named;
    if (!error) {
        cleanup_build struct build build = *start;
        build.file = &plan.files[0];
        build.named = named;
        error = build_make(&build);
        if (!error) {
            build_tell(&build);
            share_add(build.fs, build.ino); /* for the hashes of its own object */
            share_models_touch_directory(build.fs, build.folder->directory);
            stored_kick(build.fs);
        }
    }
    assemble_release(&plan);
    return error;
}

/* All forms of the model, or none. */
static errint build_files(struct build *start, const struct assemble_names *names)
{
    errint error = names->safetensors ? build_file(start, ASSEMBLE_SAFETENSORS) : 0;
    if (error || !names->torch || strcmp(start->model->framework, framework_sagemaker.name) != 0)
        return error;
    start->second = names->safetensors;
    error = build_file(start, ASSEMBLE_TORCH);
    if (error && start->second) {
        meta_assembled_withdraw(start->fs->meta, start->folder->directory, NULL);
        writeback_kick(start->fs);
    }
    return error;
}

errint assemble_build(struct filesystem *fs, uint64_t directory, struct assemble_asked *asked,
                      bool (*stops)(struct filesystem *fs))
{
    cleanup_namespace_folder struct namespace_folder folder = {0};
    struct folder reader;
    struct assemble_names names;
    errint error = assemble_names_look(fs, directory, &names);
    if (error || (!names.safetensors && !names.torch))
        return error;
    int before = assemble_was_asked(fs, directory);
    if (before < 0)
        return before;
    bool wanted = asked || before;
    inputs_begin(fs);
    error = namespace_folder_open(fs, directory, stops, &folder, &reader);
    if (error)
        return error;
    bool untied = false;
    cleanup_model struct model model;
    folder.lends = true;
    error = framework_load(&reader, NULL, &model);
    if (!error && folder.lacks)
        error = tied_is_ruled_out(&reader, &untied);
    if (error == -ENOENT)
        build_refuse(asked, "no checkpoint of a known kind is there");
    else if (!error && !model_is_whole(&model))
        build_explain(asked, &model);
    bool whole = !error && model_is_whole(&model) && (wanted || !build_is_lone_file(&model));
    int part = whole && !wanted ? assemble_is_part(fs, directory, stops) : 0;
    if (part)
        return part < 0 ? part : 0;
    errint former = whole ? assemble_check_former(&folder, &model) : 0;
    if (former && !(asked && former == -EEXIST))
        return former == -EEXIST ? 0 : former;
    struct build start = {.fs = fs,
                          .folder = &folder,
                          .model = &model,
                          .sources = {.model = &model, .folder = &reader},
                          .stops = stops,
                          .asked = asked,
                          .wanted = wanted,
                          .untied = untied,
                          .fd = -1};
    if (whole)
        error = build_files(&start, &names);
    if (folder.busy)
        return -EBUSY;
    if (asked)
        return error;
    return error == -ENOENT || error == -ENOTDIR || error == -EINVAL || error == -EFBIG ? 0 : error;
}
