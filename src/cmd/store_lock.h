/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's lock as seen by a command that does not want to use the store: is anybody there, and have they
 * gone?
 */
#ifndef CKPTFS_CMD_STORE_LOCK_H
#define CKPTFS_CMD_STORE_LOCK_H

#include <stdbool.h>
#include <stdint.h>

/* True when nobody holds the lock of the store; false also when that cannot be found out. */
bool store_lock_is_free(const char *store);

/*
 * A mount's hold on its store, remembered before the unmount: a later mount of the same store is told from it
 * by what it writes into the lock.
 */
struct store_lock_watch {
    int fd; /* -1: the store cannot be looked into */
    char holder[256];
};

void store_lock_watch_start(struct store_lock_watch *watch, const char *store);
/*
 * Waits until that holder is gone, at most until `deadline` (clock_monotonic(); 0: for ever). False: not in
 * time. `failed` is set when the holder left word that it did not finish (KEEPER_LAST_WORD_FAILED).
 */
bool store_lock_watch_wait(struct store_lock_watch *watch, int64_t deadline, bool *failed);
void store_lock_watch_end(struct store_lock_watch *watch);

#endif
