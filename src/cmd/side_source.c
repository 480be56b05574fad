/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the mount's view for what a checkpoint lacks. */
#include "cmd/side_source.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/side_files.h"
#include "cmd/assemble_mounted.h"
#include "cmd/directory.h"
#include "fs/control.h"

static bool side_has_any(const struct folder_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++) {
        if (!listing->at[i].directory && side_file_is(listing->at[i].name))
            return true;
    }
    return false;
}

static errint side_open_folder(const char *path, bool strict, struct side_source *source)
{
    errint error = strict ? folder_plain_strict(path, &source->folder) : folder_plain(path, &source->folder);
    return error ? error : folder_read(&source->folder, "", &source->listing);
}

/* The path of the directory that was opened, whatever has its name meanwhile. NULL: there is none. */
static char *side_real_path(const char *path)
{
    cleanup_folder_plain struct folder folder = {0};
    char link[64];
    if (folder_plain_strict(path, &folder) < 0)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder_plain_directory(&folder));
    return realpath(link, NULL);
}

/* False, and nothing is open: there is no view, or it shows no model. */
static bool side_open_view(const char *path, bool strict, struct side_source *source)
{
    cleanup_free char *real = strict ? side_real_path(path) : NULL;
    cleanup_free char *view = strict && !real ? NULL : assemble_view_of(real ? real : path);
    if (view && side_open_folder(view, strict, source) == 0 && side_has_any(&source->listing))
        return true;
    side_source_release(source);
    return false;
}

/* What the nearest template was made of, where it is there still. */
static void side_find_base(const char *path, struct side_source *source)
{
    struct control_text answer;
    cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || directory_ask(fd, CKPTFS_IOCTL_TEMPLATE_SHOW, &answer) != 0)
        return;
    answer.text[sizeof answer.text - 1] = '\0';
    cJSON *document = cJSON_Parse(answer.text);
    const char *base = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, "path"));
    source->base = base ? strdup(base) : NULL;
    cJSON_Delete(document);
}

errint side_source_open(const char *path, bool strict, struct side_source *out)
{
    *out = (struct side_source){0};
    if (!side_open_view(path, strict, out))
        return side_open_folder(path, strict, out);
    side_find_base(path, out);
    return 0;
}

void side_source_release(struct side_source *source)
{
    folder_listing_release(&source->listing);
    folder_plain_release(&source->folder);
    free(source->base);
    *source = (struct side_source){0};
}
