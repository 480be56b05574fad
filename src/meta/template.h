/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates: the configuration, tokenizer and code that are lent to the checkpoints of a run, which have none
 * of their own. They are the store's own files, in a hidden directory (meta/hidden.h) that is the run's: it
 * stays with the run, and goes with it. Where they came from is the run's policy META_TEMPLATE_KEY.
 *
 * Otherwise as meta.h. Files that are not a template's any more, and are in use, are told by
 * meta_shadows_released, for the caller to meta_reap when nobody has them open.
 */
#ifndef CKPTFS_META_TEMPLATE_H
#define CKPTFS_META_TEMPLATE_H

#include "meta/meta.h"

#define META_TEMPLATE_KEY "template"

struct meta_template_file {
    const char *name;
    uint64_t ino; /* a regular file without a name, of the run's owner, that somebody has open */
};

struct meta_template {
    uint64_t run; /* the directory that gets it */
    const char *path;
    const struct meta_template_file *files;
    size_t count;
    int64_t now;
};

/*
 * The run gets the template, instead of the one that it has: the files get their names, all of them, or
 * nothing changes. -ENOENT when the run, or a file, is gone; -EINVAL when one is no regular file or its name
 * is none; -EPERM when it is another owner's; -EBUSY when it has a name, or stands for what a power cut may
 * take; -EEXIST when a name comes twice.
 */
errint meta_template_put(struct meta *meta, const struct meta_template *wanted, uint64_t unique);
/* -ENOENT when the run has none of its own. */
errint meta_template_remove(struct meta *meta, uint64_t run, uint64_t unique);

struct meta_template_found {
    uint64_t run;    /* that has it */
    uint64_t hidden; /* the directory that its files lie in: for meta_lookup and meta_list */
};

/* The one of the directory, or of the nearest one above it that has one; -ENOENT. */
errint meta_template_find(struct meta *meta, uint64_t directory, struct meta_template_found *out);

#endif
