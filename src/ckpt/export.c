/* SPDX-License-Identifier: Apache-2.0 */
/* Names of exports, and whether two of them are the same. */
#include "ckpt/export.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

bool export_name_is_fine(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > EXPORT_NAME_MAX || name[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++) {
        if (name[i] == '/' || (uint8_t)name[i] < ' ' || name[i] == 0x7f)
            return false;
    }
    return true;
}

/* Says who a source is. One that is no file of a disk is only as long as it is. */
static errint export_add_source(struct text *text, const struct folder *folder, const char *path)
{
    struct format_source source;
    struct stat status;
    errint error = folder_open(folder, path, &source);
    if (error) {
        log_error("%s: %s", path, strerror(-error));
        return error;
    }
    int fd = folder_plain_descriptor(&source);
    text_print(text, "source %s %" PRId64, path, source.size);
    if (fd >= 0 && fstat(fd, &status) < 0)
        error = -errno;
    else if (fd >= 0)
        text_print(text, " %" PRIu64 " %" PRId64 " %" PRId64, (uint64_t)status.st_ino,
                   clock_from_timespec(&status.st_mtim), clock_from_timespec(&status.st_ctim));
    text_append_byte(text, '\n');
    folder_close(folder, &source);
    return error;
}

static errint export_describe(const struct export_job *job, const char *form, struct text *text)
{
    bool planned = false;
    errint error = 0;
    text_print(text, "ckptfs " PACKAGE_VERSION "\n%s\n", form);
    for (size_t i = 0; i < job->count && !error; i++) {
        const struct export_file *file = &job->files[i];
        text_print(text, "file %s %" PRId64 "\n", file->name, file->size);
        planned |= file->planned != NULL;
        if (!file->planned)
            error = export_add_source(text, file->folder, file->path);
    }
    for (size_t i = 0; i < job->model->file_count && planned && !error; i++)
        error = export_add_source(text, job->folder, job->model->files[i].path);
    return error ? error : text->failed ? -ENOMEM : 0;
}

errint export_identify(struct export_job *job, const char *form)
{
    cleanup_text struct text text = {0};
    cleanup_sha256 struct sha256 *sum = NULL;
    uint8_t bytes[SHA256_BYTES];
    errint error = export_describe(job, form, &text);
    if (!error)
        error = sha256_begin(&sum);
    if (!error) {
        sha256_add(sum, text.at, text.length);
        error = sha256_end(sum, bytes);
    }
    if (!error)
        sha256_text(bytes, job->fingerprint);
    return error;
}
