/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs verify`: what is stored against its hashes. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/verify_source.h"

enum {
    VERIFY_MIB = 1 << 20,
    VERIFY_STEP = 64 * VERIFY_MIB,
    VERIFY_RATE_MAX = 1 << 20,
    VERIFY_STEPS_A_SECOND = 4
};

struct verify_work {
    struct verify_source source;
    bool json, repair;
    unsigned rate;   /* MiB a second; 0: as fast as the disk */
    bool progress;   /* stderr is a terminal */
    int64_t started; /* clock_monotonic() */
    int64_t told;    /* when progress was last shown */
    int64_t total;   /* bytes of all objects that are looked at */
    cJSON *findings; /* with json */
    struct ids damaged_files;
    uint64_t objects, unhashed, unverifiable, changed, damaged, repaired, left_out;
    int64_t done, checked;
};

/* -- findings ---------------------------------------------------------------------------------------------
 */

struct verify_wording {
    const char *name;
    const char *text; /* follows "LENGTH bytes at OFFSET" */
};

static struct verify_wording verify_wording_of(uint32_t finding)
{
    switch ((enum verify_finding)finding) {
    case VERIFY_DIFFERS: return (struct verify_wording){"differs", "are damaged: they have another hash"};
    case VERIFY_UNREADABLE: return (struct verify_wording){"unreadable", "are damaged: they cannot be read"};
    case VERIFY_SHORT: return (struct verify_wording){"short", "are lost: the object is too short"};
    case VERIFY_MISSING: return (struct verify_wording){"missing", "are lost: the object is missing"};
    case VERIFY_REPAIRED: return (struct verify_wording){"repaired", "were damaged and are repaired"};
    case VERIFY_NOT_REPAIRED:
        return (struct verify_wording){
            "not_repaired", "are damaged and could be repaired, but the object is open; try again later"};
    case VERIFY_TABLE_MISSING:
        return (struct verify_wording){"table_missing", "cannot be verified: the table of hashes is missing"};
    case VERIFY_TABLE_DAMAGED:
        return (struct verify_wording){"table_damaged", "cannot be verified: the table of hashes is damaged"};
    }
    return (struct verify_wording){"unknown", "have something that this version has no word for"};
}

/* Names may hold anything: what is no valid UTF-8, or would end a line, becomes a question mark. */
static void verify_clean_path(char *path)
{
    unsigned char *at = (unsigned char *)path;
    while (*at) {
        size_t length = *at < 0x80 ? 1 : *at >= 0xf0 ? 4 : *at >= 0xe0 ? 3 : 2;
        bool sound = *at >= 0x20 && *at != 0x7f && (*at < 0x80 || (*at >= 0xc2 && *at < 0xf5));
        for (size_t i = 1; sound && i < length; i++)
            sound = (at[i] & 0xc0) == 0x80;
        if (!sound) {
            *at = '?';
            length = 1;
        }
        at += length;
    }
}

static bool verify_add_json(struct verify_work *work, const struct verify_answer *answer,
                            const struct verify_line *line)
{
    char object[17];
    snprintf(object, sizeof object, "%016" PRIx64, answer->object);
    cJSON *finding = cJSON_CreateObject();
    if (cJSON_AddItemToArray(work->findings, finding) &&
        cJSON_AddStringToObject(finding, "path", answer->text + line->path) &&
        cJSON_AddNumberToObject(finding, "offset", (double)line->offset) &&
        cJSON_AddNumberToObject(finding, "length", (double)line->length) &&
        cJSON_AddStringToObject(finding, "object", object) &&
        cJSON_AddNumberToObject(finding, "object_offset", (double)line->object_offset) &&
        cJSON_AddStringToObject(finding, "found", verify_wording_of(line->finding).name))
        return true;
    log_error("verify: out of memory");
    return false;
}

static void verify_end_progress(const struct verify_work *work)
{
    if (work->progress && work->told)
        fputs("\r\033[K", stderr);
}

static bool verify_take_line(struct verify_work *work, struct verify_answer *answer,
                             const struct verify_line *line)
{
    verify_clean_path(answer->text + line->path);
    if (verify_is_damage(line->finding) && ids_append(&work->damaged_files, line->ino) < 0) {
        log_error("verify: out of memory");
        return false;
    }
    work->repaired += line->finding == VERIFY_REPAIRED;
    if (work->json)
        return verify_add_json(work, answer, line);
    verify_end_progress(work);
    printf("%s: %" PRId64 " bytes at %" PRId64 " %s; object %016" PRIx64 " at %" PRId64 "\n",
           answer->text + line->path, line->length, line->offset, verify_wording_of(line->finding).text,
           answer->object, line->object_offset);
    return true;
}

static bool verify_take_answer(struct verify_work *work, struct verify_answer *answer)
{
    work->checked += answer->checked;
    work->damaged += answer->damaged;
    work->left_out += answer->left_out;
    for (uint32_t i = 0; i < answer->lines; i++) {
        if (!verify_take_line(work, answer, &answer->line[i]))
            return false;
    }
    return true;
}

/* -- objects ----------------------------------------------------------------------------------------------
 */

static void verify_show_progress(struct verify_work *work)
{
    int64_t now = clock_monotonic();
    if (!work->progress || now - work->told < CLOCK_NS_PER_SECOND)
        return;
    work->told = now;
    double seconds = (double)(now - work->started) / (double)CLOCK_NS_PER_SECOND;
    fprintf(stderr, "\r\033[K%.0f %%, %.1f GiB read, %.0f MiB/s, %" PRIu64 " damaged",
            work->total > 0 ? 100.0 * (double)work->done / (double)work->total : 100.0,
            (double)work->checked / (1 << 30),
            (double)work->checked / VERIFY_MIB / (seconds > 0 ? seconds : 1), work->damaged);
}

/* Sleeps until what was read is no more than the rate allows. */
static void verify_keep_rate(const struct verify_work *work)
{
    if (!work->rate)
        return;
    double seconds = (double)work->checked / VERIFY_MIB / work->rate;
    int64_t until = work->started + (int64_t)(seconds * (double)CLOCK_NS_PER_SECOND);
    struct timespec time = clock_to_timespec(until);
    while (until > clock_monotonic() && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
        continue;
}

static int64_t verify_budget(const struct verify_work *work)
{
    int64_t budget = (int64_t)work->rate * VERIFY_MIB / VERIFY_STEPS_A_SECOND;
    return work->rate && budget < VERIFY_STEP ? budget : VERIFY_STEP;
}

static int verify_explain(const struct verify_work *work, errint error)
{
    const char *place = work->source.mountpoint ? work->source.mountpoint : work->source.store->path;
    verify_end_progress(work);
    switch (-error) {
    case EPERM:
    case EACCES:
        log_error("%s may not be verified: %s; run as the user who mounted it or as root", place,
                  strerror(-error));
        return EXIT_NOT_PERMITTED;
    case ENOTCONN:
    case ECONNABORTED:
        log_error("%s is a dead mount: its daemon is gone; run `ckptfs umount %s`", place, place);
        return EXIT_MOUNTPOINT_DEAD;
    case ENOTTY:
    case EPROTO:
        log_error("%s is served by another version of the program; run `ckptfs restart %s`", place, place);
        return EXIT_FAILED;
    default: log_error("%s cannot be verified: %s", place, strerror(-error)); return EXIT_FAILED;
    }
}

static int verify_one(struct verify_work *work, const struct control_object *object,
                      struct verify_answer *answer)
{
    uint32_t worst = VERIFY_LOOKED_AT;
    int64_t offset = 0;
    do {
        errint error =
            verify_source_step(&work->source, object->id, offset, verify_budget(work), work->repair, answer);
        if (error)
            return verify_explain(work, error);
        if (!verify_take_answer(work, answer))
            return EXIT_FAILED;
        worst = answer->state != VERIFY_LOOKED_AT ? answer->state : worst;
        work->done += (answer->next < 0 ? object->size : answer->next) - offset;
        offset = answer->next;
        verify_show_progress(work);
        verify_keep_rate(work);
    } while (offset >= 0);
    work->objects += worst == VERIFY_LOOKED_AT;
    work->unhashed += worst == VERIFY_UNHASHED;
    work->unverifiable += worst == VERIFY_UNVERIFIABLE;
    work->changed += worst == VERIFY_CHANGED;
    return EXIT_FINE;
}

static int verify_compare_objects(const void *a, const void *b)
{
    const struct control_object *left = a, *right = b;
    return (left->id > right->id) - (left->id < right->id);
}

/* Files share objects: each is looked at once. */
static void verify_drop_doubles(struct verify_objects *objects)
{
    size_t kept = 0;
    if (objects->count)
        qsort(objects->at, objects->count, sizeof *objects->at, verify_compare_objects);
    for (size_t i = 0; i < objects->count; i++) {
        if (kept == 0 || objects->at[i].id != objects->at[kept - 1].id)
            objects->at[kept++] = objects->at[i];
    }
    objects->count = kept;
}

static int verify_all(struct verify_work *work, struct verify_objects *objects)
{
    cleanup_free struct verify_answer *answer = malloc(sizeof *answer);
    if (!answer)
        return verify_explain(work, -ENOMEM);
    verify_drop_doubles(objects);
    for (size_t i = 0; i < objects->count; i++)
        work->total += objects->at[i].size;
    for (size_t i = 0; i < objects->count; i++) {
        int code = verify_one(work, &objects->at[i], answer);
        if (code)
            return code;
    }
    verify_end_progress(work);
    return EXIT_FINE;
}

static int verify_collect(struct verify_work *work, char **paths, struct verify_objects *objects)
{
    if (!*paths) {
        errint error = verify_source_objects(&work->source, 0, objects);
        return error ? verify_explain(work, error) : EXIT_FINE;
    }
    for (; *paths; paths++) {
        cleanup_ids struct ids files = {0};
        errint error = verify_source_files(&work->source, *paths, &files);
        if (error) {
            log_error("%s: %s; a PATH is one from the root of the mount", *paths, strerror(-error));
            return EXIT_FAILED;
        }
        for (size_t i = 0; !error && i < files.count; i++)
            error = verify_source_objects(&work->source, files.at[i], objects);
        if (error)
            return verify_explain(work, error);
    }
    return EXIT_FINE;
}

/* -- the end ----------------------------------------------------------------------------------------------
 */

static int verify_compare_inodes(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static size_t verify_count_files(struct ids *files)
{
    size_t count = 0;
    if (files->count)
        qsort(files->at, files->count, sizeof *files->at, verify_compare_inodes);
    for (size_t i = 0; i < files->count; i++)
        count += i == 0 || files->at[i] != files->at[i - 1];
    return count;
}

static bool verify_print_json(struct verify_work *work, size_t files, int code)
{
    const struct {
        const char *name;
        double number;
    } numbers[] = {
        {"verified_objects", (double)work->objects},   {"verified_bytes", (double)work->checked},
        {"damaged_ranges", (double)work->damaged},     {"damaged_files", (double)files},
        {"repaired_parts", (double)work->repaired},    {"unverifiable_objects", (double)work->unverifiable},
        {"unhashed_objects", (double)work->unhashed},  {"changed_objects", (double)work->changed},
        {"findings_left_out", (double)work->left_out}, {"exit_code", code},
    };
    cJSON *document = cJSON_CreateObject();
    bool fine = cJSON_AddItemToObject(document, "findings", work->findings);
    if (fine)
        work->findings = NULL;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        fine = fine && cJSON_AddNumberToObject(document, numbers[i].name, numbers[i].number);
    char *text = fine ? cJSON_Print(document) : NULL;
    if (text)
        puts(text);
    else
        log_error("verify: out of memory");
    free(text);
    cJSON_Delete(document);
    return text;
}

static void verify_print_summary(const struct verify_work *work, size_t files)
{
    if (work->left_out)
        printf("parts of files that are not listed: %" PRIu64 "\n", work->left_out);
    printf("objects verified: %" PRIu64 " (%.1f MiB); damaged ranges: %" PRIu64 ", in files: %zu",
           work->objects, (double)work->checked / VERIFY_MIB, work->damaged, files);
    if (work->repair)
        printf("; parts of files repaired: %" PRIu64, work->repaired);
    if (work->unverifiable)
        printf("; objects that cannot be verified: %" PRIu64, work->unverifiable);
    if (work->unhashed)
        printf("; not hashed yet: %" PRIu64, work->unhashed);
    if (work->changed)
        printf("; changed meanwhile: %" PRIu64, work->changed);
    putchar('\n');
}

static int verify_finish(struct verify_work *work)
{
    size_t files = verify_count_files(&work->damaged_files);
    int code = work->damaged ? EXIT_DAMAGE_LEFT : work->unverifiable ? EXIT_NOT_VERIFIABLE : EXIT_FINE;
    if (!work->json)
        verify_print_summary(work, files);
    else if (!verify_print_json(work, files, code))
        return EXIT_FAILED;
    return code;
}

static int verify_open_and_run(struct verify_work *work, const char *place, char **paths)
{
    struct verify_objects objects = {0};
    int code = verify_source_open(place, &work->source);
    if (!code)
        code = verify_collect(work, paths, &objects);
    if (!code)
        code = verify_all(work, &objects);
    if (!code)
        code = verify_finish(work);
    free(objects.at);
    verify_source_close(&work->source);
    ids_release(&work->damaged_files);
    cJSON_Delete(work->findings);
    return code;
}

/* A whole number of MiB a second; at least 1. */
static bool verify_parse_rate(const char *text, unsigned *out)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    *out = (unsigned)number;
    return *text >= '0' && *text <= '9' && *end == '\0' && !errno && number >= 1 && number <= VERIFY_RATE_MAX;
}

static int verify_run(int argc, char **argv)
{
    static const struct option long_options[] = {{"json", no_argument, NULL, 'j'},
                                                 {"repair", no_argument, NULL, 'p'},
                                                 {"rate", required_argument, NULL, 'r'},
                                                 {0}};
    struct verify_work work = {.source = {.fd = -1}, .started = clock_monotonic()};
    int option;
    while ((option = getopt_long(argc, argv, ":jpr:", long_options, NULL)) != -1) {
        if (option == 'j')
            work.json = true;
        else if (option == 'p')
            work.repair = true;
        else if (option != 'r')
            return command_usage_error(&command_verify, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
        else if (!verify_parse_rate(optarg, &work.rate))
            return command_usage_error(&command_verify,
                                       "--rate: expected MiB a second, from 1 to %d, found '%s'",
                                       VERIFY_RATE_MAX, optarg);
    }
    if (optind == argc)
        return command_usage_error(&command_verify, "expected a MOUNTPOINT or STORE, found nothing");
    work.progress = isatty(STDERR_FILENO);
    if (work.json)
        work.findings = cJSON_CreateArray();
    return verify_open_and_run(&work, argv[optind], argv + optind + 1);
}

const struct command command_verify = {
    .name = "verify",
    .synopsis = "[-j] [-p] [-r MIB] MOUNTPOINT|STORE [PATH...]",
    .summary = "compare what is stored with its hashes, and tell which files are damaged",
    .details =
        "  -j, --json              one JSON document\n"
        "  -p, --repair            take damaged bytes from an equal place of the store, where there is one\n"
        "  -r, --rate MIB          read no more than this many MiB a second\n"
        "\n"
        "Each PATH, from the root of the mount, is a file or a directory; without one everything is\n"
        "looked at. A STORE must not be mounted.\n",
    .run = verify_run,
};
