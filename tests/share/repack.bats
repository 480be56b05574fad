#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Where the disk cannot punch holes, objects that are mostly dead are written anew.

load share.bash

# As the store meets a disk that cannot punch.
NO_PUNCH=object-punch:EOPNOTSUPP:1+
MIB=$((1024 * 1024))

setup() {
    share_setup
    export CKPTFS_FAULT=$NO_PUNCH
}
teardown() { ckptfs_teardown; }

objects() { find "$STORE/objects" -type f ! -name '*.sum*' | sort; }

object_count_is() { [ "$(objects | wc -l)" -eq "$1" ]; }

# copy_range FROM TO OFFSET LENGTH: TO has a range of FROM, on the mount and on the plain disk.
copy_range() {
    mkdir -p "$(dirname "$MNT/$2")" "$(dirname "$PLAIN/$2")"
    python3 - "$MNT/$1" "$MNT/$2" "$3" "$4" <<'PYTHON'
import os, sys
source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
offset, left = int(sys.argv[3]), int(sys.argv[4])
while left:
    copied = os.copy_file_range(source, target, left, offset)
    if not copied:
        sys.exit("copied less")
    offset, left = offset + copied, left - copied
os.fsync(target)
PYTHON
    tail -c +$(($3 + 1)) "$PLAIN/$1" | head -c "$4" >"$PLAIN/$2"
}

# Two checkpoints of the run $1 that have three of ten tensors in common, and two files with ranges of those, at odd
# offsets. The newer one's object has them all; seven tenths of it are the newer one's alone.
make_run() {
    local size
    save "$1-1/model" models safetensors --kib 300 --seed "$1"
    settle
    save "$1-2/model" models safetensors --kib 300 --seed "$1" --changed 0,1,2,3,4,5,6 --with-seed "9$1" --note 100
    settle
    size=$(size_of "$PLAIN/$1-2/model")
    copy_range "$1-2/model" "$1-3/part" $((size - 600001)) 550000
    copy_range "$1-2/model" "$1-3/other" $((size - 900 * 1024)) 50000
    settle
    # What was let go on the way is gone when this returns.
    "$CKPTFS" gc "$MNT" >/dev/null
}

# What a run takes when its newer checkpoint is gone: the older one, the three tensors of its own object that died when
# it gave way (too few to write the rest anew), and nothing of what the newer one had alone.
run_ideal() { echo $(($(size_of "$PLAIN/$1-1/model") + 3 * 300 * 1024)); }

# gc_leaves FILTER: once what can be done has been done.
gc_leaves() { "$CKPTFS" gc -j "$MNT" | jq -e ".after | $1"; }

field() { "$CKPTFS" gc -n -j "$MNT" | jq -e ".before | $1"; }

# The store, unmounted, has nothing wrong in it, no object without a row and no row without an object.
store_is_clean() {
    "$CKPTFS" fsck "$STORE" >"$TEST_DIR/fsck" 2>&1 || {
        cat "$TEST_DIR/fsck"
        return 1
    }
    if grep -E '\[(stray|object-unneeded)' "$TEST_DIR/fsck"; then return 1; fi
}

everything_is_verified() {
    "$CKPTFS" verify --json "$MNT" >"$TEST_DIR/verified" || return
    jq -e '.unhashed_objects == 0 and .damaged_ranges == 0 and .unverifiable_objects == 0' "$TEST_DIR/verified"
}

@test "the space of what is dead comes back, and all files keep their bytes" {
    ckptfs_mount
    make_run 1
    "$CKPTFS" gc -n -j "$MNT" | jq -e '.can_punch == false and .before.repack_objects == 0'
    local reader
    exec {reader}<"$MNT/1-1/model"
    drop 1-2
    expect_stored "$(run_ideal 1)"
    # Who had a file open all the time reads on.
    cmp - "$PLAIN/1-1/model" <&"$reader"
    exec {reader}<&-
    wait_until 20 everything_is_verified
    wait_until 20 field '.punch_objects == 1 and .repack_objects == 0 and .remove_objects == 0'
    ckptfs_umount
    store_is_clean
    ckptfs_mount
    expect_stored "$(run_ideal 1)"
    wait_until 20 everything_is_verified
    # What was repacked is shared with what comes later.
    save 1-4/model cp "$PLAIN/1-1/model"
    expect_stored "$(size_of "$PLAIN/1-1/model")"
    rm -r "$MNT"/1-*
    wait_until 20 stored_at_most 65536
    ckptfs_umount
    [ -z "$(objects)" ]
}

@test "a file that is all that is left of an object is one whole object again" {
    ckptfs_mount
    save whole models bytes --size 8000000 --seed 1
    settle
    copy_range whole part 1234567 3000001
    settle
    drop whole
    expect_stored 3000001
    ckptfs_umount
    extents_of_store >"$TEST_DIR/extents"
    cat "$TEST_DIR/extents"
    [ "$(cat "$TEST_DIR/extents")" = "part 1 1 3000001" ]
    [ "$(stat -c %s "$(objects)")" -eq 3000001 ]
    ckptfs_mount
    # It is written in place.
    printf x | dd of="$MNT/part" bs=1 seek=1000 conv=notrunc status=none
    printf x | dd of="$PLAIN/part" bs=1 seek=1000 conv=notrunc status=none
    wait_until 20 everything_is_verified
    same_bytes
    ckptfs_umount
    store_is_clean
    [ "$(objects | wc -l)" -eq 1 ]
}

@test "holes stay holes" {
    ckptfs_mount
    python3 - "$PLAIN/whole" <<'PYTHON'
import random, sys
with open(sys.argv[1], "wb") as out:
    for number in range(40):
        out.seek(number * 1000000 + number)
        out.write(random.Random(number).randbytes(200000))
    out.truncate(41000000)
PYTHON
    cp --sparse=always "$PLAIN/whole" "$MNT/whole"
    sync "$MNT/whole"
    settle
    copy_range whole part 100001 15000000
    settle
    drop whole
    wait_until $SHARE_DEADLINE stored_at_most 3600000
    same_bytes
    wait_until 20 everything_is_verified
    ckptfs_remount
    same_bytes
}

@test "too little that is dead is left, and told" {
    local before
    ckptfs_mount
    save whole models bytes --size 8000000 --seed 1
    settle
    copy_range whole part 0 5000000
    settle
    # What the copy was before it was shared is gone, too.
    "$CKPTFS" gc "$MNT"
    before=$(objects)
    drop whole
    "$CKPTFS" gc -j "$MNT" | tee "$TEST_DIR/gc"
    jq -e '.after | .punch_objects == 1 and .punch_bytes > 2000000 and .repack_objects == 0 and .held_objects == 0' \
        "$TEST_DIR/gc"
    [ "$(objects)" = "$before" ]
    "$CKPTFS" gc "$MNT" | grep -q 'cannot punch holes'
    # A little more, and it is worth it.
    truncate -s 3000000 "$MNT/part" "$PLAIN/part"
    sync "$MNT/part"
    "$CKPTFS" gc -j "$MNT" | tee "$TEST_DIR/gc"
    jq -e '.after.punch_objects == 0' "$TEST_DIR/gc"
    expect_stored 3000000
    # On a disk that can punch, the rest would be.
    [ "$(objects)" != "$before" ]
}

hold_map() {
    python3 - "$MNT/1-2/model" "$SHARE_TREE" 3>&- <<'PYTHON'
import sys
sys.path.insert(0, sys.argv[2])
from mapping import Mapping
seen = Mapping(sys.argv[1])
before = seen.read()
print("held", flush=True)
for line in open("/dev/fd/9"):
    same = seen.read() == before
    print("same" if same else "other", flush=True)
seen.close()
PYTHON
}

one_object_is_held() { field '.held_objects == 1 and .repack_objects == 0 and .held_bytes > 1800000'; }

@test "what a mapping sees is left, and done when it ends" {
    ckptfs_mount
    require_passthrough
    make_run 1
    mkfifo "$TEST_DIR/ask" "$TEST_DIR/answer"
    hold_map 9<"$TEST_DIR/ask" >"$TEST_DIR/answer" &
    local answer before held bytes
    exec 7>"$TEST_DIR/ask" 8<"$TEST_DIR/answer"
    read -r -t 60 answer <&8
    [ "$answer" = held ]
    # The map outlives the file's own use of what it shows.
    truncate -s 20000 "$MNT/1-2/model" "$PLAIN/1-2/model"
    wait_until 20 one_object_is_held
    before=$(objects)
    "$CKPTFS" gc -j "$MNT" | tee "$TEST_DIR/gc"
    jq -e '.after | .held_objects == 1 and .punch_objects == 2 and .held_bytes > 1800000' "$TEST_DIR/gc"
    "$CKPTFS" gc "$MNT" | grep -q '^  held by open files  *1.* MiB in 1 object$'
    [ "$(objects)" = "$before" ]
    echo ask >&7
    read -r -t 60 answer <&8
    [ "$answer" = same ]
    same_bytes
    exec 7>&-
    wait
    # The daemon hears of it a moment later, and may have done it before it is asked.
    wait_until 20 gc_leaves '.punch_objects == 1 and .held_objects == 0 and .remove_objects == 0'
    expect_stored "$(run_ideal 1)"
    exec 8<&-
}

@test "a deleted file that is open keeps its object, and gives it back when it is closed" {
    ckptfs_mount
    make_run 1
    cp "$PLAIN/1-2/model" "$TEST_DIR/kept"
    local before
    before=$(objects)
    exec 8<"$MNT/1-2/model"
    drop 1-2
    "$CKPTFS" gc -j "$MNT" | jq -e '.after | .open_files == 1 and .open_bytes > 2000000 and .repack_objects == 0'
    cmp - "$TEST_DIR/kept" <&8
    [ "$(objects)" = "$before" ]
    same_bytes
    exec 8<&-
    expect_stored "$(run_ideal 1)"
    ckptfs_umount
    store_is_clean
}

@test "a file that is being written keeps the object, and gets its bytes" {
    ckptfs_mount
    make_run 1
    # Copy on write, in a range of the newer object.
    exec 8<>"$MNT/1-3/part"
    printf changed >&8
    printf changed | dd of="$PLAIN/1-3/part" conv=notrunc status=none
    drop 1-2
    wait_until 20 one_object_is_held
    same_bytes
    exec 8>&-
    expect_stored "$(run_ideal 1)" 5
    wait_until 20 everything_is_verified
    ckptfs_umount
    store_is_clean
}

# die_at POINT COUNT: the daemon dies at that step of repacking; its successor, and the next mount, finish it.
round=0
die_at() {
    round=$((round + 1))
    echo "--- $1:$2"
    CKPTFS_FAULT=$NO_PUNCH,$1:kill:$2 CKPTFS_FAULT_STARTS=1 CKPTFS_FAULT_LATER=$NO_PUNCH ckptfs_mount
    make_run $round
    drop $round-2
    wait_until 20 daemon_has_died
    same_bytes
    if [ $((round % 2)) -eq 1 ]; then
        crash_kill_everything
        ckptfs_mount
    fi
    expect_stored "$(run_ideal $round)"
    ckptfs_umount
    store_is_clean
    ckptfs_mount
    same_bytes
    wait_until 20 everything_is_verified
    rm -r "$MNT"/* "${PLAIN:?}"/*
    wait_until 20 stored_at_most 65536
    ckptfs_umount
}

@test "death at each step of repacking" {
    require_takeover
    die_at fs.repack.row 1
    die_at fs.repack.create 1
    die_at fs.repack.write 1
    die_at fs.repack.write 3
    die_at fs.repack.sync 1
    die_at fs.repack.sums 1
    die_at sums-write 3
    die_at fs.repack.summed 1
    die_at fs.repack.commit 1
    die_at fs.repack.done 1
}

a_copy_is_there() { object_count_is 3; }

# after_power FILESYSTEM: the power goes when the copy is made, or when all have gone over to it; and after the end.
after_power() {
    local point
    disk_create "$1" 512
    for point in fs.repack.sums fs.repack.commit fs.repack.done; do
        echo "--- $point"
        CKPTFS_FAULT=$NO_PUNCH,$point:hang ckptfs_mount
        make_run 1
        drop 1-2
        wait_until 20 a_copy_is_there
        disk_cut_power
        machine_restart
        ckptfs_mount
        # Its deletion may have been too young for the disk.
        rm -rf "$MNT/1-2"
        expect_stored "$(run_ideal 1)"
        disk_cut_power
        machine_restart
        ckptfs_mount
        rm -rf "$MNT/1-2"
        expect_stored "$(run_ideal 1)"
        wait_until 20 everything_is_verified
        ckptfs_umount
        store_is_clean
        ckptfs_mount
        rm -r "$MNT"/* "${PLAIN:?}"/*
        wait_until 20 stored_at_most 65536
        ckptfs_umount
    done
}

@test "XFS: the power goes during a repacking" {
    long_only
    require_command xfs_io
    after_power xfs
}

@test "ext4: the power goes during a repacking" {
    require_command xfs_io
    after_power ext4
}

have_died() { [ "$(grep -c 'died by signal' "$CKPTFS_LOG")" -ge "$1" ]; }

@test "one daemon after the other dies at the same step: nothing piles up" {
    require_takeover
    local fault
    # How many die: whoever finds the copy that was finished has nothing left to do.
    for fault in fs.repack.write:kill:2/6 fs.repack.done:kill:1/1; do
        echo "--- $fault"
        ckptfs_mount
        make_run 1
        ckptfs_umount
        : >"$CKPTFS_LOG"
        CKPTFS_FAULT=$NO_PUNCH,${fault%/*} ckptfs_mount
        rm -r "$MNT/1-2" || echo "the daemon died under it"
        rm -r "$PLAIN/1-2"
        wait_until 60 have_died "${fault#*/}"
        crash_kill_everything
        ckptfs_mount
        rm -rf "$MNT/1-2"
        expect_stored "$(run_ideal 1)"
        ckptfs_umount
        store_is_clean
        ckptfs_mount
        rm -r "$MNT"/* "${PLAIN:?}"/*
        wait_until 20 stored_at_most 65536
        ckptfs_umount
    done
}

# The log says it, and not again and again.
says_once() { [ "$(grep -c 'cannot be given back now' "$CKPTFS_LOG")" -eq 1 ]; }

@test "errors while repacking: the old object stays, and the log says so once" {
    local fault object
    for fault in fs.repack.write:ENOSPC:1+ fs.repack.create:EIO:1+ fs.repack.sync:EIO:1+ fs.repack.sums:ENOSPC:1+ \
        fs.repack.summed:ENOSPC:1+ fs.repack.commit:EIO:1+; do
        echo "--- $fault"
        CKPTFS_FAULT=$NO_PUNCH,$fault ckptfs_mount
        make_run 1
        object=$(find "$STORE/objects" -type f -size "$(size_of "$PLAIN/1-2/model")c")
        drop 1-2
        wait_until 20 says_once
        # It does not wait for what cannot be.
        "$CKPTFS" gc -j "$MNT" | tee "$TEST_DIR/gc"
        jq -e '.after | .repack_objects == 1 and .repack_failed == 1 and .remove_objects == 0' "$TEST_DIR/gc"
        "$CKPTFS" gc "$MNT" | grep -q '^could not be repacked  *1;'
        says_once
        [ -f "$object" ]
        wait_until 20 object_count_is 2
        same_bytes
        ckptfs_umount
        store_is_clean
        ckptfs_mount
        expect_stored "$(run_ideal 1)"
        rm -r "$MNT"/* "${PLAIN:?}"/*
        wait_until 20 stored_at_most 65536
        ckptfs_umount
        : >"$CKPTFS_LOG"
    done
}

@test "a full disk: the old object stays until there is room" {
    local available
    disk_create ext4 96
    ckptfs_mount
    save 1/model models safetensors --tensors 30 --kib 1000
    settle
    copy_range 1/model 2/part $((15 * MIB)) $((10 * MIB))
    settle
    # Less is left than the copy takes.
    available=$(stat -f -c '%a * %S' "$DISK")
    head -c $((available - 8 * MIB)) /dev/urandom >"$DISK/filler"
    drop 1
    wait_until 20 says_once
    "$CKPTFS" gc -j "$MNT" | jq -e '.after | .repack_objects == 1 and .repack_failed == 1'
    same_bytes
    wait_until 20 object_count_is 1
    rm "$DISK/filler"
    "$CKPTFS" gc -j "$MNT" | jq -e '.after.punch_objects == 0'
    expect_stored $((10 * MIB))
    says_once
}

damage_is_known() { field '.repack_objects == 0' && grep -q 'is not repacked' "$CKPTFS_LOG"; }

@test "damaged bytes are not copied: they are told, and the object stays until they are right" {
    local object size before offset
    ckptfs_mount
    make_run 1
    # The first of what the run's newer object has of its own and the older one shares.
    size=$(size_of "$PLAIN/1-2/model")
    object=$(find "$STORE/objects" -type f -size "${size}c")
    [ -f "$object" ]
    ckptfs_umount
    # In what the file `other` has of it, and the older checkpoint.
    offset=$((size - 900 * 1024 + 1000))
    flip_byte "$object" $offset
    ckptfs_mount
    before=$(objects)
    drop 1-2
    wait_until 20 damage_is_known
    [ "$(objects)" = "$before" ]
    # What is right reads right, the rest not at all.
    cmp "$PLAIN/1-3/part" "$MNT/1-3/part"
    run cat "$MNT/1-3/other"
    [ "$status" -ne 0 ]
    run "$CKPTFS" verify "$MNT"
    [ "$status" -ne 0 ]
    [[ $output == *1-1/model* && $output == *1-3/other* && $output == *damaged* ]]
    "$CKPTFS" gc -j "$MNT" | tee "$TEST_DIR/gc"
    jq -e '.after | .punch_objects == 2 and .repack_objects == 0' "$TEST_DIR/gc"
    ckptfs_remount
    [ "$(objects)" = "$before" ]
    run cat "$MNT/1-3/other"
    [ "$status" -ne 0 ]
    # Once they are right again, it is repacked as if nothing had been.
    ckptfs_umount
    flip_byte "$object" $offset
    ckptfs_mount
    wait_until 20 everything_is_verified
    "$CKPTFS" gc -j "$MNT" | tee "$TEST_DIR/gc"
    jq -e '.after | .punch_objects == 1 and .repack_objects == 0' "$TEST_DIR/gc"
    expect_stored "$(run_ideal 1)"
    wait_until 20 everything_is_verified
    ckptfs_umount
    store_is_clean
}

# random_saves [SECONDS [OPTION...]]: whatever CKPTFS_FAULT says. A daemon that it kills at the end of a mount, which umount tells
# with 16, leaves the rest to the next one.
random_saves() {
    local options="log=$CKPTFS_LOG${CKPTFS_MOUNT_OPTIONS:+,$CKPTFS_MOUNT_OPTIONS}"
    local accepted=0 unmount
    if [ -n "${CKPTFS_FAULT-}" ]; then accepted=16; fi
    unmount="{ '$CKPTFS' umount '$MNT' || [ \$? -eq $accepted ]; }"
    ckptfs_mount
    timeout 300 python3 "$SHARE_TREE/blocks.py" "$MNT" "$PLAIN" --seed "$SEED" --seconds "${CKPTFS_SHARE_SECONDS:-${1:-10}}" "${@:2}" \
        --remount "$unmount && '$CKPTFS' mount -o '$options' '$STORE' '$MNT' 3>&-" \
        --restart "'$CKPTFS' restart '$MNT'"
    same_bytes
    wait_until $SHARE_DEADLINE share_is_settled
    "$CKPTFS" gc -j -t 120 "$MNT" | jq -e '.after | .repack_objects == 0 and .remove_objects == 0'
    same_bytes
    wait_until 20 everything_is_verified
    bash -c "$unmount"
    if [ -n "${CKPTFS_FAULT-}" ]; then CKPTFS_FAULT=$NO_PUNCH; fi
    ckptfs_mount
    ckptfs_umount
    store_is_clean
    rm -r "${PLAIN:?}"/*
    ckptfs_mount
    rm -r "$MNT"/*
    wait_until 20 stored_at_most 65536
    ckptfs_umount
    [ -z "$(objects)" ]
}

@test "random saves, overwrites, copies and deletions" {
    random_saves
}

@test "random saves, overwrites, copies and deletions, served by the daemon" {
    CKPTFS_MOUNT_OPTIONS=${CKPTFS_MOUNT_OPTIONS:+$CKPTFS_MOUNT_OPTIONS,}passthrough=off random_saves
}

@test "random saves, overwrites, copies and deletions, while each mount's first daemon dies in a repacking" {
    require_takeover
    export CKPTFS_FAULT=$NO_PUNCH,fs.repack.done:kill:3,fs.repack.write:kill:20 CKPTFS_FAULT_STARTS=1
    export CKPTFS_FAULT_LATER=$NO_PUNCH
    daemon_has_died() { grep -q 'by signal' "$CKPTFS_LOG"; }
    (wait_until 200 daemon_has_died && touch "$TEST_DIR/died") 3>&- &
    local watcher=$!
    random_saves 12 --until "$TEST_DIR/died"
    daemon_has_died
    wait $watcher
}
