/* SPDX-License-Identifier: Apache-2.0 */
/* Telling the kernel of names that lead to another inode now. */
#include "fs/expire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { EXPIRE_PAGE = 64 };

struct expire {
    struct filesystem *fs;
    fuse_req_t request; /* NULL: nobody waits */
    uint64_t ino;
    uint64_t former;       /* the inode that had the names */
    struct meta_name name; /* the one, where it is not all of an inode's */
};

/* A name that the kernel does not have is -ENOENT, and fine. */
static void expire_tell(struct filesystem *fs, const struct meta_name *name)
{
    fuse_lowlevel_notify_inval_entry(fs->session, name->parent, name->bytes, name->length);
}

static void expire_run_one(void *context, unsigned worker)
{
    (void)worker;
    struct expire *expire = context;
    expire_tell(expire->fs, &expire->name);
    if (expire->request) {
        /* Its times, too. */
        fuse_lowlevel_notify_inval_inode(expire->fs->session, expire->ino, -1, 0);
        fuse_reply_ioctl(expire->request, 0, NULL, 0);
    }
    free(expire);
}

static void expire_run(void *context, unsigned worker)
{
    (void)worker;
    struct expire *expire = context;
    struct filesystem *fs = expire->fs;
    struct meta_name names[EXPIRE_PAGE], *last = NULL;
    size_t count;
    do {
        errint error = meta_find_names(fs->meta, expire->ino, last, names, EXPIRE_PAGE, &count);
        if (error) {
            log_warning("inode %llu: other names may show its former self: %s",
                        (unsigned long long)expire->ino, strerror(-error));
            break;
        }
        for (size_t i = 0; i < count; i++)
            expire_tell(fs, &names[i]);
        last = &names[EXPIRE_PAGE - 1];
    } while (count == EXPIRE_PAGE);
    fuse_lowlevel_notify_inval_inode(fs->session, expire->former, -1, 0);
    fuse_reply_err(expire->request, ESTALE);
    free(expire);
}

/* False: no more of them are taken. */
static bool expire_submit(const struct expire *wanted, workers_job *job)
{
    struct filesystem *fs = wanted->fs;
    struct expire *expire = malloc(sizeof *expire);
    if (!expire)
        return false;
    *expire = *wanted;
    pthread_mutex_lock(&fs->expirer.lock);
    bool taken = fs->expirer.workers && workers_submit(fs->expirer.workers, job, expire) == 0;
    pthread_mutex_unlock(&fs->expirer.lock);
    if (!taken)
        free(expire);
    return taken;
}

void expire_names(fuse_req_t request, uint64_t ino, uint64_t former)
{
    const struct expire wanted = {.fs = fs_of(request), .request = request, .ino = ino, .former = former};
    if (!expire_submit(&wanted, expire_run))
        fuse_reply_err(request, ESTALE);
}

void expire_name(struct filesystem *fs, const struct meta_name *name)
{
    const struct expire wanted = {.fs = fs, .name = *name};
    if (!expire_submit(&wanted, expire_run_one))
        log_warning("%s: may be seen by who had seen it, until the kernel looks it up anew", name->bytes);
}

void expire_name_for_ioctl(fuse_req_t request, uint64_t directory, const char *name, uint64_t ino)
{
    struct expire wanted = {.fs = fs_of(request), .request = request, .ino = ino, .name.parent = directory};
    snprintf(wanted.name.bytes, sizeof wanted.name.bytes, "%s", name);
    wanted.name.length = strlen(wanted.name.bytes);
    if (!expire_submit(&wanted, expire_run_one))
        fuse_reply_ioctl(request, 0, NULL, 0);
}

errint expire_start(struct filesystem *fs)
{
    pthread_mutex_init(&fs->expirer.lock, NULL);
    return workers_start(1, "expire", &fs->expirer.workers);
}

void expire_stop(struct filesystem *fs)
{
    if (!fs->expirer.workers)
        return;
    pthread_mutex_lock(&fs->expirer.lock);
    struct workers *workers = steal_pointer(fs->expirer.workers);
    pthread_mutex_unlock(&fs->expirer.lock);
    workers_stop(workers);
}
