#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# `ckptfs wait`: how it ends, on plain disks and on mounts.

load ../lib/ckptfs.bash

setup() {
    require_command python3
    ckptfs_setup
    RUN=$TEST_DIR/run
    CHECKPOINT=$RUN/checkpoint-7
}
teardown() {
    [ -z "${WAITER-}" ] || kill "$WAITER" 2>/dev/null || true
    ckptfs_teardown
}

# save DIRECTORY WHAT...: a model, and with "rest" what a resume needs besides.
save() {
    python3 - "$@" <<'PYTHON'
import json, os, struct, sys, zipfile
path, *what = sys.argv[1:]
os.makedirs(path, exist_ok=True)
if "model" in what:
    header = json.dumps({"w": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}).encode()
    with open(f"{path}/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + bytes(8))
    with open(f"{path}/config.json", "w") as file:
        file.write("{}")
    with open(f"{path}/trainer_state.json", "w") as file:
        json.dump({"global_step": 7, "log_history": []}, file)
if "rest" in what:
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(f"{path}/{name}", "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}.")
PYTHON
}

# ends STATUS OPTION...: a wait ends so.
ends() {
    local expected=$1
    shift
    run timeout 60 "$CKPTFS" wait "$@"
    [ "$status" -eq "$expected" ] || {
        echo "wait $*: $status: $output"
        return 1
    }
}

# waiter OPTION...: a wait in the background; waiter_ends STATUS: how it ended.
waiter() {
    timeout 120 "$CKPTFS" wait "$@" >"$TEST_DIR/waiter" 2>&1 3>&- &
    WAITER=$!
}
waiter_ends() {
    local status=0
    wait "$WAITER" || status=$?
    WAITER=''
    [ "$status" -eq "$1" ] || {
        echo "the wait ended with $status: $(cat "$TEST_DIR/waiter")"
        return 1
    }
}

@test "on a plain disk: what is there already, what is not, and what never can be known" {
    ends 32 --timeout 0 "$CHECKPOINT"
    [[ $output == *"the time is over: it is not there"* ]]
    save "$CHECKPOINT" model
    ends 32 -t 0 "$CHECKPOINT"
    [[ $output == *"it is weights-only"* ]]
    ends 0 -t 0 --for weights "$CHECKPOINT/"
    save "$CHECKPOINT" rest
    ends 0 "$CHECKPOINT"
    ends 0 --for complete "$CHECKPOINT"
    (cd "$CHECKPOINT" && ends 0 .)
    (cd "$RUN" && ends 0 checkpoint-7)
    ends 30 --for durable "$CHECKPOINT"
    ends 30 --for exported "$CHECKPOINT"
    truncate -s -1 "$CHECKPOINT/optimizer.pt"
    ends 32 -t 1 "$CHECKPOINT"
    [[ $output == *"it is incomplete: optimizer.pt"* ]]
    ends 2
    ends 2 --for ever "$CHECKPOINT"
    ends 2 --timeout soon "$CHECKPOINT"
}

@test "on a plain disk: until it is complete, be its run not there yet" {
    waiter "$CHECKPOINT"
    save "$CHECKPOINT" model
    save "$CHECKPOINT" rest
    waiter_ends 0
}

# What only the others of the run tell is asked, too.
@test "a checkpoint that lacks what the others of its run have is not complete" {
    local step
    for step in 5 6 7; do
        save "$RUN/checkpoint-$step" model rest
        echo '{"global_step": '"$step"'}' >"$RUN/checkpoint-$step/trainer_state.json"
        cp "$RUN/checkpoint-$step/scheduler.pt" "$RUN/checkpoint-$step/scaler.pt"
    done
    ends 0 -t 0 "$CHECKPOINT"
    rm "$CHECKPOINT/scaler.pt"
    ends 32 -t 0 "$CHECKPOINT"
}

@test "on a mount: complete and durable, awaited before the run is there" {
    ckptfs_mount
    RUN=$MNT/runs/first CHECKPOINT=$MNT/runs/first/checkpoint-7
    waiter --for durable --timeout 100 "$CHECKPOINT"
    # It is in place before anything is saved.
    wait_until 20 ckptfs_events_have 1
    save "$CHECKPOINT" model
    exec 9>"$CHECKPOINT/still"
    save "$CHECKPOINT" rest
    ends 32 -t 0 "$CHECKPOINT"
    [[ $output == *"it is writing"* ]]
    exec 9>&-
    waiter_ends 0
    ends 0 -t 0 "$CHECKPOINT"
    ends 0 -t 0 --for durable "$CHECKPOINT"
    ends 32 -t 0 --for exported "$CHECKPOINT"
    # It keeps nothing in use when it has ended.
    ckptfs_umount
}

is_waiting() { kill -0 "$WAITER"; }
has_ended() { ! is_waiting 2>/dev/null; }

@test "on a mount: a checkpoint that gets its name when it is complete already" {
    ckptfs_mount
    # No event tells of it, and it takes less time than there is between two looks: once, where the machine is slow.
    is_awaited 1 || is_awaited 2 || is_awaited 3
}

# is_awaited STEP: such a one is noticed at once.
is_awaited() {
    local quick=0
    save "$MNT/run/staged-$1" model rest
    wait_until 20 grep -q "complete path=\"/run/staged-$1\"" "$CKPTFS_LOG"
    waiter "$MNT/run/checkpoint-$1"
    wait_until 20 eval '[ "$(ckptfs_status_field open_handles)" -ge 2 ]'
    mv "$MNT/run/staged-$1" "$MNT/run/checkpoint-$1"
    wait_until 2 has_ended || quick=1
    waiter_ends 0 && return $quick
}

@test "on a mount: a model alone is no complete checkpoint, whatever the daemon says of it" {
    ckptfs_mount
    CHECKPOINT=$MNT/run/checkpoint-7
    waiter "$CHECKPOINT"
    local complete=$WAITER
    waiter --for weights "$CHECKPOINT"
    wait_until 20 ckptfs_events_have 2
    save "$CHECKPOINT" model
    waiter_ends 0
    wait_until 20 grep -q 'weights-only path="/run/checkpoint-7"' "$CKPTFS_LOG"
    WAITER=$complete
    # It has heard of it when the next one is told, too.
    CHECKPOINT=$MNT/run/checkpoint-8
    save "$CHECKPOINT" model
    wait_until 20 grep -q 'weights-only path="/run/checkpoint-8"' "$CKPTFS_LOG"
    is_waiting
    save "$MNT/run/checkpoint-7" rest
    waiter_ends 0
}

# reads: what the waiter has read of files so far.
reads() { awk '$1 == "syscr:" { print $2 }' "/proc/$WAITER/io"; }

# A save of another checkpoint takes as long as a look now and then would be away.
is_quiet() {
    local before
    before=$(reads)
    save "$MNT/run/checkpoint-$1" model rest
    "$CKPTFS" wait --for durable --timeout 30 "$MNT/run/checkpoint-$1"
    [ $(($(reads) - before)) -lt 12 ]
}

@test "on a mount: what is durable is not waited for until the mount looks at it, if that never comes" {
    long_only
    CKPTFS_FAULT=fs.look:EIO:1+ ckptfs_mount
    RUN=$MNT/run CHECKPOINT=$MNT/run/checkpoint-7
    save "$CHECKPOINT" model rest
    "$CKPTFS" wait --for durable --timeout 60 "$CHECKPOINT"
    [ "$(ckptfs_status_field unlooked_directories)" -gt 0 ]
}

@test "on a mount: who waits looks at no file until something is told of the checkpoint" {
    ckptfs_mount
    CHECKPOINT=$MNT/run/checkpoint-7
    mkdir -p "$TEST_DIR/out" "$CHECKPOINT"
    "$CKPTFS" policy set "$MNT/run" "export=$TEST_DIR/out"
    waiter --for exported "$CHECKPOINT"
    wait_until 20 ckptfs_events_have 1
    exec 9>"$CHECKPOINT/still"
    save "$CHECKPOINT" model rest
    is_quiet 1 || is_quiet 2 || is_quiet 3
    exec 9>&-
    waiter_ends 0
    [ -e "$TEST_DIR/out/checkpoint-7/model.safetensors" ]
    # What was exported is known at once, also to who asks later.
    ends 0 --for exported -t 0 "$CHECKPOINT"
    waiter --for exported "$MNT/run/checkpoint-9"
    wait_until 20 ckptfs_events_have 1
    save "$MNT/run/checkpoint-9" model rest
    waiter_ends 0
}

@test "on a mount: a checkpoint that a crash has torn will never be" {
    require_root
    require_command sqlite3
    ckptfs_mount
    CHECKPOINT=$MNT/run/checkpoint-7
    save "$CHECKPOINT" model rest
    ends 0 --for durable "$CHECKPOINT"
    ckptfs_umount
    # As a power cut marks it: META_TORN.
    sqlite3 "$STORE/meta.db" "UPDATE inode SET state = state | 2 WHERE ino =
        (SELECT ino FROM name WHERE CAST(name AS TEXT) = 'optimizer.pt'); DELETE FROM total"
    ckptfs_mount
    ends 34 "$CHECKPOINT"
    [[ $output == *"is torn, or was removed: it will not be complete"* ]]
}
