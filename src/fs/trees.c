/* SPDX-License-Identifier: Apache-2.0 */
/* Walking trees of directories, a directory at a time. */
#include "fs/trees.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fs/filesystem.h"

/* A number and the blank behind it. */
enum { TREES_NUMBER_MAX = 21 };

/* -- what the database has --------------------------------------------------------------------------------
 */

/* The roots as text; NULL: no memory. */
static char *trees_print(struct trees *trees)
{
    pthread_mutex_lock(&trees->lock);
    size_t room = trees->roots.count * TREES_NUMBER_MAX + 1, length = 0;
    char *text = calloc(1, room);
    for (size_t i = 0; i < trees->roots.count && text; i++)
        length += (size_t)snprintf(text + length, room - length, "%" PRIu64 " ", trees->roots.at[i]);
    pthread_mutex_unlock(&trees->lock);
    return text;
}

static void trees_note(struct filesystem *fs, struct trees *trees)
{
    pthread_mutex_lock(&trees->note);
    cleanup_free char *text = trees_print(trees);
    errint error = text ? meta_setting_put(fs->meta, trees->setting, text) : -ENOMEM;
    pthread_mutex_unlock(&trees->note);
    if (error)
        log_warning("%s: a crash would make it forgotten what is to be looked at: %s", trees->setting,
                    strerror(-error));
}

static errint trees_read(struct filesystem *fs, struct trees *trees)
{
    cleanup_free char *text = NULL;
    errint error = meta_setting_get(fs->meta, trees->setting, &text);
    for (char *at = text; !error && *at;) {
        char *end;
        uint64_t directory = strtoull(at, &end, 10);
        if (end == at)
            break;
        error = ids_append(&trees->roots, directory);
        if (!error)
            error = ids_append(&trees->left, directory);
        at = *end == ' ' ? end + 1 : end;
    }
    return error == -ENOENT ? 0 : error;
}

errint trees_start(struct filesystem *fs, struct trees *trees, const char *setting)
{
    *trees = (struct trees){.setting = setting};
    pthread_mutex_init(&trees->lock, NULL);
    pthread_mutex_init(&trees->note, NULL);
    errint error = trees_read(fs, trees);
    if (error)
        trees_release(trees);
    return error;
}

void trees_release(struct trees *trees)
{
    ids_release(&trees->roots);
    ids_release(&trees->left);
    pthread_mutex_destroy(&trees->lock);
    pthread_mutex_destroy(&trees->note);
}

/* -- walking ----------------------------------------------------------------------------------------------
 */

errint trees_add(struct filesystem *fs, struct trees *trees, uint64_t directory)
{
    pthread_mutex_lock(&trees->lock);
    errint error = ids_append(&trees->left, directory);
    if (!error && ids_append(&trees->roots, directory) < 0) {
        trees->left.count--;
        error = -ENOMEM;
    }
    pthread_mutex_unlock(&trees->lock);
    if (!error)
        trees_note(fs, trees);
    return error;
}

struct trees_below {
    struct ids directories;
    errint error;
};

static bool trees_collect(void *context, const char *name, size_t length, uint64_t cookie,
                          const struct meta_inode *inode)
{
    (void)name, (void)length, (void)cookie;
    struct trees_below *below = context;
    if (S_ISDIR(inode->mode))
        below->error = ids_append(&below->directories, inode->ino);
    return !below->error;
}

uint64_t trees_next(struct filesystem *fs, struct trees *trees)
{
    struct trees_below below = {0};
    pthread_mutex_lock(&trees->lock);
    uint64_t directory = trees->left.count > 0 ? trees->left.at[--trees->left.count] : 0;
    pthread_mutex_unlock(&trees->lock);
    if (!directory)
        return 0;
    errint error = meta_list(fs->meta, directory, 0, trees_collect, &below);
    pthread_mutex_lock(&trees->lock);
    for (size_t i = 0; i < below.directories.count && !below.error; i++)
        below.error = ids_append(&trees->left, below.directories.at[i]);
    pthread_mutex_unlock(&trees->lock);
    ids_release(&below.directories);
    if (!error)
        error = below.error;
    /* One that is removed has nothing below it. */
    if (error && error != -ENOENT && error != -ENOTDIR)
        log_warning("inode %" PRIu64 ": directories below it are not looked at: %s", directory,
                    strerror(-error));
    return directory;
}

void trees_finish(struct filesystem *fs, struct trees *trees)
{
    pthread_mutex_lock(&trees->lock);
    bool finished = trees->left.count == 0 && trees->roots.count > 0;
    if (finished)
        trees->roots.count = 0;
    pthread_mutex_unlock(&trees->lock);
    if (finished)
        trees_note(fs, trees);
}

size_t trees_left(struct trees *trees)
{
    pthread_mutex_lock(&trees->lock);
    size_t left = trees->left.count;
    pthread_mutex_unlock(&trees->lock);
    return left;
}
