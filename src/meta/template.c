/* SPDX-License-Identifier: Apache-2.0 */
/* What is lent to the checkpoints of a run: hidden files, which are the run's. */
#include "meta/template.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "meta/hidden.h"
#include "meta/internal.h"
#include "meta/policy.h"

/* As of policies. */
enum { TEMPLATE_LEVELS_MAX = 1 << 16, TEMPLATE_NAME_MAX = 24 };

/* The hidden directory of a run; -ENOENT. */
static errint template_find_own(struct meta *meta, uint64_t run, uint64_t *hidden)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(meta->db, &rows, "SELECT hidden FROM template WHERE directory = $1", DB_INTEGER(run));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    *hidden = (uint64_t)db_integer(&rows, 0);
    return 0;
}

static size_t template_print_name(char name[TEMPLATE_NAME_MAX], uint64_t run)
{
    return (size_t)snprintf(name, TEMPLATE_NAME_MAX, "%" PRIu64, run);
}

/* -- removing ---------------------------------------------------------------------------------------------
 */

static errint template_collect(struct meta *meta, uint64_t hidden, struct ids *out)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT ino FROM name WHERE parent = $1", DB_INTEGER(hidden));
    return error ? error : rows_collect_ids(&rows, out);
}

/* A name of it went: with its last one it is nobody's. */
static errint template_let_go(struct change *change, uint64_t ino)
{
    struct meta_inode before;
    errint error = inode_load_file(change->meta, ino, &before);
    struct meta_inode after = before;
    after.nlink--;
    if (!error)
        error = inode_update(change->meta, &before, &after);
    return error || after.nlink > 0 ? error : shadow_let_go(change, ino);
}

static errint template_drop_directory(struct change *change, uint64_t run, uint64_t hidden)
{
    struct meta *meta = change->meta;
    struct meta_inode directory = {0}, before = {0};
    char name[TEMPLATE_NAME_MAX];
    uint64_t parent;
    errint error = name_parent(meta, hidden, &parent);
    if (!error)
        error = inode_load_directory(meta, parent, &before);
    if (!error)
        error = inode_load_directory(meta, hidden, &directory);
    if (!error)
        error = name_delete(meta, parent, name, template_print_name(name, run));
    struct meta_inode after = before;
    after.nlink--;
    if (!error)
        error = inode_update(meta, &before, &after);
    return error ? error : inode_drop(change, &directory);
}

errint template_forget(struct change *change, uint64_t run)
{
    struct meta *meta = change->meta;
    cleanup_ids struct ids files = {0};
    uint64_t hidden;
    errint error = template_find_own(meta, run, &hidden);
    if (error)
        return error == -ENOENT ? 0 : error;
    error = lent_withdraw_below(change, run);
    if (!error)
        error = template_collect(meta, hidden, &files);
    if (!error)
        error = db_run(meta->db, "DELETE FROM name WHERE parent = $1", DB_INTEGER(hidden));
    for (size_t i = 0; i < files.count && !error; i++)
        error = template_let_go(change, files.at[i]);
    if (!error)
        error = template_drop_directory(change, run, hidden);
    return error ? error : db_run(meta->db, "DELETE FROM template WHERE directory = $1", DB_INTEGER(run));
}

static errint template_remove(struct change *change, uint64_t run)
{
    const struct meta_policy_change unset = {.key = META_TEMPLATE_KEY};
    uint64_t hidden;
    errint error = template_find_own(change->meta, run, &hidden);
    if (!error)
        error = template_forget(change, run);
    return error ? error : policy_change(change, run, &unset, 1);
}

errint meta_template_remove(struct meta *meta, uint64_t run, uint64_t unique)
{
    struct change change = {.meta = meta, .request = unique, .ino = run, .spends = true};
    while (change_next(&change))
        change.error = template_remove(&change, run);
    return change.error;
}

/* -- putting ----------------------------------------------------------------------------------------------
 */

/* Whether it may become a part of the template. */
static errint template_check_file(struct meta *meta, const struct meta_inode *run,
                                  const struct meta_inode *file)
{
    if (file->uid != run->uid)
        return -EPERM;
    if (file->nlink > 0 || (file->state & META_ASSEMBLED))
        return -EBUSY;
    int kept = shadow_is(meta, file->ino);
    if (!kept)
        kept = stand_in_is(meta, file->ino);
    return kept > 0 ? -EBUSY : kept;
}

static errint template_add_file(struct change *change, const struct meta_inode *run, uint64_t hidden,
                                const struct meta_template_file *file, int64_t now)
{
    struct meta *meta = change->meta;
    struct meta_inode before = {0};
    size_t length = strlen(file->name);
    errint error = name_check(file->name, length, true);
    if (!error)
        error = inode_load_file(meta, file->ino, &before);
    if (!error)
        error = template_check_file(meta, run, &before);
    if (!error)
        error = name_insert(meta, hidden, file->name, length, file->ino);
    struct meta_inode after = before;
    after.nlink = 1;
    after.ctime = now;
    return error ? error : inode_update(meta, &before, &after);
}

static errint template_make_directory(struct change *change, const struct meta_inode *run, int64_t now,
                                      uint64_t *hidden)
{
    char name[TEMPLATE_NAME_MAX];
    struct meta_new new = {
        .name = name, .mode = S_IFDIR | 0700, .uid = run->uid, .gid = run->gid, .now = now};
    struct meta_inode made = {0};
    new.length = template_print_name(name, run->ino);
    errint error = hidden_open(change, META_HIDDEN_TEMPLATES, now, &new.parent);
    if (!error)
        error = name_create(change, &new, &made);
    *hidden = made.ino;
    return error ? error
                 : db_run(change->meta->db, "INSERT INTO template (directory, hidden) VALUES ($1, $2)",
                          DB_INTEGER(run->ino), DB_INTEGER(made.ino));
}

static errint template_put(struct change *change, const struct meta_template *wanted)
{
    const struct meta_policy_change path = {META_TEMPLATE_KEY, wanted->path};
    struct meta_inode run;
    uint64_t hidden;
    errint error = inode_load_directory(change->meta, wanted->run, &run);
    if (!error)
        error = policy_change(change, wanted->run, &path, 1);
    if (!error)
        error = template_forget(change, wanted->run);
    if (!error)
        error = template_make_directory(change, &run, wanted->now, &hidden);
    for (size_t i = 0; i < wanted->count && !error; i++)
        error = template_add_file(change, &run, hidden, &wanted->files[i], wanted->now);
    return error;
}

errint meta_template_put(struct meta *meta, const struct meta_template *wanted, uint64_t unique)
{
    struct change change = {.meta = meta, .request = unique};
    while (change_next(&change))
        change.error = template_put(&change, wanted);
    return change.error;
}

/* -- looking ----------------------------------------------------------------------------------------------
 */

errint meta_template_find(struct meta *meta, uint64_t directory, struct meta_template_found *out)
{
    META_LOCKED(meta);
    out->run = directory;
    for (int level = 0; level < TEMPLATE_LEVELS_MAX; level++) {
        errint error = template_find_own(meta, out->run, &out->hidden);
        if (error != -ENOENT || out->run == META_ROOT_INO)
            return error;
        error = name_parent(meta, out->run, &out->run);
        if (error)
            return error;
    }
    return -ELOOP;
}
