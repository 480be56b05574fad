/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the FUSE kernel protocol that libfuse does not offer. */
#include "fs/protocol.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

/* Opcodes and bits that only protocol_kills_privileges needs. */
enum {
    OPCODE_SETATTR = 4,
    OPCODE_OPEN = 14,
    OPCODE_CREATE = 35,
    NOTIFY_POLL = 1,
    NOTIFY_INVALIDATE = 2,
    NOTIFY_RESEND = 7,
    POLL_SCHEDULE = 1 << 0, /* FUSE_POLL_SCHEDULE_NOTIFY in fuse_poll_in.flags */
    SETATTR_KILL = 1 << 11, /* FATTR_KILL_SUIDGID in fuse_setattr_in.valid */
    WRITE_KILL = 1 << 2,    /* FUSE_WRITE_KILL_SUIDGID in fuse_write_in.write_flags */
    OPEN_KILL = 1 << 0,     /* FUSE_OPEN_KILL_SUIDGID in fuse_open_in.open_flags */
};
#define INIT_EXTENDED   (UINT32_C(1) << 30) /* FUSE_INIT_EXT: flags2 is there */
#define INIT_HAS_RESEND (UINT32_C(1) << 7)  /* FUSE_HAS_RESEND (1 << 39), in flags2 */

struct protocol_out_header {
    uint32_t length;
    int32_t error;
    uint64_t unique;
};

struct protocol_backing_map {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};
#define IOCTL_BACKING_OPEN  _IOW(229, 1, struct protocol_backing_map)
#define IOCTL_BACKING_CLOSE _IOW(229, 2, uint32_t)

const struct protocol_header *protocol_parse(const void *bytes, size_t length)
{
    return length >= sizeof(struct protocol_header) ? bytes : NULL;
}

/* The 32-bit word at `offset` of the request's argument; 0 when the request is shorter. */
static uint32_t protocol_word(const struct protocol_header *header, size_t offset)
{
    uint32_t word = 0;
    if (header->length >= sizeof *header + offset + sizeof word)
        memcpy(&word, (const char *)(header + 1) + offset, sizeof word);
    return word;
}

bool protocol_kills_privileges(const struct protocol_header *header)
{
    switch (header->opcode) {
    case OPCODE_SETATTR: return protocol_word(header, 0) & SETATTR_KILL;
    case OPCODE_OPEN: return protocol_word(header, 4) & OPEN_KILL;
    case OPCODE_CREATE: return protocol_word(header, 12) & OPEN_KILL;
    case PROTOCOL_WRITE: return protocol_word(header, 20) & WRITE_KILL;
    default: return false;
    }
}

bool protocol_offers_resend(const struct protocol_header *init)
{
    /* fuse_init_in: major, minor, max_readahead, flags, flags2. */
    return (protocol_word(init, 12) & INIT_EXTENDED) && (protocol_word(init, 16) & INIT_HAS_RESEND);
}

uint64_t protocol_poll_key(const struct protocol_header *header)
{
    /* fuse_poll_in: fh, kh, flags, events. */
    uint64_t key = protocol_word(header, 8) | (uint64_t)protocol_word(header, 12) << 32;
    return protocol_word(header, 16) & POLL_SCHEDULE ? key : 0;
}

errint protocol_notify_poll(int fuse_fd, uint64_t key)
{
    const struct {
        struct protocol_out_header header;
        uint64_t key;
    } notice = {{sizeof notice, NOTIFY_POLL, 0}, key};
    return write(fuse_fd, &notice, sizeof notice) < 0 ? -errno : 0;
}

bool protocol_knows_inode(int fuse_fd, uint64_t ino)
{
    /* Its attributes are asked for anew at most: a negative offset leaves its pages alone. */
    const struct {
        struct protocol_out_header header;
        uint64_t ino;
        int64_t offset, length;
    } notice = {{sizeof notice, NOTIFY_INVALIDATE, 0}, ino, -1, 0};
    return write(fuse_fd, &notice, sizeof notice) == sizeof notice;
}

static errint protocol_send(int fuse_fd, const struct protocol_out_header *header)
{
    ssize_t sent = write(fuse_fd, header, sizeof *header);
    return sent < 0 ? -errno : 0;
}

errint protocol_reply_error(int fuse_fd, uint64_t unique, int error)
{
    return protocol_send(fuse_fd,
                         &(struct protocol_out_header){sizeof(struct protocol_out_header), error, unique});
}

errint protocol_resend(int fuse_fd)
{
    return protocol_send(fuse_fd,
                         &(struct protocol_out_header){sizeof(struct protocol_out_header), NOTIFY_RESEND, 0});
}

int protocol_backing_open(int fuse_fd, int fd)
{
    struct protocol_backing_map map = {.fd = fd};
    int id = ioctl(fuse_fd, IOCTL_BACKING_OPEN, &map);
    return id < 0 ? -errno : id;
}

errint protocol_backing_close(int fuse_fd, int backing_id)
{
    uint32_t id = (uint32_t)backing_id;
    return ioctl(fuse_fd, IOCTL_BACKING_CLOSE, &id) < 0 ? -errno : 0;
}
