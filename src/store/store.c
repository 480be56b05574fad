/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, making and locking a store. */
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/log.h"
#include "store/copies.h"
#include "store/identity.h"
#include "store/reserve.h"

#define STORE_LOCK      "lock"
#define STORE_OBJECTS   "objects"
#define STORE_MANIFESTS "manifests"

enum { STORE_LOCK_TEXT_MAX = 200, STORE_LOCK_TRIES = 10 };

/* What lies in a directory that may be, or become, a store. */
struct store_contents {
    bool identity; /* ckptfs.json */
    bool database;
    bool objects;               /* objects/ has something in it */
    char foreign[NAME_MAX + 1]; /* a name that no interrupted creation leaves; "" when there is none */
};

static void store_close_directory(DIR **directory)
{
    if (*directory)
        closedir(*directory);
}

#define cleanup_directory __attribute__((cleanup(store_close_directory)))

static DIR *store_open_directory(int parent, const char *name)
{
    cleanup_fd int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    if (directory)
        (void)steal_fd(fd);
    return directory;
}

/* The next name that is not "." or ".."; NULL at the end, with errno 0, or on an error. */
static const char *store_next_name(DIR *directory)
{
    struct dirent *entry;
    do {
        errno = 0;
        entry = readdir(directory);
    } while (entry && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    return entry ? entry->d_name : NULL;
}

static bool store_has_objects(int fd)
{
    cleanup_directory DIR *directory = store_open_directory(fd, STORE_OBJECTS);
    return directory && store_next_name(directory);
}

/* What a creation makes before ckptfs.json, and what an empty disk has by itself. */
static bool store_name_is_ours(const char *name)
{
    static const char *const names[] = {STORE_LOCK,      RESERVE_FILE,          STORE_OBJECTS,
                                        STORE_MANIFESTS, IDENTITY_SECRET,       IDENTITY_SECRET_NEW,
                                        IDENTITY_FILE,   IDENTITY_FILE_NEW,     STORE_DATABASE,
                                        "lost+found",    STORE_DATABASE "-wal", STORE_DATABASE "-shm",
                                        STORE_SEQUENCE};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0)
            return true;
    }
    return false;
}

static errint store_inspect(int fd, struct store_contents *out)
{
    *out = (struct store_contents){0};
    cleanup_directory DIR *directory = store_open_directory(fd, ".");
    if (!directory)
        return -errno;
    const char *name;
    while ((name = store_next_name(directory))) {
        if (strcmp(name, IDENTITY_FILE) == 0)
            out->identity = true;
        else if (strcmp(name, STORE_DATABASE) == 0)
            out->database = true;
        else if (!store_name_is_ours(name))
            snprintf(out->foreign, sizeof out->foreign, "%s", name);
    }
    if (errno)
        return -errno;
    out->objects = store_has_objects(fd);
    return 0;
}

/* One line for an error that a system call met, and the problem that it is. */
static enum store_problem store_explain(const char *path, errint error)
{
    switch (-error) {
    case EACCES:
    case EPERM:
        log_error("%s is not writable: %s; change its owner or mode, or run as its owner", path,
                  strerror(-error));
        return STORE_NOT_WRITABLE;
    case EROFS:
        log_error("%s is on a read-only disk; remount the disk writable or choose another store", path);
        return STORE_NOT_WRITABLE;
    case ENOSPC:
    case EDQUOT:
        log_error("%s: the disk is full; free some space on it and try again", path);
        return STORE_NO_SPACE;
    case ENOTDIR:
        log_error("%s is not a ckptfs store: it is not a directory; name an empty directory or a store",
                  path);
        return STORE_NOT_A_STORE;
    case ENOENT:
        log_error("%s cannot become a store: its parent directory does not exist; create that first", path);
        return STORE_NOT_A_STORE;
    default:
        log_error("%s cannot be opened: %s; see the kernel's log for the disk's state", path,
                  strerror(-error));
        return STORE_FAILED;
    }
}

/* Refuses what must not be touched. Nothing has been written when this is called first. */
static enum store_problem store_judge(const char *path, const struct store_contents *contents)
{
    if (contents->identity)
        return STORE_FINE;
    if (contents->objects && !contents->database) {
        log_error("%s has objects but neither %s nor %s; restore them from a backup before mounting it", path,
                  IDENTITY_FILE, STORE_DATABASE);
        return STORE_NO_DATABASE;
    }
    if (contents->database) {
        log_error("%s is damaged: %s is missing; restore it from a backup", path, IDENTITY_FILE);
        return STORE_DAMAGED;
    }
    if (*contents->foreign) {
        log_error("%s is not a ckptfs store: it holds '%s'; name an empty directory or a store", path,
                  contents->foreign);
        return STORE_NOT_A_STORE;
    }
    return STORE_FINE;
}

/* -- the lock -------------------------------------------------------------------------------------------- */

void store_lock_describe(int lock_fd, const char *text)
{
    char line[STORE_LOCK_TEXT_MAX + 2];
    int length = snprintf(line, STORE_LOCK_TEXT_MAX + 1, "%s", text);
    if (length > STORE_LOCK_TEXT_MAX)
        length = STORE_LOCK_TEXT_MAX;
    line[length++] = '\n';
    /* An empty file is as true as an old text: the lock itself says whether anyone is there. */
    if (ftruncate(lock_fd, 0) != 0 || pwrite(lock_fd, line, (size_t)length, 0) != length)
        log_debug("the store's lock could not be described: %m");
}

static void store_report_in_use(const struct store *store, int fd)
{
    char holder[STORE_LOCK_TEXT_MAX + 1];
    ssize_t length = pread(fd, holder, sizeof holder - 1, 0);
    holder[length > 0 ? length : 0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
    log_error("%s is in use by %s; unmount it there first", store->path, *holder ? holder : "another ckptfs");
}

/* The descriptor that a daemon was given must be of this very store. */
static enum store_problem store_check_lock(const struct store *store)
{
    struct stat given, named;
    if (fstat(store->lock_fd, &given) == 0 && fstatat(store->fd, STORE_LOCK, &named, 0) == 0 &&
        given.st_dev == named.st_dev && given.st_ino == named.st_ino)
        return STORE_FINE;
    log_error("%s: the lock that was handed over is not the store's; unmount and mount again", store->path);
    return STORE_FAILED;
}

/* A command that waits for the end of a mount holds the lock for instants: that is no use of the store. */
static errint store_flock(int fd)
{
    for (int tries = 0;; tries++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK || tries == STORE_LOCK_TRIES)
            return -errno;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

static enum store_problem store_take_lock(struct store *store)
{
    /* No O_CLOEXEC: the lock lives as long as any process of the mount. */
    cleanup_fd int fd = openat(store->fd, STORE_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return store_explain(store->path, -errno);
    errint error = store_flock(fd);
    if (error == -EWOULDBLOCK) {
        store_report_in_use(store, fd);
        return STORE_IN_USE;
    }
    if (error)
        return store_explain(store->path, error);
    store->lock_fd = steal_fd(fd);
    char text[64];
    snprintf(text, sizeof text, "process %d", (int)getpid());
    store_lock_describe(store->lock_fd, text);
    return STORE_FINE;
}

/* -- opening --------------------------------------------------------------------------------------------- */

static errint store_make_directory(int parent, const char *name)
{
    return mkdirat(parent, name, 0700) == 0 || errno == EEXIST ? 0 : -errno;
}

/* ckptfs.json comes last: until it is there, the next open begins again. */
static enum store_problem store_create(struct store *store)
{
    errint error = store_make_directory(store->fd, STORE_OBJECTS);
    if (!error)
        error = store_make_directory(store->fd, STORE_MANIFESTS);
    if (!error)
        error = identity_create(store);
    return error ? store_explain(store->path, error) : STORE_FINE;
}

/* What a caller wants of a store that is not as it should be. */
enum store_wish {
    STORE_MAKE,     /* a new one, where nothing is */
    STORE_EXISTING, /* nothing is made */
    STORE_RESCUE,   /* nothing is made, and the database may be missing */
};

static enum store_problem store_open_path(struct store *store, const char *path, enum store_wish wish)
{
    if (wish == STORE_MAKE && mkdir(path, 0700) != 0 && errno != EEXIST)
        return store_explain(path, -errno);
    if (wish != STORE_MAKE && access(path, F_OK) != 0) {
        log_error("%s is not a ckptfs store: %m", path);
        return STORE_NOT_A_STORE;
    }
    store->path = realpath(path, NULL);
    if (!store->path)
        return store_explain(path, -errno);
    store->fd = open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->fd < 0)
        return store_explain(store->path, -errno);
    return STORE_FINE;
}

/* With the lock held: nobody changes the directory any more. */
static enum store_problem store_open_contents(struct store *store, enum store_wish wish)
{
    struct store_contents contents;
    errint error = store_inspect(store->fd, &contents);
    if (error)
        return store_explain(store->path, error);
    enum store_problem problem = store_judge(store->path, &contents);
    if (!problem)
        problem = contents.identity ? identity_read(store) : store_create(store);
    if (problem)
        return problem;
    if (!contents.database && (store->used || contents.objects) && wish != STORE_RESCUE) {
        char restores[COPIES_TEXT_MAX];
        copies_describe(store->path, restores);
        log_error("%s has lost its database %s; `ckptfs fsck --rebuild %s` %s", store->path, STORE_DATABASE,
                  store->path, restores);
        return STORE_NO_DATABASE;
    }
    store->created = !contents.database;
    store->objects_fd = openat(store->fd, STORE_OBJECTS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->objects_fd < 0) {
        log_error("%s is damaged: %s cannot be opened: %m; restore it from a backup", store->path,
                  STORE_OBJECTS);
        return STORE_DAMAGED;
    }
    if (faccessat(store->fd, ".", W_OK | X_OK, AT_EACCESS) != 0 ||
        faccessat(store->objects_fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
        return store_explain(store->path, -errno);
    error = reserve_open(store);
    return error ? store_explain(store->path, error) : STORE_FINE;
}

void store_note_database(struct store *store)
{
    if (store->used || faccessat(store->fd, STORE_DATABASE, F_OK, 0) != 0)
        return;
    errint error = identity_mark_used(store);
    if (error) {
        store->used = false;
        if (error != -ENOSPC && error != -EDQUOT)
            log_warning("%s/%s could not be updated: %s", store->path, IDENTITY_FILE, strerror(-error));
    }
}

static struct store *store_allocate(void)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    store->fd = store->objects_fd = store->lock_fd = store->reserve_fd = -1;
    /* What earlier processes made may not be synced: one sync a directory, when it is first used. */
    for (size_t i = 0; i < STORE_DIRECTORIES; i++)
        atomic_init(&store->directories[i].made, 1);
    return store;
}

static void store_release(struct store *store)
{
    const int descriptors[] = {store->fd, store->objects_fd, store->lock_fd, store->reserve_fd};
    for (size_t i = 0; i < sizeof descriptors / sizeof *descriptors; i++) {
        if (descriptors[i] >= 0)
            close(descriptors[i]);
    }
    free(store->path);
    explicit_bzero(store, sizeof *store);
    free(store);
}

static enum store_problem store_open_into(struct store *store, const char *path, int inherited_lock_fd,
                                          enum store_wish wish)
{
    enum store_problem problem = store_open_path(store, path, wish);
    if (problem)
        return problem;
    /* Before the lock file is made: nothing may be written into a directory that is not ours. */
    struct store_contents contents;
    errint error = store_inspect(store->fd, &contents);
    if (error)
        return store_explain(store->path, error);
    problem = store_judge(store->path, &contents);
    if (!problem && wish != STORE_MAKE && !contents.identity) {
        log_error("%s is not a ckptfs store: it has no %s", store->path, IDENTITY_FILE);
        problem = STORE_NOT_A_STORE;
    }
    if (problem)
        return problem;
    store->lock_fd = inherited_lock_fd;
    problem = inherited_lock_fd >= 0 ? store_check_lock(store) : store_take_lock(store);
    if (!problem)
        problem = store_open_contents(store, wish);
    if (problem && inherited_lock_fd >= 0)
        store->lock_fd = -1;
    return problem;
}

static enum store_problem store_open_as(const char *path, int inherited_lock_fd, enum store_wish wish,
                                        struct store **out)
{
    struct store *store = store_allocate();
    if (!store) {
        log_error("%s cannot be opened: out of memory", path);
        return STORE_FAILED;
    }
    enum store_problem problem = store_open_into(store, path, inherited_lock_fd, wish);
    if (problem) {
        store_release(store);
        return problem;
    }
    store_note_database(store);
    *out = store;
    return STORE_FINE;
}

enum store_problem store_open(const char *path, int inherited_lock_fd, struct store **out)
{
    return store_open_as(path, inherited_lock_fd, STORE_MAKE, out);
}

enum store_problem store_open_existing(const char *path, bool rescue, struct store **out)
{
    return store_open_as(path, -1, rescue ? STORE_RESCUE : STORE_EXISTING, out);
}

char *store_path_of(const struct store *store, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", store->path, name) < 0 ? NULL : path;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    store_note_database(store);
    reserve_close(store);
    store_release(store);
}
