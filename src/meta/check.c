/* SPDX-License-Identifier: Apache-2.0 */
/* The check as a whole: one transaction, the rules in their order, and telling what they find. */
#include "meta/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "meta/check_internal.h"
#include "meta/hidden.h"

enum { CHECK_PATH_DEPTH = 1024, CHECK_TEXT_MAX = 512 };

/* -- telling ----------------------------------------------------------------------------------------------
 */

/* Puts a part in front of a path; frees the old one. */
static errint check_prepend(char **path, const char *name, size_t length)
{
    size_t rest = strlen(*path);
    char *longer = malloc(length + rest + 2);
    if (!longer)
        return -ENOMEM;
    longer[0] = '/';
    memcpy(longer + 1, name, length);
    memcpy(longer + 1 + length, *path, rest + 1);
    free(*path);
    *path = longer;
    return 0;
}

static int check_one_name(struct check *check, uint64_t *ino, char **path)
{
    cleanup_rows struct db_rows rows;
    errint error =
        db_select(check->meta->db, &rows,
                  "SELECT name, parent FROM name WHERE ino = $1 AND parent <> $2 ORDER BY cookie LIMIT 1",
                  DB_INTEGER(*ino), DB_INTEGER(*ino));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found;
    size_t length;
    const char *name = db_bytes(&rows, 0, &length);
    error = check_prepend(path, name ? name : "", length);
    *ino = (uint64_t)db_integer(&rows, 1);
    return error ? error : 1;
}

/* As meta_path, for a tree that may have circles. *path ends it, and is freed. NULL: nothing is known. */
static errint check_make_path(struct check *check, uint64_t ino, char **path)
{
    int found = 1;
    for (int depth = 0; ino != META_ROOT_INO && depth < CHECK_PATH_DEPTH && found > 0; depth++)
        found = check_one_name(check, &ino, path);
    if (found < 0)
        return found;
    if (**path == '\0' && ino != META_ROOT_INO) {
        free(*path);
        *path = NULL;
        return 0;
    }
    if (**path == '\0')
        return check_prepend(path, "", 0);
    if (ino == META_HIDDEN_PARENT)
        return check_prepend(path, META_HIDDEN_TEXT, strlen(META_HIDDEN_TEXT));
    return ino == META_ROOT_INO ? 0 : check_prepend(path, "?", 1);
}

static void check_expand(char out[CHECK_TEXT_MAX], const char *text, const int64_t numbers[4])
{
    size_t length = 0;
    for (; *text && length + 1 < CHECK_TEXT_MAX; text++) {
        if ((*text != '$' && *text != '#') || text[1] < '1' || text[1] > '4') {
            out[length++] = *text;
            continue;
        }
        const char *format = *text == '$' ? "%lld" : "%016llx";
        int64_t number = numbers[*++text - '1'];
        int written = snprintf(out + length, CHECK_TEXT_MAX - length, format, (long long)number);
        length += written > 0 ? (size_t)written : 0;
        if (length >= CHECK_TEXT_MAX)
            length = CHECK_TEXT_MAX - 1;
    }
    out[length] = '\0';
}

static void check_count(struct meta_check_result *result, enum meta_finding_kind kind)
{
    switch (kind) {
    case META_FINDING_NOTE: result->notes++; break;
    case META_FINDING_MENDED: result->mended++; break;
    case META_FINDING_LEFT: result->left++; break;
    }
}

errint check_tell(struct check *check, enum meta_finding_kind kind, const char *code, const char *text,
                  const struct check_about *about)
{
    char expanded[CHECK_TEXT_MAX];
    cleanup_free char *path = strdup("");
    if (!path)
        return -ENOMEM;
    errint error = 0;
    if (about->name)
        error = check_prepend(&path, about->name, about->name_length);
    if (!error)
        error = check_make_path(check, about->ino, &path);
    if (error)
        return error;
    check_expand(expanded, text, about->numbers);
    const struct meta_finding finding = {.kind = kind,
                                         .code = code,
                                         .ino = about->ino,
                                         .object = about->object,
                                         .path = about->ino ? path : NULL,
                                         .text = expanded};
    check_count(check->result, kind);
    check->request->finding(check->request->context, &finding);
    return 0;
}

/* -- rules ------------------------------------------------------------------------------------------------
 */

enum { CHECK_COLUMNS_MAX = 5 };

static struct check_about check_read_row(const struct db_rows *rows, enum check_subject subject, int columns)
{
    struct check_about about = {0};
    uint64_t first = (uint64_t)db_integer(rows, 0);
    int numbers_from = subject == CHECK_NAME ? 2 : 1;
    if (subject == CHECK_OBJECT)
        about.object = first;
    else
        about.ino = first;
    if (subject == CHECK_INODE_AND_OBJECT)
        about.object = (uint64_t)db_integer(rows, 1);
    if (subject == CHECK_NAME) {
        about.name = db_bytes(rows, 1, &about.name_length);
        about.name = about.name ? about.name : "";
    }
    for (int i = numbers_from; i < columns && i - numbers_from < 4; i++)
        about.numbers[i - numbers_from] = db_integer(rows, i);
    return about;
}

static errint check_run_rule(struct check *check, const struct check_rule *rule)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(check->meta->db, &rows, rule->select);
    int more = error;
    bool found = false;
    while (!more && (more = db_next(&rows)) > 0) {
        struct check_about about = check_read_row(&rows, rule->subject, CHECK_COLUMNS_MAX);
        found = true;
        more = check_tell(check, rule->kind, rule->code, rule->text, &about);
    }
    db_finish(&rows);
    error = more;
    for (size_t i = 0; found && !error && i < sizeof rule->mend / sizeof *rule->mend && rule->mend[i]; i++)
        error = db_run(check->meta->db, rule->mend[i]);
    return error;
}

errint check_run_rules(struct check *check, const struct check_rule *rules)
{
    errint error = 0;
    for (; rules->code && !error; rules++)
        error = check_run_rule(check, rules);
    return error;
}

/* -- the whole --------------------------------------------------------------------------------------------
 */

static errint check_list_files(struct check *check)
{
    struct db *db = check->meta->db;
    errint error =
        db_execute(db, "CREATE TEMP TABLE check_file (id INTEGER PRIMARY KEY, size INTEGER NOT NULL,"
                       " mtime INTEGER NOT NULL);"
                       "CREATE TEMP TABLE check_reached (ino INTEGER PRIMARY KEY);"
                       "CREATE TEMP TABLE check_owner (uid INTEGER, gid INTEGER)");
    if (!error)
        error = db_run(db, "INSERT INTO check_owner (uid, gid) VALUES ($1, $2)", DB_INTEGER(geteuid()),
                       DB_INTEGER(getegid()));
    const struct meta_object_file *files = check->request->files;
    for (size_t i = 0; !error && i < check->request->file_count; i++)
        error = db_run(db, "INSERT INTO check_file (id, size, mtime) VALUES ($1, $2, $3)",
                       DB_INTEGER(files[i].object), DB_INTEGER(files[i].size), DB_INTEGER(files[i].mtime));
    return error;
}

static errint check_all(struct check *check)
{
    errint error = check_list_files(check);
    if (!error)
        error = check_root(check);
    if (!error)
        error = check_run_rules(check, check_rules_rows);
    if (!error)
        error = check_run_rules(check, check_rules_names);
    /* From here on numbers may be needed. */
    if (!error)
        error = check_counters(check);
    if (!error)
        error = check_directories(check);
    if (!error)
        error = check_nameless(check);
    if (!error)
        error = check_objects(check);
    if (!error)
        error = check_run_rules(check, check_rules_links);
    if (!error)
        error = db_execute(check->meta->db,
                           "DROP TABLE check_file; DROP TABLE check_reached; DROP TABLE check_owner");
    return error ? error : change_count_totals(check->meta);
}

errint meta_check(struct meta *meta, const struct meta_check_request *request, struct meta_check_result *out)
{
    struct check check = {.meta = meta, .request = request, .result = out};
    struct change change = {.meta = meta};
    *out = (struct meta_check_result){0};
    while (change_next(&change)) {
        change.error = check_all(&check);
        change.nothing = !request->mend || out->mended == 0;
    }
    return change.error ? change.error : meta_count(meta, &out->totals);
}

/* -- whole databases --------------------------------------------------------------------------------------
 */

static int check_database_file(const char *path, bool *whole,
                               void (*complaint)(void *context, const char *text), void *context)
{
    struct db *db;
    errint error = db_open(path, false, &db);
    if (error)
        return error;
    int count = db_check(db, complaint, context);
    errint closed = db_close(db, count == 0);
    *whole = count == 0 && !closed;
    return count || closed == -ENOSPC ? count : closed; /* on a full disk the log stays */
}

int meta_check_database(const char *path, const char *journal,
                        void (*complaint)(void *context, const char *text), void *context)
{
    struct db_journal *follower = NULL;
    bool whole = false;
    errint error = journal ? db_journal_open(path, journal, &follower) : 0;
    if (error)
        return error;
    int count = check_database_file(path, &whole, complaint, context);
    if (follower && db_journal_follows(follower) && whole && db_journal_finish(follower) < 0)
        db_journal_stop(follower);
    db_journal_close(follower);
    return count;
}

int meta_check_backup(const char *path)
{
    return db_check_file(path, NULL, NULL);
}
