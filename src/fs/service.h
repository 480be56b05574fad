/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process that lives long agrees on with its system: readiness for systemd (without its library), the
 * limit of open files, and who the out-of-memory killer takes. All best effort: a system without them is no
 * error.
 */
#ifndef CKPTFS_FS_SERVICE_H
#define CKPTFS_FS_SERVICE_H

#include "base/cleanup.h"

/* Sends `text` ("READY=1") to $NOTIFY_SOCKET, when there is one. */
void service_notify(const char *text);

/* Raises the soft limit of open files to the hard one. */
void service_raise_file_limit(void);

/*
 * Asks the out-of-memory killer to spare this process (root only). What it was before is kept for
 * service_unprotect_memory, which a child that may be killed calls after fork.
 */
void service_protect_memory(void);
void service_unprotect_memory(void);

#endif
