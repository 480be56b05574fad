#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Who has a file open or mapped never sees a byte change because the store tidied up.

load share.bash

setup() { share_setup; }
teardown() { ckptfs_teardown; }

hold_all() {
    ckptfs_mount "$@"
    timeout 120 python3 "$SHARE_TREE/held.py" "$MNT" "$PLAIN"
    same_bytes
    # What nobody holds any more is given back: less than two of three files remain in each directory.
    expect_stored $((12 * 2 * 6 * 600 * 1024)) 0
    settle
    same_bytes
    ckptfs_remount "$@"
    same_bytes
    rm -r "$MNT"/*
    wait_until 10 stored_at_most 65536
}

@test "files that are held, changed and deleted while they are shared" {
    hold_all
}

@test "files that are held, changed and deleted while they are shared, served by the daemon" {
    hold_all passthrough=off
}

@test "an older file that is open is shared when it is closed" {
    ckptfs_mount
    save older models safetensors
    settle
    exec 8<"$MNT/older"
    save newest models safetensors --note 1000
    same_bytes
    exec 8<&-
    expect_stored "$(size_of "$PLAIN/newest")"
}
