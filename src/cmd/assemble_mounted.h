/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs assemble` where the checkpoint, or the output, lies on a mount of ours. */
#ifndef CKPTFS_CMD_ASSEMBLE_MOUNTED_H
#define CKPTFS_CMD_ASSEMBLE_MOUNTED_H

#include <stdbool.h>
#include <stdint.h>

/* Whether the open directory lies on a mount of ours. */
bool assemble_is_mounted(int directory);

/* Bytes that the open file alone takes in the mount's store; -1 where that is not known. */
int64_t assemble_stored_bytes(int fd);

#endif
