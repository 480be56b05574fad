/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of checkpoints and of who wrote them: kept, gone with their directories, found wrong by the
 * check. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/process.h"
#include "meta/check.h"
#include "meta/checkpoint.h"
#include "meta/hidden.h"
#include "meta/writer.h"
#include "test_meta_frame.h"

static size_t known(void)
{
    struct meta_checkpoint *rows;
    size_t count;
    CHECK_EQUAL(0, meta_checkpoints(meta, &rows, &count));
    free(rows);
    return count;
}

static size_t writers(uint64_t run)
{
    struct meta_writer *rows;
    size_t count;
    CHECK_EQUAL(0, meta_writers(meta, run, &rows, &count));
    free(rows);
    return count;
}

static void test_rows(void)
{
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    uint64_t one = frame_make(run, "checkpoint-1", S_IFDIR | 0755);
    uint64_t two = frame_make(run, "checkpoint-2", S_IFDIR | 0755);
    uint64_t file = frame_make(run, "file", S_IFREG | 0644);
    struct meta_checkpoint rows[] = {
        {.directory = one, .run = run, .state = 4, .step = 1, .completed = 5, .bytes = 6},
        {.directory = two, .run = run, .state = 2, .marks = 3, .step = -1},
        {.directory = file, .run = run},
        {.directory = two + 1000, .run = run}};
    const struct meta_checkpoint_change put[] = {
        {&rows[0], false}, {&rows[1], false}, {&rows[2], false}, {&rows[3], false}};
    CHECK_EQUAL(0, meta_checkpoint_change(meta, put, 4));
    frame_reopen();
    struct meta_checkpoint *read;
    size_t count;
    CHECK_EQUAL(0, meta_checkpoints(meta, &read, &count));
    CHECK_EQUAL(2, count);
    CHECK(memcmp(&read[0], &rows[0], sizeof *read) == 0);
    CHECK(memcmp(&read[1], &rows[1], sizeof *read) == 0);
    free(read);
    rows[0].state = 2;
    const struct meta_checkpoint_change change[] = {{&rows[0], false}, {&rows[1], true}};
    CHECK_EQUAL(0, meta_checkpoint_change(meta, change, 2));
    CHECK_EQUAL(0, meta_checkpoints(meta, &read, &count));
    CHECK_EQUAL(1, count);
    CHECK_EQUAL(2, read[0].state);
    free(read);
    CHECK_EQUAL(0, meta_rmdir(meta, run, "checkpoint-1", 12, one, true, 1, 0));
    CHECK_EQUAL(0, known());
}

static void test_writers(void)
{
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    const struct meta_writer rows[] = {{1, 10, "this start"}, {2, 20, "this start"}, {1, 10, "another"}};
    CHECK_EQUAL(0, meta_writers_put(meta, run, rows, 3, 100));
    CHECK_EQUAL(0, meta_writers_put(meta, run, rows, 2, 100));
    CHECK_EQUAL(3, writers(run));
    frame_reopen();
    struct meta_writer *read;
    size_t count;
    CHECK_EQUAL(0, meta_writers(meta, run, &read, &count));
    CHECK_EQUAL(3, count);
    CHECK_EQUAL(2, read[1].pid);
    CHECK_EQUAL(20, read[1].started);
    CHECK_TEXT("another", read[2].boot);
    free(read);
    /* The newest are kept. */
    const struct meta_writer newer = {3, 30, "this start"};
    CHECK_EQUAL(0, meta_writers_put(meta, run, &newer, 1, 2));
    CHECK_EQUAL(0, meta_writers(meta, run, &read, &count));
    CHECK_EQUAL(2, count);
    CHECK_TEXT("another", read[0].boot);
    CHECK_EQUAL(3, read[1].pid);
    free(read);
    CHECK_EQUAL(0, meta_rmdir(meta, META_ROOT_INO, "run", 3, run, true, 1, 0));
    CHECK_EQUAL(0, writers(run));
    CHECK_EQUAL(0, meta_writers_put(meta, run, rows, 3, 100)); /* gone meanwhile: nothing is kept */
    CHECK_EQUAL(0, writers(run));
}

/* A directory moves into a hidden one and back, with what is in it. */
static void test_hidden(void)
{
    uint64_t run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    uint64_t one = frame_make(run, "one", S_IFDIR | 0755);
    uint64_t hidden, again;
    struct meta_inode row;
    cleanup_ids struct ids freed = {0};
    CHECK_EQUAL(-ENOENT, meta_hidden_find(meta, META_HIDDEN_TORN, &hidden));
    CHECK_EQUAL(0, meta_hidden_make(meta, META_HIDDEN_TORN, 1, &hidden));
    CHECK_EQUAL(0, meta_hidden_make(meta, META_HIDDEN_TORN, 2, &again));
    CHECK_EQUAL(hidden, again);
    struct meta_rename away = {.parent = run,
                               .name = "one",
                               .length = 3,
                               .new_parent = hidden,
                               .new_name = "one",
                               .new_length = 3,
                               .expected = one,
                               .now = 3};
    CHECK_EQUAL(0, meta_rename(meta, &away, 0, &freed));
    CHECK_EQUAL(-ENOENT, meta_lookup(meta, run, "one", 3, &row));
    cleanup_free char *path = NULL;
    CHECK_EQUAL(0, meta_path(meta, one, &path));
    CHECK_TEXT("/(hidden)/torn/one", path);
    frame_reopen();
    struct meta_rename back = {.parent = hidden,
                               .name = "one",
                               .length = 3,
                               .new_parent = run,
                               .new_name = "two",
                               .new_length = 3,
                               .expected = one,
                               .now = 4};
    CHECK_EQUAL(0, meta_rename(meta, &back, 0, &freed));
    CHECK_EQUAL(0, meta_lookup(meta, run, "two", 3, &row));
    CHECK_EQUAL(one, row.ino);
}

static void test_process(void)
{
    struct process own, child;
    char world[PROCESS_WORLD_MAX];
    CHECK_EQUAL(0, process_world(world));
    CHECK_EQUAL(0, process_of_thread(getpid(), &own));
    CHECK_EQUAL(getpid(), own.pid);
    CHECK(process_is_alive(&own));
    struct process other = own;
    other.started++;
    CHECK(!process_is_alive(&other)); /* the number was given again */
    int gate[2];
    CHECK_EQUAL(0, pipe(gate));
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        close(gate[1]);
        _exit(read(gate[0], &byte, 1) != 0);
    }
    close(gate[0]);
    CHECK_EQUAL(0, process_of_thread(pid, &child));
    CHECK(process_is_alive(&child));
    CHECK(process_start_time(&child) >= process_start_time(&own));
    close(gate[1]);
    siginfo_t information;
    CHECK_EQUAL(0, waitid(P_PID, (id_t)pid, &information, WEXITED | WNOWAIT));
    CHECK(!process_is_alive(&child)); /* a zombie */
    CHECK_EQUAL(pid, waitpid(pid, NULL, 0));
    CHECK(!process_is_alive(&child));
    CHECK_EQUAL(-ESRCH, process_of_thread(pid, &child));
}

static void test_check(void)
{
    uint64_t file = frame_make(META_ROOT_INO, "file", S_IFREG | 0644);
    {
        META_LOCKED(meta);
        CHECK_EQUAL(0, db_run(meta->db,
                              "INSERT INTO checkpoint (directory, run, state, marks, step, completed, bytes)"
                              " VALUES ($1, 1, 4, 0, 1, 1, 1), (99999, 1, 4, 0, 1, 1, 1)",
                              DB_INTEGER(file)));
        CHECK_EQUAL(
            0,
            db_execute(meta->db, "INSERT INTO writer (run, pid, started, boot) VALUES (99999, 1, 1, X'61')"));
    }
    CHECK_TEXT("checkpoint-directory checkpoint-directory writer-run ", frame_mend());
    CHECK_TEXT("", frame_mend());
    CHECK_EQUAL(0, known());
}

int main(void)
{
    frame_run("checkpoints are known until their directories go", test_rows);
    frame_run("who wrote in a run is known, the newest of many", test_writers);
    frame_run("a directory moves into a hidden one and back", test_hidden);
    frame_run("processes are told apart from those that had their number", test_process);
    frame_run("the check finds what is known of no directory", test_check);
    return check_done();
}
