/* SPDX-License-Identifier: Apache-2.0 */
/* Objects in use: who writes one while another asks whether anybody sees it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "fs/backing.h"

enum { WRITES = 20000, OBJECT = 1 };

static char test_directory[256];
static struct store *test_store;

struct shared {
    struct backing_table *table;
    struct backing *backing;
    _Atomic bool ends;
    _Atomic unsigned asked;
    unsigned failed;
};

/* As the thread that gives dead bytes back asks, which knows of no file's lock. */
static void *ask(void *context)
{
    struct shared *shared = context;
    while (!atomic_load(&shared->ends)) {
        shared->failed += backing_is_free(shared->backing, BACKING_READERS) < 0;
        shared->asked++;
        /* A number that was closed under somebody else would be this one's. */
        cleanup_fd int other = open("/dev/null", O_RDONLY | O_CLOEXEC);
        shared->failed += other < 0;
    }
    return NULL;
}

/* Writes the number of the write, each with a descriptor of its own, and makes the object so long. */
static unsigned write_all(struct backing_table *table, struct backing *backing)
{
    unsigned failed = 0;
    for (uint32_t i = 0; i < WRITES; i++) {
        cleanup_fd int fd = backing_writer(table, backing);
        failed += fd < 0 || ftruncate(fd, (off_t)i) < 0 || pwrite(fd, &i, sizeof i, (off_t)i) != sizeof i;
    }
    return failed;
}

static void test_writer(void)
{
    struct backing_table table;
    struct shared shared = {.table = &table};
    pthread_t thread;
    backing_table_init(&table, test_store, -1);
    CHECK_EQUAL(0, backing_create(&table, OBJECT, &shared.backing));
    if (backing_is_free(shared.backing, BACKING_READERS) == -EOPNOTSUPP)
        check_skip("no leases on this disk");
    CHECK_EQUAL(0, pthread_create(&thread, NULL, ask, &shared));
    /* Not before the other is at work: it may take long to get a processor. */
    while (atomic_load(&shared.asked) == 0)
        sched_yield();
    CHECK_EQUAL(0, write_all(&table, shared.backing));
    atomic_store(&shared.ends, true);
    pthread_join(thread, NULL);
    CHECK_EQUAL(0, shared.failed);
    struct stat status;
    CHECK_EQUAL(0, fstat(shared.backing->fd, &status));
    CHECK_EQUAL(WRITES - 1 + sizeof(uint32_t), status.st_size);
    backing_put(&table, shared.backing);
}

/* Whoever has a descriptor counts as somebody who sees the object; what is kept for the next time does not.
 */
static void test_views(void)
{
    struct backing_table table;
    struct backing *backing = NULL;
    backing_table_init(&table, test_store, -1);
    CHECK_EQUAL(0, backing_create(&table, OBJECT + 1, &backing));
    int fd = backing_writer(&table, backing);
    CHECK(fd >= 0);
    if (backing_is_free(backing, BACKING_WRITERS) != -EOPNOTSUPP) {
        CHECK_EQUAL(0, backing_is_free(backing, BACKING_WRITERS));
        CHECK_EQUAL(0, backing_is_free(backing, BACKING_READERS));
        close(fd);
        CHECK_EQUAL(1, backing_is_free(backing, BACKING_WRITERS));
        CHECK_EQUAL(1, backing_is_free(backing, BACKING_READERS));
    } else {
        close(fd);
        check_skip("no leases on this disk");
    }
    backing_put(&table, backing);
}

int main(void)
{
    const char *base = getenv("TMPDIR");
    char command[320];
    snprintf(test_directory, sizeof test_directory, "%s/ckptfs-test-backing.XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(test_directory) || store_open(test_directory, -1, &test_store) != STORE_FINE) {
        perror(test_directory);
        return 1;
    }
    check_run("a writer's descriptor is its own while others ask who sees the object", test_writer);
    check_run("who has a descriptor is seen", test_views);
    store_close(test_store);
    snprintf(command, sizeof command, "rm -rf '%s'", test_directory);
    CHECK(system(command) == 0);
    return check_done();
}
