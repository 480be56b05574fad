/* SPDX-License-Identifier: Apache-2.0 */
/* The trash: what goes there name by name and as a whole, and what comes back or is given up. */
#include "meta/trash.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "meta/check.h"
#include "meta/hidden.h"
#include "meta/pin.h"
#include "meta/policy.h"
#include "test_meta_frame.h"

enum { SIZE = 5000, OWNER = 1000, OTHER = 1001, LATER = 1000 };

static uint64_t run, checkpoint, part;

static uint64_t make_file(uint64_t directory, const char *name)
{
    return frame_make(directory, name, S_IFREG | 0640);
}

/* run/checkpoint with two files, and one in a subdirectory. */
static void make_checkpoint(void)
{
    run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    checkpoint = frame_make(run, "checkpoint", S_IFDIR | 0750);
    part = frame_make(checkpoint, "part", S_IFDIR | 0700);
    CHECK(make_file(checkpoint, "model") && make_file(checkpoint, "optimizer") && make_file(part, "rank"));
}

static errint trash_remove(uint64_t parent, const char *name, bool directory)
{
    const struct meta_trash_removal removal = {
        .checkpoint = checkpoint,
        .parent = parent,
        .name = name,
        .length = strlen(name),
        .expected = frame_find(parent, name),
        .directory = directory,
        .remover = OWNER,
        .now = FRAME_NOW + LATER,
        .removed = FRAME_NOW + LATER,
    };
    struct ids freed = {0};
    errint error = meta_trash_remove(meta, &removal, 0, &freed);
    CHECK_EQUAL(0, freed.count);
    ids_release(&freed);
    return error;
}

static void remove_all(void)
{
    CHECK_EQUAL(0, trash_remove(checkpoint, "model", false));
    CHECK_EQUAL(0, trash_remove(part, "rank", false));
    CHECK_EQUAL(0, trash_remove(checkpoint, "part", true));
    CHECK_EQUAL(0, trash_remove(checkpoint, "optimizer", false));
    CHECK_EQUAL(0, frame_rmdir(run, "checkpoint"));
}

/* The i-th row; none: its number is 0. */
static struct meta_trash row_at(size_t i)
{
    struct meta_trash *rows, row = {0};
    size_t count;
    CHECK_EQUAL(0, meta_trash_read(meta, &rows, &count));
    if (i < count)
        row = rows[i];
    free(rows);
    return row;
}

static const char *path_of(const struct meta_trash *row)
{
    static char text[1024];
    cleanup_free char *path = NULL;
    CHECK_EQUAL(0, meta_trash_path(meta, row, &path));
    snprintf(text, sizeof text, "%s", path ? path : "");
    return text;
}

static errint restore(uint64_t ino, uint64_t parent, const char *name, uint64_t *out)
{
    const struct meta_trash_restore wanted = {
        .ino = ino, .parent = parent, .name = name, .length = strlen(name), .now = FRAME_NOW + LATER};
    return meta_trash_restore(meta, &wanted, 0, out);
}

/* The number of objects that went. */
static size_t give_up(uint64_t ino, unsigned limit)
{
    cleanup_ids struct ids released = {0}, freed = {0};
    int more = 1;
    while (more > 0)
        more = meta_trash_give_up(meta, ino, limit, FRAME_NOW, &released);
    CHECK_EQUAL(0, more);
    CHECK_EQUAL(0, meta_reap_all(meta, &released, &freed));
    return freed.count;
}

static size_t count_rows(void)
{
    struct meta_trash *rows;
    size_t count;
    CHECK_EQUAL(0, meta_trash_read(meta, &rows, &count));
    free(rows);
    return count;
}

/* -- names ------------------------------------------------------------------------------------------------
 */

static void test_remove_and_restore(void)
{
    make_checkpoint();
    uint64_t model = frame_find(checkpoint, "model"), rank = frame_find(part, "rank"), back;
    remove_all();
    CHECK_EQUAL(0, frame_find(run, "checkpoint"));
    CHECK_EQUAL(1, count_rows());
    struct meta_trash row = row_at(0);
    CHECK_EQUAL(META_TRASH_CLOSED, row.kind);
    CHECK_EQUAL(0, row.directory);
    CHECK_EQUAL(OWNER, row.remover);
    CHECK_TEXT("/run/checkpoint", path_of(&row));
    frame_reopen();
    CHECK_EQUAL(1, frame_get(model).nlink);
    CHECK_EQUAL(0, restore(row.ino, run, "checkpoint", &back));
    CHECK_EQUAL(back, frame_find(run, "checkpoint"));
    CHECK_EQUAL(model, frame_find(back, "model"));
    CHECK_EQUAL(rank, frame_find(frame_find(back, "part"), "rank"));
    CHECK_EQUAL(0750, frame_get(back).mode & 0777);
    CHECK_EQUAL(0700, frame_get(frame_find(back, "part")).mode & 0777);
    CHECK_EQUAL(FRAME_NOW, frame_get(back).mtime);
    CHECK_EQUAL(0, count_rows());
    CHECK_EQUAL(-ENOENT, restore(row.ino, run, "again", &back));
}

/* A hook is run as who has set it. */
static void test_settings_come_back(void)
{
    const struct meta_policy_change hook = {"hook-complete", "true"};
    struct meta_policy_found found = {0};
    uint64_t back = 0;
    make_checkpoint();
    CHECK_EQUAL(0, meta_policy_change_by(meta, checkpoint, &hook, 1, OWNER, OTHER));
    CHECK_EQUAL(0, meta_pin_set(meta, checkpoint, true));
    remove_all();
    CHECK_EQUAL(0, restore(row_at(0).ino, run, "checkpoint", &back));
    CHECK_EQUAL(0, meta_policy_find(meta, back, "hook-complete", &found));
    CHECK_TEXT("true", found.value);
    CHECK_EQUAL(OWNER, found.uid);
    CHECK_EQUAL(OTHER, found.gid);
    CHECK_EQUAL(1, meta_pin_has(meta, back));
}

static void test_part_is_completed(void)
{
    make_checkpoint();
    uint64_t back;
    CHECK_EQUAL(0, trash_remove(checkpoint, "model", false));
    CHECK_EQUAL(0, trash_remove(part, "rank", false));
    CHECK_EQUAL(0, trash_remove(checkpoint, "part", true));
    struct meta_trash row = row_at(0);
    CHECK_EQUAL(META_TRASH_OPEN, row.kind);
    CHECK_EQUAL(checkpoint, row.directory);
    frame_reopen();
    CHECK_EQUAL(0, frame_rename(run, "checkpoint", META_ROOT_INO, "moved", 0, NULL));
    CHECK_TEXT("/moved", path_of(&row));
    CHECK_EQUAL(-ENOENT, restore(row.ino, 4711, "moved", &back));
    CHECK_EQUAL(0, restore(row.ino, META_ROOT_INO, "moved", &back));
    CHECK_EQUAL(checkpoint, back);
    CHECK(frame_find(back, "model") && frame_find(back, "optimizer"));
    CHECK(frame_find(frame_find(back, "part"), "rank") != 0);
    CHECK_EQUAL(FRAME_NOW, frame_get(back).mtime);
    CHECK_EQUAL(0, count_rows());
}

static void test_nothing_is_replaced(void)
{
    make_checkpoint();
    uint64_t back, model = frame_find(checkpoint, "model");
    CHECK_EQUAL(0, trash_remove(checkpoint, "model", false));
    struct meta_trash row = row_at(0);
    uint64_t other = make_file(checkpoint, "model");
    CHECK_EQUAL(-EEXIST, restore(row.ino, run, "checkpoint", &back));
    CHECK_EQUAL(other, frame_find(checkpoint, "model"));
    CHECK_EQUAL(-EEXIST, restore(row.ino, META_ROOT_INO, "run", &back));
    CHECK_EQUAL(0, restore(row.ino, run, "elsewhere", &back));
    CHECK_EQUAL(model, frame_find(back, "model"));
    CHECK_EQUAL(other, frame_find(checkpoint, "model"));
}

/* What is made anew under a name that went, and removed again, is another entry once the first is closed. */
static void test_closed(void)
{
    make_checkpoint();
    CHECK_EQUAL(0, trash_remove(checkpoint, "model", false));
    CHECK(make_file(checkpoint, "model") != 0);
    CHECK_EQUAL(0, meta_trash_close(meta, checkpoint));
    CHECK_EQUAL(0, trash_remove(checkpoint, "model", false));
    CHECK_EQUAL(2, count_rows());
    CHECK_EQUAL(META_TRASH_CLOSED, row_at(0).kind);
    CHECK_EQUAL(META_TRASH_OPEN, row_at(1).kind);
    give_up(row_at(0).ino, 1);
    CHECK_EQUAL(1, count_rows());
    CHECK_EQUAL(META_TRASH_OPEN, row_at(0).kind);
}

/* -- directories ------------------------------------------------------------------------------------------
 */

static void test_take_and_give_up(void)
{
    make_checkpoint();
    uint64_t model = frame_make_sealed(checkpoint, "sealed", SIZE), back, linked;
    struct meta_inode out;
    CHECK_EQUAL(0, meta_link(meta, frame_find(checkpoint, "optimizer"), run, "kept", 4, FRAME_NOW, 0, &out));
    linked = out.ino;
    CHECK_EQUAL(-EBUSY, meta_trash_take(meta, META_ROOT_INO, 0, "", FRAME_NOW, FRAME_NOW));
    CHECK_EQUAL(0, meta_trash_take(meta, checkpoint, 0, "keep-last", FRAME_NOW, FRAME_NOW));
    CHECK_EQUAL(-ENOENT, meta_trash_take(meta, checkpoint, 0, "", FRAME_NOW, FRAME_NOW));
    CHECK_EQUAL(-ENOENT, meta_trash_take(meta, part, 0, "", FRAME_NOW, FRAME_NOW));
    CHECK_EQUAL(0, frame_find(run, "checkpoint"));
    CHECK_TEXT("keep-last", row_at(0).reason);
    CHECK_EQUAL(0, restore(checkpoint, run, "checkpoint", &back));
    CHECK_EQUAL(checkpoint, back);
    CHECK_EQUAL(model, frame_find(back, "sealed"));
    CHECK_EQUAL(0, meta_trash_take(meta, checkpoint, 0, "keep-last", FRAME_NOW, FRAME_NOW));
    cleanup_ids struct ids released = {0};
    CHECK_EQUAL(1, meta_trash_give_up(meta, checkpoint, 1, FRAME_NOW, &released));
    CHECK_EQUAL(-ENOENT, restore(checkpoint, run, "checkpoint", &back));
    frame_reopen();
    give_up(checkpoint, 2);
    give_up(checkpoint, 2);
    CHECK_EQUAL(0, count_rows());
    CHECK_EQUAL(1, frame_get(linked).nlink);
    CHECK_EQUAL(linked, frame_find(run, "kept"));
}

static void test_rest_follows(void)
{
    make_checkpoint();
    uint64_t back;
    cleanup_ids struct ids released = {0}, freed = {0};
    CHECK_EQUAL(0, trash_remove(checkpoint, "model", false));
    CHECK(make_file(part, "rank2") != 0);
    CHECK_EQUAL(0, trash_remove(part, "rank", false));
    CHECK_EQUAL(0, meta_trash_take(meta, checkpoint, 0, "the removal was broken off", FRAME_NOW + LATER,
                                   FRAME_NOW + LATER));
    CHECK_EQUAL(0, meta_shadows_released(meta, &released));
    CHECK(frame_has(&released, checkpoint));
    CHECK_EQUAL(0, meta_reap_all(meta, &released, &freed));
    CHECK_EQUAL(1, count_rows());
    struct meta_trash row = row_at(0);
    CHECK_EQUAL(META_TRASH_CLOSED, row.kind);
    CHECK_TEXT("/run/checkpoint", path_of(&row));
    CHECK_EQUAL(0, restore(row.ino, run, "checkpoint", &back));
    CHECK(frame_find(back, "model") && frame_find(back, "optimizer"));
    CHECK(frame_find(frame_find(back, "part"), "rank") && frame_find(frame_find(back, "part"), "rank2"));
    CHECK_EQUAL(FRAME_NOW, frame_get(back).mtime);
}

static void test_path_survives_what_is_above(void)
{
    make_checkpoint();
    uint64_t back, runs = frame_make(META_ROOT_INO, "runs", S_IFDIR | 0711);
    CHECK_EQUAL(0, frame_rename(META_ROOT_INO, "run", runs, "first", 0, NULL));
    remove_all();
    CHECK_EQUAL(0, frame_rmdir(runs, "first"));
    CHECK_EQUAL(0, frame_rmdir(META_ROOT_INO, "runs"));
    CHECK_EQUAL(3, count_rows());
    struct meta_trash row = row_at(0);
    for (size_t i = 0; row.kind == META_TRASH_ABOVE; i++)
        row = row_at(i + 1);
    CHECK_TEXT("/runs/first/checkpoint", path_of(&row));
    CHECK_EQUAL(0, restore(row.ino, META_ROOT_INO, "back", &back));
    CHECK_EQUAL(0, count_rows());
}

/* -- the view ---------------------------------------------------------------------------------------------
 */

static char listed[1024];

static bool list_entry(void *context, const char *name, size_t length, uint64_t cookie,
                       const struct meta_inode *inode, bool is_entry)
{
    (void)context, (void)cookie, (void)inode;
    size_t used = strlen(listed);
    snprintf(listed + used, sizeof listed - used, "%.*s%s ", (int)length, name, is_entry ? "*" : "/");
    return true;
}

static const char *list(uint64_t directory, uint32_t uid)
{
    listed[0] = '\0';
    CHECK_EQUAL(0, meta_trash_list(meta, directory, uid, 0, list_entry, NULL));
    return listed;
}

static errint look_up(uint64_t directory, uint32_t uid, const char *name, uint64_t *ino)
{
    struct meta_inode inode = {0};
    bool is_entry;
    errint error = meta_trash_lookup(meta, directory, uid, name, strlen(name), &inode, &is_entry);
    *ino = inode.ino;
    return error;
}

static void test_view(void)
{
    make_checkpoint();
    uint64_t first, second, found;
    char text[128];
    const struct meta_inode owner = {.uid = OWNER};
    CHECK(frame_make(META_ROOT_INO, "unconcerned", S_IFDIR | 0755) != 0);
    CHECK_EQUAL(0, meta_set(meta, checkpoint, META_SET_UID, &owner, 0, NULL));
    CHECK_TEXT("", list(META_ROOT_INO, 0));
    remove_all();
    first = row_at(0).ino;
    CHECK_TEXT("run/ ", list(META_ROOT_INO, OTHER));
    CHECK_TEXT("", list(run, OTHER));
    CHECK_TEXT("checkpoint* ", list(run, OWNER));
    CHECK_EQUAL(-ENOENT, look_up(run, OTHER, "checkpoint", &found));
    CHECK_EQUAL(0, look_up(run, OWNER, "checkpoint", &found));
    CHECK_EQUAL(first, found);
    second = frame_make(run, "checkpoint", S_IFDIR | 0755);
    CHECK_EQUAL(0, meta_trash_take(meta, second, 0, "", FRAME_NOW + 2 * LATER, FRAME_NOW + 2 * LATER));
    snprintf(text, sizeof text,
             second < first ? "checkpoint* checkpoint~%llu* " : "checkpoint~%llu* checkpoint* ",
             (unsigned long long)first);
    CHECK_TEXT(text, list(run, 0));
    CHECK_EQUAL(0, look_up(run, 0, "checkpoint", &found));
    CHECK_EQUAL(second, found);
    snprintf(text, sizeof text, "checkpoint~%llu", (unsigned long long)first);
    CHECK_EQUAL(0, look_up(run, 0, text, &found));
    CHECK_EQUAL(first, found);
    CHECK_EQUAL(-ENOENT, look_up(run, OTHER, text, &found));
    CHECK_EQUAL(0, frame_rmdir(META_ROOT_INO, "run"));
    CHECK_TEXT("run/ ", list(META_ROOT_INO, 0));
    CHECK_EQUAL(0, look_up(META_ROOT_INO, 0, "run", &found));
    CHECK_EQUAL(0, look_up(found, 0, "checkpoint", &found));
    CHECK_EQUAL(second, found);
}

enum { MANY = 10000, MANY_SECONDS = 10 };

/* Where a listing in pieces is, as a directory's is that is read with getdents(2). */
struct piece {
    uint64_t after;
    unsigned count, numbered;
};

static bool list_piece(void *context, const char *name, size_t length, uint64_t cookie,
                       const struct meta_inode *inode, bool is_entry)
{
    (void)inode, (void)is_entry;
    struct piece *piece = context;
    piece->after = cookie;
    piece->numbered += memchr(name, '~', length) != NULL;
    return ++piece->count % 50 != 0;
}

/* Half of them have one name, the others one each. */
static void make_many(void)
{
    char name[32];
    run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "checkpoint-%d", i % 2 ? i : 0);
        uint64_t directory = frame_make(run, name, S_IFDIR | 0755);
        CHECK_EQUAL(0, meta_trash_take(meta, directory, OWNER, "", FRAME_NOW + i, FRAME_NOW + i));
    }
}

static void test_many(void)
{
    struct piece piece = {0};
    struct meta_trash row = {0};
    unsigned before = 1, found = 0;
    make_many();
    /* Of the processor, whatever else the machine does. */
    int64_t began = clock_read_ns(CLOCK_PROCESS_CPUTIME_ID);
    while (before != piece.count) {
        before = piece.count;
        CHECK_EQUAL(0, meta_trash_list(meta, run, 0, piece.after, list_piece, &piece));
    }
    CHECK_EQUAL(MANY, piece.count);
    CHECK_EQUAL(MANY / 2 - 1, piece.numbered);
    while (meta_trash_next(meta, row.ino, 0, &row) == 0)
        found++;
    CHECK_EQUAL(MANY, found);
    CHECK(clock_read_ns(CLOCK_PROCESS_CPUTIME_ID) - began < MANY_SECONDS * CLOCK_NS_PER_SECOND);
    CHECK_EQUAL(-ENOENT, meta_trash_next(meta, 0, OTHER, &row));
}

/* -- the check --------------------------------------------------------------------------------------------
 */

static char codes[512];

static void note_code(void *context, const struct meta_finding *finding)
{
    (void)context;
    size_t used = strlen(codes);
    if (finding->kind != META_FINDING_NOTE)
        snprintf(codes + used, sizeof codes - used, "%s ", finding->code);
}

/* There are no objects. */
static const char *check_and_mend(void)
{
    const struct meta_check_request request = {.now = FRAME_NOW, .mend = true, .finding = note_code};
    struct meta_check_result result;
    codes[0] = '\0';
    CHECK_EQUAL(0, meta_check(meta, &request, &result));
    return codes;
}

static void test_check(void)
{
    make_checkpoint();
    remove_all();
    CHECK_TEXT("", check_and_mend());
    uint64_t ino = row_at(0).ino;
    frame_break_by("UPDATE trash SET parent = 777, directory = 778 WHERE ino = %llu", ino);
    CHECK_TEXT("trash-rest trash-parent ", check_and_mend());
    struct meta_trash row = row_at(0);
    CHECK_TEXT("/checkpoint", path_of(&row));
    frame_break_by("DELETE FROM trash WHERE ino = %llu", ino);
    CHECK_TEXT("trash-lost directory-lost nlink ", check_and_mend());
    frame_break_by("INSERT INTO trash VALUES (779, 0, 0, 1, x'41', 0, 0, x'')", 0);
    CHECK_TEXT("trash-directory ", check_and_mend());
    CHECK_TEXT("", check_and_mend());
}

/* -- at random --------------------------------------------------------------------------------------------
 */

enum { RANDOM_STEPS = 3000, RANDOM_FILES = 4, RANDOM_CHECKPOINTS = 3 };

static unsigned random_state;

static unsigned below(unsigned limit)
{
    random_state = random_state * 1103515245 + 12345;
    return (random_state >> 16) % limit;
}

/* A checkpoint of the run, made when it is not there. */
static void random_make(const char *name, const char *file)
{
    uint64_t directory = frame_find(run, name);
    if (!directory)
        directory = frame_make(run, name, S_IFDIR | 0755);
    if (!frame_find(directory, file)) {
        CHECK_EQUAL(0, meta_trash_close(meta, directory));
        CHECK(make_file(directory, file) != 0);
    }
}

static void random_remove(const char *name, const char *file)
{
    checkpoint = frame_find(run, name);
    if (!checkpoint)
        return;
    uint64_t ino = frame_find(checkpoint, file);
    if (ino) {
        CHECK_EQUAL(0, trash_remove(checkpoint, file, false));
        CHECK_EQUAL(1, frame_get(ino).nlink);
    } else {
        errint error = frame_rmdir(run, name);
        CHECK(error == 0 || error == -ENOTEMPTY);
    }
}

static void random_restore(const char *name)
{
    size_t count = count_rows();
    struct meta_trash row = row_at(count ? below((unsigned)count) : 0);
    uint64_t back;
    errint error = count ? restore(row.ino, run, name, &back) : 0;
    CHECK(error == 0 || error == -EEXIST || (error == -ENOENT && row.kind == META_TRASH_ABOVE));
}

/* The run itself goes, when it is empty, and comes again: what was in it is remembered. */
static void random_replace_run(void)
{
    if (frame_rmdir(META_ROOT_INO, "run") == 0)
        run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
}

static void test_random(void)
{
    random_state = 4711;
    run = frame_make(META_ROOT_INO, "run", S_IFDIR | 0755);
    for (int step = 0; step < RANDOM_STEPS; step++) {
        const char name[] = {'c', (char)('0' + below(RANDOM_CHECKPOINTS)), '\0'};
        const char file[] = {'f', (char)('0' + below(RANDOM_FILES)), '\0'};
        size_t count = count_rows();
        switch (below(8)) {
        case 0:
        case 1: random_make(name, file); break;
        case 2:
        case 3:
        case 4: random_remove(name, file); break;
        case 5: random_restore(name); break;
        case 6: random_replace_run(); break;
        default:
            if (count > 4)
                give_up(row_at(below((unsigned)count)).ino, 1 + below(3));
        }
        if (step % 100 == 0)
            CHECK(frame_is_consistent(meta));
    }
    CHECK_TEXT("", check_and_mend());
}

int main(void)
{
    frame_run("what is removed of a checkpoint comes back as it was", test_remove_and_restore);
    frame_run("what was set for it comes back with it", test_settings_come_back);
    frame_run("what is removed in part is completed", test_part_is_completed);
    frame_run("nothing is replaced by what comes back", test_nothing_is_replaced);
    frame_run("what is made anew is not of the entry before", test_closed);
    frame_run("a whole directory goes there, comes back, and is given up", test_take_and_give_up);
    frame_run("the rest of a checkpoint follows what was removed of it", test_rest_follows);
    frame_run("a path outlives the directories on it", test_path_survives_what_is_above);
    frame_run("the view shows it to its owner, under its path", test_view);
    frame_run("thousands of entries are listed in no time to speak of", test_many);
    frame_run("the check mends it", test_check);
    frame_run("a random sequence leaves the tables consistent", test_random);
    return check_done();
}
