#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Saves of many days on a clock that the test sets, with policies, on a disk that has room for a fraction of them (and for
# the journal of the database, which takes up to 64 MiB where backups are far apart). The number of days is
# CKPTFS_TEST_DAYS.

load ../crash/crash.bash

setup() {
    crash_setup
    export CKPTFS_TEST_CLOCK=$TEST_DIR/clock
    echo 0 >"$CKPTFS_TEST_CLOCK"
}
teardown() { ckptfs_teardown; }

# days DAYS MEGABYTES [MOUNT_OPTION...]
days() {
    local days=$1 megabytes=$2 seed=${CKPTFS_TEST_SEED:-$RANDOM}
    shift 2
    disk_create ext4 "$megabytes"
    ckptfs_mount "$@"
    python3 "$CKPTFS_TREE/tests/life/month.py" "$MNT" "$CKPTFS_TEST_CLOCK" "$days" "$seed" || {
        grep -E ' removed: .*space is needed' "$CKPTFS_LOG" | tail -n 50
        return 1
    }
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "what stays of days of saves is what the rules say, and no save fails" {
    days "${CKPTFS_TEST_DAYS:-1}" 160
}

@test "a month of saves" {
    long_only
    days 30 160
}

@test "a month of saves that the daemon serves, without a trash" {
    long_only
    days 30 160 passthrough=off,trash=off
}
