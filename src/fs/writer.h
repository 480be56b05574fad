/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is behind a request. The kernel says which thread it is, as the daemon's pid namespace has it; of
 * others it says 0.
 */
#ifndef CKPTFS_FS_WRITER_H
#define CKPTFS_FS_WRITER_H

#include <stddef.h>
#include <stdint.h>

/* The process of a thread, and the name of its program. 0 and "" where they are not known: the thread has
 * ended, or is of another pid namespace. Reads /proc. Thread-safe. */
void writer_find(int32_t thread, int32_t *pid, char *name, size_t room);

#endif
