/* SPDX-License-Identifier: Apache-2.0 */
/* The outcome of an export, for people and for scripts. */
#include "cmd/export_report.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>

#include "base/size_text.h"
#include "format/plain_text.h"

static int64_t report_bytes(const struct export_job *job)
{
    int64_t bytes = 0;
    for (size_t i = 0; i < job->count; i++)
        bytes += job->files[i].size;
    return bytes;
}

void export_report_print(const struct export_outcome *outcome)
{
    const struct export_written *written = &outcome->written;
    char text[SIZE_TEXT_MAX];
    printf("%s/%s  %s in %zu files%s\n", outcome->target, outcome->name,
           size_text((double)report_bytes(outcome->job), text), outcome->job->count,
           outcome->unchanged  ? ", there already"
           : outcome->replaced ? ", in place of another"
                               : "");
    for (size_t i = 0; i < outcome->link_count; i++)
        printf("%s/%s -> %s\n", outcome->target, outcome->links[i], outcome->name);
    if (outcome->unchanged)
        return;
    printf("%s copied", size_text((double)written->copied, text));
    printf(", %s shared with the source", size_text((double)written->cloned, text));
    printf(", %s made anew", size_text((double)written->made, text));
    if (written->resumed > 0)
        printf(", %s there from before", size_text((double)written->resumed, text));
    printf("\nread back: %s; store's hashes: %s\n", outcome->facts->read_back ? "yes" : "no (--verify)",
           outcome->facts->store_hashes ? "checked" : "not checked");
}

static bool report_add_text(cJSON *object, const char *key, const char *text)
{
    cleanup_free char *plain = plain_text(text);
    return plain && cJSON_AddStringToObject(object, key, plain);
}

static bool report_add_lists(cJSON *document, const struct export_outcome *outcome)
{
    cJSON *files = cJSON_AddArrayToObject(document, "files");
    cJSON *links = files ? cJSON_AddArrayToObject(document, "links") : NULL;
    bool fine = links;
    for (size_t i = 0; i < outcome->job->count && fine; i++) {
        cleanup_free char *plain = plain_text(outcome->job->files[i].name);
        cJSON *row = plain ? cJSON_CreateString(plain) : NULL;
        fine = row && cJSON_AddItemToArray(files, row);
    }
    for (size_t i = 0; i < outcome->link_count && fine; i++) {
        cJSON *row = cJSON_CreateString(outcome->links[i]);
        fine = row && cJSON_AddItemToArray(links, row);
    }
    return fine;
}

static bool report_fill(cJSON *document, const struct export_outcome *outcome)
{
    const struct export_written *written = &outcome->written;
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s/%s", outcome->target, outcome->name) < 0)
        path = NULL;
    return path && report_add_text(document, "path", path) &&
           report_add_text(document, "checkpoint", outcome->facts->checkpoint) &&
           (outcome->facts->step < 0
                ? cJSON_AddNullToObject(document, "step")
                : cJSON_AddNumberToObject(document, "step", (double)outcome->facts->step)) &&
           cJSON_AddBoolToObject(document, "unchanged", outcome->unchanged) &&
           cJSON_AddBoolToObject(document, "replaced", outcome->replaced) &&
           cJSON_AddNumberToObject(document, "bytes", (double)report_bytes(outcome->job)) &&
           cJSON_AddNumberToObject(document, "copied_bytes", (double)written->copied) &&
           cJSON_AddNumberToObject(document, "shared_bytes", (double)written->cloned) &&
           cJSON_AddNumberToObject(document, "made_bytes", (double)written->made) &&
           cJSON_AddNumberToObject(document, "resumed_bytes", (double)written->resumed) &&
           cJSON_AddBoolToObject(document, "read_back", outcome->facts->read_back) &&
           cJSON_AddBoolToObject(document, "store_hashes_checked", outcome->facts->store_hashes) &&
           report_add_lists(document, outcome);
}

errint export_report_json(const struct export_outcome *outcome)
{
    cJSON *document = cJSON_CreateObject();
    bool fine = document && report_fill(document, outcome);
    cleanup_free char *text = fine ? cJSON_Print(document) : NULL;
    cJSON_Delete(document);
    if (!text)
        return -ENOMEM;
    puts(text);
    return 0;
}
