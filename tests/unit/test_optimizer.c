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
    /* Two entries of one key: the last one counts. */
    CHECK_TEXT("1 ", states_of(STATE(ENTRY("a", TENSOR("0"))) STATE(ENTRY("b", TENSOR("1"))) GROUPS));
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

int main(void)
{
    check_run("what an optimizer's dict alone refers to is its state", test_states);
    check_run("what others refer to, too, is not", test_states_of_others);
    check_run("what does not look like an optimizer's dict is none", test_no_states);
    check_run("of a checkpoint: whole files, and pages of others", test_parts);
    check_run("ranges that would give nothing back are left out", test_small_parts);
    begin();
    return check_done();
}
