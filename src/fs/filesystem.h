/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all parts of a served filesystem share: the store, the namespace, the nodes in use, the queues of what
 * is done later, and what this kernel, library and privilege allow.
 *
 * Lock order: node locks (two of them: by inode number), then a backing's lock, then the namespace's own. The
 * queues' locks are innermost. No lock is held over a sync.
 */
#ifndef CKPTFS_FS_FILESYSTEM_H
#define CKPTFS_FS_FILESYSTEM_H

#include "config.h"

#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/workers.h"
#include "fs/backing.h"
#include "fs/control.h"
#include "fs/counters.h"
#include "fs/damage.h"
#include "fs/node.h"
#include "fs/protocol.h"
#include "fs/room.h"
#include "fs/serve.h"
#include "fs/state.h"
#include "meta/meta.h"
#include "store/store.h"

/* Only the kernel changes what it caches, so it may cache for long. */
#define FS_TIMEOUT_SECONDS 86400.0
/* The root's entry that all that is ours lies under; nobody may make it. */
#define FS_CONTROL_NAME FS_CONTROL_DIRECTORY

enum { FS_MAX_WRITE = 1 << 20 };

/* Threads that answer later. Each has a slot of the requests in work, from the last one down. */
enum { FS_SYNC_WORKERS = 8, FS_REPORTERS = 2, FS_SUMMERS = 4, FS_RETRIERS = 8 };

/* What is possible here; found at the start by trying. A text is NULL where nothing is missing. */
struct features {
    bool passthrough;
    bool direct_mmap;      /* MAP_SHARED on direct_io handles */
    bool kills_privileges; /* the kernel leaves dropping setuid bits to us, and asks less */
    bool parallel_writes;
    bool resend;                     /* a successor can take over */
    _Atomic unsigned read_ahead_kib; /* known once requests are served */
    char passthrough_missing[160];
    char read_ahead_missing[160];
};

struct sealer;
struct writeback;
struct discard;
struct share;
struct share_models;
struct inputs;
struct assembler;
struct checkpoints;
struct writers;
struct rewrite;
struct keep_watch;
struct loads;
struct events;
struct view_events;
struct hooks;
struct exporter;
struct repack;
struct backup;
struct stored;
struct outlook_work;
struct saves_memory;
struct trash;

struct filesystem {
    const struct fs_options *options;
    struct store *store;
    struct meta *meta;
    struct state *state;
    struct fuse_session *session;
    struct features features;
    struct backing_table backings;
    struct node_table nodes;
    struct damage damage;
    struct workers *workers;   /* for syncs that a request waits for */
    struct workers *reporters; /* for figures that a request waits for (report.h) */
    struct workers *summers;   /* the same, for sums of whole files */
    struct workers *retriers;  /* for requests that wait for space (retry.h) */
    struct {
        pthread_mutex_t lock;
        struct workers *workers; /* NULL: stopped */
    } expirer;                   /* tells the kernel of names to forget (expire.h) */
    struct sealer *sealer;
    struct writeback *writeback;
    struct discard *discard;
    struct share *share;               /* NULL: sharing is off */
    struct share_models *share_models; /* the same */
    struct inputs *inputs;             /* that assembled files are made from */
    struct assembler *assembler;       /* NULL: read-only */
    struct checkpoints *checkpoints;
    struct writers *writers;
    struct rewrite *rewrite;       /* NULL: read-only */
    struct keep_watch *keep_watch; /* the same */
    struct loads *loads;           /* the same */
    bool owners_share;             /* the store was mounted with share-owners=yes once: set at the start */
    struct events *events;         /* NULL: nobody is told of anything yet, or any more */
    struct view_events *view_events;
    struct hooks *hooks; /* NULL: read-only */
    struct exporter *exporter;
    struct repack *repack; /* NULL: read-only */
    struct backup *backup; /* NULL: no backups */
    struct stored *stored;
    struct outlook_work *outlook;      /* NULL before the start */
    struct saves_memory *saves_memory; /* the same */
    struct counters counters;
    int64_t started;     /* this daemon, ns since the epoch */
    struct trash *trash; /* NULL: read-only */
    struct room room;
    _Atomic uint64_t copying; /* the object that another is being repacked into; 0: none */
    atomic_bool initialised;  /* INIT is answered */
    atomic_bool stopping;
    atomic_bool disk_full;       /* the reserve is spent: only what frees space is allowed */
    _Atomic uint64_t torn_found; /* files torn by the last crash, as found at this start */
};

static inline struct filesystem *fs_of(fuse_req_t request)
{
    return fuse_req_userdata(request);
}

/* The request that this thread is working on, as the kernel sent it (set by the loop). */
extern _Thread_local const struct protocol_header *fs_current_request;

/* What this thread reads into; made when first needed, freed by the loop when the thread ends. */
extern _Thread_local char *fs_read_buffer;

/* The number to record with a namespace change. */
static inline uint64_t fs_current_unique(void)
{
    return fs_current_request ? fs_current_request->unique : 0;
}

/* The table of operations that libfuse calls. */
extern const struct fuse_lowlevel_ops fs_operations;

#endif
