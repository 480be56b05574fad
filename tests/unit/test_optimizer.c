/* SPDX-License-Identifier: Apache-2.0 */
/* What of a torch.save file is an optimizer's state alone, and what of a checkpoint's files is. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "ckpt/optimizer_parts.h"
#include "format/torch_optimizer.h"
#include "test_ckpt_folder.h"
#include "test_format_files.h"

enum { PICKLE, FIRST, SECOND, THIRD, ENTRIES };

/* A file of a pickle and the storages "0" to "2". Starts as {0}. */
static struct {
    struct bytes pickle, bytes;
    struct archive_entry entries[ENTRIES];
    struct archive archive;
} saved;

static void begin(void)
{
    bytes_release(&saved.pickle);
    bytes_release(&saved.bytes);
}

#define TENSOR(key)                                                                                          \
    "ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'" key                          \
    "'\nS'cpu'\nI4\ntQI0\n(I4\nt(I1\ntI00\nccollections\nOrderedDict\n)RtR"
#define ENTRY(key, value) "S'" key "'\n" value "s"
#define GROUPS            ENTRY("param_groups", "((d" ENTRY("params", "(l") "l")
/* The state of one parameter. */
#define STATE(values) ENTRY("state", "(dI0\n(d" values "s")

/* The file of a dict with these entries, and of storages of that size. */
static void save(const char *entries, size_t size)
{
    static const char *const names[] = {"a/data.pkl", "a/data/0", "a/data/1", "a/data/2"};
    begin();
    bytes_print(&saved.pickle, "(d");
    bytes_put(&saved.pickle, entries, strlen(entries));
    bytes_print(&saved.pickle, ".");
    for (size_t i = 0; i < ENTRIES; i++)
        saved.entries[i] = (struct archive_entry){.name = names[i], .size = size};
    saved.entries[PICKLE].size = saved.pickle.count;
    saved.entries[PICKLE].content = saved.pickle.at;
    saved.archive = (struct archive){.entries = saved.entries, .count = ENTRIES};
    archive_build(&saved.bytes, &saved.archive);
}

/* The keys of the storages that are an optimizer's alone: "0 2 "; NULL: none can be known. */
static const char *states_of(const char *entries)
{
    static char text[32];
    struct counted_source counted;
    cleanup_torch_file struct torch_file file = {0};
    cleanup_free struct torch_range *ranges = NULL;
    struct format_problem problem = {0};
    size_t count, used = 0;
    save(entries, 16);
    counted_source_open(&counted, &saved.bytes);
    CHECK_EQUAL(0, torch_file_read(&counted.source, 0, counted.source.size, &file, &problem));
    CHECK_TEXT("", problem.text);
    int result = torch_optimizer_find(&file, &ranges, &count);
    CHECK(result == 0 || (result == FORMAT_FOREIGN && count == 0));
    text[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        size_t entry = FIRST;
        while (entry < ENTRIES - 1 && (int64_t)saved.entries[entry].data != ranges[i].offset)
            entry++;
        CHECK(ranges[i].offset == (int64_t)saved.entries[entry].data && ranges[i].length == 16);
        used += (size_t)snprintf(text + used, sizeof text - used, "%zu ", entry - FIRST);
    }
    return result ? NULL : text;
}

static void test_states(void)
{
    /* As ZeRO has it: the weights' copies lie beside the optimizer's own dict. */
    CHECK_TEXT("1 2 ", states_of(ENTRY("optimizer_state_dict",
                                       "(d" ENTRY("base", "(d" STATE(ENTRY("exp_avg", TENSOR("1")) ENTRY(
                                                              "exp_avg_sq", TENSOR("2"))) GROUPS)
                                           ENTRY("single_partition_of_fp32_groups", "(" TENSOR("0") "l"))));
    CHECK_TEXT("0 1 2 ",
               states_of(STATE(ENTRY("a", TENSOR("0")) ENTRY("b", "(" TENSOR("1") TENSOR("2") "t")) GROUPS));
    CHECK_TEXT("", states_of(ENTRY("module", "(d" ENTRY("state", TENSOR("0")))));
}

static void test_states_of_others(void)
{
    /* A storage that anything else has, by a view of its own or as the same tensor. */
    CHECK_TEXT("1 ", states_of(ENTRY("module", TENSOR("0")) ENTRY(
                         "o", "(d" STATE(ENTRY("a", TENSOR("0")) ENTRY("b", TENSOR("1"))) GROUPS)));
    CHECK_TEXT("1 ", states_of(ENTRY("module", TENSOR("0") "p9\n") ENTRY(
                         "o", "(d" STATE(ENTRY("a", "g9\n") ENTRY("b", TENSOR("1"))) GROUPS)));
    CHECK_TEXT("1 ", states_of(ENTRY("o", "(d" STATE(ENTRY("a", TENSOR("0") "p9\n") ENTRY("b", TENSOR("1")))
                                              GROUPS) ENTRY("module", "g9\n")));
    CHECK_TEXT("1 ", states_of(STATE(ENTRY("b", TENSOR("1")))
                                   ENTRY("param_groups", "((d" ENTRY("params", "(" TENSOR("0") "l") "l")));
    /* The same dict under another key. */
    CHECK_TEXT("", states_of(ENTRY("state", "(dI0\n(d" ENTRY("a", TENSOR("0")) "sp8\n")
                                 ENTRY("module", "g8\n") GROUPS));
    /* A storage's key as a number, which torch.load takes, too; and what a list has that is a dict as well.
     */
    CHECK(!states_of(STATE(ENTRY("a", TENSOR("0")))
                         GROUPS ENTRY("module", "(S'storage'\nctorch\nFloatStorage\nI0\nS'cpu'\nI4\ntQ")));
    CHECK_TEXT("", states_of(STATE(ENTRY("a", TENSOR("0")))
                                 GROUPS ENTRY("module", "ccollections\nOrderedDict\n)R(" TENSOR("0") "e")));
    /* Two entries of one key: the last one counts. */
    CHECK_TEXT("1 ", states_of(STATE(ENTRY("a", TENSOR("0"))) STATE(ENTRY("b", TENSOR("1"))) GROUPS));
}

static void test_copies(void)
{
    static const char *const copies[] = {"master_param", "fp32_params", "weight", "ema", "ax", "z"};
    char entries[1024];
    for (size_t i = 0; i < sizeof copies / sizeof *copies; i++) {
        snprintf(entries, sizeof entries,
                 STATE(ENTRY("%s", TENSOR("0")) ENTRY("exp_avg", TENSOR("1"))) GROUPS, copies[i]);
        CHECK_TEXT("1 ", states_of(entries));
    }
    /* The keys of the parameters say nothing. */
    CHECK_TEXT("0 ",
               states_of(ENTRY("state", "(d" ENTRY("a.weight", "(d" ENTRY("exp_avg", TENSOR("0")))) GROUPS));
}

static void test_no_states(void)
{
    static const char *const none[] = {
        STATE(ENTRY("a", TENSOR("0"))),
        STATE(ENTRY("a", TENSOR("0"))) ENTRY("param_groups", "(l"),
        STATE(ENTRY("a", TENSOR("0"))) ENTRY("param_groups", "((dl"),
        STATE(ENTRY("a", TENSOR("0"))) ENTRY("param_groups", "(d" ENTRY("params", "(l")),
        ENTRY("state", "(dI0\n" TENSOR("0") "s") GROUPS,
        ENTRY("state", "(" TENSOR("0") "l") GROUPS,
    };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        CHECK_TEXT("", states_of(none[i]));
    /* A list that holds itself. */
    CHECK(!states_of(STATE(ENTRY("a", TENSOR("0"))) GROUPS ENTRY("loop", "(lp9\ng9\na")));
}

/* -- checkpoints ------------------------------------------------------------------------------------------
 */

static bool is_shed(void *context, const char *path)
{
    (void)context;
    return strcmp(path, "optimizer_1.bin") == 0;
}

static void test_parts(void)
{
    enum { SIZE = 1 << 20 };
    static const char name[] = "zero_pp_rank_0_mp_rank_00_optim_states.pt";
    struct memory_folder memory = {0};
    cleanup_optimizer_parts struct optimizer_parts parts = {0};
    save(STATE(ENTRY("a", TENSOR("1"))) GROUPS ENTRY("fp32_flat_groups", "(" TENSOR("0") "l"), SIZE);
    memory_folder_add(&memory, name, saved.bytes.at, (int64_t)saved.bytes.count);
    memory_folder_add(&memory, "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt", "no zip", 6);
    memory_folder_add(&memory, "model_states.pt", saved.bytes.at, (int64_t)saved.bytes.count);
    memory_folder_add(&memory, "optimizer.pt", NULL, 100);
    memory_folder_add(&memory, "optimizer_1.bin", NULL, 100);
    memory_folder_add(&memory, ".metadata", "no pickle", 9);
    struct folder folder = memory_folder_open(&memory);
    folder.is_shed = is_shed;
    CHECK_EQUAL(0, optimizer_parts_find(&folder, &parts));
    CHECK_EQUAL(2, parts.count);
    CHECK(parts.at[0].whole && parts.at[0].length == 100);
    CHECK_TEXT("optimizer.pt", parts.at[0].path);
    CHECK_TEXT(name, parts.at[1].path);
    /* Whole pages of the one storage, and all but its ends. */
    const struct optimizer_part *part = &parts.at[1];
    int64_t begin = (int64_t)saved.entries[SECOND].data, end = begin + SIZE;
    CHECK(!part->whole && part->offset >= begin && part->offset < begin + OPTIMIZER_PART_ALIGNMENT);
    CHECK(part->offset + part->length <= end && part->offset + part->length > end - OPTIMIZER_PART_ALIGNMENT);
    CHECK_EQUAL(0, part->offset % OPTIMIZER_PART_ALIGNMENT);
    CHECK_EQUAL(0, part->length % OPTIMIZER_PART_ALIGNMENT);
}

static void test_small_parts(void)
{
    struct memory_folder memory = {0};
    cleanup_optimizer_parts struct optimizer_parts parts = {0};
    save(STATE(ENTRY("a", TENSOR("1"))) GROUPS, OPTIMIZER_PART_LEAST);
    memory_folder_add(&memory, "mp_rank_00_model_states.pt", saved.bytes.at, (int64_t)saved.bytes.count);
    const struct folder folder = memory_folder_open(&memory);
    CHECK_EQUAL(0, optimizer_parts_find(&folder, &parts));
    CHECK_EQUAL(0, parts.count);
}

/* -- torch.distributed.checkpoint -------------------------------------------------------------------------
 */

enum { ITEMS = 8, ITEM_SIZE = 1 << 20 };

/* What a .metadata names; each of 1 MiB. */
struct item {
    const char *name;
    bool object; /* no tensor, and in no file */
    bool again;  /* said to lie where the one before it does */
};

/* A checkpoint of one shard, with what was found in it. */
static struct {
    struct bytes metadata, shard;
    struct archive archives[ITEMS];
    struct memory_folder memory;
    struct optimizer_parts parts;
    char text[256];
} dcp;

static void dcp_print_sizes(const char *attribute, int size)
{
    bytes_print(&dcp.metadata, "S'%s'\nctorch\nSize\n((I%d\nttRs", attribute, size);
}

static void dcp_print_item(const struct item *item)
{
#define METADATA(class) "ctorch.distributed.checkpoint.metadata\n" class "\n)R(d"
    bytes_print(&dcp.metadata, "S'%s'\n", item->name);
    if (item->object) {
        bytes_print(&dcp.metadata, METADATA("BytesStorageMetadata") "bs");
        return;
    }
    bytes_print(&dcp.metadata, METADATA("TensorStorageMetadata") "S'properties'\n" METADATA(
                                   "TensorProperties") "S'dtype'\nctorch\nuint8\nsbs");
    dcp_print_sizes("size", ITEM_SIZE);
    bytes_print(&dcp.metadata, "S'chunks'\n(" METADATA("ChunkStorageMetadata"));
    dcp_print_sizes("offsets", 0);
    dcp_print_sizes("sizes", ITEM_SIZE);
    bytes_print(&dcp.metadata, "blsbs");
}

static void dcp_print_place(const struct item *item, const struct archive *archive, const char *file,
                            size_t before)
{
    bytes_print(&dcp.metadata, METADATA("MetadataIndex") "S'fqn'\nS'%s'\ns", item->name);
    dcp_print_sizes("offset", 0);
    bytes_print(&dcp.metadata, "b" METADATA("_StorageInfo") "S'relative_path'\nS'%s'\ns", file);
    bytes_print(&dcp.metadata, "S'offset'\nI%zu\nsS'length'\nI%zu\nsbs", archive->start - before,
                archive->end - archive->start);
}

/* The keys that lead to it: ("model", "a", "weight"). */
static void dcp_print_path(const struct item *item)
{
    char name[64];
    snprintf(name, sizeof name, "%s", item->name);
    bytes_print(&dcp.metadata, "S'%s'\n(", item->name);
    for (char *rest = NULL, *key = strtok_r(name, ".", &rest); key; key = strtok_r(NULL, ".", &rest))
        bytes_print(&dcp.metadata, "S'%s'\n", key);
    bytes_print(&dcp.metadata, "ts");
}

/* In the file are so many bytes more than .metadata knows of. */
static void dcp_save(const struct item *items, size_t count, const char *file, size_t before)
{
    bytes_fill(&dcp.shard, 0, before);
    bytes_print(&dcp.metadata, METADATA("Metadata") "S'state_dict_metadata'\n(d");
    for (size_t i = 0; i < count; i++)
        dcp_print_item(&items[i]);
    bytes_print(&dcp.metadata, "sS'storage_data'\n(d");
    for (size_t i = 0; i < count; i++) {
        if (items[i].object)
            continue;
        if (items[i].again)
            dcp.archives[i] = dcp.archives[i - 1];
        else
            archive_build_tensor(&dcp.shard, &dcp.archives[i], ITEM_SIZE);
        dcp.archives[i].end = dcp.shard.count;
        dcp_print_place(&items[i], &dcp.archives[i], file, before);
    }
    bytes_print(&dcp.metadata, "sS'planner_data'\n(d");
    for (size_t i = 0; i < count; i++)
        dcp_print_path(&items[i]);
    bytes_print(&dcp.metadata, "sb.");
}

static void dcp_release(void)
{
    optimizer_parts_release(&dcp.parts);
    bytes_release(&dcp.metadata);
    bytes_release(&dcp.shard);
    dcp.memory = (struct memory_folder){0};
}

/* The items, by their numbers, that each range that was found reaches into: "1-2 4-4 ". */
static const char *dcp_parts_in(const struct item *items, size_t count, const char *file, size_t before)
{
    size_t used = 0;
    dcp_release();
    dcp_save(items, count, file, before);
    memory_folder_add(&dcp.memory, ".metadata", dcp.metadata.at, (int64_t)dcp.metadata.count);
    memory_folder_add(&dcp.memory, file, dcp.shard.at, (int64_t)dcp.shard.count);
    const struct folder folder = memory_folder_open(&dcp.memory);
    CHECK_EQUAL(0, optimizer_parts_find(&folder, &dcp.parts));
    dcp.text[0] = '\0';
    for (size_t i = 0; i < dcp.parts.count; i++) {
        const struct optimizer_part *part = &dcp.parts.at[i];
        size_t first = 0, last = count - 1;
        while (first < last && (int64_t)dcp.archives[first].end <= part->offset)
            first++;
        while (last > first &&
               (items[last].object || (int64_t)dcp.archives[last].start >= part->offset + part->length))
            last--;
        CHECK(!part->whole && strcmp(part->path, file) == 0);
        used += (size_t)snprintf(dcp.text + used, sizeof dcp.text - used, "%zu-%zu ", first, last);
    }
    return dcp.text;
}

#define PARTS_OF(...)                                                                                        \
    dcp_parts_in((const struct item[]){__VA_ARGS__},                                                         \
                 sizeof((const struct item[]){__VA_ARGS__}) / sizeof(struct item), "__0_0.distcp", 0)
#define MODEL                                                                                                \
    {                                                                                                        \
        .name = "model.weight"                                                                               \
    }
#define AVERAGE                                                                                              \
    {                                                                                                        \
        .name = "optimizer.state.0.exp_avg"                                                                  \
    }
#define SQUARE                                                                                               \
    {                                                                                                        \
        .name = "optimizer.state.0.exp_avg_sq"                                                               \
    }
#define RATE                                                                                                 \
    {                                                                                                        \
        .name = "optimizer.param_groups.0.lr", .object = true                                                \
    }

static void test_dcp(void)
{
    CHECK_TEXT("1-2 ", PARTS_OF(MODEL, AVERAGE, SQUARE, RATE));
    CHECK_TEXT("0-0 2-2 ", PARTS_OF(AVERAGE, MODEL, SQUARE, RATE));
    CHECK_TEXT("1-1 ", PARTS_OF(MODEL, {.name = "app.optim.state.weight.exp_avg"},
                                {.name = "app.optim.param_groups.weight.lr", .object = true}));
    CHECK_TEXT("", PARTS_OF(MODEL, AVERAGE, SQUARE));
    CHECK_TEXT("", PARTS_OF(MODEL, {.name = "optimizer.state.0.exp_avg", .again = true}, SQUARE, RATE));
}

static void test_dcp_weights(void)
{
    /* Modules whose names are like an optimizer's keys, beside the model. */
    CHECK_TEXT("",
               PARTS_OF(MODEL, {.name = "teacher.param_groups_in.weight"}, {.name = "teacher.state.weight"}));
    CHECK_TEXT("",
               PARTS_OF(MODEL, {.name = "teacher.param_groups.weight"}, {.name = "teacher.state.weight"}));
    CHECK_TEXT("",
               PARTS_OF({.name = "model.param_groups.x", .object = true}, {.name = "model.state.weight"}));
    /* Copies of the weights that an optimizer keeps. */
    CHECK_TEXT("0-0 2-2 ", PARTS_OF(AVERAGE, {.name = "optimizer.state.0.master_param"}, SQUARE, RATE));
    CHECK_TEXT("0-0 ", PARTS_OF(AVERAGE, {.name = "optimizer.state.fp32_param.a.bias"}, RATE));
}

/* A .metadata of other files than the one that it names. */
static void test_dcp_others(void)
{
    const struct item items[] = {MODEL, AVERAGE, SQUARE, RATE};
    static const char *const files[] = {"model.safetensors", "mp_rank_00_model_states.pt", "config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        CHECK_TEXT("", dcp_parts_in(items, 4, files[i], 0));
    CHECK_TEXT("", dcp_parts_in(items, 4, "__0_0.distcp", 4096));
    CHECK_TEXT("1-2 ", dcp_parts_in(items, 4, "__0_0.distcp", 0));
}

int main(void)
{
    check_run("what an optimizer's dict alone refers to is its state", test_states);
    check_run("what others refer to, too, is not", test_states_of_others);
    check_run("copies of the weights that an optimizer keeps are none of its state", test_copies);
    check_run("what does not look like an optimizer's dict is none", test_no_states);
    check_run("of a checkpoint: whole files, and pages of others", test_parts);
    check_run("ranges that would give nothing back are left out", test_small_parts);
    check_run("of a .distcp file: what .metadata says is an optimizer's", test_dcp);
    check_run("of a .distcp file: never weights, whatever they are called", test_dcp_weights);
    check_run("of other files than shards, and of others than .metadata was written with: nothing",
              test_dcp_others);
    begin();
    dcp_release();
    return check_done();
}
