/* SPDX-License-Identifier: Apache-2.0 */
/* Any files under the names that frameworks use: what is read of them is a model or a refusal; and of a model
 * every byte of the files that it is assembled to comes from inside of what is there. Whether it is complete
 * is told of all of them. */
/* fuzz-sources: src/ckpt src/format src/meta src/store src/base */
/* fuzz-libs: -lxxhash -ldeflate -lcjson -lsqlite3 -lcrypto */
#include <errno.h>
#include <stdio.h>

#include "ckpt/assemble.h"
#include "ckpt/framework.h"
#include "ckpt/run.h"
#include "fuzz_source.h"

/* The input: files one after the other, each the number of its name, its length (two bytes), its bytes. */
static const char *const fuzz_names[] = {
    "model.safetensors",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model-00002-of-00002.bin",
    "adapter_model.safetensors",
    "trainer_state.json",
    "config.json",
    "latest",
    "pytorch_model_fsdp.bin",
    "pytorch_model_fsdp_0/.metadata",
    "pytorch_model_fsdp_0/__0_0.distcp",
    "pytorch_model_fsdp_0/__1_0.distcp",
    "global_step5/mp_rank_00_model_states.pt",
    "global_step5/zero_pp_rank_0_mp_rank_00_model_states.pt",
    "global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "global_step5/zero_pp_rank_1_mp_rank_00_optim_states.pt",
    "global_step5/mp_rank_01_model_states.pt",
    "global_step5/zero_pp_rank_1_mp_rank_00_model_states.pt",
    "global_step5/layer_00-model_states.pt",
    "rank0-of-2-pytorch_model.bin",
    "rank1-of-2-pytorch_model.bin",
    "user_content.pt",
    "last.ckpt",
    "shard-00001-model-00001-of-00001.safetensors",
    "shard-00002-model-00001-of-00001.safetensors",
    "model_world_size_2_rank_0.pt",
    "model_world_size_2_rank_1.pt",
    "pytorch_model_fsdp_0_rank0.bin",
    "pytorch_model_fsdp_0_rank1.bin",
};

enum { FUZZ_NAMES = sizeof fuzz_names / sizeof *fuzz_names, FUZZ_MADE_MAX = 1 << 20 };

struct fuzz_folder {
    struct fuzz_input files[FUZZ_NAMES];
    bool there[FUZZ_NAMES];
};

static void fuzz_split(struct fuzz_folder *folder, const uint8_t *data, size_t size)
{
    while (size >= 3) {
        unsigned name = data[0] % FUZZ_NAMES;
        size_t length = data[1] | (size_t)data[2] << 8;
        data += 3;
        size -= 3;
        if (length > size)
            length = size;
        folder->files[name] = (struct fuzz_input){data, length};
        folder->there[name] = true;
        data += length;
        size -= length;
    }
}

static errint fuzz_list(void *context, const char *path,
                        bool (*visit)(void *visit_context, const struct folder_entry *entry),
                        void *visit_context)
{
    const struct fuzz_folder *folder = context;
    size_t prefix = strlen(path);
    char last[64] = "";
    for (unsigned i = 0; i < FUZZ_NAMES; i++) {
        const char *rest = fuzz_names[i];
        char name[64];
        if (!folder->there[i] || strncmp(rest, path, prefix) != 0 || (prefix > 0 && rest[prefix] != '/'))
            continue;
        rest += prefix > 0 ? prefix + 1 : 0;
        const char *slash = strchr(rest, '/');
        snprintf(name, sizeof name, "%.*s", slash ? (int)(slash - rest) : (int)strlen(rest), rest);
        /* Files of one directory stand together. */
        if (slash && strcmp(name, last) == 0)
            continue;
        snprintf(last, sizeof last, "%s", name);
        const struct folder_entry entry = {
            .name = name, .directory = slash, .size = slash ? 0 : (int64_t)folder->files[i].size};
        if (!visit(visit_context, &entry))
            break;
    }
    return 0;
}

static errint fuzz_open(void *context, const char *path, struct format_source *out)
{
    struct fuzz_folder *folder = context;
    if (!folder_path_is_safe(path))
        abort();
    for (unsigned i = 0; i < FUZZ_NAMES; i++) {
        if (folder->there[i] && strcmp(fuzz_names[i], path) == 0) {
            *out = fuzz_source(&folder->files[i]);
            return 0;
        }
    }
    return -ENOENT;
}

static void fuzz_close(void *context, struct format_source *source)
{
    (void)context;
    (void)source;
}

/* -- plans ------------------------------------------------------------------------------------------------
 */

struct fuzz_reader {
    const struct folder *folder;
    const struct model *model;
};

static errint fuzz_read_model(void *context, uint32_t file, void *buffer, size_t length, int64_t offset)
{
    const struct fuzz_reader *reader = context;
    struct format_source source;
    if (file >= reader->model->file_count ||
        folder_open(reader->folder, reader->model->files[file].path, &source) != 0)
        abort();
    return source.read(source.context, buffer, length, offset);
}

static void fuzz_check_part(const struct fuzz_reader *reader, const struct assemble_part *part)
{
    uint8_t bytes[512];
    if (part->kind == ASSEMBLE_COPY) {
        const struct model_file *file = &reader->model->files[part->file];
        if (part->file_offset < 0 || part->length > file->size ||
            part->file_offset > file->size - part->length)
            abort();
    }
    /* Odd steps, so that elements are cut. */
    for (int64_t done = 0;
         part->kind == ASSEMBLE_COMPUTE && part->length < FUZZ_MADE_MAX && done < part->length;) {
        size_t length = part->length - done < 509 ? (size_t)(part->length - done) : 509;
        if (assemble_compute(reader->model, part, done, length, bytes, fuzz_read_model, (void *)reader) != 0)
            abort();
        done += (int64_t)length;
    }
}

static void fuzz_check_plan(const struct fuzz_reader *reader, const struct assemble_wish *wish)
{
    struct assemble_plan plan;
    struct format_problem problem;
    errint error = assemble_plan(reader->model, wish, &plan, &problem);
    if (error && error != -EINVAL && error != -ENOMEM)
        abort();
    for (size_t i = 0; i < plan.file_count && !error; i++) {
        int64_t at = 0;
        for (size_t j = 0; j < plan.files[i].part_count; j++) {
            if (plan.files[i].parts[j].offset != at || plan.files[i].parts[j].length <= 0)
                abort();
            fuzz_check_part(reader, &plan.files[i].parts[j]);
            at += plan.files[i].parts[j].length;
        }
        if (at != plan.files[i].size)
            abort();
    }
    assemble_release(&plan);
}

/* -- whether it is complete -------------------------------------------------------------------------------
 */

static void fuzz_check_verdict(const struct complete *complete)
{
    bool missing = complete->notes_left_out > 0;
    for (size_t i = 0; i < complete->note_count; i++) {
        missing |= complete->notes[i].missing;
        if (strlen(complete->notes[i].text) >= COMPLETE_NOTE_LENGTH)
            abort();
    }
    if (complete->note_count > COMPLETE_NOTES_MAX || (complete->state == COMPLETE_NOT && !missing))
        abort();
    for (size_t i = 0; i < complete->note_count; i++) {
        if (complete->notes[i].missing && complete->state != COMPLETE_NOT)
            abort();
    }
    if (complete->progress.metric_count > TRAINER_METRICS_MAX)
        abort();
}

static void fuzz_check_run(const struct folder *folder, bool named)
{
    const struct run_asked asked = {.name = named ? "checkpoint-5" : "run", .all_reasons = true};
    cleanup_run struct run run;
    errint error = run_read(folder, &asked, &run);
    if (error && error != -ENOMEM)
        abort();
    for (size_t i = 0; i < run.count && !error; i++)
        fuzz_check_verdict(&run.at[i].complete);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_folder files = {0};
    struct folder folder = {.context = &files, .list = fuzz_list, .open = fuzz_open, .close = fuzz_close};
    struct framework_wish wish = {.master = size > 0 && (data[0] & 0x80)};
    cleanup_model struct model model;
    fuzz_split(&files, data, size);
    fuzz_check_run(&folder, wish.master);
    errint error = framework_load(&folder, &wish, &model);
    if (error && error != -ENOENT && error != -ENOMEM)
        abort();
    if (error || !model_is_whole(&model))
        return 0;
    struct fuzz_reader reader = {&folder, &model};
    for (unsigned i = 0; i < 4; i++) {
        struct assemble_wish form = {.format = i & 1 ? ASSEMBLE_TORCH : ASSEMBLE_SAFETENSORS,
                                     .cast = i & 2,
                                     .type = TENSOR_BF16,
                                     .shard_size = i == 3 ? 16 : 0};
        fuzz_check_plan(&reader, &form);
    }
    return 0;
}
