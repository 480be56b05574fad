/* SPDX-License-Identifier: Apache-2.0 */
/* A full disk: nothing changes where it says no, what frees space may use the reserve, and all goes on
 * afterwards. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/fault.h"
#include "test_meta_frame.h"

/* -- a disk that is full for one commit -------------------------------------------------------------------
 */

static uint64_t file, directory;
static struct ids freed;

static void prepare_object(void)
{
    file = frame_make_object(1, "f");
}

static void prepare_sealed(void)
{
    file = frame_make_sealed(1, "f", 100);
}

static void prepare_directory(void)
{
    directory = frame_make(1, "f", S_IFDIR | 0755);
}

static void prepare_orphan(void)
{
    prepare_sealed();
    CHECK_EQUAL(0, frame_unlink(1, "f", false, &freed));
}

static void prepare_forgotten(void)
{
    prepare_sealed();
    CHECK_EQUAL(0, frame_unlink(1, "f", true, &freed));
}

static errint do_unlink(void)
{
    return frame_unlink(1, "f", true, &freed);
}

static errint do_rmdir(void)
{
    return frame_rmdir(1, "f");
}

static errint do_rename(void)
{
    return frame_rename(1, "f", 1, "g", 0, &freed);
}

static errint do_reap(void)
{
    return meta_reap(meta, file, &freed);
}

static errint do_truncate(void)
{
    return meta_truncate(meta, file, 0, FRAME_NOW, 0, &freed);
}

static errint do_to_inline(void)
{
    return meta_to_inline(meta, file, "x", 1, FRAME_NOW, FRAME_NOW, &freed);
}

static errint do_seal(void)
{
    return meta_seal(meta, file, 10, FRAME_NOW, FRAME_NOW, &freed);
}

static errint do_set(void)
{
    struct meta_inode values = {.uid = 3};
    return meta_set(meta, file, META_SET_UID, &values, 0, NULL);
}

static errint do_synced(void)
{
    return meta_synced(meta, file, 5, false, NULL);
}

static errint do_forget(void)
{
    return meta_object_forget(meta, &freed);
}

static errint do_create(void)
{
    struct meta_new new = {.parent = 1, .name = "new", .length = 3, .mode = S_IFREG, .now = FRAME_NOW};
    struct meta_inode inode;
    return meta_create(meta, &new, 0, &inode);
}

static errint do_map(void)
{
    return frame_map(file, 10, 10, 77, 0, &freed);
}

static errint do_xattr(void)
{
    return meta_xattr_set(meta, file, "user.a", "x", 1, 0, FRAME_NOW, 0);
}

static errint do_setting(void)
{
    return meta_setting_put(meta, "key", "value");
}

static const struct step {
    const char *name;
    void (*prepare)(void);
    errint (*run)(void);
    bool spends;
} steps[] = {
    {"unlink", prepare_sealed, do_unlink, true},     {"rmdir", prepare_directory, do_rmdir, true},
    {"rename", prepare_sealed, do_rename, true},     {"reap", prepare_orphan, do_reap, true},
    {"truncate", prepare_sealed, do_truncate, true}, {"to_inline", prepare_object, do_to_inline, true},
    {"seal", prepare_object, do_seal, true},         {"set", prepare_object, do_set, true},
    {"synced", prepare_object, do_synced, true},     {"object_forget", prepare_forgotten, do_forget, true},
    {"create", prepare_sealed, do_create, false},    {"extents_map", prepare_sealed, do_map, false},
    {"xattr_set", prepare_sealed, do_xattr, false},  {"setting_put", prepare_sealed, do_setting, true},
};

static const struct step *step;
static const char *step_fault;
static errint step_reserve; /* what the reserve answers */
static int spent;

static errint spend(void *context)
{
    (*(int *)context)++;
    return step_reserve;
}

static void arm(const char *fault)
{
    CHECK_EQUAL(0, setenv("CKPTFS_FAULT", fault, 1));
    CHECK_EQUAL(0, fault_configure());
}

/* What a caller and another start can see. */
static void remember(struct meta_totals *totals, size_t *freed_count)
{
    CHECK_EQUAL(0, meta_count(meta, totals));
    *freed_count = freed.count;
}

static void run_step(void)
{
    struct meta_totals before, after;
    size_t freed_before, freed_after;
    frame_open();
    meta_on_full(meta, spend, &spent);
    step->prepare();
    remember(&before, &freed_before);
    uint64_t commits = meta_commit_last(meta);
    arm(step_fault);
    bool again = strchr(step_fault, '+') != NULL;
    bool succeeds = step->spends && !again;
    CHECK_EQUAL(succeeds ? 0 : -ENOSPC, step->run());
    CHECK_EQUAL(step->spends ? 1 : 0, spent);
    CHECK_EQUAL(commits + (succeeds ? 1 : 0), meta_commit_last(meta));
    if (!succeeds) {
        remember(&after, &freed_after);
        CHECK(memcmp(&before, &after, sizeof before) == 0);
        CHECK_EQUAL(freed_before, freed_after);
    }
    if (!succeeds && !again)
        CHECK_EQUAL(0, step->run()); /* there is room again */
    CHECK(frame_is_consistent(meta));
    CHECK_EQUAL(0, again ? 0 : meta_close(meta));
    if (check_failures)
        printf("# %s with %s\n", step->name, step_fault);
    ids_release(&freed);
}

static void run_steps(const char *fault, errint reserve)
{
    step_fault = fault;
    step_reserve = reserve;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        step = &steps[i];
        char name[4300];
        CHECK_EQUAL(0, frame_in_child("", run_step));
        frame_close();
        CHECK_EQUAL(0, unlink(frame_path));
        snprintf(name, sizeof name, "%s-wal", frame_path);
        CHECK(access(name, F_OK) < 0); /* opening and closing it has cleaned up after the child */
        frame_open();
    }
}

static void test_reserve_helps(void)
{
    run_steps("meta.commit:ENOSPC", 0);
}

static void test_log_helps(void)
{
    run_steps("meta.commit:ENOSPC", -ENOSPC);
}

static void test_nothing_helps(void)
{
    run_steps("meta.commit:ENOSPC:1+", -ENOSPC);
}

static void test_reserve_is_not_enough(void)
{
    run_steps("meta.commit:ENOSPC:1+", 0);
}

static void test_full_at_begin(void)
{
    run_steps("meta.begin:ENOSPC", 0);
}

/* -- a disk that is really full ---------------------------------------------------------------------------
 */

static char reserve_path[4300], filler_path[4300];

static errint spend_file(void *context)
{
    (*(int *)context)++;
    return unlink(reserve_path) == 0 ? 0 : -ENOSPC;
}

static void fill(const char *path, size_t limit)
{
    static const char block[4096];
    cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    CHECK(fd >= 0);
    for (size_t i = 0; i < limit && write(fd, block, sizeof block) == (ssize_t)sizeof block; i++)
        ;
}

/* The number of files made until the disk was full. */
static int make_until_full(void)
{
    int made = 0;
    for (errint error = 0; !error && made < 100000; made++) {
        char name[32];
        snprintf(name, sizeof name, "f%d", made);
        struct meta_new new = {
            .parent = 1, .name = name, .length = strlen(name), .mode = S_IFREG, .now = FRAME_NOW};
        struct meta_inode inode;
        error = meta_create(meta, &new, 0, &inode);
        CHECK(error == 0 || error == -ENOSPC);
    }
    return made - 1;
}

/* The log may have been emptied just before, and has room for some: the number of files removed until then.
 */
static int remove_until_spent(int most)
{
    int removed = 0;
    for (; !spent && removed < most; removed++) {
        char name[32];
        snprintf(name, sizeof name, "f%d", removed);
        CHECK_EQUAL(0, frame_unlink(1, name, true, &freed));
    }
    CHECK_EQUAL(1, spent);
    return removed;
}

static void use_a_full_disk(void)
{
    char name[32];
    frame_open();
    meta_on_full(meta, spend_file, &spent);
    fill(reserve_path, 64);
    int made = make_until_full();
    CHECK(made > 10);
    CHECK_EQUAL(0, spent); /* making is not what the reserve is for */
    snprintf(name, sizeof name, "f%d", made);
    CHECK_EQUAL(0, frame_find(1, name));
    CHECK(frame_is_consistent(meta));
    fill(filler_path, SIZE_MAX); /* also what is left for small things */
    for (int i = 0; i < made; i++) {
        snprintf(name, sizeof name, "f%d", i);
        CHECK(frame_find(1, name) != 0);
    }
    int removed = remove_until_spent(made - 2);
    CHECK_EQUAL(0, unlink(filler_path));
    snprintf(name, sizeof name, "f%d", removed);
    CHECK_EQUAL(0, frame_unlink(1, name, true, &freed));
    CHECK(frame_is_consistent(meta));
    CHECK_EQUAL(0, meta_sync(meta));
    frame_reopen();
    snprintf(name, sizeof name, "f%d", made - 1);
    CHECK(frame_find(1, name) != 0 && frame_find(1, "f0") == 0);
    CHECK(frame_is_consistent(meta));
    frame_close();
    fill(filler_path, SIZE_MAX);
    struct meta *other;
    CHECK_EQUAL(-ENOSPC,
                meta_open(frame_path, false, &other)); /* no room for a log: the caller must make some */
    CHECK_EQUAL(0, unlink(filler_path));
    frame_open();
    CHECK(frame_find(1, name) != 0);
    frame_close();
}

static void mount_and_use_a_full_disk(void)
{
    char disk[4150];
    snprintf(disk, sizeof disk, "%s/disk", frame_directory);
    CHECK_EQUAL(0, mkdir(disk, 0700));
    CHECK_EQUAL(0, mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    CHECK_EQUAL(0, mount("none", disk, "tmpfs", 0, "size=2m"));
    snprintf(frame_path, sizeof frame_path, "%s/meta.db", disk);
    snprintf(reserve_path, sizeof reserve_path, "%s/reserve", disk);
    snprintf(filler_path, sizeof filler_path, "%s/filler", disk);
    use_a_full_disk();
    CHECK_EQUAL(0, umount2(disk, MNT_DETACH));
}

static void enter_a_namespace(void)
{
    if (unshare(CLONE_NEWNS) == 0)
        mount_and_use_a_full_disk();
    else
        frame_shared[0] = 1;
}

static void test_full_disk(void)
{
    CHECK_EQUAL(0, frame_in_child("", enter_a_namespace));
    if (frame_shared[0])
        check_skip("mounting a small disk needs root");
}

int main(void)
{
    frame_run("with a reserve, what frees space succeeds and all else fails without a change",
              test_reserve_helps);
    frame_run("with an empty reserve, what frees space succeeds with the space of the log", test_log_helps);
    frame_run("with an empty reserve and no log's space all fails without a change", test_nothing_helps);
    frame_run("the reserve is spent once a transaction", test_reserve_is_not_enough);
    frame_run("the same where the transaction begins", test_full_at_begin);
    frame_run("a disk that is really full", test_full_disk);
    return check_done();
}
