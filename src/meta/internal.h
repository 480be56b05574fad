/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of meta share: the state behind `struct meta`, transactions, and the helpers that each
 * table has. Nothing outside src/meta and its unit tests includes this.
 *
 * Names: meta_* is the public contract (meta.h); change_* a transaction; inode_*, name_*, shadow_*,
 * stand_in_*, assembled_*, beside_*, extents_*, content_*, object_*, checksum_* work on one table inside a
 * transaction, with the lock held.
 */
#ifndef CKPTFS_META_INTERNAL_H
#define CKPTFS_META_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/thread.h"
#include "meta/db.h"
#include "meta/db_journal.h"
#include "meta/meta.h"

/* -- the state --------------------------------------------------------------------------------------------
 */

enum meta_counter { META_COUNTER_INO, META_COUNTER_OBJECT, META_COUNTER_COOKIE, META_COUNTERS };

/* The numbers from `next` up to, without, `limit` may be given out: the database knows that they are taken.
 */
struct meta_numbers {
    uint64_t next;
    uint64_t limit;
};

/* What is known about the tables without asking them. A transaction that fails restores it. */
struct meta_known {
    struct meta_numbers numbers[META_COUNTERS];
    uint64_t inodes, objects, dirty, torn, shadows, stand_ins;
    __int128 logical_bytes; /* 2^63 files of 2^63 bytes do not overflow it */
};

struct meta {
    pthread_mutex_t lock; /* everything up to the next lock; never held over a sync; taken before sync_lock */
    struct db *db;
    struct meta_known known;
    bool totals_kept;              /* the database has them in a row, which the next change removes */
    uint64_t request, request_ino; /* the last request that was answered */
    struct ids released;           /* shadows and stand-ins that other changes let go */
    void (*committed)(void *context, uint64_t unique, uint64_t ino);
    void *committed_context;
    errint (*spend)(void *context);
    void *spend_context;
    pthread_t thread; /* moves the log into the database */
    bool thread_runs, stop;
    pthread_cond_t log_grown;
    size_t log_trim;  /* the log is copied into the database when it has grown by this */
    size_t log_limit; /* from here on commits wait until it is copied and emptied */
    size_t log_again; /* it could not be emptied, and is not tried again below this */
    size_t log_wake;  /* commits wake the thread from this size of the log on */
    errint log_error; /* of the last round, so that it is not told again and again */

    _Atomic uint64_t commit_last; /* written under `lock` */

    pthread_mutex_t sync_lock; /* the rest */
    pthread_cond_t sync_done;
    bool syncing;
    errint sync_error; /* a sync of the log failed: nothing later can be trusted to be on stable storage */
    _Atomic uint64_t commit_durable;

    /* The redo journal (journal.c). Its lock is taken before all others, and held over syncs. */
    struct thread journaling;
    struct db_journal *journal;       /* NULL: opened without one */
    atomic_bool journal_refused;      /* the disk is full: what is left of it is for the database */
    _Atomic uint64_t journal_durable; /* the last commit that is known to be in it */
};

struct meta *meta_lock(struct meta *meta);
void meta_unlock_scope(struct meta **meta);
/* Holds the lock until the end of the scope. */
#define META_LOCKED(guarded)                                                                                 \
    struct meta *locked_ __attribute__((cleanup(meta_unlock_scope), unused)) = meta_lock(guarded)

/*
 * Moves the log into the database's own blocks and gives its space to the disk, if there is any. For a change
 * that met a full disk: with the lock held, which is given up in between. False: nothing is gained.
 */
bool meta_empty_log(struct meta *meta);
/* Before a change, likewise: empties a log that is too long for what the disk has free. Where there is plenty
 * the thread does that beside the changes. */
void meta_keep_log_short(struct meta *meta);

/* -- the journal (journal.c) ------------------------------------------------------------------------------
 */

/* Adds all up to a commit, with which the log had come to `commits`. The journal's lock is held. A failure is
 * logged, and ends the journal. */
void journal_bring(struct meta *meta, uint64_t commit, uint64_t commits);
/* Around an emptying of the log, with all of it brought: before it with both locks held, after it without the
 * namespace's. */
void journal_settle(struct meta *meta);
void journal_sync_settled(struct meta *meta);
/* After the opening of the database, before anything is committed. */
void journal_opened(struct meta *meta);
/* `clean`: the database was closed in order. -ESTALE: it was not, and the journal has what it lacks. */
errint journal_compare(struct meta *meta, bool clean);
/* After the last commit; and after the closing of the database, when that has emptied the log if `whole`. */
void journal_finish_log(struct meta *meta);
void journal_close(struct meta *meta, bool whole);

/* meta_backup, with the copy still open; db_copy_close whatever it returns. */
errint backup_copy(struct meta *meta, const char *path, bool (*stop)(void *context), void *context,
                   struct db_copy **out);

/* -- transactions (change.c) ------------------------------------------------------------------------------
 */

/*
 * A transaction that is tried once, and when the disk is full again where the reserve can be spent, and some
 * times more with the log emptied; the lock is given up before that:
 *
 *     struct change change = {.meta = meta, .request = unique, .freed = freed};
 *     while (change_next(&change))
 *         change.error = body(&change, ...);
 *     return change.error;
 *
 * The lock is held from the first change_next until the last. What a failed try put on the lists is taken
 * off.
 */
struct change {
    struct meta *meta;
    uint64_t request;    /* the kernel's number, or 0 */
    uint64_t ino;        /* the inode that goes with it */
    struct ids *freed;   /* objects that nothing refers to any more; NULL: the caller does not want to know */
    struct ids *shadows; /* another list of the caller's; NULL: meta->released */
    bool spends;         /* may spend the reserve */
    bool nothing;        /* set by the body: there was nothing to do */
    errint error;        /* set by the body */
    /* change.c's own */
    bool begun, spent;
    int again; /* tries with the space of the log */
    size_t freed_count, shadows_count;
    struct meta_known known;
};

bool change_next(struct change *change);
/* A number that was never given out before; 0 with an error. */
errint change_take_number(struct meta *meta, enum meta_counter which, uint64_t *number);
/* Reads the counters and the totals; skips numbers that a power cut may have made the database forget. */
errint change_start(struct meta *meta);
/* Counts the tables anew, where they were changed without the helpers below. */
errint change_count_totals(struct meta *meta);
/* Writes the counters and the totals so that nothing needs skipping or counting at the next start. */
errint change_stop(struct meta *meta);

/* -- tables -----------------------------------------------------------------------------------------------
 */

#define INODE_COLUMNS                                                                                        \
    "i.ino, i.mode, i.nlink, i.uid, i.gid, i.rdev, i.size, i.atime, i.mtime, i.ctime, i.btime, i.kind, "     \
    "i.state, i.object, i.synced_size"
enum { INODE_COLUMN_COUNT = 15 };

/* Appends the first column of each row, and finishes the rows. After an error the list is as before. */
errint rows_collect_ids(struct db_rows *rows, struct ids *out);

void inode_from_row(const struct db_rows *rows, struct meta_inode *out);
/* -ENOENT. */
errint inode_load(struct meta *meta, uint64_t ino, struct meta_inode *out);
/* As inode_load; -EISDIR for directories, -EINVAL for all else that is no regular file. */
errint inode_load_file(struct meta *meta, uint64_t ino, struct meta_inode *out);
/* As inode_load; -ENOTDIR. */
errint inode_load_directory(struct meta *meta, uint64_t ino, struct meta_inode *out);
errint inode_insert(struct meta *meta, const struct meta_inode *inode);
errint inode_update(struct meta *meta, const struct meta_inode *before, const struct meta_inode *after);
/* Removes an inode with its contents, extents and attributes. */
errint inode_drop(struct change *change, const struct meta_inode *inode);
/* A name of it went: `after` is written, or the inode removed when that was its last and `reap` allows it. */
errint inode_unlinked(struct change *change, const struct meta_inode *before, const struct meta_inode *after,
                      bool reap);

/* `making`: the name shall be made, so "." and ".." will not do. */
errint name_check(const char *name, size_t length, bool making);
/* -ENOENT. */
errint name_find(struct meta *meta, uint64_t parent, const char *name, size_t length, uint64_t *ino);
/* -EEXIST. */
errint name_insert(struct meta *meta, uint64_t parent, const char *name, size_t length, uint64_t ino);
errint name_delete(struct meta *meta, uint64_t parent, const char *name, size_t length);
/* As meta_create, within a transaction; what is asked for was checked. */
errint name_create(struct change *change, const struct meta_new *new, struct meta_inode *out);
/* The name becomes another inode's and keeps its cookie. */
errint name_point(struct meta *meta, uint64_t parent, const char *name, size_t length, uint64_t ino);
/* The directory that holds (one of) the inode's names; -ENOENT when it has none. */
errint name_parent(struct meta *meta, uint64_t ino, uint64_t *parent);

/* The directory got or lost an entry: its times, and for a subdirectory its nlink, follow. */
errint name_touch_parent(struct meta *meta, const struct meta_inode *parent, int subdirectories, int64_t now);
/* A directory that can get entries; -ENOENT when it is removed. */
errint name_load_parent(struct meta *meta, uint64_t ino, struct meta_inode *out);

/* A name that is to go. */
struct name_removal {
    uint64_t parent;
    const char *name;
    size_t length;
    uint64_t expected; /* the inode that the caller knows it to be */
    bool directory;
    bool reap;
    int64_t now;
    uint64_t trash;   /* the checkpoint that it is removed from, which the trash keeps; 0: none */
    uint32_t remover; /* who does it, and when by the clock of ages: for the trash */
    int64_t removed;
};
/* As meta_unlink, meta_rmdir and meta_trash_remove. */
errint name_remove(struct change *change, const struct name_removal *removal);

/* Opens an entry of the trash for it. *kept: the directory that the name goes to; 0: it is not kept. */
errint trash_prepare(struct change *change, const struct name_removal *removal,
                     const struct meta_inode *inode, uint64_t *kept);
/* A directory lost its name: what the trash has of it, and of what lay in it, is told so. */
struct trash_removed {
    const struct meta_inode *inode;
    uint64_t parent; /* what it was */
    const char *name;
    size_t length;
    int64_t now;
};
errint trash_directory_removed(struct change *change, const struct trash_removed *removed);

/* Whether the directory has entries, other than those of assembled files: 1, 0 or an error. */
int name_any(struct meta *meta, uint64_t directory);

struct shadow {
    uint64_t replaced;
    uint64_t successor;
};

/* The shadow of a name; -ENOENT. */
errint shadow_find(struct meta *meta, uint64_t parent, const char *name, size_t length, struct shadow *out);
errint shadow_insert(struct meta *meta, uint64_t parent, const char *name, size_t length,
                     const struct shadow *shadow);
errint shadow_delete(struct meta *meta, uint64_t parent, const char *name, size_t length);
/* The name goes or its inode is safe: its shadow, if there is one, is let go. */
errint shadow_release(struct change *change, uint64_t parent, const char *name, size_t length);
/* The same for all names of a successor. */
errint shadow_release_all(struct change *change, uint64_t successor);
/* Whether the inode is kept as a shadow: 1, 0 or an error. */
int shadow_is(struct meta *meta, uint64_t ino);
/* An inode that changes of others let go: it is told the caller. */
errint shadow_let_go(struct change *change, uint64_t ino);

/* The file needs its stand-in (meta/stand_in.h) no more, if it has one: that is let go, as a shadow is. */
errint stand_in_release(struct change *change, uint64_t ino);
/* The file is cut, or grown with a hole, by a change that is as durable as its stand-in. */
errint stand_in_truncate(struct change *change, uint64_t ino, int64_t size);
/* The file's names, and what is made of its bytes, are another inode's from now on. */
errint stand_in_move(struct meta *meta, uint64_t from, uint64_t to);
/* Whether the inode is a stand-in: 1, 0 or an error. */
int stand_in_is(struct meta *meta, uint64_t ino);

/* Withdraws what the directory shows; change->nothing tells whether that was nothing. */
errint assembled_withdraw(struct change *change, uint64_t directory);
/* The same, and from which files it was made. */
errint assembled_forget(struct change *change, uint64_t directory);
/* Withdraws one inode. */
errint assembled_let_go(struct change *change, uint64_t ino);
/* Whether a directory shows the inode: 1, 0 or an error. */
int assembled_is(struct meta *meta, uint64_t ino);

/* What is known of the directory as a checkpoint, or as a run, goes. */
errint checkpoint_forget(struct meta *meta, uint64_t directory);
errint writer_forget(struct meta *meta, uint64_t run);

struct meta_policy_change;
/* As meta_policy_change, within a transaction. */
errint policy_change(struct change *change, uint64_t directory, const struct meta_policy_change *changes,
                     size_t count);
/* The directory is removed, and what was set for it with it. */
errint policy_forget(struct meta *meta, uint64_t directory);
/* The same for its template, if it has one. */
errint template_forget(struct change *change, uint64_t directory);
/* The inode's pin goes, if it has one. */
errint pin_forget(struct meta *meta, uint64_t ino);

/* The hidden directory of a kind (meta/hidden.h), which is made where it is not there yet. */
errint hidden_open(struct change *change, const char *kind, int64_t now, uint64_t *ino);

/* Gives an assembled inode its name in the directory; none where another file has it. */
errint beside_show(struct change *change, uint64_t directory, const char *name,
                   const struct meta_inode *inode);
/* Takes that name away, if it has it. `kept`: it has others, and is a file like others now. */
errint beside_hide(struct change *change, uint64_t ino, bool *kept);
/* Whether that name of that inode is one of these: 1, 0 or an error. */
int beside_is(struct meta *meta, uint64_t directory, const char *name, size_t length,
              const struct meta_inode *inode);
/* If it is, the inode becomes a file like others, also in `inode`, and is not assembled again. */
errint beside_leave(struct change *change, uint64_t directory, const char *name, size_t length,
                    struct meta_inode *inode);
/* Somebody makes a file of that name: if that is the name of one of these, it is withdrawn. */
errint beside_give_way(struct change *change, uint64_t directory, const char *name, size_t length);
/* Nothing was removed from the directory, as far as meta_assembled_is_removed knows. */
errint beside_forget(struct meta *meta, uint64_t directory);
/* What is lent (meta/lent.h) to the directory, and to those below it, is withdrawn. */
errint lent_withdraw_below(struct change *change, uint64_t above);

/* Bytes of the object up to `size` are used: it gets a row when it has none. */
errint object_note(struct meta *meta, uint64_t object, int64_t size);
/* The object is `owner`'s to write: it gets a row when it has none. */
errint object_own(struct meta *meta, uint64_t object, uint64_t owner);
/* The object is `owner`'s to write (0: nobody's), and `size` bytes long. */
errint object_set(struct meta *meta, uint64_t object, uint64_t owner, int64_t size);
/* Its hashes do not count any more: it is about to be written, or was damaged. */
errint object_unsum(struct meta *meta, uint64_t object);
/* The same for all objects of a META_EXTENTS file. */
errint object_unsum_all(struct meta *meta, uint64_t ino);
/* The hash of all its chunks, 16 bytes; -ENOENT when it was not hashed since it was last written. */
errint object_root(struct meta *meta, uint64_t object, uint8_t root[16]);
/* 0 when the object is sealed; -EBUSY, -ENOENT. */
errint object_check_sealed(struct meta *meta, uint64_t object);
struct meta_range;
/* As meta_live_ranges. */
errint object_live_ranges(struct meta *meta, uint64_t object, struct meta_range **out, size_t *count);
/* Whether a range of it is known to be damaged: 1, 0 or an error. */
int object_is_damaged(struct meta *meta, uint64_t object);
errint object_forget_damage(struct meta *meta, uint64_t object);
/*
 * A page of objects, from rows of (id, whether it is wanted) in the order of the ids: the wanted ones are
 * appended, `after` becomes the last id. 1 when the page was full, 0 at the end, or an error.
 */
int object_collect_page(struct db_rows *rows, int limit, uint64_t *after, struct ids *out);
/* The file's sum goes (meta/checksum.h). */
errint checksum_drop(struct meta *meta, uint64_t ino);
/* The same for all files that have a part of the object. */
errint checksum_drop_users(struct meta *meta, uint64_t object);
/* It lost an extent and is still used. */
errint object_mark_shrunk(struct meta *meta, uint64_t object);
/* Puts the object on change->freed when nothing refers to it any more, else marks it as shrunk. */
errint object_release(struct change *change, uint64_t object);
/* The same for each object of the list, which may hold some of them more than once, and is sorted. */
errint object_release_all(struct change *change, struct ids *objects);

/* The file's bytes become `kind` none: what it was made of goes. The caller writes the inode's row. */
errint content_clear(struct change *change, struct meta_inode *inode);
/* Removes stored bytes, also those that a META_OBJECT or META_EXTENTS file had before and was not synced
 * since. */
errint content_drop(struct meta *meta, uint64_t ino);
/* Cuts the stored bytes of a META_INLINE file to `size`. */
errint content_cut(struct meta *meta, uint64_t ino, int64_t size);
errint content_insert(struct meta *meta, uint64_t ino, const void *bytes, size_t length);

/* A growing list of extents; starts as {0}. */
struct extent_list {
    struct meta_extent *at;
    size_t count, capacity;
};
void extent_list_release(struct extent_list *list);
#define cleanup_extents __attribute__((cleanup(extent_list_release)))
errint extent_list_append(struct extent_list *list, const struct meta_extent *extent);
/* Appends, joined with the last one where it continues that. */
errint extent_list_join(struct extent_list *list, const struct meta_extent *extent);
/* How many bytes they cover. */
int64_t extent_list_bytes(const struct extent_list *list);

/* Takes [from, to) out of the file's extents; the objects that lost something are appended to `touched`. */
errint extents_cut(struct meta *meta, uint64_t ino, int64_t from, int64_t to, struct ids *touched);
/* The parts of the file's extents that lie in [from, to), in file order. */
errint extents_collect(struct meta *meta, uint64_t ino, int64_t from, int64_t to, struct extent_list *out);
/* Puts an extent into a gap, joined with neighbours that continue it. */
errint extents_put(struct meta *meta, uint64_t ino, const struct meta_extent *extent);

/* -- schema.c ---------------------------------------------------------------------------------------------
 */

/* A step from format `from` to from + 1. */
struct schema_step {
    int from;
    const char *text;
};

/* Makes an empty namespace (a root directory) at `path`, whole or not at all. */
errint schema_create(const char *path);
/*
 * Checks the format. An older one goes through `steps` to `format` in one transaction, after a backup to
 * `path`.format-N. -EPROTONOSUPPORT: newer; -EUCLEAN: no namespace, or no step leads on.
 */
errint schema_check(struct db *db, const char *path, int format, const struct schema_step *steps,
                    size_t count);
/* The steps of this version. */
const struct schema_step *schema_steps(size_t *count);

#endif
