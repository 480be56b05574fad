/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a mount for an export. */
#include "cmd/export_asked.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "cmd/directory.h"
#include "cmd/exit.h"
#include "format/plain_text.h"
#include "fs/control.h"

enum { ASKED_PAUSE_MS = 20, ASKED_PAUSE_MAX_MS = 500 };

static int asked_explain(const char *path, int error)
{
    if (error != ENOENT)
        return directory_explain(path, error);
    log_error("%s: no policy says where to; `ckptfs policy set RUN export=DIR` makes one, and "
              "`ckptfs export %s DIR` needs none",
              path, path);
    return EXIT_FAILED;
}

/* Asks once: EXIT_FINE and the answer, or the exit code. The directory is not kept open, since it would keep
 * the mount. */
static int asked_once(const char *path, bool ask, struct control_export *answer)
{
    cleanup_fd int fd = -1;
    int code = directory_open(path, &fd);
    if (code)
        return code;
    *answer = (struct control_export){.ask = ask};
    int error = directory_ask(fd, CKPTFS_IOCTL_EXPORT, answer);
    answer->text[sizeof answer->text - 1] = '\0';
    return error ? asked_explain(path, error) : EXIT_FINE;
}

static bool asked_is_over(const struct control_export *answer)
{
    return answer->state != CONTROL_EXPORT_WAITING && answer->state != CONTROL_EXPORT_RUNNING;
}

int export_asked(const char *path, bool quiet)
{
    struct control_export answer;
    int code = asked_once(path, true, &answer);
    for (long pause = ASKED_PAUSE_MS; !code && !asked_is_over(&answer);
         pause = pause < ASKED_PAUSE_MAX_MS ? pause * 2 : pause) {
        nanosleep(&(struct timespec){.tv_sec = pause / 1000, .tv_nsec = pause % 1000 * 1000000}, NULL);
        code = asked_once(path, false, &answer);
    }
    if (code)
        return code;
    if (answer.state == CONTROL_EXPORT_DONE) {
        if (!quiet)
            printf("%s\n", answer.text);
        return EXIT_FINE;
    }
    cleanup_free char *text = plain_text(answer.text);
    log_error("%s: not exported: %s", path, text && *text ? text : "the mount's log says why");
    return EXIT_FAILED;
}
