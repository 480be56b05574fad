/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs ls`: the checkpoints of runs, and which of them are complete. */
#include "cmd/ls.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "format/plain_text.h"
#include "fs/checkpoints.h"

/* A directory of runs, of experiments, of users: no deeper. */
enum { LS_DEPTH = 3 };

struct ls {
    bool why;
    cJSON *list;  /* NULL: tables for people */
    size_t found; /* checkpoints below the present PATH */
    size_t failed;
    int code; /* of the first path that failed */
};

static void ls_fail(struct ls *ls, const char *path, errint error)
{
    cleanup_free char *plain = plain_text(path);
    log_error("%s: %s", plain ? plain : "?", strerror(-error));
    ls->failed++;
    ls->code = EXIT_FAILED;
}

bool ls_is_known_complete(const struct ls_mounted *mounted)
{
    return mounted->known && mounted->life.state == CHECKPOINT_COMPLETE + 1;
}

const char *ls_state(const struct run_checkpoint *checkpoint, const struct ls_mounted *mounted)
{
    const struct control_life *life = &mounted->life;
    enum complete_state state = checkpoint->complete.state;
    if (mounted->known && life->torn > 0)
        return "torn";
    /* What is being added does not count yet; a rank that never wrote is awaited no more; and what others of
     * the run have got since is nothing that it lacks. */
    const struct complete *complete = &checkpoint->complete;
    bool whole = complete->missing == complete->awaits + complete->others;
    if (ls_is_known_complete(mounted) &&
        (state == COMPLETE_YES || life->writing > 0 || (state == COMPLETE_NOT && whole)))
        return "durable";
    if (mounted->known && life->writing > 0)
        return "writing";
    if (mounted->known && state == COMPLETE_YES && life->files > 0 && life->unsynced == 0)
        return "durable";
    return complete_state_name(state);
}

bool ls_state_is_complete(const char *state)
{
    return strcmp(state, "durable") == 0 || strcmp(state, "complete") == 0;
}

/* As the states are, that are shown. */
static void ls_mark_latest(struct run *run, const struct ls_mounted *mounted)
{
    struct run_checkpoint *latest = NULL;
    for (size_t i = 0; i < run->count; i++) {
        const char *state = ls_state(&run->at[i], &mounted[i]);
        run->at[i].latest = false;
        if (run->at[i].step >= 0 && ls_state_is_complete(state))
            latest = &run->at[i];
    }
    if (latest)
        latest->latest = true;
}

/* -- one directory ----------------------------------------------------------------------------------------
 */

static errint ls_show(struct ls *ls, const char *path, struct run *run)
{
    cleanup_free struct ls_mounted *mounted = calloc(run->count, sizeof *mounted);
    errint error = mounted ? 0 : -ENOMEM;
    for (size_t i = 0; i < run->count && !error; i++) {
        /* What the mount says of the run's own directory is of all that is below it. */
        if (*run->at[i].path || run->count == 1)
            error = ls_ask(path, &run->at[i], &mounted[i]);
    }
    const struct ls_run shown = {path, run, mounted};
    if (error)
        return error;
    ls_mark_latest(run, mounted);
    if (!ls->list && ls->found > 0)
        putchar('\n');
    ls->found += run->count;
    return ls->list ? ls_add_json(ls->list, &shown) : ls_print(&shown, ls->why);
}

static bool ls_is_checkpoint(const struct run *run, const char *name)
{
    for (size_t i = 0; i < run->count; i++) {
        if (strcmp(run->at[i].path, name) == 0)
            return true;
    }
    return false;
}

static void ls_walk(struct ls *ls, const char *path, unsigned depth);

/* Directories that are no checkpoints of this one may be runs. */
static void ls_walk_below(struct ls *ls, const char *path, const struct run *run, unsigned depth)
{
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);
    if (count < 0) {
        ls_fail(ls, path, -errno);
        return;
    }
    for (int i = 0; i < count; i++) {
        struct stat status;
        const char *name = names[i]->d_name;
        cleanup_free char *below = ls_join(path, name);
        if (!below)
            ls_fail(ls, path, -ENOMEM);
        else if (name[0] != '.' && !ls_is_checkpoint(run, name) && lstat(below, &status) == 0 &&
                 S_ISDIR(status.st_mode))
            ls_walk(ls, below, depth + 1);
        free(names[i]);
    }
    free(names);
}

static void ls_walk(struct ls *ls, const char *path, unsigned depth)
{
    cleanup_run struct run run = {0};
    errint error = ls_read(path, (struct ls_wish){.why = ls->why || ls->list, .awaits = true}, &run);
    if (error == -ENOENT && depth > 0)
        return; /* It was removed meanwhile. */
    if (!error && run.count > 0)
        error = ls_show(ls, path, &run);
    if (error) {
        ls_fail(ls, path, error);
        return;
    }
    bool one = run.count == 1 && !*run.at[0].path;
    if (depth < LS_DEPTH && !one)
        ls_walk_below(ls, path, &run, depth);
}

/* -- the command ------------------------------------------------------------------------------------------
 */

static void ls_start(struct ls *ls, const char *path)
{
    size_t found = ls->found, failed = ls->failed;
    ls_walk(ls, path, 0);
    if (ls->found > found || ls->failed > failed || ls->list)
        return;
    cleanup_free char *plain = plain_text(path);
    log_error("%s: no checkpoint of a known kind is there", plain ? plain : "?");
    ls->code = EXIT_FAILED;
}

static int ls_finish_json(struct ls *ls)
{
    cleanup_free char *text = cJSON_Print(ls->list);
    cJSON_Delete(ls->list);
    if (!text) {
        log_error("ls: no memory");
        return EXIT_FAILED;
    }
    puts(text);
    return ls->code;
}

static int ls_run_paths(struct ls *ls, char **paths)
{
    static char here[] = ".";
    if (!*paths)
        ls_start(ls, here);
    for (; *paths; paths++)
        ls_start(ls, *paths);
    return ls->list ? ls_finish_json(ls) : ls->code;
}

static int ls_command(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'}, {"why", no_argument, NULL, 'w'}, {0}};
    struct ls ls = {0};
    bool json = false;
    int option;
    while ((option = getopt_long(argc, argv, ":jw", long_options, NULL)) != -1) {
        switch (option) {
        case 'j': json = true; break;
        case 'w': ls.why = true; break;
        default: return command_usage_error(&command_ls, "unknown option: %s", argv[optind - 1]);
        }
    }
    ls.list = json ? cJSON_CreateArray() : NULL;
    if (json && !ls.list) {
        log_error("ls: no memory");
        return EXIT_FAILED;
    }
    return ls_run_paths(&ls, argv + optind);
}

const struct command command_ls = {
    .name = "ls",
    .synopsis = "[-j] [-w] [PATH...]",
    .summary = "list the checkpoints of runs, and which of them are complete",
    .details = "  -j, --json  one JSON document: an array with an object a run\n"
               "  -w, --why   what is missing, and what else is worth knowing, below each checkpoint\n"
               "\n"
               "PATH is a run, a checkpoint or a directory of runs, on a mount or on any disk; default: the\n"
               "working directory.\n",
    .run = ls_command,
};
