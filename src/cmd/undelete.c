/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs undelete`: removed checkpoints are given back, or up for good. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/name_table.h"
#include "cmd/command.h"
#include "cmd/directory.h"
#include "cmd/exit.h"
#include "cmd/undelete_find.h"

struct undelete {
    const char *to; /* NULL: where it was */
    cJSON *list;    /* NULL: a table for people */
    bool headed;
    int code; /* of the first path that failed */
};

static int undelete_fail(struct undelete *undelete, int code)
{
    if (!undelete->code)
        undelete->code = code;
    return code;
}

/* -- listing ----------------------------------------------------------------------------------------------
 */

static void undelete_print(struct undelete *undelete, const struct undelete_place *place,
                           const struct control_trash *entry)
{
    char removed[UNDELETE_TIME_MAX], until[UNDELETE_TIME_MAX], size[SIZE_TEXT_MAX];
    cleanup_free char *path = undelete_path_of(place, entry);
    cleanup_free char *plain = path ? plain_text(path) : NULL;
    if (!undelete->headed)
        printf("%8s  %-16s  %-16s  %*s  PATH\n", "NUMBER", "REMOVED", "KEPT UNTIL", SIZE_TEXT_WIDTH, "SIZE");
    undelete->headed = true;
    printf("%8" PRIu64 "  %-16s  %-16s  %*s  %s%s\n", entry->id,
           undelete_time_text(entry->removed, true, removed),
           undelete_time_text(entry->removed + entry->age, true, until), SIZE_TEXT_WIDTH,
           entry->counted ? size_text((double)entry->bytes, size) : "?", plain ? plain : "no memory",
           entry->partly ? " (in part)" : "");
}

static bool undelete_add_number(cJSON *row, const char *key, bool known, double number)
{
    return known ? cJSON_AddNumberToObject(row, key, number) != NULL
                 : cJSON_AddNullToObject(row, key) != NULL;
}

static errint undelete_add_json(cJSON *list, const struct undelete_place *place,
                                const struct control_trash *entry)
{
    char removed[UNDELETE_TIME_MAX], until[UNDELETE_TIME_MAX];
    cleanup_free char *path = undelete_path_of(place, entry);
    cleanup_free char *plain = path ? plain_text(path) : NULL;
    cJSON *row = cJSON_CreateObject();
    if (!plain || !row || !cJSON_AddItemToArray(list, row)) {
        cJSON_Delete(row);
        return -ENOMEM;
    }
    undelete_time_text(entry->removed, false, removed);
    undelete_time_text(entry->removed + entry->age, false, until);
    bool fine = cJSON_AddStringToObject(row, "path", plain) &&
                cJSON_AddNumberToObject(row, "number", (double)entry->id) &&
                cJSON_AddStringToObject(row, "removed", removed) &&
                cJSON_AddStringToObject(row, "kept_until", until) &&
                cJSON_AddNumberToObject(row, "owner", entry->uid) &&
                cJSON_AddNumberToObject(row, "removed_by", entry->remover) &&
                cJSON_AddStringToObject(row, "reason", entry->reason) &&
                cJSON_AddBoolToObject(row, "in_part", entry->partly) &&
                undelete_add_number(row, "files", entry->counted, (double)entry->files) &&
                undelete_add_number(row, "bytes", entry->counted, (double)entry->bytes) &&
                undelete_add_number(row, "unique_bytes", entry->counted, (double)entry->unique_bytes);
    return fine ? 0 : -ENOMEM;
}

static void undelete_list(struct undelete *undelete, const char *path)
{
    __attribute__((cleanup(undelete_place_release))) struct undelete_place place = {0};
    int code = undelete_place_find(path, &place);
    for (size_t i = 0; i < place.count && !code; i++) {
        const struct control_trash *entry = &place.entries[i];
        if (!undelete_is_below(&place, entry))
            continue;
        errint error = undelete->list ? undelete_add_json(undelete->list, &place, entry) : 0;
        if (error)
            code = directory_explain(path, -error);
        else if (!undelete->list)
            undelete_print(undelete, &place, entry);
    }
    undelete_fail(undelete, code);
}

/* -- giving back ------------------------------------------------------------------------------------------
 */

static int undelete_explain(const char *path, const struct control_trash *entry, int error)
{
    switch (error) {
    case EEXIST:
        log_error("%s: something of that name is there, and is not replaced: give another place by --to",
                  path);
        return EXIT_FAILED;
    case ENOENT:
        log_error("%s: number %" PRIu64 " is not in the trash any more", path, entry->id);
        return EXIT_FAILED;
    case EACCES:
        log_error("%s: you may not write the directory that it would be in", path);
        return EXIT_NOT_PERMITTED;
    default: return directory_explain(path, error);
    }
}

/* The mode that a directory had which was removed with what is given back, without what others than its owner
 * might write: the view of the trash shows that much. */
static mode_t undelete_mode_above(const struct undelete_place *place, const char *path)
{
    struct stat status;
    cleanup_free char *view = NULL;
    size_t root = strcmp(place->mountpoint, "/") == 0 ? 0 : strlen(place->mountpoint);
    if (strncmp(path, place->mountpoint, root) != 0 ||
        asprintf(&view, "%.*s" UNDELETE_VIEW "%s", (int)root, path, path + root) < 0 ||
        stat(view, &status) < 0)
        return 0777;
    return (status.st_mode & 0777) | S_IWUSR;
}

/* Makes the directories above a path that are missing. 0 or an errno. */
static int undelete_make_above(const struct undelete_place *place, const char *path)
{
    cleanup_free char *copy = strdup(path);
    if (!copy)
        return ENOMEM;
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (access(copy, F_OK) < 0 && mkdir(copy, undelete_mode_above(place, copy)) < 0 && errno != EEXIST)
            return errno;
        *slash = '/';
    }
    return 0;
}

/* To the absolute path. */
static int undelete_give(const struct undelete_place *place, const struct control_trash *entry,
                         const char *path)
{
    struct control_undelete wanted = {.id = entry->id};
    const char *slash = strrchr(path, '/');
    cleanup_fd int fd = -1;
    cleanup_free char *above = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    int error = above ? undelete_make_above(place, path) : ENOMEM;
    if (error || strlen(slash + 1) >= sizeof wanted.name)
        return directory_explain(path, error ? error : ENAMETOOLONG);
    memcpy(wanted.name, slash + 1, strlen(slash + 1) + 1);
    int code = directory_open(above, &fd);
    if (code)
        return code;
    error = directory_ask(fd, CKPTFS_IOCTL_UNDELETE, &wanted);
    if (error)
        return undelete_explain(path, entry, error);
    cleanup_free char *plain = plain_text(path);
    char size[SIZE_TEXT_MAX];
    printf("%s: is back", plain ? plain : "?");
    if (entry->counted)
        printf(" (%" PRIu64 " file%s, %s)", entry->files, entry->files == 1 ? "" : "s",
               size_text((double)entry->bytes, size));
    putchar('\n');
    return EXIT_FINE;
}

static int undelete_give_one(const struct undelete *undelete, const struct undelete_place *place,
                             const struct control_trash *entry)
{
    cleanup_free char *path = undelete->to ? undelete_resolve(undelete->to) : undelete_path_of(place, entry);
    return path ? undelete_give(place, entry, path) : directory_explain(place->relative, ENOMEM);
}

/* The entry of that path; or else the last of each path below it. */
static void undelete_run_path(struct undelete *undelete, const char *path)
{
    __attribute__((cleanup(undelete_place_release))) struct undelete_place place = {0};
    cleanup_name_table struct name_table given = {0};
    int code = undelete_place_find(path, &place);
    const struct control_trash *entry = code ? NULL : undelete_find_entry(&place);
    size_t found = 0;
    if (entry)
        code = undelete_give_one(undelete, &place, entry);
    for (size_t i = place.count; i > 0 && !code && !entry && !undelete->to; i--) {
        const struct control_trash *last = &place.entries[i - 1];
        if (!undelete_is_below(&place, last) || name_table_add(&given, last->path, 0) == -EEXIST)
            continue;
        found++;
        undelete_fail(undelete, undelete_give_one(undelete, &place, last));
    }
    if (!code && !entry && found == 0) {
        log_error("%s: is not in the trash: only complete checkpoints go there, and stay for a while; see "
                  "`ckptfs undelete --list`",
                  path);
        code = EXIT_FAILED;
    }
    undelete_fail(undelete, code);
}

/* -- giving up --------------------------------------------------------------------------------------------
 */

static int undelete_drop_one(const struct undelete_place *place, const struct control_trash *entry)
{
    cleanup_free char *path = undelete_path_of(place, entry);
    cleanup_free char *plain = path ? plain_text(path) : NULL;
    cleanup_fd int fd = -1;
    int code = plain ? directory_open(place->mountpoint, &fd) : directory_explain(place->relative, ENOMEM);
    if (code)
        return code;
    uint64_t id = entry->id;
    int error = directory_ask(fd, CKPTFS_IOCTL_TRASH_DROP, &id);
    if (error)
        return undelete_explain(path, entry, error);
    printf("%s~%" PRIu64 ": is gone for good\n", plain, id);
    return EXIT_FINE;
}

/* The one whose number is given; or else all that were removed at or below the path. */
static void undelete_drop_path(struct undelete *undelete, const char *path)
{
    __attribute__((cleanup(undelete_place_release))) struct undelete_place place = {0};
    int code = undelete_place_find(path, &place);
    const struct control_trash *numbered = code ? NULL : undelete_find_numbered(&place);
    if (numbered)
        code = undelete_drop_one(&place, numbered);
    for (size_t i = 0; i < place.count && !code && !numbered; i++) {
        if (undelete_is_below(&place, &place.entries[i]))
            code = undelete_drop_one(&place, &place.entries[i]);
    }
    undelete_fail(undelete, code);
}

/* -- the command ------------------------------------------------------------------------------------------
 */

static int undelete_finish_list(struct undelete *undelete)
{
    if (!undelete->list)
        return undelete->code;
    cleanup_free char *text = cJSON_Print(undelete->list);
    cJSON_Delete(undelete->list);
    if (!text)
        return directory_explain("undelete", ENOMEM);
    puts(text);
    return undelete->code;
}

static int undelete_run_list(struct undelete *undelete, char **paths, bool json)
{
    undelete->list = json ? cJSON_CreateArray() : NULL;
    if (json && !undelete->list)
        return directory_explain("undelete", ENOMEM);
    if (!*paths)
        undelete_list(undelete, ".");
    for (; *paths; paths++)
        undelete_list(undelete, *paths);
    return undelete_finish_list(undelete);
}

static int undelete_run(int argc, char **argv)
{
    static const struct option long_options[] = {{"list", no_argument, NULL, 'l'},
                                                 {"drop", no_argument, NULL, 'd'},
                                                 {"json", no_argument, NULL, 'j'},
                                                 {"to", required_argument, NULL, 't'},
                                                 {0}};
    struct undelete undelete = {0};
    bool list = false, json = false, drop = false;
    int option;
    while ((option = getopt_long(argc, argv, ":ldjt:", long_options, NULL)) != -1) {
        switch (option) {
        case 'd': drop = true; break;
        case 'l': list = true; break;
        case 'j': json = true; break;
        case 't': undelete.to = optarg; break;
        case ':': return command_usage_error(&command_undelete, "%s needs a path", argv[optind - 1]);
        default: return command_usage_error(&command_undelete, "unknown option: %s", argv[optind - 1]);
        }
    }
    int count = argc - optind;
    if (list ? undelete.to || drop : json || count == 0 || (undelete.to && (drop || count != 1)))
        return command_usage_error(&command_undelete,
                                   "expected PATH..., --to NEW PATH, --drop PATH... or --list [PATH...]");
    if (list)
        return undelete_run_list(&undelete, argv + optind, json);
    void (*run)(struct undelete *, const char *) = drop ? undelete_drop_path : undelete_run_path;
    for (int i = optind; i < argc; i++)
        run(&undelete, argv[i]);
    return undelete.code;
}

const struct command command_undelete = {
    .name = "undelete",
    .synopsis = "PATH... | -t NEW PATH | -d PATH... | -l [-j] [PATH...]",
    .summary = "give removed checkpoints back",
    .details =
        "  -t, --to NEW  put the checkpoint there instead of where it was\n"
        "  -d, --drop    give up for good what was removed at or below PATH\n"
        "  -l, --list    list what can be given back, of the mount or below PATH\n"
        "  -j, --json    list as one JSON document\n"
        "\n"
        "PATH is where a checkpoint was, with ~NUMBER behind it for an earlier one of the same name;\n"
        "or a directory: then all that was removed below it. Nothing is ever replaced. What the trash\n"
        "keeps, and for how long, are the policies trash and trash-age.\n",
    .run = undelete_run,
};
