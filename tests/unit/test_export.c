/* SPDX-License-Identifier: Apache-2.0 */
/* Exports: names, the file of state, going on, the exchange of names, links; and the policy that wants them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "ckpt/export_facts.h"
#include "ckpt/export_place.h"
#include "ckpt/export_sink.h"
#include "ckpt/export_tree.h"
#include "ckpt/export_write.h"
#include "ckpt/policy.h"
#include "test_ckpt_folder.h"

enum { TEST_SMALL = (5 << 20) + 12345, TEST_STEPS = EXPORT_STEP + TEST_SMALL };

/* The directory of a test, and a job of two files in memory. */
static int directory;
static uint8_t *bytes;
static int64_t size;
static struct memory_folder memory;
static struct folder folder;
static struct model model;
static struct export_file files[2];
static struct export_job job;

static bool stop_after(void *context, int64_t done, int64_t total)
{
    (void)total;
    return done < *(const int64_t *)context;
}

static void in_directory(void (*test)(void), int64_t length)
{
    char path[] = "/tmp/ckptfs-test-export.XXXXXX";
    CHECK(mkdtemp(path));
    directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size = length;
    bytes = malloc((size_t)size);
    CHECK(directory >= 0 && bytes);
    for (size_t i = 0; bytes && i < (size_t)size; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    memory = (struct memory_folder){0};
    memory_folder_add(&memory, "model.safetensors", bytes, size);
    memory_folder_add(&memory, "sub/config.json", "{}", 2);
    folder = memory_folder_open(&memory);
    files[0] = (struct export_file){
        .name = "model.safetensors", .folder = &folder, .path = "model.safetensors", .size = size};
    files[1] = (struct export_file){
        .name = "sub/config.json", .folder = &folder, .path = "sub/config.json", .size = 2};
    job = (struct export_job){.model = &model, .folder = &folder, .files = files, .count = 2, .verify = true};
    CHECK_EQUAL(0, export_identify(&job, "test"));
    test();
    CHECK_EQUAL(0, export_tree_clear(directory, NULL, NULL));
    close(directory);
    CHECK_EQUAL(0, rmdir(path));
    free(bytes);
}

static bool there(const char *name)
{
    return faccessat(directory, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* One export, up to the name; `stop`: after so many bytes. What export_write returned. */
static errint export_once(int64_t *stop, struct export_written *written)
{
    struct export_place place = {
        .directory = directory, .path = "DIR", .name = "model", .lock = -1, .building = -1};
    struct export_state state = {.fd = -1};
    bool replaced;
    job.progress = stop ? stop_after : NULL;
    job.context = stop;
    CHECK_EQUAL(0, export_place_lock(&place, false));
    CHECK_EQUAL(0, export_place_begin(&place, &job, &state));
    errint error = export_write(&job, place.building, "DIR/model", &state, written);
    export_state_release(&state);
    if (!error) {
        const struct export_facts facts = {
            .checkpoint = "/a", .origin = "/a", .framework = "single", .dtype = "float32", .step = 7};
        CHECK_EQUAL(0, export_facts_write(place.building, &job, &facts));
        CHECK_EQUAL(0, export_place_publish(&place, &replaced));
    }
    export_place_end(&place);
    return error;
}

static void check_exported(void)
{
    struct export_found found;
    CHECK(export_facts_hold(directory, "model", &job));
    CHECK(export_facts_are_equal(directory, "model", &job));
    CHECK_EQUAL(0, export_facts_read(directory, "model", &found));
    CHECK_TEXT("/a", found.origin);
    CHECK_TEXT(job.fingerprint, found.fingerprint);
    CHECK_EQUAL(7, found.step);
    export_found_release(&found);
    CHECK(!there(".ckptfs-export-model") && !there(".ckptfs-export-model.state") &&
          !there(".ckptfs-export-model.lock"));
}

static void test_names(void)
{
    char longest[EXPORT_NAME_MAX + 2];
    static const char *const bad[] = {"", ".", "..", ".hidden", "a/b", "/", "a\nb", "a\x7f", "a\x1b[2J"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!export_name_is_fine(bad[i]));
    CHECK(export_name_is_fine("checkpoint-500") && export_name_is_fine("a b") &&
          export_name_is_fine("\xc3\xa9"));
    memset(longest, 'x', sizeof longest);
    longest[EXPORT_NAME_MAX + 1] = '\0';
    CHECK(!export_name_is_fine(longest));
    longest[EXPORT_NAME_MAX] = '\0';
    CHECK(export_name_is_fine(longest));
}

static void test_whole(void)
{
    struct export_written written;
    CHECK_EQUAL(0, export_once(NULL, &written));
    CHECK_EQUAL(size + 2, written.copied);
    CHECK_EQUAL(0, written.resumed);
    check_exported();
}

static void test_goes_on(void)
{
    struct export_written written;
    int64_t stop = EXPORT_STEP + (2 << 20);
    CHECK_EQUAL(-ECANCELED, export_once(&stop, &written));
    CHECK(there(".ckptfs-export-model") && there(".ckptfs-export-model.state") && !there("model"));
    CHECK_EQUAL(0, export_once(NULL, &written));
    CHECK_EQUAL(EXPORT_STEP, written.resumed);
    CHECK_EQUAL(size + 2 - EXPORT_STEP, written.copied);
    check_exported();
}

/* The line with the sum in the place of "%s", if it has one. */
static void state_line(const char *line, const char *sum, char *out, size_t room)
{
    const char *place = strstr(line, "%s");
    int before = place ? (int)(place - line) : (int)strlen(line);
    snprintf(out, room, "%.*s%s%s", before, line, place ? sum : "", place ? place + 2 : "");
}

/* Whatever lies in the file of state, what is exported is right. */
static void test_state_is_not_trusted(void)
{
    /* "%s" is a sum. */
    static const char *const lines[] = {
        "whole 1 0 0 00 model.safetensors\n",
        "part 18446744073709551615 9223372036854775807 0 %s model.safetensors\n",
        "part 1 -5 0 %s model.safetensors\n",
        "whole 1 2 3 z%s sub/config.json\n",
        "part",
        "\n\n\n",
        "part 1 2 3 %s ../../../etc/passwd\n",
    };
    static const char sum[] = "0000000000000000000000000000000000000000000000000000000000000000";
    struct export_written written;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char text[512];
        int fd =
            openat(directory, ".ckptfs-export-model.state", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        char line[256];
        state_line(lines[i], sum, line, sizeof line);
        int length = snprintf(text, sizeof text, "ckptfs-export 1 %s\n%s", job.fingerprint, line);
        CHECK_EQUAL(length, write(fd, text, (size_t)length));
        close(fd);
        CHECK_EQUAL(0, export_once(NULL, &written));
        CHECK_EQUAL(0, written.resumed);
        check_exported();
    }
}

static void test_strays_go(void)
{
    struct export_written written;
    int64_t stop = 4 << 20;
    CHECK_EQUAL(-ECANCELED, export_once(&stop, &written));
    CHECK_EQUAL(0, mkdirat(directory, ".ckptfs-export-model/other", 0755));
    CHECK_EQUAL(0, symlinkat("/etc", directory, ".ckptfs-export-model/etc"));
    CHECK_EQUAL(0, export_once(NULL, &written));
    check_exported();
    CHECK(!there("model/other") && !there("model/etc"));
}

static void test_links(void)
{
    struct export_place place = {
        .directory = directory, .path = "DIR", .name = "model", .lock = -1, .building = -1};
    char name[EXPORT_NAME_MAX + 1];
    CHECK_EQUAL(-ENOENT, export_place_read_link(&place, "latest", name));
    CHECK_EQUAL(0, export_place_link(&place, "latest"));
    CHECK_EQUAL(0, export_place_read_link(&place, "latest", name));
    CHECK_TEXT("model", name);
    place.name = "next";
    CHECK_EQUAL(0, export_place_link(&place, "latest"));
    CHECK_EQUAL(0, export_place_read_link(&place, "latest", name));
    CHECK_TEXT("next", name);
    CHECK_EQUAL(0, symlinkat("/etc", directory, "out"));
    CHECK_EQUAL(-ENOENT, export_place_read_link(&place, "out", name));
    CHECK_EQUAL(0, mkdirat(directory, "dir", 0755));
    CHECK_EQUAL(-EEXIST, export_place_link(&place, "dir"));
}

static void test_policy(void)
{
    struct policy_export_when when;
    char problem[POLICY_PROBLEM_MAX];
    CHECK(policy_parse_export_when("complete", &when) && when.kind == POLICY_EXPORT_COMPLETE);
    CHECK(policy_parse_export_when("best", &when) && when.kind == POLICY_EXPORT_BEST);
    CHECK(policy_parse_export_when("every 500", &when) && when.kind == POLICY_EXPORT_EVERY);
    CHECK_EQUAL(500, when.steps);
    static const char *const bad[] = {
        "",         "Best",     "every",  "every ",    "every 0",
        "every -1", "every 5 ", "every5", "every 1e3", "every 9223372036854775808"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQUAL(-EINVAL, policy_check(POLICY_EXPORT_WHEN, bad[i], problem));
    CHECK_EQUAL(0, policy_check(POLICY_EXPORT, "/models", problem));
    CHECK_EQUAL(-EINVAL, policy_check(POLICY_EXPORT, "models", problem));
    CHECK_EQUAL(-EINVAL, policy_check("export.user", "0 0", problem));
}

static void run_whole(void)
{
    in_directory(test_whole, TEST_SMALL);
}
static void run_goes_on(void)
{
    in_directory(test_goes_on, TEST_STEPS);
}
static void run_state(void)
{
    in_directory(test_state_is_not_trusted, TEST_SMALL);
}
static void run_strays(void)
{
    in_directory(test_strays_go, TEST_SMALL);
}
static void run_links(void)
{
    in_directory(test_links, TEST_SMALL);
}

int main(void)
{
    check_run("names of exports", test_names);
    check_run("an export is whole, and says so", run_whole);
    check_run("an interrupted export goes on behind what is stable", run_goes_on);
    check_run("the file of state is not trusted", run_state);
    check_run("what is none of the export's goes", run_strays);
    check_run("links lead to names of the directory, and replace links only", run_links);
    check_run("which checkpoints a policy wants", test_policy);
    return check_done();
}
