/* SPDX-License-Identifier: Apache-2.0 */
/* A namespace's life: made, opened, refused, upgraded, killed, synced. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "meta/sharing.h"
#include "test_meta_frame.h"

/* -- making and refusing ----------------------------------------------------------------------------------
 */

static void write_file(const char *path, const char *text)
{
    cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static bool exists(const char *path, const char *end)
{
    cleanup_free char *whole = NULL;
    CHECK(asprintf(&whole, "%s%s", path, end) > 0);
    return access(whole, F_OK) == 0;
}

/* Runs SQL on a closed database, as somebody with sqlite3 would. */
static void alter(const char *path, const char *sql)
{
    sqlite3 *connection;
    CHECK_EQUAL(SQLITE_OK, sqlite3_open(path, &connection));
    CHECK_EQUAL(SQLITE_OK, sqlite3_exec(connection, sql, NULL, NULL, NULL));
    CHECK_EQUAL(SQLITE_OK, sqlite3_close(connection));
}

static void test_missing_and_foreign(void)
{
    char path[4300];
    struct meta *other = (struct meta *)1;
    snprintf(path, sizeof path, "%s/other.db", frame_directory);
    CHECK_EQUAL(-ENOENT, meta_open(path, false, &other));
    CHECK(other == NULL);
    CHECK(!exists(path, ""));
    write_file(path,
               "This is a letter, not a database. It is long enough to have a header of that size, and more"
               " than that, so that nobody can take it for an empty file.");
    CHECK_EQUAL(-EUCLEAN, meta_open(path, true, &other));
    CHECK_EQUAL(0, unlink(path));
    alter(path, "CREATE TABLE recipe (name TEXT)");
    CHECK_EQUAL(-EUCLEAN, meta_open(path, true, &other));
    CHECK_EQUAL(0, unlink(path));
    write_file(path, "");
    CHECK_EQUAL(-EUCLEAN, meta_open(path, false, &other));
    snprintf(path, sizeof path, "%s/none/meta.db", frame_directory);
    CHECK_EQUAL(-ENOENT, meta_open(path, true, &other));
}

static void test_interrupted_creation(void)
{
    char path[4300], rest[4400];
    struct meta *other;
    snprintf(path, sizeof path, "%s/other.db", frame_directory);
    snprintf(rest, sizeof rest, "%s.new", path);
    write_file(rest, "half a database");
    CHECK_EQUAL(0, meta_open(path, true, &other));
    CHECK_EQUAL(0, meta_close(other));
    CHECK(!exists(path, ".new") && !exists(path, "-wal") && !exists(path, "-shm"));
    CHECK_EQUAL(0, unlink(path));
    snprintf(rest, sizeof rest, "%s-wal", path);
    write_file(rest, "a log");
    CHECK_EQUAL(-EUCLEAN, meta_open(path, true, &other)); /* it would be replayed into the new one */
    CHECK(!exists(path, ""));
}

static void test_damaged(void)
{
    for (int i = 0; i < 2000; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%d", i);
        frame_make(1, name, S_IFREG);
    }
    frame_close();
    {
        cleanup_fd int fd = open(frame_path, O_WRONLY);
        static char garbage[64 << 10];
        memset(garbage, 0x5a, sizeof garbage);
        CHECK(pwrite(fd, garbage, sizeof garbage, 8192) == (ssize_t)sizeof garbage);
    }
    errint error = meta_open(frame_path, false, &meta);
    CHECK(error == -EUCLEAN || error == 0);
    struct meta_inode inode;
    for (uint64_t ino = 1; !error && ino < 2000; ino++)
        error = meta_get(meta, ino, &inode);
    CHECK_EQUAL(-EUCLEAN, error);
    meta_close(meta); /* may not succeed: it releases all the same */
    CHECK_EQUAL(0, unlink(frame_path));
    char rest[4300];
    snprintf(rest, sizeof rest, "%s-wal", frame_path);
    unlink(rest);
    snprintf(rest, sizeof rest, "%s-shm", frame_path);
    unlink(rest);
    frame_open();
}

/* The totals are kept from a clean stop until the first change; the frame compares them with the tables. */
static void test_totals(void)
{
    struct meta_totals totals;
    frame_make_sealed(1, "f", 5000);
    CHECK(!meta->totals_kept);
    frame_reopen();
    CHECK(meta->totals_kept);
    CHECK(frame_is_consistent(meta));
    CHECK_EQUAL(0, meta_count(meta, &totals));
    CHECK_EQUAL(5000, totals.logical_bytes);
    CHECK_EQUAL(-EEXIST, meta_link(meta, frame_find(1, "f"), 1, "f", 1, FRAME_NOW, 0, NULL));
    CHECK(meta->totals_kept); /* what failed changed nothing */
    frame_reopen();
    CHECK(meta->totals_kept);
    frame_make(1, "g", S_IFREG);
    CHECK(!meta->totals_kept);
    frame_reopen();
    CHECK(meta->totals_kept);
    CHECK(frame_is_consistent(meta));
}

static void change_and_die(void)
{
    frame_open();
    frame_make(1, "g", S_IFREG);
    _exit(0);
}

/* A daemon that died leaves none. */
static void test_totals_after_death(void)
{
    frame_make_sealed(1, "f", 5000);
    CHECK_EQUAL(0, frame_in_child("", change_and_die));
    CHECK(!meta->totals_kept);
    CHECK(frame_find(1, "g") != 0);
    CHECK(frame_is_consistent(meta));
}

/* -- formats ----------------------------------------------------------------------------------------------
 */

static void test_newer_format(void)
{
    frame_make(1, "f", S_IFREG);
    frame_close();
    char set[64];
    snprintf(set, sizeof set, "UPDATE format SET version = %d", META_FORMAT_VERSION + 1);
    alter(frame_path, set);
    struct meta *other;
    CHECK_EQUAL(-EPROTONOSUPPORT, meta_open(frame_path, true, &other));
    alter(frame_path, "UPDATE format SET version = 0");
    CHECK_EQUAL(-EUCLEAN, meta_open(frame_path, true, &other)); /* there never was one */
    snprintf(set, sizeof set, "UPDATE format SET version = %d", META_FORMAT_VERSION);
    alter(frame_path, set);
    frame_open();
    CHECK(frame_find(1, "f") != 0);
}

/* A store of the first format, which knew nothing of equal bytes. */
static void test_format_1(void)
{
    uint64_t file = frame_make_sealed(1, "f", 5000);
    frame_close();
    alter(frame_path,
          "DROP TABLE summed; DROP TABLE segment; DROP TABLE shrunk; DROP TABLE damage;"
          " DROP TABLE total; DROP TABLE checksum; DROP TABLE assembled;"
          " DROP TABLE assembled_input; DROP TABLE stand_in;" FRAME_DROP_5 " UPDATE format SET version = 1");
    frame_open();
    CHECK(frame_find(1, "f") == file);
    cleanup_ids struct ids objects = {0};
    uint64_t after = 0;
    CHECK_EQUAL(0, meta_find_unshared_after(meta, &after, &objects));
    CHECK_EQUAL(1, objects.count);
    char backup[4300];
    snprintf(backup, sizeof backup, "%s.format-1", frame_path);
    CHECK(exists(backup, ""));
}

/* A store of format 5, which had no files whose bytes were given up. */
static void test_format_5(void)
{
    uint64_t file = frame_make_sealed(1, "f", 5000);
    frame_close();
    alter(frame_path, "UPDATE format SET version = 5");
    frame_open();
    CHECK(frame_find(1, "f") == file);
    char backup[4300];
    snprintf(backup, sizeof backup, "%s.format-5", frame_path);
    CHECK(exists(backup, ""));
}

static int format_of(const char *path)
{
    sqlite3 *connection;
    sqlite3_stmt *statement;
    int format = -1;
    if (sqlite3_open_v2(path, &connection, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK &&
        sqlite3_prepare_v2(connection, "SELECT version FROM format", -1, &statement, NULL) == SQLITE_OK) {
        if (sqlite3_step(statement) == SQLITE_ROW)
            format = sqlite3_column_int(statement, 0);
        sqlite3_finalize(statement);
    }
    sqlite3_close(connection);
    return format;
}

static void test_upgrade(void)
{
    static const struct schema_step good[] = {
        {1, "CREATE TABLE invented (id INTEGER PRIMARY KEY); INSERT INTO invented (id) VALUES (5)"},
        {2, "ALTER TABLE invented ADD COLUMN name TEXT"},
    };
    static const struct schema_step bad[] = {
        {1, "CREATE TABLE invented (id INTEGER PRIMARY KEY)"},
        {2, "INSERT INTO nowhere (id) VALUES (1)"},
    };
    char backup[4300];
    snprintf(backup, sizeof backup, "%s.format-1", frame_path);
    frame_make(1, "f", S_IFREG);
    META_LOCKED(meta);
    CHECK_EQUAL(0, db_execute(meta->db, "UPDATE format SET version = 1"));
    CHECK_EQUAL(-EUCLEAN, schema_check(meta->db, frame_path, 4, good, 2)); /* no step from 3 */
    CHECK(!exists(backup, ""));
    CHECK_EQUAL(-EIO, schema_check(meta->db, frame_path, 3, bad, 2));
    CHECK_EQUAL(0, db_has_table(meta->db, "invented")); /* all or nothing */
    CHECK_EQUAL(0, schema_check(meta->db, frame_path, 1, good, 2));
    CHECK_EQUAL(0, schema_check(meta->db, frame_path, 3, good, 2));
    CHECK_EQUAL(1, db_has_table(meta->db, "invented"));
    CHECK_EQUAL(1, format_of(backup));
    CHECK(!exists(backup, ".part"));
    CHECK_EQUAL(3, format_of(frame_path));
    CHECK_EQUAL(-EPROTONOSUPPORT, schema_check(meta->db, frame_path, 2, good, 2));
    char set[64];
    snprintf(set, sizeof set, "UPDATE format SET version = %d", META_FORMAT_VERSION);
    CHECK_EQUAL(0, db_execute(meta->db, set));
}

/* -- what stays -------------------------------------------------------------------------------------------
 */

static void test_settings(void)
{
    char *value = (char *)1;
    CHECK_EQUAL(-ENOENT, meta_setting_get(meta, "clean", &value));
    CHECK(value == NULL);
    CHECK_EQUAL(0, meta_setting_put(meta, "clean", "0"));
    CHECK_EQUAL(0, meta_setting_put(meta, "empty", ""));
    CHECK_EQUAL(0, meta_setting_put(meta, "clean", "yes, it is"));
    frame_reopen();
    CHECK_EQUAL(0, meta_setting_get(meta, "clean", &value));
    CHECK_TEXT("yes, it is", value);
    free(value);
    CHECK_EQUAL(0, meta_setting_get(meta, "empty", &value));
    CHECK_TEXT("", value);
    free(value);
}

struct answers {
    uint64_t unique[16], ino[16];
    size_t count;
};

static void note_answer(void *context, uint64_t unique, uint64_t ino)
{
    struct answers *answers = context;
    answers->unique[answers->count] = unique;
    answers->ino[answers->count++ % 16] = ino;
}

static void test_requests(void)
{
    struct answers answers = {.count = 0};
    struct meta_new new = {.parent = 1, .name = "f", .length = 1, .mode = S_IFREG, .now = FRAME_NOW};
    struct meta_inode inode;
    uint64_t unique, ino;
    meta_last_request(meta, &unique, &ino);
    CHECK_EQUAL(0, unique);
    meta_on_commit(meta, note_answer, &answers);
    CHECK_EQUAL(0, meta_create(meta, &new, 100, &inode));
    CHECK_EQUAL(1, answers.count);
    CHECK(answers.unique[0] == 100 && answers.ino[0] == inode.ino);
    CHECK_EQUAL(-EEXIST, meta_create(meta, &new, 102, &inode)); /* nothing done, nothing noted */
    frame_make(1, "g", S_IFREG);                                /* not the kernel's */
    CHECK_EQUAL(1, answers.count);
    uint64_t file = frame_find(1, "f");
    CHECK_EQUAL(0, meta_xattr_set(meta, file, "user.a", "x", 1, 0, 1, 104));
    CHECK_EQUAL(0, meta_set(meta, file, META_SET_UID, &inode, 106, NULL));
    CHECK_EQUAL(0, meta_unlink(meta, 1, "f", 1, file, true, 1, UINT64_C(1) << 63, NULL));
    CHECK_EQUAL(4, answers.count);
    meta_last_request(meta, &unique, &ino);
    CHECK(unique == UINT64_C(1) << 63 && ino == file);
    frame_reopen();
    meta_last_request(meta, &unique, &ino);
    CHECK(unique == UINT64_C(1) << 63 && ino == file);
}

/* -- kill -------------------------------------------------------------------------------------------------
 */

/* Makes files in turn and says in the shared memory what is acknowledged. */
static void make_until_killed(void)
{
    frame_open();
    for (uint64_t i = 0; i < 20000; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%05d", (int)i);
        uint64_t object = meta_object_next(meta);
        frame_shared[1] = object;
        struct meta_new new = {.parent = 1,
                               .name = name,
                               .length = strlen(name),
                               .mode = S_IFREG,
                               .object = object,
                               .now = FRAME_NOW};
        struct meta_inode inode;
        if (meta_create(meta, &new, 2 * i + 2, &inode) < 0)
            return;
        frame_shared[2] = inode.ino;
        frame_shared[0] = i + 1;
        if (i % 3 == 2 && meta_unlink(meta, 1, name, strlen(name), inode.ino, true, 1, 0, NULL) < 0)
            return;
    }
}

static void expect_after_kill(const char *fault, uint64_t most_unacknowledged)
{
    memset(frame_shared, 0, 4 * sizeof *frame_shared);
    int status = frame_in_child(fault, make_until_killed);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    uint64_t acknowledged = frame_shared[0], found = 0;
    CHECK(acknowledged > 0);
    for (uint64_t i = 0; i < acknowledged + 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%05d", (int)i);
        bool there = frame_find(1, name) != 0;
        if (i + 1 < acknowledged && i % 3 != 2)
            CHECK(there);
        if (i + 1 < acknowledged && i % 3 == 2)
            CHECK(!there);
        found += there && i >= acknowledged;
    }
    CHECK(found <= most_unacknowledged);
    CHECK(frame_is_consistent(meta));
    CHECK(meta_object_next(meta) > frame_shared[1]);
    uint64_t next = frame_make(1, "next", S_IFREG);
    CHECK(next > frame_shared[2]);
    uint64_t unique, ino;
    meta_last_request(meta, &unique, &ino);
    CHECK_EQUAL(2 * (acknowledged + found), unique);
    cleanup_ids struct ids freed = {0};
    for (uint64_t i = 0; i < acknowledged + 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%05d", (int)i);
        if (frame_find(1, name))
            CHECK_EQUAL(0, frame_unlink(1, name, true, &freed));
    }
    CHECK_EQUAL(0, frame_unlink(1, "next", true, &freed));
}

static void test_kill(void)
{
    expect_after_kill("meta.begin:kill:100", 0);
    expect_after_kill("meta.commit:kill:101", 0);
    expect_after_kill("meta.committed:kill:100", 1);
    expect_after_kill("meta.committed:kill:5000", 1); /* past several batches of numbers */
    expect_after_kill("meta.checkpoint:kill:1", 1);
    expect_after_kill("meta.checkpoint:kill:2", 1);
}

static void numbers_in_a_child(void)
{
    frame_open();
    frame_shared[0] = meta_object_next(meta);
    frame_shared[1] = frame_make(1, "last", S_IFREG);
    frame_shared[2] = 1;
    raise(SIGKILL);
}

static void test_numbers(void)
{
    uint64_t first = meta_object_next(meta);
    CHECK(first > 0);
    frame_reopen();
    CHECK_EQUAL(first + 1, meta_object_next(meta)); /* none is skipped after a clean stop */
    uint64_t file = frame_make(1, "f", S_IFREG);
    CHECK_EQUAL(0, frame_unlink(1, "f", true, NULL));
    frame_reopen();
    CHECK_EQUAL(file + 1, frame_make(1, "f", S_IFREG)); /* nor given again */
    for (int i = 0; i < 3; i++) {
        int status = frame_in_child("", numbers_in_a_child);
        CHECK(WIFSIGNALED(status) && frame_shared[2] == 1);
        CHECK(meta_object_next(meta) > frame_shared[0]);
        CHECK_EQUAL(0, frame_unlink(1, "last", true, NULL));
        CHECK(frame_make(1, "last", S_IFREG) > frame_shared[1]);
        CHECK_EQUAL(0, frame_unlink(1, "last", true, NULL));
    }
    uint64_t next = 0;
    for (int i = 0; i < 3000; i++) { /* over the end of a batch and another */
        uint64_t number = meta_object_next(meta);
        CHECK(number > next);
        next = number;
    }
}

/* -- stable storage ---------------------------------------------------------------------------------------
 */

static void test_sync(void)
{
    uint64_t before = meta_commit_last(meta);
    frame_make(1, "f", S_IFREG);
    CHECK_EQUAL(before + 1, meta_commit_last(meta));
    CHECK(meta_commit_durable(meta) <= before);
    CHECK_EQUAL(0, meta_sync(meta));
    CHECK_EQUAL(before + 1, meta_commit_durable(meta));
    CHECK_EQUAL(0, meta_sync(meta));
}

enum { WORKERS = 6, ROUNDS = 200 };

static void *work(void *argument)
{
    int number = (int)(intptr_t)argument;
    for (int i = 0; i < ROUNDS; i++) {
        char name[32];
        snprintf(name, sizeof name, "w%d-%d", number, i);
        struct meta_new new = {
            .parent = 1, .name = name, .length = strlen(name), .mode = S_IFREG, .now = FRAME_NOW};
        struct meta_inode inode;
        if (meta_create(meta, &new, 0, &inode) < 0)
            return "create";
        uint64_t commit = meta_commit_last(meta);
        if (i % 4 == 0 && (meta_sync(meta) < 0 || meta_commit_durable(meta) < commit))
            return "sync";
        if (meta_lookup(meta, 1, name, strlen(name), &inode) < 0)
            return "lookup";
    }
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        CHECK_EQUAL(0, pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i));
    for (int i = 0; i < WORKERS; i++) {
        void *failed;
        CHECK_EQUAL(0, pthread_join(threads[i], &failed));
        if (failed)
            printf("# %s failed\n", (char *)failed);
        CHECK(!failed);
    }
    struct meta_totals totals;
    CHECK_EQUAL(0, meta_count(meta, &totals));
    CHECK_EQUAL(1 + WORKERS * ROUNDS, totals.inodes);
}

static void fail_a_sync(void)
{
    frame_open();
    frame_make(1, "f", S_IFREG);
    CHECK_EQUAL(-EIO, meta_sync(meta));
    CHECK(meta_commit_durable(meta) < meta_commit_last(meta));
    CHECK_EQUAL(-EIO, meta_sync(meta)); /* the next sync may succeed and prove nothing */
    frame_make(1, "g", S_IFREG);        /* but work goes on */
    CHECK_EQUAL(-EIO, meta_close(meta));
}

static void test_sync_fails(void)
{
    /* The first one is that of meta_open. */
    CHECK_EQUAL(0, frame_in_child("meta.sync:EIO:2", fail_a_sync));
    CHECK(frame_find(1, "f") && frame_find(1, "g"));
    CHECK_EQUAL(0, meta_sync(meta));
}

static off_t log_size(void)
{
    char path[4300];
    struct stat status;
    snprintf(path, sizeof path, "%s-wal", frame_path);
    return stat(path, &status) == 0 ? status.st_size : -1;
}

/* The log is emptied by itself, once while others commit and once when they rest; all stays there. */
static void test_log_is_emptied(void)
{
    enum { LIMIT = 4 << 20 };
    static char value[60000];
    uint64_t file = frame_make(1, "f", S_IFREG);
    off_t greatest = 0;
    for (int i = 0; i < 1000; i++) {
        memset(value, i, sizeof value); /* what stays the same would not be written again */
        CHECK_EQUAL(0, meta_xattr_set(meta, file, "user.big", value, sizeof value, 0, FRAME_NOW, 0));
        if (log_size() > greatest)
            greatest = log_size();
    }
    CHECK(greatest >= LIMIT);
    int64_t deadline = clock_monotonic() + 60 * CLOCK_NS_PER_SECOND;
    while (log_size() >= LIMIT && clock_monotonic() < deadline)
        usleep(10000);
    CHECK(log_size() < LIMIT);
    CHECK(greatest < 80 << 20);
    CHECK_EQUAL(sizeof value, meta_xattr_get(meta, file, "user.big", value, sizeof value));
    CHECK(value[0] == (char)999 && value[sizeof value - 1] == (char)999);
}

static void keep_checkpoints_from_working(void)
{
    static char value[60000];
    frame_open();
    uint64_t file = frame_make(1, "f", S_IFREG);
    for (int i = 0; i < 200; i++) {
        memset(value, i, sizeof value);
        CHECK_EQUAL(0, meta_xattr_set(meta, file, "user.big", value, sizeof value, 0, FRAME_NOW, 0));
    }
    CHECK_EQUAL(0, meta_sync(meta));
    CHECK(log_size() > 8 << 20); /* it could not be emptied: no reason not to work on */
    CHECK_EQUAL(0, meta_close(meta));
}

static void test_checkpoint_fails(void)
{
    CHECK_EQUAL(0, frame_in_child("meta.checkpoint:ENOSPC:1+", keep_checkpoints_from_working));
    CHECK_EQUAL(60000, meta_xattr_get(meta, frame_find(1, "f"), "user.big", NULL, 0));
}

int main(void)
{
    frame_run("what is missing or something else is refused", test_missing_and_foreign);
    frame_run("a half-made database is made again", test_interrupted_creation);
    frame_run("damage is told", test_damaged);
    frame_run("newer formats are refused", test_newer_format);
    frame_run("a store of format 1 is upgraded", test_format_1);
    frame_run("a store of format 5 is upgraded", test_format_5);
    frame_run("older formats are upgraded, after a backup, or not at all", test_upgrade);
    frame_run("settings stay", test_settings);
    frame_run("the last request stays, and is told at its commit", test_requests);
    frame_run("a killed process loses nothing that was acknowledged", test_kill);
    frame_run("numbers are never given twice", test_numbers);
    frame_run("sync", test_sync);
    frame_run("threads change and sync together", test_threads);
    frame_run("a sync that failed is not made good by the next", test_sync_fails);
    frame_run("the log is emptied", test_log_is_emptied);
    frame_run("a log that cannot be emptied keeps nobody from working", test_checkpoint_fails);
    frame_run("the totals are kept by a clean stop until the first change", test_totals);
    frame_run("a daemon that died leaves no totals", test_totals_after_death);
    return check_done();
}
