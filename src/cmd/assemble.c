/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs assemble`: standard model files out of shards, on any disk. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/quantity.h"
#include "base/size_text.h"
#include "ckpt/assemble_write.h"
#include "ckpt/weights.h"
#include "cmd/assemble_mounted.h"
#include "cmd/assemble_type.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/loadable_check.h"
#include "cmd/model_source.h"
#include "cmd/progress.h"
#include "format/plain_text.h"

struct assemble_run {
    const char *source, *output;
    bool force;
    struct model_source_wish wish;
    struct loadable_options check;
    struct loadable loadable;
    struct model_source from;
    struct assemble_plan plan;
    const char **beside;
    size_t beside_count;
    bool same; /* the output is the source */
    int directory;
    struct progress progress;
};

/* -- what is there ----------------------------------------------------------------------------------------
 */

static bool assemble_show(void *context, int64_t done, int64_t total)
{
    struct assemble_run *run = context;
    return progress_show(&run->progress, done, total);
}

static int assemble_check_loadable(struct assemble_run *run)
{
    enum tensor_type type = assemble_type_most(&run->from.model, &run->wish.form);
    const struct loadable_subject subject = {
        .path = run->source,
        .side = &run->from.side,
        .config = &run->from.config,
        .model = &run->from.model,
        .names_tied = run->wish.form.format == ASSEMBLE_TORCH,
        .type = model_can_cast(type, TENSOR_F32) ? type : TENSOR_F32,
    };
    errint error = run->check.wanted ? loadable_check(&subject, &run->check, &run->loadable) : 0;
    if (error) {
        if (error != -EINTR)
            log_error("%s: %s", run->source, strerror(-error));
        return EXIT_FAILED;
    }
    if (run->loadable.state != LOADABLE_NO || run->force)
        return EXIT_FINE;
    cleanup_free char *line = loadable_check_line(&run->loadable, true);
    log_error("%s: loadable: %s; nothing is assembled without --force", run->source,
              line ? line : "no memory");
    return EXIT_FAILED;
}

/* -- writing ----------------------------------------------------------------------------------------------
 */

static int assemble_open_output(struct assemble_run *run, bool *made)
{
    struct stat output, source;
    *made = mkdir(run->output, 0777) == 0;
    if (!*made && errno != EEXIST) {
        log_error("%s: %m", run->output);
        return EXIT_FAILED;
    }
    run->directory = open(run->output, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run->directory < 0 || fstat(run->directory, &output) < 0) {
        log_error("%s: %m", run->output);
        return EXIT_FAILED;
    }
    run->same =
        stat(run->source, &source) == 0 && source.st_dev == output.st_dev && source.st_ino == output.st_ino;
    return EXIT_FINE;
}

/* The side files that are to be copied. One that is there already is the user's own, unless he says
 * otherwise. */
static bool assemble_choose_beside(struct assemble_run *run)
{
    const struct folder_listing *listing = &run->from.side.listing;
    run->beside = calloc(listing->count + 1, sizeof *run->beside);
    if (!run->beside)
        return false;
    for (size_t i = 0; i < listing->count && !run->same; i++) {
        const struct folder_entry *entry = &listing->at[i];
        struct stat status;
        if (entry->directory || !side_file_is(entry->name))
            continue;
        if (!run->force && fstatat(run->directory, entry->name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
            log_warning("%s/%s is there already and is left as it is", run->output, entry->name);
            continue;
        }
        run->beside[run->beside_count++] = entry->name;
    }
    return true;
}

static bool assemble_is_planned(const struct assemble_run *run, const char *name)
{
    for (size_t i = 0; i < run->plan.file_count; i++) {
        if (strcmp(run->plan.files[i].name, name) == 0)
            return true;
    }
    return false;
}

/* Whether the output holds weights under another standard name, which loaders might take instead. */
static bool assemble_is_stale(const struct assemble_run *run, const char *name)
{
    struct stat status;
    if (assemble_is_planned(run, name) || fstatat(run->directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    if (run->force)
        log_warning("%s/%s stays there: loaders may take it for this model", run->output, name);
    else
        log_error("%s/%s is there: loaders may take it for this model; remove it, or use --force",
                  run->output, name);
    return true;
}

static int assemble_check_output(const struct assemble_run *run)
{
    bool stale = false;
    for (size_t i = 0; i < WEIGHTS_KIND_COUNT && !run->same; i++) {
        char name[WEIGHTS_NAME_MAX];
        if (strcmp(weights_kinds[i].model_stem, run->from.model.stem) != 0)
            continue;
        stale |= assemble_is_stale(run, weights_whole_name(&weights_kinds[i], name));
        stale |= assemble_is_stale(run, weights_index_name(&weights_kinds[i], name));
    }
    return stale && !run->force ? EXIT_FAILED : EXIT_FINE;
}

/* A mount shares what it is asked to copy: what it has stored all the same was copied. */
static void assemble_ask_shared(const struct assemble_run *run, struct assemble_written *written)
{
    int64_t stored = 0;
    for (size_t i = 0; i < run->plan.file_count && stored >= 0; i++) {
        int64_t bytes = assemble_stored_bytes(run->directory, run->plan.files[i].name);
        stored = bytes < 0 ? bytes : stored + bytes;
    }
    int64_t all = written->cloned + written->copied;
    if (stored < 0)
        return;
    written->copied = stored > written->made ? stored - written->made : 0;
    written->copied = written->copied < all ? written->copied : all;
    written->cloned = all - written->copied;
}

static void assemble_report_type(const struct assemble_run *run)
{
    size_t kept = 0;
    if (run->wish.as_config_says)
        printf("%s in the checkpoint, written as %s, as config.json says (--dtype keep leaves it)\n",
               tensor_type_torch_name(assemble_type_most(&run->from.model, NULL)),
               tensor_type_torch_name(run->wish.form.type));
    for (size_t i = 0; i < run->from.model.tensor_count; i++)
        kept += run->from.model.tensors[i].keeps_type;
    if (run->wish.form.cast && kept > 0)
        printf("%zu tensor%s not cast: the architecture keeps the type\n", kept, kept == 1 ? " is" : "s are");
}

static void assemble_report(const struct assemble_run *run, const struct assemble_written *written)
{
    char text[SIZE_TEXT_MAX];
    assemble_report_type(run);
    for (size_t i = 0; i < run->plan.file_count; i++)
        printf("%s/%s  %s\n", run->output, run->plan.files[i].name,
               size_text((double)run->plan.files[i].size, text));
    for (size_t i = 0; i < run->beside_count; i++)
        printf("%s/%s  copied\n", run->output, run->beside[i]);
    printf("%s copied", size_text((double)written->copied, text));
    printf(", %s shared with the source", size_text((double)written->cloned, text));
    printf(", %s made anew\n", size_text((double)written->made, text));
    cleanup_free char *line = loadable_check_line(&run->loadable, run->check.wanted);
    printf("loadable: %s\n", line ? line : "no memory");
}

static int assemble_write_files(struct assemble_run *run)
{
    struct assemble_written written;
    struct assemble_output output = {.model = &run->from.model,
                                     .plan = &run->plan,
                                     .folder = &run->from.folder,
                                     .beside_folder = &run->from.side.folder,
                                     .beside = run->beside,
                                     .beside_count = run->beside_count,
                                     .directory = run->directory,
                                     .name = run->output,
                                     .force = run->force,
                                     .maps = assemble_is_mounted(run->directory),
                                     .progress = assemble_show,
                                     .context = run};
    run->progress.started = clock_monotonic();
    errint error = assemble_write(&output, &written);
    progress_end(&run->progress);
    if (!error) {
        if (output.maps)
            assemble_ask_shared(run, &written);
        assemble_report(run, &written);
        return EXIT_FINE;
    }
    return error == -ENOSPC || error == -EDQUOT ? EXIT_NO_SPACE : EXIT_FAILED;
}

static int assemble_make_plan(struct assemble_run *run)
{
    struct format_problem problem;
    errint error = assemble_plan(&run->from.model, &run->wish.form, &run->plan, &problem);
    if (!error)
        return EXIT_FINE;
    cleanup_free char *text = error == -EINVAL ? plain_text(problem.text) : NULL;
    log_error("%s: %s", run->source, text ? text : strerror(-error));
    return EXIT_FAILED;
}

static int assemble_into_output(struct assemble_run *run)
{
    bool made;
    int code = assemble_open_output(run, &made);
    if (!code)
        code = assemble_check_output(run);
    if (!code && !assemble_choose_beside(run)) {
        log_error("%s: no memory", run->source);
        code = EXIT_FAILED;
    }
    if (!code)
        code = assemble_write_files(run);
    if (code && made)
        rmdir(run->output);
    return code;
}

static int assemble_all(struct assemble_run *run)
{
    run->from.path = run->source;
    int code = model_source_open(&run->from, &run->wish.framework, "nothing is assembled");
    if (!code)
        code = model_source_choose_type(&run->from, &run->wish);
    if (!code)
        code = assemble_check_loadable(run);
    if (!code)
        code = assemble_make_plan(run);
    return code ? code : assemble_into_output(run);
}

static void assemble_run_release(struct assemble_run *run)
{
    loadable_release(&run->loadable);
    assemble_release(&run->plan);
    model_source_release(&run->from);
    free(run->beside);
    if (run->directory >= 0)
        close(run->directory);
}

/* -- the command line -------------------------------------------------------------------------------------
 */

/* EXIT_FINE, or what command_usage_error returned. */
static int assemble_take_option(struct assemble_run *run, int option, const char *bad)
{
    const char *wrong;
    if (loadable_take_option(&run->check, option, optarg, &wrong))
        return wrong ? command_usage_error(&command_assemble, "%s, found '%s'", wrong, optarg) : EXIT_FINE;
    switch (option) {
    case 'p': return EXIT_FINE; /* a mount is read as any other disk: nothing else is done */
    case 'o': run->output = optarg; return EXIT_FINE;
    case 'm': run->wish.framework.master = true; return EXIT_FINE;
    case 'f': run->force = true; return EXIT_FINE;
    case 'd':
        if (assemble_type_parse(optarg, &run->wish.type, &run->wish.form))
            return EXIT_FINE;
        return command_usage_error(&command_assemble,
                                   "--dtype: expected bf16, fp16, fp32 or keep, found '%s'", optarg);
    case 's':
        if (quantity_parse_size(optarg, &run->wish.form.shard_size))
            return EXIT_FINE;
        return command_usage_error(&command_assemble, "--max-shard-size: expected a size as 5GB, found '%s'",
                                   optarg);
    case 't':
        if (assemble_type_parse_format(optarg, &run->wish.form))
            return EXIT_FINE;
        return command_usage_error(&command_assemble, "--format: expected safetensors or bin, found '%s'",
                                   optarg);
    default: return command_usage_error(&command_assemble, "unknown option or missing argument: %s", bad);
    }
}

static int assemble_command(int argc, char **argv)
{
    static const struct option long_options[] = {{"plain", no_argument, NULL, 'p'},
                                                 {"output", required_argument, NULL, 'o'},
                                                 {"dtype", required_argument, NULL, 'd'},
                                                 {"max-shard-size", required_argument, NULL, 's'},
                                                 {"format", required_argument, NULL, 't'},
                                                 {"fp32", no_argument, NULL, 'm'},
                                                 {"force", no_argument, NULL, 'f'},
                                                 LOADABLE_LONG_OPTIONS,
                                                 {0}};
    __attribute__((cleanup(assemble_run_release))) struct assemble_run run = {.directory = -1};
    bool chosen = false;
    int option;
    loadable_begin(&run.loadable);
    while ((option = getopt_long(argc, argv, ":po:d:s:t:mfcb:", long_options, NULL)) != -1) {
        int code = assemble_take_option(&run, option, argv[optind - 1]);
        chosen = true;
        if (code)
            return code;
    }
    if (argc - optind == 1 && !chosen) {
        int code = assemble_in_view(argv[optind]);
        if (code >= 0)
            return code;
    }
    if (argc - optind != 1 || !run.output)
        return command_usage_error(&command_assemble, "expected SRC -o OUT");
    if (fault_configure() < 0)
        return EXIT_FAILED;
    run.source = argv[optind];
    run.progress.wanted = isatty(STDERR_FILENO);
    progress_catch_signals();
    int code = assemble_all(&run);
    /* What was begun is removed; the caller learns of the signal as of any other program. */
    if (progress_signal())
        raise(progress_signal());
    return code;
}

const struct command command_assemble = {
    .name = "assemble",
    .synopsis = "SRC [-o OUT [OPTION...]]",
    .summary = "make standard model files from the shards of a checkpoint",
    .details =
        "  -p, --plain                read SRC and write OUT as ordinary files, which is always done\n"
        "  -o, --output OUT           the directory to write into, which is made if it is not there\n"
        "  -d, --dtype TYPE           floating-point parameters become bf16, fp16 or fp32; keep: they stay\n"
        "                             as they are; without it, they become what config.json names\n"
        "  -s, --max-shard-size SIZE  shards of at most that size (5GB), and an index; else one file\n"
        "  -t, --format FORMAT        safetensors (the default), or bin: torch's\n"
        "  -m, --fp32                 the FP32 copy that the optimizer holds, where there is one\n"
        "  -f, --force                replace files that are there already\n" LOADABLE_DETAILS "\n"
        "Configuration, tokenizer and code beside the shards are copied to OUT. Nothing new is there\n"
        "until all is; where the disk can share blocks between files, bytes are not copied.\n"
        "Without -o, the mount that SRC lies on is asked to show the model in its view; its path\n"
        "is printed when it does.\n",
    .run = assemble_command,
};
