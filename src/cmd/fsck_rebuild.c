/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs fsck --rebuild`: from a backup and the objects to a store again. */
#include "cmd/fsck.h"

int fsck_restore(struct fsck *fsck)
{
    (void)fsck;
    return FSCK_FAILED;
}

errint fsck_compare_backup(struct fsck *fsck)
{
    (void)fsck;
    return 0;
}
