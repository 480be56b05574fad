/* SPDX-License-Identifier: Apache-2.0 */
/* A run in a temporary directory. */
#include "test_ckpt_run.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static char run_directory[64];

static void run_require(bool done, const char *what)
{
    if (done)
        return;
    perror(what);
    exit(1);
}

static int run_remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

void run_end(void)
{
    if (run_directory[0])
        nftw(run_directory, run_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    run_directory[0] = '\0';
}

void run_begin(void)
{
    run_end();
    snprintf(run_directory, sizeof run_directory, "/tmp/ckptfs-test-run.XXXXXX");
    run_require(mkdtemp(run_directory) != NULL, run_directory);
}

const char *run_path(const char *path)
{
    static char joined[4096];
    snprintf(joined, sizeof joined, "%s/%s", run_directory, path);
    return joined;
}

/* -- files ------------------------------------------------------------------------------------------------
 */

void run_put(const char *path, const void *bytes, size_t length)
{
    char directory[4096];
    snprintf(directory, sizeof directory, "%s", run_path(path));
    for (char *at = directory + strlen(run_directory) + 1; (at = strchr(at, '/')); *at++ = '/') {
        *at = '\0';
        run_require(mkdir(directory, 0777) == 0 || errno == EEXIST, directory);
    }
    int fd = open(directory, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    run_require(fd >= 0 && write(fd, bytes, length) == (ssize_t)length && close(fd) == 0, directory);
}

void run_put_text(const char *path, const char *text)
{
    run_put(path, text, strlen(text));
}

void run_put_safetensors(const char *path)
{
    cleanup_bytes struct bytes file = {0};
    safetensors_build(&file, "{\"w\":{\"dtype\":\"F32\",\"shape\":[25],\"data_offsets\":[0,100]}}", 100);
    run_put(path, file.at, file.count);
}

void run_put_torch(const char *path)
{
    cleanup_bytes struct bytes file = {0};
    struct archive archive = {0};
    archive_build_tensor(&file, &archive, 300);
    run_put(path, file.at, file.count);
}

void run_cut(const char *path, size_t length)
{
    run_require(truncate(run_path(path), (off_t)length) == 0, path);
}

void run_remove(const char *path)
{
    run_require(remove(run_path(path)) == 0, path);
}

void run_get(const char *path, struct bytes *out)
{
    uint8_t part[4096];
    ssize_t got;
    int fd = open(run_path(path), O_RDONLY | O_CLOEXEC);
    run_require(fd >= 0, path);
    while ((got = read(fd, part, sizeof part)) > 0)
        bytes_put(out, part, (size_t)got);
    run_require(got == 0, path);
    close(fd);
}

/* -- a Trainer --------------------------------------------------------------------------------------------
 */

const char *const trainer_files[] = {
    "config.json",  "generation_config.json", "model.safetensors", "tokenizer.json",  "training_args.bin",
    "optimizer.pt", "scheduler.pt",           "rng_state_0.pth",   "rng_state_1.pth", "trainer_state.json",
    NULL,
};

void run_put_trainer_file(const char *checkpoint, const char *file)
{
    char path[512], text[256];
    size_t length = strlen(file);
    long step = strtol(checkpoint + strcspn(checkpoint, "0123456789"), NULL, 10);
    snprintf(path, sizeof path, "%s/%s", checkpoint, file);
    snprintf(text, sizeof text, "{\"global_step\": %ld, \"best_metric\": NaN, \"log_history\": []}", step);
    if (strcmp(file, "trainer_state.json") == 0)
        run_put_text(path, text);
    else if (strcmp(file + length - 5, ".json") == 0)
        run_put_text(path, "{\"a\": [1, 2.5, \"x\"]}");
    else if (strcmp(file, "model.safetensors") == 0)
        run_put_safetensors(path);
    else
        run_put_torch(path);
}

void run_put_trainer(const char *checkpoint)
{
    for (size_t i = 0; trainer_files[i]; i++)
        run_put_trainer_file(checkpoint, trainer_files[i]);
}

/* -- judging ----------------------------------------------------------------------------------------------
 */

void run_judge_all(struct run *out)
{
    cleanup_folder_plain struct folder folder = {0};
    const struct run_asked asked = {.name = "run", .all_reasons = true};
    CHECK_EQUAL(0, folder_plain(run_directory, &folder));
    CHECK_EQUAL(0, run_read(&folder, &asked, out));
}

enum complete_state run_state(const char *checkpoint)
{
    cleanup_run struct run run = {0};
    run_judge_all(&run);
    for (size_t i = 0; i < run.count; i++) {
        if (strcmp(run.at[i].path, checkpoint) == 0)
            return run.at[i].complete.state;
    }
    CHECK_TEXT(checkpoint, "not found");
    return COMPLETE_UNKNOWN;
}
