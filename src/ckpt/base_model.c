/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of base models. The cache's layout is huggingface_hub's (file_download.py, 1.9). */
#include "ckpt/base_model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/transfer.h"

enum { BASE_MODEL_NAME_MAX = 96, BASE_MODEL_REVISION = 40 };

void base_models_release(struct base_models *models)
{
    for (size_t i = 0; i < models->count; i++)
        free(models->at[i]);
    *models = (struct base_models){0};
}

errint base_models_add(struct base_models *models, const char *path, const char *but)
{
    struct stat status;
    cleanup_free char *real = realpath(path, NULL);
    if (!real)
        return errno == ENOMEM ? -ENOMEM : 0;
    if (stat(real, &status) < 0 || !S_ISDIR(status.st_mode) || (but && strcmp(real, but) == 0) ||
        models->count == BASE_MODELS_MAX)
        return 0;
    for (size_t i = 0; i < models->count; i++) {
        if (strcmp(models->at[i], real) == 0)
            return 0;
    }
    models->at[models->count++] = steal_pointer(real);
    return 0;
}

/* "DIRECTORY/NAME", which the caller frees; NULL: no memory. */
static char *base_model_join(const char *directory, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

static errint base_models_add_below(struct base_models *models, const char *directory, const char *name,
                                    const char *but)
{
    cleanup_free char *path = base_model_join(directory, name);
    return path ? base_models_add(models, path, but) : -ENOMEM;
}

/* -- the Hub's cache --------------------------------------------------------------------------------------
 */

static bool base_model_part_is_valid(const char *part, size_t length)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    return length > 0 && strspn(part, letters) >= length && !strchr("-.", part[0]) &&
           !strchr("-.", part[length - 1]);
}

bool base_model_name_is_valid(const char *name)
{
    const char *slash = strchr(name, '/');
    size_t length = strlen(name), first = slash ? (size_t)(slash - name) : length;
    if (length > BASE_MODEL_NAME_MAX || strstr(name, "--") || strstr(name, ".."))
        return false;
    return base_model_part_is_valid(name, first) &&
           (!slash || base_model_part_is_valid(slash + 1, length - first - 1));
}

/* The revision that "main" is, as 40 hexadecimal digits. */
static bool base_model_read_main(const char *directory, char *revision)
{
    cleanup_free char *path = base_model_join(directory, "refs/main");
    cleanup_fd int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) : -1;
    ssize_t length = fd < 0 ? -1 : transfer_read_some(fd, revision, BASE_MODEL_REVISION, 0);
    revision[length < 0 ? 0 : length] = '\0';
    return strspn(revision, "0123456789abcdef") == BASE_MODEL_REVISION;
}

static errint base_models_add_snapshots(struct base_models *models, const char *snapshots, const char *but)
{
    DIR *stream = opendir(snapshots);
    const struct dirent *found;
    errint error = 0;
    while (stream && !error && (found = readdir(stream))) {
        if (found->d_name[0] != '.')
            error = base_models_add_below(models, snapshots, found->d_name, but);
    }
    if (stream)
        closedir(stream);
    return error;
}

errint base_models_add_cached(struct base_models *models, const char *cache, const char *name,
                              const char *but)
{
    char revision[BASE_MODEL_REVISION + 1];
    if (!base_model_name_is_valid(name))
        return 0;
    const char *slash = strchr(name, '/');
    char *made;
    if (asprintf(&made, "%s/models--%.*s%s%s", cache, slash ? (int)(slash - name) : 0, name,
                 slash ? "--" : "", slash ? slash + 1 : name) < 0)
        return -ENOMEM;
    cleanup_free char *directory = made;
    cleanup_free char *snapshots = base_model_join(directory, "snapshots");
    if (!snapshots)
        return -ENOMEM;
    return base_model_read_main(directory, revision) ? base_models_add_below(models, snapshots, revision, but)
                                                     : base_models_add_snapshots(models, snapshots, but);
}

/* -- the same run -----------------------------------------------------------------------------------------
 */

#define BASE_MODEL_CHECKPOINT "checkpoint-"

/* The step of a name as "checkpoint-500"; -1: it is another name. */
static long base_model_step(const char *name)
{
    size_t start = strlen(BASE_MODEL_CHECKPOINT);
    if (strncmp(name, BASE_MODEL_CHECKPOINT, start) != 0)
        return -1;
    const char *digits = name + start;
    size_t length = strspn(digits, "0123456789");
    return length > 0 && length <= 15 && digits[length] == '\0' ? strtol(digits, NULL, 10) : -1;
}

static int base_model_compare_steps(const void *one, const void *other)
{
    const long *a = one, *b = other;
    return (*a < *b) - (*a > *b);
}

/* The earlier checkpoints of a run into steps[BASE_MODELS_MAX], the latest ones when they are more. */
static size_t base_model_list_run(const char *run, long before, long *steps)
{
    DIR *stream = opendir(run);
    const struct dirent *found;
    size_t count = 0;
    while (stream && (found = readdir(stream))) {
        long step = base_model_step(found->d_name);
        if (step < 0 || step >= before)
            continue;
        if (count == BASE_MODELS_MAX)
            qsort(steps, count--, sizeof *steps, base_model_compare_steps);
        steps[count++] = step;
    }
    if (stream)
        closedir(stream);
    if (count > 0)
        qsort(steps, count, sizeof *steps, base_model_compare_steps);
    return count;
}

errint base_models_add_run(struct base_models *models, const char *checkpoint)
{
    long steps[BASE_MODELS_MAX];
    const char *slash = strrchr(checkpoint, '/');
    long step = slash && slash > checkpoint ? base_model_step(slash + 1) : -1;
    if (step < 0)
        return 0;
    cleanup_free char *run = strndup(checkpoint, (size_t)(slash - checkpoint));
    errint error = run ? base_models_add(models, run, checkpoint) : -ENOMEM;
    size_t count = error ? 0 : base_model_list_run(run, step, steps);
    for (size_t i = 0; i < count && !error; i++) {
        char name[32];
        snprintf(name, sizeof name, BASE_MODEL_CHECKPOINT "%ld", steps[i]);
        error = base_models_add_below(models, run, name, checkpoint);
    }
    return error;
}
