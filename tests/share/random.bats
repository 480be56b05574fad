#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Random saves of files that share blocks, against a model in memory, for CKPTFS_SHARE_SECONDS (default: 10) each.

load share.bash

setup() { share_setup; }
teardown() { ckptfs_teardown; }

# random_saves [MOUNT_OPTION...]
random_saves() {
    local options="log=$CKPTFS_LOG${CKPTFS_MOUNT_OPTIONS:+,$CKPTFS_MOUNT_OPTIONS}${1:+,$1}"
    ckptfs_mount "$@"
    timeout 300 python3 "$SHARE_TREE/blocks.py" "$MNT" "$PLAIN" --seed "$SEED" --seconds "${CKPTFS_SHARE_SECONDS:-10}" \
        --remount "'$CKPTFS' umount '$MNT' && '$CKPTFS' mount -o '$options' '$STORE' '$MNT' 3>&-" \
        --restart "'$CKPTFS' restart '$MNT'"
    same_bytes
    settle
    # Whatever is left is not more than the files have, with a chunk at each end of what is cut.
    expect_stored "$(find "$PLAIN" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + NR * 65536 }')" 10
    ckptfs_remount "$@"
    same_bytes
    settle
    rm -r "$MNT"/*
    wait_until $SHARE_DEADLINE no_objects || {
        find "$STORE/objects" -type f
        return 1
    }
    settle
    ckptfs_umount
    no_objects
}

@test "random saves, overwrites, copies and deletions" {
    random_saves
}

@test "random saves, overwrites, copies and deletions, served by the daemon" {
    random_saves passthrough=off
}
