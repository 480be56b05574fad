/* SPDX-License-Identifier: Apache-2.0 */
/* Files whose text is made when they are opened: the status, for people and as JSON, and the metrics. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fs/control_report.h"
#include "fs/metrics.h"
#include "fs/status_text.h"
#include "fs/view.h"

/* Numbers of handles that the state memory never gives out. */
#define VIEW_STATUS_FH (UINT64_C(1) << 63)

/* So many texts one user has open at a time: they take memory. */
enum { VIEW_TEXTS_OF_ONE = 64 };

struct view_text {
    struct view_text *next;
    uint64_t fh;
    uint32_t uid; /* whose handle it is */
    struct text text;
};

static pthread_mutex_t view_texts_lock = PTHREAD_MUTEX_INITIALIZER;
static struct view_text *view_texts;
static uint64_t view_texts_next = VIEW_STATUS_FH;

/* -- making -----------------------------------------------------------------------------------------------
 */

static errint view_text_write_status(struct report *report, struct text *out)
{
    cJSON *document;
    errint error = control_describe_all(report, &document);
    if (error)
        return error;
    status_text_print(out, document);
    status_text_watch(out, document);
    cJSON_Delete(document);
    return 0;
}

static errint view_text_write_json(struct report *report, struct text *out)
{
    cJSON *document;
    errint error = control_describe_all(report, &document);
    if (error)
        return error;
    cleanup_free char *text = cJSON_Print(document);
    cJSON_Delete(document);
    if (!text)
        return -ENOMEM;
    text_append_word(out, text);
    text_append_word(out, "\n");
    return 0;
}

static const struct view_text_row {
    const char *name;
    errint (*write)(struct report *report, struct text *out);
} view_text_rows[] = {
    {"status", view_text_write_status},
    {"status.json", view_text_write_json},
    {"metrics", metrics_write},
};

enum { VIEW_TEXT_ROWS = sizeof view_text_rows / sizeof *view_text_rows };

const char *view_text_name(uint64_t which)
{
    return which < VIEW_TEXT_ROWS ? view_text_rows[which].name : NULL;
}

static void view_text_free(struct view_text *text)
{
    if (text)
        text_release(&text->text);
    free(text);
}

static bool view_text_may_open(uint32_t uid)
{
    size_t count = 0;
    pthread_mutex_lock(&view_texts_lock);
    for (const struct view_text *text = view_texts; text; text = text->next)
        count += text->uid == uid;
    pthread_mutex_unlock(&view_texts_lock);
    return count < VIEW_TEXTS_OF_ONE;
}

/* `fh`: 0 for a new handle; *fh is the text's then. */
static errint view_text_make(struct report *report, uint64_t *fh)
{
    uint64_t which = view_text_of(report->ino);
    struct view_text *text = calloc(1, sizeof *text);
    errint error = text ? 0 : -ENOMEM;
    if (!error)
        error = which < VIEW_TEXT_ROWS ? view_text_rows[which].write(report, &text->text) : -ENOENT;
    if (!error && text->text.failed)
        error = -ENOMEM;
    if (error) {
        view_text_free(text);
        return error;
    }
    pthread_mutex_lock(&view_texts_lock);
    text->fh = *fh ? *fh : view_texts_next++;
    text->uid = report->uid;
    text->next = view_texts;
    view_texts = text;
    *fh = text->fh;
    pthread_mutex_unlock(&view_texts_lock);
    return 0;
}

/* -- requests ---------------------------------------------------------------------------------------------
 */

static void view_text_answer_open(struct report *report)
{
    uint64_t fh = 0;
    errint error = view_text_may_open(report->uid) ? view_text_make(report, &fh) : -EMFILE;
    if (error) {
        report_fail(report, error);
        return;
    }
    /* Its size is not known before. */
    struct fuse_file_info fi = {.fh = fh, .direct_io = 1};
    if (fuse_reply_open(report->request, &fi) < 0)
        view_status_close(fh);
}

void view_status_open(fuse_req_t request, uint64_t ino)
{
    report_later(request, &(struct report){.ino = ino, .answer = view_text_answer_open});
}

static bool view_text_reply(fuse_req_t request, size_t size, uint64_t offset, uint64_t fh)
{
    pthread_mutex_lock(&view_texts_lock);
    struct view_text *text = view_texts;
    while (text && text->fh != fh)
        text = text->next;
    if (text) {
        size_t from = offset < text->text.length ? (size_t)offset : text->text.length;
        size_t rest = text->text.length - from;
        fuse_reply_buf(request, rest ? text->text.at + from : NULL, rest < size ? rest : size);
    }
    pthread_mutex_unlock(&view_texts_lock);
    return text != NULL;
}

static void view_text_answer_read(struct report *report)
{
    uint64_t fh = report->fh;
    errint error = view_text_make(report, &fh);
    if (error)
        report_fail(report, error);
    else if (!view_text_reply(report->request, report->room, report->argument, fh))
        fuse_reply_err(report->request, EIO);
}

void view_status_read(fuse_req_t request, uint64_t ino, size_t size, off_t offset, uint64_t fh)
{
    if (view_text_reply(request, size, (uint64_t)offset, fh))
        return;
    /* An earlier daemon opened it. */
    report_later(request, &(struct report){.ino = ino,
                                           .fh = fh,
                                           .argument = (uint64_t)offset,
                                           .room = size,
                                           .answer = view_text_answer_read});
}

void view_status_close(uint64_t fh)
{
    pthread_mutex_lock(&view_texts_lock);
    struct view_text **link = &view_texts;
    while (*link && (*link)->fh != fh)
        link = &(*link)->next;
    struct view_text *text = *link;
    if (text)
        *link = text->next;
    pthread_mutex_unlock(&view_texts_lock);
    view_text_free(text);
}
