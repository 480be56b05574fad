/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the mount to verify. */
#include "cmd/export_store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cmd/assemble_mounted.h"
#include "cmd/exit.h"
#include "cmd/progress.h"
#include "cmd/verify_source.h"
#include "fs/view.h"

struct store_check {
    const struct verify_source *source;
    struct verify_answer answer;
    const char *path; /* of the file */
    bool all, damaged;
};

static errint store_check_object(struct store_check *check, uint64_t object)
{
    struct verify_answer *answer = &check->answer;
    for (int64_t offset = 0; offset >= 0; offset = answer->next) {
        if (progress_signal())
            return -ECANCELED;
        errint error =
            verify_source_step(check->source, object, offset, CONTROL_VERIFY_MAX / 4, false, answer);
        if (error)
            return error;
        check->all &= answer->state == VERIFY_LOOKED_AT;
        for (uint32_t i = 0; i < answer->lines; i++)
            check->damaged |= verify_is_damage((enum verify_finding)answer->line[i].finding);
        if (answer->state != VERIFY_LOOKED_AT)
            return 0;
    }
    return 0;
}

static errint store_check_file(struct store_check *check, const struct folder *folder, const char *path)
{
    struct verify_objects objects = {0};
    struct format_source source;
    struct stat status;
    errint error = folder_open(folder, path, &source);
    if (error)
        return error;
    int fd = folder_plain_descriptor(&source);
    error = fd < 0 ? -ENOTTY : fstat(fd, &status) < 0 ? -errno : 0;
    folder_close(folder, &source);
    if (!error)
        error = verify_source_objects(check->source, view_target(status.st_ino), &objects);
    check->damaged = false;
    for (size_t i = 0; i < objects.count && !error; i++)
        error = store_check_object(check, objects.at[i].id);
    free(objects.at);
    if (!error && check->damaged) {
        log_error("%s: its bytes are not what the store's hashes say; `ckptfs verify` tells where", path);
        return -EBADMSG;
    }
    return error;
}

static errint store_check_all(struct store_check *check, const struct export_job *job)
{
    bool planned = false;
    errint error = 0;
    for (size_t i = 0; i < job->count && !error; i++) {
        planned |= job->files[i].planned != NULL;
        if (!job->files[i].planned)
            error = store_check_file(check, job->files[i].folder, job->files[i].path);
    }
    for (size_t i = 0; i < job->model->file_count && planned && !error; i++)
        error = store_check_file(check, job->folder, job->model->files[i].path);
    return error;
}

int export_store_check(const struct export_job *job, const char *path, bool *checked)
{
    cleanup_free char *mountpoint = assemble_mountpoint_of(path);
    cleanup_free struct store_check *check = calloc(1, sizeof *check);
    *checked = false;
    if (!mountpoint || !check)
        return EXIT_FINE;
    struct verify_source source = {.mountpoint = mountpoint,
                                   .fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    *check = (struct store_check){.source = &source, .all = true};
    errint error = source.fd < 0 ? -errno : store_check_all(check, job);
    if (source.fd >= 0)
        close(source.fd);
    *checked = !error && check->all;
    switch (-error) {
    case 0:
    case EPERM:
    case EACCES:
    case ENOTTY: return EXIT_FINE;
    case EBADMSG: return EXIT_DAMAGE_LEFT;
    case ECANCELED: return EXIT_FAILED;
    default: log_error("%s: its bytes cannot be verified: %s", path, strerror(-error)); return EXIT_FAILED;
    }
}
