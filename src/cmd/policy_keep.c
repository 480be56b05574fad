/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs policy --dry-run`, and `ckptfs policy apply`. */
#include "cmd/policy_keep.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/size_text.h"
#include "ckpt/keep_run.h"
#include "cmd/directory.h"
#include "cmd/exit.h"
#include "cmd/ls.h"
#include "format/plain_text.h"
#include "fs/control.h"

/* Files that this command has just read are open for a moment still. */
enum { POLICY_ASKS = 10 };
#define POLICY_ASK_AGAIN_NS (20 * 1000000)

struct trial {
    const char *path;
    struct run run;
    struct keep_policy policy;
    bool trusted; /* as fs/keep.h has it */
    struct keep_checkpoint *checkpoints;
    struct keep_verdict *verdicts;
};

static void policy_release_json(cJSON **json)
{
    cJSON_Delete(*json);
}

#define cleanup_json __attribute__((cleanup(policy_release_json)))

static void trial_release(struct trial *trial)
{
    run_release(&trial->run);
    free(trial->checkpoints);
    free(trial->verdicts);
}

/* -- the policy -------------------------------------------------------------------------------------------
 */

/* Whether the key of a directory above is one that holds for this run. */
static bool trial_takes(struct trial *trial, const cJSON *row)
{
    const cJSON *levels = cJSON_GetObjectItemCaseSensitive(row, "levels");
    unsigned above = cJSON_IsNumber(levels) && levels->valuedouble > 0 ? (unsigned)levels->valuedouble : 0;
    cleanup_free char *directory = directory_above(trial->path, above);
    struct stat owner, run;
    if (!directory || stat(directory, &owner) < 0 || stat(trial->path, &run) < 0)
        return false;
    bool trusted = owner.st_uid == 0 || owner.st_uid == geteuid();
    trial->trusted &= trusted;
    return trusted || owner.st_uid == run.st_uid;
}

static int trial_read_policy(struct trial *trial)
{
    cleanup_fd int fd = -1;
    cleanup_free struct control_text *answer = calloc(1, sizeof *answer);
    int code = answer ? directory_open(trial->path, &fd) : directory_explain(trial->path, ENOMEM);
    int error = code ? 0 : directory_ask(fd, CKPTFS_IOCTL_POLICY_SHOW, answer);
    if (code || error)
        return code ? code : directory_explain(trial->path, error);
    cleanup_json cJSON *list =
        cJSON_ParseWithLength(answer->text, strnlen(answer->text, sizeof answer->text));
    if (!list)
        return directory_explain(trial->path, EPROTO);
    const cJSON *row;
    cJSON_ArrayForEach(row, list)
    {
        const char *key = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "key"));
        const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "value"));
        if (key && value && keep_policy_has_key(key) && trial_takes(trial, row))
            keep_policy_set(&trial->policy, key, value);
    }
    return EXIT_FINE;
}

static errint trial_set(struct trial *trial, char **words)
{
    for (char **word = words; *word; word++) {
        cleanup_free char *key = strdup(*word);
        char *value = key ? strchr(key, '=') : NULL;
        if (!value)
            return -ENOMEM;
        *value++ = '\0';
        keep_policy_set(&trial->policy, key, value);
    }
    return 0;
}

/* -- the checkpoints --------------------------------------------------------------------------------------
 */

static errint trial_ask(const struct trial *trial, size_t index, struct ls_mounted *out)
{
    const struct timespec wait = {.tv_nsec = POLICY_ASK_AGAIN_NS};
    errint error = ls_ask(trial->path, &trial->run.at[index], out);
    for (int asked = 1; !error && out->marks.open && asked < POLICY_ASKS; asked++) {
        nanosleep(&wait, NULL);
        error = ls_ask(trial->path, &trial->run.at[index], out);
    }
    return error;
}

static errint trial_mark(struct trial *trial, size_t index)
{
    struct keep_checkpoint *checkpoint = &trial->checkpoints[index];
    struct ls_mounted mounted = {0};
    struct stat status, run;
    /* Of the run's own directory nothing goes, and all that is in the others would count for it. */
    if (!*checkpoint->path)
        return 0;
    cleanup_free char *path = ls_join(trial->path, checkpoint->path);
    errint error = path ? trial_ask(trial, index, &mounted) : -ENOMEM;
    checkpoint->pinned = mounted.marks.pinned;
    checkpoint->open = mounted.marks.open;
    checkpoint->loaded = mounted.marks.loaded;
    checkpoint->exported = mounted.marks.exported;
    checkpoint->torn = mounted.marks.torn;
    checkpoint->latest = mounted.marks.latest;
    /* One that is gone by now is as one that is being written. */
    checkpoint->unsettled = mounted.marks.unsettled || !mounted.marked;
    checkpoint->foreign = !trial->trusted && !error && lstat(path, &status) == 0 &&
                          stat(trial->path, &run) == 0 && status.st_uid != run.st_uid;
    return error;
}

static errint trial_judge(struct trial *trial)
{
    size_t count = trial->run.count;
    trial->checkpoints = calloc(count + 1, sizeof *trial->checkpoints);
    trial->verdicts = calloc(count + 1, sizeof *trial->verdicts);
    if (!trial->checkpoints || !trial->verdicts)
        return -ENOMEM;
    keep_run_take(&trial->run, trial->checkpoints);
    keep_run_choose_metric(&trial->run, &trial->policy);
    errint error = 0;
    for (size_t i = 0; i < count && !error; i++)
        error = trial_mark(trial, i);
    return error ? error
                 : keep_judge(&trial->policy, trial->checkpoints, count, clock_wall(), trial->verdicts);
}

/* -- printing ---------------------------------------------------------------------------------------------
 */

static const char *trial_name(const struct keep_checkpoint *checkpoint)
{
    return *checkpoint->path ? checkpoint->path : ".";
}

static errint trial_print(const struct trial *trial)
{
    size_t goes = 0;
    double bytes = 0;
    char text[SIZE_TEXT_MAX], step[24];
    printf("%10s  %*s  %-5s  NAME: WHY\n", "STEP", SIZE_TEXT_WIDTH, "LOGICAL", "");
    for (size_t i = 0; i < trial->run.count; i++) {
        const struct keep_checkpoint *checkpoint = &trial->checkpoints[i];
        const struct keep_verdict *verdict = &trial->verdicts[i];
        cleanup_free char *name = plain_text(trial_name(checkpoint));
        cleanup_free char *reason = plain_text(verdict->reason);
        if (!name || !reason)
            return -ENOMEM;
        snprintf(step, sizeof step, checkpoint->step >= 0 ? "%" PRId64 : "-", checkpoint->step);
        printf("%10s  %*s  %-5s  %s: %s%s\n", step, SIZE_TEXT_WIDTH,
               size_text((double)checkpoint->bytes, text), verdict->goes ? "goes" : "stays", name, reason,
               verdict->sheds && !verdict->goes ? "; may shed its optimizer state" : "");
        goes += verdict->goes;
        bytes += verdict->goes ? (double)checkpoint->bytes : 0;
    }
    printf("%zu of %zu would go, %s\n", goes, trial->run.count, size_text(bytes, text));
    return 0;
}

static bool trial_fill_row(cJSON *row, const struct keep_checkpoint *checkpoint,
                           const struct keep_verdict *verdict)
{
    cleanup_free char *name = plain_text(trial_name(checkpoint));
    cleanup_free char *reason = plain_text(verdict->reason);
    return name && reason && cJSON_AddStringToObject(row, "path", name) &&
           (checkpoint->step >= 0 ? cJSON_AddNumberToObject(row, "step", (double)checkpoint->step)
                                  : cJSON_AddNullToObject(row, "step")) &&
           cJSON_AddNumberToObject(row, "bytes", (double)checkpoint->bytes) &&
           cJSON_AddBoolToObject(row, "goes", verdict->goes) &&
           cJSON_AddStringToObject(row, "reason", reason) &&
           cJSON_AddBoolToObject(row, "expendable", verdict->expendable) &&
           cJSON_AddBoolToObject(row, "sheds", verdict->sheds) &&
           (verdict->order > 0 ? cJSON_AddNumberToObject(row, "order", (double)verdict->order)
                               : cJSON_AddNullToObject(row, "order"));
}

static errint trial_print_json(const struct trial *trial)
{
    cleanup_json cJSON *document = cJSON_CreateObject();
    cleanup_free char *path = plain_text(trial->path);
    bool fine = document && path && cJSON_AddStringToObject(document, "path", path);
    cJSON *rows = fine ? cJSON_AddArrayToObject(document, "checkpoints") : NULL;
    for (size_t i = 0; rows && fine && i < trial->run.count; i++) {
        cJSON *row = cJSON_CreateObject();
        fine = row && cJSON_AddItemToArray(rows, row);
        if (!fine)
            cJSON_Delete(row);
        fine = fine && trial_fill_row(row, &trial->checkpoints[i], &trial->verdicts[i]);
    }
    cleanup_free char *text = rows && fine ? cJSON_Print(document) : NULL;
    if (!text)
        return -ENOMEM;
    puts(text);
    return 0;
}

int policy_try(const char *path, char **words, bool json)
{
    __attribute__((cleanup(trial_release))) struct trial trial = {.path = path, .trusted = true};
    int code = trial_read_policy(&trial);
    if (code)
        return code;
    errint error = trial_set(&trial, words);
    if (!error)
        error = ls_read(path, (struct ls_wish){0}, &trial.run);
    if (!error && trial.run.count == 0) {
        cleanup_free char *plain = plain_text(path);
        log_error("%s: no checkpoint of a known kind is there; name the directory of a run",
                  plain ? plain : "?");
        return EXIT_FAILED;
    }
    if (!error)
        error = trial_judge(&trial);
    if (!error)
        error = json ? trial_print_json(&trial) : trial_print(&trial);
    return error ? directory_explain(path, -error) : EXIT_FINE;
}

/* -- applying ---------------------------------------------------------------------------------------------
 */

static errint policy_print_removed(const cJSON *list)
{
    const cJSON *row;
    cJSON_ArrayForEach(row, list)
    {
        const char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "path"));
        const char *reason = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "reason"));
        const char *problem = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "error"));
        cleanup_free char *name = plain_text(path ? path : "?");
        cleanup_free char *why = plain_text(reason ? reason : "?");
        if (!name || !why)
            return -ENOMEM;
        if (problem)
            printf("%s: %s, but is still there: %s\n", name, why, problem);
        else
            printf("%s: removed: %s\n", name, why);
    }
    return 0;
}

int policy_apply(const char *path, bool json)
{
    cleanup_fd int fd = -1;
    cleanup_free struct control_text *answer = calloc(1, sizeof *answer);
    int code = answer ? directory_open(path, &fd) : directory_explain(path, ENOMEM);
    int error = code ? 0 : directory_ask(fd, CKPTFS_IOCTL_KEEP, answer);
    if (code || error)
        return code ? code : directory_explain(path, error);
    cleanup_json cJSON *list =
        cJSON_ParseWithLength(answer->text, strnlen(answer->text, sizeof answer->text));
    cleanup_free char *text = list && json ? cJSON_Print(list) : NULL;
    if (!list || (json && !text))
        return directory_explain(path, list ? ENOMEM : EPROTO);
    if (json)
        puts(text);
    errint failed = json ? 0 : policy_print_removed(list);
    return failed ? directory_explain(path, -failed) : EXIT_FINE;
}
