/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of files that are kept, and what they stand on. */
#include <errno.h>
#include <string.h>

#include "meta/checksum.h"
#include "meta/damage.h"
#include "test_meta_frame.h"

enum { UID = 0, SIZE = 20000 };

static const uint8_t root_a[META_ROOT_BYTES] = "root of A ......",
                     root_b[META_ROOT_BYTES] = "root of B ......";
static const uint8_t a_sum[META_SUM_BYTES] = "a sum of thirty-two bytes ......";

/* What goes into a basis, cut off after what these tests need. */
struct basis {
    uint8_t bytes[META_SUM_BYTES * 16];
    size_t length;
};

static void see(void *context, const void *bytes, size_t length)
{
    struct basis *basis = context;
    CHECK(basis->length + length <= sizeof basis->bytes);
    memcpy(basis->bytes + basis->length, bytes, length);
    basis->length += length;
}

static errint basis_of(uint64_t ino, struct basis *out)
{
    *out = (struct basis){.length = 0};
    return meta_checksum_basis(meta, ino, see, out);
}

static bool is_same(const struct basis *a, const struct basis *b)
{
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

static uint64_t make_summed(const char *name, const uint8_t *root)
{
    uint64_t ino = frame_make_sealed(1, name, SIZE);
    CHECK_EQUAL(0, meta_object_summed(meta, frame_object_of(ino), root, UID, NULL, 0));
    return ino;
}

static void test_keeping(void)
{
    uint64_t a = make_summed("a", root_a), b = make_summed("b", root_a);
    uint8_t basis[META_SUM_BYTES] = "basis", other[META_SUM_BYTES] = "other", found[META_SUM_BYTES];
    CHECK_EQUAL(-ENODATA, meta_checksum_get(meta, a, basis, found));
    CHECK_EQUAL(0, meta_checksum_put(meta, a, basis, a_sum));
    CHECK_EQUAL(0, meta_checksum_get(meta, a, basis, found));
    CHECK(memcmp(found, a_sum, sizeof found) == 0);
    CHECK_EQUAL(-ENODATA, meta_checksum_get(meta, a, other, found));
    CHECK_EQUAL(-ENODATA, meta_checksum_get(meta, b, basis, found));
    /* The newest one counts. */
    CHECK_EQUAL(0, meta_checksum_put(meta, a, other, a_sum));
    CHECK_EQUAL(-ENODATA, meta_checksum_get(meta, a, basis, found));
    frame_reopen();
    CHECK_EQUAL(0, meta_checksum_get(meta, a, other, found));
    /* It goes with its file, and none is made without one. */
    CHECK_EQUAL(0, meta_unlink(meta, 1, "a", 1, a, true, FRAME_NOW, 0, NULL));
    CHECK_EQUAL(-ENODATA, meta_checksum_get(meta, a, other, found));
    CHECK_EQUAL(0, meta_checksum_put(meta, a, basis, a_sum));
    CHECK_EQUAL(-ENODATA, meta_checksum_get(meta, a, basis, found));
}

static void test_basis_follows_the_bytes(void)
{
    struct basis first, now;
    uint64_t small = frame_make(1, "small", S_IFREG), a = frame_make_sealed(1, "a", SIZE);
    uint64_t object = frame_object_of(a);
    CHECK_EQUAL(-ENODATA, basis_of(small, &now));
    CHECK_EQUAL(-EISDIR, basis_of(1, &now));
    CHECK_EQUAL(-ENODATA, basis_of(a, &now)); /* not hashed yet */
    CHECK_EQUAL(0, meta_object_summed(meta, object, root_a, UID, NULL, 0));
    CHECK_EQUAL(0, basis_of(a, &first));
    /* Opened for writing, and closed: the hash tells whether it was written. */
    CHECK_EQUAL(0, meta_unseal(meta, a));
    CHECK_EQUAL(-ENODATA, basis_of(a, &now));
    CHECK_EQUAL(0, meta_seal(meta, a, SIZE, FRAME_NOW, FRAME_NOW, NULL));
    CHECK_EQUAL(-ENODATA, basis_of(a, &now));
    CHECK_EQUAL(0, meta_object_summed(meta, object, root_b, UID, NULL, 0));
    CHECK_EQUAL(0, basis_of(a, &now));
    CHECK(!is_same(&first, &now));
    CHECK_EQUAL(0, meta_object_summed(meta, object, root_a, UID, NULL, 0));
    CHECK_EQUAL(0, basis_of(a, &now));
    CHECK(is_same(&first, &now));
    /* A hole at the end is no extent. */
    CHECK_EQUAL(0, meta_truncate(meta, a, SIZE + 1, FRAME_NOW, 0, NULL));
    CHECK_EQUAL(0, basis_of(a, &now));
    CHECK(!is_same(&first, &now));
    CHECK_EQUAL(0, meta_truncate(meta, a, SIZE - 1, FRAME_NOW, 0, NULL));
    CHECK_EQUAL(0, basis_of(a, &now));
    CHECK(!is_same(&first, &now));
}

static void test_basis_follows_the_extents(void)
{
    struct basis first, now;
    uint64_t a = make_summed("a", root_a), b = make_summed("b", root_b);
    const struct meta_move move = {frame_object_of(a), 0, SIZE, 0, root_a};
    uint64_t to = frame_object_of(b);
    int64_t moved;
    CHECK_EQUAL(0, basis_of(a, &first));
    CHECK_EQUAL(0, meta_repoint(meta, a, to, root_b, &move, 1, &moved, NULL));
    CHECK_EQUAL(0, basis_of(a, &now));
    CHECK(!is_same(&first, &now));
    /* Other bytes of the same object. */
    CHECK_EQUAL(0, basis_of(a, &first));
    CHECK_EQUAL(0, meta_clone(meta, b, 0, a, 5000, 5000, FRAME_NOW, NULL));
    CHECK_EQUAL(0, basis_of(a, &now));
    CHECK(!is_same(&first, &now));
}

static void test_damage_removes(void)
{
    struct basis now;
    uint64_t a = make_summed("a", root_a);
    uint8_t basis[META_SUM_BYTES] = "basis", found[META_SUM_BYTES];
    const struct meta_range within = {frame_object_of(a), 0, SIZE};
    bool changed;
    CHECK_EQUAL(0, meta_checksum_put(meta, a, basis, a_sum));
    CHECK_EQUAL(0, meta_damage_replace(meta, &within, root_a, &within, 1, &changed));
    CHECK_EQUAL(-ENODATA, meta_checksum_get(meta, a, basis, found));
    CHECK_EQUAL(-ENODATA, basis_of(a, &now));
    CHECK_EQUAL(0, meta_checksum_put(meta, a, basis, a_sum));
    CHECK_EQUAL(0, meta_damage_replace(meta, &within, root_a, NULL, 0, &changed));
    CHECK_EQUAL(-ENODATA, meta_checksum_get(meta, a, basis, found));
    CHECK_EQUAL(0, basis_of(a, &now));
}

int main(void)
{
    frame_run("a sum is kept for one file and one basis", test_keeping);
    frame_run("a basis stands for the bytes of its objects", test_basis_follows_the_bytes);
    frame_run("a basis stands for the extents", test_basis_follows_the_extents);
    frame_run("found or repaired damage removes sums", test_damage_removes);
    return check_done();
}
