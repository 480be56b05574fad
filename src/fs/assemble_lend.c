/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration and tokenizer beside assembled models. */
#include "fs/assemble_lend.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fs/models.h"
#include "fs/policy.h"
#include "fs/writeback.h"
#include "meta/lent.h"

/* More than a template has files, and names that are lent. */
enum { LEND_FILES_MAX = 128 };

struct lend_list {
    char names[LEND_FILES_MAX][META_NAME_MAX + 1];
    struct meta_lent files[LEND_FILES_MAX];
    size_t count;
};

/* No loader reads these, and what a trainer finds of them it adds to. */
static bool lend_is_needless(const char *name)
{
    static const char *const patterns[] = {"README.md", "LICENSE*"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    }
    return false;
}

static bool lend_note(void *context, const char *name, size_t length, uint64_t cookie,
                      const struct meta_inode *inode)
{
    (void)cookie;
    struct lend_list *list = context;
    char *copy = list->names[list->count];
    memcpy(copy, name, length);
    copy[length] = '\0';
    if (lend_is_needless(copy))
        return true;
    list->files[list->count++] = (struct meta_lent){copy, inode->ino};
    return list->count < LEND_FILES_MAX;
}

static errint lend_to(struct filesystem *fs, uint64_t directory)
{
    enum policy_assembling assembling;
    bool changed = false;
    errint error = policy_assemble(fs, directory, &assembling, NULL);
    if (error || assembling == POLICY_ASSEMBLING_OFF || assembling == POLICY_ASSEMBLING_VIEW)
        return error;
    cleanup_free struct lend_list *list = calloc(1, sizeof *list);
    if (!list)
        return -ENOMEM;
    error = models_list_lent_files(fs, directory, lend_note, list);
    if (!error)
        error = meta_lent_set(fs->meta, directory, list->files, list->count, &changed);
    if (changed) {
        cleanup_free char *path = NULL;
        if (meta_path(fs->meta, directory, &path) < 0)
            path = NULL;
        log_info("lent path=\"%s\" files=%zu", path ? path : "?", list->count);
        writeback_kick(fs); /* that one removes what was withdrawn */
    }
    return error;
}

errint assemble_lend_around(struct filesystem *fs, uint64_t directory, bool (*stops)(struct filesystem *fs))
{
    cleanup_ids struct ids borrowers = {0};
    bool busy = false;
    if (atomic_load(&fs->disk_full))
        return 0; /* the next look adds it */
    errint error = meta_lent_find_borrowers(fs->meta, directory, &borrowers);
    for (size_t i = 0; i < borrowers.count && !error; i++) {
        error = stops(fs) ? -ECANCELED : lend_to(fs, borrowers.at[i]);
        busy |= error == -EBUSY;
        error = error == -EBUSY || error == -ENOENT ? 0 : error;
    }
    return error ? error : busy ? -EBUSY : 0;
}
