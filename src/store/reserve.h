/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The making of the reserve, for store_open; its use is in store/store.h.
 */
#ifndef CKPTFS_STORE_RESERVE_H
#define CKPTFS_STORE_RESERVE_H

#include "store/store.h"

#define RESERVE_FILE "reserve"

/*
 * Opens STORE/reserve, made when it is missing, and allocates it where the disk has room. A full disk is no
 * error: the reserve counts as spent. Sets reserve_fd, reserve_size and reserve_spent.
 */
errint reserve_open(struct store *store);
/* Takes back what the opening of the database was given, if nobody else has it now. */
void reserve_close(struct store *store);

#endif
