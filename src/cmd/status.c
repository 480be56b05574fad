/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs status`: what a mount says about itself, for people or as JSON. */
#include <cjson/cJSON.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/mounted.h"
#include "cmd/size_text.h"

enum { STATUS_LABEL_WIDTH = 24, STATUS_INDENT = 2 };

static void status_release_document(cJSON **document)
{
    cJSON_Delete(*document);
}

#define cleanup_document __attribute__((cleanup(status_release_document)))

/* -- for people ------------------------------------------------------------------------------------------ */

static bool status_key_ends_with(const char *key, const char *end)
{
    size_t length = strlen(key), tail = strlen(end);
    return length > tail && strcmp(key + length - tail, end) == 0;
}

static void status_print_bytes(double bytes)
{
    char text[SIZE_TEXT_MAX];
    puts(size_text(bytes, text));
}

static void status_print_seconds(double seconds)
{
    uint64_t whole = seconds > 0 ? (uint64_t)seconds : 0;
    if (whole >= 86400)
        printf("%" PRIu64 " d ", whole / 86400);
    if (whole >= 3600)
        printf("%" PRIu64 " h ", whole / 3600 % 24);
    if (whole >= 60)
        printf("%" PRIu64 " min ", whole / 60 % 60);
    printf("%" PRIu64 " s\n", whole % 60);
}

static void status_print_number(const char *key, double number)
{
    if (status_key_ends_with(key, "_bytes"))
        status_print_bytes(number);
    else if (status_key_ends_with(key, "_kib"))
        status_print_bytes(number * 1024);
    else if (status_key_ends_with(key, "_seconds"))
        status_print_seconds(number);
    else
        printf("%.15g\n", number);
}

static void status_print_label(const char *key, int depth)
{
    char label[64];
    snprintf(label, sizeof label, "%s", key);
    /* The unit is printed with the number. */
    static const char *const units[] = {"_bytes", "_kib", "_seconds"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (status_key_ends_with(label, units[i]))
            label[strlen(label) - strlen(units[i])] = '\0';
    }
    for (char *at = label; *at; at++)
        *at = *at == '_' ? ' ' : *at;
    printf("%*s%-*s", depth * STATUS_INDENT, "", STATUS_LABEL_WIDTH - depth * STATUS_INDENT, label);
}

static void status_print_scalar(const char *key, const cJSON *value)
{
    if (cJSON_IsString(value))
        printf("%s\n", value->valuestring);
    else if (cJSON_IsNumber(value))
        status_print_number(key, value->valuedouble);
    else if (cJSON_IsBool(value))
        printf("%s\n", cJSON_IsTrue(value) ? "yes" : "no");
    else
        printf("-\n");
}

/* A newer daemon may say more than this command knows: everything is printed by its shape. */
static void status_print_object(const cJSON *object, int depth)
{
    const cJSON *value;
    cJSON_ArrayForEach(value, object)
    {
        const char *key = value->string ? value->string : "";
        bool nested = cJSON_IsObject(value) || cJSON_IsArray(value);
        if (nested && !value->child)
            continue;
        status_print_label(key, depth);
        if (nested) {
            putchar('\n');
            status_print_object(value, depth + 1);
        } else {
            status_print_scalar(key, value);
        }
    }
}

/* -- the command ----------------------------------------------------------------------------------------- */

static int status_read(const struct mount_entry *entry, unsigned seconds, cJSON **out)
{
    cleanup_free char *text = NULL;
    int code = mounted_ask_status(entry, seconds, &text);
    if (code)
        return code;
    *out = cJSON_Parse(text);
    if (*out)
        return EXIT_FINE;
    log_error("%s gave a status that cannot be read; are its daemon and this command of one version?",
              entry->mountpoint);
    return EXIT_FAILED;
}

static bool status_print_json(const cJSON *document)
{
    cleanup_free char *text = cJSON_Print(document);
    if (!text) {
        log_error("status: out of memory");
        return false;
    }
    puts(text);
    return true;
}

static int status_show_one(const char *argument, bool json, unsigned seconds)
{
    cleanup_mount_table struct mount_table table = {0};
    cleanup_document cJSON *document = NULL;
    const struct mount_entry *entry;
    int code = mounted_find(argument, &table, &entry);
    if (!code)
        code = status_read(entry, seconds, &document);
    if (code)
        return code;
    if (json)
        return status_print_json(document) ? EXIT_FINE : EXIT_FAILED;
    status_print_object(document, 0);
    return EXIT_FINE;
}

/* A mount that does not answer is listed with the code that it would have given alone. */
static cJSON *status_describe_failure(const struct mount_entry *entry, int code)
{
    cJSON *document = cJSON_CreateObject();
    if (cJSON_AddStringToObject(document, "store", entry->source) &&
        cJSON_AddStringToObject(document, "mountpoint", entry->mountpoint) &&
        cJSON_AddNumberToObject(document, "exit_code", code))
        return document;
    cJSON_Delete(document);
    return NULL;
}

static int status_show_all(bool json, unsigned seconds)
{
    cleanup_mount_table struct mount_table table = {0};
    cleanup_document cJSON *all = cJSON_CreateArray();
    if (!all || mount_table_read(&table) != 0) {
        log_error("the mounts cannot be read: /proc is not mounted or memory is short");
        return EXIT_FAILED;
    }
    int result = EXIT_FINE;
    for (size_t i = 0; i < table.count; i++) {
        if (!mount_entry_is_ours(&table.entries[i]))
            continue;
        cJSON *document = NULL;
        int code = status_read(&table.entries[i], seconds, &document);
        if (code)
            document = status_describe_failure(&table.entries[i], code);
        if (!cJSON_AddItemToArray(all, document)) {
            cJSON_Delete(document);
            code = EXIT_FAILED;
        }
        result = result ? result : code;
    }
    if (json)
        return status_print_json(all) ? result : EXIT_FAILED;
    if (!all->child)
        puts("no ckptfs is mounted");
    for (const cJSON *document = all->child; document; document = document->next) {
        status_print_object(document, 0);
        if (document->next)
            putchar('\n');
    }
    return result;
}

static int status_run(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'}, {"timeout", required_argument, NULL, 't'}, {0}};
    bool json = false;
    unsigned seconds = MOUNTED_ANSWER_SECONDS;
    int option;
    while ((option = getopt_long(argc, argv, ":jt:", long_options, NULL)) != -1) {
        if (option == 'j')
            json = true;
        else if (option != 't')
            return command_usage_error(&command_status, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
        else if (!command_parse_seconds(optarg, &seconds))
            return command_usage_error(&command_status, "--timeout: expected seconds, found '%s'", optarg);
    }
    if (argc - optind > 1)
        return command_usage_error(&command_status, "expected one MOUNTPOINT or STORE, found %d arguments",
                                   argc - optind);
    return optind < argc ? status_show_one(argv[optind], json, seconds) : status_show_all(json, seconds);
}

const struct command command_status = {
    .name = "status",
    .synopsis = "[-j] [-t SECONDS] [MOUNTPOINT|STORE]",
    .summary = "show what a mount, or every mount, is doing and can do",
    .details =
        "  -j, --json              one JSON document: an object, or without an argument an array of them\n"
        "  -t, --timeout SECONDS   do not wait longer for an answer (10)\n",
    .run = status_run,
};
