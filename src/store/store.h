/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory behind a mount: what makes a directory a store, who may use it, and what survives in it.
 *
 *     STORE/ckptfs.json  format version, store id, chunk size; human-readable, no secrets
 *     STORE/secret       192 random bytes, mode 0600
 *     STORE/lock         flock'ed by whoever uses the store (keeper, daemon, offline command)
 *     STORE/reserve      allocated space that the database may fall back on when the disk is full
 *     STORE/sequence     tells meta.db from its older copies (fs/sequence.h)
 *     STORE/meta.db      the namespace (opened by meta, not here)
 *     STORE/objects/xx/  backing files (store/object.h) and their chunk hashes (store/sums.h)
 *     STORE/manifests/   copies of the database (store/copies.h); for later: one a completed checkpoint
 *
 * A store is never made where anything else lies: an empty directory (or one that does not exist yet;
 * `lost+found` counts as nothing) becomes a store; a directory with foreign files, or with objects but no
 * meta.db, is refused. A creation that was interrupted is finished by the next open.
 */
#ifndef CKPTFS_STORE_STORE_H
#define CKPTFS_STORE_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

#define STORE_FORMAT_VERSION 1
#define STORE_SECRET_SIZE    192
#define STORE_SEQUENCE       "sequence"
#define STORE_DATABASE       "meta.db"

/* Why a store cannot be opened. Each is an exit code of its own in the commands (cmd/exit.h). */
enum store_problem {
    STORE_FINE = 0,
    STORE_NOT_A_STORE,  /* a directory with other things in it, or not a directory */
    STORE_NEWER,        /* made by a newer version */
    STORE_NOT_WRITABLE, /* permission, or a read-only disk */
    STORE_IN_USE,       /* locked by another mount or command */
    STORE_NO_DATABASE,  /* objects are there, meta.db is not: never taken for a new store */
    STORE_DAMAGED,      /* ckptfs.json or secret cannot be read */
    STORE_NO_SPACE,     /* the disk is full */
    STORE_FAILED,       /* anything else; the line says what */
};

/* Of a directory below STORE/objects: the entries made in it, and how many of them are on stable storage. */
struct store_directory {
    _Atomic uint64_t made, synced;
};

/* The 256 directories of objects, then objects/ itself. */
enum { STORE_DIRECTORY_OBJECTS = 256, STORE_DIRECTORIES };

/* Of store.can_punch. */
enum { STORE_PUNCH_UNTRIED, STORE_PUNCH_WORKS, STORE_PUNCH_FAILS };

struct store {
    char *path;     /* absolute */
    int fd;         /* the directory */
    int objects_fd; /* STORE/objects */
    int lock_fd;    /* holds the flock; survives exec so that a daemon inherits the lock */
    int reserve_fd;
    char id[37]; /* a UUID */
    uint8_t secret[STORE_SECRET_SIZE];
    bool created;         /* there is no meta.db yet, and none is missed: it is to be made */
    bool used;            /* ckptfs.json says that meta.db was made */
    bool reserve_spent;   /* less than reserve_size is allocated */
    int64_t reserve_size; /* bytes that the reserve has when it is whole */
    struct store_directory directories[STORE_DIRECTORIES]; /* object.c's */
    _Atomic int can_punch;                                 /* object.c's: STORE_PUNCH_... */
};

/*
 * Opens, and makes when the directory is empty or absent (parents must exist), the store at `path`; takes the
 * lock without waiting. `inherited_lock_fd` >= 0: that descriptor already holds the lock (a daemon started by
 * a keeper). One line is logged for each problem: the cause and the next step. On success *out is the
 * caller's, to be given to store_close.
 */
enum store_problem store_open(const char *path, int inherited_lock_fd, struct store **out);
/* The same of a store that is there: nothing is made. `rescue`: its database may be missing. */
enum store_problem store_open_existing(const char *path, bool rescue, struct store **out);
/* The file `name` of it; the caller frees. NULL: no memory. */
char *store_path_of(const struct store *store, const char *name);
/*
 * To be called when the database has been made: from then on its absence is a loss. A full disk may refuse
 * that; the closing and the next opening of the store try again.
 */
void store_note_database(struct store *store);
/* Releases the lock too, unless another process (or a duplicate of lock_fd) holds it. NULL is allowed. */
void store_close(struct store *store);

/*
 * Says in STORE/lock who holds it ("process 71, mounted at /mnt"), for the message that another user of the
 * store gets. One line of at most 200 bytes; longer text is cut. Best effort: the lock is what counts.
 */
void store_lock_describe(int lock_fd, const char *text);

/*
 * Which life of the page cache this is: the boot id and the instance of the disk's filesystem
 * (its sysfs directory's inode, which no later mount of the same disk shares; else the unique mount id).
 * Two equal epochs mean that what was written in between, synced or not, is still there.
 * `out` receives "BOOT-ID/INSTANCE".
 */
errint store_epoch(const struct store *store, char out[128]);

/*
 * The reserve: allocated once (8 MiB, or 1/64 of the disk when that is less, at least 256 KiB).
 * store_reserve_spend gives half of what is left to the database when a commit met a full disk, so that a
 * writer who takes the freed space first does not get all of it: 0 when there was something to give, -ENOSPC
 * when nothing is left but the last 128 KiB. These are for whoever opens the database on a full disk, who
 * takes what is left with store_reserve_spend_last. store_reserve_restore tries to allocate it again, and
 * only where at least as much again is free (else -ENOSPC). All block. Thread-safe.
 */
errint store_reserve_spend(struct store *store);
errint store_reserve_spend_last(struct store *store);
errint store_reserve_restore(struct store *store);

#endif
