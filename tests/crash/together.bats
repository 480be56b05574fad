# SPDX-License-Identifier: Apache-2.0
# Keeper and daemon die: what was done is there at the next mount.

load crash.bash

setup() { crash_setup; }
teardown() { ckptfs_teardown; }

writer_went_on() { [ "$(cat "$TEST_DIR/progress" 2>/dev/null || echo 0)" -ge "$1" ]; }

# The tree is worked on until keeper and daemon are killed; after the next mount each operation is there.
lose_both() {
    local round writer status
    for round in 1 2 3 4; do
        ckptfs_mount "$@"
        rm -f "$TEST_DIR/progress"
        crashtree write "$MNT/tree" "$TEST_DIR/state" --seed $((SEED + round)) --operations 100000 --sync 3 \
            --progress "$TEST_DIR/progress" 3>&- &
        writer=$!
        wait_until 60 writer_went_on $((RANDOM % 400 + 50))
        crash_kill_everything
        status=0
        wait $writer || status=$?
        [ "$status" -eq 10 ]
        ckptfs_mount "$@"
        crashtree check "$MNT/tree" "$TEST_DIR/state" --after kill
        ckptfs_umount
    done
    ckptfs_mount "$@"
    crashtree remove "$MNT/tree"
}

@test "keeper and daemon killed: every operation that was done is there" {
    lose_both
}

@test "keeper and daemon killed: every operation that was done is there, served by the daemon" {
    lose_both passthrough=off
}

@test "keeper and daemon killed: a file that was open for days keeps what was written" {
    ckptfs_mount
    exec 8>>"$MNT/log"
    for line in 1 2 3 4 5; do echo "line $line" >&8; done
    crash_kill_everything
    exec 8>&-
    ckptfs_mount
    [ "$(wc -l <"$MNT/log")" -eq 5 ]
    echo "line 6" >>"$MNT/log"
    [ "$(wc -l <"$MNT/log")" -eq 6 ]
}

@test "only the keeper killed: the mount goes on or ends, and the store can be mounted again" {
    ckptfs_mount
    echo before >"$MNT/file"
    kill -9 "$(ckptfs_keeper_pid)"
    if timeout 10 cat "$MNT/file"; then
        timeout 60 "$CKPTFS" umount "$MNT"
    else
        umount -l "$MNT"
    fi
    wait_until 20 ckptfs_no_processes
    ckptfs_mount
    [ "$(cat "$MNT/file")" = before ]
}

@test "kill -9 at any step of a store's first mount leaves one that can be mounted" {
    local hit
    for hit in 1 2 3 4 5 6; do
        CKPTFS_FAULT=meta.commit:kill:$hit ckptfs_mount || echo "hit $hit: the mount was refused"
        if ckptfs_is_mounted; then crash_kill_everything; fi
        wait_until 20 ckptfs_no_processes
        ckptfs_mount
        echo "$hit" >"$MNT/file"
        [ "$(cat "$MNT/file")" -eq "$hit" ]
        ckptfs_umount
        rm -rf "$STORE"
        mkdir "$STORE"
    done
}
