#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# sharing=forward: a new file that equals an older one gives way to it before its bytes are written.

load share.bash

setup() {
    share_setup
    export CKPTFS_MOUNT_OPTIONS=sharing=forward${CKPTFS_MOUNT_OPTIONS:+,$CKPTFS_MOUNT_OPTIONS}
}
teardown() { ckptfs_teardown; }

# put NAME: PLAIN/NAME is saved, and nobody asks for it to be synced.
put() {
    mkdir -p "$(dirname "$MNT/$1")"
    cat "$PLAIN/$1" >"$MNT/$1"
}

again() {
    mkdir -p "$PLAIN/$1"
    cp "$PLAIN/1/model" "$PLAIN/$1/model"
    put "$1/model"
}

objects() { find "$STORE/objects" -type f ! -name '*.sum*' -printf '%f\n' | sort; }
objects_are() { [ "$(objects)" = "$1" ]; }

# The first copy of a model, and a second one that is found to equal it.
two_saves() {
    mkdir "$PLAIN/1"
    models safetensors "$PLAIN/1/model" --kib 1000 --seed "${1:-1}"
    put 1/model
    settle
    again 2
    settle
    one_object() { [ "$(objects | wc -l)" -eq 1 ]; }
    wait_until 20 one_object
}

@test "from the second unchanged save on the older object stays, and all read the same" {
    ckptfs_mount
    two_saves
    local before number
    before=$(objects)
    for number in 3 4 5; do
        again $number
        settle
        wait_until 20 objects_are "$before"
        same_bytes
    done
    ckptfs_remount
    same_bytes
    rm -r "$MNT"/[1-4] "$PLAIN"/[1-4]
    same_bytes
    objects_are "$before"
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

# Saved as most programs do that sync: fsync before close.
put_synced() {
    mkdir -p "$(dirname "$MNT/$1")"
    dd if="$PLAIN/$1" of="$MNT/$1" bs=1M conv=fsync status=none
}

again_synced() {
    mkdir -p "$PLAIN/$1"
    cp "$PLAIN/1/model" "$PLAIN/$1/model"
    put_synced "$1/model"
}

# nothing_is_written AGAIN PUT: the disk's own counts while AGAIN saves what is known, and PUT a change of it.
nothing_is_written() {
    require_root
    require_command losetup
    local loop device before written number
    truncate -s 300M "$TEST_DIR/disk"
    mkfs.ext4 -qF -O ^has_journal "$TEST_DIR/disk"
    loop=$(losetup -f --show "$TEST_DIR/disk")
    device=${loop#/dev/}
    mount "$loop" "$STORE"
    losetup -d "$loop" # it goes with the mount
    mkdir "$STORE/store"
    sectors() { awk -v name="$device" '$3 == name { print $10 }' /proc/diskstats; }
    STORE=$STORE/store
    ckptfs_mount
    mkdir "$PLAIN/1"
    models safetensors "$PLAIN/1/model" --kib 4000
    put 1/model
    settle
    again 2
    settle
    # 40 MB are 80,000 sectors. A sync(2) of somebody else on this machine may write it all the same.
    for number in 3 4 5 6 7 8; do
        sync -f "$STORE"
        before=$(sectors)
        "$1" $number
        written=$(($(sectors) - before))
        settle
        # What gave way is gone when this returns; until then a sync would write it.
        "$CKPTFS" gc "$MNT" >/dev/null
        sync -f "$STORE"
        written=$(($(sectors) - before))
        [ $written -gt 10000 ] || break
    done
    [ $written -lt 10000 ]
    same_bytes
    # A change is written.
    cp "$PLAIN/1/model" "$PLAIN/changed"
    printf changed | dd of="$PLAIN/changed" bs=1 seek=30000000 conv=notrunc status=none
    before=$(sectors)
    "$2" changed
    settle
    [ $(($(sectors) - before)) -gt 60000 ]
    same_bytes
    ckptfs_umount
}

@test "nothing of an unchanged save is written to the disk" {
    nothing_is_written again put
}

@test "nothing of an unchanged save with fsync is written to the disk" {
    nothing_is_written again_synced put_synced
}

@test "a file that begins as no older one is not kept from the disk while it is open" {
    ckptfs_mount
    two_saves
    cp "$PLAIN/1/model" "$PLAIN/changed"
    printf changed | dd of="$PLAIN/changed" bs=1 seek=20 conv=notrunc status=none
    exec 8>"$MNT/changed"
    cat "$PLAIN/changed" >&8
    # One that may equal an older file has half a minute.
    wait_until 25 behind_nothing
    exec 8>&-
    settle
    same_bytes
}

@test "fsync of a file that is not all of the older one, yet or any more" {
    ckptfs_mount
    two_saves
    mkdir "$PLAIN/3"
    timeout 60 python3 - "$PLAIN/1/model" "$MNT/3" "$PLAIN/3" <<'END'
import os
import sys
from pathlib import Path

source = Path(sys.argv[1]).read_bytes()
for directory in map(Path, sys.argv[2:]):
    directory.mkdir(exist_ok=True)
    with open(directory / "model", "wb", buffering=0) as file:
        half = len(source) // 2
        file.truncate(len(source))
        for part in (0, half):  # the second half is a hole at the first fsync
            for start in range(part, part + half + 1, 1 << 20):
                os.pwrite(file.fileno(), source[start:min(start + (1 << 20), part + half + 1)], start)
            os.fsync(file.fileno())
        os.fsync(file.fileno())
        os.pwrite(file.fileno(), b"changed", 1000)
        os.fsync(file.fileno())
        os.pwrite(file.fileno(), source[1000:1007], 1000)
        os.fsync(file.fileno())
        file.truncate(half)
        os.fsync(file.fileno())
END
    same_bytes
    settle
    same_bytes
    ckptfs_remount
    same_bytes
}

@test "a file that somebody has open is shared when he has gone" {
    ckptfs_mount
    two_saves
    again 3
    exec 8<"$MNT/3/model"
    again 4
    settle_but_one() {
        "$CKPTFS" status --json "$MNT" |
            jq -e 'if type == "array" then .[0] else . end | .behind_files == 0 and .unshared_files <= 1' >/dev/null
    }
    wait_until $SHARE_DEADLINE settle_but_one
    cmp "$PLAIN/1/model" <&8
    exec 8<&-
    settle
    wait_until $SHARE_DEADLINE one_object
    same_bytes
}

@test "what is synced is on the disk at once, and shared all the same" {
    ckptfs_mount
    two_saves
    again 3
    sync "$MNT/3/model"
    [ "$(ckptfs_status_field behind_files)" -eq 0 ]
    settle
    wait_until $SHARE_DEADLINE one_object
    same_bytes
}

@test "verify-on-share=yes: with bytes compared" {
    ckptfs_mount verify-on-share=yes
    two_saves
    again 3
    settle
    wait_until $SHARE_DEADLINE one_object
    same_bytes
}

@test "a daemon that dies while a file waits to be compared, or has just given way" {
    require_takeover
    local point
    for point in fs.summed:kill:3 fs.share:kill:2 fs.discard:kill:2; do
        CKPTFS_FAULT_STARTS=1 CKPTFS_FAULT=$point ckptfs_mount
        two_saves "$((RANDOM))"
        again 3
        settle
        wait_until $SHARE_DEADLINE one_object
        same_bytes
        ckptfs_umount
        grep -qE 'died by signal|ended by signal' "$CKPTFS_LOG"
        : >"$CKPTFS_LOG"
        "$CKPTFS" fsck "$STORE"
        ckptfs_mount
        same_bytes
        rm -r "$MNT"/* "$PLAIN"/*
        ckptfs_umount
    done
}
