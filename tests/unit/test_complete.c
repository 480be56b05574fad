/* SPDX-License-Identifier: Apache-2.0 */
/* Which checkpoints are complete: files that are cut or missing, markers, ranks, and what others of the run
 * have. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "check.h"
#include "ckpt/folder_below.h"
#include "ckpt/optimizer_files.h"
#include "test_ckpt_run.h"

/* -- a Trainer's checkpoint -------------------------------------------------------------------------------
 */

static void test_trainer(void)
{
    run_begin();
    run_put_trainer("checkpoint-10");
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-10"));
}

static void test_every_prefix_of_a_save(void)
{
    run_begin();
    for (size_t i = 0; trainer_files[i]; i++) {
        cleanup_bytes struct bytes file = {0};
        char path[512];
        snprintf(path, sizeof path, "checkpoint-10/%s", trainer_files[i]);
        run_put_trainer_file("checkpoint-10", trainer_files[i]);
        run_get(path, &file);
        /* Step by step through small files, by large steps through others. */
        for (size_t length = 0; length < file.count; length += 1 + length / 4) {
            run_cut(path, length);
            CHECK(run_state("checkpoint-10") != COMPLETE_YES);
            CHECK(run_state("checkpoint-10") != COMPLETE_WEIGHTS);
            run_put_trainer_file("checkpoint-10", trainer_files[i]);
        }
        CHECK((run_state("checkpoint-10") == COMPLETE_YES) == (trainer_files[i + 1] == NULL));
    }
}

/* Files without which it still is complete: each rank's generators. */
static bool may_be_missing(const char *file)
{
    return strncmp(file, "rng_state_", 10) == 0;
}

static void test_every_file_removed_or_cut(void)
{
    run_begin();
    run_put_trainer("checkpoint-10");
    run_put_trainer("checkpoint-20");
    run_put_trainer("checkpoint-30");
    for (size_t i = 0; trainer_files[i]; i++) {
        cleanup_bytes struct bytes file = {0};
        char path[512];
        snprintf(path, sizeof path, "checkpoint-20/%s", trainer_files[i]);
        run_get(path, &file);
        run_remove(path);
        CHECK_EQUAL(may_be_missing(trainer_files[i]) ? COMPLETE_YES : COMPLETE_NOT,
                    run_state("checkpoint-20"));
        CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-10"));
        CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-30"));
        for (unsigned part = 0; part < 4; part++) {
            run_put(path, file.at, part < 3 ? file.count * part / 3 : file.count - 1);
            CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-20"));
        }
        run_put(path, file.at, file.count);
    }
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-20"));
}

static void test_weights_only(void)
{
    static const char *const resume[] = {"optimizer.pt", "scheduler.pt", "rng_state_0.pth",
                                         "rng_state_1.pth"};
    run_begin();
    run_put_trainer("checkpoint-10");
    for (size_t i = 0; i < sizeof resume / sizeof *resume; i++) {
        char path[512];
        CHECK(run_state("checkpoint-10") != COMPLETE_WEIGHTS);
        snprintf(path, sizeof path, "checkpoint-10/%s", resume[i]);
        run_remove(path);
    }
    CHECK_EQUAL(COMPLETE_WEIGHTS, run_state("checkpoint-10"));
    /* Also beside those that have one, when the run goes on in another way: what is written last is there. */
    run_put_trainer("checkpoint-5");
    run_put_trainer("checkpoint-20");
    CHECK_EQUAL(COMPLETE_WEIGHTS, run_state("checkpoint-10"));
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-20"));
    run_remove("checkpoint-20/optimizer.pt");
    CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-20"));
    run_put_trainer("checkpoint-20");
    /* Everything else is missed as before. */
    run_remove("checkpoint-10/training_args.bin");
    CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-10"));
    run_put_trainer_file("checkpoint-10", "training_args.bin");
    CHECK_EQUAL(COMPLETE_WEIGHTS, run_state("checkpoint-10"));
    run_put_text("checkpoint-10/trainer_state.json", "{\"global_step\": 1");
    CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-10"));
    run_remove("checkpoint-10/trainer_state.json");
    CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-10"));
}

/* Of a file that was changed so long before a time that is long ago. */
static void set_age(const char *file, int64_t seconds)
{
    const struct timespec times[2] = {{.tv_sec = 1000000 - seconds}, {.tv_sec = 1000000 - seconds}};
    CHECK_EQUAL(0, utimensat(AT_FDCWD, run_path(file), times, 0));
}

/* Beside some shards a mount shows what others lend; beside others not yet, or it was removed. */
static void test_lent(void)
{
    static const char *const all[] = {"checkpoint-10", "checkpoint-20", "checkpoint-30"};
    run_begin();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/pytorch_model_fsdp_rank0.bin", all[i]);
        run_put_torch(path);
        for (size_t file = 5; trainer_files[file]; file++)
            run_put_trainer_file(all[i], trainer_files[file]);
    }
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-30"));
    for (size_t i = 0; i < 2; i++) {
        for (size_t file = 0; file < 4; file++) {
            char path[512];
            snprintf(path, sizeof path, "%s/%s", all[i], trainer_files[file]);
            run_put_trainer_file(all[i], trainer_files[file]);
            set_age(path, 0); /* saved before what is written last */
        }
    }
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-30"));
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-10"));
    /* One that has some of its own has lost what it lacks. */
    run_put_trainer_file("checkpoint-30", "config.json");
    CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-30"));
}

static void test_a_name_that_a_trainer_gives(void)
{
    run_begin();
    run_put_safetensors("checkpoint-10/model.safetensors");
    run_put_text("checkpoint-10/config.json", "{}");
    CHECK_EQUAL(COMPLETE_UNKNOWN, run_state("checkpoint-10"));
    run_put_torch("checkpoint-10/training_args.bin");
    CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-10"));
    run_put_safetensors("final/model.safetensors");
    run_put_text("final/config.json", "{}");
    CHECK_EQUAL(COMPLETE_WEIGHTS, run_state("final"));
}

/* Another version of the library writes other files. */
static void test_other_configuration(void)
{
    run_begin();
    run_put_trainer("checkpoint-10");
    run_put_trainer("checkpoint-20");
    run_put_text("checkpoint-10/special_tokens_map.json", "{}");
    set_age("checkpoint-10/special_tokens_map.json", 0);
    CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-20"));
    run_put_text("checkpoint-20/config.json", "{\"transformers_version\": \"6\"}");
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-20"));
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-10"));
}

/* -- markers ----------------------------------------------------------------------------------------------
 */

static void test_unfinished(void)
{
    static const char *const names[] = {"checkpoint-is-incomplete.txt",
                                        "_unfinished",
                                        "part-unfinished",
                                        ".incomplete",
                                        "x.incomplete",
                                        "tmp-model",
                                        ".tmpA1b2C3",
                                        ".metadata.tmp"};
    run_begin();
    run_put_trainer("checkpoint-10");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, "checkpoint-10/%s", names[i]);
        run_put_text(path, "");
        CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-10"));
        run_remove(path);
        snprintf(path, sizeof path, "checkpoint-10/below/%s", names[i]);
        run_put_text(path, "");
        CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-10"));
        run_remove(path);
    }
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-10"));
    run_put_trainer("tmp-checkpoint-20");
    CHECK_EQUAL(COMPLETE_NOT, run_state("tmp-checkpoint-20"));
    /* That a marker is gone proves nothing, nor does one that says the contrary. */
    run_remove("checkpoint-10/optimizer.pt");
    run_put_text("checkpoint-10/commit_success.txt", "");
    CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-10"));
}

static void test_proof(void)
{
    run_begin();
    run_put_torch("iter_0000100/mp_rank_00/model_optim_rng.pt");
    run_put_torch("iter_0000200/mp_rank_00/model_optim_rng.pt");
    CHECK_EQUAL(COMPLETE_UNKNOWN, run_state("iter_0000100"));
    run_put_text("latest_checkpointed_iteration.txt", "100\n");
    CHECK_EQUAL(COMPLETE_YES, run_state("iter_0000100"));
    CHECK_EQUAL(COMPLETE_UNKNOWN, run_state("iter_0000200"));
    run_put_text("iter_0000200/_SUCCESS", "");
    CHECK_EQUAL(COMPLETE_YES, run_state("iter_0000200"));
    run_cut("iter_0000100/mp_rank_00/model_optim_rng.pt", 100);
    CHECK_EQUAL(COMPLETE_NOT, run_state("iter_0000100"));
}

/* -- shards and ranks -------------------------------------------------------------------------------------
 */

static void test_index(void)
{
    run_begin();
    run_put_text("m/config.json", "{}");
    run_put_safetensors("m/model-00001-of-00002.safetensors");
    CHECK_EQUAL(COMPLETE_NOT, run_state("m"));
    run_put_safetensors("m/model-00002-of-00002.safetensors");
    CHECK_EQUAL(COMPLETE_NOT, run_state("m"));
    run_put_text("m/model.safetensors.index.json",
                 "{\"metadata\":{},\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
                 "\"b\":\"model-00002-of-00002.safetensors\"}}");
    CHECK_EQUAL(COMPLETE_WEIGHTS, run_state("m"));
    run_remove("m/model-00001-of-00002.safetensors");
    CHECK_EQUAL(COMPLETE_NOT, run_state("m"));
    run_remove("m/model-00002-of-00002.safetensors");
    CHECK_EQUAL(COMPLETE_NOT, run_state("m"));
    /* A save in one file leaves the index of an older one. */
    run_put_safetensors("m/model.safetensors");
    CHECK_EQUAL(COMPLETE_WEIGHTS, run_state("m"));
}

static void test_adapter(void)
{
    run_begin();
    run_put_safetensors("m/adapter_model.safetensors");
    CHECK_EQUAL(COMPLETE_NOT, run_state("m"));
    run_put_text("m/adapter_config.json", "{}");
    CHECK_EQUAL(COMPLETE_WEIGHTS, run_state("m"));
}

enum { MANY_RANKS = 1024 };

static void test_many_ranks(void)
{
    char path[128];
    run_begin();
    for (int rank = 0; rank < MANY_RANKS; rank++) {
        snprintf(path, sizeof path, "checkpoint-10/rank%d-of-%d-pytorch_model.bin", rank, MANY_RANKS);
        run_put_torch(path);
        snprintf(path, sizeof path, "checkpoint-10/rank%d-of-%d-optimizer.bin", rank, MANY_RANKS);
        run_put_torch(path);
        snprintf(path, sizeof path, "checkpoint-10/rng_state_%d.pth", rank);
        run_put_torch(path);
    }
    run_put_torch("checkpoint-10/scheduler.pt");
    run_put_trainer_file("checkpoint-10", "trainer_state.json");
    cleanup_run struct run run = {0};
    run_judge_all(&run);
    CHECK_EQUAL(1, run.count);
    CHECK_EQUAL(MANY_RANKS, run.at[0].complete.world_size);
    CHECK_EQUAL(COMPLETE_YES, run.at[0].complete.state);
    CHECK(run.at[0].no_template);
    run_remove("checkpoint-10/rank777-of-1024-optimizer.bin");
    CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-10"));
}

static void test_ranks_of_every_kind(void)
{
    run_begin();
    run_put_torch("global_step_10/actor/model_world_size_2_rank_0.pt");
    CHECK_EQUAL(COMPLETE_NOT, run_state("global_step_10"));
    run_put_torch("global_step_10/actor/model_world_size_2_rank_1.pt");
    CHECK_EQUAL(COMPLETE_WEIGHTS, run_state("global_step_10"));
    run_put_torch("global_step_10/actor/optim_world_size_2_rank_1.pt");
    CHECK_EQUAL(COMPLETE_NOT, run_state("global_step_10"));
    run_put_torch("global_step_10/actor/optim_world_size_2_rank_0.pt");
    CHECK_EQUAL(COMPLETE_YES, run_state("global_step_10"));
}

/* Of a number that lies, no more is told than fits. */
static void test_number_that_lies(void)
{
    run_begin();
    run_put_torch("m/rank0-of-999999999-pytorch_model.bin");
    CHECK_EQUAL(COMPLETE_NOT, run_state("m"));
    run_put_torch("m/rng_state_999999999.pth");
    CHECK_EQUAL(COMPLETE_NOT, run_state("m"));
}

/* -- what is asked ----------------------------------------------------------------------------------------
 */

/* A folder that counts what is opened. */
static struct folder counted;
static unsigned opened;

static errint counted_list(void *context, const char *path,
                           bool (*visit)(void *visit_context, const struct folder_entry *entry),
                           void *visit_context)
{
    (void)context;
    return folder_list(&counted, path, visit, visit_context);
}

static errint counted_open(void *context, const char *path, struct format_source *out)
{
    (void)context;
    opened++;
    return folder_open(&counted, path, out);
}

static void counted_close(void *context, struct format_source *source)
{
    (void)context;
    folder_close(&counted, source);
}

static unsigned kept;

static bool memory_is_whole(void *context, const struct tree_entry *file)
{
    (void)file;
    return *(bool *)context;
}

static void memory_keep(void *context, const struct tree_entry *file)
{
    (void)context, (void)file;
    kept++;
}

static struct trainer_progress kept_progress;
static unsigned kept_progresses;

static bool memory_recall_progress(void *context, const struct tree_entry *file, struct trainer_progress *out)
{
    CHECK_TEXT("trainer_state.json", file->path);
    if (*(bool *)context)
        *out = kept_progress;
    return *(bool *)context;
}

static void memory_keep_progress(void *context, const struct tree_entry *file,
                                 const struct trainer_progress *told)
{
    (void)context;
    CHECK_TEXT("trainer_state.json", file->path);
    kept_progress = *told;
    kept_progresses++;
}

static enum complete_state judge(const struct complete_asked *asked)
{
    const struct folder folder = {.list = counted_list, .open = counted_open, .close = counted_close};
    cleanup_complete struct complete complete = {0};
    opened = kept = kept_progresses = 0;
    CHECK_EQUAL(0, folder_plain(run_path("checkpoint-10"), &counted));
    CHECK_EQUAL(0, complete_judge(&folder, asked, &complete));
    folder_plain_release(&counted);
    return complete.state;
}

static void test_memory(void)
{
    bool known = false;
    const struct complete_memory memory = {&known, memory_is_whole, memory_keep, memory_recall_progress,
                                           memory_keep_progress};
    const struct complete_asked asked = {.name = "checkpoint-10", .memory = &memory};
    run_begin();
    run_put_trainer("checkpoint-10");
    CHECK_EQUAL(COMPLETE_YES, judge(&asked));
    CHECK_EQUAL(10, kept);
    CHECK_EQUAL(1, kept_progresses);
    CHECK(kept_progress.whole);
    unsigned before = opened;
    known = true;
    CHECK_EQUAL(COMPLETE_YES, judge(&asked));
    CHECK_EQUAL(0, kept);
    CHECK_EQUAL(0, kept_progresses);
    CHECK_EQUAL(before - 11, opened);
    /* What names say is known without opening the large files. */
    known = false;
    run_remove("checkpoint-10/optimizer.pt");
    CHECK_EQUAL(COMPLETE_NOT, judge(&asked));
    CHECK_EQUAL(0, kept);
}

static void test_awaited(void)
{
    struct complete_asked asked = {.name = "checkpoint-10", .awaited = true};
    run_begin();
    run_put_trainer("checkpoint-10");
    CHECK_EQUAL(COMPLETE_YES, judge(&asked));
    run_remove("checkpoint-10/rng_state_0.pth");
    CHECK_EQUAL(COMPLETE_NOT, judge(&asked));
    asked.awaited = false;
    CHECK_EQUAL(COMPLETE_YES, judge(&asked));
    /* Ranks that do not know of each other write the same file. */
    run_put_trainer("checkpoint-10");
    run_remove("checkpoint-10/rng_state_0.pth");
    run_remove("checkpoint-10/rng_state_1.pth");
    run_put_torch("checkpoint-10/rng_state.pth");
    asked.awaited = true;
    CHECK_EQUAL(COMPLETE_YES, judge(&asked));
}

/* -- runs -------------------------------------------------------------------------------------------------
 */

/* A Trainer's checkpoint whose files are so old. */
static void put_aged(const char *checkpoint, int64_t seconds)
{
    char path[64];
    run_put_trainer(checkpoint);
    for (size_t i = 0; trainer_files[i]; i++) {
        snprintf(path, sizeof path, "%s/%s", checkpoint, trainer_files[i]);
        set_age(path, seconds);
    }
}

/* How the checkpoint at this place is judged while processes live that began at `since` seconds. */
static enum complete_state judge_awaited(size_t index, int64_t since, bool *awaits)
{
    cleanup_folder_plain struct folder folder = {0};
    cleanup_run struct run run = {0};
    const struct run_asked asked = {.name = "run", .awaited = since > 0, .since = since * 1000000000};
    CHECK_EQUAL(0, folder_plain(run_path("."), &folder));
    CHECK_EQUAL(0, run_read(&folder, &asked, &run));
    if (index >= run.count)
        return COMPLETE_UNKNOWN;
    *awaits = run.at[index].complete.awaits;
    return run.at[index].complete.state;
}

static void test_ranks_of_before(void)
{
    bool awaits;
    run_begin();
    put_aged("checkpoint-10", 200);
    put_aged("checkpoint-20", 100);
    run_remove("checkpoint-20/rng_state_1.pth");
    /* The processes that live saved checkpoint-10: there were two. */
    CHECK_EQUAL(COMPLETE_NOT, judge_awaited(1, 999700, &awaits));
    CHECK(awaits);
    CHECK_EQUAL(COMPLETE_YES, judge_awaited(0, 999700, &awaits));
    /* They are gone, or began after it: perhaps there are fewer now. */
    CHECK_EQUAL(COMPLETE_YES, judge_awaited(1, 0, &awaits));
    CHECK_EQUAL(COMPLETE_YES, judge_awaited(1, 999850, &awaits));
    CHECK(!awaits);
    /* What never came is noted. */
    cleanup_run struct run run = {0};
    run_judge_all(&run);
    CHECK(run.count == 2 && run.at[1].complete.note_count > 0);
    CHECK_TEXT("the state of the random generators of 1 of 2 processes never came",
               run.count == 2 && run.at[1].complete.note_count > 0 ? run.at[1].complete.notes[0].text : "");
    /* The next save has begun. */
    put_aged("checkpoint-30", 50);
    run_remove("checkpoint-30/rng_state_1.pth");
    CHECK_EQUAL(COMPLETE_YES, judge_awaited(1, 999700, &awaits));
    CHECK_EQUAL(COMPLETE_NOT, judge_awaited(2, 999700, &awaits));
    run_put_trainer_file("checkpoint-30", "rng_state_1.pth");
    CHECK_EQUAL(COMPLETE_YES, judge_awaited(2, 999700, &awaits));
}

/* What keeps the second of two checkpoints from being complete while a process lives that saved both. */
static void count_missing(unsigned *missing, unsigned *awaits, unsigned *others)
{
    cleanup_folder_plain struct folder folder = {0};
    cleanup_run struct run run = {0};
    const struct run_asked asked = {.name = "run", .awaited = true, .since = 999700 * INT64_C(1000000000)};
    CHECK_EQUAL(0, folder_plain(run_path("."), &folder));
    CHECK_EQUAL(0, run_read(&folder, &asked, &run));
    CHECK_EQUAL(2, run.count);
    if (run.count < 2)
        return;
    *missing = run.at[1].complete.missing;
    *awaits = run.at[1].complete.awaits;
    *others = run.at[1].complete.others;
}

static void test_what_is_missing(void)
{
    unsigned missing = 9, awaits = 9, others = 9;
    run_begin();
    put_aged("checkpoint-10", 200);
    put_aged("checkpoint-20", 100);
    count_missing(&missing, &awaits, &others);
    CHECK(missing == 0 && awaits == 0 && others == 0);
    run_remove("checkpoint-20/rng_state_1.pth");
    count_missing(&missing, &awaits, &others);
    CHECK(missing == 1 && awaits == 1 && others == 0);
    run_put_torch("checkpoint-10/scaler.pt");
    set_age("checkpoint-10/scaler.pt", 200);
    count_missing(&missing, &awaits, &others);
    CHECK(missing == 2 && awaits == 1 && others == 1);
    /* Not what only somebody else can bring. */
    run_put_text("checkpoint-20/pytorch_model.bin.index.json",
                 "{\"weight_map\": {\"w\": \"pytorch_model-00001-of-00002.bin\"}}");
    set_age("checkpoint-20/pytorch_model.bin.index.json", 100);
    count_missing(&missing, &awaits, &others);
    CHECK(missing == 3 && awaits == 1 && others == 1);
}

static void test_made_of_others(void)
{
    static const char *const made[] = {"merged.safetensors", "special_tokens_map.json"};
    run_begin();
    put_aged("checkpoint-10", 200);
    put_aged("checkpoint-20", 100);
    run_put_safetensors("checkpoint-10/merged.safetensors");
    run_put_text("checkpoint-10/special_tokens_map.json", "{}");
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-10"));
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-20"));
    put_aged("checkpoint-30", 50);
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-30"));
    run_put_safetensors("checkpoint-20/merged.safetensors");
    CHECK_EQUAL(COMPLETE_YES, run_state("checkpoint-30"));
    /* What was saved with it is missed. */
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        char path[64];
        run_begin();
        put_aged("checkpoint-10", 200);
        put_aged("checkpoint-20", 100);
        snprintf(path, sizeof path, "checkpoint-10/%s", made[i]);
        if (i == 0)
            run_put_safetensors(path);
        else
            run_put_text(path, "{}");
        set_age(path, 200);
        CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-20"));
    }
}

static void test_order_and_marks(void)
{
    run_begin();
    run_put_trainer("checkpoint-1000");
    run_put_trainer("checkpoint-200");
    run_put_trainer("checkpoint-30");
    run_put_safetensors("model.safetensors");
    run_put_text("config.json", "{}");
    run_put_text("logs/events.txt", "x");
    run_put_text(
        "checkpoint-1000/trainer_state.json",
        "{\"best_global_step\":200,\"best_metric\":0.25,\"best_model_checkpoint\":\"/a/b/checkpoint-200\","
        "\"global_step\":1000,\"log_history\":[{\"step\":200,\"eval_loss\":0.5,\"eval_score\":0.25},"
        "{\"step\":1000,\"eval_loss\":Infinity},{\"step\":1000,\"eval_score\":0.125}]}");
    cleanup_run struct run run = {0};
    run_judge_all(&run);
    CHECK_EQUAL(4, run.count);
    CHECK_EQUAL(30, run.at[0].step);
    CHECK_EQUAL(200, run.at[1].step);
    CHECK_EQUAL(1000, run.at[2].step);
    CHECK_TEXT("", run.at[3].path);
    CHECK_EQUAL(COMPLETE_WEIGHTS, run.at[3].complete.state);
    CHECK(run.at[2].latest && !run.at[1].latest);
    CHECK(run.at[1].best && !run.at[2].best);
    CHECK(run.at[2].measured && run.at[2].metric.value == 0.125);
    CHECK_TEXT("eval_score", run.at[2].metric.name);
}

static void test_no_run(void)
{
    cleanup_run struct run run = {0};
    run_begin();
    run_put_text("notes/readme.txt", "x");
    run_put_text("step-5/readme.txt", "x");
    run_judge_all(&run);
    CHECK_EQUAL(0, run.count);
}

static void test_empty_checkpoint(void)
{
    run_begin();
    run_put_text("checkpoint-5/x", "");
    run_remove("checkpoint-5/x");
    CHECK_EQUAL(COMPLETE_NOT, run_state("checkpoint-5"));
}

/* -- trainer_state.json -----------------------------------------------------------------------------------
 */

static void read_progress(const char *text, size_t length, struct trainer_progress *out)
{
    cleanup_folder_plain struct folder folder = {0};
    run_put("trainer_state.json", text, length);
    CHECK_EQUAL(0, folder_plain(run_path(""), &folder));
    CHECK_EQUAL(0, trainer_progress_read(&folder, out));
}

static void test_progress(void)
{
    static const char text[] = "{\"best_global_step\": 4, \"best_metric\": -1.5e0, "
                               "\"best_model_checkpoint\": \"../o\\u0075t/checkpoint-4/\","
                               "\"global_step\": 6, \"is_x\": true, \"log_history\": [{\"epoch\": 0.5, "
                               "\"eval_loss\": -1.5, \"step\": 4},"
                               "{\"loss\": NaN, \"grad_norm\": -Infinity, \"step\": 6}, 5, [], "
                               "{\"eval_loss\": 2, \"eval_runtime\": 3,"
                               "\"step\": 6}], \"x\": {\"y\": [[Infinity]]}}";
    struct trainer_progress progress;
    double value;
    run_begin();
    read_progress(text, sizeof text - 1, &progress);
    CHECK(progress.whole && progress.has_best && progress.best_metric == -1.5);
    CHECK_EQUAL(6, progress.step);
    CHECK_EQUAL(4, progress.best_step);
    CHECK_TEXT("checkpoint-4", progress.best_name);
    CHECK_TEXT("eval_loss", progress.best_metric_name);
    CHECK(trainer_progress_find(&progress, "eval_loss", &value) && value == 2);
    CHECK(trainer_progress_find(&progress, "loss", &value) && value != value);
    CHECK(!trainer_progress_find(&progress, "eval_runtime", &value));
    CHECK(!trainer_progress_find(&progress, "grad_norm", &value));
    for (size_t length = 0; length < sizeof text - 1; length++) {
        read_progress(text, length, &progress);
        CHECK(!progress.whole);
    }
}

static void test_hostile_progress(void)
{
    static const char *const texts[] = {
        "[]",
        "{\"global_step\": -5}",
        "{\"global_step\": 99999999999999999999}",
        "{\"best_metric\": 1e}",
        "{\"log_history\": {\"step\": 1}}",
        "{\"best_model_checkpoint\": \"\\n/..\\u0007\"}",
        "{} {}",
        "{\"log_history\": [{\"step\": 1, \"\\u0000\": 5, \"\": 2}], \"global_step\": 1}",
    };
    run_begin();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct trainer_progress progress;
        read_progress(texts[i], strlen(texts[i]), &progress);
        CHECK(progress.step == -1 || progress.step == 1);
        CHECK(progress.metric_count <= TRAINER_METRICS_MAX);
        for (const char *at = progress.best_name; *at; at++)
            CHECK((unsigned char)*at >= 0x20);
    }
}

/* What a resume reads: DeepSpeed's file, with or without a line's end, and Megatron's number. */
static void test_named(void)
{
    static const char *const texts[][2] = {{"latest", "checkpoint-10"},
                                           {"latest", "checkpoint-10\n"},
                                           {"latest_checkpointed_iteration.txt", "10"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cleanup_run struct run run = {0};
        run_begin();
        run_put_trainer("checkpoint-10");
        run_put_trainer("checkpoint-20");
        run_put_text(texts[i][0], texts[i][1]);
        run_judge_all(&run);
        CHECK_EQUAL(2, run.count);
        CHECK(run.at[0].named && !run.at[1].named && run.at[1].latest);
    }
}

/* -- files that are refused -------------------------------------------------------------------------------
 */

static errint refusal; /* of checkpoint-20/optimizer.pt */

static errint refuse_list(void *context, const char *path,
                          bool (*visit)(void *visit_context, const struct folder_entry *entry),
                          void *visit_context)
{
    return folder_list(context, path, visit, visit_context);
}

static errint refuse_open(void *context, const char *path, struct format_source *out)
{
    return strcmp(path, "checkpoint-20/optimizer.pt") == 0 ? refusal : folder_open(context, path, out);
}

static void refuse_close(void *context, struct format_source *source)
{
    folder_close(context, source);
}

/* One that is being written keeps none of the others from being judged, where that is wanted. */
static void test_refused(void)
{
    cleanup_folder_plain struct folder plain = {0};
    run_begin();
    run_put_trainer("checkpoint-10");
    run_put_trainer("checkpoint-20");
    run_put_trainer("checkpoint-30");
    CHECK_EQUAL(0, folder_plain(run_path(""), &plain));
    const struct folder folder = {
        .context = &plain, .list = refuse_list, .open = refuse_open, .close = refuse_close};
    static const errint refusals[] = {-EBUSY, -EIO, -ENOMEM};
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        refusal = refusals[i];
        cleanup_run struct run strict = {0}, tolerant = {0};
        CHECK_EQUAL(refusal, run_read(&folder, &(struct run_asked){.name = "run"}, &strict));
        errint error = run_read(&folder, &(struct run_asked){.name = "run", .separately = true}, &tolerant);
        CHECK_EQUAL(refusal == -ENOMEM ? refusal : 0, error);
        if (error)
            continue;
        CHECK_EQUAL(3, tolerant.count);
        CHECK(!tolerant.at[0].error && tolerant.at[1].error && !tolerant.at[2].error);
        CHECK_EQUAL(COMPLETE_YES, tolerant.at[0].complete.state);
        CHECK_EQUAL(COMPLETE_UNKNOWN, tolerant.at[1].complete.state);
        CHECK_EQUAL(0, tolerant.at[1].complete.note_count);
        CHECK(tolerant.at[1].complete.bytes > 0);
        CHECK(tolerant.at[2].latest);
    }
}

static bool shed_optimizer(void *context, const char *path)
{
    (void)context;
    return strcmp(path, "checkpoint-20/optimizer.pt") == 0;
}

/* What was given up is not read, and no resume can begin with it. */
static void test_shed(void)
{
    cleanup_folder_plain struct folder plain = {0};
    cleanup_run struct run run = {0};
    run_begin();
    run_put_trainer("checkpoint-10");
    run_put_trainer("checkpoint-20");
    /* Nothing else proves the contrary. */
    run_put_text("checkpoint-20/commit_success.txt", "");
    CHECK_EQUAL(0, folder_plain(run_path(""), &plain));
    const struct folder folder = {.context = &plain,
                                  .list = refuse_list,
                                  .open = refuse_open,
                                  .close = refuse_close,
                                  .is_shed = shed_optimizer};
    refusal = -EIO;
    CHECK_EQUAL(0, run_read(&folder, &(struct run_asked){.name = "run"}, &run));
    CHECK_EQUAL(2, run.count);
    CHECK_EQUAL(COMPLETE_YES, run.at[0].complete.state);
    CHECK(run.at[0].latest && !run.at[0].complete.shed);
    CHECK_EQUAL(COMPLETE_WEIGHTS, run.at[1].complete.state);
    CHECK(run.at[1].complete.shed && !run.at[1].latest);
}

static void test_optimizer_files(void)
{
    static const char *const are[] = {"optimizer.pt", "optimizer.bin", "optimizer_1.bin",
                                      "optimizer_0/__0_0.distcp", "optimizer_12/__3_41.distcp"};
    static const char *const are_not[] = {"",
                                          "optimizer",
                                          "scheduler.pt",
                                          "model.safetensors",
                                          "optimizer.pt_0",
                                          "optimizer_.bin",
                                          "optimizer_a.bin",
                                          "optimizer_0",
                                          "optimizer_0/.metadata",
                                          "optimizer_0/__0_.distcp",
                                          "optimizer_0/__0_0.distcp.tmp",
                                          "optimizer_0/more/__0_0.distcp",
                                          "pytorch_model_fsdp_0/__0_0.distcp",
                                          "old/optimizer.pt",
                                          "global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt",
                                          "global_step5/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"};
    for (size_t i = 0; i < sizeof are / sizeof *are; i++)
        CHECK(optimizer_file_is(are[i]));
    for (size_t i = 0; i < sizeof are_not / sizeof *are_not; i++)
        CHECK(!optimizer_file_is(are_not[i]));
    CHECK(optimizer_directory_is("optimizer_0") && optimizer_directory_is("optimizer_10"));
    CHECK(!optimizer_directory_is("optimizer_") && !optimizer_directory_is("optimizer_0x"));
}

int main(void)
{
    check_run("a checkpoint whose optimizer's state was given up has weights only", test_shed);
    check_run("files that hold an optimizer's state alone", test_optimizer_files);
    check_run("a Trainer's checkpoint is complete", test_trainer);
    check_run("no prefix of a save is complete", test_every_prefix_of_a_save);
    check_run("every file removed or cut is noticed", test_every_file_removed_or_cut);
    check_run("a save without what a resume needs", test_weights_only);
    check_run("what others lend is not missed beside shards", test_lent);
    check_run("weights under a name that a Trainer gives", test_a_name_that_a_trainer_gives);
    check_run("checkpoints of another configuration are not compared", test_other_configuration);
    check_run("names that say that it is not finished", test_unfinished);
    check_run("names that prove that it is complete", test_proof);
    check_run("shards and their index", test_index);
    check_run("an adapter and its configuration", test_adapter);
    check_run("1024 ranks", test_many_ranks);
    check_run("ranks that say how many they are", test_ranks_of_every_kind);
    check_run("numbers that lie", test_number_that_lies);
    check_run("files that were found whole are not read again", test_memory);
    check_run("ranks that are awaited", test_awaited);
    check_run("ranks that saved the checkpoint before are awaited, too", test_ranks_of_before);
    check_run("what is missing, and who may bring it", test_what_is_missing);
    check_run("what was made of a checkpoint is not expected of others", test_made_of_others);
    check_run("the order of a run, and its marks", test_order_and_marks);
    check_run("the one that a file names", test_named);
    check_run("files that are refused", test_refused);
    check_run("a directory that is no run", test_no_run);
    check_run("a checkpoint without a file", test_empty_checkpoint);
    check_run("what trainer_state.json tells", test_progress);
    check_run("what trainer_state.json may hold", test_hostile_progress);
    run_end();
    return check_done();
}
