/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a model would load: comparing it, asking for it, reading an answer, finding base models. */
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "ckpt/adapter_config.h"
#include "ckpt/architecture.h"
#include "ckpt/base_model.h"
#include "test_ckpt_folder.h"

#define SIZES(...)                                                                                           \
    (const int64_t[])                                                                                        \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }

static struct model model, other;
static struct loadable verdict;

static void begin(void)
{
    model_begin(&model);
    model_begin(&other);
    loadable_begin(&verdict);
}

static void end(void)
{
    model_release(&model);
    model_release(&other);
    loadable_release(&verdict);
}

static struct model_tensor *add_as(struct model *to, const char *name, enum tensor_type type, uint32_t rank,
                                   const int64_t *sizes)
{
    struct model_tensor *tensor;
    const struct tensor_shape shape = {.rank = rank, .sizes = sizes};
    CHECK_EQUAL(0, model_add_tensor(to, name, type, &shape, &tensor));
    return tensor;
}

static struct model_tensor *add(struct model *to, const char *name, int64_t rows, int64_t columns)
{
    return add_as(to, name, TENSOR_F32, 2, SIZES(rows, columns));
}

/* What is said of the verdict. */
static void expect_line(const char *line)
{
    cleanup_text struct text text = {0};
    loadable_print(&verdict, &text);
    text_append_byte(&text, '\0');
    CHECK_TEXT(line, text.at);
}

/* -- compared with another model --------------------------------------------------------------------------
 */

static void expect_compared(const char *line)
{
    CHECK_EQUAL(0, loadable_say_against(&verdict, "it"));
    CHECK_EQUAL(0, loadable_compare(&model, &other, &verdict));
    expect_line(line);
    end();
}

static void test_equal(void)
{
    begin();
    add(&model, "model.a", 2, 3);
    add(&other, "model.a", 2, 3);
    expect_compared("yes, checked against it");

    begin();
    add_as(&model, "model.a", TENSOR_BF16, 2, SIZES(2, 3));
    add(&other, "model.a", 2, 3);
    expect_compared("yes, checked against it");
}

static void test_different(void)
{
    begin();
    add(&model, "m.a", 2, 3);
    add(&model, "m.extra", 2, 3);
    add_as(&model, "m.packed", TENSOR_U8, 2, SIZES(2, 3));
    add(&other, "m.a", 3, 2);
    add(&other, "m.b", 3, 2);
    add(&other, "m.packed", 2, 3);
    expect_compared("no, checked against it: m.b is missing; m.a is [2, 3], expected [3, 2], m.packed is U8, "
                    "expected F32; unknown, and left out by loaders: m.extra");
}

static void test_many_are_counted(void)
{
    begin();
    add(&model, "m.a", 2, 3);
    for (unsigned i = 0; i < 9; i++) {
        char name[16];
        snprintf(name, sizeof name, "m.b%u", i);
        add(&other, name, 1, 1);
    }
    add(&other, "m.a", 2, 3);
    CHECK_EQUAL(0, loadable_compare(&model, &other, &verdict));
    CHECK_EQUAL(LOADABLE_NO, verdict.state);
    CHECK_EQUAL(9, verdict.missing.count);
    CHECK_EQUAL(LOADABLE_LISTED, verdict.missing.listed);
    end();
}

static void test_prefixes(void)
{
    /* A base model's file has no "model."; one of the whole has. */
    begin();
    add(&model, "embed.weight", 2, 3);
    add(&model, "layers.0.weight", 2, 3);
    add(&other, "model.embed.weight", 2, 3);
    add(&other, "model.layers.0.weight", 2, 3);
    expect_compared("yes, checked against it");

    begin();
    add(&model, "model.embed.weight", 2, 3);
    add(&model, "model.layers.0.weight", 2, 3);
    add(&model, "lm_head.weight", 2, 3);
    add(&other, "embed.weight", 2, 3);
    add(&other, "layers.0.weight", 2, 3);
    expect_compared("yes, checked against it: unknown, and left out by loaders: lm_head.weight");
}

static void test_tied(void)
{
    /* It is tied in the one, and not saved in the other, or the other way round. */
    begin();
    add(&model, "model.embed.weight", 2, 3);
    add(&other, "model.embed.weight", 2, 3);
    add(&other, "lm_head.weight", 2, 3)->tied = "model.embed.weight";
    expect_compared("yes, checked against it");

    begin();
    add(&model, "model.embed.weight", 2, 3);
    add(&model, "lm_head.weight", 2, 3)->tied = "model.embed.weight";
    add(&other, "model.embed.weight", 2, 3);
    expect_compared("yes, checked against it");

    /* Not tied there: it is missed. */
    begin();
    add(&model, "model.embed.weight", 2, 3);
    add(&other, "model.embed.weight", 2, 3);
    add(&other, "lm_head.weight", 2, 3);
    expect_compared("no, checked against it: lm_head.weight is missing");
}

static void test_reasons_add_up(void)
{
    begin();
    CHECK_EQUAL(0, loadable_say_reason(&verdict, "no %s", "python"));
    CHECK_EQUAL(0, loadable_say_reason(&verdict, "no base"));
    expect_line("not checked: no python; no base");
    end();
}

/* -- the library's question and answer --------------------------------------------------------------------
 */

static void test_question(void)
{
    cleanup_text struct text text = {0};
    begin();
    add(&model, "a \"\\\n\xc3\xa4", 2, 3);
    add_as(&model, "scalar", TENSOR_I64, 0, NULL);
    add(&model, "tied", 2, 3)->tied = "scalar";
    CHECK_EQUAL(0, architecture_ask(&model, "{}", 2, false, TENSOR_BF16, &text));
    text_append_byte(&text, '\0');
    CHECK_TEXT(
        "2\n{}{\"dtype\": \"bfloat16\", \"tensors\": [[\"a \\\"\\\\\\u000a\xc3\xa4\", \"F32\", [2, 3]],\n"
        "[\"scalar\", \"I64\", []]]}",
        text.at);
    end();
}

static void expect_answer(const char *answer, const char *line)
{
    begin();
    CHECK_EQUAL(0, architecture_read(answer, strlen(answer), NULL, &verdict));
    expect_line(line);
    end();
}

#define ANSWER(missing, only_heads, unexpected, mismatched)                                                  \
    "{\"library\": \"transformers 5\", \"class\": \"C\", " missing ", \"only_heads\": " only_heads           \
    ", " unexpected ", " mismatched ", \"kept\": [\"w\"]}"
#define NO_MISSING    "\"missing\": [], \"missing_count\": 0"
#define NO_UNEXPECTED "\"unexpected\": [], \"unexpected_count\": 0"
#define NO_MISMATCHED "\"mismatched\": [], \"mismatched_count\": 0"

static void test_answers(void)
{
    expect_answer(ANSWER(NO_MISSING, "true", NO_UNEXPECTED, NO_MISMATCHED),
                  "yes, checked against C of transformers 5");
    expect_answer(ANSWER("\"missing\": [\"lm_head.weight\"], \"missing_count\": 1", "true", NO_UNEXPECTED,
                         NO_MISMATCHED),
                  "in part, checked against C of transformers 5: it loads, but lm_head.weight would be "
                  "initialised anew");
    expect_answer(ANSWER("\"missing\": [\"a\", \"b\"], \"missing_count\": 70", "false",
                         "\"unexpected\": [\"u\"], \"unexpected_count\": 1",
                         "\"mismatched\": [{\"name\": \"m\", \"found\": [3], \"expected\": [4, 5]}], "
                         "\"mismatched_count\": 1"),
                  "no, checked against C of transformers 5: a, b and 68 more are missing; m is [3], expected "
                  "[4, 5]; unknown, and left out by loaders: u");
    expect_answer("{\"reason\": \"no library\"}", "not checked: no library");
}

static void test_what_the_library_keeps(void)
{
    static const char answer[] = ANSWER(NO_MISSING, "true", NO_UNEXPECTED, NO_MISMATCHED);
    begin();
    add(&model, "v", 2, 3);
    add(&model, "w", 2, 3);
    CHECK_EQUAL(0, architecture_read(answer, strlen(answer), &model, &verdict));
    CHECK(!model.tensors[0].keeps_type);
    CHECK(model.tensors[1].keeps_type);
    end();
}

/* A program that died in the middle, or is another one. */
static void test_answers_that_are_none(void)
{
    static const char *const answers[] = {
        "",
        "[]",
        "null",
        "{}",
        "{\"reason\": 5}",
        "Traceback (most recent call last):",
        ANSWER("\"missing\": [1], \"missing_count\": 1", "true", NO_UNEXPECTED, NO_MISMATCHED),
        ANSWER("\"missing\": {}, \"missing_count\": 0", "true", NO_UNEXPECTED, NO_MISMATCHED),
        ANSWER("\"missing\": [], \"missing_count\": 3", "true", NO_UNEXPECTED, NO_MISMATCHED),
        ANSWER("\"missing\": [\"a\"], \"missing_count\": 0", "true", NO_UNEXPECTED, NO_MISMATCHED),
        ANSWER("\"missing\": [\"a\"], \"missing_count\": -1", "true", NO_UNEXPECTED, NO_MISMATCHED),
        ANSWER("\"missing\": [\"a\"], \"missing_count\": 1e300", "true", NO_UNEXPECTED, NO_MISMATCHED),
        ANSWER(NO_MISSING, "7", NO_UNEXPECTED, NO_MISMATCHED),
        ANSWER(NO_MISSING, "true", NO_UNEXPECTED,
               "\"mismatched\": [{\"name\": \"m\", \"found\": [1e300], \"expected\": [4]}], "
               "\"mismatched_count\": 1"),
        ANSWER(NO_MISSING, "true", NO_UNEXPECTED,
               "\"mismatched\": [{\"name\": \"m\", \"found\": 3, \"expected\": [4]}], "
               "\"mismatched_count\": 1"),
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        expect_answer(answers[i], "not checked: the library's answer is not understood");
}

/* No prefix of an answer is one. */
static void test_answers_that_are_cut(void)
{
    static const char answer[] = ANSWER(NO_MISSING, "true", NO_UNEXPECTED, NO_MISMATCHED);
    for (size_t length = 0; length + 1 < sizeof answer; length++) {
        begin();
        CHECK_EQUAL(0, architecture_read(answer, length, NULL, &verdict));
        CHECK_EQUAL(LOADABLE_NOT_CHECKED, verdict.state);
        end();
    }
}

/* -- adapters ---------------------------------------------------------------------------------------------
 */

#define PAIR "base_model.model.model.q"

static void check_adapter(const char *config, bool with_base, const char *line)
{
    struct memory_folder memory = {.count = 0};
    cleanup_folder_listing struct folder_listing listing = {0};
    cleanup_adapter_config struct adapter_config read = {0};
    if (config)
        memory_folder_add(&memory, "adapter_config.json", config, (int64_t)strlen(config));
    struct folder folder = memory_folder_open(&memory);
    CHECK_EQUAL(0, folder_read(&folder, "", &listing));
    CHECK_EQUAL(0, adapter_config_read(&folder, &listing, &read));
    CHECK_EQUAL(0, adapter_config_check(&read, &model, with_base ? &other : NULL, "base", &verdict));
    expect_line(line);
    end();
}

static void begin_adapter(int64_t rank)
{
    begin();
    add(&model, PAIR ".lora_A.weight", rank, 64);
    add(&model, PAIR ".lora_B.weight", 32, rank);
    add(&other, "model.q.weight", 32, 64);
}

static void test_adapters(void)
{
    static const char config[] = "{\"peft_type\": \"LORA\", \"r\": 4, \"base_model_name_or_path\": \"x\"}";
    begin_adapter(4);
    check_adapter(config, true, "yes, checked against adapter_config.json and base");
    begin_adapter(4);
    check_adapter(config, false, "not checked");
    begin_adapter(8);
    check_adapter(config, false,
                  "no, checked against adapter_config.json: " PAIR
                  ".lora_A.weight has rank 8, expected 4, " PAIR ".lora_B.weight has rank 8, expected 4");
    begin_adapter(8);
    check_adapter("{\"peft_type\": \"LORA\", \"r\": 4, \"rank_pattern\": {\"q\": 8}}", true,
                  "yes, checked against adapter_config.json and base");
    begin_adapter(4);
    check_adapter(NULL, true, "not checked: no adapter_config.json is there");
    begin_adapter(4);
    check_adapter("{\"peft_type\": \"PREFIX_TUNING\"}", true,
                  "not checked: it is an adapter of another kind than LoRA of modules");
}

static void test_adapters_that_do_not_fit(void)
{
    static const char config[] = "{\"peft_type\": \"LORA\", \"r\": 4}";
    begin();
    add(&model, PAIR ".lora_A.weight", 4, 64);
    check_adapter(config, false,
                  "no, checked against adapter_config.json: " PAIR ".lora_B.weight is missing");
    begin_adapter(4);
    add(&model, "base_model.model.model.k.lora_A.weight", 4, 64);
    add(&model, "base_model.model.model.k.lora_B.weight", 32, 4);
    add(&other, "model.k.weight", 32, 63);
    check_adapter(
        config, true,
        "no, checked against adapter_config.json and base: base_model.model.model.k.lora_A.weight is "
        "for 32 x 64, the base model's weight is 32 x 63");
    begin_adapter(4);
    add(&model, "base_model.model.model.k.lora_A.weight", 4, 64);
    add(&model, "base_model.model.model.k.lora_B.weight", 32, 4);
    check_adapter(
        config, true,
        "no, checked against adapter_config.json and base: base_model.model.model.k.lora_A.weight is "
        "for a module that the base model lacks");
}

/* -- base models ------------------------------------------------------------------------------------------
 */

static void test_names_of_the_hub(void)
{
    static const char *const good[] = {"gpt2", "org/name", "a.b-c_d/E.1", "1/2"};
    /* More bytes than a name may have. */
    static const char too_long[] = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"
                                   "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
    const char *const bad[] = {"",     "/",      "a/",   "/a",        "a/b/c", "..",    "../a",
                               "a/..", "a/../b", ".a/b", "a/.b",      "a--b",  "a b",   "a\nb",
                               "-a",   "a./b",   "a\\b", "a\xc3\xa4", "/etc",  too_long};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(base_model_name_is_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!base_model_name_is_valid(bad[i]));
}

static char root[PATH_MAX / 2];

static const char *below(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void make_directories(const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        CHECK_EQUAL(0, mkdir(below(names[i]), 0700));
}

static void write_text(const char *name, const char *text)
{
    FILE *file = fopen(below(name), "w");
    CHECK(file && fputs(text, file) >= 0);
    if (file)
        fclose(file);
}

#define REVISION "0123456789abcdef0123456789abcdef01234567"

static void test_the_hubs_cache(void)
{
    static const char *const names[] = {"cache",
                                        "cache/models--org--name",
                                        "cache/models--org--name/refs",
                                        "cache/models--org--name/snapshots",
                                        ("cache/models--org--name/snapshots/" REVISION),
                                        "cache/models--org--name/snapshots/other"};
    cleanup_base_models struct base_models models = {0};
    char cache[PATH_MAX];
    make_directories(names, sizeof names / sizeof *names);
    snprintf(cache, sizeof cache, "%s", below("cache"));
    CHECK_EQUAL(0, base_models_add_cached(&models, cache, "org/name", NULL));
    CHECK_EQUAL(2, models.count);
    base_models_release(&models);
    write_text("cache/models--org--name/refs/main", REVISION "\n");
    CHECK_EQUAL(0, base_models_add_cached(&models, cache, "org/name", NULL));
    CHECK_EQUAL(1, models.count);
    CHECK_TEXT(below(names[4]), models.at[0]);
    /* What is no revision is no path either. */
    write_text("cache/models--org--name/refs/main", "../../../../../../../../../../../../../../../../../tmp");
    base_models_release(&models);
    CHECK_EQUAL(0, base_models_add_cached(&models, cache, "org/name", NULL));
    CHECK_EQUAL(2, models.count);
    base_models_release(&models);
    CHECK_EQUAL(0, base_models_add_cached(&models, cache, "org/none", NULL));
    CHECK_EQUAL(0, base_models_add_cached(&models, cache, "../cache", NULL));
    CHECK_EQUAL(0, models.count);
}

static void test_the_run(void)
{
    static const char *const names[] = {"run",
                                        "run/checkpoint-10",
                                        "run/checkpoint-2",
                                        "run/checkpoint-9",
                                        "run/checkpoint-11",
                                        "run/checkpoint-x",
                                        "run/other"};
    cleanup_base_models struct base_models models = {0};
    make_directories(names, sizeof names / sizeof *names);
    CHECK_EQUAL(0, base_models_add_run(&models, below("run/checkpoint-10")));
    CHECK_EQUAL(3, models.count);
    CHECK_TEXT(below("run"), models.at[0]);
    CHECK_TEXT(below("run/checkpoint-9"), models.at[1]);
    CHECK_TEXT(below("run/checkpoint-2"), models.at[2]);
    base_models_release(&models);
    CHECK_EQUAL(0, base_models_add_run(&models, below("run/other")));
    CHECK_EQUAL(0, base_models_add_run(&models, "checkpoint-3"));
    CHECK_EQUAL(0, models.count);
}

/* More than are kept: the latest ones. */
static void test_a_long_run(void)
{
    cleanup_base_models struct base_models models = {0};
    CHECK_EQUAL(0, mkdir(below("long"), 0700));
    for (unsigned step = 1; step <= 2 * BASE_MODELS_MAX; step++) {
        char name[32];
        snprintf(name, sizeof name, "long/checkpoint-%u", step);
        CHECK_EQUAL(0, mkdir(below(name), 0700));
    }
    CHECK_EQUAL(0, base_models_add_run(&models, below("long/checkpoint-1000")));
    CHECK_EQUAL(BASE_MODELS_MAX, models.count);
    CHECK_TEXT(below("long/checkpoint-128"), models.at[1]);
    CHECK_TEXT(below("long/checkpoint-66"), models.at[BASE_MODELS_MAX - 1]);
}

static void make_root(void)
{
    char template[] = "/tmp/ckptfs-test-loadable-XXXXXX";
    const char *made = mkdtemp(template);
    char *real = made ? realpath(made, NULL) : NULL;
    CHECK(real != NULL);
    snprintf(root, sizeof root, "%s", real ? real : "");
    free(real);
}

static void remove_root(void)
{
    char command[PATH_MAX];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    CHECK(*root && system(command) == 0);
}

int main(void)
{
    make_root();
    check_run("an equal model loads", test_equal);
    check_run("what is missing, unknown, or of another shape", test_different);
    check_run("a few are named, all are counted", test_many_are_counted);
    check_run("a first component too much or too little", test_prefixes);
    check_run("tied tensors need not be there", test_tied);
    check_run("reasons add up", test_reasons_add_up);
    check_run("the question", test_question);
    check_run("answers", test_answers);
    check_run("what the library never casts is marked", test_what_the_library_keeps);
    check_run("answers that are none", test_answers_that_are_none);
    check_run("answers that are cut", test_answers_that_are_cut);
    check_run("adapters beside their config", test_adapters);
    check_run("adapters that do not fit", test_adapters_that_do_not_fit);
    check_run("names of the Hub", test_names_of_the_hub);
    check_run("the Hub's cache", test_the_hubs_cache);
    check_run("the run's own saves", test_the_run);
    check_run("the run's latest saves", test_a_long_run);
    remove_root();
    return check_done();
}
