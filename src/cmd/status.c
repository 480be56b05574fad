/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs status`: what a mount says about itself, for people or as JSON. */
#include <cjson/cJSON.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/mounted.h"
#include "cmd/status_watch.h"
#include "fs/status_text.h"

/* Seconds between two looks. */
#define STATUS_INTERVAL     2.0
#define STATUS_INTERVAL_MIN 0.1
#define STATUS_INTERVAL_MAX 86400.0

static void status_release_document(cJSON **document)
{
    cJSON_Delete(*document);
}

#define cleanup_document __attribute__((cleanup(status_release_document)))

/* Saves, runs and space come in an answer of their own, which a daemon that has trouble may not give. */
static void status_append_watched(const struct mount_entry *entry, unsigned seconds, struct text *out)
{
    cleanup_free char *text = NULL;
    cleanup_document cJSON *document = NULL;
    if (mounted_try_everything(entry, seconds, &text) == 0)
        document = cJSON_Parse(text);
    if (document)
        status_text_watch(out, document);
}

/* `entry`: NULL for a mount that did not answer. */
static bool status_print_text(const cJSON *document, const struct mount_entry *entry, unsigned seconds)
{
    cleanup_text struct text text = {0};
    status_text_print(&text, document);
    if (entry)
        status_append_watched(entry, seconds, &text);
    if (text.failed) {
        log_error("status: out of memory");
        return false;
    }
    fwrite(text.at, 1, text.length, stdout);
    return true;
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
    return status_print_text(document, entry, seconds) ? EXIT_FINE : EXIT_FAILED;
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

/* What a mount says, or that it does not answer. The exit code is that of the mount alone. */
static int status_read_any(const struct mount_entry *entry, unsigned seconds, cJSON **out)
{
    int code = status_read(entry, seconds, out);
    if (code)
        *out = status_describe_failure(entry, code);
    return code;
}

static int status_list_json(const struct mount_table *table, unsigned seconds)
{
    cleanup_document cJSON *all = cJSON_CreateArray();
    int result = EXIT_FINE;
    for (size_t i = 0; i < table->count; i++) {
        cJSON *document = NULL;
        if (!mount_entry_is_ours(&table->entries[i]))
            continue;
        int code = status_read_any(&table->entries[i], seconds, &document);
        if (!cJSON_AddItemToArray(all, document)) {
            cJSON_Delete(document);
            code = EXIT_FAILED;
        }
        result = result ? result : code;
    }
    return status_print_json(all) ? result : EXIT_FAILED;
}

static int status_list_text(const struct mount_table *table, unsigned seconds)
{
    size_t found = 0;
    int result = EXIT_FINE;
    for (size_t i = 0; i < table->count; i++) {
        cleanup_document cJSON *document = NULL;
        const struct mount_entry *entry = &table->entries[i];
        if (!mount_entry_is_ours(entry))
            continue;
        int code = status_read_any(entry, seconds, &document);
        if (found++ > 0)
            putchar('\n');
        if (!status_print_text(document, code ? NULL : entry, seconds))
            return EXIT_FAILED;
        result = result ? result : code;
    }
    if (found == 0)
        puts("no ckptfs is mounted");
    return result;
}

static int status_show_all(bool json, unsigned seconds)
{
    cleanup_mount_table struct mount_table table = {0};
    if (mount_table_read(&table) != 0) {
        log_error("the mounts cannot be read: /proc is not mounted or memory is short");
        return EXIT_FAILED;
    }
    return json ? status_list_json(&table, seconds) : status_list_text(&table, seconds);
}

/* What the command line asks for. */
struct status_asked {
    bool json, watches, spaced; /* spaced: --interval was given */
    unsigned timeout;
    double interval; /* seconds */
};

static bool status_parse_interval(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && *out >= STATUS_INTERVAL_MIN && *out <= STATUS_INTERVAL_MAX;
}

static int status_parse(int argc, char **argv, struct status_asked *asked)
{
    static const struct option long_options[] = {{"json", no_argument, NULL, 'j'},
                                                 {"timeout", required_argument, NULL, 't'},
                                                 {"watch", no_argument, NULL, 'w'},
                                                 {"interval", required_argument, NULL, 'i'},
                                                 {0}};
    int option;
    while ((option = getopt_long(argc, argv, ":jt:wi:", long_options, NULL)) != -1) {
        bool fine = true;
        switch (option) {
        case 'j': asked->json = true; break;
        case 'w': asked->watches = true; break;
        case 'i': fine = asked->spaced = status_parse_interval(optarg, &asked->interval); break;
        case 't': fine = command_parse_seconds(optarg, &asked->timeout); break;
        default:
            return command_usage_error(&command_status, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
        }
        if (!fine)
            return command_usage_error(&command_status, "--%s: expected seconds, found '%s'",
                                       option == 'i' ? "interval" : "timeout", optarg);
    }
    if (asked->spaced && !asked->watches)
        return command_usage_error(&command_status, "--interval goes with --watch");
    if (argc - optind > 1)
        return command_usage_error(&command_status, "expected one MOUNTPOINT or STORE, found %d arguments",
                                   argc - optind);
    return EXIT_FINE;
}

static int status_run(int argc, char **argv)
{
    struct status_asked asked = {.timeout = MOUNTED_ANSWER_SECONDS, .interval = STATUS_INTERVAL};
    int code = status_parse(argc, argv, &asked);
    if (code)
        return code;
    const struct status_watch watch = {argv[optind], asked.json, asked.interval, asked.timeout};
    if (asked.watches)
        return status_watch_run(&watch);
    return optind < argc ? status_show_one(argv[optind], asked.json, asked.timeout)
                         : status_show_all(asked.json, asked.timeout);
}

const struct command command_status = {
    .name = "status",
    .synopsis = "[-j] [-w [-i SECONDS]] [-t SECONDS] [MOUNTPOINT|STORE]",
    .summary = "show what a mount, or every mount, is doing and can do",
    .details =
        "  -j, --json              one JSON document: an object, or without an argument an array of them;\n"
        "                          with --watch an object on a line of its own, each time\n"
        "  -w, --watch             saves under way, runs and space, again and again, until interrupted\n"
        "  -i, --interval SECONDS  between two looks (2)\n"
        "  -t, --timeout SECONDS   do not wait longer for an answer (10)\n",
    .run = status_run,
};
