#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What a mount says that it stores: `ckptfs status`.

load ../lib/ckptfs.bash

MIB=1048576

setup() {
    require_command jq
    ckptfs_setup
    ckptfs_mount
}
teardown() { ckptfs_teardown; }

# What the objects and their tables take on the disk, in bytes.
objects_bytes() {
    find "$STORE/objects" -type f -printf '%b\n' | awk '{ sum += $1 } END { print sum * 512 }'
}

# stored_is_between LEAST MOST: the figure is known, is the disk's, and is that much.
stored_is_between() {
    local stored
    stored=$(ckptfs_status_field stored_bytes) || return 1
    [ "$stored" -eq "$(objects_bytes)" ] && [ "$stored" -ge "$1" ] && [ "$stored" -le "$2" ]
}

@test "stored bytes are what the objects take on the disk, logical ones what the files show" {
    local some=$((256 * 1024))
    wait_until 20 stored_is_between 0 0
    head -c $((8 * MIB)) /dev/urandom >"$MNT/one"
    wait_until 20 stored_is_between $((8 * MIB)) $((8 * MIB + some))
    cat "$MNT/one" >"$MNT/two"
    # The bytes are there once, after a while.
    wait_until 40 stored_is_between $((8 * MIB)) $((8 * MIB + some))
    [ "$(ckptfs_status_field logical_bytes)" -eq $((16 * MIB)) ]
    "$CKPTFS" status "$MNT" | grep -E '^stored +8\.[0-9] MiB$'
    ckptfs_remount
    wait_until 20 stored_is_between $((8 * MIB)) $((8 * MIB + some))
    rm "$MNT/one" "$MNT/two"
    wait_until 20 stored_is_between 0 $some
}

@test "status tells the paths of torn files to root and to whoever mounted" {
    require_root
    ckptfs_umount
    CKPTFS_FAULT=fs.sync:EIO ckptfs_mount
    mkdir -m 700 "$MNT/private"
    run dd if=/dev/zero of="$MNT/private/secret-name" bs=100000 count=1 conv=fsync
    [ "$status" -ne 0 ]
    [ "$("$CKPTFS" status --json "$MNT" | jq -c .torn)" = '["/private/secret-name"]' ]
    [ "$(run_as_user "$CKPTFS" status --json "$MNT" | jq -c '[.torn_count, .torn]')" = '[1,[]]' ]
}
