/* SPDX-License-Identifier: Apache-2.0 */
/* The table of chunk hashes beside an object: round trips, damage and lies. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "check.h"
#include "store/object.h"
#include "store/sums_table.h"
#include "test_sums_frame.h"

/* -- the table ------------------------------------------------------------------------------------------- */

/* Object 1 with these bytes, and its sums. */
static struct sums test_make_object(const void *bytes, size_t length, const struct sums_part *parts,
                                    size_t count)
{
    cleanup_fd int fd = object_create(test_store, 1);
    CHECK(fd >= 0 && pwrite(fd, bytes, length, 0) == (ssize_t)length);
    return test_compute(fd, (int64_t)length, parts, count);
}

static void test_round_trip(void)
{
    static const size_t sizes[] = {0, 1, 5 * MIB};
    test_begin();
    cleanup_free uint8_t *bytes = test_bytes(5 * MIB, 13);
    struct sums found = {0};
    CHECK_EQUAL(-ENOENT, sums_read(test_store, 1, &found));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cleanup_sums struct sums sums = test_make_object(bytes, sizes[i], NULL, 0);
        CHECK_EQUAL(0, sums_write(test_store, 1, &sums));
        CHECK_EQUAL(0, sums_write(test_store, 1, &sums));
        CHECK_EQUAL(0, sums_read(test_store, 1, &found));
        CHECK(test_equal(&sums, &found));
        test_check_shape(&found);
        sums_release(&found);
        struct stat status;
        CHECK(stat(test_path("0000000000000001.sum"), &status) == 0 && (status.st_mode & 07777) == 0600);
        CHECK_EQUAL(SUMS_TABLE_FIXED + SUMS_TABLE_ENTRY * sums.chunk_count, status.st_size);
        CHECK(access(test_path("0000000000000001.sum.new"), F_OK) != 0);

        /* It is a table of an object of this size, and of this store. */
        cleanup_fd int fd = object_open(test_store, 1, O_RDWR);
        CHECK(ftruncate(fd, (off_t)sizes[i] + 1) == 0);
        CHECK_EQUAL(-EUCLEAN, sums_read(test_store, 1, &found));
        CHECK(ftruncate(fd, (off_t)sizes[i]) == 0);
        test_store->secret[7] ^= 1;
        CHECK_EQUAL(-EUCLEAN, sums_read(test_store, 1, &found));
        test_store->secret[7] ^= 1;
        CHECK_EQUAL(0, sums_remove(test_store, 1));
        CHECK_EQUAL(0, sums_remove(test_store, 1));
        CHECK_EQUAL(-ENOENT, sums_read(test_store, 1, &found));
        CHECK_EQUAL(0, object_remove(test_store, 1));
    }
    test_end();
}

static void test_table_goes_with_object(void)
{
    test_begin();
    cleanup_sums struct sums sums = test_make_object("bytes", 5, NULL, 0);
    CHECK_EQUAL(0, sums_write(test_store, 1, &sums));
    cleanup_fd int left = open(test_path("0000000000000001.sum.new"), O_WRONLY | O_CREAT, 0600);
    CHECK(left >= 0);
    cleanup_ids struct ids ids = {0};
    CHECK_EQUAL(0, object_list(test_store, &ids));
    CHECK(ids.count == 1 && ids.at[0] == 1);
    CHECK_EQUAL(0, object_remove(test_store, 1));
    CHECK(access(test_path("0000000000000001.sum"), F_OK) != 0);
    CHECK(access(test_path("0000000000000001.sum.new"), F_OK) != 0);

    /* A table that comes too late does not stay. */
    CHECK_EQUAL(-ENOENT, sums_write(test_store, 1, &sums));
    CHECK(access(test_path("0000000000000001.sum"), F_OK) != 0);
    CHECK(access(test_path("0000000000000001.sum.new"), F_OK) != 0);
    test_end();
}

/* The table of an object with several segments, to be damaged. */
static uint8_t *test_make_table(struct sums *sums, size_t *length)
{
    static const struct sums_part parts[] = {{.length = 100}, {.length = SUMS_CHUNK + 9}, {.length = 1}};
    cleanup_free uint8_t *bytes = test_bytes(SUMS_CHUNK + 110, 14);
    *sums = test_make_object(bytes, SUMS_CHUNK + 110, parts, 3);
    return sums_table_encode(test_store, sums, length);
}

static errint test_decode(const void *table, size_t length)
{
    /* Of exactly this size, so that the sanitizer sees a byte beyond. */
    cleanup_free void *copy = malloc(length ? length : 1);
    memcpy(copy, table, length);
    char why[SUMS_TABLE_WHY] = "";
    struct sums sums = {0};
    errint error = sums_table_decode(test_store, copy, length, &sums, why);
    CHECK((error == 0) == (*why == '\0'));
    sums_release(&sums);
    return error;
}

static void test_damage(void)
{
    test_begin();
    cleanup_sums struct sums sums = {0};
    size_t length;
    cleanup_free uint8_t *table = test_make_table(&sums, &length);
    CHECK_EQUAL(SUMS_TABLE_FIXED + 4 * SUMS_TABLE_ENTRY, length);
    CHECK_EQUAL(0, test_decode(table, length));
    for (size_t i = 0; i < length; i++) {
        for (int bit = 0; bit < 8; bit++) {
            table[i] ^= (uint8_t)(1 << bit);
            CHECK(test_decode(table, length) != 0);
            table[i] ^= (uint8_t)(1 << bit);
        }
    }
    for (size_t i = 0; i < length; i++)
        CHECK_EQUAL(-EUCLEAN, test_decode(table, i));
    cleanup_free uint8_t *longer = calloc(1, length + 3 * SUMS_TABLE_ENTRY);
    memcpy(longer, table, length);
    for (size_t more = 1; more <= 3 * SUMS_TABLE_ENTRY; more++)
        CHECK_EQUAL(-EUCLEAN, test_decode(longer, length + more));
    test_end();
}

/* Damage on the disk, heard as one line: stderr is read back. */
static void test_damage_is_said(void)
{
    test_begin();
    cleanup_sums struct sums sums = {0}, found = {0};
    size_t length;
    cleanup_free uint8_t *table = test_make_table(&sums, &length);
    CHECK_EQUAL(0, sums_write(test_store, 1, &sums));
    cleanup_fd int fd = open(test_path("0000000000000001.sum"), O_RDWR);
    cleanup_fd int heard = memfd_create("stderr", MFD_CLOEXEC), before = dup(2);
    fflush(stdout);
    CHECK(dup2(heard, 2) == 2);
    errint errors[4];
    /* The secret is another each time: any fixed byte would now and then be the right one. */
    const uint8_t other = table[SUMS_TABLE_HEADER + 9] ^ 0xff;
    CHECK(pwrite(fd, &other, 1, SUMS_TABLE_HEADER + 9) == 1);
    errors[0] = sums_read(test_store, 1, &found);
    CHECK(pwrite(fd, "\377\377\377\377\377\377\377\177", 8, SUMS_TABLE_AT_COUNT) == 8);
    errors[1] = sums_read(test_store, 1, &found);
    CHECK(ftruncate(fd, 20) == 0);
    errors[2] = sums_read(test_store, 1, &found);
    CHECK(pwrite(fd, table, length, 0) == (ssize_t)length && pwrite(fd, "\2", 1, SUMS_TABLE_AT_VERSION) == 1);
    errors[3] = sums_read(test_store, 1, &found);
    CHECK(dup2(before, 2) == 2);
    CHECK_EQUAL(-EUCLEAN, errors[0]);
    CHECK_EQUAL(-EUCLEAN, errors[1]);
    CHECK_EQUAL(-EUCLEAN, errors[2]);
    CHECK_EQUAL(-EPROTONOSUPPORT, errors[3]);
    char text[4096] = "";
    CHECK(pread(heard, text, sizeof text - 1, 0) > 0);
    unsigned lines = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++)
        CHECK(strstr(line, "objects/00/0000000000000001.sum") && strstr(line, "expected") &&
              strstr(line, "found"));
    CHECK_EQUAL(4, lines);
    test_end();
}

/* With root and checksum made to fit: what is wrong inside is still noticed. */
static void test_fix(uint8_t *table, size_t length)
{
    size_t end = length - HASH_BYTES;
    hash_to_bytes(hash_of(test_store, table + SUMS_TABLE_HEADER, end - SUMS_TABLE_HEADER),
                  table + SUMS_TABLE_AT_ROOT);
    hash_to_bytes(hash_of(test_store, table, end), table + end);
}

static void test_lies(void)
{
    enum { ENTRY = SUMS_TABLE_HEADER + SUMS_TABLE_ENTRY };
    static const struct {
        size_t at, length;
        const char *bytes;
    } lies[] = {
        {SUMS_TABLE_AT_COUNT, 1, "\3"},
        {SUMS_TABLE_AT_COUNT, 1, "\5"},
        {SUMS_TABLE_AT_COUNT + 7, 1, "\x10"},
        {SUMS_TABLE_AT_COUNT, 8, "\315\314\314\314\314\314\314\014"}, /* times 20 is 4 in 64 bits */
        {SUMS_TABLE_AT_SIZE, 1, "\1"},
        {SUMS_TABLE_AT_SIZE + 7, 1, "\377"},
        {SUMS_TABLE_AT_SIZE, 8, "\0\0\0\0\0\0\0\0"},
        {SUMS_TABLE_HEADER, 4, "\x64\0\0\0"},   /* the first starts no segment */
        {SUMS_TABLE_HEADER, 4, "\0\0\0\x80"},   /* no bytes */
        {SUMS_TABLE_HEADER, 4, "\x65\0\0\x80"}, /* one more than there is */
        {ENTRY, 4, "\1\0\x10\x80"},             /* more than any chunk has */
        {ENTRY, 4, "\377\377\377\377"},
        {SUMS_TABLE_AT_VERSION, 1, "\0"},
        {SUMS_TABLE_AT_ALGORITHM, 1, "\2"},
    };
    test_begin();
    cleanup_sums struct sums sums = {0};
    size_t length;
    cleanup_free uint8_t *table = test_make_table(&sums, &length);
    cleanup_free uint8_t *copy = malloc(length);
    memcpy(copy, table, length);
    test_fix(copy, length);
    CHECK(memcmp(copy, table, length) == 0);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        memcpy(copy, table, length);
        memcpy(copy + lies[i].at, lies[i].bytes, lies[i].length);
        test_fix(copy, length);
        CHECK_EQUAL(-EUCLEAN, test_decode(copy, length));
    }
    /* The root itself. */
    memcpy(copy, table, length);
    copy[SUMS_TABLE_AT_ROOT] ^= 1;
    hash_to_bytes(hash_of(test_store, copy, length - HASH_BYTES), copy + length - HASH_BYTES);
    CHECK_EQUAL(-EUCLEAN, test_decode(copy, length));
    test_end();
}

/* A file of 1 TiB (a hole) that does not say so itself is refused before anything is allocated for it. */
static void test_lies_allocate_nothing(void)
{
    test_begin();
    cleanup_sums struct sums sums = {0}, found = {0};
    size_t length;
    cleanup_free uint8_t *table = test_make_table(&sums, &length);
    CHECK(table != NULL);
    CHECK_EQUAL(0, sums_write(test_store, 1, &sums));
    CHECK(truncate(test_path("0000000000000001.sum"), INT64_C(1) << 40) == 0);
    CHECK_EQUAL(-EUCLEAN, sums_read(test_store, 1, &found));
    test_end();
}

/* -- faults: last, as they stay armed -------------------------------------------------------------------- */

static void test_faults(void)
{
    test_begin();
    CHECK(setenv("CKPTFS_FAULT", "sums-write:ENOSPC:2,sums-read:EIO:2", 1) == 0);
    CHECK_EQUAL(0, fault_configure());
    cleanup_sums struct sums sums = test_make_object("bytes", 5, NULL, 0), found = {0};
    CHECK_EQUAL(0, sums_write(test_store, 1, &sums));
    CHECK_EQUAL(-ENOSPC, sums_write(test_store, 1, &sums));
    CHECK(access(test_path("0000000000000001.sum.new"), F_OK) != 0);
    CHECK_EQUAL(0, sums_read(test_store, 1, &found));
    CHECK(test_equal(&sums, &found));
    CHECK_EQUAL(-EIO, sums_read(test_store, 1, &found));
    test_end();
}

int main(void)
{
    check_run("a table is written, read and removed", test_round_trip);
    check_run("a table goes with its object and is not listed", test_table_goes_with_object);
    check_run("damage of any bit of a table is noticed", test_damage);
    check_run("damage of a table is said in one line", test_damage_is_said);
    check_run("a table that lies with good checksums is refused", test_lies);
    check_run("a table's length is checked before it is allocated", test_lies_allocate_nothing);
    check_run("faults reach the caller, and the old table stays", test_faults);
    return check_done();
}
