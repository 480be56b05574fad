/* SPDX-License-Identifier: Apache-2.0 */
/* The two files of an export that are not the model's. */
#include "ckpt/export_facts.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/text.h"
#include "base/transfer.h"
#include "ckpt/export_sink.h"
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

enum { FACTS_BYTES_MAX = 64 << 20, FACTS_TIME_MAX = 32 };

/* -- writing ----------------------------------------------------------------------------------------------
 */

/* A line of sha256sum, which marks names with backslashes and doubles them. */
static void facts_print_sum(struct text *text, const struct export_file *file)
{
    char sum[SHA256_TEXT];
    bool escaped = strchr(file->name, '\\');
    sha256_text(file->sum, sum);
    text_print(text, "%s%s  ", escaped ? "\\" : "", sum);
    for (const char *at = file->name; *at; at++) {
        text_append_byte(text, (uint8_t)*at);
        if (*at == '\\')
            text_append_byte(text, '\\');
    }
    text_append_byte(text, '\n');
}

static void facts_print_sums(const struct export_job *job, struct text *text)
{
    for (size_t i = 0; i < job->count; i++)
        facts_print_sum(text, &job->files[i]);
}

static bool facts_add_files(cJSON *document, const struct export_job *job)
{
    cJSON *list = cJSON_AddArrayToObject(document, "files");
    bool fine = list;
    for (size_t i = 0; i < job->count && fine; i++) {
        char sum[SHA256_TEXT];
        cJSON *row = cJSON_CreateObject();
        fine = row && cJSON_AddItemToArray(list, row);
        sha256_text(job->files[i].sum, sum);
        fine = fine && cJSON_AddStringToObject(row, "name", job->files[i].name) &&
               cJSON_AddNumberToObject(row, "bytes", (double)job->files[i].size) &&
               cJSON_AddStringToObject(row, "sha256", sum);
    }
    return fine;
}

static char *facts_print(const struct export_job *job, const struct export_facts *facts)
{
    char now[FACTS_TIME_MAX];
    time_t seconds = time(NULL);
    struct tm parts;
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &parts));
    cJSON *document = cJSON_CreateObject();
    bool fine = document && cJSON_AddNumberToObject(document, "format", 1) &&
                cJSON_AddStringToObject(document, "checkpoint", facts->checkpoint) &&
                cJSON_AddStringToObject(document, "origin", facts->origin) &&
                (facts->step < 0 ? cJSON_AddNullToObject(document, "step")
                                 : cJSON_AddNumberToObject(document, "step", (double)facts->step)) &&
                cJSON_AddStringToObject(document, "framework", facts->framework) &&
                cJSON_AddStringToObject(document, "dtype", facts->dtype) &&
                cJSON_AddStringToObject(document, "exported", now) &&
                cJSON_AddStringToObject(document, "ckptfs", PACKAGE_VERSION) &&
                cJSON_AddBoolToObject(document, "store_hashes_checked", facts->store_hashes) &&
                cJSON_AddBoolToObject(document, "read_back", facts->read_back) &&
                cJSON_AddStringToObject(document, "fingerprint", job->fingerprint) &&
                facts_add_files(document, job);
    char *text = fine ? cJSON_Print(document) : NULL;
    cJSON_Delete(document);
    return text;
}

static errint facts_put(int directory, const char *name, const char *bytes, size_t length)
{
    cleanup_fd int fd = openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    errint error = fd < 0 ? -errno : transfer_write(fd, bytes, length, 0);
    return error ? error : fsync(fd) < 0 ? -errno : 0;
}

errint export_facts_write(int directory, const struct export_job *job, const struct export_facts *facts)
{
    cleanup_text struct text sums = {0};
    cleanup_free char *object = facts_print(job, facts);
    facts_print_sums(job, &sums);
    if (sums.failed || !object)
        return -ENOMEM;
    errint error = facts_put(directory, EXPORT_SUMS, sums.at, sums.length);
    size_t length = strlen(object);
    object[length++] = '\n'; /* instead of the NUL */
    return error ? error : facts_put(directory, EXPORT_FACTS, object, length);
}

/* -- reading ----------------------------------------------------------------------------------------------
 */

/* A whole file of DIR/NAME; -EFBIG. The caller frees it. */
static errint facts_get(int directory, const char *name, const char *file, char **out, size_t *length)
{
    char path[PATH_MAX];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", name, file);
    cleanup_fd int fd = openat(directory, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || status.st_size > FACTS_BYTES_MAX)
        return -EFBIG;
    cleanup_free char *text = calloc(1, (size_t)status.st_size + 1);
    errint error = text ? transfer_read(fd, text, (size_t)status.st_size, 0) : -ENOMEM;
    if (error)
        return error;
    *length = (size_t)status.st_size;
    *out = steal_pointer(text);
    return 0;
}

static cJSON *facts_parse(int directory, const char *name)
{
    cleanup_free char *text = NULL;
    size_t length;
    return facts_get(directory, name, EXPORT_FACTS, &text, &length) ? NULL
                                                                    : cJSON_ParseWithLength(text, length);
}

static char *facts_copy(const cJSON *document, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, key));
    return text ? strdup(text) : NULL;
}

errint export_facts_read(int directory, const char *name, struct export_found *out)
{
    struct stat status;
    *out = (struct export_found){.step = -1};
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    cJSON *document = S_ISDIR(status.st_mode) ? facts_parse(directory, name) : NULL;
    const cJSON *step = cJSON_GetObjectItemCaseSensitive(document, "step");
    out->origin = facts_copy(document, "origin");
    out->checkpoint = facts_copy(document, "checkpoint");
    out->fingerprint = facts_copy(document, "fingerprint");
    if (cJSON_IsNumber(step) && step->valuedouble >= 0 && step->valuedouble < 0x1p53)
        out->step = (int64_t)step->valuedouble;
    cJSON_Delete(document);
    return out->origin && out->checkpoint && out->fingerprint ? 0 : -EEXIST;
}

void export_found_release(struct export_found *found)
{
    free(found->origin);
    free(found->checkpoint);
    free(found->fingerprint);
    *found = (struct export_found){0};
}

/* -- comparing --------------------------------------------------------------------------------------------
 */

static int facts_open_file(int directory, const char *name, const struct export_file *file)
{
    char path[PATH_MAX];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", name, file->name);
    cleanup_fd int fd = openat(directory, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    bool fits = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size == file->size;
    return fits ? steal_fd(fd) : -1;
}

static const char *facts_sum_of(const cJSON *list, const char *name)
{
    const cJSON *row;
    cJSON_ArrayForEach(row, list)
    {
        const char *named = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "name"));
        if (named && strcmp(named, name) == 0)
            return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "sha256"));
    }
    return NULL;
}

/* Whether a file is there in its size; and, where the job verifies, with the bytes that the sum says. */
static bool facts_holds_file(int directory, const char *name, const struct export_file *file, bool verify,
                             const char *told)
{
    uint8_t sum[SHA256_BYTES];
    char text[SHA256_TEXT];
    cleanup_fd int fd = facts_open_file(directory, name, file);
    if (fd < 0 || !verify)
        return fd >= 0;
    if (!told || export_sink_read_back(fd, file->size, sum) < 0)
        return false;
    sha256_text(sum, text);
    return strcmp(text, told) == 0;
}

bool export_facts_hold(int directory, const char *name, const struct export_job *job)
{
    cJSON *document = facts_parse(directory, name);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(document, "files");
    bool holds = document;
    for (size_t i = 0; i < job->count && holds; i++) {
        const struct export_file *file = &job->files[i];
        holds = facts_holds_file(directory, name, file, job->verify, facts_sum_of(list, file->name));
    }
    cJSON_Delete(document);
    return holds;
}

bool export_facts_are_equal(int directory, const char *name, const struct export_job *job)
{
    cleanup_text struct text sums = {0};
    cleanup_free char *told = NULL;
    size_t length;
    facts_print_sums(job, &sums);
    if (sums.failed || facts_get(directory, name, EXPORT_SUMS, &told, &length) || length != sums.length ||
        memcmp(told, sums.at, length) != 0)
        return false;
    for (size_t i = 0; i < job->count; i++) {
        char sum[SHA256_TEXT];
        sha256_text(job->files[i].sum, sum);
        if (!facts_holds_file(directory, name, &job->files[i], job->verify, sum))
            return false;
    }
    return true;
}

errint export_facts_renew(int directory, const char *name, int building)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/" EXPORT_FACTS, name);
    return renameat(building, EXPORT_FACTS, directory, path) < 0 ? -errno : 0;
}
