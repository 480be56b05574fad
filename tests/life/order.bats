#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Several ranks write one checkpoint, one of them much later than the others; savers in the background, of which the later
# step's ends first. No time decides anything.

load life.bash

setup() {
    require_command jq
    ckptfs_setup
    # An hour passes where the tests say so.
    export CKPTFS_TEST_CLOCK=$TEST_DIR/clock
    echo 0 >"$CKPTFS_TEST_CLOCK"
    ckptfs_mount
    SAVERS=()
}
teardown() {
    local saver
    for saver in "${SAVERS[@]}"; do kill -9 "$saver"; done
    ckptfs_teardown
}

# begin STEP FILE [OPTION...]: a save that stands still in the middle of that file.
begin() {
    python3 "$LIFE_LIB/checkpoint.py" "$MNT/run" "$1" --hang-in "$2" "$TEST_DIR/hung-$1" "${@:3}" 3>&- &
    SAVERS[$1]=$!
    wait_until 20 test -e "$TEST_DIR/hung-$1"
}

# finish STEP: it goes on to its end.
finish() {
    kill -USR1 "${SAVERS[$1]}"
    wait "${SAVERS[$1]}"
    unset "SAVERS[$1]"
}

kill_saver() {
    killed "${SAVERS[$1]}"
    unset "SAVERS[$1]"
}

state() { "$CKPTFS" ls --json "$MNT/run" | jq -r --arg name "checkpoint-$1" '.[].checkpoints[] | select(.path == $name).state'; }
listed() { find "$MNT/run" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V | paste -sd ' '; }
lists() { [ "$(listed)" = "$1" ]; }
an_hour_passes() { echo 3600 >"$CKPTFS_TEST_CLOCK"; }
waits_in_vain() {
    local status=0
    "$CKPTFS" wait "$MNT/run/checkpoint-$1" --timeout 2 || status=$?
    [ $status -eq 32 ]
}

# A file that stands still has what rank 1 writes: its random generators, or its part of the model.
slow_rank() {
    "$CKPTFS" policy set "$MNT/run" keep-last=1
    begin 20 "$1" --ranks 2 --only "$1"
    save "$MNT/run" 20 --ranks 2 --leave-out "$1"
    an_hour_passes
    waits_in_vain 20
    latest_is run checkpoint-10
    [ "$(state 20)" != complete ] && [ "$(state 20)" != durable ]
    "$CKPTFS" policy apply "$MNT/run"
    lists "checkpoint-10 checkpoint-20"
    finish 20
    "$CKPTFS" wait "$MNT/run/checkpoint-20" --for durable --timeout 30
    wait_until 20 latest_is run checkpoint-20
    wait_until 30 lists checkpoint-20
}

@test "a checkpoint is not complete before its slowest rank has written, and not torn" {
    save "$MNT/run" 10 --ranks 2
    wait_until 20 latest_is run checkpoint-10
    slow_rank rng_state_1.pth
}

@test "the same where the slowest rank writes weights" {
    save "$MNT/run" 10 --ranks 2
    wait_until 20 latest_is run checkpoint-10
    slow_rank model.safetensors
}

@test "a rank that has not begun yet is waited for while another lives" {
    save "$MNT/run" 10 --ranks 3
    wait_until 20 latest_is run checkpoint-10
    # Rank 0 has written all of its own, and lives: it stands in another checkpoint.
    python3 - "$LIFE_LIB/checkpoint.py" "$MNT/run" "$TEST_DIR/hung-30" <<'EOF' 3>&- &
import runpy, sys
script, run, hung = sys.argv[1:]
for step, options in ((20, ["--leave-out", "rng_state_1.pth"]), (30, ["--hang-in", "optimizer.pt", hung])):
    sys.argv = [script, run, str(step), "--ranks", "3", *options]
    runpy.run_path(script, run_name="__main__")
EOF
    SAVERS[30]=$!
    wait_until 20 test -e "$TEST_DIR/hung-30"
    an_hour_passes
    # Who lists the run has it looked at.
    lists "checkpoint-10 checkpoint-20 checkpoint-30"
    [ "$(latest run)" = checkpoint-10 ]
    save "$MNT/run" 20 --ranks 3 --only rng_state_1.pth
    wait_until 20 latest_is run checkpoint-20
    finish 30
    wait_until 20 latest_is run checkpoint-30
}

# trainer: a process that saves 10, of two ranks, and 20 without what the last one writes; with USR1 that comes, and it
# lives on.
trainer() {
    python3 - "$LIFE_LIB/checkpoint.py" "$MNT/run" "$TEST_DIR" <<'EOF' 3>&- &
import os, runpy, signal, sys
script, run, directory = sys.argv[1:]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
def save(*arguments):
    sys.argv = [script, run, *arguments, "--ranks", "2"]
    runpy.run_path(script, run_name="__main__")
save("10")
while not os.path.lexists(f"{directory}/mnt/.ckptfs/latest/run"):
    signal.sigtimedwait([], 0.1)
save("20", "--leave-out", "rng_state_1.pth")
open(f"{directory}/saved", "w").close()
signal.sigwait({signal.SIGUSR1})
save("20", "--only", "rng_state_1.pth")
signal.pause()
EOF
    SAVERS[20]=$!
    wait_until 20 test -e "$TEST_DIR/saved"
    waits_in_vain 20
    latest_is run checkpoint-10
    [ "$(state 20)" = incomplete ]
    "$CKPTFS" ls --why "$MNT/run" | grep -q 'rng_state_N.pth of 1 process of 2 is not there yet'
}

@test "the last rank of as many as saved before is waited for, too" {
    mkdir "$MNT/run"
    "$CKPTFS" policy set "$MNT/run" keep-last=1
    trainer
    "$CKPTFS" policy apply "$MNT/run"
    lists "checkpoint-10 checkpoint-20"
    kill -USR1 "${SAVERS[20]}"
    "$CKPTFS" wait "$MNT/run/checkpoint-20" --timeout 30
    latest_is run checkpoint-20
    [ "$(log_count 'complete path="/run/checkpoint-20"')" -eq 1 ]
    wait_until 30 lists checkpoint-20
}

@test "a rank that never writes its last file is waited for as long as the others live" {
    trainer
    kill_saver 20
    # Nobody looks: the mount finds out by itself.
    wait_until 20 latest_is run checkpoint-20
    [ "$(state 20)" = durable ]
    "$CKPTFS" ls --why "$MNT/run" | grep -q 'of 1 of 2 processes never came'
    # The run goes on with one rank less, which is not waited for.
    python3 - "$LIFE_LIB/checkpoint.py" "$MNT/run" <<'EOF' 3>&- &
import runpy, signal, sys
sys.argv = [*sys.argv[1:], "30", "--ranks", "1"]
runpy.run_path(sys.argv[0], run_name="__main__")
signal.pause()
EOF
    SAVERS[30]=$!
    wait_until 20 latest_is run checkpoint-30
}

@test "what a gone rank never wrote is no matter when something is added; weights that an index names are" {
    # It began before all others, and writes what it is told to.
    mkfifo "$TEST_DIR/told"
    python3 - "$TEST_DIR/told" "$MNT/run/checkpoint-20" <<'EOF' 3>&- &
import sys
told, directory = sys.argv[1:]
with open(told) as lines:
    for line in lines:
        name, text = line.rstrip("\n").split(" ", 1)
        with open(f"{directory}/{name}", "w") as file:
            file.write(text)
EOF
    SAVERS[1]=$!
    exec 7>"$TEST_DIR/told"
    save "$MNT/run" 10 --ranks 2
    wait_until 20 latest_is run checkpoint-10
    save "$MNT/run" 20 --ranks 2 --leave-out rng_state_1.pth
    wait_until 20 latest_is run checkpoint-20
    echo "note.txt of a process that lives" >&7
    wait_until 20 test -s "$MNT/run/checkpoint-20/note.txt"
    wait_until 20 settled
    latest_is run checkpoint-20
    "$CKPTFS" ls --why "$MNT/run" | grep -q 'rng_state_N.pth of 1 process of 2 is not there yet'
    [ "$(state 20)" = durable ]
    echo 'pytorch_model.bin.index.json {"weight_map": {"w": "pytorch_model-00001-of-00002.bin"}}' >&7
    wait_until 20 latest_is run checkpoint-10
    [ "$(state 20)" != durable ] && [ "$(state 20)" != complete ]
    exec 7>&-
    wait "${SAVERS[1]}"
    unset "SAVERS[1]"
}

@test "the later step of savers in the background ends first" {
    save "$MNT/run" 10
    wait_until 20 latest_is run checkpoint-10
    begin 20 optimizer.pt
    save "$MNT/run" 30
    wait_until 20 latest_is run checkpoint-30
    an_hour_passes
    lists "checkpoint-10 checkpoint-20 checkpoint-30"
    [ "$(state 20)" = writing ]
    finish 20
    "$CKPTFS" wait "$MNT/run/checkpoint-20" --for durable --timeout 30
    latest_is run checkpoint-30
    # The last by its step, and the one that was saved last.
    "$CKPTFS" policy set "$MNT/run" keep-last=1
    wait_until 30 lists "checkpoint-20 checkpoint-30"
    # One of which the saver dies: what was begun before another was complete is torn as any other.
    "$CKPTFS" policy set "$MNT/run" keep-last=3
    begin 40 optimizer.pt
    begin 50 scheduler.pt
    finish 50
    wait_until 20 latest_is run checkpoint-50
    [ -e "$MNT/run/checkpoint-40" ]
    kill_saver 40
    wait_until 30 lists "checkpoint-20 checkpoint-30 checkpoint-50"
    [ -e "$MNT/.ckptfs/torn/run/checkpoint-40/model.safetensors" ]
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}
