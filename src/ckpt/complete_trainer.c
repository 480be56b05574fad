/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What trainers write around the weights: the HuggingFace Trainer and accelerate, Lightning, Megatron-LM,
 * SageMaker.
 *
 * The Trainer writes the weights, then the optimizer's state, the scheduler's, that of the random generators
 * (each process its own), and trainer_state.json last. With save_only_model only the first and the last are
 * there.
 */
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/complete_internal.h"
#include "ckpt/framework.h"
#include "format/torch_file.h"

/* What lies in the checkpoint's own directory. */
struct trainer_files {
    bool state;             /* trainer_state.json */
    bool optimizer;         /* of any kind */
    bool scheduler, random; /* the Trainer's */
    bool arguments;         /* training_args.bin */
    bool adapter, adapter_config;
    bool config, generation_config;
    bool accelerate, accelerate_random;
    bool sagemaker, megatron;
    bool fsdp, fsdp_ranks;
    const char *lightning;    /* the first *.ckpt */
    int64_t ranks, processes; /* highest number of rng_state_R.pth plus one; how many there are */
    bool random_of_all;       /* rng_state.pth: every rank writes that one */
    int64_t accelerate_ranks, accelerate_processes;
};

/* -- names ------------------------------------------------------------------------------------------------
 */

/* The R of a name like rng_state_R.pth. */
static bool trainer_take_rank(const char *name, const char *format, int64_t *ranks, int64_t *count)
{
    unsigned rank;
    int length = 0;
    if (sscanf(name, format, &rank, &length) != 1 || length == 0 || name[length] || rank >= INT32_MAX)
        return false;
    if ((int64_t)rank >= *ranks)
        *ranks = (int64_t)rank + 1;
    (*count)++;
    return true;
}

static void trainer_look_at_file(struct trainer_files *files, const char *name)
{
    files->state |= strcmp(name, "trainer_state.json") == 0;
    files->scheduler |= strcmp(name, "scheduler.pt") == 0;
    files->arguments |= strcmp(name, "training_args.bin") == 0;
    files->config |= strcmp(name, "config.json") == 0;
    files->generation_config |= strcmp(name, "generation_config.json") == 0;
    files->adapter |= fnmatch("adapter_model.*", name, 0) == 0;
    files->adapter_config |= strcmp(name, "adapter_config.json") == 0;
    files->optimizer |= strcmp(name, "optimizer.pt") == 0 || fnmatch("optimizer*.bin", name, 0) == 0;
    files->accelerate |= fnmatch("scheduler*.bin", name, 0) == 0 || fnmatch("sampler*.bin", name, 0) == 0;
    files->sagemaker |= strcmp(name, "user_content.pt") == 0 || fnmatch("optimizer.pt_*", name, 0) == 0;
    files->fsdp |= fnmatch("pytorch_model_fsdp*.bin", name, 0) == 0;
    files->fsdp_ranks |= fnmatch("pytorch_model_fsdp*rank*.bin", name, 0) == 0;
    if (strcmp(name, "rng_state.pth") == 0) {
        files->random_of_all = true;
        files->processes++;
        if (files->ranks == 0)
            files->ranks = 1;
    }
    trainer_take_rank(name, "rng_state_%9u.pth%n", &files->ranks, &files->processes);
    trainer_take_rank(name, "random_states_%9u.pkl%n", &files->accelerate_ranks,
                      &files->accelerate_processes);
    if (!files->lightning && fnmatch("*.ckpt", name, FNM_PERIOD) == 0)
        files->lightning = name;
}

static void trainer_look(const struct complete_work *work, struct trainer_files *files)
{
    unsigned number;
    for (size_t i = 0; i < work->tree.count; i++) {
        const struct tree_entry *entry = &work->tree.at[i];
        if (tree_directory_length(entry) == 0 && !entry->directory)
            trainer_look_at_file(files, entry->name);
        else if (tree_directory_length(entry) == 0)
            files->optimizer |= sscanf(entry->name, "optimizer_%9u", &number) == 1;
        files->megatron |= !entry->directory && (strcmp(entry->name, "model_optim_rng.pt") == 0 ||
                                                 strcmp(entry->name, "model_rng.pt") == 0);
    }
    files->random = files->processes > 0;
    files->accelerate_random = files->accelerate_processes > 0;
    files->accelerate |= files->accelerate_random;
}

/* checkpoint-N */
static bool trainer_is_named(const char *name)
{
    static const char start[] = "checkpoint-";
    size_t length = sizeof start - 1;
    return strncmp(name, start, length) == 0 && name[length] &&
           strspn(name + length, "0123456789") == strlen(name + length);
}

/* -- random generators ------------------------------------------------------------------------------------
 */

/* So many of the ranks have not written theirs. */
static errint trainer_tell_random(struct complete *out, int64_t missing, int64_t ranks, bool awaited)
{
    const char *plural = missing == 1 ? "" : "s";
    out->awaits += awaited;
    if (awaited)
        return complete_add_note(out, true,
                                 "rng_state_N.pth of %" PRId64 " process%s of %" PRId64 " %s not there yet",
                                 missing, missing == 1 ? "" : "es", ranks, missing == 1 ? "is" : "are");
    return complete_add_note(
        out, false, "the state%s of the random generators of %" PRId64 " of %" PRId64 " processes never came",
        plural, missing, ranks);
}

errint complete_expect_ranks(struct complete *complete, int64_t ranks, bool awaited)
{
    if (complete->random_states == 0 || ranks <= complete->world_size)
        return 0;
    if (awaited) {
        complete->world_size = ranks;
        complete->state = COMPLETE_NOT;
    }
    return trainer_tell_random(complete, ranks - complete->random_states, ranks, awaited);
}

/* A rank's file may come after all others, or never: nothing else depends on it. A Trainer that takes itself
 * for the only process, as with DeepSpeed on the CPU, has one name for all ranks. */
static errint trainer_judge_random(struct complete_work *work, const struct trainer_files *files)
{
    complete_saw_ranks(work, files->ranks);
    if (!files->random_of_all)
        work->out->random_states = files->processes;
    if (!files->random || files->random_of_all || files->processes >= work->out->world_size)
        return 0;
    work->missing |= work->asked->awaited;
    return trainer_tell_random(work->out, work->out->world_size - files->processes, work->out->world_size,
                               work->asked->awaited);
}

/* -- the Trainer ------------------------------------------------------------------------------------------
 */

/* Weights have been found; with trainer_state.json, which comes last, everything else has to be there. */
static errint trainer_judge_rest(struct complete_work *work, const struct trainer_files *files)
{
    bool optimizer = files->optimizer || work->optimizer || files->sagemaker;
    errint error = 0;
    if (!work->model && !files->fsdp)
        error = complete_miss(work, "the weights are missing");
    if (!files->random && !files->scheduler && !optimizer)
        return error;
    if (!optimizer && !error)
        error = complete_miss(work, "optimizer.pt is missing");
    if (!files->scheduler && !work->deepspeed && !error)
        error = complete_miss(work, "scheduler.pt is missing");
    if (!files->random && !error)
        error = complete_miss(work, "rng_state.pth, or those of the ranks, are missing");
    return error;
}

static errint trainer_judge_state(struct complete_work *work, const struct trainer_files *files)
{
    struct complete *out = work->out;
    bool named = trainer_is_named(work->asked->name);
    bool resumable = files->random || files->scheduler || files->optimizer || work->deepspeed;
    /* A run's own directory may have one of the whole run. */
    if (files->state && (!work->asked->own_level || resumable)) {
        if (out->step < 0)
            out->step = out->progress.step;
        return trainer_judge_rest(work, files);
    }
    if (files->accelerate || files->sagemaker || work->asked->own_level)
        return 0;
    if ((named && files->arguments) || files->random || files->scheduler)
        return complete_miss(work, "trainer_state.json is missing: a Trainer writes it last");
    if (named && (work->model || files->fsdp || work->tree.files == 0 || files->config))
        return complete_doubt(work, "a Trainer would write trainer_state.json last, and it is not there");
    return 0;
}

/* What loaders need beside weights, and what is written with it. */
static errint trainer_judge_configs(struct complete_work *work, const struct trainer_files *files)
{
    errint error = 0;
    if (files->generation_config && !files->config)
        error = complete_miss(work, "config.json is missing");
    if (files->adapter && !files->adapter_config && !error)
        error = complete_miss(work, "adapter_config.json is missing");
    if (files->adapter_config && !files->adapter && !work->model && !files->fsdp && !error)
        error = complete_miss(work, "adapter_model.safetensors is missing");
    return error;
}

/* -- others -----------------------------------------------------------------------------------------------
 */

/* accelerate's save_state: the random generators' states come last, but for objects that people register. */
static errint trainer_judge_accelerate(struct complete_work *work, const struct trainer_files *files)
{
    if (!files->accelerate)
        return 0;
    complete_saw_ranks(work, files->accelerate_ranks);
    if (!files->accelerate_random)
        return complete_miss(work, "random_states_0.pkl is missing: accelerate writes it last");
    if (!work->model && !files->fsdp)
        return complete_miss(work, "the weights are missing");
    if (files->accelerate_processes < work->out->world_size)
        return complete_miss(work, "random_states_N.pkl of %" PRId64 " of %" PRId64 " processes are missing",
                             work->out->world_size - files->accelerate_processes, work->out->world_size);
    return 0;
}

/* A whole checkpoint in one file. */
static errint trainer_judge_lightning(struct complete_work *work, const struct trainer_files *files)
{
    cleanup_torch_file struct torch_file file = {0};
    struct format_source source;
    struct format_problem problem = {.offset = -1};
    if (!files->lightning || work->model || work->dcp || !complete_may_read(work))
        return 0;
    errint error = folder_open(work->folder, files->lightning, &source);
    if (error)
        return error == -ENOENT || error == -EISDIR ? 0 : error;
    int result = torch_file_read(&source, 0, source.size, &file, &problem);
    folder_close(work->folder, &source);
    if (result == FORMAT_FOREIGN)
        return complete_miss(work, "%s: %s", files->lightning, problem.text);
    if (result)
        return result;
    int64_t step;
    if (pickle_integer(pickle_get(file.root, "global_step"), &step) && step >= 0)
        work->out->step = step;
    work->model = pickle_is_dict(pickle_get(file.root, "state_dict"));
    work->optimizer = pickle_get(file.root, "optimizer_states") != NULL;
    work->out->framework = framework_lightning.name;
    return 0;
}

/* What knows neither how many files there are to be, nor writes it down. */
static errint trainer_judge_unknown(struct complete_work *work, const struct trainer_files *files)
{
    errint error = 0;
    if (files->megatron) {
        work->out->framework = "megatron";
        error = complete_doubt(work, "how many ranks Megatron-LM saved is in none of its files");
    }
    if (files->sagemaker && !error) {
        work->out->framework = framework_sagemaker.name;
        error = complete_doubt(work, "how many parts SageMaker's optimizer has is in none of its files");
    }
    return error;
}

static void trainer_name_framework(struct complete_work *work, const struct trainer_files *files)
{
    struct complete *out = work->out;
    bool trainer = files->state || files->random || files->arguments;
    if (strcmp(out->framework, "unknown") != 0)
        return;
    if (work->dcp && tree_find_file(&work->tree, "", 0, "common.pt"))
        out->framework = "megatron-torch-dist";
    else if (work->dcp)
        out->framework = files->optimizer || trainer ? "fsdp-sharded" : framework_dcp.name;
    else if (files->fsdp)
        out->framework = files->fsdp_ranks ? "fsdp-ranks" : framework_fsdp_file.name;
    else if (files->accelerate)
        out->framework = "accelerate";
    else if (trainer || work->model)
        out->framework = files->adapter ? "peft" : "transformers";
}

/* The log in it grows with the run: it is read once. */
static errint trainer_read_progress(struct complete_work *work)
{
    const struct complete_memory *memory = work->asked->memory;
    struct trainer_progress *progress = &work->out->progress;
    const struct tree_entry *file = tree_find(&work->tree, "trainer_state.json");
    if (memory && file && memory->recall_progress(memory->context, file, progress))
        return 0;
    errint error = trainer_progress_read(work->folder, progress);
    if (!error && memory && file && progress->whole)
        memory->keep_progress(memory->context, file, progress);
    return error;
}

errint complete_judge_trainer(struct complete_work *work)
{
    static errint (*const parts[])(struct complete_work * work, const struct trainer_files *files) = {
        trainer_judge_configs,    trainer_judge_random,    trainer_judge_state,
        trainer_judge_accelerate, trainer_judge_lightning, trainer_judge_unknown,
    };
    struct trainer_files files = {0};
    errint error = trainer_read_progress(work);
    trainer_look(work, &files);
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !error; i++)
        error = parts[i](work, &files);
    trainer_name_framework(work, &files);
    work->model |= files.fsdp;
    work->optimizer |= files.optimizer;
    work->out->sharded |= files.fsdp;
    return error;
}
