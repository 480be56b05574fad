#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The trash when daemons die in the middle of a removal, and when the disk is too small for it.

load crash.bash
load ../lib/trash.bash

setup() { crash_setup; }
teardown() { ckptfs_teardown; }

# What rmtree had not come to, and what the trash has, together are what there was, each byte of it.
nothing_is_lost() {
    local rest=$TEST_DIR/rest
    rm -rf "$rest"
    mkdir "$rest"
    if [ -d "$MNT/run/checkpoint-5" ]; then cp -a "$MNT/run/checkpoint-5/." "$rest"; fi
    if [ -d "$MNT/.ckptfs/trash/run/checkpoint-5" ]; then
        cp -an "$MNT/.ckptfs/trash/run/checkpoint-5/." "$rest"
    fi
    diff -r "$WAS" "$rest"
}

# more_files DIRECTORY: so that its removal takes a while.
more_files() {
    local i
    mkdir "$1/extra"
    for i in {1..150}; do echo "$i" >"$1/extra/$i"; done
}

@test "keeper and daemon are killed while rmtree removes a checkpoint" {
    local i KILLS=1
    if [ -n "${CKPTFS_TEST_LONG:-}" ]; then KILLS=$(seq 20); fi
    ckptfs_mount
    checkpoint "$MNT/run/checkpoint-5" 20000
    more_files "$MNT/run/checkpoint-5"
    settle "$MNT/run/checkpoint-5"
    rm -rf "$WAS"
    cp -a "$MNT/run/checkpoint-5" "$WAS"
    for i in $KILLS; do
        rmtree "$MNT/run/checkpoint-5" 2>/dev/null 3>&- &
        sleep "0.0$((RANDOM % 10))"
        crash_kill_everything
        wait "$!" || echo "rmtree was cut off" # it may have come to its end before the kill: both are to be whole
        ckptfs_mount
        nothing_is_lost
        if ! trash_is_empty; then "$CKPTFS" undelete "$MNT/run/checkpoint-5"; fi
        same_tree "$WAS" "$MNT/run/checkpoint-5"
        settle "$MNT/run/checkpoint-5"
    done
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "the daemon alone is killed while rmtree removes a checkpoint" {
    require_takeover
    ckptfs_mount
    checkpoint "$MNT/run/checkpoint-5" 20000
    more_files "$MNT/run/checkpoint-5"
    settle "$MNT/run/checkpoint-5"
    rm -rf "$WAS"
    cp -a "$MNT/run/checkpoint-5" "$WAS"
    rmtree "$MNT/run/checkpoint-5" 3>&- &
    crash_kill_daemon
    wait "$!"
    [ ! -e "$MNT/run/checkpoint-5" ]
    "$CKPTFS" undelete "$MNT/run/checkpoint-5"
    same_tree "$WAS" "$MNT/run/checkpoint-5"
}

# As a Trainer with save_total_limit=1 on a disk that has room for two checkpoints and a little.
rotate() {
    local i before=
    disk_create ext4 96
    ckptfs_mount "$@"
    mkdir "$MNT/run"
    for i in {1..4}; do
        checkpoint "$MNT/run/checkpoint-$i" 9000000
        same_tree "$WAS" "$MNT/run/checkpoint-$i"
        if [ -n "$before" ]; then rmtree "$before"; fi
        before=$MNT/run/checkpoint-$i
    done
    diff -r "$WAS" "$before"
    # What was removed last is there still, as far as there is room for the next save.
    wait_until 20 grep -q 'removed from the trash: the space is needed' "$CKPTFS_LOG"
}

@test "a run goes on where the disk has no room for the trash" {
    rotate
}

@test "a run goes on where the disk has no room for the trash, served by the daemon" {
    long_only
    rotate passthrough=off
}

# More is written at once than is kept free for the next save: it is given up while the writer waits.
@test "a write that finds the disk full waits for the trash" {
    local i
    disk_create ext4 64
    ckptfs_mount passthrough=off
    for i in 1 2 3; do
        checkpoint "$MNT/run/checkpoint-$i" 3000000
        rmtree "$MNT/run/checkpoint-$i"
    done
    wait_until 20 trash_is_counted
    [ "$(trash_field number | wc -l)" -eq 3 ]
    [ "$(available "$DISK")" -lt 30000000 ]
    head -c 40000000 /dev/urandom >"$TEST_DIR/new"
    cp "$TEST_DIR/new" "$MNT/new"
    cmp "$TEST_DIR/new" "$MNT/new"
    wait_until 20 grep -q 'removed from the trash: the space is needed' "$CKPTFS_LOG"
    # Where nothing is left to be given up, the writer hears of it.
    expect_failure dd if=/dev/urandom of="$MNT/more" bs=1M count=40 status=none
    trash_is_empty
    cmp "$TEST_DIR/new" "$MNT/new"
}

# Whoever lists the run is told, once the daemon has heard that the killed process has closed its file.
torn_is_found() {
    find "$MNT/run" >"$TEST_DIR/found"
    [ -d "$MNT/.ckptfs/torn/run/checkpoint-3" ]
}

@test "what was torn is given up before what was removed" {
    disk_create ext4 96
    ckptfs_mount passthrough=off
    checkpoint "$MNT/run/checkpoint-1" 4000000
    checkpoint "$MNT/run/checkpoint-2" 4000000
    python3 "$CKPTFS_TREE/tests/lib/checkpoint.py" "$MNT/run" 3 --bytes 8000000 --hang-in optimizer.pt "$TEST_DIR/hung" 3>&- &
    wait_until 30 test -e "$TEST_DIR/hung"
    kill -9 "$!"
    wait "$!" || [ $? -eq 137 ]
    wait_until 20 torn_is_found
    rmtree "$MNT/run/checkpoint-1"
    wait_until 20 trash_is_counted
    head -c $(($(available "$DISK") - 500000)) /dev/urandom >"$TEST_DIR/new"
    cp "$TEST_DIR/new" "$MNT/new"
    wait_until 20 test ! -e "$MNT/.ckptfs/torn/run/checkpoint-3"
    [ -n "$(trash_field path)" ]
    wait_until 20 grep -q '/.ckptfs/torn/run/checkpoint-3: removed: it was torn, and the space is needed' "$CKPTFS_LOG"
    cmp "$TEST_DIR/new" "$MNT/new"
}

available() { df --output=avail -B1 "$1" | tail -n 1; }
