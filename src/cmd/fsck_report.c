/* SPDX-License-Identifier: Apache-2.0 */
/* What `ckptfs fsck` prints. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/size_text.h"
#include "cmd/fsck.h"

/* The length of the UTF-8 sequence at `at`, or 0 when it is none. (Overlong ones are not looked for: they
 * are printed as they are.) */
static size_t fsck_utf8_length(const unsigned char *at)
{
    size_t length = *at < 0x80                  ? 1
                    : *at >= 0xc2 && *at < 0xe0 ? 2
                    : (*at & 0xf0) == 0xe0      ? 3
                    : *at >= 0xf0 && *at < 0xf5 ? 4
                                                : 0;
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    return length;
}

/* A path may have any bytes: what is no printable UTF-8 is written as \ooo, a backslash as two. */
static char *fsck_escape(const char *path)
{
    char *text = malloc(4 * strlen(path) + 1);
    if (!text)
        return NULL;
    char *out = text;
    for (const unsigned char *at = (const unsigned char *)path; *at;) {
        size_t length = fsck_utf8_length(at);
        if (*at == '\\') {
            out = stpcpy(out, "\\\\");
            at++;
        } else if (length == 0 || *at < 0x20 || *at == 0x7f) {
            out += sprintf(out, "\\%03o", *at);
            at++;
        } else {
            memcpy(out, at, length);
            out += length;
            at += length;
        }
    }
    *out = '\0';
    return text;
}

static const char *fsck_state(const struct fsck *fsck, enum meta_finding_kind kind)
{
    switch (kind) {
    case META_FINDING_NOTE: return "note";
    case META_FINDING_MENDED: return fsck->repair || fsck->rebuild ? "repaired" : "repairable";
    case META_FINDING_LEFT: break;
    }
    return "left";
}

static bool fsck_add_finding(struct fsck *fsck, const struct meta_finding *finding, const char *path)
{
    char object[24];
    cJSON *entry = cJSON_CreateObject();
    if (!entry || !cJSON_AddItemToArray(fsck->findings, entry)) {
        cJSON_Delete(entry);
        return false;
    }
    snprintf(object, sizeof object, "%016" PRIx64, finding->object);
    return cJSON_AddStringToObject(entry, "code", finding->code) &&
           cJSON_AddStringToObject(entry, "state", fsck_state(fsck, finding->kind)) &&
           (!finding->ino || cJSON_AddNumberToObject(entry, "inode", (double)finding->ino)) &&
           (!path || cJSON_AddStringToObject(entry, "path", path)) &&
           (!finding->object || cJSON_AddStringToObject(entry, "object", object)) &&
           cJSON_AddStringToObject(entry, "text", finding->text);
}

void fsck_tell(struct fsck *fsck, const struct meta_finding *finding)
{
    cleanup_free char *path = finding->path ? fsck_escape(finding->path) : NULL;
    if (finding->path && !path)
        fsck->no_memory = true;
    if (fsck->json) {
        if (!fsck_add_finding(fsck, finding, path))
            fsck->no_memory = true;
        return;
    }
    if (finding->ino)
        printf("inode %" PRIu64 " (%s): ", finding->ino, path ? path : "no path");
    else if (finding->object)
        printf("object %016" PRIx64 ": ", finding->object);
    printf("%s [%s: %s]\n", finding->text, finding->code, fsck_state(fsck, finding->kind));
}

void fsck_tell_action(struct fsck *fsck, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!fsck->json) {
        puts(text);
        return;
    }
    cJSON *entry = cJSON_CreateString(text);
    if (!entry || !cJSON_AddItemToArray(fsck->actions, entry)) {
        cJSON_Delete(entry);
        fsck->no_memory = true;
    }
}

static void fsck_print_document(struct fsck *fsck, int code)
{
    const struct {
        const char *key;
        uint64_t value;
    } rows[] = {
        {"inodes", fsck->result.totals.inodes},
        {"objects", fsck->result.totals.objects},
        {"logical_bytes", (uint64_t)fsck->result.totals.logical_bytes},
        {"object_files", fsck->file_count},
        {"notes", fsck->result.notes},
        {fsck->repair || fsck->rebuild ? "repaired" : "repairable", fsck->result.mended},
        {"left", fsck->result.left + fsck->complaints},
        {"recovered_objects", fsck->result.adopted},
        {"exit_code", (uint64_t)code},
    };
    cJSON *document = cJSON_CreateObject();
    bool whole =
        document && !fsck->no_memory && cJSON_AddStringToObject(document, "store", fsck->store->path);
    for (size_t i = 0; whole && i < sizeof rows / sizeof *rows; i++)
        whole = cJSON_AddNumberToObject(document, rows[i].key, (double)rows[i].value);
    whole = whole && cJSON_AddItemReferenceToObject(document, "findings", fsck->findings) &&
            cJSON_AddItemReferenceToObject(document, "actions", fsck->actions);
    cleanup_free char *text = whole ? cJSON_Print(document) : NULL;
    cJSON_Delete(document);
    puts(text ? text : "{\"error\": \"no memory\"}");
}

void fsck_print_summary(struct fsck *fsck, int code)
{
    char size[SIZE_TEXT_MAX];
    if (fsck->json) {
        fsck_print_document(fsck, code);
        return;
    }
    const struct meta_check_result *result = &fsck->result;
    uint64_t left = result->left + fsck->complaints;
    printf("%s: %" PRIu64 " inodes, %" PRIu64 " objects, %s; ", fsck->store->path, result->totals.inodes,
           result->totals.objects, size_text((double)result->totals.logical_bytes, size));
    if (result->mended == 0 && left == 0)
        puts("clean");
    else
        printf("%" PRIu64 " errors %s, %" PRIu64 " errors left\n", result->mended,
               fsck->repair || fsck->rebuild ? "corrected" : "that --repair corrects", left);
}
