/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The namespace of a store: inodes, names, extents, small contents, extended attributes.
 *
 * What it promises:
 * - Every function below is one transaction: when it returns 0 the change is committed and survives the death
 *   of the process (not yet a power cut: that takes meta_sync). On an error nothing has changed.
 * - Inode numbers, object ids and directory cookies are never reused.
 * - It knows no bytes of objects and no open files. What it must know about them (is this inode open?) the
 *   caller passes in. Functions that drop the last reference to an object put its id on a list; the object's
 *   row stays, so that an interrupted deletion is found at the next start, until meta_object_forget.
 * - Thread-safe: one lock inside, never held over a sync.
 *
 * Errors are negative errnos; -EIO and -ENOSPC come with one logged line that names the database's complaint.
 */
#ifndef CKPTFS_META_META_H
#define CKPTFS_META_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/ids.h"

#define META_FORMAT_VERSION 6
#define META_ROOT_INO       UINT64_C(1)
#define META_NAME_MAX       255
/* Cookies 1 and 2 belong to "." and "..", which are not rows. */
#define META_COOKIE_FIRST 3

struct meta;

/* Where a regular file's bytes are. */
enum meta_kind {
    META_NONE = 0,   /* an empty file, or not a regular file */
    META_INLINE = 1, /* the bytes are a row of the database (symlinks' targets too) */
    META_OBJECT = 2, /* the object `object` is the file, its size and mtime are the object's: being written */
    META_EXTENTS = 3, /* rows of extents; gaps are holes; `size` is the size */
};

/* Bits of meta_inode.state. */
enum meta_state {
    META_DIRTY = 1,     /* may have bytes or attributes that are not on stable storage */
    META_TORN = 2,      /* lost bytes in a crash, or may have */
    META_ASSEMBLED = 4, /* is shown by a directory (meta/assembled.h), and has a name there or none */
    META_SHED = 8,      /* its bytes, or some of them, were given up: the gaps are no holes (meta/shed.h) */
    META_LENT = 16,     /* with the former: is a clone of another directory's file (meta/lent.h) */
};

struct meta_inode {
    uint64_t ino;
    uint32_t mode; /* type and permissions, as in st_mode */
    uint32_t nlink;
    uint32_t uid, gid;
    uint64_t rdev;
    int64_t size;                       /* bytes; of a META_OBJECT file: as last recorded */
    int64_t atime, mtime, ctime, btime; /* ns since the epoch */
    enum meta_kind kind;
    uint32_t state;      /* meta_state bits */
    uint64_t object;     /* of a META_OBJECT file, else 0 */
    int64_t synced_size; /* bytes known to be on stable storage; -1: never synced */
};

struct meta_extent {
    int64_t offset; /* in the file */
    int64_t length;
    uint64_t object;
    int64_t object_offset;
};

/* Bits for meta_set: which fields of the values are taken. */
enum meta_field {
    META_SET_MODE = 1 << 0, /* permission bits only: the type never changes */
    META_SET_UID = 1 << 1,
    META_SET_GID = 1 << 2,
    META_SET_SIZE = 1 << 3, /* of the row only; extents and contents have their own functions */
    META_SET_ATIME = 1 << 4,
    META_SET_MTIME = 1 << 5,
    META_SET_CTIME = 1 << 6,
    META_SET_STATE = 1 << 7,
    META_SET_SYNCED_SIZE = 1 << 8,
};

/*
 * Opens (creates, when `create`) the database at `path`. A database of an older format is backed up beside
 * itself and upgraded in one transaction; a newer one is refused with -EPROTONOSUPPORT. -EUCLEAN: damaged.
 * Starts one thread that moves the write-ahead log into the database, so that no commit ever waits for a
 * sync.
 */
errint meta_open(const char *path, bool create, struct meta **out);
/* Syncs, checkpoints and closes. The memory is released whatever it returns. NULL is allowed. */
errint meta_close(struct meta *meta);

/* -- requests ---------------------------------------------------------------------------------------------
 */

/*
 * Namespace changes take the number of the kernel's request that they answer (0: none). It is kept, with the
 * inode that the change made, in the same transaction; the last one can be asked for. So a later daemon can
 * tell whether a request that is sent to it again was already done.
 */
void meta_last_request(struct meta *meta, uint64_t *unique, uint64_t *ino);

/*
 * Called after the commit of each change that carried a request number, with the lock still held, so that at
 * most one request can be committed without this call having returned. At most one callback; set before use.
 */
void meta_on_commit(struct meta *meta, void (*committed)(void *context, uint64_t unique, uint64_t ino),
                    void *context);

/*
 * What to do when the disk is full. `spend` gives up reserved space: 0 when there was some, else a negative
 * errno. It is called (with the lock held: it must not call into meta) when a change that frees space or
 * finishes something meets -ENOSPC: meta_unlink, meta_rmdir, meta_rename, meta_reap, meta_set, meta_synced,
 * meta_truncate, meta_to_inline, meta_seal, meta_object_forget; and in what a start must do: meta_tear,
 * meta_restore_shadows, meta_setting_put. When it returns 0 the transaction is tried once more. Set before
 * use.
 */
void meta_on_full(struct meta *meta, errint (*spend)(void *context), void *context);

/* -- looking ----------------------------------------------------------------------------------------------
 */

/* -ENOENT; -ENOTDIR when parent is no directory. Name: `length` bytes, not NUL-terminated. */
errint meta_lookup(struct meta *meta, uint64_t parent, const char *name, size_t length,
                   struct meta_inode *out);
/* -ENOENT when there is no such inode. Orphans (nlink 0) are found. */
errint meta_get(struct meta *meta, uint64_t ino, struct meta_inode *out);
/* A name of an inode: `length` bytes, with a NUL behind them. */
struct meta_name {
    uint64_t parent;
    size_t length;
    char bytes[META_NAME_MAX + 1];
};

/*
 * The first `room` names of an inode that come after `after` (NULL: from the first), in the order of their
 * directories' numbers and their bytes. Fewer than `room`: there are no more. `after` may be in `out`.
 */
errint meta_find_names(struct meta *meta, uint64_t ino, const struct meta_name *after, struct meta_name *out,
                       size_t room, size_t *count);
/* The directory that holds a directory's entry; the root is its own parent. */
errint meta_parent(struct meta *meta, uint64_t directory, uint64_t *parent);

/* For callbacks: their names have no NUL behind them, and META_NAME_MAX bytes at most. */
static inline void meta_copy_name(char out[META_NAME_MAX + 1], const char *name, size_t length)
{
    memcpy(out, name, length);
    out[length] = '\0';
}

/*
 * Calls `entry` for each name of `directory` whose cookie is greater than `after`, in cookie order, until it
 * returns false. `entry` runs with the lock held: it must not call into meta.
 */
errint meta_list(struct meta *meta, uint64_t directory, uint64_t after,
                 bool (*entry)(void *context, const char *name, size_t length, uint64_t cookie,
                               const struct meta_inode *inode),
                 void *context);

/* The cookie that the next name will get: those that are there now have lower ones. */
uint64_t meta_cookie_next(struct meta *meta);

struct meta_totals {
    uint64_t inodes;
    uint64_t objects;
    int64_t logical_bytes; /* the sum of the regular files' sizes as recorded */
    uint64_t dirty;        /* inodes with META_DIRTY */
    uint64_t torn;
};
errint meta_count(struct meta *meta, struct meta_totals *out);

/* -- names ------------------------------------------------------------------------------------------------
 */

struct meta_new {
    uint64_t parent; /* 0: no name, nlink 0 (O_TMPFILE) */
    const char *name;
    size_t length;
    uint32_t mode; /* type and permissions; the umask is already applied */
    uint32_t uid, gid;
    uint64_t rdev;
    uint64_t object;    /* regular files: not 0 makes it META_OBJECT and META_DIRTY on this new object */
    const char *target; /* symlinks */
    size_t target_length;
    int64_t now;
};

/*
 * Makes any type of inode and its name. In a directory with S_ISGID the group is the directory's, and a new
 * directory gets S_ISGID. The parent's times, and for a directory its nlink, follow. -ENOENT: the parent is
 * gone (nlink 0); -ENOTDIR; -EEXIST; -ENAMETOOLONG; -EINVAL for an empty name or one with '/'.
 */
errint meta_create(struct meta *meta, const struct meta_new *new, uint64_t unique, struct meta_inode *out);

/* A further name. -EPERM for directories; -ENOENT when ino is gone (an orphan with nlink 0 is allowed: that
 * is how O_TMPFILE gets its name); -EMLINK at 65,000 names. */
errint meta_link(struct meta *meta, uint64_t ino, uint64_t parent, const char *name, size_t length,
                 int64_t now, uint64_t unique, struct meta_inode *out);

/*
 * Removes a name. `expected` is the inode that the caller looked up (and holds a lock on): -ESTALE when the
 * name is another's by now. When the last name goes: `reap` says that nobody has the inode open, so
 * everything of it goes too and `freed` receives the objects that no extent covers any more; else it stays
 * with nlink 0. meta_unlink: -EISDIR for directories. meta_rmdir: -ENOTDIR, -ENOTEMPTY.
 */
errint meta_unlink(struct meta *meta, uint64_t parent, const char *name, size_t length, uint64_t expected,
                   bool reap, int64_t now, uint64_t unique, struct ids *freed);
errint meta_rmdir(struct meta *meta, uint64_t parent, const char *name, size_t length, uint64_t expected,
                  bool reap, int64_t now, uint64_t unique);

struct meta_rename {
    uint64_t parent;
    const char *name;
    size_t length;
    uint64_t new_parent;
    const char *new_name;
    size_t new_length;
    unsigned flags;    /* 0, RENAME_NOREPLACE, RENAME_EXCHANGE (linux/fs.h) */
    uint64_t expected; /* the inode that `name` had at the caller's look-up */
    uint64_t replaced; /* the inode that `new_name` had; 0: there was none */
    bool reap;         /* nobody has `replaced` open */
    int64_t now;
};

/*
 * Linux's rename rules: -EEXIST with NOREPLACE, -ENOENT with EXCHANGE and no target, -ENOTEMPTY, -EISDIR,
 * -ENOTDIR, -EINVAL when a directory would go below itself; nothing happens when both names are one inode;
 * -ESTALE when a name is another inode's than the caller said. ctimes, directories' times and nlinks follow.
 *
 * When a regular file that is META_DIRTY and was never synced replaces another regular file, the replaced
 * inode is not reaped: it is kept as the *shadow* of the name (nlink 0), so that a power cut that loses the
 * new bytes gives the old file back. meta_synced lets the shadow go. A later rename over the same name keeps
 * the first shadow (the newest that is known to be whole) while its successor was never synced.
 */
errint meta_rename(struct meta *meta, const struct meta_rename *rename, uint64_t unique, struct ids *freed);

/*
 * Shadows that were let go by other calls than meta_synced, since the last call of this: the name was
 * removed, or a file that is already safe took it, or the successor's bytes moved into the database;
 * stand-ins (meta/stand_in.h) whose file went, or was emptied; and assembled files that were withdrawn, or
 * whose directory was removed (meta/assembled.h). Appended, for the caller to meta_reap when nobody has them
 * open. (After a stop they are found as orphans.)
 */
errint meta_shadows_released(struct meta *meta, struct ids *out);

/*
 * Removes an inode that has no name, is no shadow or stand-in and is shown by no directory, with all that
 * belongs to it. 0 also when it is one of these or is gone already: the caller need not know.
 */
errint meta_reap(struct meta *meta, uint64_t ino, struct ids *freed);
/* The same for all inodes of the list, in one transaction. */
errint meta_reap_all(struct meta *meta, const struct ids *inodes, struct ids *freed);

/* -- attributes -------------------------------------------------------------------------------------------
 */

/* Takes the fields of `values` that `fields` names, and returns the whole inode in `out` (may be NULL). */
errint meta_set(struct meta *meta, uint64_t ino, unsigned fields, const struct meta_inode *values,
                uint64_t unique, struct meta_inode *out);

/*
 * The file's bytes are on stable storage: the synced size is recorded, stored bytes from before go,
 * META_DIRTY goes when `clean` (no writer is left), and the shadows of its names and its stand-in are let go:
 * their inodes are appended to `shadows` for the caller to meta_reap when nobody has them open. META_TORN
 * stays: it goes when the file is truncated to nothing.
 */
errint meta_synced(struct meta *meta, uint64_t ino, int64_t synced_size, bool clean, struct ids *shadows);

/* -- contents ---------------------------------------------------------------------------------------------
 */

/*
 * The bytes of a META_INLINE file or a symlink's target (META_NONE: none): the number of bytes, at most
 * `capacity`, or an error. A META_INLINE file that was truncated to a greater size reads as zeros there.
 */
ssize_t meta_content_read(struct meta *meta, uint64_t ino, void *buffer, size_t capacity);

/* A number for a new object; never given twice, not even after a crash. 0 on failure. */
uint64_t meta_object_next(struct meta *meta);

/*
 * A file of any kind becomes META_OBJECT on the new object `object` (whose bytes the caller has written) and
 * META_DIRTY; what it was made of before goes, but stored bytes stay until meta_synced, since they may be the
 * only ones on stable storage. `size` is recorded.
 */
errint meta_to_object(struct meta *meta, uint64_t ino, uint64_t object, int64_t size, struct ids *freed);

/* A META_OBJECT file becomes META_INLINE (META_NONE when length is 0): its object is freed, META_DIRTY goes
 * since its bytes are now in the database. Only `mtime` and `ctime` are taken besides. */
errint meta_to_inline(struct meta *meta, uint64_t ino, const void *bytes, size_t length, int64_t mtime,
                      int64_t ctime, struct ids *freed);

/* A META_OBJECT file becomes META_EXTENTS with one extent (0, size); META_NONE and the object freed when size
 * is 0. META_DIRTY stays as it is. `object_size` is recorded in the object's row. */
errint meta_seal(struct meta *meta, uint64_t ino, int64_t size, int64_t mtime, int64_t ctime,
                 struct ids *freed);

/*
 * A META_EXTENTS file that is exactly one whole object, which no other file covers a byte of, becomes
 * META_OBJECT and META_DIRTY again, to be written in place. -EBUSY when it is not so, and when the object is
 * damaged.
 */
errint meta_unseal(struct meta *meta, uint64_t ino);

/* Size that an object had at its seal; -ENOENT. */
errint meta_object_size(struct meta *meta, uint64_t object, int64_t *size);
/* Whether a file other than `ino` covers a byte of the object: 1, 0, or an error. */
int meta_object_shared(struct meta *meta, uint64_t object, uint64_t ino);

/* All extents of a file, in file order. The caller frees *out. */
errint meta_extents(struct meta *meta, uint64_t ino, struct meta_extent **out, size_t *count);

/*
 * Maps [offset, offset + length) of a META_NONE or META_EXTENTS file onto an object's range (object 0: a
 * hole), cutting what was there, merging with neighbours that continue in the same object. The size grows to
 * cover it when `extend`, mtime and ctime become `now`, the file becomes META_EXTENTS and META_DIRTY. A new
 * object's row is made as needed. -EIO for a file that has given bytes up (meta/shed.h).
 */
errint meta_extents_map(struct meta *meta, uint64_t ino, const struct meta_extent *extent, bool extend,
                        int64_t now, struct ids *freed);

/* Cuts a META_EXTENTS (or META_INLINE, META_NONE) file to `size`, or grows it with a hole. */
errint meta_truncate(struct meta *meta, uint64_t ino, int64_t size, int64_t now, uint64_t unique,
                     struct ids *freed);

/*
 * The range [from_offset, + length) of the META_EXTENTS file `from` also becomes the range at to_offset of
 * `to` (META_NONE or META_EXTENTS): no bytes move. Holes are cloned as holes; -EIO where bytes were given up.
 * As meta_extents_map otherwise.
 */
errint meta_clone(struct meta *meta, uint64_t from, int64_t from_offset, uint64_t to, int64_t to_offset,
                  int64_t length, int64_t now, struct ids *freed);

/*
 * A new inode with a copy of a META_EXTENTS file's attributes, extended attributes and extents takes over all
 * its names; the old one stays with nlink 0 for those who have it open. -ENOENT without a name; -EBUSY for
 * other kinds.
 */
errint meta_fork(struct meta *meta, uint64_t ino, struct meta_inode *out);

/* Rows of objects whose files are gone are removed. */
errint meta_object_forget(struct meta *meta, const struct ids *objects);

/* -- extended attributes ----------------------------------------------------------------------------------
 */

/* `flags` as setxattr(2). -EEXIST, -ENODATA, -E2BIG over 64 KiB, -ENOSPC over 1 MiB of values a file. */
errint meta_xattr_set(struct meta *meta, uint64_t ino, const char *name, const void *value, size_t length,
                      int flags, int64_t now, uint64_t unique);
/* The value's length; -ERANGE when capacity is not 0 and too small (0 asks for the length). -ENODATA. */
ssize_t meta_xattr_get(struct meta *meta, uint64_t ino, const char *name, void *value, size_t capacity);
/* NUL-terminated names one after the other, as listxattr(2); length, -ERANGE. */
ssize_t meta_xattr_list(struct meta *meta, uint64_t ino, char *names, size_t capacity);
errint meta_xattr_remove(struct meta *meta, uint64_t ino, const char *name, int64_t now, uint64_t unique);

/* -- start, stop, trouble ---------------------------------------------------------------------------------
 */

/* Inodes with META_DIRTY; inodes with nlink 0 that are no shadow and no stand-in and that no directory shows;
 * objects that nothing refers to. Appended.
 */
errint meta_find_dirty(struct meta *meta, struct ids *out);
errint meta_find_orphans(struct meta *meta, struct ids *out);
errint meta_find_unreferenced(struct meta *meta, struct ids *out);
/* Objects that are sealed and not empty; the files that cover a byte of an object. */
errint meta_find_sealed(struct meta *meta, struct ids *out);
errint meta_find_users(struct meta *meta, uint64_t object, struct ids *out);
/* All objects that have a row. */
errint meta_find_objects(struct meta *meta, struct ids *out);
/* Inodes with META_TORN, at most `limit`. */
errint meta_find_torn(struct meta *meta, size_t limit, struct ids *out);

/*
 * After a power cut: a torn file's content becomes [0, size) of what it is made of, META_DIRTY goes,
 * META_TORN comes. A META_OBJECT file becomes META_EXTENTS of its object (META_NONE when size is 0); one that
 * still has stored bytes from before goes back to those.
 */
errint meta_tear(struct meta *meta, uint64_t ino, int64_t size, struct ids *freed);

/*
 * After a power cut: every name whose inode is in `torn` and that has a shadow goes back to its shadow (which
 * gets its name and nlink again); the torn inode, when that was its last name, is reaped. `restored` receives
 * the shadows' inodes. All other shadows stay.
 */
errint meta_restore_shadows(struct meta *meta, const struct ids *torn, struct ids *restored,
                            struct ids *freed);

/* One path of the inode from the root, for messages; "?" parts where a name is gone. The caller frees. */
errint meta_path(struct meta *meta, uint64_t ino, char **out);

/* Small settings of the store that must be as durable as the namespace ("clean", "epoch", ...). */
errint meta_setting_put(struct meta *meta, const char *key, const char *value);
/* -ENOENT when it was never put. The caller frees *value. */
errint meta_setting_get(struct meta *meta, const char *key, char **value);

/*
 * Returns when every change committed before the call is on stable storage. All callers that wait at the same
 * time share one sync. Blocks: never call it from a thread that answers the kernel.
 */
errint meta_sync(struct meta *meta);

/*
 * Rises with every commit; the second one is the last commit known to be on stable storage. What was freed at
 * commit N may be destroyed once meta_commit_durable() >= N.
 */
uint64_t meta_commit_last(struct meta *meta);
uint64_t meta_commit_durable(struct meta *meta);

#endif
