/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs template`: whose configuration, tokenizer and code are lent to the checkpoints of a run. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/size_text.h"
#include "cmd/command.h"
#include "cmd/directory.h"
#include "cmd/exit.h"
#include "cmd/template_files.h"
#include "format/plain_text.h"
#include "fs/control.h"

static void template_release_json(cJSON **json)
{
    cJSON_Delete(*json);
}

#define cleanup_json __attribute__((cleanup(template_release_json)))

/* -- giving one -------------------------------------------------------------------------------------------
 */

static errint template_fill(const struct template_files *files, struct control_template *out)
{
    cleanup_free char *real = realpath(files->directory, NULL);
    if (!real)
        return -errno;
    if (strlen(real) >= sizeof out->path)
        return -ENAMETOOLONG;
    memcpy(out->path, real, strlen(real) + 1);
    for (size_t i = 0; i < files->count; i++) {
        struct stat status;
        if (fstat(files->at[i].copy, &status) < 0)
            return -errno;
        out->files[i].ino = status.st_ino;
        memcpy(out->files[i].name, files->at[i].name, strlen(files->at[i].name) + 1);
    }
    out->count = (uint32_t)files->count;
    return 0;
}

static void template_print_given(const char *run, const struct template_files *files)
{
    char text[SIZE_TEXT_MAX];
    int64_t bytes = 0;
    bool configured = false;
    for (size_t i = 0; i < files->count; i++) {
        bytes += files->at[i].size;
        configured |= strcmp(files->at[i].name, "config.json") == 0 ||
                      strcmp(files->at[i].name, "adapter_config.json") == 0;
    }
    printf("%s: %zu file%s (%s) of %s are lent to its checkpoints\n", run, files->count,
           files->count == 1 ? "" : "s", size_text((double)bytes, text), files->directory);
    if (!configured)
        log_warning("%s: has no config.json", files->directory);
}

/* With all that is copied into the run, which is open as `fd`. */
static int template_hand_over(const char *run, int fd, const struct template_files *files)
{
    cleanup_free struct control_template *wanted = calloc(1, sizeof *wanted);
    errint error = wanted ? template_fill(files, wanted) : -ENOMEM;
    if (error)
        return directory_explain(files->directory, -error);
    int refused = directory_ask(fd, CKPTFS_IOCTL_TEMPLATE_PUT, wanted);
    if (refused)
        return directory_explain(run, refused);
    if (!template_files_sync(files))
        return EXIT_FAILED;
    if (fsync(fd) < 0)
        return directory_explain(run, errno);
    template_print_given(run, files);
    return EXIT_FINE;
}

static int template_give(const char *run, const char *directory)
{
    __attribute__((cleanup(template_files_release))) struct template_files files = {.directory = directory};
    struct stat status;
    cleanup_fd int fd = -1;
    int code = directory_open(run, &fd);
    if (code)
        return code;
    if (fstat(fd, &status) < 0)
        return directory_explain(run, errno);
    if (geteuid() != 0 && geteuid() != status.st_uid)
        return directory_explain(run, EPERM);
    if (!template_files_find(&files) || !template_files_copy(&files, fd))
        return EXIT_FAILED;
    return template_hand_over(run, fd, &files);
}

static int template_take_away(const char *run)
{
    cleanup_fd int fd = -1;
    int code = directory_open(run, &fd);
    int error = code ? 0 : directory_ask(fd, CKPTFS_IOCTL_TEMPLATE_REMOVE, NULL);
    if (error == ENOENT) {
        log_error("%s: has no template of its own", run);
        return EXIT_FAILED;
    }
    return error ? directory_explain(run, error) : code;
}

/* -- showing ----------------------------------------------------------------------------------------------
 */

static char *template_run_of(const char *path, const cJSON *answer)
{
    const cJSON *levels = cJSON_GetObjectItemCaseSensitive(answer, "levels");
    return directory_above(path, cJSON_IsNumber(levels) ? (unsigned)levels->valuedouble : 0);
}

static void template_print(const char *path, const cJSON *answer)
{
    cleanup_free char *run = template_run_of(path, answer);
    const char *from = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "path"));
    cleanup_free char *plain = plain_text(from ? from : "");
    printf("template of %s: %s\n", run ? run : "a directory above", plain ? plain : "no memory");
    const cJSON *file;
    cJSON_ArrayForEach(file, cJSON_GetObjectItemCaseSensitive(answer, "files"))
    {
        char text[SIZE_TEXT_MAX];
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(file, "name"));
        const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(file, "bytes");
        cleanup_free char *shown = plain_text(name ? name : "");
        printf("%*s  %s\n", SIZE_TEXT_WIDTH, size_text(cJSON_IsNumber(bytes) ? bytes->valuedouble : 0, text),
               shown ? shown : "no memory");
    }
}

/* As the daemon has answered, with the run's path. `answer` NULL: there is none. */
static errint template_print_json(const char *path, cJSON *answer)
{
    cleanup_json cJSON *none = answer ? NULL : cJSON_CreateNull();
    cleanup_free char *run = answer ? template_run_of(path, answer) : NULL;
    cleanup_free char *plain = run ? plain_text(run) : NULL;
    if (answer) {
        cJSON_DeleteItemFromObjectCaseSensitive(answer, "levels");
        if (!(plain ? cJSON_AddStringToObject(answer, "run", plain) : cJSON_AddNullToObject(answer, "run")))
            return -ENOMEM;
    }
    cleanup_free char *text = cJSON_Print(answer ? answer : none);
    if (!text)
        return -ENOMEM;
    puts(text);
    return 0;
}

static int template_show(const char *path, bool json)
{
    cleanup_fd int fd = -1;
    cleanup_free struct control_text *answer = calloc(1, sizeof *answer);
    int code = answer ? directory_open(path, &fd) : directory_explain(path, ENOMEM);
    if (code)
        return code;
    int error = directory_ask(fd, CKPTFS_IOCTL_TEMPLATE_SHOW, answer);
    if (error && error != ENOENT)
        return directory_explain(path, error);
    size_t length = strnlen(answer->text, sizeof answer->text);
    cleanup_json cJSON *document = error ? NULL : cJSON_ParseWithLength(answer->text, length);
    if (!error && !document)
        return directory_explain(path, EPROTO);
    if (json) {
        errint failed = template_print_json(path, document);
        return failed ? directory_explain(path, -failed) : EXIT_FINE;
    }
    if (document)
        template_print(path, document);
    else
        puts("none");
    return EXIT_FINE;
}

/* -- the command ------------------------------------------------------------------------------------------
 */

static int template_run(int argc, char **argv)
{
    static const struct option long_options[] = {{"show", no_argument, NULL, 's'},
                                                 {"remove", no_argument, NULL, 'r'},
                                                 {"json", no_argument, NULL, 'j'},
                                                 {0}};
    bool show = false, away = false, json = false;
    int option;
    while ((option = getopt_long(argc, argv, ":srj", long_options, NULL)) != -1) {
        switch (option) {
        case 's': show = true; break;
        case 'r': away = true; break;
        case 'j': json = true; break;
        default: return command_usage_error(&command_template, "unknown option: %s", argv[optind - 1]);
        }
    }
    int expected = show || away ? 1 : 2;
    if ((show && away) || (json && !show) || argc - optind != expected)
        return command_usage_error(&command_template, "expected RUN DIR, --show RUN or --remove RUN");
    if (show)
        return template_show(argv[optind], json);
    return away ? template_take_away(argv[optind]) : template_give(argv[optind], argv[optind + 1]);
}

const struct command command_template = {
    .name = "template",
    .synopsis = "RUN DIR | -s [-j] RUN | -r RUN",
    .summary = "lend a model's configuration and tokenizer to the checkpoints of a run",
    .details = "  -s, --show    show which template holds for RUN, and what is in it\n"
               "  -r, --remove  take the template of RUN away\n"
               "  -j, --json    show as one JSON document\n"
               "\n"
               "DIR is on any disk: the base model, say. Its configuration, tokenizer and code are copied;\n"
               "weights are not. They appear in .ckptfs/models beside models that have none of their own.\n",
    .run = template_run,
};
