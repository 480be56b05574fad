# SPDX-License-Identifier: Apache-2.0
# A disk that is too small for what a policy would keep: old checkpoints make room for the next one.

load crash.bash
load ../life/life.bash

setup() { crash_setup; }
teardown() { ckptfs_teardown; }

kept() { find "$MNT/run" -mindepth 1 -maxdepth 1 -name 'checkpoint-*' -printf '%f\n' | sort -V | paste -sd ' '; }

# saves_more_than_fits [MOUNT_OPTION...]: twelve checkpoints of 9 MB where six have room, and ten are to be kept.
saves_more_than_fits() {
    local step
    disk_create ext4 80
    ckptfs_mount "$@"
    mkdir "$MNT/run"
    "$CKPTFS" policy set "$MNT/run" keep-last=10
    for step in {1..12}; do
        save "$MNT/run" "$step" --bytes 3000000 --best 2
        wait_until 30 latest_is run "checkpoint-$step"
    done
    kept
    # What is latest and what is best were there all the time; what went were the oldest of the others.
    [[ $(kept) == "checkpoint-2 checkpoint-"*" checkpoint-12" ]]
    [ ! -e "$MNT/run/checkpoint-1" ] && [ ! -e "$MNT/run/checkpoint-3" ]
    grep -q '/run/checkpoint-1: removed: the space is needed' "$CKPTFS_LOG"
    "$CKPTFS" ls --json "$MNT/run" | jq -e 'all(.[].checkpoints[]; .state == "durable")'
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "old checkpoints of a run with a policy make room for the next" {
    saves_more_than_fits
}

@test "old checkpoints of a run with a policy make room for the next, with no trash, served by the daemon" {
    saves_more_than_fits passthrough=off,trash=off
}

@test "without a policy nothing is given up: the disk is full" {
    local step
    disk_create ext4 80
    ckptfs_mount
    mkdir "$MNT/run"
    for step in {1..6}; do save "$MNT/run" "$step" --bytes 3000000; done
    run save "$MNT/run" 7 8 9 --bytes 3000000
    [ "$status" -ne 0 ]
    [ -e "$MNT/run/checkpoint-1/optimizer.pt" ]
}

# Nothing else is there to be given up: the job goes on, and only a kill of it would be noticed.
@test "a checkpoint that is saved over itself has the room that it had" {
    disk_create ext4 96
    ckptfs_mount passthrough=off
    save "$MNT/run" 1 --bytes 10000000
    wait_until 30 latest_is run checkpoint-1
    save "$MNT/run" 1 --bytes 20000000 --seed 2
    grep -q 'checkpoint-1": what it was before it is written over is given up: the space is needed' "$CKPTFS_LOG"
    save "$TEST_DIR/plain" 1 --bytes 20000000 --seed 2
    cmp "$TEST_DIR/plain/checkpoint-1/model.safetensors" "$MNT/run/checkpoint-1/model.safetensors"
    wait_until 30 latest_is run checkpoint-1
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}
