/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs du`: what files and trees on a mount cost, and what deleting them would give back. */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <wchar.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/size_text.h"
#include "cmd/command.h"
#include "cmd/directory.h"
#include "cmd/exit.h"
#include "fs/control.h"

enum { DU_DEPTH = 1, DU_BYTES_WIDTH = 15 };

struct du {
    unsigned long depth; /* levels of directories that are shown below a PATH */
    bool bytes;
    bool headed; /* the table's first line is printed */
    cJSON *list; /* NULL: a table for people */
    int code;    /* of the first path that failed */
};

/* The first failure decides; the others are told too. */
static void du_fail(struct du *du, int code)
{
    if (!du->code)
        du->code = code;
}

/* -- one line ---------------------------------------------------------------------------------------------
 */

static void du_print_size(const struct du *du, uint64_t bytes)
{
    char text[SIZE_TEXT_MAX];
    if (du->bytes)
        printf("%*" PRIu64 "  ", DU_BYTES_WIDTH, bytes);
    else
        printf("%*s  ", SIZE_TEXT_WIDTH, size_text((double)bytes, text));
}

static void du_print_head(struct du *du)
{
    int width = du->bytes ? DU_BYTES_WIDTH : SIZE_TEXT_WIDTH;
    if (du->headed)
        return;
    du->headed = true;
    printf("%*s  %*s  %*s  %6s  %s\n", width, "LOGICAL", width, "STORED", width, "UNIQUE", "RATIO", "PATH");
}

static void du_print(struct du *du, const char *path, const struct control_usage *usage)
{
    du_print_head(du);
    du_print_size(du, usage->logical_bytes);
    du_print_size(du, usage->stored_bytes);
    du_print_size(du, usage->unique_bytes);
    if (usage->stored_bytes > 0)
        printf("%6.2f  %s\n", (double)usage->logical_bytes / (double)usage->stored_bytes, path);
    else
        printf("%6s  %s\n", "-", path);
}

/* Replaces what is not UTF-8, which JSON cannot hold, by question marks. */
static void du_clean_name(char *name)
{
    mbstate_t state = {0};
    while (*name) {
        size_t length = mbrlen(name, MB_CUR_MAX, &state);
        if (length == (size_t)-1 || length == (size_t)-2) {
            *name = '?';
            length = 1;
            state = (mbstate_t){0};
        }
        name += length;
    }
}

static bool du_fill(cJSON *row, const char *path, const struct control_usage *usage)
{
    cleanup_free char *name = strdup(path);
    if (!name)
        return false;
    du_clean_name(name);
    double logical = (double)usage->logical_bytes, stored = (double)usage->stored_bytes;
    return cJSON_AddStringToObject(row, "path", name) &&
           cJSON_AddNumberToObject(row, "files", (double)usage->files) &&
           cJSON_AddNumberToObject(row, "extents", (double)usage->extents) &&
           cJSON_AddNumberToObject(row, "logical_bytes", logical) &&
           cJSON_AddNumberToObject(row, "stored_bytes", stored) &&
           cJSON_AddNumberToObject(row, "unique_bytes", (double)usage->unique_bytes) &&
           (stored > 0 ? cJSON_AddNumberToObject(row, "share_ratio", logical / stored)
                       : cJSON_AddNullToObject(row, "share_ratio"));
}

static void du_show(struct du *du, const char *path, const struct control_usage *usage)
{
    if (!du->list) {
        du_print(du, path, usage);
        return;
    }
    cJSON *row = cJSON_CreateObject();
    if (row && du_fill(row, path, usage) && cJSON_AddItemToArray(du->list, row))
        return;
    cJSON_Delete(row);
    log_error("%s: no memory", path);
    du_fail(du, EXIT_FAILED);
}

/* -- asking -----------------------------------------------------------------------------------------------
 */

/* Other programs' files are not asked: what they would make of the question is not known. */
static int du_ask(int fd, struct control_usage *out)
{
    struct statfs figures;
    if (fstatfs(fd, &figures) < 0)
        return errno;
    if (figures.f_type != FUSE_SUPER_MAGIC)
        return ENOTTY;
    return ioctl(fd, CKPTFS_IOCTL_USAGE, out) < 0 ? errno : 0;
}

/* False when there is nothing to show, and why has been told. */
static bool du_measure(struct du *du, const char *path, int fd, struct control_usage *out)
{
    int error = du_ask(fd, out);
    if (error)
        du_fail(du, directory_explain(path, error));
    return error == 0;
}

/* -- the tree ---------------------------------------------------------------------------------------------
 */

static void du_walk(struct du *du, const char *path, int fd, dev_t device, unsigned long depth);

static bool du_is_directory(int fd, const struct dirent *entry)
{
    struct stat status;
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
        return false;
    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR;
    return fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode);
}

/* A directory below; what is mounted on it is another's. */
static void du_enter(struct du *du, const char *path, int parent, const char *name, dev_t device,
                     unsigned long depth)
{
    cleanup_free char *below = NULL;
    struct stat status;
    size_t length = strlen(path);
    if (asprintf(&below, "%s%s%s", path, length > 0 && path[length - 1] == '/' ? "" : "/", name) < 0) {
        below = NULL;
        du_fail(du, directory_explain(path, ENOMEM));
        return;
    }
    cleanup_fd int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0) {
        if (errno != ENOENT) /* It was removed meanwhile. */
            du_fail(du, directory_explain(below, errno));
    } else if (status.st_dev == device) {
        du_walk(du, below, fd, device, depth);
    }
}

static void du_walk_children(struct du *du, const char *path, int fd, dev_t device, unsigned long depth)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    if (!directory) {
        du_fail(du, directory_explain(path, errno));
        if (copy >= 0)
            close(copy);
        return;
    }
    const struct dirent *entry;
    while (errno = 0, (entry = readdir(directory))) {
        if (du_is_directory(fd, entry))
            du_enter(du, path, fd, entry->d_name, device, depth);
    }
    if (errno)
        du_fail(du, directory_explain(path, errno));
    closedir(directory);
}

/* What is below is shown first, as du(1) has it. */
static void du_walk(struct du *du, const char *path, int fd, dev_t device, unsigned long depth)
{
    struct control_usage usage = {0};
    if (!du_measure(du, path, fd, &usage))
        return;
    if (depth < du->depth)
        du_walk_children(du, path, fd, device, depth + 1);
    du_show(du, path, &usage);
}

static void du_start(struct du *du, const char *path)
{
    struct control_usage usage = {0};
    struct stat status;
    if (stat(path, &status) < 0) {
        du_fail(du, directory_explain(path, errno));
        return;
    }
    if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)) {
        log_error("%s is neither a file nor a directory", path);
        du_fail(du, EXIT_FAILED);
        return;
    }
    /* Should the path have become a pipe meanwhile, nobody waits for it. */
    cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        du_fail(du, directory_explain(path, errno));
    else if (S_ISDIR(status.st_mode))
        du_walk(du, path, fd, status.st_dev, 0);
    else if (du_measure(du, path, fd, &usage))
        du_show(du, path, &usage);
}

/* -- the command ------------------------------------------------------------------------------------------
 */

static int du_run_json(struct du *du, char **paths)
{
    setlocale(LC_CTYPE, "C.UTF-8");
    du->list = cJSON_CreateArray();
    for (; du->list && *paths; paths++)
        du_start(du, *paths);
    cleanup_free char *text = du->list ? cJSON_Print(du->list) : NULL;
    cJSON_Delete(du->list);
    if (!text) {
        log_error("du: no memory");
        return EXIT_FAILED;
    }
    puts(text);
    return du->code;
}

static int du_run_text(struct du *du, char **paths)
{
    for (; *paths; paths++)
        du_start(du, *paths);
    return du->code;
}

static bool du_parse_depth(const char *text, unsigned long *out)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *out = strtoul(text, &end, 10);
    return *end == '\0' && errno == 0;
}

static int du_run(int argc, char **argv)
{
    static const struct option long_options[] = {{"summarize", no_argument, NULL, 's'},
                                                 {"max-depth", required_argument, NULL, 'd'},
                                                 {"bytes", no_argument, NULL, 'b'},
                                                 {"json", no_argument, NULL, 'j'},
                                                 {0}};
    struct du du = {.depth = DU_DEPTH};
    bool json = false;
    int option;
    while ((option = getopt_long(argc, argv, ":sd:bj", long_options, NULL)) != -1) {
        switch (option) {
        case 's': du.depth = 0; break;
        case 'b': du.bytes = true; break;
        case 'j': json = true; break;
        case 'd':
            if (!du_parse_depth(optarg, &du.depth))
                return command_usage_error(&command_du, "--max-depth: expected a number, found '%s'", optarg);
            break;
        default:
            return command_usage_error(&command_du, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
        }
    }
    if (optind == argc)
        return command_usage_error(&command_du, "expected PATH on a mount");
    return json ? du_run_json(&du, argv + optind) : du_run_text(&du, argv + optind);
}

const struct command command_du = {
    .name = "du",
    .synopsis = "[-s | -d LEVELS] [-b] [-j] PATH...",
    .summary = "show what files and trees cost, and what deleting them would free",
    .details = "  -s, --summarize         only each PATH itself, as -d 0\n"
               "  -d, --max-depth LEVELS  directories down to so many levels below each PATH (1)\n"
               "  -b, --bytes             exact numbers of bytes\n"
               "  -j, --json              one JSON document: an array with an object a path\n"
               "\n"
               "LOGICAL: the sum of the files' sizes; STORED: distinct bytes of the store that they cover;\n"
               "UNIQUE: of these, what nothing outside the path covers; RATIO: LOGICAL / STORED.\n"
               "Only files of the user who asks are counted; for root, all.\n",
    .run = du_run,
};
