/* SPDX-License-Identifier: Apache-2.0 */
/* A full disk under the store, and its end. */
#include "fs/space.h"

#include <errno.h>

#include "base/log.h"
#include "fs/filesystem.h"

static errint space_note_spent(struct filesystem *fs, errint error)
{
    if (!error && !atomic_exchange(&fs->disk_full, true))
        log_warning("the disk under the store is full: new files are refused until space is freed");
    return error;
}

errint space_spend(void *context)
{
    struct filesystem *fs = context;
    return space_note_spent(fs, store_reserve_spend(fs->store));
}

errint space_spend_last(struct filesystem *fs)
{
    return space_note_spent(fs, store_reserve_spend_last(fs->store));
}

errint space_check(struct filesystem *fs)
{
    if (!atomic_load(&fs->disk_full))
        return 0;
    if (store_reserve_restore(fs->store) != 0) {
        atomic_fetch_add(&fs->counters.refused, 1);
        return -ENOSPC;
    }
    if (atomic_exchange(&fs->disk_full, false))
        log_info("the disk has space again");
    return 0;
}
