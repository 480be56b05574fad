/* SPDX-License-Identifier: Apache-2.0 */
/* The tree: the root, ways from it to every directory, and /lost+found for what has none. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "meta/check_internal.h"

enum { CHECK_NAME_TRIES = 1000 };

#define IS_DIRECTORY(row) "(" row ".mode & 61440) = 16384"

/* -- the root and the numbers -----------------------------------------------------------------------------
 */

static struct meta_inode check_new_directory(const struct check *check, uint64_t ino, uint32_t mode)
{
    int64_t now = check->request->now;
    return (struct meta_inode){.ino = ino,
                               .mode = S_IFDIR | mode,
                               .nlink = 2,
                               .uid = geteuid(),
                               .gid = getegid(),
                               .atime = now,
                               .mtime = now,
                               .ctime = now,
                               .btime = now};
}

errint check_root(struct check *check)
{
    struct meta_inode root;
    struct check_about about = {.ino = META_ROOT_INO};
    errint error = inode_load(check->meta, META_ROOT_INO, &root);
    if (error == -ENOENT) {
        error =
            check_tell(check, META_FINDING_MENDED, "root", "the root is missing; it is made anew", &about);
        root = check_new_directory(check, META_ROOT_INO, 0755);
        return error ? error : inode_insert(check->meta, &root);
    }
    if (error || S_ISDIR(root.mode))
        return error;
    error = check_tell(check, META_FINDING_LEFT, "root", "the root is no directory", &about);
    return error ? error : -EUCLEAN;
}

static errint check_set_counters(struct check *check)
{
    struct meta_numbers *numbers = check->meta->known.numbers;
    return db_run(check->meta->db, "UPDATE counter SET ino = $1, object = $2, cookie = $3 WHERE id = 1",
                  DB_INTEGER(numbers[META_COUNTER_INO].limit), DB_INTEGER(numbers[META_COUNTER_OBJECT].limit),
                  DB_INTEGER(numbers[META_COUNTER_COOKIE].limit));
}

errint check_counters(struct check *check)
{
    static const char *const texts[META_COUNTERS] = {
        "the next inode would get number $1, and $2 is there; higher ones are given out",
        "the next object would get number $1, and $2 is there; higher ones are given out",
        "the next name would get cookie $1, and $2 is there; higher ones are given out"};
    uint64_t most[META_COUNTERS] = {0};
    cleanup_rows struct db_rows rows;
    errint error = db_select(
        check->meta->db, &rows,
        "SELECT coalesce((SELECT max(ino) FROM inode), 0),"
        " max(coalesce((SELECT max(id) FROM object), 0), coalesce((SELECT max(id) FROM check_file), 0),"
        " coalesce((SELECT max(object) FROM extent), 0), coalesce((SELECT max(object) FROM inode), 0)),"
        " coalesce((SELECT max(cookie) FROM name), 0)");
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -EUCLEAN;
    for (int i = 0; i < META_COUNTERS; i++)
        most[i] = (uint64_t)db_integer(&rows, i);
    db_finish(&rows);
    bool wrong = false;
    for (int i = 0; i < META_COUNTERS && !error; i++) {
        struct meta_numbers *numbers = &check->meta->known.numbers[i];
        /* No number can follow the highest of all. */
        if (numbers->next > most[i] || most[i] >= INT64_MAX / 2)
            continue;
        wrong = true;
        struct check_about about = {.numbers = {(int64_t)numbers->next, (int64_t)most[i]}};
        error = check_tell(check, META_FINDING_MENDED, "counter", texts[i], &about);
        numbers->next = numbers->limit = most[i] + 1;
    }
    return error || !wrong ? error : check_set_counters(check);
}

/* -- /lost+found ------------------------------------------------------------------------------------------
 */

static errint check_add_links(struct check *check, uint64_t ino, int links)
{
    return db_run(check->meta->db, "UPDATE inode SET nlink = nlink + $1 WHERE ino = $2", DB_INTEGER(links),
                  DB_INTEGER(ino));
}

static errint check_make_lost_and_found(struct check *check, const char *name)
{
    uint64_t ino = 0;
    errint error = change_take_number(check->meta, META_COUNTER_INO, &ino);
    struct meta_inode directory = check_new_directory(check, ino, 0700);
    if (!error)
        error = inode_insert(check->meta, &directory);
    if (!error)
        error = name_insert(check->meta, META_ROOT_INO, name, strlen(name), ino);
    if (!error)
        error = check_add_links(check, META_ROOT_INO, 1);
    check->lost_and_found = ino;
    return error;
}

/* Where a file has the name already, a number follows it. */
static errint check_find_lost_and_found(struct check *check)
{
    for (int i = 0; i < CHECK_NAME_TRIES && !check->lost_and_found; i++) {
        char name[32];
        struct meta_inode found;
        snprintf(name, sizeof name, i ? "%s.%d" : "%s", META_LOST_AND_FOUND, i);
        uint64_t ino;
        errint error = name_find(check->meta, META_ROOT_INO, name, strlen(name), &ino);
        if (error == -ENOENT)
            return check_make_lost_and_found(check, name);
        if (!error)
            error = inode_load(check->meta, ino, &found);
        if (error)
            return error;
        if (S_ISDIR(found.mode))
            check->lost_and_found = ino;
    }
    return check->lost_and_found ? 0 : -EEXIST;
}

/* As many as it has now, since a row without a name may say anything. */
static errint check_set_links(struct check *check, const struct meta_inode *inode)
{
    if (!S_ISDIR(inode->mode))
        return db_run(check->meta->db, "UPDATE inode SET nlink = 1 WHERE ino = $1", DB_INTEGER(inode->ino));
    errint error = check_add_links(check, check->lost_and_found, 1);
    return error ? error
                 : db_run(check->meta->db,
                          "UPDATE inode SET nlink = 2 + (SELECT count(*) FROM name n JOIN inode c"
                          " ON c.ino = n.ino WHERE n.parent = inode.ino AND " IS_DIRECTORY(
                              "c") ")"
                                   " WHERE ino = $1",
                          DB_INTEGER(inode->ino));
}

errint check_attach(struct check *check, uint64_t ino, const char *name)
{
    struct meta_inode inode;
    errint error = inode_load(check->meta, ino, &inode);
    if (!error)
        error = check_find_lost_and_found(check);
    if (error)
        return error;
    error = -EEXIST;
    for (int i = 0; error == -EEXIST && i < CHECK_NAME_TRIES; i++) {
        char numbered[64];
        snprintf(numbered, sizeof numbered, i ? "%s.%d" : "%s", name, i);
        error = name_insert(check->meta, check->lost_and_found, numbered, strlen(numbered), ino);
    }
    return error ? error : check_set_links(check, &inode);
}

static errint check_attach_by_number(struct check *check, uint64_t ino, const char *code, const char *text)
{
    char name[24];
    snprintf(name, sizeof name, "%llu", (unsigned long long)ino);
    errint error = check_tell(check, META_FINDING_MENDED, code, text, &(struct check_about){.ino = ino});
    return error ? error : check_attach(check, ino, name);
}

/* -- directories ------------------------------------------------------------------------------------------
 */

/* From the root, and from where hidden directories are (0). */
static errint check_reach(struct check *check)
{
    errint error = db_run(check->meta->db, "DELETE FROM check_reached");
    return error
               ? error
               : db_run(
                     check->meta->db,
                     "INSERT INTO check_reached WITH RECURSIVE reached(ino) AS (SELECT 1 UNION SELECT 0 UNION"
                     " SELECT n.ino FROM reached r JOIN name n ON n.parent = r.ino"
                     " JOIN inode i ON i.ino = n.ino WHERE " IS_DIRECTORY("i") ")"
                                                                               " SELECT ino FROM reached");
}

/* The name that stays: in a directory that the root leads to, and the oldest of those. */
#define REACHED(row) "(SELECT count(*) FROM check_reached r WHERE r.ino = " row ".parent)"
#define HAS_A_BETTER_NAME                                                                                    \
    "EXISTS (SELECT 1 FROM inode i WHERE i.ino = n.ino AND " IS_DIRECTORY(                                   \
        "i") ") AND EXISTS"                                                                                  \
             " (SELECT 1 FROM name m WHERE m.ino = n.ino AND (" REACHED("m") " > " REACHED(                  \
                 "n") " OR (" REACHED("m") " = " REACHED("n") " AND (m.cookie < n.cookie"                    \
                                                              " OR (m.cookie = n.cookie AND m.parent < "     \
                                                              "n.parent)))))"

static const struct check_rule check_rules_directories[] = {
    {"directory-names",
     META_FINDING_MENDED,
     CHECK_NAME,
     "a further name of directory $1, which can have one only; it is removed",
     "SELECT n.parent, n.name, n.ino FROM name n WHERE " HAS_A_BETTER_NAME,
     {"DELETE FROM name AS n WHERE " HAS_A_BETTER_NAME}},
    {0},
};

/* Directories that nothing leads to from the root, those without a name first; the removed ones are not
 * missed. `named`: whether the first has a name. */
static errint check_find_unreached(struct check *check, struct ids *out, bool *named)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(check->meta->db, &rows,
                  "SELECT i.ino, EXISTS (SELECT 1 FROM name n WHERE n.ino = i.ino) AS named FROM inode i"
                  " WHERE " IS_DIRECTORY(
                      "i") " AND NOT EXISTS (SELECT 1 FROM check_reached r WHERE r.ino = i.ino)"
                           " AND (i.nlink <> 0 OR EXISTS (SELECT 1 FROM name n WHERE n.ino = i.ino)"
                           " OR EXISTS (SELECT 1 FROM name n WHERE n.parent = i.ino)) ORDER BY named, i.ino");
    int more = error;
    *named = false;
    while (!more && (more = db_next(&rows)) > 0) {
        bool has_name = db_integer(&rows, 1) != 0;
        if (has_name && out->count > 0)
            return 0;
        *named = has_name;
        more = ids_append(out, (uint64_t)db_integer(&rows, 0));
        if (!more && has_name)
            return 0;
    }
    return more;
}

/* One round: all those without a name, or else one of a circle. */
static errint check_attach_unreached(struct check *check, bool *found)
{
    cleanup_ids struct ids directories = {0};
    bool named;
    errint error = check_reach(check);
    if (!error)
        error = check_find_unreached(check, &directories, &named);
    *found = directories.count > 0;
    for (size_t i = 0; i < directories.count && !error; i++) {
        uint64_t ino = directories.at[i];
        if (named)
            error = db_run(check->meta->db, "DELETE FROM name WHERE ino = $1", DB_INTEGER(ino));
        if (!error)
            error = check_attach_by_number(
                check, ino, "directory-lost",
                named ? "a directory that is below itself; it moves to /" META_LOST_AND_FOUND
                      : "a directory without a name; it gets one in /" META_LOST_AND_FOUND);
    }
    return error;
}

errint check_directories(struct check *check)
{
    bool found = true;
    errint error = check_reach(check);
    if (!error)
        error = check_run_rules(check, check_rules_directories);
    while (!error && found)
        error = check_attach_unreached(check, &found);
    return error;
}

/* -- everything else --------------------------------------------------------------------------------------
 */

errint check_nameless(struct check *check)
{
    cleanup_ids struct ids inodes = {0};
    cleanup_rows struct db_rows rows;
    errint error = db_select(check->meta->db, &rows,
                             "SELECT i.ino FROM inode i WHERE i.nlink <> 0 AND NOT (" IS_DIRECTORY(
                                 "i") ")"
                                      " AND NOT EXISTS (SELECT 1 FROM name n WHERE n.ino = i.ino)"
                                      " AND NOT EXISTS (SELECT 1 FROM shadow s WHERE s.replaced = i.ino)");
    if (!error)
        error = rows_collect_ids(&rows, &inodes);
    for (size_t i = 0; i < inodes.count && !error; i++)
        error = check_attach_by_number(check, inodes.at[i], "inode-nameless",
                                       "has no name; it gets one in /" META_LOST_AND_FOUND);
    return error;
}
