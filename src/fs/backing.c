/* SPDX-License-Identifier: Apache-2.0 */
/* Objects in use: descriptors, backing ids, leases. */
#include "fs/backing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fs/protocol.h"
#include "store/object.h"

void backing_table_init(struct backing_table *table, struct store *store, int fuse_fd)
{
    *table = (struct backing_table){.store = store, .fuse_fd = fuse_fd};
    pthread_mutex_init(&table->lock, NULL);
}

static struct backing **backing_bucket(struct backing_table *table, uint64_t object)
{
    return &table->buckets[(object * UINT64_C(0x9e3779b97f4a7c15)) >> 54];
}

static struct backing *backing_find(struct backing_table *table, uint64_t object)
{
    struct backing *backing = *backing_bucket(table, object);
    while (backing && backing->object != object)
        backing = backing->next;
    return backing;
}

/* Makes the entry for a descriptor, which it owns from then on. The table's lock is held. */
static errint backing_enter(struct backing_table *table, uint64_t object, int fd, int write_fd,
                            struct backing **out)
{
    struct backing *backing = calloc(1, sizeof *backing);
    if (!backing)
        return -ENOMEM;
    backing->object = object;
    backing->fd = fd;
    backing->write_fd = write_fd;
    backing->direct_fd = -1;
    backing->references = 1;
    pthread_mutex_init(&backing->lock, NULL);
    struct backing **bucket = backing_bucket(table, object);
    backing->next = *bucket;
    *bucket = backing;
    *out = backing;
    return 0;
}

errint backing_get(struct backing_table *table, uint64_t object, struct backing **out)
{
    errint error = 0;
    pthread_mutex_lock(&table->lock);
    struct backing *backing = backing_find(table, object);
    if (backing) {
        backing->references++;
        *out = backing;
    } else {
        cleanup_fd int fd = object_open(table->store, object, O_RDONLY);
        error = fd < 0 ? fd : backing_enter(table, object, fd, -1, out);
        if (!error)
            fd = -1;
    }
    pthread_mutex_unlock(&table->lock);
    return error;
}

errint backing_create(struct backing_table *table, uint64_t object, struct backing **out)
{
    cleanup_fd int write_fd = object_create(table->store, object);
    if (write_fd < 0)
        return write_fd;
    cleanup_fd int fd = object_open(table->store, object, O_RDONLY);
    if (fd < 0)
        return fd;
    pthread_mutex_lock(&table->lock);
    errint error = backing_enter(table, object, fd, write_fd, out);
    pthread_mutex_unlock(&table->lock);
    if (error) {
        object_remove(table->store, object);
        return error;
    }
    fd = write_fd = -1;
    return 0;
}

void backing_put(struct backing_table *table, struct backing *backing)
{
    if (!backing)
        return;
    pthread_mutex_lock(&table->lock);
    bool last = --backing->references == 0;
    if (last) {
        struct backing **link = backing_bucket(table, backing->object);
        while (*link != backing)
            link = &(*link)->next;
        *link = backing->next;
    }
    pthread_mutex_unlock(&table->lock);
    if (!last)
        return;
    close(backing->fd);
    if (backing->write_fd >= 0)
        close(backing->write_fd);
    if (backing->direct_fd >= 0)
        close(backing->direct_fd);
    pthread_mutex_destroy(&backing->lock);
    free(backing);
}

int backing_writer(struct backing_table *table, struct backing *backing)
{
    pthread_mutex_lock(&backing->lock);
    if (backing->write_fd < 0) {
        int opened = object_open(table->store, backing->object, O_RDWR);
        if (opened < 0) {
            pthread_mutex_unlock(&backing->lock);
            return opened;
        }
        backing->write_fd = opened;
    }
    /* A duplicate, since a probe for other users may close ours at any moment. */
    int fd = fcntl(backing->write_fd, F_DUPFD_CLOEXEC, 0);
    int error = errno;
    pthread_mutex_unlock(&backing->lock);
    return fd < 0 ? -error : fd;
}

void backing_close_writer(struct backing *backing)
{
    pthread_mutex_lock(&backing->lock);
    if (backing->write_fd >= 0)
        close(backing->write_fd);
    backing->write_fd = -1;
    pthread_mutex_unlock(&backing->lock);
}

int backing_direct(struct backing_table *table, struct backing *backing)
{
    pthread_mutex_lock(&backing->lock);
    if (backing->direct_fd == -1) {
        int fd = object_open(table->store, backing->object, O_RDONLY | O_DIRECT);
        backing->direct_fd = fd >= 0 ? fd : -2;
    }
    int fd = backing->direct_fd >= 0 ? fcntl(backing->direct_fd, F_DUPFD_CLOEXEC, 0) : -1;
    pthread_mutex_unlock(&backing->lock);
    return fd;
}

int backing_register(struct backing_table *table, struct backing *backing)
{
    pthread_mutex_lock(&backing->lock);
    int id = backing->backing_id;
    if (id == 0) {
        id = protocol_backing_open(table->fuse_fd, backing->fd);
        if (id > 0)
            backing->backing_id = id;
    }
    if (id > 0)
        backing->passthrough_handles++;
    pthread_mutex_unlock(&backing->lock);
    return id;
}

void backing_unregister(struct backing_table *table, struct backing *backing)
{
    pthread_mutex_lock(&backing->lock);
    if (--backing->passthrough_handles == 0) {
        errint error = protocol_backing_close(table->fuse_fd, backing->backing_id);
        if (error && error != -ENODEV && error != -EPERM)
            log_warning("object %016llx: cannot close backing id %d: %s", (unsigned long long)backing->object,
                        backing->backing_id, strerror(-error));
        backing->backing_id = 0;
    }
    pthread_mutex_unlock(&backing->lock);
}

void backing_adopt(struct backing *backing, int backing_id)
{
    pthread_mutex_lock(&backing->lock);
    backing->backing_id = backing_id;
    backing->passthrough_handles++;
    pthread_mutex_unlock(&backing->lock);
}

int backing_is_free(struct backing *backing, enum backing_view view)
{
    pthread_mutex_lock(&backing->lock);
    if (backing->write_fd >= 0)
        close(backing->write_fd);
    backing->write_fd = -1;
    if (backing->direct_fd >= 0)
        close(backing->direct_fd);
    backing->direct_fd = -1;
    int type = view == BACKING_WRITERS ? F_RDLCK : F_WRLCK;
    int result = 1;
    if (fcntl(backing->fd, F_SETLEASE, type) < 0)
        result = errno == EAGAIN ? 0 : -EOPNOTSUPP;
    else
        fcntl(backing->fd, F_SETLEASE, F_UNLCK);
    pthread_mutex_unlock(&backing->lock);
    return result;
}
