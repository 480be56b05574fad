/* SPDX-License-Identifier: Apache-2.0 */
/* The redo journal: a backup and the journal behind it are the database, whatever happened in between. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "meta/check.h"
#include "meta/db_sqlite_redo.h"
#include "meta/journal.h"
#include "test_meta_frame.h"

/* What page 1 has in front of its own tree: counters that a copy counts differently. */
enum { DATABASE_HEADER = 100, VALUE_BYTES = 60000 };

static char backup_path[4300], journal_path[4300], restored_path[4300], older_path[4300];
static unsigned changes;

/* -- short ways -------------------------------------------------------------------------------------------
 */

static errint publish(void *context)
{
    char from[4400];
    (void)context;
    if (link(journal_path, older_path) < 0 && errno != ENOENT)
        return -errno;
    snprintf(from, sizeof from, "%s.new", journal_path);
    errint error = fault_hit("test.publish");
    if (!error && rename(from, journal_path) < 0)
        error = -errno;
    snprintf(from, sizeof from, "%s.new", backup_path);
    return error || rename(from, backup_path) == 0 ? error : -errno;
}

static errint make_pair(void)
{
    char backup[4400], journal[4400];
    snprintf(backup, sizeof backup, "%s.new", backup_path);
    snprintf(journal, sizeof journal, "%s.new", journal_path);
    unlink(older_path);
    const struct meta_pair pair = {.backup = backup, .journal = journal, .publish = publish};
    return meta_backup_pair(meta, &pair);
}

static void journaled_open(void)
{
    snprintf(backup_path, sizeof backup_path, "%s.backup", frame_path);
    snprintf(journal_path, sizeof journal_path, "%s.journal", frame_path);
    snprintf(restored_path, sizeof restored_path, "%s.restored", frame_path);
    snprintf(older_path, sizeof older_path, "%s.journal.1", frame_path);
    CHECK_EQUAL(0, meta_open_journaled(frame_path, false, journal_path, &meta));
    if (!meta) {
        printf("Bail out! cannot open %s\n", frame_path);
        exit(EXIT_FAILURE);
    }
    meta_journal_judge(meta);
    CHECK_EQUAL(0, meta_journal_start(meta));
}

/* The database of the frame, opened with a journal that follows. */
static void begin(void)
{
    frame_close();
    journaled_open();
    CHECK(!meta_journal_follows(meta));
    CHECK_EQUAL(0, make_pair());
    CHECK(meta_journal_follows(meta));
}

static void reopen(void)
{
    frame_close();
    journaled_open();
}

/* Names and attributes come and go. */
static void change(unsigned count)
{
    static char value[VALUE_BYTES];
    char name[32];
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "file-%u", changes % 200);
        memset(value, (int)changes, sizeof value);
        uint64_t file = frame_find(1, name);
        if (!file)
            file = frame_make(1, name, S_IFREG | 0644);
        if (changes % 7 == 3)
            CHECK_EQUAL(0, frame_unlink(1, name, true, NULL));
        else
            CHECK_EQUAL(0,
                        meta_xattr_set(meta, file, "user.value", value, changes % 9 * 6000, 0, FRAME_NOW, 0));
        changes++;
    }
}

static void copy_file(const char *from, const char *to)
{
    char bytes[65536];
    unlink(to);
    int source = open(from, O_RDONLY), target = open(to, O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(source >= 0 && target >= 0);
    for (ssize_t got; (got = read(source, bytes, sizeof bytes)) > 0;)
        CHECK_EQUAL(got, write(target, bytes, (size_t)got));
    close(source);
    close(target);
}

static errint restore(struct db_journal_state *state)
{
    *state = (struct db_journal_state){0};
    copy_file(backup_path, restored_path);
    CHECK_EQUAL(1, db_journal_belongs(journal_path, backup_path));
    errint error = db_journal_restore(journal_path, restored_path, false, state);
    CHECK_EQUAL(0, meta_check_backup(restored_path));
    return error;
}

static bool is_same(const char *a_path, const char *b_path)
{
    char a[4096], b[4096];
    int first = open(a_path, O_RDONLY), second = open(b_path, O_RDONLY);
    bool same = first >= 0 && second >= 0;
    for (off_t offset = DATABASE_HEADER; same; offset += (off_t)sizeof a) {
        ssize_t got = pread(first, a, sizeof a, offset);
        same = got >= 0 && pread(second, b, sizeof b, offset) == got && memcmp(a, b, (size_t)got) == 0;
        if (got == 0)
            break;
    }
    close(first);
    close(second);
    return same;
}

/* The closed database is what the pair restores; it is opened again. */
static void check_restored(void)
{
    struct db_journal_state state;
    frame_close();
    CHECK_EQUAL(0, restore(&state));
    CHECK_EQUAL(DB_JOURNAL_WHOLE, state.ending);
    CHECK(is_same(frame_path, restored_path));
    journaled_open();
    CHECK(meta_journal_follows(meta));
}

static off_t size_of(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? status.st_size : -1;
}

static void flip(const char *path, off_t offset)
{
    uint8_t byte = 0;
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
    byte ^= 0x10;
    CHECK(pwrite(fd, &byte, 1, offset) == 1);
    close(fd);
}

/* -- what is restored -------------------------------------------------------------------------------------
 */

static void test_restored(void)
{
    change(50);
    begin();
    check_restored(); /* nothing came after the backup */
    change(300);
    CHECK_EQUAL(0, meta_sync_journal(meta));
    change(300);
    check_restored();
    change(20);
    reopen();
    reopen();
    CHECK_EQUAL(0, make_pair());
    change(100);
    check_restored();
}

/* The log is emptied many times, at moments that nobody chooses. */
static void test_log_is_emptied(void)
{
    begin();
    for (int i = 0; i < 10; i++) {
        change(500);
        CHECK_EQUAL(0, meta_sync_journal(meta));
    }
    check_restored();
    change(500);
    check_restored();
}

/* A commit that is larger than a record, and than SQLite's own cache. */
static void test_large_commit(void)
{
    static const char text[] =
        "CREATE TABLE large (x); WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT "
        "i + 1 FROM n WHERE i < 40000) INSERT INTO large SELECT randomblob(900) FROM n";
    begin();
    pthread_mutex_lock(&meta->lock);
    CHECK_EQUAL(0, db_begin(meta->db));
    CHECK_EQUAL(0, db_execute(meta->db, text));
    CHECK_EQUAL(0, db_commit(meta->db));
    CHECK_EQUAL(0, db_execute(meta->db, "DROP TABLE large"));
    meta->commit_last++;
    pthread_mutex_unlock(&meta->lock);
    CHECK_EQUAL(0, meta_sync_journal(meta));
    change(10);
    check_restored();
}

/* Changes, also in the journal before, while a backup is written. */
static bool change_meanwhile(void *context)
{
    bool *done = context;
    if (!*done) {
        change(40);
        CHECK_EQUAL(0, meta_sync_journal(meta));
    }
    *done = true;
    return false;
}

static errint publish_meanwhile(void *context)
{
    (void)context;
    return publish(NULL);
}

static void test_changed_meanwhile(void)
{
    char backup[4400], journal[4400];
    bool done = false;
    change(300);
    begin();
    reopen();
    snprintf(backup, sizeof backup, "%s.new", backup_path);
    snprintf(journal, sizeof journal, "%s.new", journal_path);
    const struct meta_pair pair = {.backup = backup,
                                   .journal = journal,
                                   .stop = change_meanwhile,
                                   .publish = publish_meanwhile,
                                   .context = &done};
    unlink(older_path);
    CHECK_EQUAL(0, meta_backup_pair(meta, &pair));
    CHECK(done);
    change(40);
    check_restored();
}

/* The thread does it by itself, within seconds. */
static void test_thread(void)
{
    begin();
    int64_t before = meta_journal_size(meta), deadline = clock_monotonic() + 20 * CLOCK_NS_PER_SECOND;
    change(1);
    while (meta_journal_size(meta) == before && clock_monotonic() < deadline)
        usleep(10000);
    CHECK(meta_journal_size(meta) > before);
}

/* The newest backup is damaged: the one before, its journal, and the next journal. */
static void test_chain(void)
{
    static char first_backup[4400];
    struct db_journal_state state;
    begin();
    change(200);
    snprintf(first_backup, sizeof first_backup, "%s.first", backup_path);
    copy_file(backup_path, first_backup);
    CHECK_EQUAL(0, make_pair());
    change(200);
    frame_close();
    CHECK_EQUAL(0, db_journal_belongs(journal_path, first_backup));
    CHECK_EQUAL(1, db_journal_belongs(older_path, first_backup));
    state = (struct db_journal_state){0};
    copy_file(first_backup, restored_path);
    CHECK_EQUAL(0, db_journal_restore(older_path, restored_path, false, &state));
    CHECK_EQUAL(-ESTALE, db_journal_restore(older_path, restored_path, true, &state));
    CHECK_EQUAL(0, db_journal_restore(journal_path, restored_path, true, &state));
    CHECK(is_same(frame_path, restored_path));
    /* Where the first journal ends before the second begins, the second is not put over it. (Its last record
     * may be one without content.) */
    state = (struct db_journal_state){0};
    copy_file(first_backup, restored_path);
    CHECK_EQUAL(0, truncate(older_path, size_of(older_path) / 2));
    CHECK_EQUAL(0, truncate(journal_path, 200));
    CHECK_EQUAL(0, db_journal_restore(older_path, restored_path, false, &state));
    CHECK_EQUAL(-ESTALE, db_journal_restore(journal_path, restored_path, true, &state));
    CHECK_EQUAL(0, meta_check_backup(restored_path));
    journaled_open();
}

/* -- damage -----------------------------------------------------------------------------------------------
 */

/* Wherever it is cut off, what is restored is whole, and an earlier state. */
static void test_torn(void)
{
    struct db_journal_state state;
    begin();
    change(30);
    CHECK_EQUAL(0, meta_sync_journal(meta));
    change(30);
    frame_close();
    int64_t newest = INT64_MAX;
    for (off_t size = size_of(journal_path); size > 300; size -= size / 17 + 1) {
        CHECK_EQUAL(0, truncate(journal_path, size));
        CHECK_EQUAL(0, restore(&state));
        CHECK_EQUAL(DB_JOURNAL_WHOLE, state.ending);
        CHECK(state.time <= newest);
        newest = state.time;
    }
    journaled_open();
}

/* After a crash of the machine blocks that were not written are zeros. */
static void test_zeros(void)
{
    struct db_journal_state state;
    begin();
    change(30);
    frame_close();
    off_t size = size_of(journal_path);
    CHECK_EQUAL(0, truncate(journal_path, size + 100000));
    CHECK_EQUAL(0, restore(&state));
    CHECK_EQUAL(DB_JOURNAL_WHOLE, state.ending);
    CHECK(is_same(frame_path, restored_path));
    journaled_open();
    CHECK(meta_journal_follows(meta));
    change(30);
    check_restored();
}

static void test_flipped(void)
{
    struct db_journal_state state;
    begin();
    change(100);
    CHECK_EQUAL(0, meta_sync_journal(meta));
    change(100);
    frame_close();
    off_t size = size_of(journal_path);
    for (off_t offset = 150; offset < size; offset += size / 23) {
        flip(journal_path, offset);
        CHECK_EQUAL(0, restore(&state));
        CHECK_EQUAL(DB_JOURNAL_DAMAGED, state.ending);
        CHECK(state.offset <= offset && state.offset + state.unused == size);
        flip(journal_path, offset);
    }
    CHECK_EQUAL(0, restore(&state));
    CHECK(is_same(frame_path, restored_path));
    flip(journal_path, 20);
    CHECK_EQUAL(0, db_journal_belongs(journal_path, backup_path));
    flip(journal_path, 20);
    flip(backup_path, size_of(backup_path) / 2);
    CHECK_EQUAL(0, db_journal_belongs(journal_path, backup_path));
    journaled_open();
}

/* What was copied was on stable storage: a log that has less of it is not the whole database. */
static void die_with_log(void)
{
    journaled_open();
    change(50);
    CHECK_EQUAL(0, meta_sync_journal(meta));
    raise(SIGKILL);
}

static void test_log_is_damaged(void)
{
    char log[4300];
    struct db_journal_state state;
    begin();
    change(10);
    snprintf(log, sizeof log, "%s-wal", frame_path);
    frame_close();
    pid_t child = fork();
    if (child == 0)
        die_with_log();
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    off_t size = size_of(log), before = size_of(journal_path);
    CHECK(size > 2000);
    flip(log, size - 500);
    struct meta *refused = NULL;
    CHECK_EQUAL(-ESTALE, meta_open_journaled(frame_path, false, journal_path, &refused));
    CHECK_EQUAL(-ESTALE, meta_check_database(frame_path, journal_path, NULL, NULL));
    CHECK_EQUAL(size, size_of(log));
    CHECK_EQUAL(before, size_of(journal_path));
    flip(log, size - 500);
    CHECK_EQUAL(0, restore(&state));
    journaled_open();
    CHECK(meta_journal_follows(meta));
    check_restored();
}

/* Some of the log was moved into the database, which so says that it is in use. */
static void die_after_checkpoint(void)
{
    struct redo_file before, now;
    journaled_open();
    CHECK_EQUAL(0, redo_look_at(frame_path, &before));
    now = before;
    int64_t deadline = clock_monotonic() + 60 * CLOCK_NS_PER_SECOND;
    while (redo_is_same_file(&before, &now) && clock_monotonic() < deadline) {
        change(100);
        CHECK_EQUAL(0, redo_look_at(frame_path, &now));
    }
    change(50);
    CHECK_EQUAL(0, meta_sync_journal(meta));
    raise(SIGKILL);
}

/* The log is gone, with all that was only in it. */
static void test_log_is_gone(void)
{
    char log[4300];
    begin();
    change(10);
    snprintf(log, sizeof log, "%s-wal", frame_path);
    frame_close();
    pid_t child = fork();
    if (child == 0)
        die_after_checkpoint();
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    CHECK_EQUAL(0, unlink(log));
    struct meta *refused = NULL;
    for (int i = 0; i < 3; i++) /* an attempt changes nothing */
        CHECK_EQUAL(-ESTALE, meta_open_journaled(frame_path, false, journal_path, &refused));
    struct db_journal_state state;
    CHECK_EQUAL(0, restore(&state));
    CHECK_EQUAL(DB_JOURNAL_WHOLE, state.ending);
    CHECK_EQUAL(0, rename(restored_path, frame_path));
    unlink(log);
    journaled_open();
    CHECK_EQUAL(0, make_pair());
    check_restored();
}

/* -- who goes on ------------------------------------------------------------------------------------------
 */

static void test_changed_without(void)
{
    begin();
    change(20);
    frame_reopen(); /* without it */
    change(1);
    reopen();
    CHECK(!meta_journal_follows(meta));
    CHECK_EQUAL(0, meta_journal_size(meta));
    CHECK_EQUAL(0, meta_sync_journal(meta));
    /* It says so itself. */
    struct db_journal_state state;
    CHECK_EQUAL(0, restore(&state));
    CHECK_EQUAL(DB_JOURNAL_STOPPED, state.ending);
    CHECK_EQUAL(0, make_pair());
    change(20);
    check_restored();
}

/* The check of a database, and who opens it for a moment, take the journal along. */
static void test_checked(void)
{
    begin();
    change(20);
    frame_close();
    CHECK_EQUAL(0, meta_check_database(frame_path, journal_path, NULL, NULL));
    CHECK_EQUAL(0, meta_open_journaled(frame_path, false, journal_path, &meta));
    CHECK(meta_journal_follows(meta));
    change(1);
    reopen();
    CHECK(meta_journal_follows(meta));
    check_restored();
}

static void work_until_killed(void)
{
    if (meta)
        meta = NULL;
    journaled_open();
    int64_t deadline = clock_monotonic() + 60 * CLOCK_NS_PER_SECOND;
    for (int i = 0; clock_monotonic() < deadline; i++) {
        change(60);
        CHECK_EQUAL(0, meta_sync_journal(meta));
        if (i % 8 == 7)
            CHECK_EQUAL(0, make_pair());
    }
    CHECK_EQUAL(0, meta_close(meta));
}

/* Dies at a step; the next one goes on, or begins anew. */
static void test_killed(void)
{
    static const char *const points[] = {
        "journal.append:kill:5",  "journal.appended:kill:9", "journal.sync:kill:4",
        "journal.settle:kill:1",  "journal.settled:kill:1",  "journal.settle:kill:3",
        "journal.settled:kill:3", "backup.written:kill:1",   "backup.journal:kill:2",
        "meta.checkpoint:kill:2", "test.publish:kill:1"};
    begin();
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        int status = frame_in_child(points[i], work_until_killed);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        if (!WIFSIGNALED(status))
            printf("# %s\n", points[i]);
    }
}

/* As frame_in_child, which opens the database without its journal first. */
static int in_child(const char *fault, void (*body)(void))
{
    frame_close();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        check_failures = 0;
        setenv("CKPTFS_FAULT", fault, 1);
        CHECK_EQUAL(0, fault_configure());
        body();
        fflush(stdout);
        _exit(check_failures ? EXIT_FAILURE : EXIT_SUCCESS);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return status;
}

static void test_killed_followed(void)
{
    static const char *const points[] = {
        "journal.append:kill:5", "journal.appended:kill:9", "journal.sync:kill:4",
        "backup.written:kill:1", "backup.journal:kill:2",   "meta.checkpoint:kill:2",
        "meta.commit:kill:100",  "journal.settle:kill:2",   "journal.settled:kill:2"};
    begin();
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        int status = in_child(points[i], work_until_killed);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        /* Nothing but the journal and the log, as a rebuild has them. */
        struct db_journal *journal = NULL;
        CHECK_EQUAL(0, db_journal_open(frame_path, journal_path, &journal));
        bool follows = journal && db_journal_follows(journal);
        db_journal_close(journal);
        if (!follows)
            printf("# does not follow after %s\n", points[i]);
        CHECK(follows);
        journaled_open();
        check_restored();
    }
}

static void meet_full_disk(void)
{
    journaled_open();
    change(20);
    CHECK_EQUAL(0, meta_sync_journal(meta));
    CHECK(!meta_journal_follows(meta));
    change(20);
    CHECK_EQUAL(0, meta_sync_journal(meta));
    CHECK_EQUAL(0, make_pair());
    change(20);
    CHECK_EQUAL(0, meta_sync_journal(meta));
    CHECK(meta_journal_follows(meta));
    CHECK_EQUAL(0, meta_close(meta));
}

/* No room for the journal: nobody else is kept from anything. */
static void test_full_disk(void)
{
    begin();
    CHECK_EQUAL(0, in_child("journal.append:ENOSPC:1", meet_full_disk));
    journaled_open();
    CHECK(meta_journal_follows(meta));
    check_restored();
}

int main(void)
{
    frame_run("a backup and its journal are the database", test_restored);
    frame_run("the log is emptied meanwhile", test_log_is_emptied);
    frame_run("a commit that is larger than a record", test_large_commit);
    frame_run("changes while a backup is written", test_changed_meanwhile);
    frame_run("a thread adds what was committed", test_thread);
    frame_run("a journal continues the one before", test_chain);
    frame_run("a journal that is cut off anywhere", test_torn);
    frame_run("a journal with zeros at its end", test_zeros);
    frame_run("flipped bits end it", test_flipped);
    frame_run("a log that has less than the journal is refused", test_log_is_damaged);
    frame_run("a database without its log is refused", test_log_is_gone);
    frame_run("who changes the database without it ends it", test_changed_without);
    frame_run("a check, or a short use, takes it along", test_checked);
    frame_run("killed at each step", test_killed);
    frame_run("killed at each step, it goes on", test_killed_followed);
    frame_run("a full disk ends it, and the next backup begins it anew", test_full_disk);
    return check_done();
}
