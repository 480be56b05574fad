# SPDX-License-Identifier: Apache-2.0
# sharing=forward: an fsync that an older file answers for, and the power goes before the file's own bytes are written.

load ../share/share.bash

setup() {
    share_setup
    require_command xfs_io
    require_command sqlite3
    export CKPTFS_MOUNT_OPTIONS=sharing=forward${CKPTFS_MOUNT_OPTIONS:+,$CKPTFS_MOUNT_OPTIONS}
}
teardown() { ckptfs_teardown; }

# A model that was saved twice, so that a third save is expected to equal it: PLAIN/model, and MNT/1 and MNT/2.
known_model() {
    head -c 5M /dev/urandom >"$PLAIN/model"
    cat "$PLAIN/model" >"$MNT/1"
    settle
    cat "$PLAIN/model" >"$MNT/2"
    settle
}

# fsync_open SOURCE NAME: written, fsynced, and still open as descriptor 8.
fsync_open() {
    exec 8>"$MNT/$2"
    cat "$1" >&8
    sync "$MNT/$2"
}

# Saved as most programs do, fsync before close.
fsync_closed() { dd if="$1" of="$MNT/$2" bs=1M conv=fsync status=none; }

# Of the store as it is on the disk, or of a mounted one.
stand_ins() {
    wait_until 20 copies_meta
    sqlite3 "$TEST_DIR/meta/meta.db" "SELECT count(*) FROM stand_in"
}

# A log that was moved into the database meanwhile, and begun anew, does not go with it.
copies_meta() {
    local before
    before=$(database_is)
    rm -rf "$TEST_DIR/meta"
    mkdir "$TEST_DIR/meta"
    cp "$STORE"/meta.db* "$TEST_DIR/meta" && [ "$(database_is)" = "$before" ]
}

database_is() {
    stat -c '%n %y %s' "$STORE/meta.db"
    if [ -e "$STORE/meta.db-wal" ]; then head -c 32 "$STORE/meta.db-wal" | od -An -tx1; fi
}

state_of() { getfattr --only-values -n user.ckptfs.state "$MNT/$1"; }

cut_and_mount() {
    disk_cut_power
    exec 8>&-
    machine_restart
    : >"$CKPTFS_LOG"
    ckptfs_mount "$@"
}

# The store is one that has no trace of what stood in for what.
whole_store() {
    ckptfs_umount
    [ "$(stand_ins)" -eq 0 ]
    "$CKPTFS" fsck "$STORE"
}

# fsynced_is_there FILESYSTEM [MOUNT_OPTION...]
fsynced_is_there() {
    local filesystem=$1
    shift
    disk_create "$filesystem" 512
    ckptfs_mount "$@"
    known_model
    fsync_open "$PLAIN/model" open
    [ "$(stand_ins)" -eq 1 ]
    fsync_closed "$PLAIN/model" closed
    cut_and_mount "$@"
    cmp "$PLAIN/model" "$MNT/open"
    cmp "$PLAIN/model" "$MNT/closed"
    # As after any power cut, a file that was open for writing counts as one that may have lost bytes.
    [ "$(state_of open)" = torn ]
    cmp "$PLAIN/model" "$MNT/1"
    cmp "$PLAIN/model" "$MNT/2"
    settle
    whole_store
}

@test "XFS: what was fsynced is there, by an older file" {
    fsynced_is_there xfs
}

@test "ext4: what was fsynced is there, by an older file" {
    fsynced_is_there ext4
}

@test "ext4: what was fsynced is there, by an older file, served by the daemon" {
    fsynced_is_there ext4 passthrough=off
}

@test "XFS: what was fsynced is there, by an older file whose bytes were compared" {
    fsynced_is_there xfs verify-on-share=yes
}

# What is stored through a map after the fsync is there or not; what came before is.
mapped() {
    local offset=$((1 << 20))
    disk_create xfs 512
    ckptfs_mount "$@"
    known_model
    timeout 60 python3 - "$PLAIN/model" "$MNT/3" $offset <<'END'
import mmap
import os
import sys

data = open(sys.argv[1], "rb").read()
descriptor = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.ftruncate(descriptor, len(data))
with mmap.mmap(descriptor, len(data)) as view:
    view[:] = data
    os.fsync(descriptor)
    view[int(sys.argv[3])] ^= 255
os.close(descriptor)
END
    cut_and_mount "$@"
    cmp -n $offset "$PLAIN/model" "$MNT/3"
    cmp -i $((offset + 1)) "$PLAIN/model" "$MNT/3"
}

@test "stores through a map, before the fsync and after it" {
    mapped
}

@test "stores through a map, before the fsync and after it, served by the daemon" {
    mapped passthrough=off
}

@test "a file that was closed and sealed after its fsync is not torn" {
    disk_create xfs 512
    # What comes after the seal never ends, so that it does not give way.
    CKPTFS_FAULT=fs.summed:hang:3 ckptfs_mount
    known_model
    fsync_closed "$PLAIN/model" 3
    is_durable() { [ "$(state_of 3)" = durable ]; }
    wait_until 20 is_durable
    [ "$(stand_ins)" -eq 1 ]
    sync "$MNT"
    cut_and_mount
    cmp "$PLAIN/model" "$MNT/3"
    [ "$(state_of 3)" = durable ]
    whole_store
}

@test "older files that are deleted, replaced or written to after the fsync change nothing" {
    disk_create xfs 512
    local how
    for how in delete replace write truncate; do
        ckptfs_mount
        known_model
        fsync_open "$PLAIN/model" 3
        [ "$(stand_ins)" -eq 1 ]
        case $how in
        delete) rm "$MNT/1" "$MNT/2" ;;
        replace)
            head -c 3M /dev/urandom >"$MNT/new"
            sync "$MNT/new"
            mv "$MNT/new" "$MNT/1"
            echo other >"$MNT/2"
            ;;
        write)
            printf changed | dd of="$MNT/1" bs=1 seek=2000000 conv=notrunc,fsync status=none
            printf changed | dd of="$MNT/2" bs=1 seek=3000000 conv=notrunc,fsync status=none
            ;;
        truncate)
            truncate -s 1M "$MNT/1"
            truncate -s 0 "$MNT/2"
            ;;
        esac
        "$CKPTFS" gc "$MNT" >/dev/null
        # Whatever was done to them is on stable storage.
        sync "$MNT"
        cut_and_mount
        echo "$how"
        cmp "$PLAIN/model" "$MNT/3"
        rm "$MNT"/*
        whole_store
    done
}

@test "names that the file got before another fsync lead to its bytes" {
    disk_create ext4 512
    ckptfs_mount
    known_model
    echo old >"$MNT/final"
    sync "$MNT/final"
    fsync_open "$PLAIN/model" temporary
    [ "$(stand_ins)" -eq 1 ]
    ln "$MNT/temporary" "$MNT/linked"
    mv "$MNT/temporary" "$MNT/final"
    sync "$MNT"
    cut_and_mount
    cmp "$PLAIN/model" "$MNT/final"
    cmp "$PLAIN/model" "$MNT/linked"
    [ ! -e "$MNT/temporary" ]
    whole_store
}

@test "what is written after the fsync is there or not; what came before is" {
    disk_create xfs 512
    local round
    for round in append overwrite changed; do
        ckptfs_mount
        known_model
        fsync_open "$PLAIN/model" 3
        [ "$(stand_ins)" -eq 1 ]
        cp "$PLAIN/model" "$TEST_DIR/new"
        case $round in
        append)
            head -c 1M /dev/urandom | tee -a "$TEST_DIR/new" >&8
            cut_and_mount
            cmp -n "$(size_of "$PLAIN/model")" "$PLAIN/model" "$MNT/3"
            cmp -n "$(size_of "$MNT/3")" "$TEST_DIR/new" "$MNT/3"
            ;;
        overwrite)
            dd if=/dev/zero of="$MNT/3" bs=1M seek=2 count=1 conv=notrunc status=none
            cut_and_mount
            cmp -n 2097152 "$PLAIN/model" "$MNT/3"
            cmp -i 3145728 "$PLAIN/model" "$MNT/3"
            ;;
        changed) # and fsynced: then the older file has nothing to say any more
            dd if=/dev/zero of="$TEST_DIR/new" bs=1M seek=2 count=1 conv=notrunc status=none
            dd if=/dev/zero of="$MNT/3" bs=1M seek=2 count=1 conv=notrunc,fsync status=none
            [ "$(stand_ins)" -eq 0 ]
            cut_and_mount
            cmp "$TEST_DIR/new" "$MNT/3"
            ;;
        esac
        [ "$(state_of 3)" = torn ]
        rm "$MNT"/*
        whole_store
    done
}

@test "a file that is emptied after its fsync stays empty" {
    disk_create xfs 512
    ckptfs_mount
    known_model
    fsync_closed "$PLAIN/model" 3
    is_closed() { [ "$(state_of 3)" != writing ]; }
    wait_until 20 is_closed
    truncate -s 0 "$MNT/3"
    sync "$MNT/3"
    [ "$(stand_ins)" -eq 0 ]
    cut_and_mount
    [ "$(size_of "$MNT/3")" -eq 0 ]
    whole_store
}

@test "a daemon that dies at a step of the fsync, and then the power goes" {
    require_takeover
    disk_create ext4 512
    local point died=0
    for point in fs.stand-in:kill fs.stood-in:kill fs.seal:kill:3 fs.share:kill:2; do
        CKPTFS_FAULT_STARTS=1 CKPTFS_FAULT=$point ckptfs_mount
        known_model
        fsync_closed "$PLAIN/model" 3
        if [ "$(ckptfs_status_field generation)" -gt 1 ]; then died=$((died + 1)); fi
        cmp "$PLAIN/model" "$MNT/3"
        cut_and_mount
        echo "$point"
        cmp "$PLAIN/model" "$MNT/3"
        cmp "$PLAIN/model" "$MNT/1"
        rm "$MNT"/*
        whole_store
    done
    [ "$died" -ge 2 ]
}

@test "an fsync whose record fails writes the file itself" {
    disk_create xfs 512
    CKPTFS_FAULT=fs.stand-in:EIO:1+ ckptfs_mount
    known_model
    fsync_open "$PLAIN/model" 3
    [ "$(stand_ins)" -eq 0 ]
    cut_and_mount
    cmp "$PLAIN/model" "$MNT/3"
    whole_store
}

saved_more_than() { [ "$(wc -l <"$TEST_DIR/state")" -gt "$1" ]; }

# random_round SEED: saves until the power goes. stood: how many files an older one answered for then.
random_round() {
    local copy
    rm -f "$TEST_DIR/cut"
    : >"$TEST_DIR/state"
    ckptfs_mount
    for copy in first second; do
        timeout 60 python3 "$CRASH_TREE/unchanged.py" prepare "$MNT" $copy --seed "$1"
        settle
    done
    timeout 200 python3 "$CRASH_TREE/unchanged.py" write "$MNT" "$TEST_DIR/state" --seed "$1" --saves 1000 \
        --cut "$TEST_DIR/cut" >"$TEST_DIR/out" 2>&1 3>&- &
    local writer=$! status=0
    wait_until 60 saved_more_than $((RANDOM % 25 + 8))
    disk_cut_power
    wait $writer || status=$?
    cat "$TEST_DIR/out"
    [ $status -eq 10 ] # stopped by the cut, not before it
    machine_restart
    stood=$((stood + $(stand_ins)))
    ckptfs_mount
    timeout 200 python3 "$CRASH_TREE/unchanged.py" check "$MNT" "$TEST_DIR/state"
    rm -r "${MNT:?}"/*
    settle
    whole_store
}

random_rounds() {
    local round stood=0
    disk_create "$1" 2048
    for round in $(seq "${CKPTFS_POWER_ROUNDS:-3}"); do random_round $((SEED + round)); done
    # Cuts that hit none would prove nothing.
    for round in {101..106}; do
        [ $stood -gt 0 ] || random_round $((SEED + round))
    done
    echo "$stood files had a stand-in"
    [ $stood -gt 0 ]
}

@test "XFS: random saves with fsync, some with a changed byte: every fsynced one is whole" {
    random_rounds xfs
}

@test "ext4: random saves with fsync, some with a changed byte: every fsynced one is whole" {
    random_rounds ext4
}
