#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Saves that are killed again and again do not fill the disk.

load ../crash/crash.bash
load life.bash

setup() { crash_setup; }
teardown() { ckptfs_teardown; }

listed() { find "$1" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V | paste -sd ' '; }

# torn_saves [MOUNT_OPTION...]: fourteen saves of 9 MB that do not end, where five have room.
torn_saves() {
    local i
    disk_create ext4 64
    ckptfs_mount "$@"
    save "$MNT/run" 10 --bytes 3000000
    wait_until 30 latest_is run checkpoint-10
    for i in {1..14}; do
        save "$MNT/run" 20 --bytes 3000000 --seed "$i" --leave-out trainer_state.json
        [ "$(listed "$MNT/run")" = checkpoint-10 ]
        # While there is room they stay.
        [ "$i" -ne 2 ] || [ "$(listed "$MNT/.ckptfs/torn/run")" = "checkpoint-20 checkpoint-20.2" ]
    done
    save "$MNT/run" 20 --bytes 3000000
    wait_until 30 latest_is run checkpoint-20
    [ "$(listed "$MNT/run")" = "checkpoint-10 checkpoint-20" ]
    wait_until 20 grep -q ' /.ckptfs/torn/run/checkpoint-20: removed: it was torn, and the space is needed' "$CKPTFS_LOG"
    "$CKPTFS" ls --json "$MNT/run" | jq -e 'all(.[].checkpoints[]; .state == "durable")'
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "what is torn makes room for the next save, with no policy" {
    torn_saves
}

@test "what is torn makes room for the next save, served by the daemon, without a trash" {
    torn_saves passthrough=off,trash=off
}

@test "a torn save moves away also when the disk is full" {
    disk_create ext4 64
    ckptfs_mount
    save "$MNT/run" 10
    wait_until 30 latest_is run checkpoint-10
    # Nothing but its last file is missing.
    save "$MNT/run" 20 --leave-out trainer_state.json
    expect_failure dd if=/dev/zero of="$DISK/ballast" bs=4096 status=none
    [ "$(listed "$MNT/run")" = checkpoint-10 ]
    rm "$DISK/ballast"
    save "$MNT/run" 20
    wait_until 30 latest_is run checkpoint-20
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}
