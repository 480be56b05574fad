/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs fsck`: whether a store that is not mounted agrees with itself; mending it; rebuilding its database.
 */
#include "cmd/fsck.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "fs/sequence.h"
#include "meta/journal.h"
#include "store/copies.h"
#include "store/object.h"

enum { FSCK_NAMES_MAX = 10000 };

/* -- what is there ----------------------------------------------------------------------------------------
 */

static int fsck_compare_files(const void *a, const void *b)
{
    const struct meta_object_file *left = a, *right = b;
    return (left->object > right->object) - (left->object < right->object);
}

static errint fsck_look_at_file(struct fsck *fsck, uint64_t object)
{
    struct stat status;
    cleanup_fd int fd = object_open(fsck->store, object, O_RDONLY);
    if (fd < 0 || fstat(fd, &status) < 0) {
        errint error = fd < 0 ? fd : -errno;
        log_error("object %016llx cannot be opened: %s", (unsigned long long)object, strerror(-error));
        return error;
    }
    fsck->files[fsck->file_count++] = (struct meta_object_file){
        .object = object, .size = status.st_size, .mtime = clock_from_timespec(&status.st_mtim)};
    return 0;
}

static errint fsck_list_files(struct fsck *fsck)
{
    cleanup_ids struct ids objects = {0};
    errint error = object_list(fsck->store, &objects);
    if (!error) {
        fsck->files = calloc(objects.count + 1, sizeof *fsck->files);
        error = fsck->files ? 0 : -ENOMEM;
    }
    for (size_t i = 0; !error && i < objects.count; i++)
        error = fsck_look_at_file(fsck, objects.at[i]);
    if (!error)
        qsort(fsck->files, fsck->file_count, sizeof *fsck->files, fsck_compare_files);
    return error;
}

char *fsck_free_name(const char *prefix)
{
    char *name = NULL;
    for (int i = 1; i < FSCK_NAMES_MAX; i++) {
        free(name);
        if (asprintf(&name, "%s%d", prefix, i) < 0)
            return NULL;
        if (access(name, F_OK) != 0 && errno == ENOENT)
            return name;
    }
    free(name);
    return NULL;
}

/* -- the database as a file -------------------------------------------------------------------------------
 */

static void fsck_note_complaint(void *context, const char *text)
{
    struct fsck *fsck = context;
    const struct meta_finding finding = {.kind = META_FINDING_LEFT, .code = "database", .text = text};
    fsck->complaints++;
    fsck_tell(fsck, &finding);
}

static void fsck_ignore_complaint(void *context, const char *text)
{
    (void)context, (void)text;
}

int fsck_check_database(struct fsck *fsck, const char *path, bool quiet)
{
    const char *journal = strcmp(path, fsck->database) == 0 ? fsck->journal : NULL;
    void (*complaint)(void *, const char *) = quiet ? fsck_ignore_complaint : fsck_note_complaint;
    int complaints = meta_check_database(path, journal, complaint, fsck);
    if (complaints == -ENOSPC && store_reserve_spend_last(fsck->store) == 0)
        complaints = meta_check_database(path, journal, complaint, fsck);
    if (complaints == -EUCLEAN && !quiet)
        fsck_note_complaint(fsck, "meta.db is no database that can be read");
    return complaints == -EUCLEAN ? 1 : complaints;
}

/* -- the check --------------------------------------------------------------------------------------------
 */

static void fsck_note_finding(void *context, const struct meta_finding *finding)
{
    fsck_tell(context, finding);
}

static void fsck_ignore_finding(void *context, const struct meta_finding *finding)
{
    (void)context, (void)finding;
}

static errint fsck_check(struct fsck *fsck, bool mend, bool quiet, struct meta_check_result *out)
{
    const struct meta_check_request request = {
        .files = fsck->files,
        .file_count = fsck->file_count,
        .mend = mend,
        .rebuild = fsck->rebuild,
        .now = clock_file_time(),
        .finding = quiet ? fsck_ignore_finding : fsck_note_finding,
        .context = fsck,
    };
    return meta_check(fsck->meta, &request, out);
}

/* A rebuild has the backup that it began with. */
static errint fsck_keep_old(struct fsck *fsck)
{
    cleanup_free char *prefix = NULL;
    if (asprintf(&prefix, "%s.before-repair-", fsck->database) < 0) {
        prefix = NULL;
        return -ENOMEM;
    }
    cleanup_free char *backup = fsck_free_name(prefix);
    errint error = backup ? meta_backup(fsck->meta, backup, NULL, NULL) : -ENOMEM;
    if (!error)
        fsck_tell_action(fsck, "%s is meta.db as it was before", backup);
    return error;
}

/* The backup first; and what was mended must be mended. */
static errint fsck_mend(struct fsck *fsck)
{
    struct meta_check_result before, after;
    errint error = fsck_check(fsck, false, true, &before);
    if (error || before.mended == 0)
        return error ? error : fsck_check(fsck, false, false, &fsck->result);
    if (!fsck->rebuild)
        error = fsck_keep_old(fsck);
    if (!error)
        error = fsck_check(fsck, true, false, &fsck->result);
    if (!error)
        error = meta_sync(fsck->meta);
    fsck->changed |= !error;
    if (!error)
        error = fsck_check(fsck, false, true, &after);
    if (error || after.mended == 0)
        return error;
    log_error("%s: %llu errors are there again after they were corrected; please report this",
              fsck->store->path, (unsigned long long)after.mended);
    return -EIO;
}

static int fsck_code(const struct fsck *fsck)
{
    int code = fsck->changed ? FSCK_CORRECTED : FSCK_CLEAN;
    if (fsck->result.left > 0 || fsck->complaints > 0 || (fsck->result.mended > 0 && !fsck->changed))
        code |= FSCK_LEFT;
    return code;
}

static int fsck_explain(const struct fsck *fsck, errint error)
{
    log_error("%s: the check cannot be finished: %s", fsck->store->path, strerror(-error));
    return FSCK_FAILED;
}

/* What a power loss has taken is found, and told as torn, by the next mount. */
static void fsck_note_not_closed(struct fsck *fsck)
{
    cleanup_free char *clean = NULL;
    if (fsck->rebuild || meta_setting_get(fsck->meta, "clean", &clean) != 0 || strcmp(clean, "1") == 0)
        return;
    const struct meta_finding finding = {
        .kind = META_FINDING_NOTE,
        .code = "not-closed",
        .text = "the store was not closed in order: the next mount looks after what was being written, and "
                "errors in such files may go with it"};
    fsck->not_closed = true;
    fsck_tell(fsck, &finding);
}

static int fsck_run_open(struct fsck *fsck)
{
    fsck_note_not_closed(fsck);
    errint error = fsck_list_files(fsck);
    if (!error)
        error =
            fsck->repair || fsck->rebuild ? fsck_mend(fsck) : fsck_check(fsck, false, false, &fsck->result);
    if (!error && fsck->rebuild)
        error = fsck_compare_backup(fsck);
    errint closed = meta_close(fsck->meta);
    fsck->meta = NULL;
    if (!error)
        error = closed;
    if (!error && fsck->rebuild)
        error = fsck_install(fsck);
    if (error)
        return fsck_explain(fsck, error);
    int code = fsck_code(fsck);
    fsck->result.notes += fsck->not_closed;
    fsck_print_summary(fsck, code);
    return code;
}

/* A damaged database is looked into no further: what it says cannot be believed, nor written to. */
static int fsck_give_up(struct fsck *fsck)
{
    char restores[COPIES_TEXT_MAX];
    fsck_print_summary(fsck, FSCK_LEFT);
    copies_describe(fsck->store->path, restores);
    log_error("%s is damaged; `ckptfs fsck --rebuild %s` %s, and keeps all objects", fsck->database,
              fsck->store->path, restores);
    return FSCK_LEFT;
}

/* To repair it would be to take everything that was stored after it for errors. */
static int fsck_refuse_old(struct fsck *fsck)
{
    fsck_note_complaint(fsck, "meta.db " SEQUENCE_OLDER);
    meta_close(fsck->meta);
    fsck->meta = NULL;
    char restores[COPIES_TEXT_MAX];
    fsck_print_summary(fsck, FSCK_LEFT);
    copies_describe(fsck->store->path, restores);
    log_error("%s is an older copy; `ckptfs fsck --rebuild %s` %s, and keeps all objects", fsck->database,
              fsck->store->path, restores);
    return FSCK_LEFT;
}

static int fsck_run_store(struct fsck *fsck)
{
    fsck->database = store_path_of(fsck->store, STORE_DATABASE);
    fsck->journal = store_path_of(fsck->store, COPIES_JOURNAL);
    fsck->working = fsck->database ? strdup(fsck->database) : NULL;
    if (!fsck->working || !fsck->journal)
        return fsck_explain(fsck, -ENOMEM);
    if (fsck->store->created && !fsck->rebuild) {
        log_error("%s is a store that was not used yet: there is nothing to check", fsck->store->path);
        return FSCK_CLEAN;
    }
    int code = fsck->rebuild ? fsck_restore(fsck) : FSCK_CLEAN;
    if (code)
        return code;
    int complaints = fsck_check_database(fsck, fsck->working, false);
    if (complaints == -ESTALE)
        return fsck_refuse_old(fsck);
    if (complaints)
        return complaints > 0 ? fsck_give_up(fsck) : fsck_explain(fsck, complaints);
    errint error =
        meta_open_journaled(fsck->working, false, fsck->rebuild ? NULL : fsck->journal, &fsck->meta);
    if (error == -EUCLEAN) {
        fsck_note_complaint(fsck, "meta.db holds no whole namespace");
        return fsck_give_up(fsck);
    }
    if (error == -ESTALE)
        return fsck_refuse_old(fsck);
    bool old = !error && sequence_check(fsck->store, fsck->meta) == -ESTALE;
    fsck->followed = fsck->followed && !old;
    if (old && !fsck->rebuild)
        return fsck_refuse_old(fsck);
    return error ? fsck_explain(fsck, error) : fsck_run_open(fsck);
}

/* -- the command ------------------------------------------------------------------------------------------
 */

static int fsck_path(struct fsck *fsck, const char *path)
{
    fsck->findings = cJSON_CreateArray();
    fsck->actions = cJSON_CreateArray();
    int code = FSCK_FAILED;
    if (!fsck->findings || !fsck->actions)
        log_error("fsck: no memory");
    else if (store_open_existing(path, fsck->rebuild, &fsck->store) ==
             STORE_FINE) /* it tells what is wrong */
        code = fsck_run_store(fsck);
    store_close(fsck->store);
    cJSON_Delete(fsck->findings);
    cJSON_Delete(fsck->actions);
    free(fsck->database);
    free(fsck->working);
    free(fsck->journal);
    free(fsck->files);
    return code;
}

static int fsck_run(int argc, char **argv)
{
    static const struct option long_options[] = {{"json", no_argument, NULL, 'j'},
                                                 {"repair", no_argument, NULL, 'r'},
                                                 {"rebuild", no_argument, NULL, 'b'},
                                                 {0}};
    struct fsck fsck = {0};
    int option;
    while ((option = getopt_long(argc, argv, ":jrb", long_options, NULL)) != -1) {
        switch (option) {
        case 'j': fsck.json = true; break;
        case 'r': fsck.repair = true; break;
        case 'b': fsck.rebuild = true; break;
        default:
            command_usage_error(&command_fsck, "unknown option: %s", argv[optind - 1]);
            return FSCK_USAGE;
        }
    }
    if (argc - optind != 1) {
        command_usage_error(&command_fsck, "expected STORE, found %d arguments", argc - optind);
        return FSCK_USAGE;
    }
    return fsck_path(&fsck, argv[optind]);
}

const struct command command_fsck = {
    .name = "fsck",
    .synopsis = "[-r | -b] [-j] STORE",
    .summary = "check a store that is not mounted, and repair it",
    .details = "  -r, --repair    correct what has one right answer, after a backup of meta.db beside it\n"
               "  -b, --rebuild   where meta.db is missing, damaged or an older copy: restore its newest "
               "backup and the\n"
               "                  journal after it, and recover what is in neither as files in /lost+found\n"
               "  -j, --json      print one JSON document\n"
               "\n"
               "Ends with the sum of: 1 errors were corrected, 4 errors are left, 8 it could not be done, 16 "
               "usage.\n",
    .run = fsck_run,
};
