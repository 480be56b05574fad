/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs policy`: what is set for a directory of a mount, and setting it. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cmd/command.h"
#include "cmd/directory.h"
#include "cmd/exit.h"
#include "cmd/policy_keep.h"
#include "format/plain_text.h"
#include "fs/control.h"
#include "fs/policy.h"

static void policy_release_json(cJSON **json)
{
    cJSON_Delete(*json);
}

#define cleanup_json __attribute__((cleanup(policy_release_json)))

/* -- showing ----------------------------------------------------------------------------------------------
 */

static const char *policy_text_of(const cJSON *row, const char *member)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, member));
}

/* Which directory has it, as a path; NULL: none has, or it cannot be told. */
static char *policy_directory_of(const char *path, const cJSON *row)
{
    const char *source = policy_text_of(row, "source");
    const cJSON *levels = cJSON_GetObjectItemCaseSensitive(row, "levels");
    if (source && strcmp(source, "directory") == 0)
        return directory_above(path, 0);
    if (source && strcmp(source, "above") == 0 && cJSON_IsNumber(levels) && levels->valuedouble > 0)
        return directory_above(path, (unsigned)levels->valuedouble);
    return NULL;
}

static void policy_print_source(const char *path, const cJSON *row)
{
    const char *source = policy_text_of(row, "source");
    cleanup_free char *directory = policy_directory_of(path, row);
    cleanup_free char *plain = directory ? plain_text(directory) : NULL;
    if (!source)
        puts("not set");
    else if (strcmp(source, "directory") == 0)
        puts("this directory");
    else if (strcmp(source, "above") == 0)
        puts(plain ? plain : "a directory above");
    else
        puts(strcmp(source, "mount") == 0 ? "the mount's option" : "the default");
}

static void policy_print(const char *path, const cJSON *list)
{
    static const char *const key_head = "KEY", *const value_head = "VALUE";
    int key_width = (int)strlen(key_head), value_width = (int)strlen(value_head);
    const cJSON *row;
    cJSON_ArrayForEach(row, list)
    {
        const char *key = policy_text_of(row, "key"), *value = policy_text_of(row, "value");
        if (key && (int)strlen(key) > key_width)
            key_width = (int)strlen(key);
        if (value && (int)strlen(value) > value_width)
            value_width = (int)strlen(value);
    }
    printf("%-*s  %-*s  FROM\n", key_width, key_head, value_width, value_head);
    cJSON_ArrayForEach(row, list)
    {
        const char *key = policy_text_of(row, "key"), *value = policy_text_of(row, "value");
        cleanup_free char *plain = plain_text(value ? value : "-");
        printf("%-*s  %-*s  ", key_width, key ? key : "", value_width, plain ? plain : "no memory");
        policy_print_source(path, row);
    }
}

static bool policy_add_text(cJSON *object, const char *key, const char *text)
{
    cleanup_free char *plain = text ? plain_text(text) : NULL;
    if (!text)
        return cJSON_AddNullToObject(object, key);
    return plain && cJSON_AddStringToObject(object, key, plain);
}

static bool policy_add_row(cJSON *rows, const char *path, const cJSON *row)
{
    cleanup_free char *directory = policy_directory_of(path, row);
    cJSON *object = cJSON_CreateObject();
    if (!object || !cJSON_AddItemToArray(rows, object)) {
        cJSON_Delete(object);
        return false;
    }
    return policy_add_text(object, "key", policy_text_of(row, "key")) &&
           policy_add_text(object, "value", policy_text_of(row, "value")) &&
           policy_add_text(object, "source", policy_text_of(row, "source")) &&
           policy_add_text(object, "directory", directory);
}

static errint policy_print_json(const char *path, const cJSON *list)
{
    cleanup_json cJSON *document = cJSON_CreateObject();
    cleanup_free char *real = directory_above(path, 0);
    cJSON *rows = document && policy_add_text(document, "path", real)
                      ? cJSON_AddArrayToObject(document, "policies")
                      : NULL;
    bool fine = rows;
    const cJSON *row;
    cJSON_ArrayForEach(row, list) fine = fine && policy_add_row(rows, path, row);
    cleanup_free char *text = fine ? cJSON_Print(document) : NULL;
    if (!text)
        return -ENOMEM;
    puts(text);
    return 0;
}

static int policy_show(const char *path, bool json)
{
    cleanup_fd int fd = -1;
    cleanup_free struct control_text *answer = calloc(1, sizeof *answer);
    int code = answer ? directory_open(path, &fd) : directory_explain(path, ENOMEM);
    if (code)
        return code;
    int error = directory_ask(fd, CKPTFS_IOCTL_POLICY_SHOW, answer);
    if (error)
        return directory_explain(path, error);
    cleanup_json cJSON *list =
        cJSON_ParseWithLength(answer->text, strnlen(answer->text, sizeof answer->text));
    if (!list)
        return directory_explain(path, EPROTO);
    errint failed = json ? policy_print_json(path, list) : 0;
    if (failed)
        return directory_explain(path, -failed);
    if (!json)
        policy_print(path, list);
    return EXIT_FINE;
}

/* -- setting ----------------------------------------------------------------------------------------------
 */

/* Whether "KEY=VALUE" (or "KEY", where `unset`) is something that can be set: EXIT_FINE, or the exit code. */
static int policy_check_word(const char *word, bool unset)
{
    char problem[POLICY_PROBLEM_MAX];
    cleanup_free char *key = strdup(word);
    if (!key)
        return directory_explain(word, ENOMEM);
    char *value = strchr(key, '=');
    if (unset && value)
        return command_usage_error(&command_policy, "unset: expected KEY, found '%s'", word);
    if (!unset && !value)
        return command_usage_error(&command_policy, "set: expected KEY=VALUE, found '%s'", word);
    if (value)
        *value++ = '\0';
    return policy_check(key, value, problem) ? command_usage_error(&command_policy, "%s", problem)
                                             : EXIT_FINE;
}

static int policy_change_words(const char *path, char **words, bool unset)
{
    cleanup_fd int fd = -1;
    cleanup_free struct control_text *question = calloc(1, sizeof *question);
    if (!question)
        return directory_explain(path, ENOMEM);
    size_t used = 0;
    for (char **word = words; *word; word++) {
        int code = policy_check_word(*word, unset);
        size_t length = strlen(*word) + 1;
        if (code)
            return code;
        if (length + 1 > sizeof question->text - used)
            return directory_explain(path, E2BIG);
        memcpy(question->text + used, *word, length);
        used += length;
    }
    int code = directory_open(path, &fd);
    int error = code ? 0 : directory_ask(fd, CKPTFS_IOCTL_POLICY_SET, question);
    if (error == EINVAL) {
        log_error("%s: the mount's daemon does not know this policy: it is of another version", path);
        return EXIT_FAILED;
    }
    if (error == EOPNOTSUPP) {
        log_error("%s: your hooks are not run on this mount: it or its store is another user's, or it has "
                  "the option hooks=no",
                  path);
        return EXIT_NOT_PERMITTED;
    }
    return error ? directory_explain(path, error) : code;
}

/* -- trying -----------------------------------------------------------------------------------------------
 */

/* What would happen with the present policy and the words, which may be none. */
static int policy_try_words(const char *path, char **words, bool json)
{
    for (char **word = words; *word; word++) {
        int code = policy_check_word(*word, false);
        if (code)
            return code;
    }
    return policy_try(path, words, json);
}

/* -- the command ------------------------------------------------------------------------------------------
 */

static int policy_run_words(char **words, int count, bool json, bool dry)
{
    const char *action = count > 0 ? words[0] : "";
    bool set = strcmp(action, "set") == 0, unset = strcmp(action, "unset") == 0;
    if (strcmp(action, "show") == 0 && count == 2)
        return dry ? policy_try_words(words[1], words + 2, json) : policy_show(words[1], json);
    if (set && count >= 3 && dry)
        return policy_try_words(words[1], words + 2, json);
    if (strcmp(action, "apply") == 0 && count == 2 && !dry)
        return policy_apply(words[1], json);
    if ((!set && !unset) || count < 3 || json || dry)
        return command_usage_error(&command_policy,
                                   "expected show DIR, set DIR KEY=VALUE..., unset DIR KEY... or apply DIR");
    return policy_change_words(words[1], words + 2, unset);
}

static int policy_run(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'}, {"dry-run", no_argument, NULL, 'n'}, {0}};
    bool json = false, dry = false;
    int option;
    while ((option = getopt_long(argc, argv, ":jn", long_options, NULL)) != -1) {
        switch (option) {
        case 'j': json = true; break;
        case 'n': dry = true; break;
        default: return command_usage_error(&command_policy, "unknown option: %s", argv[optind - 1]);
        }
    }
    return policy_run_words(argv + optind, argc - optind, json, dry);
}

const struct command command_policy = {
    .name = "policy",
    .synopsis = "show [-j] [-n] DIR | set [-n] [-j] DIR KEY=VALUE... | unset DIR KEY... | apply [-j] DIR",
    .summary = "show or set what holds for a directory and all below it",
    .details =
        "  -j, --json     print as one JSON document\n"
        "  -n, --dry-run  of a run: say which checkpoints would stay or go, and why; change nothing\n"
        "\n"
        "What a directory has not itself comes from the nearest one above it that has it, else from\n"
        "the mount's options. Its owner and root may set it. Keys:\n"
        "  assemble=auto|view|off|ask  when the shards of a checkpoint become a model\n"
        "Checkpoints of a run that are kept; all else goes but what is latest, best, pinned, open, ...:\n"
        "  keep-last=N    the newest\n"
        "  keep-best=N[:METRIC[:min|max]]  the best by a metric of the Trainer's\n"
        "  keep-every=K   those whose step is a multiple of K\n"
        "  keep-hourly=N  the last one of each of N hours\n"
        "  keep-daily=N   the last one of each of N days\n"
        "Limits, which go before what is kept; off as a value: not set:\n"
        "  max-bytes=SIZE  as 500GB: of a run's checkpoints together\n"
        "  max-age=TIME   as 12h, 30d or 8w\n"
        "When the space is needed, before whole checkpoints go:\n"
        "  shed=optimizer  the optimizer's state of all but the two newest; their weights stay\n"
        "Commands that are run for events:\n"
        "  hook-EVENT=COMMAND     as you, when a checkpoint is complete, best, removed, exported,\n"
        "                         torn or assembled: ckptfs-hooks(7)\n"
        "  hook-timeout=SECONDS   after so long it is killed\n"
        "  export=DIR             where to on the plain disk models of checkpoints are exported\n"
        "  export-when=WHICH      complete, latest, best, pinned or 'every N'\n"
        "  trash=on|off           whether removed checkpoints can be had back for a while\n"
        "  trash-age=TIME         for how long: 90s, 30m, 12h, 7d or 4w\n",
    .run = policy_run,
};
