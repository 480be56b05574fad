/* SPDX-License-Identifier: Apache-2.0 */
/* The file `status`: what `ckptfs status --json` prints, made when it is opened. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fs/control_report.h"
#include "fs/view.h"

/* Numbers of handles that the state memory never gives out. */
#define VIEW_STATUS_FH (UINT64_C(1) << 63)

struct view_text {
    struct view_text *next;
    uint64_t fh;
    size_t length;
    char *bytes;
};

static pthread_mutex_t view_texts_lock = PTHREAD_MUTEX_INITIALIZER;
static struct view_text *view_texts;
static uint64_t view_texts_next = VIEW_STATUS_FH;

static void view_text_free(struct view_text *text)
{
    if (text)
        free(text->bytes);
    free(text);
}

/* `fh`: 0 for a new handle. NULL: no memory. */
static struct view_text *view_text_make(fuse_req_t request, uint64_t fh)
{
    struct view_text *text = calloc(1, sizeof *text);
    if (!text || control_status_text(fs_of(request), fuse_req_ctx(request)->uid, &text->bytes) < 0) {
        view_text_free(text);
        return NULL;
    }
    text->length = strlen(text->bytes);
    pthread_mutex_lock(&view_texts_lock);
    text->fh = fh ? fh : view_texts_next++;
    text->next = view_texts;
    view_texts = text;
    pthread_mutex_unlock(&view_texts_lock);
    return text;
}

void view_status_open(fuse_req_t request, struct fuse_file_info *fi)
{
    struct view_text *text = view_text_make(request, 0);
    if (!text) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    uint64_t fh = fi->fh = text->fh;
    fi->direct_io = 1; /* its size is not known before */
    if (fuse_reply_open(request, fi) < 0)
        view_status_close(fh);
}

static bool view_status_answer(fuse_req_t request, size_t size, off_t offset, uint64_t fh)
{
    pthread_mutex_lock(&view_texts_lock);
    struct view_text *text = view_texts;
    while (text && text->fh != fh)
        text = text->next;
    if (text) {
        size_t from = (uint64_t)offset < text->length ? (size_t)offset : text->length;
        size_t rest = text->length - from;
        fuse_reply_buf(request, text->bytes + from, rest < size ? rest : size);
    }
    pthread_mutex_unlock(&view_texts_lock);
    return text != NULL;
}

void view_status_read(fuse_req_t request, size_t size, off_t offset, uint64_t fh)
{
    if (view_status_answer(request, size, offset, fh))
        return;
    /* An earlier daemon opened it. */
    if (!view_text_make(request, fh) || !view_status_answer(request, size, offset, fh))
        fuse_reply_err(request, ENOMEM);
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
