/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations on the namespace and on a model in memory: the same results, the same objects become
 * free, and now and then everything is compared, also after closing and opening again.
 *
 *     test_meta_random [SEED [OPERATIONS]]
 */
#include "test_meta_random.h"
#include "base/clock.h"

struct model model;
static uint64_t seed = 1;
static unsigned long operations = 20000;
struct ids freed;

unsigned below(unsigned limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 11) % limit);
}

/* -- choosing ---------------------------------------------------------------------------------------------
 */

struct model_inode *pick(bool (*fits)(const struct model_inode *inode))
{
    struct model_inode *any = NULL;
    unsigned start = below(MODEL_INODES);
    bool strict = below(20) != 0;
    for (unsigned i = 0; i < MODEL_INODES; i++) {
        struct model_inode *inode = &model.inodes[(start + i) % MODEL_INODES];
        if (!inode->used || model_is_stand_in(&model, inode->row.ino)) /* nobody can have it open */
            continue;
        if (fits(inode) || !strict)
            return inode;
        any = inode;
    }
    return any;
}

bool is_directory(const struct model_inode *inode)
{
    return S_ISDIR(inode->row.mode);
}

bool is_file(const struct model_inode *inode)
{
    return S_ISREG(inode->row.mode);
}

bool is_written(const struct model_inode *inode)
{
    return inode->row.kind == META_OBJECT;
}

bool is_extents(const struct model_inode *inode)
{
    return inode->row.kind == META_EXTENTS;
}

bool is_nameless(const struct model_inode *inode)
{
    return inode->row.nlink == 0;
}

bool has_stand_in(const struct model_inode *inode)
{
    return inode->stand_in != 0;
}

bool is_successor(const struct model_inode *inode)
{
    for (size_t i = 0; i < MODEL_NAMES; i++) {
        if (model.names[i].used && model.names[i].shadowed && model.names[i].ino == inode->row.ino)
            return true;
    }
    return false;
}

const char *pick_name(void)
{
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    return names[below(5)];
}

errint file_error(const struct model_inode *inode)
{
    return is_file(inode) ? 0 : is_directory(inode) ? -EISDIR : -EINVAL;
}

bool same_ids(struct ids *expected, struct ids *found)
{
    bool same = expected->count == found->count;
    for (size_t i = 0; same && i < expected->count; i++)
        same = frame_has(found, expected->at[i]) && frame_has(expected, found->at[i]);
    return same;
}

void release_shadows(uint64_t ino, struct ids *list)
{
    for (size_t i = 0; i < MODEL_NAMES; i++) {
        if (model.names[i].used && model.names[i].ino == ino)
            model_release(&model, &model.names[i], list);
    }
}

/* -- comparing --------------------------------------------------------------------------------------------
 */

static void compare_bytes(const struct model_inode *inode)
{
    char bytes[MODEL_SIZE];
    struct model_cell cells[MODEL_SIZE] = {0};
    struct meta_extent *extents = NULL;
    size_t count = 0;
    if (inode->row.kind == META_INLINE) {
        CHECK_EQUAL(inode->row.size, meta_content_read(meta, inode->row.ino, bytes, sizeof bytes));
        CHECK(memcmp(bytes, inode->bytes, (size_t)inode->row.size) == 0);
    } else if (is_extents(inode)) {
        CHECK_EQUAL(0, meta_extents(meta, inode->row.ino, &extents, &count));
        for (size_t i = 0; i < count; i++) {
            for (int64_t j = 0; j < extents[i].length && extents[i].offset + j < MODEL_SIZE; j++)
                cells[extents[i].offset + j] =
                    (struct model_cell){extents[i].object, extents[i].object_offset + j};
        }
        CHECK(memcmp(cells, inode->cells, sizeof cells) == 0);
        free(extents);
    }
}

static void compare_inode(const struct model_inode *inode)
{
    struct meta_inode row = frame_get(inode->row.ino);
    const struct meta_inode *expected = &inode->row;
    CHECK_EQUAL(expected->mode, row.mode);
    CHECK_EQUAL(expected->nlink, row.nlink);
    CHECK_EQUAL(expected->size, row.size);
    CHECK_EQUAL(expected->kind, row.kind);
    CHECK_EQUAL(expected->state, row.state);
    CHECK_EQUAL(expected->object, row.object);
    CHECK_EQUAL(expected->synced_size, row.synced_size);
    compare_bytes(inode);
}

static bool compare_entry(void *context, const char *name, size_t length, uint64_t cookie,
                          const struct meta_inode *inode)
{
    (void)length, (void)cookie;
    uint64_t *directory = context;
    char text[2] = {name[0], '\0'};
    struct model_name *expected = model_find(&model, directory[0], text);
    CHECK(expected && expected->ino == inode->ino);
    directory[1]++;
    return true;
}

static void compare_all(void)
{
    uint64_t inodes = 0, names = 0, entries = 0;
    cleanup_ids struct ids released = {0};
    for (size_t i = 0; i < MODEL_INODES; i++) {
        if (!model.inodes[i].used)
            continue;
        inodes++;
        compare_inode(&model.inodes[i]);
        uint64_t directory[2] = {model.inodes[i].row.ino, 0};
        if (is_directory(&model.inodes[i]))
            CHECK_EQUAL(0, meta_list(meta, directory[0], 0, compare_entry, directory));
        entries += directory[1];
    }
    for (size_t i = 0; i < MODEL_NAMES; i++)
        names += model.names[i].used;
    CHECK_EQUAL(names, entries);
    struct meta_totals totals;
    CHECK_EQUAL(0, meta_count(meta, &totals));
    CHECK_EQUAL(inodes, totals.inodes);
    CHECK_EQUAL(0, meta_shadows_released(meta, &released));
    CHECK(same_ids(&model.released, &released));
    model.released.count = 0;
    CHECK(frame_is_consistent(meta));
}

/* What became free is what something referred to before, and nothing does now. */
static void compare_freed(const struct ids *before)
{
    cleanup_ids struct ids after = {0};
    model_objects(&model, &after);
    for (size_t i = 0; i < before->count; i++)
        CHECK_EQUAL(!frame_has(&after, before->at[i]), frame_has(&freed, before->at[i]));
    for (size_t i = 0; i < freed.count; i++)
        CHECK(frame_has(before, freed.at[i]));
}

/* -- running ----------------------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    void (*run)(void);
    unsigned weight;
} kinds[] = {
    {"create", run_create, 12},
    {"link", run_link, 4},
    {"remove", run_remove, 8},
    {"rename", run_rename, 14},
    {"map", run_map, 12},
    {"truncate", run_truncate, 6},
    {"clone", run_clone, 8},
    {"to_object", run_to_object, 5},
    {"to_inline", run_to_inline, 3},
    {"seal", run_seal, 6},
    {"unseal", run_unseal, 5},
    {"tear", run_tear, 1},
    {"synced", run_synced, 5},
    {"reap", run_reap, 5},
    {"restore", run_restore, 2},
    {"forget", run_forget, 1},
    {"fork", run_fork, 2},
    {"stand_in", run_stand_in, 6},
    {"cut", run_cut, 2},
};

static void run_one(unsigned long number)
{
    cleanup_ids struct ids before = {0};
    unsigned choice = below(107);
    size_t kind = 0;
    for (; kind + 1 < sizeof kinds / sizeof *kinds && choice >= kinds[kind].weight; kind++)
        choice -= kinds[kind].weight;
    freed.count = 0;
    model_objects(&model, &before);
    kinds[kind].run();
    compare_freed(&before);
    if (number % 64 == 0)
        compare_all();
    if (number % 512 == 0) {
        frame_reopen();
        compare_all();
    }
    if (check_failures)
        printf("# operation %lu, %s\n", number, kinds[kind].name);
}

static void test_random(void)
{
    struct model_inode *root = model_new(&model);
    root->row = frame_get(META_ROOT_INO);
    for (unsigned long number = 1; number <= operations && !check_failures; number++)
        run_one(number);
    compare_all();
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)clock_read_ns(CLOCK_REALTIME);
    if (argc > 2)
        operations = strtoul(argv[2], NULL, 10);
    printf("# seed %llu, %lu operations\n", (unsigned long long)seed, operations);
    if (seed == 0)
        seed = 1;
    frame_run("the namespace and the model agree", test_random);
    ids_release(&freed);
    ids_release(&model.released);
    return check_done();
}
