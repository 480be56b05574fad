/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small files that others lend to a directory, beside its assembled model (meta/beside.h): clones, which
 * share their bytes with what they were made of. They are assembled files (META_ASSEMBLED and META_LENT),
 * with a name like any, and come and go as that one does; they go with it.
 *
 * Removed or renamed by somebody, a clone is his, and nothing is lent to that directory any more until its
 * model is made anew. One that somebody writes to becomes an ordinary file.
 */
#ifndef CKPTFS_META_LENT_H
#define CKPTFS_META_LENT_H

#include "meta/meta.h"

struct meta_lent {
    const char *name;
    uint64_t source; /* the file that is cloned */
};

/*
 * What is lent to the directory from now on. A clone that it has stays where size and mtime are its source's;
 * names that it has otherwise are left alone; what is not wanted is withdrawn. Without an assembled model
 * beside its shards it gets none. A source that is empty is left out, and so is one that is gone; one that is
 * written, or not on stable storage, is left out and makes the result -EBUSY, with all else done. `changed`
 * (may be NULL) tells whether anything was.
 */
errint meta_lent_set(struct meta *meta, uint64_t directory, const struct meta_lent *files, size_t count,
                     bool *changed);

/* The directories right below the one that have an assembled model beside their shards. Appended. */
errint meta_lent_find_borrowers(struct meta *meta, uint64_t above, struct ids *out);

#endif
