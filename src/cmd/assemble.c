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
#include "ckpt/framework.h"
#include "ckpt/side_files.h"
#include "ckpt/weights.h"
#include "cmd/assemble_mounted.h"
#include "cmd/assemble_type.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/loadable_check.h"
#include "cmd/side_source.h"
#include "format/plain_text.h"

enum { ASSEMBLE_PROGRESS_NS = 200 * 1000 * 1000 };

struct assemble_run {
    const char *source, *output;
    bool force;
    struct framework_wish wish;
    struct assemble_wish form;
    enum assemble_type_wish type_wish;
    bool as_config_says; /* the form casts for that reason */
    struct loadable_options check;
    struct loadable loadable;
    struct folder folder;
    struct side_source side;
    struct side_config config; /* of that */
    struct model model;
    struct assemble_plan plan;
    const char **beside;
    size_t beside_count;
    bool same; /* the output is the source */
    int directory;
    bool progress;
    int64_t started, shown;
};

static volatile sig_atomic_t assemble_signal;

static void assemble_catch(int number)
{
    assemble_signal = number;
}

static void assemble_catch_signals(void)
{
    const struct sigaction action = {.sa_handler = assemble_catch, .sa_flags = SA_RESETHAND};
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
}

/* -- progress ---------------------------------------------------------------------------------------------
 */

static bool assemble_show(void *context, int64_t done, int64_t total)
{
    struct assemble_run *run = context;
    int64_t now = clock_monotonic();
    if (run->progress && now - run->shown >= ASSEMBLE_PROGRESS_NS) {
        char done_text[SIZE_TEXT_MAX], total_text[SIZE_TEXT_MAX], rate_text[SIZE_TEXT_MAX];
        double seconds = (double)(now - run->started) / (double)CLOCK_NS_PER_SECOND;
        run->shown = now;
        /* The cursor goes back, so that a message takes the line's place. */
        fprintf(stderr, "\033[K%.0f %%, %s of %s, %s/s\r",
                total > 0 ? 100.0 * (double)done / (double)total : 100.0, size_text((double)done, done_text),
                size_text((double)total, total_text),
                size_text(seconds > 0 ? (double)done / seconds : 0, rate_text));
    }
    return assemble_signal == 0;
}

static void assemble_end_progress(const struct assemble_run *run)
{
    if (run->progress && run->shown)
        fputs("\r\033[K", stderr);
}

/* -- what is there ----------------------------------------------------------------------------------------
 */

static void assemble_log_note(const struct assemble_run *run, const struct model_note *note)
{
    cleanup_free char *text = plain_text(note->text);
    if (note->missing)
        log_error("%s: %s", run->source, text ? text : "no memory");
    else
        log_warning("%s: %s", run->source, text ? text : "no memory");
}

static int assemble_load(struct assemble_run *run)
{
    errint error = folder_plain(run->source, &run->folder);
    if (!error)
        error = framework_load(&run->folder, &run->wish, &run->model);
    if (error == -ENOENT && run->folder.context) {
        log_error("%s: no checkpoint of a known kind is there", run->source);
        return EXIT_FAILED;
    }
    if (!error)
        error = side_source_open(run->source, &run->side);
    if (!error)
        error = side_config_read(&run->side.folder, &run->side.listing, &run->config);
    if (error) {
        log_error("%s: %s", run->source, strerror(-error));
        return EXIT_FAILED;
    }
    for (size_t i = 0; i < run->model.note_count; i++)
        assemble_log_note(run, &run->model.notes[i]);
    if (model_is_whole(&run->model))
        return EXIT_FINE;
    log_error("%s: %s; nothing is assembled", run->source,
              run->model.tensor_count == 0 ? "no tensors are there" : "the model is not whole");
    return EXIT_FAILED;
}

/* Which type parameters become, and what config.json says of it. The FP32 copy is what its user asked for. */
static int assemble_choose_type(struct assemble_run *run)
{
    if (run->form.cast && run->config.quantized) {
        log_error("%s: config.json says that the model is quantized; --dtype would break it", run->source);
        return EXIT_FAILED;
    }
    if (run->wish.master && assemble_type_most(&run->model, NULL) != TENSOR_F32) {
        log_error("%s: no FP32 copy of the parameters is there", run->source);
        return EXIT_FAILED;
    }
    if (!run->config.found && strcmp(run->model.stem, "model") == 0)
        log_warning("%s: no config.json is there: the files cannot be loaded without one from elsewhere",
                    run->source);
    if (run->type_wish == ASSEMBLE_TYPE_CONFIG && !run->wish.master)
        run->as_config_says = assemble_type_follow_config(&run->model, &run->config, &run->form);
    enum tensor_type type = assemble_type_most(&run->model, &run->form);
    if (run->config.has_type && run->config.type != type)
        log_warning("%s: config.json says %s and is left as it is; the tensors are %s", run->source,
                    tensor_type_torch_name(run->config.type), tensor_type_torch_name(type));
    return EXIT_FINE;
}

static int assemble_check_loadable(struct assemble_run *run)
{
    enum tensor_type type = assemble_type_most(&run->model, &run->form);
    const struct loadable_subject subject = {
        .path = run->source,
        .side = &run->side,
        .config = &run->config,
        .model = &run->model,
        .names_tied = run->form.format == ASSEMBLE_TORCH,
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
    const struct folder_listing *listing = &run->side.listing;
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
        if (strcmp(weights_kinds[i].model_stem, run->model.stem) != 0)
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
    if (run->as_config_says)
        printf("%s in the checkpoint, written as %s, as config.json says (--dtype keep leaves it)\n",
               tensor_type_torch_name(assemble_type_most(&run->model, NULL)),
               tensor_type_torch_name(run->form.type));
    for (size_t i = 0; i < run->model.tensor_count; i++)
        kept += run->model.tensors[i].keeps_type;
    if (run->form.cast && kept > 0)
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
    struct assemble_output output = {.model = &run->model,
                                     .plan = &run->plan,
                                     .folder = &run->folder,
                                     .beside_folder = &run->side.folder,
                                     .beside = run->beside,
                                     .beside_count = run->beside_count,
                                     .directory = run->directory,
                                     .name = run->output,
                                     .force = run->force,
                                     .maps = assemble_is_mounted(run->directory),
                                     .progress = assemble_show,
                                     .context = run};
    run->started = clock_monotonic();
    errint error = assemble_write(&output, &written);
    assemble_end_progress(run);
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
    errint error = assemble_plan(&run->model, &run->form, &run->plan, &problem);
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
    int code = assemble_load(run);
    if (!code)
        code = assemble_choose_type(run);
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
    model_release(&run->model);
    side_source_release(&run->side);
    folder_plain_release(&run->folder);
    free(run->beside);
    if (run->directory >= 0)
        close(run->directory);
}

/* -- the command line -------------------------------------------------------------------------------------
 */

static bool assemble_parse_format(const char *text, struct assemble_wish *form)
{
    form->format = strcmp(text, "bin") == 0 ? ASSEMBLE_TORCH : ASSEMBLE_SAFETENSORS;
    return form->format == ASSEMBLE_TORCH || strcmp(text, "safetensors") == 0;
}

/* EXIT_FINE, or what command_usage_error returned. */
static int assemble_take_option(struct assemble_run *run, int option, const char *bad)
{
    const char *wrong;
    if (loadable_take_option(&run->check, option, optarg, &wrong))
        return wrong ? command_usage_error(&command_assemble, "%s, found '%s'", wrong, optarg) : EXIT_FINE;
    switch (option) {
    case 'p': return EXIT_FINE; /* a mount is read as any other disk: nothing else is done */
    case 'o': run->output = optarg; return EXIT_FINE;
    case 'm': run->wish.master = true; return EXIT_FINE;
    case 'f': run->force = true; return EXIT_FINE;
    case 'd':
        if (assemble_type_parse(optarg, &run->type_wish, &run->form))
            return EXIT_FINE;
        return command_usage_error(&command_assemble,
                                   "--dtype: expected bf16, fp16, fp32 or keep, found '%s'", optarg);
    case 's':
        if (quantity_parse_size(optarg, &run->form.shard_size))
            return EXIT_FINE;
        return command_usage_error(&command_assemble, "--max-shard-size: expected a size as 5GB, found '%s'",
                                   optarg);
    case 't':
        if (assemble_parse_format(optarg, &run->form))
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
    run.progress = isatty(STDERR_FILENO);
    assemble_catch_signals();
    int code = assemble_all(&run);
    /* What was begun is removed; the caller learns of the signal as of any other program. */
    if (assemble_signal)
        raise(assemble_signal);
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
