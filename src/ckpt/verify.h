/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification: the bytes of objects against their tables of chunk hashes, in steps.
 *
 * Every chunk that has a live byte must have its hash; chunks that no file covers a byte of may have been
 * given back to the disk and are not looked at. What is damaged is recorded (meta/damage.h), a row a chunk,
 * and what is right again is taken off the record. Objects may be written, re-pointed and removed meanwhile:
 * what changed under a step is reported as changed, never as damaged.
 *
 * Thread-safe, as long as no two threads repair one object. Blocks.
 */
#ifndef CKPTFS_CKPT_VERIFY_H
#define CKPTFS_CKPT_VERIFY_H

#include "meta/damage.h"
#include "store/sums.h"

enum verify_state {
    VERIFY_LOOKED_AT = 1, /* its chunks were read */
    VERIFY_UNHASHED,      /* it has no hashes yet: it is being written, or waits for them */
    VERIFY_UNVERIFIABLE,  /* its table of hashes is missing or damaged */
    VERIFY_CHANGED,       /* it was written or removed meanwhile, or is not needed any more */
};

/* What is said of a range. */
enum verify_finding {
    VERIFY_DIFFERS = 1,   /* the bytes have another hash */
    VERIFY_UNREADABLE,    /* the disk does not give them */
    VERIFY_SHORT,         /* the object ends before them */
    VERIFY_MISSING,       /* there is no object */
    VERIFY_REPAIRED,      /* was damaged, and is right again */
    VERIFY_NOT_REPAIRED,  /* damaged; the right bytes are elsewhere, but somebody has the object open */
    VERIFY_TABLE_MISSING, /* no table of hashes */
    VERIFY_TABLE_DAMAGED, /* the table of hashes is not what the namespace knows */
};

/* Whether the finding is damage that is still there. */
bool verify_is_damage(enum verify_finding finding);

struct verify_request {
    struct store *store;
    struct meta *meta;
    uint64_t object;
    int64_t offset; /* in the object: 0, or `next` of the step before */
    int64_t budget; /* bytes to read, at least; the step ends with the chunk that reaches it */
    bool repair;    /* take equal bytes from other places of the store */
    /* The record of the object has changed. NULL: nobody wants to know. */
    void (*recorded)(void *context, uint64_t object);
    /* Whether the object may be written, since nobody else sees it. NULL: always. */
    bool (*may_write)(void *context, uint64_t object);
    void *context;
};

enum {
    VERIFY_LINES_MAX = 64,
    VERIFY_TEXT_MAX = 12000, /* with the answer less than what one ioctl moves */
};

/* A part of a file that a finding is about. */
struct verify_line {
    uint64_t ino;
    int64_t offset, length; /* in the file */
    int64_t object_offset;
    uint32_t finding; /* enum verify_finding */
    uint32_t path;    /* where it starts in `text`, NUL-terminated */
};

/* Of one step; of fixed size, since it is also what a daemon answers. */
struct verify_answer {
    uint64_t object;
    int64_t next;      /* where the next step begins; -1: the object is done */
    int64_t checked;   /* bytes that were read and hashed */
    uint32_t state;    /* enum verify_state */
    uint32_t lines;    /* of `line` */
    uint32_t left_out; /* lines more that had no room */
    uint32_t damaged;  /* ranges of the object that are damaged */
    struct verify_line line[VERIFY_LINES_MAX];
    char text[VERIFY_TEXT_MAX];
};

/*
 * One step. 0, whatever is found; a negative errno of the database, of the store's directory or -ENOMEM: then
 * `out` says nothing.
 */
errint verify_step(const struct verify_request *request, struct verify_answer *out);

#endif
