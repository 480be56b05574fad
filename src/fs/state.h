/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory that outlives a daemon: a memfd that the keeper holds and each daemon maps. It has the kernel's
 * INIT message, the open handles, the requests in work and the heartbeat. All numbers mean the same to every
 * process: no pointers.
 *
 * Written by the daemon, lock-free where threads meet; the keeper reads, and only notes how a daemon ended. A
 * daemon that finds another layout version refuses to take over.
 */
#ifndef CKPTFS_FS_STATE_H
#define CKPTFS_FS_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

#define STATE_MAGIC   UINT64_C(0x636b707466733101)
#define STATE_VERSION 2

enum {
    STATE_REQUESTS = 64,     /* threads that may have a request in work */
    STATE_CARRIED = 256,     /* requests that were in work at the deaths of earlier daemons */
    STATE_HANDLES = 1 << 18, /* open files and directories at a time; more give ENFILE */
    STATE_INIT_MAX = 256,    /* bytes of the INIT message */
    /* What a request gets for a death of which it may be the cause, and where it is not likely: others were
     * answered since it began. Who has the last of them is answered EIO. */
    STATE_BLAME = 4,
    STATE_BLAME_UNLIKELY = 1,
    STATE_BLAME_FATAL = 2 * STATE_BLAME,
};

/* The kernel sets this bit in the number of a request that it sends again. */
#define STATE_RESENT (UINT64_C(1) << 63)

/* How a handle is served (FUSE.md's table of modes). */
enum state_mode {
    STATE_PASSTHROUGH = 1,        /* the kernel reads and writes the object */
    STATE_PASSTHROUGH_DIRECT = 2, /* mmap goes to the object, read and write come to the daemon */
    STATE_CACHED = 3,             /* page cache of the FUSE inode */
    STATE_DIRECT = 4,             /* direct_io */
    STATE_DIRECTORY = 5,
    STATE_EVENTS = 6, /* .ckptfs/events: no inode's (fs/view_events.h) */
};

/*
 * A handle of STATE_EVENTS has in `object` the number of the next line, and so many bits below it how much of
 * that was read; in `flags` how many lines the next one says to be lost; in `reserved` the kernel's key of
 * who waits by poll(2); in `backing_id` who has opened it.
 */
enum { STATE_EVENTS_SHIFT = 16 };

struct state_request {
    _Atomic uint64_t unique; /* 0: idle */
    uint32_t opcode;
    uint32_t blame; /* for the deaths of daemons that it was in work at */
    uint64_t nodeid;
    _Atomic int64_t begun; /* clock_monotonic() */
    _Atomic uint32_t done; /* 1: its change is committed, with `ino` as the result */
    uint32_t reserved;
    uint64_t ino;
};

struct state_handle {
    _Atomic uint64_t fh; /* 0: free; else sequence << 32 | index */
    uint64_t ino;
    uint64_t unique; /* the request that opened it */
    uint64_t
        object; /* that backing_id stands for; of a directory: the first cookie that is not listed, or 0 */
    int32_t backing_id;
    uint32_t flags; /* of open(2) */
    uint32_t mode;  /* state_mode */
    union {
        int32_t opener; /* of a file: the thread that opened it, as the daemon sees it; 0: not known */
        uint32_t reserved;
    };
};

struct state {
    uint64_t magic;
    uint32_t version;
    uint32_t reserved;
    _Atomic uint32_t generation; /* daemons that have served this mount so far */
    _Atomic uint32_t can_resend; /* the kernel offered FUSE_HAS_RESEND */
    _Atomic int32_t daemon_pid;
    _Atomic int32_t keeper_pid;
    _Atomic int64_t last_progress; /* clock_monotonic() of the last request begun or ended */
    _Atomic int64_t last_answered; /* when the request had begun that began last of those that ended */
    _Atomic uint32_t was_killed;   /* the last daemon, from outside (keeper) */
    _Atomic int64_t blamed_since;  /* requests begun from then on may be why the last daemon died (keeper) */
    int64_t mounted_at;            /* ns since the epoch */
    _Atomic uint32_t next_sequence;
    uint32_t init_length;
    uint8_t init[STATE_INIT_MAX];
    struct state_request requests[STATE_REQUESTS];
    struct state_request carried[STATE_CARRIED];
    _Atomic uint32_t handles_used; /* slots below this index may be in use */
    struct state_handle handles[STATE_HANDLES];
};

/* A new, empty state memory that survives exec: its descriptor or a negative errno. */
int state_create(void);
/* Maps it; NULL (and one line) when it is not one or of another layout. */
struct state *state_attach(int fd);
void state_detach(struct state *state);

/* Marks request slot `slot` busy; blame is inherited from the request's earlier life. */
void state_request_begin(struct state *state, unsigned slot, uint64_t unique, uint32_t opcode,
                         uint64_t nodeid);
void state_request_end(struct state *state, unsigned slot);
/* The change that request `unique` asked for is committed. */
void state_request_done(struct state *state, uint64_t unique, uint64_t ino);
/*
 * For a request that the kernel sent again: 1 when an earlier daemon had committed it (*ino is its result), 0
 * when not.
 */
int state_request_was_done(struct state *state, uint64_t unique, uint64_t *ino);

/* How a daemon ended, as the keeper sees it. */
enum state_end {
    STATE_END_HANDOVER, /* asked to: no request is to blame */
    STATE_END_KILLED,   /* SIGKILL from outside: only what had just begun may have a part in it */
    STATE_END_CRASHED,  /* by itself, or it hung: whatever was in work */
};
void state_blame(struct state *state, enum state_end end);

/*
 * A new daemon calls this before its threads start: what was in work becomes "carried", with its part of the
 * blame for the last death. `last_unique` and `last_ino` are the database's last committed request:
 * the only one whose commit the predecessor may not have noted.
 */
void state_carry_requests(struct state *state, uint64_t last_unique, uint64_t last_ino);

/* A new handle: its fh, or 0 when all are in use. Thread-safe. */
uint64_t state_handle_open(struct state *state, const struct state_handle *handle);
/* NULL when fh is no open handle. The pointer is valid until state_handle_close. */
struct state_handle *state_handle_find(struct state *state, uint64_t fh);
/* The handle that request `unique` opened before; NULL. Linear: only for requests that were sent again. */
struct state_handle *state_handle_of_request(struct state *state, uint64_t unique);
void state_handle_close(struct state *state, uint64_t fh);

#endif
