/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs wait`: until a checkpoint is complete, durable or exported. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/clock.h"
#include "base/log.h"
#include "cmd/command.h"
#include "cmd/directory.h"
#include "cmd/event_stream.h"
#include "cmd/exit.h"
#include "cmd/ls.h"
#include "format/plain_text.h"
#include "fs/event.h"

/* A look at the files at least so often, where no events tell of them, or the mount is about to look; */
#define WAIT_LOOK_NS (CLOCK_NS_PER_SECOND / 2)
/* where they do, only for what nobody thought of. */
#define WAIT_RARE_NS (5 * CLOCK_NS_PER_SECOND)
/* and no more of the time is spent on looks than a part. */
enum { WAIT_REST = 4, WAIT_NS_PER_MS = 1000 * 1000 };

/* What is on stable storage waits no longer for the mount's look, which may never come. */
#define WAIT_SOON_NS (10 * CLOCK_NS_PER_SECOND)

enum wait_goal { WAIT_WEIGHTS, WAIT_COMPLETE, WAIT_DURABLE, WAIT_EXPORTED };
static const char *const wait_goals[] = {
    [WAIT_WEIGHTS] = "weights",
    [WAIT_COMPLETE] = "complete",
    [WAIT_DURABLE] = "durable",
    [WAIT_EXPORTED] = "exported",
};

enum wait_result { WAIT_ON, WAIT_REACHED, WAIT_NEVER };

struct wait {
    const char *path; /* as it was given, without slashes at its end */
    enum wait_goal goal;
    int64_t deadline; /* clock_monotonic(); INT64_MAX: none */
    struct event_stream stream;
    char *name;              /* the checkpoint's path on its mount; NULL: it is on no mount of ours */
    enum wait_result result; /* as the events tell */
    bool looks;              /* something has happened to it, or cannot be told */
    bool file;               /* at the last look: events tell of directories only */
    bool soon;               /* likewise: the mount has not looked at what is there */
    int64_t soon_since;      /* clock_monotonic(), of the first of those looks; 0: none */
    /* Likewise: what has the name; 0: nothing. No event tells of what was complete under another one. */
    dev_t device;
    ino_t ino;
    char state[32]; /* as the last look has found it */
    char reason[COMPLETE_NOTE_LENGTH + 1];
};

/* -- what the files tell ----------------------------------------------------------------------------------
 */

static char *wait_directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static const char *wait_name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool wait_state_reaches(const struct wait *wait, const char *state)
{
    bool durable = strcmp(state, "durable") == 0, complete = ls_state_is_complete(state);
    switch (wait->goal) {
    case WAIT_WEIGHTS: return complete || strcmp(state, complete_state_name(COMPLETE_WEIGHTS)) == 0;
    case WAIT_COMPLETE: return complete;
    case WAIT_DURABLE: return durable;
    case WAIT_EXPORTED: break;
    }
    return false; /* only an event tells */
}

static void wait_note(struct wait *wait, const struct complete *complete, const char *state)
{
    snprintf(wait->state, sizeof wait->state, "%s", state);
    wait->reason[0] = '\0';
    for (size_t i = 0; i < complete->note_count && !wait->reason[0]; i++) {
        if (complete->notes[i].missing)
            snprintf(wait->reason, sizeof wait->reason, "%s", complete->notes[i].text);
    }
}

/* The mount's word counts: whoever reads its links after the wait finds what was waited for. */
static void wait_note_mounted(struct wait *wait, const struct run_checkpoint *checkpoint,
                              const struct ls_mounted *mounted)
{
    const char *state = ls_state(checkpoint, mounted);
    bool complete = ls_state_is_complete(state);
    int64_t now = clock_monotonic();
    wait_note(wait, &checkpoint->complete, state);
    wait->soon = complete && mounted->known && mounted->life.waiting > 0 && !checkpoint->file &&
                 !ls_is_known_complete(mounted);
    if (!wait->soon || wait->soon_since == 0)
        wait->soon_since = wait->soon ? now : 0;
    if (wait->soon && strcmp(state, "durable") == 0)
        wait->soon = now - wait->soon_since < WAIT_SOON_NS;
    if (wait->soon) {
        snprintf(wait->state, sizeof wait->state, "writing");
        snprintf(wait->reason, sizeof wait->reason, "the mount has not looked at it yet");
    }
}

/* The checkpoint `name` of the run at `path` ("": that itself): 1 when it is there, 0, or an error. */
static int wait_judge(struct wait *wait, const char *path, const char *name)
{
    cleanup_run struct run run = {0};
    struct ls_mounted mounted = {0};
    errint error = ls_read(path, (struct ls_wish){.awaits = true}, &run);
    for (size_t i = 0; i < run.count && !error; i++) {
        if (strcmp(run.at[i].path, name) != 0)
            continue;
        error = ls_ask(path, &run.at[i], &mounted);
        if (!error)
            wait_note_mounted(wait, &run.at[i], &mounted);
        return error ? error : 1;
    }
    return error == -ENOENT || error == -ENOTDIR || error == -EBUSY ? 0 : error;
}

/* What others of the run have, and this one lacks, only the run tells; it is asked when all else is there. */
static errint wait_look(struct wait *wait, enum wait_result *result)
{
    struct stat status;
    wait->state[0] = wait->reason[0] = '\0';
    wait->looks = wait->file = wait->soon = false;
    wait->device = 0;
    wait->ino = 0;
    *result = WAIT_ON;
    if (stat(wait->path, &status) < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    wait->device = status.st_dev;
    wait->ino = status.st_ino;
    wait->file = !S_ISDIR(status.st_mode);
    int found = S_ISDIR(status.st_mode) ? wait_judge(wait, wait->path, "") : 1;
    if (found > 0 && (!S_ISDIR(status.st_mode) || wait_state_reaches(wait, wait->state))) {
        cleanup_free char *run = wait_directory_of(wait->path);
        found = run ? wait_judge(wait, run, wait_name_of(wait->path)) : -ENOMEM;
    }
    if (found < 0)
        return found;
    if (strcmp(wait->state, "torn") == 0)
        *result = WAIT_NEVER;
    else if (wait_state_reaches(wait, wait->state))
        *result = WAIT_REACHED;
    return 0;
}

/* -- what the daemon tells --------------------------------------------------------------------------------
 */

static bool wait_is_reached_by(const struct wait *wait, enum event_kind kind, const cJSON *event)
{
    const char *reason = event_stream_text(event, "reason");
    bool whole = !reason || strcmp(reason, complete_state_name(COMPLETE_WEIGHTS)) != 0;
    switch (wait->goal) {
    case WAIT_WEIGHTS: return kind == EVENT_COMPLETE || kind == EVENT_DURABLE;
    case WAIT_COMPLETE: return whole && (kind == EVENT_COMPLETE || kind == EVENT_DURABLE);
    case WAIT_DURABLE: return whole && kind == EVENT_DURABLE;
    case WAIT_EXPORTED: return kind == EVENT_EXPORTED;
    }
    return false;
}

/* Of what comes: the last word counts, but what was reached was reached. */
static bool wait_take(void *context, const char *line, const cJSON *event)
{
    (void)line;
    struct wait *wait = context;
    enum event_kind kind;
    const char *name = event_stream_text(event, "event");
    bool told = name && event_kind_parse(name, &kind);
    wait->looks |= !told; /* some are lost */
    if (!told || !event_stream_is_at(event, wait->name, false))
        return true;
    wait->looks = true;
    if (wait_is_reached_by(wait, kind, event))
        wait->result = WAIT_REACHED;
    else if (kind == EVENT_TORN || kind == EVENT_REMOVED)
        wait->result = WAIT_NEVER;
    else if (kind == EVENT_RESTORED)
        wait->result = WAIT_ON;
    return wait->result != WAIT_REACHED;
}

/* Of what is kept: only an export, as all else can be seen; a later save of the same name is not exported. */
static bool wait_take_kept(void *context, const char *line, const cJSON *event)
{
    (void)line;
    struct wait *wait = context;
    enum event_kind kind;
    const char *name = event_stream_text(event, "event");
    if (!name || !event_kind_parse(name, &kind) || !event_stream_is_at(event, wait->name, false))
        return true;
    if (kind == EVENT_EXPORTED)
        wait->result = WAIT_REACHED;
    else if (kind == EVENT_REMOVED || kind == EVENT_TORN || kind == EVENT_COMPLETE)
        wait->result = WAIT_ON;
    return true;
}

/* The deepest directory above the checkpoint that is there: a descriptor, and what of the path is behind it.
 */
static int wait_open_above(const char *path, const char **rest)
{
    cleanup_free char *above = wait_directory_of(path);
    while (above) {
        int fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 || (errno != ENOENT && errno != ENOTDIR) || strcmp(above, ".") == 0) {
            *rest = strcmp(above, ".") == 0 ? path : path + strlen(above);
            return fd < 0 ? -errno : fd;
        }
        char *next = wait_directory_of(above);
        free(above);
        above = next;
    }
    return -ENOMEM;
}

/* 0 also where there is no mount of ours. */
static errint wait_connect(struct wait *wait)
{
    struct statfs figures;
    const char *rest;
    cleanup_fd int fd = wait_open_above(wait->path, &rest);
    if (fd < 0)
        return fd;
    if (fstatfs(fd, &figures) < 0)
        return -errno;
    if (figures.f_type != FUSE_SUPER_MAGIC)
        return 0;
    errint error = event_stream_open(fd, true, &wait->stream);
    if (error == -ENOTTY || error == -ENOSYS || error == -EINVAL)
        return 0; /* another filesystem, or an older daemon */
    rest += strspn(rest, "/");
    if (!error && asprintf(&wait->name, "%s%s%s", wait->stream.path, *wait->stream.path ? "/" : "", rest) < 0)
        wait->name = NULL;
    return error || wait->name ? error : -ENOMEM;
}

/* -- waiting ----------------------------------------------------------------------------------------------
 */

/* Takes what is told, until `until` at the latest. */
static errint wait_listen(struct wait *wait, int64_t until)
{
    int64_t left = until - clock_monotonic();
    struct pollfd fd = {.fd = wait->stream.fd, .events = POLLIN};
    int ready = poll(&fd, 1, left > 0 ? (int)(left / WAIT_NS_PER_MS) + 1 : 0);
    if (ready <= 0)
        return ready < 0 && errno != EINTR ? -errno : 0;
    int got = event_stream_read(&wait->stream, wait_take, wait);
    return got < 0 ? got : got == 0 && wait->result == WAIT_ON ? -ENOTCONN : 0;
}

/* Whether the name is another's than at the last look. */
static bool wait_is_other(const struct wait *wait)
{
    struct stat status;
    bool there = stat(wait->path, &status) == 0;
    return there ? status.st_dev != wait->device || status.st_ino != wait->ino : wait->ino != 0;
}

/* Until something is told of the checkpoint, the time has come to look again, or the deadline. */
static errint wait_sleep(struct wait *wait, int64_t took)
{
    int64_t pause = wait->stream.fd >= 0 && !wait->file && !wait->soon ? WAIT_RARE_NS : WAIT_LOOK_NS;
    int64_t until = clock_monotonic() + (took * WAIT_REST > pause ? took * WAIT_REST : pause);
    bool more = true;
    errint error = 0;
    if (until > wait->deadline)
        until = wait->deadline;
    while (!error && more && !wait->looks && wait->result == WAIT_ON) {
        int64_t next = clock_monotonic() + WAIT_LOOK_NS;
        error = wait_listen(wait, next < until ? next : until);
        more = clock_monotonic() < until;
        wait->looks |= !error && wait_is_other(wait);
    }
    return error;
}

static errint wait_until(struct wait *wait, enum wait_result *result)
{
    for (;;) {
        int64_t begun = clock_monotonic();
        errint error = wait_look(wait, result);
        if (error || *result != WAIT_ON)
            return error;
        if (begun >= wait->deadline)
            return -ETIME;
        error = wait_sleep(wait, clock_monotonic() - begun);
        *result = wait->result;
        if (error || *result != WAIT_ON)
            return error;
    }
}

static int wait_explain(const struct wait *wait, errint error, enum wait_result result)
{
    cleanup_free char *path = plain_text(wait->path), *reason = plain_text(wait->reason);
    const char *state = *wait->state ? wait->state : "not there";
    const char *why = reason && *reason ? reason : "";
    if (!path || (error && error != -ETIME))
        return directory_explain(path ? path : "?", path ? -error : ENOMEM);
    if (error == -ETIME) {
        log_error("%s: the time is over: it is %s%s%s", path, state, *why ? ": " : "", why);
        return EXIT_TIMED_OUT;
    }
    if (result == WAIT_NEVER) {
        log_error("%s: is torn, or was removed: it will not be %s", path, wait_goals[wait->goal]);
        return EXIT_NEVER;
    }
    return EXIT_FINE;
}

static int wait_checkpoint(struct wait *wait)
{
    enum wait_result result = WAIT_ON;
    errint error = wait_connect(wait);
    if (!error && !wait->name && wait->goal >= WAIT_DURABLE) {
        cleanup_free char *path = plain_text(wait->path);
        log_error("%s: is on no mount of ckptfs: whether it is %s is not known there", path ? path : "?",
                  wait_goals[wait->goal]);
        return EXIT_NOT_MOUNTED;
    }
    if (!error && wait->goal == WAIT_EXPORTED)
        error = event_stream_kept(&wait->stream, 1, wait_take_kept, wait);
    result = wait->result;
    if (!error && result == WAIT_ON)
        error = wait_until(wait, &result);
    return wait_explain(wait, error, result);
}

/* -- the command ------------------------------------------------------------------------------------------
 */

static bool wait_parse_goal(const char *text, enum wait_goal *out)
{
    for (size_t i = 0; i < sizeof wait_goals / sizeof *wait_goals; i++) {
        if (strcmp(text, wait_goals[i]) == 0) {
            *out = (enum wait_goal)i;
            return true;
        }
    }
    return false;
}

/* EXIT_FINE, or the code of a usage error. */
static int wait_parse(int argc, char **argv, struct wait *wait)
{
    static const struct option long_options[] = {
        {"for", required_argument, NULL, 'f'}, {"timeout", required_argument, NULL, 't'}, {0}};
    unsigned seconds;
    int option;
    while ((option = getopt_long(argc, argv, ":f:t:", long_options, NULL)) != -1) {
        if (option == 'f' && !wait_parse_goal(optarg, &wait->goal))
            return command_usage_error(
                &command_wait, "--for: expected complete, durable, exported or weights, found '%s'", optarg);
        if (option == 't' && !command_parse_seconds(optarg, &seconds))
            return command_usage_error(&command_wait, "--timeout: expected seconds, found '%s'", optarg);
        if (option == 't')
            wait->deadline = clock_monotonic() + (int64_t)seconds * CLOCK_NS_PER_SECOND;
        if (option != 'f' && option != 't')
            return command_usage_error(&command_wait, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
    }
    if (argc - optind != 1 || !*argv[optind])
        return command_usage_error(&command_wait, "expected one CHECKPOINT");
    return EXIT_FINE;
}

static int wait_run(int argc, char **argv)
{
    struct wait wait = {.goal = WAIT_COMPLETE, .deadline = INT64_MAX, .stream = EVENT_STREAM_CLOSED};
    int code = wait_parse(argc, argv, &wait);
    if (code)
        return code;
    char *path = argv[optind];
    for (size_t length = strlen(path); length > 1 && path[length - 1] == '/'; length--)
        path[length - 1] = '\0';
    wait.path = path;
    code = wait_checkpoint(&wait);
    event_stream_close(&wait.stream);
    free(wait.name);
    return code;
}

const struct command command_wait = {
    .name = "wait",
    .synopsis = "[-f STATE] [-t SECONDS] CHECKPOINT",
    .summary = "wait until a checkpoint is complete, durable or exported",
    .details =
        "  -f, --for STATE        complete (default); durable: and on stable storage; exported: and on the\n"
        "                         plain disk; weights: a whole model, be it without what a resume needs\n"
        "  -t, --timeout SECONDS  give up then; 0: only look. Default: never\n"
        "\n"
        "CHECKPOINT need not exist yet. On a plain disk, complete and weights can be waited for. Exit "
        "status:\n"
        "0 it is so; 32 the time is over; 34 it never will be: it is torn, or was removed.\n",
    .run = wait_run,
};
