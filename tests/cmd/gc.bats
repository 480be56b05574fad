#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Giving back what no file needs: `ckptfs gc`.

load ../lib/ckptfs.bash

MIB=1048576

setup() {
    require_command jq
    ckptfs_setup
    if [ "$(id -u)" -eq 0 ]; then ckptfs_mount allow_other; else ckptfs_mount; fi
}
teardown() { ckptfs_teardown; }

everything_is_shared() {
    [ "$(ckptfs_status_field unshared_files)" -eq 0 ]
}

everything_is_hashed() {
    everything_is_shared && getfattr --absolute-names -n user.ckptfs.hash "$MNT"/[1-5]
}

# What the objects take on the disk, in bytes.
objects_bytes() {
    du -sB1 "$STORE/objects" | cut -f1
}

objects_take_less_than() {
    [ "$(objects_bytes)" -lt "$1" ]
}

# Makes MNT/part, which has the first 4 MiB of the 8 MiB of MNT/whole and no bytes of its own.
make_part() {
    head -c $((8 * MIB)) /dev/urandom >"$MNT/whole"
    wait_until 60 getfattr --absolute-names -n user.ckptfs.hash "$MNT/whole"
    python3 - "$MNT/whole" "$MNT/part" <<'PYTHON'
import os, sys
source = os.open(sys.argv[1], os.O_RDONLY)
target = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
left = 4 << 20
while left:
    left -= os.copy_file_range(source, target, left)
PYTHON
    wait_until 60 everything_is_shared
    wait_until 60 objects_take_less_than $((9 * MIB))
}

@test "nothing to do" {
    "$CKPTFS" gc --json "$MNT" >"$TEST_DIR/answer"
    jq -e '.freed_bytes == 0 and ([.before, .after] | map(.punch_objects + .remove_objects + .open_files) | add) == 0' \
        "$TEST_DIR/answer"
    jq -e --arg path "$MNT" '.mountpoint == $path' "$TEST_DIR/answer"
    "$CKPTFS" gc --dry-run --json "$MNT" | jq -e 'has("after") | not'
    "$CKPTFS" gc "$STORE" | grep -q '^given back  *0 bytes$'
}

@test "what an open file holds is told, and given back when it is closed" {
    require_command python3
    make_part
    "$CKPTFS" gc --json "$MNT" | jq -e '.can_punch' || skip "the disk cannot punch"
    # A deleted file that is open.
    exec 9<"$MNT/whole"
    rm "$MNT/whole"
    "$CKPTFS" gc -n -j "$MNT" >"$TEST_DIR/answer"
    jq . "$TEST_DIR/answer"
    jq -e --argjson half $((4 * MIB)) '.before.open_files == 1 and .before.open_bytes == $half' "$TEST_DIR/answer"
    "$CKPTFS" gc "$MNT" | grep -q '^deleted, still open  *4.0 MiB in 1 file$'
    # Somebody sees the object itself, as a passthrough handle does.
    local object
    object=$(find "$STORE/objects" -name '0*' -size +7M ! -name '*.sum')
    [ -n "$object" ]
    exec 8<"$object"
    exec 9<&-
    wait_until 30 one_object_is_held
    "$CKPTFS" gc -j "$MNT" >"$TEST_DIR/answer"
    jq . "$TEST_DIR/answer"
    jq -e '.after.held_objects == 1 and .after.punch_objects == 1 and .after.held_bytes == .after.punch_bytes' \
        "$TEST_DIR/answer"
    # All of it but a chunk that the part reaches into.
    jq -e --argjson mib $MIB '.after.held_bytes > 2.9 * $mib and .after.held_bytes <= 4 * $mib' "$TEST_DIR/answer"
    [ "$(objects_bytes)" -gt $((8 * MIB)) ]
    exec 8<&-
    "$CKPTFS" gc -j "$MNT" >"$TEST_DIR/answer"
    jq . "$TEST_DIR/answer"
    jq -e '.after.punch_objects == 0 and .freed_bytes == .before.punch_bytes' "$TEST_DIR/answer"
    [ "$(objects_bytes)" -lt $((6 * MIB)) ]
    [ "$(stat -c %s "$MNT/part")" -eq $((4 * MIB)) ]
}

one_object_is_held() {
    "$CKPTFS" gc -n -j "$MNT" | jq -e '.before.held_objects == 1'
}

nothing_waits() {
    "$CKPTFS" gc -n -j "$MNT" | jq -e '.before.remove_objects == 0'
}

@test "deleted files are gone when it returns" {
    local i
    for i in 1 2 3 4 5; do head -c $((2 * MIB)) /dev/urandom >"$MNT/$i"; done
    wait_until 60 everything_is_hashed
    [ "$(objects_bytes)" -gt $((10 * MIB)) ]
    rm "$MNT"/[1-5]
    "$CKPTFS" gc "$MNT"
    nothing_waits
    objects_take_less_than $((1 * MIB))
}

@test "only root and the owner of the mount may ask" {
    run run_as_user "$CKPTFS" gc "$MNT"
    [ "$status" -eq 33 ]
    run run_as_user "$CKPTFS" gc -n "$MNT"
    [ "$status" -eq 33 ]
}

@test "what cannot be asked" {
    run "$CKPTFS" gc "$TEST_DIR"
    [ "$status" -eq 30 ]
    run "$CKPTFS" gc
    [ "$status" -eq 2 ]
    run "$CKPTFS" gc -t soon "$MNT"
    [ "$status" -eq 2 ]
}
