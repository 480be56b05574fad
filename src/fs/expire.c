/* SPDX-License-Identifier: Apache-2.0 */
/* Telling the kernel of names that lead to another inode now. */
#include "fs/expire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { EXPIRE_PAGE = 64 };

struct expire {
    struct filesystem *fs;
    fuse_req_t request;
    uint64_t ino;
};

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
        /* A name that the kernel does not have is -ENOENT, and fine. */
        for (size_t i = 0; i < count; i++)
            fuse_lowlevel_notify_inval_entry(fs->session, names[i].parent, names[i].bytes, names[i].length);
        last = &names[EXPIRE_PAGE - 1];
    } while (count == EXPIRE_PAGE);
    fuse_reply_err(expire->request, ESTALE);
    free(expire);
}

/* False: no more of them are taken. */
static bool expire_submit(struct filesystem *fs, fuse_req_t request, uint64_t ino)
{
    struct expire *expire = malloc(sizeof *expire);
    if (!expire)
        return false;
    *expire = (struct expire){fs, request, ino};
    pthread_mutex_lock(&fs->expirer.lock);
    bool taken = fs->expirer.workers && workers_submit(fs->expirer.workers, expire_run, expire) == 0;
    pthread_mutex_unlock(&fs->expirer.lock);
    if (!taken)
        free(expire);
    return taken;
}

void expire_names(fuse_req_t request, uint64_t ino)
{
    if (!expire_submit(fs_of(request), request, ino))
        fuse_reply_err(request, ESTALE);
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
