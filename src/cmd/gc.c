/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs gc`: what waits to be given back to the disk, and giving it back now. */
#include <cjson/cJSON.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/size_text.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "cmd/mounted.h"
#include "fs/control.h"

enum { GC_SECONDS = 60, GC_LOOK_MS = 100, GC_LOOK_MS_MAX = 1000 };

struct gc {
    const struct mount_entry *entry;
    int64_t deadline;
    struct control_reclaim before, after;
};

static int gc_ask(const struct gc *gc, bool now, struct control_reclaim *out)
{
    int64_t left = gc->deadline - clock_monotonic();
    unsigned seconds = left > 0 ? (unsigned)(left / CLOCK_NS_PER_SECOND) + 1 : 1;
    *out = (struct control_reclaim){.now = now};
    return mounted_ask_ioctl(gc->entry, seconds, CKPTFS_IOCTL_RECLAIM, out, sizeof *out);
}

/* Objects that a further try could still give something back of. */
static uint64_t gc_count_waiting(const struct control_reclaim *state)
{
    uint64_t part = state->punch_objects - state->held_objects;
    /* What could not be repacked a moment ago cannot be now. */
    if (!state->can_punch)
        part =
            state->repack_objects > state->repack_failed ? state->repack_objects - state->repack_failed : 0;
    return part + state->remove_objects;
}

static uint64_t gc_count_freed(const struct gc *gc)
{
    uint64_t before = gc->before.punch_bytes + gc->before.remove_bytes;
    uint64_t after = gc->after.punch_bytes + gc->after.remove_bytes;
    return before > after ? before - after : 0;
}

/* Has the daemon try, until only what is held is left. */
static int gc_collect(struct gc *gc)
{
    int code = gc_ask(gc, true, &gc->after);
    uint64_t ticket = gc->after.asked;
    /* A single look may fall into a try, which itself holds what it works on. */
    unsigned quiet = 0;
    for (long pause = GC_LOOK_MS; !code; pause = pause * 2 < GC_LOOK_MS_MAX ? pause * 2 : GC_LOOK_MS_MAX) {
        if (gc->after.done >= ticket && gc_count_waiting(&gc->after) == 0)
            quiet++;
        else
            quiet = 0;
        if (quiet >= 2 || (quiet && gc->after.punch_objects == 0))
            return EXIT_FINE;
        if (clock_monotonic() >= gc->deadline)
            return EXIT_TIMED_OUT;
        nanosleep(&(struct timespec){.tv_sec = pause / 1000, .tv_nsec = pause % 1000 * 1000000}, NULL);
        code = gc_ask(gc, false, &gc->after);
    }
    return code;
}

/* -- telling ----------------------------------------------------------------------------------------------
 */

static void gc_print_sum(const char *label, uint64_t objects, const char *unit, uint64_t bytes)
{
    char text[SIZE_TEXT_MAX];
    printf("%-24s%*s in %" PRIu64 " %s%s\n", label, SIZE_TEXT_WIDTH, size_text((double)bytes, text), objects,
           unit, objects == 1 ? "" : "s");
}

static void gc_print_repacking(const struct control_reclaim *state)
{
    gc_print_sum("to be repacked", state->repack_objects, "object", state->repack_bytes);
    if (state->repack_failed)
        printf("%-24s%" PRIu64 "; the log says why\n", "could not be repacked", state->repack_failed);
    puts("the store's disk cannot punch holes: an object is written anew when half of it is dead");
}

static void gc_print(const struct gc *gc, bool dry)
{
    const struct control_reclaim *state = &gc->after;
    char text[SIZE_TEXT_MAX];
    if (!dry)
        printf("%-24s%*s\n", "given back", SIZE_TEXT_WIDTH, size_text((double)gc_count_freed(gc), text));
    gc_print_sum(dry ? "dead chunks" : "dead chunks left", state->punch_objects, "object",
                 state->punch_bytes);
    gc_print_sum("  held by open files", state->held_objects, "object", state->held_bytes);
    gc_print_sum(dry ? "unused objects" : "unused objects left", state->remove_objects, "object",
                 state->remove_bytes);
    gc_print_sum("deleted, still open", state->open_files, "file", state->open_bytes);
    if (state->unhashed_objects)
        printf("%-24s%" PRIu64 "\n", "objects not hashed yet", state->unhashed_objects);
    if (!state->can_punch)
        gc_print_repacking(state);
}

static bool gc_fill(cJSON *object, const struct control_reclaim *state)
{
    const struct {
        const char *key;
        uint64_t value;
    } rows[] = {
        {"punch_objects", state->punch_objects},   {"punch_bytes", state->punch_bytes},
        {"held_objects", state->held_objects},     {"held_bytes", state->held_bytes},
        {"repack_objects", state->repack_objects}, {"repack_bytes", state->repack_bytes},
        {"repack_failed", state->repack_failed},   {"remove_objects", state->remove_objects},
        {"remove_bytes", state->remove_bytes},     {"unhashed_objects", state->unhashed_objects},
        {"open_files", state->open_files},         {"open_bytes", state->open_bytes},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!cJSON_AddNumberToObject(object, rows[i].key, (double)rows[i].value))
            return false;
    }
    return true;
}

static bool gc_fill_document(cJSON *document, const struct gc *gc, bool dry)
{
    if (!cJSON_AddStringToObject(document, "mountpoint", gc->entry->mountpoint) ||
        !cJSON_AddBoolToObject(document, "can_punch", gc->before.can_punch != 0))
        return false;
    cJSON *before = cJSON_AddObjectToObject(document, "before");
    if (!before || !gc_fill(before, &gc->before))
        return false;
    if (dry)
        return true;
    cJSON *after = cJSON_AddObjectToObject(document, "after");
    return after && gc_fill(after, &gc->after) &&
           cJSON_AddNumberToObject(document, "freed_bytes", (double)gc_count_freed(gc));
}

static int gc_print_json(const struct gc *gc, bool dry)
{
    cJSON *document = cJSON_CreateObject();
    cleanup_free char *text = document && gc_fill_document(document, gc, dry) ? cJSON_Print(document) : NULL;
    cJSON_Delete(document);
    if (!text) {
        log_error("gc: no memory");
        return EXIT_FAILED;
    }
    puts(text);
    return EXIT_FINE;
}

/* -- the command ------------------------------------------------------------------------------------------
 */

static int gc_mount(const struct mount_entry *entry, unsigned seconds, bool dry, bool json)
{
    struct gc gc = {.entry = entry, .deadline = clock_monotonic() + (int64_t)seconds * CLOCK_NS_PER_SECOND};
    int code = gc_ask(&gc, false, &gc.before);
    if (code)
        return code;
    gc.after = gc.before;
    code = dry ? EXIT_FINE : gc_collect(&gc);
    if (code && code != EXIT_TIMED_OUT)
        return code;
    int printed = EXIT_FINE;
    if (json)
        printed = gc_print_json(&gc, dry);
    else
        gc_print(&gc, dry);
    if (code)
        log_error("%s: not finished after %u s; its daemon goes on", entry->mountpoint, seconds);
    return code ? code : printed;
}

static int gc_run(int argc, char **argv)
{
    static const struct option long_options[] = {{"dry-run", no_argument, NULL, 'n'},
                                                 {"json", no_argument, NULL, 'j'},
                                                 {"timeout", required_argument, NULL, 't'},
                                                 {0}};
    bool dry = false, json = false;
    unsigned seconds = GC_SECONDS;
    int option;
    while ((option = getopt_long(argc, argv, ":njt:", long_options, NULL)) != -1) {
        if (option == 'n')
            dry = true;
        else if (option == 'j')
            json = true;
        else if (option != 't')
            return command_usage_error(&command_gc, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
        else if (!command_parse_seconds(optarg, &seconds))
            return command_usage_error(&command_gc, "--timeout: expected seconds, found '%s'", optarg);
    }
    if (argc - optind != 1)
        return command_usage_error(&command_gc, "expected MOUNTPOINT, found %d arguments", argc - optind);
    cleanup_mount_table struct mount_table table = {0};
    const struct mount_entry *entry;
    int code = mounted_find(argv[optind], &table, &entry);
    return code ? code : gc_mount(entry, seconds, dry, json);
}

const struct command command_gc = {
    .name = "gc",
    .synopsis = "[-n] [-j] [-t SECONDS] MOUNTPOINT",
    .summary = "give back to the disk now what no file needs any more",
    .details = "  -n, --dry-run           only tell what waits\n"
               "  -j, --json              one JSON document\n"
               "  -t, --timeout SECONDS   do not wait longer than this (60)\n",
    .run = gc_run,
};
