# SPDX-License-Identifier: Apache-2.0
# The optimizer's state of older checkpoints is given up for space: what stays, and that no resume is fooled.

load ../crash/crash.bash
load life.bash

setup() { crash_setup; }
teardown() { ckptfs_teardown; }

# The steps of the run's checkpoints that are in the state: "3 4".
steps_that_are() {
    "$CKPTFS" ls --json "$MNT/run" |
        jq -r --arg state "$1" '[.[].checkpoints[] | select(.state == $state) | .step] | join(" ")'
}

durable_begin_with() { [[ $(steps_that_are durable) == "$1"* ]]; }
has_no_optimizer() { [[ " $(steps_that_are weights-only) " == *" $1 "* ]]; }

# sheds STEPS [MOUNT_OPTION...]: so many checkpoints of 9 MB, 3 MB of them weights, where five have room; the first is
# pinned. DISK_MEBIBYTES: the disk's size, if it is another.
sheds() {
    local steps=$1 step
    shift
    disk_create ext4 "${DISK_MEBIBYTES:-64}"
    ckptfs_mount "$@"
    mkdir "$MNT/run" "$TEST_DIR/same"
    "$CKPTFS" policy set "$MNT/run" shed=optimizer
    for ((step = 1; step <= steps; step++)); do
        save "$MNT/run" "$step" --bytes 3000000
        cp -r "$MNT/run/checkpoint-$step" "$TEST_DIR/same"
        wait_until 30 latest_is run "checkpoint-$step"
        if [ "$step" -eq 1 ]; then "$CKPTFS" pin "$MNT/run/checkpoint-1"; fi
    done
}

# reads_as_error FILE: in whatever way it is read.
reads_as_error() {
    expect_refusal 1 'Input/output error' cat "$1"
    expect_refusal 1 'Input/output error' cp "$1" "$TEST_DIR/copy"
    expect_refusal 1 'Input/output error' cp --sparse=always "$1" "$TEST_DIR/copy"
    expect_refusal 1 'Input/output error' cp "$1" "$MNT/copy"
    expect_refusal 1 'Input/output error' dd if="$1" of=/dev/null skip=100 count=1 status=none
    [ "$(getfattr --only-values -n user.ckptfs.state "$1")" = shed ]
}

same_as_saved() { cmp "$MNT/run/checkpoint-$1/$2" "$TEST_DIR/same/checkpoint-$1/$2"; }

# Of no checkpoint all, as no policy says so.
tells_what_is_next() {
    jq -e '.space.freed_next | any(.what == "the optimizer'"'"'s state of older checkpoints" and .when == "when the space is needed")
        and all(.what != "checkpoints that policies can spare")' "$MNT/.ckptfs/status.json"
}

@test "what would be given up next is told while there is room" {
    DISK_MEBIBYTES=256 sheds 4
    wait_until 30 tells_what_is_next
    [ "$(log_count 'was given up')" -eq 0 ]
    [ "$(steps_that_are durable)" = "1 2 3 4" ]
}

@test "optimizers of older checkpoints are given up, the oldest first, and their weights stay" {
    local step
    sheds 7
    wait_until 30 has_no_optimizer 2
    # All are there. The newest two, and the pinned one, are whole.
    [ "$(find "$MNT/run" -name model.safetensors | wc -l)" -eq 7 ]
    [[ $(steps_that_are durable) == "1 "*"6 7" ]]
    [[ $(steps_that_are weights-only) == "2"* ]]
    for step in 1 6 7; do same_as_saved "$step" optimizer.pt; done
    for step in 1 2 6 7; do same_as_saved "$step" model.safetensors; done
    [ "$(stat -c %s "$MNT/run/checkpoint-2/optimizer.pt")" -eq "$(stat -c %s "$TEST_DIR/same/checkpoint-2/optimizer.pt")" ]
    reads_as_error "$MNT/run/checkpoint-2/optimizer.pt"
    wait_until 20 grep -q '/run/checkpoint-2: its optimizer.s state, 5.7 MiB, was given up: the space is needed' "$CKPTFS_LOG"
    [ "$(log_count ': removed')" -eq 0 ]
    wait_until 20 tells_of_2
    "$CKPTFS" ls "$MNT/run" | grep -E ' 2 .* weights-only +shed .*checkpoint-2$'
    "$CKPTFS" policy show -n --json "$MNT/run" | jq -e '[.checkpoints[] | select(.step > 5 or .step < 3) | .sheds] == [false, false, false, false]'
    "$CKPTFS" verify "$MNT"
    # It lasts; and is a file like others when it is written anew.
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
    ckptfs_mount
    reads_as_error "$MNT/run/checkpoint-2/optimizer.pt"
    expect_refusal 1 'Input/output error' dd if=/dev/zero of="$MNT/run/checkpoint-2/optimizer.pt" \
        conv=notrunc count=1 status=none
    expect_refusal 1 'Input/output error' truncate -s 100 "$MNT/run/checkpoint-2/optimizer.pt"
    # It would be the first to go again.
    "$CKPTFS" policy unset "$MNT/run" shed
    cp "$TEST_DIR/same/checkpoint-2/optimizer.pt" "$MNT/run/checkpoint-2/optimizer.pt"
    same_as_saved 2 optimizer.pt
    wait_until 30 durable_begin_with "1 2 "
}

tells_of_2() {
    "$CKPTFS" events --json "$MNT" | jq -se 'any(.event == "shed" and .path == "run/checkpoint-2" and .bytes > 5000000)'
}

# disk_has_left MEBIBYTES: for all but root.
disk_has_left() { [ "$(df --output=avail -B1M "$DISK" | tail -n 1)" -ge "$1" ]; }

# As transformers' get_last_checkpoint has it.
last_of() { find "$1" -mindepth 1 -maxdepth 1 -name 'checkpoint-*' -printf '%f\n' | sort -V | tail -n 1; }

@test "a checkpoint without its optimizer is never the last one" {
    local step
    require_takeover
    # The first daemon dies when it is about to; the next goes on.
    CKPTFS_FAULT=fs.shed:kill CKPTFS_FAULT_STARTS=1 sheds 6 passthrough=off,trash=off
    wait_until 30 daemon_has_died
    wait_until 30 has_no_optimizer 2
    [ "$(ckptfs_status_field generation)" -eq 2 ]
    [ "$(latest run)" = checkpoint-6 ]
    [ "$(last_of "$MNT/run")" = checkpoint-6 ]
    # Whatever is newer than what was shed first goes; only the pinned one is complete then.
    for step in $(steps_that_are durable); do
        if [ "$step" -gt 1 ] && [ "$step" -lt 6 ]; then rm -r "$MNT/run/checkpoint-$step"; fi
    done
    # Or what is torn would be the first to go for the space.
    wait_until 30 disk_has_left 18
    rm -r "$MNT/run/checkpoint-6"
    wait_until 30 latest_is run checkpoint-1
    [ "$(last_of "$MNT/run")" = checkpoint-1 ]
    cmp "$MNT/.ckptfs/torn/run/checkpoint-2/model.safetensors" "$TEST_DIR/same/checkpoint-2/model.safetensors"
    wait_until 20 grep -q 'torn path="/run/checkpoint-2" step=2: its optimizer.s state was given up' "$CKPTFS_LOG"
    mv "$MNT/.ckptfs/torn/run/checkpoint-2" "$MNT/run/weights-of-2"
    cmp "$MNT/run/weights-of-2/model.safetensors" "$TEST_DIR/same/checkpoint-2/model.safetensors"
    [ "$(last_of "$MNT/run")" = checkpoint-1 ]
}

@test "a checkpoint that has lost its optimizer in part is known for that, whoever dies" {
    local step
    require_takeover
    ckptfs_mount
    mkdir "$MNT/run"
    for step in 1 2 3; do
        save "$MNT/run" "$step" --bytes 1000000
        cp "$MNT/run/checkpoint-$step/optimizer.pt" "$MNT/run/checkpoint-$step/optimizer_1.bin"
        wait_until 30 latest_is run "checkpoint-$step"
    done
    wait_until 30 settled
    "$CKPTFS" policy set "$MNT/run" shed=optimizer
    # The daemon dies between the two files, and the next cannot look at the run.
    CKPTFS_FAULT=fs.shed:kill:2 CKPTFS_FAULT_STARTS=1 CKPTFS_FAULT_LATER=fs.look:EIO:1+ ckptfs_remount min-free=90%
    wait_until 30 daemon_has_died
    expect_refusal 1 'Input/output error' cat "$MNT/run/checkpoint-1/optimizer.pt"
    [ "$(latest run)" = checkpoint-3 ]
    rm -r "$MNT/run/checkpoint-3" "$MNT/run/checkpoint-2"
    [ -z "$(latest run)" ]
}

# write_beyond MEBIBYTES: so many more than the disk has left for all but root.
write_beyond() {
    dd if=/dev/zero of="$MNT/more" bs=1M status=none count=$(($(df --output=avail -B1M "$DISK" | tail -n 1) + $1))
}

@test "a write that finds the disk full waits for state that can be given up soon, and for none that cannot" {
    local before reader writer
    sheds 2
    # Of two checkpoints nothing is given up, and no more comes.
    expect_failure write_beyond 8
    [ "$(log_count 'a write waits for room')" -eq 0 ]
    rm "$MNT/more"
    # The disk has its blocks again, of which the next writes are counted.
    wait_until 30 objects_take_less_than 25
    "$CKPTFS" unpin "$MNT/run/checkpoint-1"
    tail -f "$MNT/run/checkpoint-1/model.safetensors" >/dev/null 3>&- &
    reader=$!
    wait_until 30 has_open "$reader" "$MNT/run/checkpoint-1/model.safetensors"
    save "$MNT/run" 3 --bytes 3000000
    wait_until 30 latest_is run checkpoint-3
    write_beyond 2 3>&- &
    writer=$!
    wait_until 30 log_has_waited
    [ "$(steps_that_are durable)" = "1 2 3" ]
    kill "$reader"
    before=$SECONDS
    wait "$writer"
    [ "$(steps_that_are weights-only)" = 1 ]
    [ $((SECONDS - before)) -lt 60 ]
}

has_open() { [ -n "$(find "/proc/$1/fd" -lname "$2" 2>/dev/null)" ]; }
objects_take_less_than() { [ "$(du -s -BM "$STORE/objects" | cut -dM -f1)" -lt "$1" ]; }
log_has_waited() { [ "$(log_count 'a write waits for room')" -gt 0 ]; }

@test "who found nothing to give up when the space was needed looks again" {
    # From the first look on; no write finds the disk full.
    sheds 4 min-free=90%
    wait_until 30 has_shed
    wait_until 20 has_no_optimizer 2
    [ "$(steps_that_are weights-only)" = 2 ]
}

has_shed() { [ "$(log_count 'was given up: the space is needed')" -eq 1 ]; }
