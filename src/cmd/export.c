/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs export`: a checkpoint's model as ordinary files on the plain disk. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/quantity.h"
#include "ckpt/export_tree.h"
#include "ckpt/run.h"
#include "cmd/assemble_mounted.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/export_asked.h"
#include "cmd/export_files.h"
#include "cmd/export_hold.h"
#include "cmd/export_report.h"
#include "cmd/export_store.h"
#include "cmd/export_target.h"
#include "cmd/progress.h"
#include "format/plain_text.h"

enum export_pick { EXPORT_PICK_NONE, EXPORT_PICK_LATEST, EXPORT_PICK_BEST };

struct export_run {
    const char *given; /* CHECKPOINT */
    char *path;        /* of the one that is exported */
    char *real, *origin;
    enum export_pick pick;
    const char *expected; /* nothing else is to be picked; NULL: whatever it is */
    bool all, json;
    struct model_source_wish wish;
    struct model_source source;
    struct complete complete;
    struct export_files files;
    struct export_facts facts;
    struct export_target target;
    struct export_hold hold;
    struct export_outcome outcome;
    struct progress progress;
};

static int export_fail(const struct export_run *run, errint error)
{
    log_error("%s: %s", run->path ? run->path : run->given, strerror(-error));
    return error == -ENOSPC || error == -EDQUOT ? EXIT_NO_SPACE : EXIT_FAILED;
}

/* -- which ------------------------------------------------------------------------------------------------
 */

static const char *export_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The one that a job would resume from, as `.ckptfs/latest` has it; of a run that has none such, the last one
 * that has all weights: an export needs no more. */
static bool export_is_later(const struct run_checkpoint *one, const struct run_checkpoint *other)
{
    bool complete = one->complete.state == COMPLETE_YES;
    if (one->step < 0 || (!complete && one->complete.state != COMPLETE_WEIGHTS))
        return false;
    if (!other || complete != (other->complete.state == COMPLETE_YES))
        return !other || complete;
    return one->step >= other->step;
}

static const struct run_checkpoint *export_find_picked(const struct export_run *run, const struct run *found)
{
    const struct run_checkpoint *picked = NULL;
    for (size_t i = 0; i < found->count; i++) {
        const struct run_checkpoint *at = &found->at[i];
        if (run->pick == EXPORT_PICK_LATEST ? export_is_later(at, picked) : at->best)
            picked = at;
    }
    return picked;
}

/* The given path is a run's: chooses one of its checkpoints. */
static int export_pick(struct export_run *run)
{
    cleanup_folder_plain struct folder folder = {0};
    cleanup_run struct run found = {0};
    cleanup_free char *real = realpath(run->given, NULL);
    const struct run_asked asked = {.name = real ? export_base_name(real) : ""};
    errint error = !real                ? -errno
                   : run->source.strict ? folder_plain_strict(run->given, &folder)
                                        : folder_plain(run->given, &folder);
    if (!error)
        error = run_read(&folder, &asked, &found);
    if (error)
        return export_fail(run, error);
    const struct run_checkpoint *picked = export_find_picked(run, &found);
    if (!picked) {
        log_error("%s: no checkpoint of it is %s", run->given,
                  run->pick == EXPORT_PICK_LATEST ? "complete" : "known to be the best");
        return EXIT_NONE_PICKED;
    }
    if (run->expected && strcmp(picked->path, run->expected) != 0) {
        if (!run->target.quiet)
            log_info("%s: %s is picked, and not %s", run->given, picked->path, run->expected);
        return EXIT_NONE_PICKED;
    }
    if (asprintf(&run->path, "%s%s%s", run->given, *picked->path ? "/" : "", picked->path) < 0)
        run->path = NULL;
    return run->path ? EXIT_FINE : export_fail(run, -ENOMEM);
}

static int export_choose(struct export_run *run)
{
    int code = EXIT_FINE;
    if (run->pick)
        code = export_pick(run);
    else if (!(run->path = strdup(run->given)))
        code = export_fail(run, -ENOMEM);
    if (code)
        return code;
    export_hold_take(run->path, &run->hold);
    run->real = realpath(run->path, NULL);
    run->origin = run->real ? assemble_origin_of(run->path) : NULL;
    if (!run->origin)
        return export_fail(run, errno ? -errno : -ENOMEM);
    if (!run->target.place.name)
        run->target.place.name = export_base_name(run->real);
    if (export_name_is_fine(run->target.place.name))
        return EXIT_FINE;
    log_error("%s: its name cannot be that of an export; give one by --name", run->path);
    return EXIT_FAILED;
}

/* -- what -------------------------------------------------------------------------------------------------
 */

static int export_check_complete(struct export_run *run)
{
    const struct complete_asked asked = {.name = export_base_name(run->real)};
    errint error = complete_judge(&run->source.folder, &asked, &run->complete);
    if (error)
        return export_fail(run, error);
    if (run->complete.state != COMPLETE_NOT || run->target.force)
        return EXIT_FINE;
    for (size_t i = 0; i < run->complete.note_count; i++) {
        cleanup_free char *text = plain_text(run->complete.notes[i].text);
        if (run->complete.notes[i].missing)
            log_error("%s: %s", run->path, text ? text : "no memory");
    }
    log_error("%s is not complete; nothing is exported without --force", run->path);
    return EXIT_FAILED;
}

static int64_t export_step(const struct export_run *run)
{
    if (run->complete.step >= 0)
        return run->complete.step;
    return run->source.model.step >= 0 ? run->source.model.step
                                       : detect_step_of_name(export_base_name(run->real));
}

static bool export_show(void *context, int64_t done, int64_t total)
{
    struct export_run *run = context;
    return progress_show(&run->progress, done, total);
}

static int export_read_source(struct export_run *run)
{
    run->source.path = run->path;
    int code = model_source_open(&run->source, &run->wish.framework, "nothing is exported");
    if (!code)
        code = export_check_complete(run);
    if (!code)
        code = model_source_choose_type(&run->source, &run->wish);
    if (!code)
        code = export_files_choose(&run->source, &run->wish, run->all, &run->files);
    enum tensor_type type = code ? TENSOR_F32 : assemble_type_most(&run->source.model, &run->wish.form);
    run->facts.checkpoint = run->real;
    run->facts.origin = run->origin;
    run->facts.framework = code ? "" : run->source.model.framework;
    run->facts.dtype = tensor_type_torch_name(type);
    run->facts.step = code ? -1 : export_step(run);
    run->facts.read_back = run->files.job.verify;
    return code;
}

/* -- writing ----------------------------------------------------------------------------------------------
 */

static int export_finish_building(struct export_run *run)
{
    struct export_place *place = &run->target.place;
    mode_t mask = umask(0);
    umask(mask);
    errint error = export_facts_write(place->building, &run->files.job, &run->facts);
    if (!error)
        error = fchmod(place->building, 0777 & ~mask) < 0 ? -errno : export_tree_sync(place->building);
    if (!error)
        error = progress_signal() ? -ECANCELED : 0;
    if (error && error != -ECANCELED)
        log_error("%s/%s: %s", place->path, place->name, strerror(-error));
    return error == -ENOSPC || error == -EDQUOT ? EXIT_NO_SPACE : error ? EXIT_FAILED : EXIT_FINE;
}

/* Another run of the trainer may have saved the same bytes again. */
static int export_publish(struct export_run *run)
{
    struct export_place *place = &run->target.place;
    const struct export_job *job = &run->files.job;
    errint error;
    if (export_facts_are_equal(place->directory, place->name, job)) {
        run->outcome.unchanged = true;
        error = export_facts_renew(place->directory, place->name, place->building);
        if (!error)
            error = export_place_drop(place);
    } else {
        error = export_place_publish(place, &run->outcome.replaced);
    }
    if (error)
        log_error("%s/%s: %s", place->path, place->name, strerror(-error));
    return error ? EXIT_FAILED : EXIT_FINE;
}

static int export_exit_of(errint error)
{
    switch (-error) {
    case 0: return EXIT_FINE;
    case ENOSPC:
    case EDQUOT: return EXIT_NO_SPACE;
    case EBADMSG: return EXIT_DAMAGE_LEFT;
    default: return EXIT_FAILED;
    }
}

static int export_build(struct export_run *run)
{
    struct export_place *place = &run->target.place;
    struct export_job *job = &run->files.job;
    struct export_state state = {.fd = -1};
    cleanup_free char *full = NULL;
    int code = job->verify ? export_store_check(job, run->path, &run->facts.store_hashes) : EXIT_FINE;
    if (code)
        return code;
    errint error = asprintf(&full, "%s/%s", place->path, place->name) < 0 ? -ENOMEM : 0;
    if (!error)
        error = export_place_begin(place, job, &state);
    if (error)
        log_error("%s/" EXPORT_HIDDEN "%s: %s", place->path, place->name,
                  error == -EPERM ? "is another user's" : strerror(-error));
    if (!error) {
        run->progress.started = clock_monotonic();
        error = export_write(job, place->building, full, &state, &run->outcome.written);
        progress_end(&run->progress);
    }
    export_state_release(&state);
    code = export_exit_of(error);
    if (!code && !export_files_are_unchanged(&run->files)) {
        log_error("%s was changed while it was exported", run->path);
        code = EXIT_FAILED;
    }
    if (!code)
        code = export_finish_building(run);
    return code ? code : export_publish(run);
}

/* What an earlier export left, of which another has made all. */
static int export_tidy(struct export_run *run)
{
    export_place_sweep(&run->target.place);
    errint error = run->outcome.unchanged ? export_place_drop(&run->target.place) : 0;
    return error ? export_fail(run, error) : EXIT_FINE;
}

static int export_all(struct export_run *run)
{
    int code = export_target_open(&run->target);
    if (!code)
        code = export_choose(run);
    if (!code)
        code = export_read_source(run);
    if (!code)
        code = export_target_lock(&run->target);
    if (!code)
        code = export_target_check(&run->target, &run->files.job, &run->facts, &run->outcome.unchanged);
    if (!code)
        code = export_tidy(run);
    if (!code && !run->outcome.unchanged)
        code = export_build(run);
    if (!code)
        code = export_target_link(&run->target, &run->facts);
    /* The last line is what people, and the mount's events, are told. */
    if (code && run->path && export_hold_is_gone(&run->hold, run->path))
        log_error("%s was removed, or renamed, before all of it was exported", run->path);
    return code;
}

static int export_tell(struct export_run *run)
{
    run->outcome.target = run->target.place.path;
    run->outcome.name = run->target.place.name;
    run->outcome.job = &run->files.job;
    run->outcome.facts = &run->facts;
    run->outcome.links = run->target.links;
    run->outcome.link_count = run->target.link_count;
    if (run->json)
        return export_report_json(&run->outcome) ? export_fail(run, -ENOMEM) : EXIT_FINE;
    if (!run->target.quiet)
        export_report_print(&run->outcome);
    return EXIT_FINE;
}

static void export_run_release(struct export_run *run)
{
    export_target_close(&run->target);
    export_hold_release(&run->hold);
    export_files_release(&run->files);
    complete_release(&run->complete);
    model_source_release(&run->source);
    free(run->path);
    free(run->real);
    free(run->origin);
}

/* -- the command line -------------------------------------------------------------------------------------
 */

enum { EXPORT_OPTION_NO_WAIT = 0x100, EXPORT_OPTION_NO_LINKS, EXPORT_OPTION_EXPECT };

static int export_take_link(struct export_run *run, const char *link)
{
    if (!export_name_is_fine(link))
        return command_usage_error(&command_export, "--link: expected a name, found '%s'", link);
    if (run->target.link_count == EXPORT_LINKS_MAX)
        return command_usage_error(&command_export, "--link: more than %d", EXPORT_LINKS_MAX);
    run->target.links[run->target.link_count++] = link;
    return EXIT_FINE;
}

static int export_take_pick(struct export_run *run, const char *text)
{
    run->pick = strcmp(text, "latest") == 0 ? EXPORT_PICK_LATEST
                : strcmp(text, "best") == 0 ? EXPORT_PICK_BEST
                                            : EXPORT_PICK_NONE;
    return run->pick
               ? EXIT_FINE
               : command_usage_error(&command_export, "--pick: expected latest or best, found '%s'", text);
}

static int export_take_form(struct export_run *run, int option, const char *text)
{
    switch (option) {
    case 'd':
        if (strcmp(text, "auto") == 0 || assemble_type_parse(text, &run->wish.type, &run->wish.form))
            return EXIT_FINE;
        return command_usage_error(&command_export,
                                   "--dtype: expected auto, keep, bf16, fp16 or fp32, found '%s'", text);
    case 's':
        if (quantity_parse_size(text, &run->wish.form.shard_size))
            return EXIT_FINE;
        return command_usage_error(&command_export, "--max-shard-size: expected a size as 5GB, found '%s'",
                                   text);
    default:
        if (assemble_type_parse_format(text, &run->wish.form))
            return EXIT_FINE;
        return command_usage_error(&command_export, "--format: expected safetensors or bin, found '%s'",
                                   text);
    }
}

static int export_take_option(struct export_run *run, int option, const char *bad)
{
    switch (option) {
    case 'd':
    case 's':
    case 't': return export_take_form(run, option, optarg);
    case 'l': return export_take_link(run, optarg);
    case 'p': return export_take_pick(run, optarg);
    case 'n':
        run->target.place.name = optarg;
        if (export_name_is_fine(optarg))
            return EXIT_FINE;
        return command_usage_error(&command_export, "--name: expected a name without '/', found '%s'",
                                   optarg);
    case 'a': run->all = true; return EXIT_FINE;
    case 'v': run->files.job.verify = true; return EXIT_FINE;
    case 'f': run->target.force = true; return EXIT_FINE;
    case 'j': run->json = true; return EXIT_FINE;
    case 'q': run->target.quiet = true; return EXIT_FINE;
    case EXPORT_OPTION_EXPECT: run->expected = optarg; return EXIT_FINE;
    case EXPORT_OPTION_NO_LINKS: run->source.strict = true; return EXIT_FINE;
    case EXPORT_OPTION_NO_WAIT: run->target.wait = false; return EXIT_FINE;
    default: return command_usage_error(&command_export, "unknown option or missing argument: %s", bad);
    }
}

static int export_start(struct export_run *run)
{
    if (fault_configure() < 0)
        return EXIT_FAILED;
    run->progress.wanted = isatty(STDERR_FILENO) && !run->target.quiet;
    run->files.job.progress = export_show;
    run->files.job.context = run;
    progress_catch_signals();
    int code = export_all(run);
    if (!code)
        code = export_tell(run);
    /* What is written is kept; the caller learns of the signal as of any other program. */
    if (progress_signal() && code)
        raise(progress_signal());
    return code;
}

static int export_command(int argc, char **argv)
{
    static const struct option long_options[] = {{"dtype", required_argument, NULL, 'd'},
                                                 {"max-shard-size", required_argument, NULL, 's'},
                                                 {"format", required_argument, NULL, 't'},
                                                 {"name", required_argument, NULL, 'n'},
                                                 {"link", required_argument, NULL, 'l'},
                                                 {"pick", required_argument, NULL, 'p'},
                                                 {"expect", required_argument, NULL, EXPORT_OPTION_EXPECT},
                                                 {"all", no_argument, NULL, 'a'},
                                                 {"verify", no_argument, NULL, 'v'},
                                                 {"force", no_argument, NULL, 'f'},
                                                 {"no-wait", no_argument, NULL, EXPORT_OPTION_NO_WAIT},
                                                 {"no-links", no_argument, NULL, EXPORT_OPTION_NO_LINKS},
                                                 {"json", no_argument, NULL, 'j'},
                                                 {"quiet", no_argument, NULL, 'q'},
                                                 {0}};
    __attribute__((cleanup(export_run_release))) struct export_run run = {
        .hold = {-1, -1}, .target = {.wait = true, .place = {.directory = -1, .lock = -1, .building = -1}}};
    bool chosen = false;
    int option;
    while ((option = getopt_long(argc, argv, ":d:s:t:n:l:p:avfjq", long_options, NULL)) != -1) {
        int code = export_take_option(&run, option, argv[optind - 1]);
        chosen |= option != 'q';
        if (code)
            return code;
    }
    if (argc - optind == 1)
        return chosen ? command_usage_error(&command_export, "without DIR no option but --quiet is taken")
                      : export_asked(argv[optind], run.target.quiet);
    if (argc - optind != 2)
        return command_usage_error(&command_export, "expected CHECKPOINT [DIR]");
    if (run.expected && !run.pick)
        return command_usage_error(&command_export, "--expect: expected --pick beside it");
    run.given = argv[optind];
    run.target.place.path = argv[optind + 1];
    return export_start(&run);
}

const struct command command_export = {
    .name = "export",
    .synopsis = "[OPTION...] CHECKPOINT [DIR]",
    .summary = "put a checkpoint's model as ordinary files into DIR/NAME on the plain disk",
    .details =
        "  -n, --name NAME            the name in DIR; default: that of the checkpoint's directory\n"
        "  -l, --link LINK            DIR/LINK leads to it: latest, best, or any name; may be repeated\n"
        "  -p, --pick latest|best     CHECKPOINT is a run: its latest complete, or its best, checkpoint\n"
        "      --expect NAME          with --pick: if that is not NAME, nothing is exported\n"
        "  -d, --dtype TYPE           auto (what config.json names, the default), keep, bf16, fp16, fp32\n"
        "  -s, --max-shard-size SIZE  shards of at most that size (5GB), and an index\n"
        "  -t, --format FORMAT        safetensors (the default), or bin: torch's\n"
        "  -a, --all                  everything in the checkpoint, optimizer and all\n"
        "  -v, --verify               compare with the store's hashes, and read back what was written\n"
        "  -f, --force                replace what is no export of this checkpoint; take one that is not\n"
        "                             complete\n"
        "      --no-wait              fail when another export of NAME into DIR is under way\n"
        "      --no-links             CHECKPOINT's path and files are no symbolic links, or are not there\n"
        "  -j, --json                 tell the outcome as one JSON document\n"
        "  -q, --quiet                tell nothing but errors\n"
        "\n"
        "DIR/NAME appears when all of it is on stable storage; it replaces an older one in one step. An\n"
        "interrupted export is gone on with by the next. DIR/NAME/" EXPORT_SUMS " is for sha256sum -c.\n"
        "Without DIR, the mount that CHECKPOINT lies on exports it to where its policy says.\n",
    .run = export_command,
};
