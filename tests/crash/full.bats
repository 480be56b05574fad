# SPDX-License-Identifier: Apache-2.0
# The disk becomes full: the writer hears ENOSPC, everything else stays, and space comes back by unlink.

load crash.bash

setup() { crash_setup; }
teardown() { ckptfs_teardown; }

fill() { timeout 120 python3 "$CRASH_TREE/fill.py" "$@"; }

# Nothing fits any more; what the daemon frees behind its back, as the log of the database, is filled, too.
fill_up() {
    mkdir "$MNT/small"
    fill small "$MNT/small" 20000
    wait_until 60 nothing_fits
}

nothing_fits() {
    local name=$RANDOM$RANDOM
    fill small "$MNT/small" 20000 "$name"
    ! touch "$MNT/small/$name" 2>/dev/null && [ "$("$CKPTFS" status --json "$MNT" | jq .disk.full)" = true ]
}

free_bytes() { stat -f -c '%a * %S' "$MNT" | { IFS='' read -r product && echo $((product)); }; }

has_free() { [ "$(free_bytes)" -ge "$1" ]; }

others_are_intact() { (cd "$MNT/others" && sha256sum --quiet -c "$TEST_DIR/others.sha256"); }

# fill_disk FILESYSTEM MIB [MOUNT_OPTION...]
fill_disk() {
    disk_create "$1" "$2"
    shift 2
    ckptfs_mount "$@"
    mkdir "$MNT/others" "$MNT/small"
    local i
    for i in 1 2 3 4 5; do head -c $((i * i * 9000)) /dev/urandom >"$MNT/others/$i"; done
    (cd "$MNT/others" && sha256sum ./*) >"$TEST_DIR/others.sha256"

    fill big "$MNT/big"
    fill small "$MNT/small" 2000
    others_are_intact
    # What is written is refused, what is read is served, and the mount stays.
    expect_failure dd if=/dev/zero of="$MNT/more" bs=1M count=8 status=none
    ls -l "$MNT/others" "$MNT/small" >"$TEST_DIR/listing"
    others_are_intact

    # On a full disk everything can be unlinked, also a file that was just cut off.
    rm -f "$MNT/more"
    crashtree remove "$MNT/small"
    rm "$MNT/big"
    wait_until 20 has_free $((40 << 20))
    head -c 20M /dev/urandom >"$TEST_DIR/again"
    cp "$TEST_DIR/again" "$MNT/again"
    sync "$MNT/again"
    cmp "$TEST_DIR/again" "$MNT/again"
    others_are_intact
    ckptfs_remount "$@"
    cmp "$TEST_DIR/again" "$MNT/again"
    others_are_intact
}

@test "a full ext4" {
    fill_disk ext4 96
}

@test "a full ext4, served by the daemon" {
    fill_disk ext4 96 passthrough=off
}

@test "a full XFS" {
    fill_disk xfs 300
}

@test "space that others free on the disk is there at once" {
    disk_create ext4 96
    head -c 32M /dev/zero >"$DISK/ballast"
    ckptfs_mount
    fill_up
    rm "$DISK/ballast"
    wait_until 20 has_free $((16 << 20))
    echo works >"$MNT/more"
    [ "$(cat "$MNT/more")" = works ]
    [ "$("$CKPTFS" status --json "$MNT" | jq .disk.full)" = false ]
}

@test "a disk filled with small files only: what is unlinked is gone, the rest is intact" {
    disk_create ext4 64
    ckptfs_mount
    mkdir "$MNT/small"
    fill small "$MNT/small" 2000
    [ "$(find "$MNT/small" -type f | wc -l)" -gt 1000 ]
    (cd "$MNT/small" && find . -size -2000c -delete && sha256sum ./small-9??) >"$TEST_DIR/others.sha256"
    rm "$MNT"/small/small-[1-3]
    (cd "$MNT/small" && sha256sum --quiet -c "$TEST_DIR/others.sha256")
    ckptfs_remount
    (cd "$MNT/small" && sha256sum --quiet -c "$TEST_DIR/others.sha256")
}

fill_disk_to_the_end() {
    expect_failure dd if=/dev/zero of="$DISK/ballast" bs=1k status=none
    expect_failure dd if=/dev/zero of="$DISK/more" bs=4k count=1 status=none
}

@test "a store on a disk without a free byte is checked, mounted and emptied" {
    disk_create ext4 64
    head -c 8M /dev/zero >"$DISK/others"
    ckptfs_mount
    mkdir "$MNT/small"
    fill small "$MNT/small" 2000
    (cd "$MNT/small" && sha256sum ./small-9??) >"$TEST_DIR/others.sha256"
    ckptfs_umount
    # As much of the reserve as the fullest disk leaves.
    truncate -s 128K "$DISK/store/reserve"
    fill_disk_to_the_end
    "$CKPTFS" fsck "$DISK/store"
    "$CKPTFS" verify "$DISK/store"
    ckptfs_mount
    (cd "$MNT/small" && sha256sum --quiet -c "$TEST_DIR/others.sha256")
    rm -r "$MNT/small"
    rm "$DISK/others"
    wait_until 20 touch "$MNT/more"
    ckptfs_remount
    [ -e "$MNT/more" ]
}

@test "a disk that is full before the daemon dies is full, not broken, after the takeover" {
    require_takeover
    disk_create ext4 96
    ckptfs_mount
    fill big "$MNT/big"
    crash_kill_daemon
    expect_failure dd if=/dev/zero of="$MNT/more" bs=1M count=8 status=none
    rm -f "$MNT/more" "$MNT/big"
    wait_until 20 has_free $((40 << 20))
    echo works >"$MNT/file"
    [ "$(cat "$MNT/file")" = works ]
}

@test "a mount warns when the largest checkpoint would not fit again, and refusals are counted" {
    disk_create ext4 96
    ckptfs_mount
    mkdir -p "$MNT/run/checkpoint-7"
    head -c 30M /dev/urandom >"$MNT/run/checkpoint-7/pytorch_model.bin"
    sync "$MNT/run/checkpoint-7/pytorch_model.bin"
    run ckptfs_remount
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    head -c 20M /dev/urandom >"$DISK/ballast"
    run ckptfs_remount
    [ "$status" -eq 0 ]
    [[ $output == *'the largest checkpoint, /run/checkpoint-7, takes 30.0 MiB'*'does not fit any more'* ]]
    wait_until 20 grep -q 'the largest checkpoint, /run/checkpoint-7, takes 30.0 MiB' "$CKPTFS_LOG"
    fill_up
    grep -E '^ckptfs_refused_requests_total [1-9]' "$MNT/.ckptfs/metrics"
    grep -x 'ckptfs_disk_full 1' "$MNT/.ckptfs/metrics"
}

@test "a disk that is full before the first mount: one line and its own exit code" {
    disk_create ext4 16
    # dd ends with an error when the disk is full, which is what is wanted here.
    expect_failure dd if=/dev/zero of="$DISK/ballast" bs=64k status=none
    expect_failure dd if=/dev/zero of="$DISK/ballast2" bs=512 status=none
    expect_refusal 26 "full|space" "$CKPTFS" mount "$STORE" "$MNT"
    rm "$DISK"/ballast*
    ckptfs_mount
}
