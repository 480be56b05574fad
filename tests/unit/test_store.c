/* SPDX-License-Identifier: Apache-2.0 */
/* Stores and objects: what becomes a store, what is refused, what survives. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/fault.h"
#include "check.h"
#include "store/object.h"
#include "store/store.h"

/* -- a directory of one test ----------------------------------------------------------------------------- */

static char test_directory[256];
static char test_store[320];

static void test_remove_all(void)
{
    char command[320];
    snprintf(command, sizeof command, "rm -rf '%s'", test_directory);
    CHECK(system(command) == 0);
}

static void test_begin(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(test_directory, sizeof test_directory, "%s/ckptfs-test-store.XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(test_directory)) {
        perror(test_directory);
        exit(1);
    }
    snprintf(test_store, sizeof test_store, "%s/store", test_directory);
}

static const char *test_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", test_store, name);
    return path;
}

static void test_write(const char *name, const char *text)
{
    cleanup_fd int fd = open(test_path(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static bool test_exists(const char *name)
{
    return access(test_path(name), F_OK) == 0;
}

static mode_t test_mode(const char *name)
{
    struct stat status;
    return stat(test_path(name), &status) == 0 ? status.st_mode & 07777 : 0;
}

static off_t test_size(const char *name)
{
    struct stat status;
    return stat(test_path(name), &status) == 0 ? status.st_size : -1;
}

/* Opens, expects it to work, and returns the store. */
static struct store *test_open(void)
{
    struct store *store = NULL;
    CHECK(store_open(test_store, -1, &store) == STORE_FINE);
    if (!store) {
        printf("Bail out! no store to test with\n");
        exit(1);
    }
    return store;
}

static enum store_problem test_try(void)
{
    struct store *store = NULL;
    enum store_problem problem = store_open(test_store, -1, &store);
    CHECK((problem == STORE_FINE) == (store != NULL));
    store_close(store);
    return problem;
}

static void test_make_store(void)
{
    test_begin();
    store_close(test_open());
}

/* -- what becomes a store -------------------------------------------------------------------------------- */

static void test_creation(void)
{
    test_begin();
    struct store *store = test_open();
    CHECK(store->created);
    CHECK(store->path[0] == '/');
    CHECK(strlen(store->id) == 36);
    CHECK(test_mode("secret") == 0600);
    CHECK(test_mode("") == 0700);
    CHECK(test_size("secret") == STORE_SECRET_SIZE);
    CHECK(test_exists("ckptfs.json") && test_exists("objects") && test_exists("manifests"));
    char id[37];
    uint8_t secret[STORE_SECRET_SIZE];
    memcpy(id, store->id, sizeof id);
    memcpy(secret, store->secret, sizeof secret);
    store_close(store);

    store = test_open();
    CHECK(strcmp(store->id, id) == 0);
    CHECK(memcmp(store->secret, secret, sizeof secret) == 0);
    CHECK(store->created); /* still: nobody has made a database */
    store_close(store);
    test_write("meta.db", "x");
    store = test_open();
    CHECK(!store->created);
    store_close(store);
    test_remove_all();
}

static void test_two_stores_differ(void)
{
    test_make_store();
    struct store *one = test_open(), *other = NULL;
    snprintf(test_store, sizeof test_store, "%s/other", test_directory);
    other = test_open();
    CHECK(strcmp(one->id, other->id) != 0);
    CHECK(memcmp(one->secret, other->secret, STORE_SECRET_SIZE) != 0);
    store_close(one);
    store_close(other);
    test_remove_all();
}

static void test_fresh_disk(void)
{
    test_begin();
    CHECK(mkdir(test_store, 0755) == 0 && mkdir(test_path("lost+found"), 0700) == 0);
    CHECK(test_try() == STORE_FINE);
    test_remove_all();
}

static void test_interrupted_creation(void)
{
    /* Whatever a creation had made when it was interrupted, without ckptfs.json the next open finishes it. */
    static const char *const made_last[] = {"secret", "reserve", "lock"};
    test_make_store();
    for (size_t i = 0; i < sizeof made_last / sizeof *made_last; i++) {
        CHECK(unlink(test_path("ckptfs.json")) == 0);
        CHECK(unlink(test_path(made_last[i])) == 0);
        test_write("ckptfs.json.new", "{");
        struct store *store = test_open();
        CHECK(store->created);
        store_close(store);
        CHECK(test_size("secret") == STORE_SECRET_SIZE);
    }
    CHECK(unlink(test_path("ckptfs.json")) == 0 && rmdir(test_path("objects")) == 0);
    CHECK(test_try() == STORE_FINE);
    CHECK(test_exists("objects"));
    test_remove_all();
}

/* -- what is refused ------------------------------------------------------------------------------------- */

static void test_foreign_directory(void)
{
    test_begin();
    CHECK(mkdir(test_store, 0755) == 0);
    test_write("thesis.txt", "precious");
    CHECK(test_try() == STORE_NOT_A_STORE);
    CHECK(!test_exists("lock") && !test_exists("objects"));
    CHECK(unlink(test_path("thesis.txt")) == 0 && rmdir(test_store) == 0);
    snprintf(test_store, sizeof test_store, "%s/file", test_directory);
    cleanup_fd int fd = open(test_store, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0);
    CHECK(test_try() == STORE_NOT_A_STORE);
    snprintf(test_store, sizeof test_store, "%s/absent/store", test_directory);
    CHECK(test_try() == STORE_NOT_A_STORE);
    test_remove_all();
}

static void test_identity_is_judged(void)
{
    static const struct {
        const char *text;
        enum store_problem problem;
    } cases[] = {
        {"", STORE_DAMAGED},
        {"{\"format\": ", STORE_DAMAGED},
        {"[]", STORE_DAMAGED},
        {"{\"format\": 0, \"id\": \"01234567-89ab-4def-8123-456789abcdef\"}", STORE_DAMAGED},
        {"{\"format\": \"1\", \"id\": \"01234567-89ab-4def-8123-456789abcdef\"}", STORE_DAMAGED},
        {"{\"format\": 1}", STORE_DAMAGED},
        {"{\"format\": 1, \"id\": \"01234567-89ab-4def-8123-456789abcde\"}", STORE_DAMAGED},
        {"{\"format\": 1, \"id\": \"../4567--89ab-4def-8123-456789abcdef\"}", STORE_DAMAGED},
        {"{\"format\": 2, \"id\": 7, \"more\": []}", STORE_NEWER},
        {"{\"format\": 1e300}", STORE_NEWER},
        {"{\"format\": 1, \"id\": \"01234567-89ab-4def-8123-456789abcdef\", \"more\": []}", STORE_FINE},
    };
    test_make_store();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_write("ckptfs.json", cases[i].text);
        enum store_problem problem = test_try();
        CHECK(problem == cases[i].problem);
        if (problem != cases[i].problem)
            printf("# %s: %d\n", cases[i].text, (int)problem);
    }
    test_write("secret", "short");
    CHECK(test_try() == STORE_DAMAGED);
    CHECK(unlink(test_path("secret")) == 0);
    CHECK(test_try() == STORE_DAMAGED);
    test_remove_all();
}

static void test_lost_database(void)
{
    /* Used once with a database, then without it: even with no object left. */
    test_make_store();
    test_write("meta.db", "x");
    CHECK(test_try() == STORE_FINE);
    CHECK(unlink(test_path("meta.db")) == 0);
    CHECK(test_try() == STORE_NO_DATABASE);
    CHECK(!test_exists("meta.db"));
    test_remove_all();

    /* Objects tell it even when nothing else does. */
    test_make_store();
    struct store *store = test_open();
    close(object_create(store, 1));
    store_close(store);
    CHECK(test_try() == STORE_NO_DATABASE);
    CHECK(unlink(test_path("ckptfs.json")) == 0);
    CHECK(test_try() == STORE_NO_DATABASE);
    CHECK(!test_exists("ckptfs.json"));

    /* A database without ckptfs.json is no new store either. */
    test_write("meta.db", "x");
    CHECK(test_try() == STORE_DAMAGED);
    test_remove_all();
}

static void test_not_writable(void)
{
    test_make_store();
    CHECK(chmod(test_store, 0500) == 0);
    /* Modes do not bind root: a child without its rights tries. */
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && (chown(test_directory, 65534, 65534) != 0 || setuid(65534) != 0))
            _exit(100);
        struct store *store;
        _exit((int)store_open(test_store, -1, &store));
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == STORE_NOT_WRITABLE);
    CHECK(chmod(test_store, 0700) == 0);
    test_remove_all();
}

/* -- the lock -------------------------------------------------------------------------------------------- */

static void test_lock(void)
{
    test_make_store();
    struct store *store = test_open();
    CHECK(test_try() == STORE_IN_USE);

    /* A duplicate holds it on, and whoever inherits it opens the store with it. */
    int inherited = dup(store->lock_fd);
    store_close(store);
    CHECK(test_try() == STORE_IN_USE);
    store = NULL;
    CHECK(store_open(test_store, inherited, &store) == STORE_FINE);
    store_close(store);
    CHECK(test_try() == STORE_FINE);

    /* A descriptor of something else is no lock of this store, and stays the caller's. */
    cleanup_fd int other = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK(store_open(test_store, other, &store) == STORE_FAILED);
    CHECK(fcntl(other, F_GETFD) >= 0);
    test_remove_all();
}

static void test_lock_description(void)
{
    test_make_store();
    struct store *store = test_open();
    char longest[1000];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    store_lock_describe(store->lock_fd, longest);
    CHECK(test_size("lock") == 201);
    store_lock_describe(store->lock_fd, "process 7");
    CHECK(test_size("lock") == (off_t)strlen("process 7\n"));
    store_close(store);
    test_remove_all();
}

/* -- objects --------------------------------------------------------------------------------------------- */

static void test_object_life(void)
{
    test_make_store();
    struct store *store = test_open();
    cleanup_fd int fd = object_create(store, 0x12ff);
    CHECK(fd >= 0 && write(fd, "bytes", 5) == 5);
    CHECK(test_exists("objects/12/00000000000012ff"));
    CHECK(test_mode("objects/12/00000000000012ff") == 0600);
    CHECK(object_create(store, 0x12ff) == -EEXIST);
    CHECK(object_sync(store, 0x12ff, fd) == 0);
    CHECK(object_sync(store, 0x12ff, fd) == 0);
    cleanup_fd int again = object_open(store, 0x12ff, O_RDONLY);
    char text[6] = "";
    CHECK(again >= 0 && read(again, text, 5) == 5 && strcmp(text, "bytes") == 0);
    CHECK(object_open(store, 0x1300, O_RDONLY) == -ENOENT);
    CHECK(object_remove(store, 0x12ff) == 0);
    CHECK(object_remove(store, 0x12ff) == 0);
    CHECK(object_remove(store, UINT64_MAX) == 0);
    CHECK(object_open(store, 0x12ff, O_RDONLY) == -ENOENT);
    store_close(store);
    test_remove_all();
}

static bool test_ids_contain(const struct ids *ids, uint64_t id)
{
    for (size_t i = 0; i < ids->count; i++) {
        if (ids->at[i] == id)
            return true;
    }
    return false;
}

static void test_object_list(void)
{
    static const uint64_t made[] = {1, 255, 256, 0x10000, UINT64_MAX};
    test_make_store();
    struct store *store = test_open();
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        close(object_create(store, made[i]));
    /* None of these is an object. */
    test_write("objects/README", "x");
    test_write("objects/00/0000000000000001.tmp", "x");
    test_write("objects/00/0000000000000001.sum", "x");
    test_write("objects/00/0000000000000002.sum.new", "x");
    test_write("objects/00/000000000000ffff", "x");
    test_write("objects/00/00000000000000AB", "x");
    cleanup_ids struct ids ids = {0};
    CHECK(object_list(store, &ids) == 0);
    CHECK(ids.count == sizeof made / sizeof *made);
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        CHECK(test_ids_contain(&ids, made[i]));
    store_close(store);
    test_remove_all();
}

static bool test_stops(void *context)
{
    return *(const bool *)context;
}

static void test_object_total(void)
{
    enum { BLOCK = 1 << 16 };
    static char bytes[BLOCK];
    memset(bytes, 'x', sizeof bytes);
    bool stops = false;
    int64_t total = -1;
    test_make_store();
    struct store *store = test_open();
    CHECK_EQUAL(0, object_total_stored(store, test_stops, &stops, &total));
    CHECK_EQUAL(0, total);
    cleanup_fd int near = object_create(store, 1), far = object_create(store, 0xff00);
    CHECK(pwrite(near, bytes, BLOCK, 0) == BLOCK);
    CHECK(pwrite(far, bytes, BLOCK, 7 * BLOCK) == BLOCK);
    CHECK_EQUAL(0, object_total_stored(store, test_stops, &stops, &total));
    CHECK_EQUAL(object_stored_bytes(near) + object_stored_bytes(far), total);
    CHECK(total >= 2 * BLOCK);
    CHECK_EQUAL(0, object_remove(store, 1));
    CHECK_EQUAL(0, object_total_stored(store, test_stops, &stops, &total));
    CHECK_EQUAL(object_stored_bytes(far), total);
    stops = true;
    CHECK_EQUAL(-ECANCELED, object_total_stored(store, test_stops, &stops, &total));
    store_close(store);
    test_remove_all();
}

static void test_object_holes(void)
{
    enum { BLOCK = 1 << 16 };
    static char bytes[BLOCK];
    memset(bytes, 'x', sizeof bytes);
    test_make_store();
    struct store *store = test_open();
    cleanup_fd int fd = object_create(store, 1);
    CHECK(object_data_end(fd, 0) == 0);
    CHECK(pwrite(fd, bytes, BLOCK, 0) == BLOCK);
    CHECK(pwrite(fd, bytes, BLOCK, 3 * BLOCK) == BLOCK);
    CHECK(object_data_end(fd, 0) == BLOCK);
    CHECK(object_data_end(fd, 100) == BLOCK);
    CHECK(object_data_end(fd, 2 * BLOCK) == 2 * BLOCK);
    CHECK(object_data_end(fd, 3 * BLOCK) == 4 * BLOCK);
    CHECK(object_data_end(fd, 9 * BLOCK) == 9 * BLOCK);
    store_close(store);
    test_remove_all();
}

static void test_punch(void)
{
    enum { MIB = 1 << 20, SIZE = MIB + 100 };
    test_make_store();
    struct store *store = test_open();
    int can = object_can_punch(store);
    CHECK(can == 0 || can == 1);
    CHECK_EQUAL(can, object_can_punch(store));
    cleanup_free char *bytes = malloc(SIZE), *found = malloc(SIZE);
    CHECK(bytes && found);
    memset(bytes, 'x', SIZE);
    cleanup_fd int fd = object_create(store, 1);
    CHECK(pwrite(fd, bytes, SIZE, 0) == SIZE && fsync(fd) == 0);
    int64_t stored = object_stored_bytes(fd);
    CHECK(stored >= MIB);
    CHECK_EQUAL(-EBADF, object_stored_bytes(-1));
    CHECK_EQUAL(-EINVAL, object_punch(fd, -1, 5));
    CHECK_EQUAL(-EINVAL, object_punch(fd, 0, -5));
    CHECK_EQUAL(-EINVAL, object_punch(fd, INT64_MAX, 2));
    if (can != 1) {
        CHECK_EQUAL(-EOPNOTSUPP, object_punch(fd, 0, MIB));
        check_skip("the disk of TMPDIR cannot punch holes");
        store_close(store);
        test_remove_all();
        return;
    }
    /* Nothing whole is in these. */
    CHECK_EQUAL(0, object_punch(fd, 1, 4095));
    CHECK_EQUAL(0, object_punch(fd, 4095, 4096));
    CHECK_EQUAL(0, object_punch(fd, 0, 0));
    CHECK_EQUAL(0, object_punch(fd, SIZE, 0));
    CHECK_EQUAL(0, object_punch(fd, SIZE - 50, 50));
    CHECK_EQUAL(0, object_punch(fd, SIZE + MIB, MIB));
    CHECK_EQUAL(0, object_punch(fd, INT64_MAX - 1, 1));
    CHECK(pread(fd, found, SIZE, 0) == SIZE && memcmp(found, bytes, SIZE) == 0);
    CHECK_EQUAL(stored, object_stored_bytes(fd));

    /* Shrunk inwards in the middle, up to the very end at the end. */
    CHECK_EQUAL(0, object_punch(fd, 65536 - 1, 131072 + 2));
    memset(bytes + 65536, 0, 131072);
    CHECK(pread(fd, found, SIZE, 0) == SIZE && memcmp(found, bytes, SIZE) == 0);
    CHECK_EQUAL(stored - 131072, object_stored_bytes(fd));
    CHECK_EQUAL(0, object_punch(fd, MIB - 1, 101));
    memset(bytes + MIB, 0, 100);
    struct stat status;
    CHECK(fstat(fd, &status) == 0 && status.st_size == SIZE);
    CHECK(pread(fd, found, SIZE, 0) == SIZE && memcmp(found, bytes, SIZE) == 0);
    CHECK_EQUAL(0, object_punch(fd, 0, INT64_MAX));
    CHECK_EQUAL(0, object_stored_bytes(fd));
    CHECK(fstat(fd, &status) == 0 && status.st_size == SIZE);
    store_close(store);
    test_remove_all();
}

/* -- the reserve ----------------------------------------------------------------------------------------- */

static void test_reserve(void)
{
    test_make_store();
    struct store *store = test_open();
    CHECK(!store->reserve_spent);
    CHECK(store->reserve_size >= 256 << 10 && store->reserve_size <= 8 << 20);
    CHECK(test_size("reserve") == store->reserve_size);
    struct stat status;
    CHECK(fstat(store->reserve_fd, &status) == 0 && status.st_blocks * 512 >= store->reserve_size);

    off_t before = store->reserve_size;
    int given = 0;
    while (store_reserve_spend(store) == 0) {
        CHECK(test_size("reserve") < before);
        before = test_size("reserve");
        given++;
    }
    /* The last part is for whoever opens the database, and is taken back when the store is closed. */
    CHECK(given > 1 && before == 128 << 10);
    CHECK(store->reserve_spent);
    CHECK(store_reserve_spend_last(store) == 0 && test_size("reserve") == 0);
    CHECK(store_reserve_spend_last(store) == -ENOSPC);
    CHECK(store_reserve_spend(store) == -ENOSPC);
    CHECK(store_reserve_restore(store) == 0);
    CHECK(!store->reserve_spent && test_size("reserve") == store->reserve_size);

    /* What was spent when a process died is allocated again by the next one. */
    CHECK(store_reserve_spend(store) == 0);
    store_close(store);
    store = test_open();
    CHECK(!store->reserve_spent);
    store_close(store);
    test_remove_all();
}

/* -- the epoch ------------------------------------------------------------------------------------------- */

static void test_epoch(void)
{
    test_make_store();
    struct store *store = test_open();
    char one[128], other[128];
    CHECK(store_epoch(store, one) == 0 && store_epoch(store, other) == 0);
    CHECK(strcmp(one, other) == 0);
    CHECK(strchr(one, '/') == one + 36);
    store_close(store);
    test_remove_all();
}

/* -- faults: last, as they stay armed -------------------------------------------------------------------- */

static void test_faults(void)
{
    test_make_store();
    struct store *store = test_open();
    CHECK(setenv("CKPTFS_FAULT",
                 "object-create:ENOSPC:2,object-sync:EIO,object-remove:EIO,object-punch:EOPNOTSUPP", 1) == 0);
    CHECK(fault_configure() == 0);
    cleanup_fd int fd = object_create(store, 1);
    CHECK(fd >= 0);
    CHECK(object_create(store, 2) == -ENOSPC);
    CHECK(!test_exists("objects/00/0000000000000002"));
    CHECK(object_sync(store, 1, fd) == -EIO);
    CHECK(object_can_punch(store) == 0 && object_can_punch(store) == 0);
    CHECK(object_remove(store, 1) == -EIO);
    CHECK(object_remove(store, 1) == 0);
    store_close(store);
    test_remove_all();
}

int main(void)
{
    check_run("an empty or absent directory becomes a store, and stays the same one", test_creation);
    check_run("no two stores share id or secret", test_two_stores_differ);
    check_run("a fresh disk's lost+found is nothing foreign", test_fresh_disk);
    check_run("an interrupted creation is finished by the next open", test_interrupted_creation);
    check_run("a directory with other things in it is refused and left alone", test_foreign_directory);
    check_run("ckptfs.json and the secret are checked", test_identity_is_judged);
    check_run("a lost database is never taken for a new store", test_lost_database);
    check_run("a store that may not be written is refused", test_not_writable);
    check_run("the lock keeps others out and can be inherited", test_lock);
    check_run("the lock says who holds it", test_lock_description);
    check_run("objects are made, synced, opened and removed", test_object_life);
    check_run("objects are listed, other names are not", test_object_list);
    check_run("what all objects take on the disk", test_object_total);
    check_run("the end of an object's written bytes is found", test_object_holes);
    check_run("blocks of a range are given back, and the rest stays", test_punch);
    check_run("the reserve is given in parts and allocated again", test_reserve);
    check_run("the epoch names the boot and stays the same within a mount of the disk", test_epoch);
    check_run("faults reach the caller", test_faults);
    return check_done();
}
