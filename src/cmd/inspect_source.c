/* SPDX-License-Identifier: Apache-2.0 */
/* Who lends a checkpoint its configuration. */
#include "cmd/inspect_source.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cmd/directory.h"
#include "format/plain_text.h"
#include "fs/control.h"

/* The directory of a checkpoint that was given as a directory or as a file in it; NULL. The caller frees it.
 */
static char *source_directory(const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return NULL;
    return directory_above(path, S_ISDIR(status.st_mode) ? 0 : 1);
}

/* The directory above, unless that is another filesystem's. */
static char *source_run(const char *directory)
{
    char *above = directory_above(directory, 1);
    struct stat one, other;
    if (above && stat(directory, &one) == 0 && stat(above, &other) == 0 && one.st_dev == other.st_dev)
        return above;
    free(above);
    return strdup(directory);
}

/* False: it is not on a mount, or that does not answer. */
static bool source_ask(const char *directory, struct inspect_source *source)
{
    struct control_source question = {0};
    struct statfs figures;
    cleanup_fd int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstatfs(fd, &figures) < 0 || figures.f_type != FUSE_SUPER_MAGIC)
        return false;
    snprintf(question.name, sizeof question.name, "%s", source->name);
    if (directory_ask(fd, CKPTFS_IOCTL_SOURCE, &question) != 0 || question.source > MODELS_FROM_TEMPLATE)
        return false;
    source->from = (enum models_source)question.source;
    return true;
}

void inspect_source_find(const char *path, bool adapter, struct inspect_source *out)
{
    *out = (struct inspect_source){.name = adapter ? "adapter_config.json" : "config.json"};
    cleanup_free char *directory = source_directory(path);
    if (!directory)
        return;
    out->mounted = source_ask(directory, out);
    if (inspect_source_is_missing(out)) {
        out->run = source_run(directory);
    } else if (!out->mounted) {
        cleanup_fd int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && faccessat(fd, out->name, F_OK, 0) == 0)
            out->from = MODELS_FROM_DIRECTORY;
    }
}

void inspect_source_release(struct inspect_source *source)
{
    free(source->run);
}

bool inspect_source_is_missing(const struct inspect_source *source)
{
    return source->mounted && source->from == MODELS_FROM_NOBODY;
}

bool inspect_source_is_lent(const struct inspect_source *source)
{
    return source->from != MODELS_FROM_NOBODY && source->from != MODELS_FROM_DIRECTORY;
}

const char *inspect_source_word(const struct inspect_source *source)
{
    switch (source->from) {
    case MODELS_FROM_DIRECTORY: return "directory";
    case MODELS_FROM_ABOVE: return "above";
    case MODELS_FROM_NEIGHBOUR: return "neighbour";
    case MODELS_FROM_TEMPLATE: return "template";
    case MODELS_FROM_NOBODY: break;
    }
    return NULL;
}

static char *source_missing_line(const struct inspect_source *source)
{
    cleanup_free char *run = plain_text(source->run ? source->run : "RUN");
    char *line = NULL;
    if (!run ||
        asprintf(&line, "none: a template is missing; give the run one: ckptfs template %s DIR", run) < 0)
        return NULL;
    return line;
}

char *inspect_source_line(const struct inspect_source *source)
{
    if (inspect_source_is_missing(source))
        return source_missing_line(source);
    switch (source->from) {
    case MODELS_FROM_DIRECTORY: return strdup("there");
    case MODELS_FROM_ABOVE: return strdup("of the directory above, in the view of the checkpoint");
    case MODELS_FROM_NEIGHBOUR: return strdup("of a neighbour, in the view of the checkpoint");
    case MODELS_FROM_TEMPLATE: return strdup("of the run's template, in the view of the checkpoint");
    case MODELS_FROM_NOBODY: break;
    }
    return strdup("none: it is missing, and loaders want it");
}
