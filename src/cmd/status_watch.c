/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at mounts again and again. */
#include "cmd/status_watch.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "cmd/exit.h"
#include "cmd/mounted.h"
#include "format/plain_text.h"
#include "fs/status_text.h"

/* What is printed again and again, and where. */
struct watch_screen {
    const struct status_watch *watch;
    bool terminal;
    size_t drawn; /* lines of the last look that the next one is drawn over */
    bool again;   /* it is not the first look */
};

/* -- one mount --------------------------------------------------------------------------------------------
 */

static void watch_append_heading(struct text *out, const cJSON *document)
{
    const cJSON *mountpoint = cJSON_GetObjectItemCaseSensitive(document, "mountpoint");
    const cJSON *store = cJSON_GetObjectItemCaseSensitive(document, "store");
    cleanup_free char *where = plain_text(cJSON_IsString(mountpoint) ? mountpoint->valuestring : "?");
    cleanup_free char *what = plain_text(cJSON_IsString(store) ? store->valuestring : "?");
    time_t now = time(NULL);
    struct tm utc;
    char text[64];
    if (!gmtime_r(&now, &utc) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc))
        text[0] = '\0';
    text_print(out, "%s (store %s)  %s\n", where ? where : "?", what ? what : "?", text);
}

/* Appends what the mount says. An exit code, after a line was logged. */
static int watch_append_mount(const struct status_watch *watch, const struct mount_entry *entry,
                              struct text *out)
{
    cleanup_free char *json = NULL;
    int code = mounted_ask_everything(entry, watch->timeout, &json);
    if (code)
        return code;
    cJSON *document = cJSON_Parse(json);
    char *line = document && watch->json ? cJSON_PrintUnformatted(document) : NULL;
    if (!document || (watch->json && !line)) {
        log_error("%s gave a status that cannot be read; are its daemon and this command of one version?",
                  entry->mountpoint);
        cJSON_Delete(document);
        return EXIT_FAILED;
    }
    if (watch->json) {
        text_append_word(out, line);
        text_append_word(out, "\n");
        free(line);
    } else {
        watch_append_heading(out, document);
        status_text_watch(out, document);
    }
    cJSON_Delete(document);
    return EXIT_FINE;
}

static int watch_append_all(const struct status_watch *watch, struct text *out)
{
    cleanup_mount_table struct mount_table table = {0};
    if (mount_table_read(&table) != 0) {
        log_error("the mounts cannot be read: /proc is not mounted or memory is short");
        return EXIT_FAILED;
    }
    size_t found = 0;
    for (size_t i = 0; i < table.count; i++) {
        const struct mount_entry *entry = &table.entries[i];
        if (!mount_entry_is_ours(entry))
            continue;
        if (!watch->json && found++ > 0)
            text_append_word(out, "\n");
        /* One that does not answer says so on a line of the log; the others are shown. */
        watch_append_mount(watch, entry, out);
    }
    if (!watch->json && found == 0)
        text_append_word(out, "no ckptfs is mounted\n");
    return EXIT_FINE;
}

static int watch_append(const struct status_watch *watch, struct text *out)
{
    if (!watch->mountpoint)
        return watch_append_all(watch, out);
    cleanup_mount_table struct mount_table table = {0};
    const struct mount_entry *entry;
    int code = mounted_find(watch->mountpoint, &table, &entry);
    return code ? code : watch_append_mount(watch, entry, out);
}

/* -- the terminal -----------------------------------------------------------------------------------------
 */

/* How much of the line fits into so many columns; a character counts as one. */
static size_t watch_fit(const char *line, size_t length, size_t columns)
{
    size_t at = 0;
    for (; at < length && columns > 0; columns--) {
        at++;
        while (at < length && ((unsigned char)line[at] & 0xc0) == 0x80)
            at++;
    }
    return at;
}

/* Over what was drawn before: each line is cut to the terminal, so that none takes two of its lines. */
static void watch_draw(struct watch_screen *screen, const struct text *text)
{
    struct winsize window = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_row < 2 || window.ws_col < 2)
        window = (struct winsize){.ws_row = 24, .ws_col = 80};
    if (screen->drawn > 0)
        printf("\033[%zuA\r", screen->drawn);
    screen->drawn = 0;
    for (size_t at = 0; at < text->length && screen->drawn + 1 < window.ws_row; screen->drawn++) {
        const char *end = memchr(text->at + at, '\n', text->length - at);
        size_t length = end ? (size_t)(end - text->at) - at : text->length - at;
        fwrite(text->at + at, 1, watch_fit(text->at + at, length, window.ws_col - 1u), stdout);
        fputs("\033[K\n", stdout);
        at += length + 1;
    }
    fputs("\033[J", stdout);
}

static void watch_show(struct watch_screen *screen, const struct text *text)
{
    if (screen->terminal) {
        watch_draw(screen, text);
    } else {
        if (screen->again && !screen->watch->json)
            putchar('\n');
        fwrite(text->at, 1, text->length, stdout);
    }
    screen->again = true;
}

/* -- again and again --------------------------------------------------------------------------------------
 */

/* A descriptor that tells of the signals that end it; they do nothing else from now on. */
static int watch_hear_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return -1;
    return signalfd(-1, &set, SFD_CLOEXEC);
}

/* Until the next look: false when a signal came first. */
static bool watch_wait(int signal_fd, double seconds)
{
    int64_t deadline = clock_monotonic() + (int64_t)(seconds * (double)CLOCK_NS_PER_SECOND);
    for (;;) {
        int64_t left = deadline - clock_monotonic();
        struct pollfd event = {.fd = signal_fd, .events = POLLIN};
        if (left <= 0)
            return poll(&event, 1, 0) <= 0;
        int ready = poll(&event, 1, (int)(left / 1000000) + 1);
        if (ready > 0)
            return false;
        if (ready < 0 && errno != EINTR)
            return false;
    }
}

int status_watch_run(const struct status_watch *watch)
{
    struct watch_screen screen = {.watch = watch, .terminal = !watch->json && isatty(STDOUT_FILENO) == 1};
    cleanup_fd int signal_fd = watch_hear_signals();
    if (signal_fd < 0) {
        log_error("status: signals cannot be heard: %s", strerror(errno));
        return EXIT_FAILED;
    }
    do {
        cleanup_text struct text text = {0};
        int code = watch_append(watch, &text);
        /* A daemon that is being replaced answers again in a while. */
        if (code && !(screen.again && code == EXIT_TIMED_OUT))
            return code;
        if (text.failed) {
            log_error("status: out of memory");
            return EXIT_FAILED;
        }
        watch_show(&screen, &text);
        /* Nobody reads it any more. */
        if (fflush(stdout) != 0)
            return EXIT_FAILED;
    } while (watch_wait(signal_fd, watch->interval));
    return EXIT_FINE;
}
