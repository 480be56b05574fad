# SPDX-License-Identifier: Apache-2.0
# A disk that is too small for what a policy would keep: old checkpoints make room for the next one.

load crash.bash
load ../life/life.bash

setup() { crash_setup; }
teardown() { ckptfs_teardown; }

kept() { find "$MNT/run" -mindepth 1 -maxdepth 1 -name 'checkpoint-*' -printf '%f\n' | sort -V | paste -sd ' '; }

kept_are() { [ "$(kept)" = "$1" ]; }

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
    wait_until 20 grep -q '/run/checkpoint-1: removed: the space is needed' "$CKPTFS_LOG"
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
    wait_until 20 grep -q 'checkpoint-1": what it was before it is written over is given up: the space is needed' "$CKPTFS_LOG"
    save "$TEST_DIR/plain" 1 --bytes 20000000 --seed 2
    cmp "$TEST_DIR/plain/checkpoint-1/model.safetensors" "$MNT/run/checkpoint-1/model.safetensors"
    wait_until 30 latest_is run checkpoint-1
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

pour() { timeout 240 python3 "$CRASH_TREE/pour.py" "$@"; }

# pours_more_than_fits MIB BYTES [POUR_OPTION...]: where a plain disk is full after some, all are saved here.
pours_more_than_fits() {
    local mib=$1 bytes=$2
    shift 2
    disk_create ext4 "$mib"
    expect_failure pour "$DISK/plain" 8 "$bytes" "$@"
    rm -rf "$DISK/plain"
    ckptfs_mount
    mkdir "$MNT/run"
    "$CKPTFS" policy set "$MNT/run" keep-last=7
    pour "$MNT/run" 8 "$bytes" "$@"
    wait_until 30 latest_is run checkpoint-8
    [ ! -e "$MNT/run/checkpoint-1" ]
    [ "$(ckptfs_status_field disk.full)" = false ]
    "$CKPTFS" ls --json "$MNT/run" | jq -e 'all(.[].checkpoints[]; .state == "durable")'
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "a writer as fast as memory, which fills a plain disk, saves all it has" {
    pours_more_than_fits 160 9000000
}

@test "a writer as fast as memory, whose files get their sizes first, all at once" {
    pours_more_than_fits 160 9000000 --sizes-first --at-once
}

# Three of 9 MB are half of the disk, and ten are to be kept.
@test "min-free says how much stays free before anything is given up" {
    local step
    disk_create ext4 80
    ckptfs_mount min-free=60%
    mkdir "$MNT/run"
    "$CKPTFS" policy set "$MNT/run" keep-last=10
    for step in {1..4}; do
        save "$MNT/run" "$step" --bytes 3000000
        wait_until 30 latest_is run "checkpoint-$step"
    done
    [ "$(ckptfs_status_field disk.kept_free_bytes)" -gt $((40 << 20)) ]
    wait_until 30 kept_are "checkpoint-3 checkpoint-4"
    "$CKPTFS" status "$MNT" | grep -E '^space .* to be kept free$'
    # With nothing to be kept free, what is removed stays in the trash until a write finds the disk full.
    ckptfs_remount min-free=0
    for step in 5 6; do save "$MNT/run" "$step" --bytes 3000000; done
    wait_until 30 latest_is run checkpoint-6
    rm -r "$MNT/run/checkpoint-5"
    [ -d "$MNT/.ckptfs/trash/run/checkpoint-5" ]
    dd if=/dev/zero of="$MNT/more" bs=1M count=36 status=none
    wait_until 20 grep -q '/run/checkpoint-5: removed from the trash: the space is needed' "$CKPTFS_LOG"
    local wrong
    for wrong in lots '' -1 100% 0% 5%% 0x5% 5%GB %; do
        expect_refusal 2 'option min-free: expected auto, 0, a size as 20GB or a part as 5%' \
            "$CKPTFS" mount -o "min-free=$wrong" "$STORE" "$MNT"
    done
}

disk_has() { [ "$(df --output=avail -B1 "$DISK" | tail -n 1)" -ge "$1" ]; }

waits_again() { [ "$(log_count 'a write waits for room')" -ge "$1" ]; }

# More than there is, where a policy may give up something, and has nothing.
write_too_much() { dd if=/dev/zero of="$MNT/more" bs=1M count=40 status=none 3>&-; }

@test "a write that finds the disk full waits for its time, for others who make room, or until it is interrupted" {
    disk_create ext4 64
    head -c 20M /dev/zero >"$DISK/ballast"
    ckptfs_mount full-timeout=2
    mkdir "$MNT/run"
    "$CKPTFS" policy set "$MNT/run" keep-last=1
    expect_failure write_too_much
    waits_again 1
    rm "$MNT/more"
    ckptfs_remount
    write_too_much &
    wait_until 20 waits_again 2
    # Another daemon is asked the same.
    crash_kill_daemon
    wait_until 20 waits_again 3
    "$CKPTFS" restart "$MNT"
    wait_until 20 waits_again 4
    rm "$DISK/ballast"
    wait "$!"
    [ "$(stat -c %s "$MNT/more")" -eq $((40 << 20)) ]
    rm "$MNT/more"
    wait_until 20 disk_has $((30 << 20))
    head -c 20M /dev/zero >"$DISK/ballast"
    dd if=/dev/zero of="$MNT/more" bs=1M count=40 status=none 3>&- &
    local writer=$! code=0 before
    wait_until 20 waits_again 5
    before=$SECONDS
    kill "$writer"
    wait "$writer" || code=$?
    [ "$code" -ne 0 ] && [ $((SECONDS - before)) -lt 20 ]
    # And not at all, where nobody wants it.
    ckptfs_remount full-timeout=0
    rm -f "$MNT/more"
    before=$(log_count 'a write waits for room')
    expect_failure write_too_much
    [ "$(log_count 'a write waits for room')" -eq "$before" ]
}

status_is() { [ "$(jq -c "$1" "$MNT/.ckptfs/status.json")" = "$2" ]; }

@test "status says at which step the disk will be full, and there it is" {
    local step
    disk_create ext4 100
    ckptfs_mount
    mkdir "$MNT/run"
    save "$MNT/run" 10 20 --bytes 3000000
    wait_until 30 latest_is run checkpoint-20
    wait_until 30 status_is '.runs[0].last.new_bytes > 8000000' true
    # Room for two more and a little; of the part that ext4 keeps for root there is less than one more.
    head -c "$(($(jq .space.available_bytes "$MNT/.ckptfs/status.json") - 20000000))" /dev/zero >"$DISK/ballast"
    wait_until 30 status_is '.runs[0].next | [.fits, .checkpoints_that_fit, .full_at_step]' '[true,2,50]'
    for step in 30 40; do save "$MNT/run" "$step" --bytes 3000000; done
    wait_until 30 latest_is run checkpoint-40
    wait_until 30 status_is '.runs[0].next | [.fits, .checkpoints_that_fit, .full_at_step]' '[false,0,50]'
    run ckptfs_remount
    [[ $output == *', takes 8.6 MiB: one like it does not fit any more'* ]]
    expect_failure save "$MNT/run" 50 --bytes 3000000
}
