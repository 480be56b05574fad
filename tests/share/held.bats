#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Who has a file open or mapped never sees a byte change because the store tidied up.

load share.bash
load ../lib/checkpoint.bash

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
    wait_until $SHARE_DEADLINE stored_at_most 65536
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

extents_of() { getfattr --only-values -n user.ckptfs.extents "$MNT/$1"; }
is_hashed() { getfattr --only-values -n user.ckptfs.hash "$MNT/$1" >/dev/null 2>&1; }
at_most_one_waits() {
    "$CKPTFS" status --json "$MNT" |
        jq -e 'if type == "array" then .[0] else . end | .unshared_files <= 1 and .behind_files == 0' >/dev/null
}

@test "the newest file stays whole when the one before it comes to be shared after it" {
    ckptfs_mount
    save first models safetensors --seed 1
    settle
    # A reader of the first makes the second wait; the newest has nothing of the first.
    exec 8<"$MNT/first"
    save second models safetensors --seed 1 --changed 5,6,7,8,9 --with-seed 2 --note 1000
    save newest models safetensors --seed 2 --changed 0,1,2,3,4 --with-seed 3 --note 3000
    wait_until $SHARE_DEADLINE is_hashed newest
    wait_until $SHARE_DEADLINE at_most_one_waits
    exec 8<&-
    # Of thirty tensors ten are there twice.
    expect_stored $((20 * 1000 * 1024))
    settle
    [ "$(extents_of newest)" -eq 1 ]
    [ "$(extents_of second)" -gt 1 ]
    drop newest
    expect_stored $((15 * 1000 * 1024))
    ckptfs_remount
    same_bytes
}

everything_is_hashed() {
    "$CKPTFS" verify --json "$MNT" | jq -e '.unhashed_objects == 0 and .damaged_ranges == 0' >/dev/null
}

@test "a file into which a range was copied while it was being written is hashed when it is closed" {
    ckptfs_mount passthrough=off
    save a models safetensors --kib 300
    save b models safetensors --kib 300 --seed 7
    settle
    local root
    for root in "$MNT" "$PLAIN"; do
        python3 - "$root/a" "$root/b" <<'EOF'
import os, sys
source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR)
os.pwrite(target, b"changed", 100000)
if os.copy_file_range(source, target, 600000, 1 << 20, 1 << 20) != 600000:
    sys.exit("copied less")
os.close(target)
EOF
    done
    settle
    wait_until 20 everything_is_hashed
    same_bytes
}

# map_and_change FILE SHOWN REMOVE [RESTART]: a mount of MNT; at the end nothing but the copy is left.
map_and_change() {
    timeout 60 python3 "$SHARE_TREE/mapped.py" "$MNT" "$MNT/$1" "$MNT/$2" --remove "$3" ${4:+--restart "$4"}
    rm "$MNT/copy"
    wait_until $SHARE_DEADLINE stored_at_most 65536
}

@test "a map of a deleted file shows its bytes when another daemon has come and what it shared is changed" {
    ckptfs_mount
    mkdir "$MNT/run"
    head -c 3000000 /dev/urandom >"$MNT/run/file"
    map_and_change run/file run/file "rm '$MNT/run/file'" "'$CKPTFS' restart '$MNT'"
    # Replaced: that one goes when what has its name is on stable storage.
    head -c 3000000 /dev/urandom >"$MNT/run/file"
    map_and_change run/file run/file "head -c 9 /dev/zero >'$MNT/run/new' && mv '$MNT/run/new' '$MNT/run/file'" \
        "'$CKPTFS' restart '$MNT' && sync '$MNT/run/file'"
}

@test "a map by a view of a deleted model shows its bytes when what it shared is changed" {
    ckptfs_mount trash=off
    local restart
    for restart in "" "'$CKPTFS' restart '$MNT'"; do
        mkdir -p "$MNT/run/checkpoint-1"
        checkpoint "$MNT/run/checkpoint-1" 2
        wait_until 20 test -e "$MNT/.ckptfs/models/run/checkpoint-1/model.safetensors"
        map_and_change run/checkpoint-1/model.safetensors .ckptfs/models/run/checkpoint-1/model.safetensors \
            "rm -r '$MNT/run/checkpoint-1'" "$restart"
    done
}

# Writers with O_SYNC are served by the daemon, where no map is older than they are.
@test "what a writer with O_SYNC, and maps made beside it, change is seen through an older map" {
    ckptfs_mount
    require_passthrough
    head -c 1000000 /dev/zero >"$MNT/file"
    timeout 60 python3 - "$MNT/file" "$SHARE_TREE" <<'PYTHON'
import os, sys
sys.path.insert(0, sys.argv[2])
from mapping import Mapping
older = Mapping(sys.argv[1], writes=True)
older.write(10, b"older")
fd = os.open(sys.argv[1], os.O_RDWR | os.O_SYNC)
newer = Mapping(sys.argv[1], writes=True)
os.pwrite(fd, b"written", 1000)
newer.write(500000, b"stored")
assert older.read()[1000:1007] == b"written" and older.read()[500000:500006] == b"stored"
older.write(900000, b"back")
assert newer.read()[900000:900004] == b"back" and os.pread(fd, 4, 900000) == b"back"
assert newer.read()[10:15] == b"older"
PYTHON
}
