/* SPDX-License-Identifier: Apache-2.0 */
/* Which files of two saves in one directory make a mixture. */
#include "ckpt/rewritten.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { FILES_MAX = 8 };

static int compare(const void *one, const void *other)
{
    return strcmp(((const struct tree_entry *)one)->path, ((const struct tree_entry *)other)->path);
}

/* Paths with spaces between; one that begins with '+' is of the second save, with '=' it has another size. */
static size_t parse(char *text, struct tree_entry *entries)
{
    size_t count = 0;
    for (char *path = strtok(text, " "); path && count < FILES_MAX; path = strtok(NULL, " ")) {
        bool other = *path == '+', longer = *path == '=';
        path += other || longer;
        const char *slash = strrchr(path, '/');
        entries[count++] = (struct tree_entry){.path = path,
                                               .name = slash ? slash + 1 : path,
                                               .directory = strchr(path, '.') == NULL,
                                               .size = longer ? 20 : 10,
                                               .time = other ? 2 : 1};
    }
    qsort(entries, count, sizeof *entries, compare);
    return count;
}

static bool compare_saves(const char *before, const char *now,
                          bool (*is)(const struct tree *before, const struct tree *now))
{
    struct tree_entry one[FILES_MAX], other[FILES_MAX];
    char first[256], second[256];
    snprintf(first, sizeof first, "%s", before);
    snprintf(second, sizeof second, "%s", now);
    struct tree was = {.at = one, .count = parse(first, one)},
                found = {.at = other, .count = parse(second, other)};
    return is(&was, &found);
}

static bool is_mixed(const char *before, const char *now)
{
    return compare_saves(before, now, rewritten_is_mixed);
}

static bool is_edit(const char *before, const char *now)
{
    return compare_saves(before, now, rewritten_is_edit);
}

static bool is_added_to(const char *before, const char *now)
{
    return compare_saves(before, now, rewritten_is_added_to);
}

static void test_additions(void)
{
    const char *all = "config.json model.safetensors more/a.txt";
    CHECK(is_added_to(all, all));
    CHECK(is_added_to(all, "config.json model.safetensors more/a.txt rng_state_1.pth README.md"));
    CHECK(!is_added_to(all, "+config.json model.safetensors more/a.txt"));
    CHECK(!is_added_to(all, "config.json =model.safetensors more/a.txt"));
    CHECK(!is_added_to(all, "config.json model.safetensors"));
    CHECK(is_added_to("README.md model.safetensors", "+README.md model.safetensors"));
    CHECK(is_added_to("README.md model.safetensors", "model.safetensors"));
    CHECK(rewritten_is_needed("config.json") && rewritten_is_needed("merges.txt"));
    CHECK(!rewritten_is_needed("README.md") && !rewritten_is_needed(".gitattributes"));
}

static void test_parts(void)
{
    const char *both = "model.safetensors optimizer.pt";
    CHECK(!is_mixed(both, both));
    CHECK(!is_mixed(both, "+model.safetensors +optimizer.pt"));
    CHECK(is_mixed(both, "+model.safetensors optimizer.pt"));
    CHECK(is_mixed(both, "model.safetensors =optimizer.pt"));
    /* One that is gone is not that of before. */
    CHECK(is_mixed(both, "optimizer.pt"));
    CHECK(is_mixed(both, "optimizer.pt pytorch_model.bin"));
    CHECK(!is_mixed(both, "pytorch_model.bin"));
    CHECK(!is_mixed(both, ""));
    CHECK(!is_mixed("", both));
}

static void test_what_describes(void)
{
    CHECK(!is_mixed("config.json model.safetensors", "+config.json model.safetensors"));
    CHECK(!is_mixed("config.json model.safetensors", "config.json +model.safetensors"));
    CHECK(!is_mixed("tokenizer.model optimizer.pt", "tokenizer.model +optimizer.pt"));
    CHECK(!is_mixed("model.safetensors", "model.safetensors +README.md +more.pt"));
}

static void test_below(void)
{
    CHECK(is_mixed("step step/mp_rank_00.pt step/mp_rank_01.pt",
                   "step +step/mp_rank_00.pt step/mp_rank_01.pt"));
    CHECK(!is_mixed("step step/mp_rank_00.pt step/mp_rank_01.pt",
                    "step +step/mp_rank_00.pt +step/mp_rank_01.pt"));
}

static void test_ends(void)
{
    const char *trainer = "model.safetensors rng_state_1.pth trainer_state.json";
    CHECK(is_mixed(trainer, "+model.safetensors +rng_state_1.pth trainer_state.json"));
    /* A rank that there is no more. */
    CHECK(!is_mixed(trainer, "+model.safetensors rng_state_1.pth +trainer_state.json"));
    CHECK(!is_mixed("a/.metadata a/__1_0.distcp a/__0_0.distcp",
                    "+a/.metadata a/__1_0.distcp +a/__0_0.distcp"));
    CHECK(is_mixed("a/.metadata a/__0_0.distcp b/.metadata b/__0_0.distcp",
                   "+a/.metadata +a/__0_0.distcp b/.metadata b/__0_0.distcp"));
}

static void test_edits(void)
{
    const char *before = "config.json model.safetensors trainer_state.json";
    CHECK(is_edit(before, before));
    CHECK(is_edit(before, "=config.json model.safetensors trainer_state.json +unknown"));
    CHECK(is_edit(before, "model.safetensors trainer_state.json"));
    CHECK(!is_edit(before, "config.json +model.safetensors trainer_state.json"));
    CHECK(!is_edit(before, "config.json model.safetensors +optimizer.pt trainer_state.json"));
    CHECK(!is_edit(before, "config.json model.safetensors"));
    CHECK(!is_edit(before, "config.json model.safetensors +trainer_state.json"));
}

int main(void)
{
    check_run("what is added, or for people, changes nothing that was there", test_additions);
    check_run("what touches no file that a save writes is an edit", test_edits);
    check_run("files with tensors are of one save or of two", test_parts);
    check_run("files that describe a model tell nothing", test_what_describes);
    check_run("files of subdirectories count as well", test_below);
    check_run("what is written last tells that the rest is done", test_ends);
    return check_done();
}
