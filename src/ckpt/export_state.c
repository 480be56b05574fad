/* SPDX-License-Identifier: Apache-2.0 */
/* The file of state. */
#include "ckpt/export_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/text.h"
#include "base/transfer.h"

/* More of it is not read; a model of a thousand shards has less. */
enum { STATE_BYTES_MAX = 64 << 20, STATE_FIELDS = 6 };

#define STATE_FIRST_LINE "ckptfs-export 1 "

/* -- reading ----------------------------------------------------------------------------------------------
 */

static bool state_parse_sum(const char *text, uint8_t out[SHA256_BYTES])
{
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        unsigned byte;
        int end = 0;
        if (sscanf(text + 2 * i, "%2x%n", &byte, &end) != 1 || end != 2)
            return false;
        out[i] = (uint8_t)byte;
    }
    return true;
}

/* KIND INO LENGTH MTIME SUM NAME */
static void state_take_line(struct export_state *state, const struct export_job *job, const char *line)
{
    struct export_mark mark = {0};
    char kind[8], sum[SHA256_TEXT];
    int end = 0;
    if (sscanf(line, "%7s %" SCNu64 " %" SCNd64 " %" SCNd64 " %64s %n", kind, &mark.ino, &mark.length,
               &mark.mtime, sum, &end) != STATE_FIELDS - 1 ||
        end == 0 || strlen(sum) != SHA256_TEXT - 1 || !state_parse_sum(sum, mark.sum))
        return;
    mark.whole = strcmp(kind, "whole") == 0;
    for (size_t i = 0; i < job->count; i++) {
        if (strcmp(job->files[i].name, line + end) == 0 && mark.length >= 0 &&
            mark.length <= job->files[i].size)
            state->marks[i] = mark;
    }
}

/* False: it is of another job. */
static bool state_parse(struct export_state *state, const struct export_job *job, char *text)
{
    char *end = strchr(text, '\n');
    if (!end || strncmp(text, STATE_FIRST_LINE, sizeof STATE_FIRST_LINE - 1) != 0)
        return false;
    *end = '\0';
    if (strcmp(text + sizeof STATE_FIRST_LINE - 1, job->fingerprint) != 0)
        return false;
    for (char *line = end + 1; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        state_take_line(state, job, line);
    }
    return true;
}

static errint state_read(struct export_state *state, const struct export_job *job, bool *known)
{
    struct stat status;
    *known = false;
    if (fstat(state->fd, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || status.st_uid != geteuid())
        return -EPERM;
    if (status.st_size > STATE_BYTES_MAX)
        return 0;
    cleanup_free char *text = calloc(1, (size_t)status.st_size + 1);
    if (!text)
        return -ENOMEM;
    errint error = transfer_read(state->fd, text, (size_t)status.st_size, 0);
    if (!error)
        *known = state_parse(state, job, text);
    return error;
}

/* -- writing ----------------------------------------------------------------------------------------------
 */

static errint state_write(const struct export_state *state, const struct text *line)
{
    if (line->failed)
        return -ENOMEM;
    for (size_t done = 0; done < line->length;) {
        ssize_t wrote = write(state->fd, line->at + done, line->length - done);
        if (wrote < 0 && errno != EINTR)
            return -errno;
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return 0;
}

errint export_state_add(const struct export_state *state, const struct export_job *job, size_t file,
                        const struct export_mark *mark)
{
    cleanup_text struct text line = {0};
    char sum[SHA256_TEXT];
    sha256_text(mark->sum, sum);
    text_print(&line, "%s %" PRIu64 " %" PRId64 " %" PRId64 " %s %s\n", mark->whole ? "whole" : "part",
               mark->ino, mark->length, mark->mtime, sum, job->files[file].name);
    return state_write(state, &line);
}

errint export_state_open(int directory, const char *name, const struct export_job *job,
                         struct export_state *out, bool *fresh)
{
    bool known = false;
    *fresh = true;
    out->marks = calloc(job->count + 1, sizeof *out->marks);
    if (!out->marks)
        return -ENOMEM;
    out->fd =
        openat(directory, name, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    errint error = out->fd < 0 ? -errno : state_read(out, job, &known);
    if (error || known) {
        *fresh = !known;
        return error;
    }
    cleanup_text struct text line = {0};
    text_print(&line, STATE_FIRST_LINE "%s\n", job->fingerprint);
    return ftruncate(out->fd, 0) < 0 ? -errno : state_write(out, &line);
}

void export_state_release(struct export_state *state)
{
    if (state->fd >= 0)
        close(state->fd);
    free(state->marks);
    *state = (struct export_state){.fd = -1};
}
