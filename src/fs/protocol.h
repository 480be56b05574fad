/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few parts of the FUSE kernel protocol that every supported libfuse lacks or hides: the header of a
 * request as read from /dev/fuse, errors sent without a request object, RESEND, and backing ids. Source:
 * Linux include/uapi/linux/fuse.h, protocol 7.40 (kernel 6.9). Numbers of that ABI never change.
 */
#ifndef CKPTFS_FS_PROTOCOL_H
#define CKPTFS_FS_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

enum {
    PROTOCOL_INIT = 26,
    PROTOCOL_FORGET = 2,
    PROTOCOL_BATCH_FORGET = 42,
    PROTOCOL_INTERRUPT = 36,
    PROTOCOL_WRITE = 16,
    PROTOCOL_HEADER_SIZE = 40, /* struct fuse_in_header */
    PROTOCOL_WRITE_SIZE = 40,  /* struct fuse_write_in */
};

/* struct fuse_in_header. */
struct protocol_header {
    uint32_t length;
    uint32_t opcode;
    uint64_t unique;
    uint64_t nodeid;
    uint32_t uid, gid, pid;
    uint16_t extension_length;
    uint16_t padding;
};

/* A request as the kernel sent it; NULL when `length` bytes are too few for one. */
const struct protocol_header *protocol_parse(const void *bytes, size_t length);

/* For WRITE, SETATTR, OPEN and CREATE: whether the kernel asks to drop setuid and setgid bits with it. */
bool protocol_kills_privileges(const struct protocol_header *header);

/* Whether the kernel's INIT message offers to send unanswered requests again. */
bool protocol_offers_resend(const struct protocol_header *init);

/* For POLL: the key that a notification names the waiting process by; 0: nobody waits. */
uint64_t protocol_poll_key(const struct protocol_header *header);
/* Wakes who waits by poll(2) on the handle that has this key. */
errint protocol_notify_poll(int fuse_fd, uint64_t key);

/*
 * Whether the kernel has this inode in memory: somebody has it open, mapped, or has looked it up. Waits while
 * it is being evicted. False also when the connection has ended.
 */
bool protocol_knows_inode(int fuse_fd, uint64_t ino);

/* Answers a request with an error (negative errno), without libfuse. */
errint protocol_reply_error(int fuse_fd, uint64_t unique, int error);
/* Asks the kernel to send every unanswered request again. */
errint protocol_resend(int fuse_fd);

/* The id of a registered file (> 0), or a negative errno. */
int protocol_backing_open(int fuse_fd, int fd);
errint protocol_backing_close(int fuse_fd, int backing_id);

#endif
