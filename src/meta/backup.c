/* SPDX-License-Identifier: Apache-2.0 */
/* Backups of the namespace while it is used. */
#include <errno.h>
#include <time.h>

#include "meta/check.h"
#include "meta/internal.h"

enum {
    BACKUP_PAUSE_NS = 500 * 1000, /* after each step */
    BACKUP_LOG_SPARED = 8, /* such a part less than what makes commits wait for the log to be emptied */
};

struct backup {
    struct meta *meta;
    bool (*stop)(void *context);
    void *context;
    bool too_much;
};

static bool backup_stop(void *context)
{
    struct backup *backup = context;
    if (!backup->stop)
        return false;
    if (backup->stop(backup->context))
        return true;
    struct meta *meta = backup->meta;
    pthread_mutex_lock(&meta->lock);
    backup->too_much = db_log_size(meta->db) > meta->log_limit - meta->log_limit / BACKUP_LOG_SPARED;
    pthread_mutex_unlock(&meta->lock);
    if (!backup->too_much)
        nanosleep(&(struct timespec){.tv_nsec = BACKUP_PAUSE_NS}, NULL);
    return backup->too_much;
}

errint backup_copy(struct meta *meta, const char *path, bool (*stop)(void *context), void *context,
                   struct db_copy **out)
{
    struct backup backup = {.meta = meta, .stop = stop, .context = context};
    errint error = db_copy_open(meta->db, out);
    if (error)
        return error;
    pthread_mutex_lock(&meta->lock);
    error = db_copy_begin(*out);
    pthread_mutex_unlock(&meta->lock);
    if (!error)
        error = db_copy_write(*out, path, backup_stop, &backup);
    return error == -ECANCELED && backup.too_much ? -EAGAIN : error;
}

errint meta_backup(struct meta *meta, const char *path, bool (*stop)(void *context), void *context)
{
    struct db_copy *copy;
    errint error = backup_copy(meta, path, stop, context, &copy);
    db_copy_close(copy);
    return error;
}
