/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 of a file: what sha256sum says of it. Computed when it is asked for, by reading the file as any
 * reader would, and kept (meta/checksum.h) while the file stays as it is, across mounts too.
 *
 * Kept are sums of files that are closed, hashed and on stable storage. Of a file that is open for writing
 * the sum is that of the bytes as they are found, from front to back, and is not kept.
 */
#ifndef CKPTFS_FS_CHECKSUM_H
#define CKPTFS_FS_CHECKSUM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sha256.h"

struct filesystem;

/*
 * Blocks for as long as reading the file takes, in steps of FS_MAX_WRITE bytes; no lock is held between them.
 * `stops` is asked at each: true ends it with -ECANCELED. -EIO where bytes are damaged.
 */
errint checksum_file(struct filesystem *fs, uint64_t ino, bool (*stops)(void *context), void *context,
                     uint8_t sum[SHA256_BYTES]);

#endif
