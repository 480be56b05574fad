/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying a range of one file to another by the cheapest way that the disk has: shared blocks (FICLONERANGE)
 * where both ranges lie alike in their blocks, else inside the kernel, else through a buffer.
 */
#ifndef CKPTFS_CKPT_ASSEMBLE_COPY_H
#define CKPTFS_CKPT_ASSEMBLE_COPY_H

#include <stdbool.h>

#include "format/source.h"

/* What was written, by the way that it took; and how to go on. Starts with the first two filled in. */
struct assemble_copy {
    /* Told after every block: false ends the copy with -ECANCELED. */
    bool (*progress)(void *context, int64_t bytes);
    void *context;
    int64_t cloned, copied;
    bool no_clone, no_kernel_copy; /* tried, and not possible here */
    uint8_t *buffer;
};

enum { ASSEMBLE_BLOCK = 8 << 20 };

/*
 * `source_fd` is the source's descriptor, -1 for none: it is read by its callback then. 0 or -errno, which is
 * not logged.
 */
errint assemble_copy_range(struct assemble_copy *copy, const struct format_source *source, int source_fd,
                           int64_t from, int fd, int64_t to, int64_t length);
/* ASSEMBLE_BLOCK bytes; NULL: no memory. */
uint8_t *assemble_copy_buffer(struct assemble_copy *copy);
void assemble_copy_release(struct assemble_copy *copy);

#endif
