#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A save that was killed is out of the way of whoever resumes, and nothing else ever is.

load life.bash

setup() {
    require_command jq
    ckptfs_setup
    ckptfs_mount
    HUNG=$TEST_DIR/hung
}
teardown() {
    if [ -n "${SAVER-}" ]; then kill -9 "$SAVER"; fi
    ckptfs_teardown
}

# hang RUN STEP FILE [OPTION...]: a save that stands still in the middle of that file; SAVER is its process.
hang() {
    local run=$1 step=$2 file=$3
    rm -f "$HUNG"
    python3 "$LIFE_LIB/checkpoint.py" "$run" "$step" --hang-in "$file" "$HUNG" "${@:4}" 3>&- &
    SAVER=$!
    wait_until 20 test -e "$HUNG"
}

kill_saver() {
    kill -9 "$SAVER"
    saver_is_killed
}

# It ended by the signal, not before it.
saver_is_killed() {
    local status=0
    wait "$SAVER" || status=$?
    SAVER=
    [ $status -eq 137 ]
}

# What a process that starts now finds in the run, as the Trainer looks: the steps, on one line.
listed() { find "$1" -mindepth 1 -maxdepth 1 -name 'checkpoint-*' -printf '%f\n' | sort -V | paste -sd ' '; }
lists() { [ "$(listed "$1")" = "$2" ]; }

@test "a save that was killed moves away when the next process looks, and can be made again" {
    save "$MNT/run" 10 20
    wait_until 20 latest_is run checkpoint-20
    hang "$MNT/run" 30 optimizer.pt
    kill_saver
    # At once: the processes that resume may be fast.
    lists "$MNT/run" "checkpoint-10 checkpoint-20"
    latest_is run checkpoint-20
    [ "$(log_count 'torn path="/run/checkpoint-30" step=30')" -eq 1 ]
    cmp "$MNT/.ckptfs/torn/run/checkpoint-30/model.safetensors" <(
        save "$TEST_DIR/plain" 30
        cat "$TEST_DIR/plain/checkpoint-30/model.safetensors"
    )
    # The name is free, and the new one is as any other.
    save "$MNT/run" 30
    wait_until 20 latest_is run checkpoint-30
    lists "$MNT/run" "checkpoint-10 checkpoint-20 checkpoint-30"
    diff -r "$TEST_DIR/plain/checkpoint-30" "$MNT/run/checkpoint-30"
    # A second one of that name.
    hang "$MNT/run" 40 scheduler.pt
    kill_saver
    lists "$MNT/run" "checkpoint-10 checkpoint-20 checkpoint-30"
    hang "$MNT/run" 40 model.safetensors
    kill_saver
    lists "$MNT/run" "checkpoint-10 checkpoint-20 checkpoint-30"
    [ "$(find "$MNT/.ckptfs/torn/run" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | paste -sd ' ')" = \
        "checkpoint-30 checkpoint-40 checkpoint-40.2" ]
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

nothing_is_torn() { [ -z "$(ls -A "$MNT/.ckptfs/torn")" ]; }

@test "what was torn stays as long as the trash keeps things, and its end is told" {
    save "$MNT/run" 10
    wait_until 20 latest_is run checkpoint-10
    hang "$MNT/run" 30 optimizer.pt
    kill_saver
    lists "$MNT/run" "checkpoint-10"
    [ -e "$MNT/.ckptfs/torn/run/checkpoint-30" ]
    "$CKPTFS" policy set "$MNT/run" trash-age=1s
    wait_until 20 nothing_is_torn
    wait_until 20 tells_of_the_end
    [ "$(log_count '/.ckptfs/torn/run/checkpoint-30: removed: it was torn, and its time is up')" -eq 1 ]
    lists "$MNT/run" "checkpoint-10"
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}
tells_of_the_end() {
    "$CKPTFS" events --json "$MNT" |
        jq -es 'any(.event == "removed" and .path == ".ckptfs/torn/run/checkpoint-30" and (.reason | contains("torn")))'
}

@test "what is torn can be moved back, and removed" {
    save "$MNT/run" 10
    wait_until 20 latest_is run checkpoint-10
    hang "$MNT/run" 20 optimizer.pt
    kill_saver
    lists "$MNT/run" checkpoint-10
    cp -r "$MNT/.ckptfs/torn/run/checkpoint-20" "$TEST_DIR/copy"
    [ -e "$TEST_DIR/copy/model.safetensors" ]
    mv "$MNT/.ckptfs/torn/run/checkpoint-20" "$MNT/rescued"
    diff -r "$TEST_DIR/copy" "$MNT/rescued"
    [ -z "$(ls "$MNT/.ckptfs/torn/run")" ]
    hang "$MNT/run" 30 optimizer.pt
    kill_saver
    lists "$MNT/run" checkpoint-10
    rm -r "$MNT/.ckptfs/torn/run/checkpoint-30"
    [ -z "$(ls "$MNT/.ckptfs/torn/run")" ]
    # It is no place to put things.
    run touch "$MNT/.ckptfs/torn/run/file"
    [ "$status" -ne 0 ]
    run mv "$MNT/rescued" "$MNT/.ckptfs/torn/run/"
    [ "$status" -ne 0 ]
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "after a look that failed half-way, what is torn moves all the same" {
    ckptfs_umount
    CKPTFS_FAULT=fs.look:EIO:2 ckptfs_mount
    save "$MNT/run" 10
    wait_until 20 latest_is run checkpoint-10
    hang "$MNT/run" 20 optimizer.pt
    wait_until 20 grep -q 'it cannot be looked at for checkpoints now: Input/output error' "$CKPTFS_LOG"
    kill_saver
    lists "$MNT/run" checkpoint-10
    latest_is run checkpoint-10
}

@test "nothing moves while a process that wrote one of the run's checkpoints lives" {
    save "$MNT/run" 10
    wait_until 20 latest_is run checkpoint-10
    # Another rank: it has written its part, and lives.
    hang "$MNT/run" 20 training_args.bin --leave-out optimizer.pt
    local other=$SAVER
    hang "$MNT/run" 20 optimizer.pt
    kill_saver
    lists "$MNT/run" "checkpoint-10 checkpoint-20"
    SAVER=$other
    lists "$MNT/run" "checkpoint-10 checkpoint-20"
    kill_saver
    lists "$MNT/run" checkpoint-10
}

@test "nothing moves for a process that is older than the save, nor where nothing older is complete" {
    # A reader that looks again and again, and was there before.
    mkfifo "$TEST_DIR/ask"
    python3 -u -c '
import os, sys
for line in sys.stdin:
    print(" ".join(sorted(os.listdir(sys.argv[1]))))
' "$MNT" <"$TEST_DIR/ask" >"$TEST_DIR/told" 3>&- &
    local reader=$!
    exec 9>"$TEST_DIR/ask"
    hang "$MNT" 10 optimizer.pt
    kill_saver
    lists "$MNT" checkpoint-10
    save "$MNT" 10
    wait_until 20 latest_is "" checkpoint-10
    hang "$MNT" 20 optimizer.pt
    kill_saver
    echo >&9
    wait_until 30 test -s "$TEST_DIR/told"
    exec 9>&-
    wait $reader
    [ "$(cat "$TEST_DIR/told")" = "checkpoint-10 checkpoint-20" ]
    lists "$MNT" checkpoint-10
}

@test "a copy never moves: its times were set, or a program that copies wrote it" {
    local file
    save "$TEST_DIR/plain" 10 20
    rm "$TEST_DIR/plain/checkpoint-20/optimizer.pt"
    save "$TEST_DIR/plain" 20 --leave-out optimizer.pt
    save "$MNT/run" 10
    cp -r "$TEST_DIR/plain/checkpoint-20" "$MNT/run/checkpoint-20"
    python3 -c 'import shutil, sys; shutil.copytree(*sys.argv[1:])' "$TEST_DIR/plain/checkpoint-20" "$MNT/run/checkpoint-30"
    tar -C "$TEST_DIR/plain" -cf - checkpoint-20 | tar -C "$MNT/run" --transform 's/20/40/' -xf -
    wait_until 20 latest_is run checkpoint-10
    lists "$MNT/run" "checkpoint-10 checkpoint-20 checkpoint-30 checkpoint-40"
    # What was saved beside it all the same does.
    hang "$MNT/run" 50 optimizer.pt
    kill_saver
    lists "$MNT/run" "checkpoint-10 checkpoint-20 checkpoint-30 checkpoint-40"
}

@test "what has no step, and what others keep beside the checkpoints, never moves" {
    save "$MNT/run" 10 20
    hang "$MNT/run/final" 1 model.safetensors
    mv "$MNT/run/final/checkpoint-1" "$MNT/run/model"
    kill_saver
    mkdir "$MNT/run/runs"
    python3 -c 'import sys; open(sys.argv[1], "w").write("events")' "$MNT/run/runs/events.out"
    lists "$MNT/run" "checkpoint-10 checkpoint-20"
    [ "$(find "$MNT/run" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | paste -sd ' ')" = \
        "checkpoint-10 checkpoint-20 final model runs" ]
}

@test "the daemon dies with the save, or alone; the machine goes on" {
    save "$MNT/run" 10
    wait_until 20 latest_is run checkpoint-10
    hang "$MNT/run" 20 optimizer.pt
    kill -9 "$(ckptfs_daemon_pid)"
    # The successor knows who wrote; the saver lives.
    lists "$MNT/run" "checkpoint-10 checkpoint-20"
    kill -9 "$(ckptfs_daemon_pid)" "$SAVER"
    saver_is_killed
    lists "$MNT/run" checkpoint-10
    ckptfs_umount
    ckptfs_mount
    hang "$MNT/run" 30 scheduler.pt
    kill_saver
    ckptfs_umount
    ckptfs_mount
    lists "$MNT/run" checkpoint-10
}

@test "who made the directory counts, though others write into it" {
    save "$MNT/run" 10
    wait_until 20 latest_is run checkpoint-10
    # As with a save that a short-lived process does for the one that trains.
    python3 -c '
import os, subprocess, sys, time
run, lib, mark = sys.argv[1:]
os.mkdir(f"{run}/checkpoint-20")
subprocess.run([sys.executable, f"{lib}/checkpoint.py", run, "20", "--leave-out", "optimizer.pt"], check=True)
open(mark, "w").close()
time.sleep(300)
' "$MNT/run" "$LIFE_LIB" "$HUNG" 3>&- &
    SAVER=$!
    wait_until 20 test -e "$HUNG"
    lists "$MNT/run" "checkpoint-10 checkpoint-20"
    kill_saver
    lists "$MNT/run" checkpoint-10
}

@test "what a rank never wrote is awaited from its own processes, not from those of later saves" {
    save "$MNT/run" 10 --ranks 3 --leave-out rng_state_1.pth
    wait_until 20 latest_is run checkpoint-10
    hang "$MNT/run" 20 optimizer.pt --ranks 3
    # The run is looked at while the later one is written.
    save "$MNT/run" 15 --ranks 3
    wait_until 20 latest_is run checkpoint-15
    rm -r "$MNT/run/checkpoint-15"
    wait_until 20 latest_is run checkpoint-10
    kill_saver
    lists "$MNT/run" checkpoint-10
    [ "$(log_count 'complete path="/run/checkpoint-10"')" -eq 1 ]
}

has_no_latest() { [ ! -L "$MNT/.ckptfs/latest/$1" ]; }

@test "a torn save moves away also where the one before it was complete only when its ranks were gone" {
    python3 - "$LIFE_LIB/checkpoint.py" "$MNT/run" "$HUNG" <<'EOF' 3>&- &
import runpy, sys
script, run, hung = sys.argv[1:]
for step, options in ((20, ["--leave-out", "rng_state_1.pth"]), (30, ["--hang-in", "optimizer.pt", hung])):
    sys.argv = [script, run, str(step), "--ranks", "3", *options]
    runpy.run_path(script, run_name="__main__")
EOF
    SAVER=$!
    wait_until 20 test -e "$HUNG"
    # The daemon has looked at the run, and while a process of it lives a rank is awaited.
    save "$MNT/run" 10 --ranks 3
    wait_until 20 latest_is run checkpoint-10
    rm -r "$MNT/run/checkpoint-10"
    wait_until 20 has_no_latest run
    kill_saver
    lists "$MNT/run" checkpoint-20
    latest_is run checkpoint-20
}

@test "a torn save moves away also when the run was never looked at before" {
    local i
    # Faster than the daemon looks by itself.
    for i in {1..5}; do
        python3 - "$LIFE_LIB/checkpoint.py" "$MNT/run$i" <<'EOF' || [ $? -eq 137 ]
import os, runpy, signal, sys
script, run = sys.argv[1:]
for step in (10, 20):
    sys.argv = [script, run, str(step), *(["--leave-out", "trainer_state.json"] if step == 20 else [])]
    runpy.run_path(script, run_name="__main__")
os.kill(os.getpid(), signal.SIGKILL)
EOF
        lists "$MNT/run$i" checkpoint-10
    done
}

@test "what a plain user's save left moves away when the user looks, and stays the user's" {
    require_root
    local user=${CKPTFS_TEST_USER:-nobody} step
    ckptfs_umount
    ckptfs_mount allow_other
    mkdir "$MNT/run"
    chown "$user" "$MNT/run"
    cp "$LIFE_LIB/checkpoint.py" "$TEST_DIR"
    run_as_user env PATH=/usr/bin:/bin python3 -B "$TEST_DIR/checkpoint.py" "$MNT/run" 10
    wait_until 20 latest_is run checkpoint-10
    for step in 20 20; do
        run_as_user env PATH=/usr/bin:/bin python3 -B "$TEST_DIR/checkpoint.py" "$MNT/run" "$step" --leave-out trainer_state.json
        [ "$(run_as_user find "$MNT/run" -mindepth 1 -maxdepth 1 -printf '%f\n')" = checkpoint-10 ]
    done
    run_as_user env PATH=/usr/bin:/bin python3 -B "$TEST_DIR/checkpoint.py" "$MNT/run" 20
    wait_until 20 latest_is run checkpoint-20
    [ "$(stat -c %U "$MNT/.ckptfs/torn/run/checkpoint-20" "$MNT/run/checkpoint-20/optimizer.pt" | sort -u)" = "$user" ]
    run_as_user rm -r "$MNT/.ckptfs/torn/run/checkpoint-20"
    run_as_user mv "$MNT/.ckptfs/torn/run/checkpoint-20.2" "$MNT/run/rescued"
}
