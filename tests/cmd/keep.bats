#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Which checkpoints stay: `ckptfs policy` with keep rules and limits, `ckptfs pin`, and what the mount removes.

load ../lib/ckptfs.bash
load ../lib/checkpoint.bash

setup() {
    require_command jq
    ckptfs_setup
    RUN=$MNT/run
    export CKPTFS_TEST_CLOCK=$TEST_DIR/clock
    echo 0 >"$CKPTFS_TEST_CLOCK"
}
teardown() { ckptfs_teardown; }

policy() { "$CKPTFS" policy "$@"; }

# saves STEP...: a checkpoint for each.
saves() {
    local step
    for step; do checkpoint "$RUN/checkpoint-$step"; done
}

# steps: those that are there.
steps() {
    local name found=()
    for name in "$RUN"/checkpoint-*; do found+=("${name##*-}"); done
    printf '%s\n' "${found[@]}" | sort -n | tr '\n' ' '
}

has_steps() {
    [ "$(steps)" = "$* " ]
}

# Every file of the run is safe, so that what happens next does not wait for the disk.
settled() {
    "$CKPTFS" ls --json "$RUN" | jq -e 'all(.[].checkpoints[]; .writing_files == 0 and .unsynced_files == 0)' >/dev/null
}

# why STEP [KEY=VALUE...]: "stays" or "goes" and the reason, as --dry-run tells.
why() {
    local step=$1 words=(show "$RUN")
    shift
    if [ $# -gt 0 ]; then words=(set "$RUN" "$@"); fi
    policy "${words[@]}" --dry-run --json |
        jq -r --arg name "checkpoint-$step" \
            '.checkpoints[] | select(.path == $name) | (if .goes then "goes: " else "stays: " end) + .reason'
}

is_open() { [[ $(why "$1" keep-last=1) == 'stays: '*open ]]; }

# The store is whole, and has nothing of what was removed.
end_and_check() {
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "policies that many apply at once remove each checkpoint once, and all can be had back" {
    ckptfs_mount
    # shellcheck disable=SC2046
    saves $(seq 1 40)
    wait_until 60 settled
    local appliers=() i
    policy set "$RUN" keep-last=2
    for i in 1 2 3 4 5 6; do
        policy apply "$RUN" >/dev/null &
        appliers+=($!)
    done
    for i in "${appliers[@]}"; do wait "$i"; done
    wait_until 60 has_steps 39 40
    [ "$("$CKPTFS" undelete --list --json "$RUN" | jq length)" -eq 38 ]
    policy unset "$RUN" keep-last
    "$CKPTFS" undelete "$RUN"
    # shellcheck disable=SC2046
    has_steps $(seq 1 40)
    end_and_check
}

@test "a dry run says for each checkpoint whether it stays, and changes nothing" {
    ckptfs_mount
    saves 100 200 300 400
    wait_until 30 settled
    policy set "$RUN" keep-last=2 --dry-run >"$TEST_DIR/table"
    grep -q 'goes   checkpoint-200: no rule wants it$' "$TEST_DIR/table"
    grep -q 'stays  checkpoint-300: keep-last 2$' "$TEST_DIR/table"
    grep -q 'stays  checkpoint-400: latest, keep-last 2$' "$TEST_DIR/table"
    grep -q '^2 of 4 would go' "$TEST_DIR/table"
    [ "$(why 100 keep-every=100 max-bytes=1B)" = 'goes: over max-bytes' ]
    [ "$(why 100)" = 'stays: no keep policy' ]
    [ "$(policy set "$RUN" -n -j keep-last=1 | jq -c '[.checkpoints[] | .order]')" = '[1,2,3,null]' ]
    has_steps 100 200 300 400
    [ "$(policy show --json "$RUN" | jq -r '.policies[] | select(.key == "keep-last").value')" = null ]
    # What cannot be tried.
    run policy set "$RUN" --dry-run keep-last=none
    [ "$status" -eq 2 ]
    [[ $output == *'keep-last: expected a number from 1 on, or off, found '* ]]
    mkdir "$MNT/empty"
    run policy show "$MNT/empty" --dry-run
    [ "$status" -eq 1 ]
    [[ $output == *'no checkpoint of a known kind'* ]]
}

@test "what the rules do not want goes at once, and at each save" {
    ckptfs_mount
    local kept sum
    saves 100 200
    # What else may lie in a checkpoint, and a file of it that has another name elsewhere.
    mkdir -p "$RUN/checkpoint-200/a/b/c/d" "$RUN/checkpoint-200/e"
    echo x >"$RUN/checkpoint-200/a/b/c/d/x"
    ln -s ../../checkpoint-400 "$RUN/checkpoint-200/a/link"
    mkfifo "$RUN/checkpoint-200/e/pipe"
    ln "$RUN/checkpoint-200/model.safetensors" "$MNT/kept"
    sum=$(sha256sum <"$MNT/kept")
    saves 300 400 500
    wait_until 30 settled
    kept=$(stat -c %Y "$RUN" "$RUN/checkpoint-400")
    policy set "$RUN" keep-last=2 keep-every=300
    wait_until 30 has_steps 300 400 500
    [ "$(sha256sum <"$MNT/kept")" = "$sum" ]
    # Trainers sort by these times.
    [ "$(stat -c %Y "$RUN" "$RUN/checkpoint-400")" = "$kept" ]
    wait_until 20 grep -q '/run/checkpoint-200: removed: no rule wants it$' "$CKPTFS_LOG"
    saves 600
    wait_until 30 has_steps 300 500 600
    # Below the mount's root, and a run that wants otherwise.
    policy set "$MNT" keep-last=1
    policy set "$RUN" keep-last=off keep-every=off
    RUN=$MNT/other
    saves 1 2
    wait_until 30 has_steps 2
    RUN=$MNT/run
    has_steps 300 500 600
    end_and_check
}

@test "a pin keeps, also by another name and after a restart" {
    ckptfs_mount
    saves 100 200 300
    wait_until 30 settled
    "$CKPTFS" pin "$RUN/checkpoint-100" "$RUN/checkpoint-200"
    [ "$("$CKPTFS" ls --json "$RUN" | jq -c '[.[].checkpoints[].pinned]')" = '[true,true,false]' ]
    "$CKPTFS" ls "$RUN" | grep 'checkpoint-200$' | grep -q pinned
    [ "$(why 100 keep-last=1)" = 'stays: pinned' ]
    mv "$RUN/checkpoint-200" "$RUN/checkpoint-150"
    ckptfs_remount
    policy set "$RUN" keep-last=1
    [ "$(policy apply "$RUN")" = '' ]
    has_steps 100 150 300
    "$CKPTFS" unpin "$RUN/checkpoint-150"
    wait_until 30 has_steps 100 300
    # What cannot be pinned.
    run "$CKPTFS" pin "$RUN/checkpoint-1000"
    [ "$status" -eq 1 ]
    run "$CKPTFS" pin "$TEST_DIR"
    [[ $output == *'not on a mount'* ]]
    run "$CKPTFS" pin
    [ "$status" -eq 2 ]
    end_and_check
}

@test "a reader is not disturbed: what is open stays until it is closed" {
    ckptfs_mount
    checkpoint "$RUN/checkpoint-100" 4
    saves 200
    wait_until 30 settled
    local sum
    sum=$(sha256sum "$RUN/checkpoint-100/model.safetensors" | sed 's/ .*/  -/')
    # It reads slowly: half now, and half when it is told to.
    mkfifo "$TEST_DIR/pipe"
    (
        exec 9<"$RUN/checkpoint-100/model.safetensors"
        head -c 2097152 <&9
        read -r <"$TEST_DIR/pipe"
        cat <&9
    ) | sha256sum >"$TEST_DIR/sum" &
    wait_until 30 is_open 100
    policy set "$RUN" keep-last=1
    saves 300
    wait_until 30 has_steps 100 300
    echo >"$TEST_DIR/pipe"
    wait $!
    [ "$(cat "$TEST_DIR/sum")" = "$sum" ]
    # Nothing tells of the end: it is found at the next look.
    wait_until 30 has_steps 300
    end_and_check
}

@test "a map counts as open, what a job has read stays, and who is in the directory finds it empty" {
    ckptfs_mount trash=off
    require_command python3
    saves 100 200
    wait_until 30 settled
    # One process has a map of a file without a descriptor; another one is in the directory.
    python3 - "$RUN" "$CKPTFS" <<'EOP'
import json, mmap, os, subprocess, sys, time
run, ckptfs = sys.argv[1:]
old = f"{run}/checkpoint-100"

def reasons():
    tried = subprocess.run([ckptfs, "policy", "show", run, "-n", "-j"], check=True, capture_output=True)
    return json.loads(tried.stdout)["checkpoints"][0]["reason"]

reader = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    expected = file.read()
    view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print("mapped", flush=True)
for line in sys.stdin:
    assert view[:] == expected
    if line == "close\\n":
        view.close()
    print("whole", flush=True)
    if line == "close\\n":
        break
sys.stdin.read()
"""
inside = os.open(old, os.O_RDONLY | os.O_DIRECTORY)
child = subprocess.Popen([sys.executable, "-c", reader, f"{old}/model.safetensors"], text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert child.stdout.readline() == "mapped\n"
subprocess.run([ckptfs, "policy", "set", run, "keep-last=1"], check=True)
assert "open" in reasons()
print("look", file=child.stdin, flush=True)
assert child.stdout.readline() == "whole\n"
# What it has read is what a job began with, for as long as it runs.
print("close", file=child.stdin, flush=True)
assert child.stdout.readline() == "whole\n"
deadline = time.monotonic() + 30
while reasons() != "loaded by a running job":
    assert time.monotonic() < deadline, reasons()
    time.sleep(0.02)
child.stdin.close()
assert child.wait() == 0
while os.path.exists(old):
    assert time.monotonic() < deadline, "it is still there"
    time.sleep(0.02)
assert os.listdir(inside) == []
os.mkdir(old)
assert os.listdir(old) == []
EOP
    end_and_check
}

@test "a job keeps the checkpoint that it began with, also across a death of the daemon" {
    ckptfs_mount
    require_command python3
    saves 50 100 200 300 400
    wait_until 30 settled
    mkfifo "$TEST_DIR/pipe"
    # The first and the last of what it reads; several threads of one process.
    python3 - "$RUN" "$TEST_DIR/pipe" <<'EOP' &
import sys, threading
run, pipe = sys.argv[1:]
def load(step):
    open(f"{run}/checkpoint-{step}/model.safetensors", "rb").read()
for step in (100, 200, 300):
    thread = threading.Thread(target=load, args=(step,))
    thread.start()
    thread.join()
open(pipe).read()
EOP
    local job=$!
    # The pipe opens when it has read all.
    exec 7>"$TEST_DIR/pipe"
    [ "$(why 300 keep-last=1)" = 'stays: loaded by a running job' ]
    policy set "$RUN" keep-last=4
    wait_until 30 has_steps 100 200 300 400
    # Before it removed anything, the daemon wrote down what it knows.
    if [ "$(ckptfs_status_field features.takeover)" = true ]; then kill -9 "$(ckptfs_daemon_pid)"; fi
    policy set "$RUN" keep-last=1
    wait_until 30 has_steps 100 300 400
    [ "$(why 100)" = 'stays: loaded by a running job' ]
    exec 7>&-
    wait "$job"
    wait_until 30 has_steps 400
    end_and_check
}

# exporting STEP: an export of it that stands still, since another has the directory it goes to.
exporting() {
    mkdir -p "$TEST_DIR/out"
    exec 8>"$TEST_DIR/out/.ckptfs-export-checkpoint-$1.lock"
    flock 8
    "$CKPTFS" export "$RUN/checkpoint-$1" "$TEST_DIR/out" >"$TEST_DIR/export" 2>&1 8>&- 3>&- &
    EXPORT=$!
    wait_until 20 grep -q -- "-> FLOCK .* $EXPORT " /proc/locks
}

@test "what is being exported stays, and is missed when its owner removes it" {
    ckptfs_mount
    saves 10 20 30
    wait_until 30 settled
    exporting 10
    is_open 10
    policy set "$RUN" keep-last=1
    policy apply "$RUN"
    has_steps 10 30
    exec 8>&-
    wait "$EXPORT"
    [ -s "$TEST_DIR/out/checkpoint-10/model.safetensors" ]
    wait_until 20 has_steps 30
    exporting 30
    rm -r "$RUN/checkpoint-30"
    exec 8>&-
    ! wait "$EXPORT"
    tail -n 1 "$TEST_DIR/export" | grep -q 'checkpoint-30 was removed, or renamed, before all of it was exported'
    [ ! -e "$TEST_DIR/out/checkpoint-30" ]
    end_and_check
}

@test "ages, by a clock that the test sets" {
    ckptfs_mount
    saves 100 200 300
    wait_until 30 settled
    policy set "$RUN" max-age=30d
    [ "$(policy apply "$RUN")" = '' ]
    has_steps 100 200 300
    echo $((29 * 86400)) >"$CKPTFS_TEST_CLOCK"
    [ "$(policy apply "$RUN")" = '' ]
    [ "$(why 100)" = 'stays: within the limits' ]
    echo $((31 * 86400)) >"$CKPTFS_TEST_CLOCK"
    # By itself; the last one stays.
    wait_until 30 has_steps 300
    wait_until 20 grep -q 'checkpoint-100: removed: older than max-age' "$CKPTFS_LOG"
    end_and_check
}

@test "max-bytes holds over many saves, and the best by the Trainer's word is never given up" {
    ckptfs_mount
    mkdir -p "$RUN"
    policy set "$RUN" max-bytes=3500KiB
    # A log of the run is written all the time, and a model lies beside the checkpoints.
    exec 7>"$RUN/log"
    model "$RUN/model.safetensors"
    local step
    for step in 1 2 3 4 5 6 7 8; do
        # What it says of the best is there when its model is: the mount may look at any time.
        mkdir "$RUN/checkpoint-$step"
        echo "{\"best_model_checkpoint\": \"out/checkpoint-2\", \"best_metric\": 0.25, \"global_step\": $step}" \
            >"$RUN/checkpoint-$step/trainer_state.json"
        echo '{}' >"$RUN/checkpoint-$step/config.json"
        model "$RUN/checkpoint-$step/model.safetensors" 1
    done
    wait_until 60 has_steps 2 7 8
    [ "$(why 2)" = 'stays: best by trainer_state.json' ]
    [ "$(policy apply --json "$RUN")" = '[]' ]
    [ -e "$RUN/model.safetensors" ]
    exec 7>&-
    end_and_check
}

@test "keep-best by a metric, with a NaN and one without" {
    long_only
    ckptfs_mount
    local step
    saves 1 2 3 4 5
    for step in 1 2 3 4; do
        sed -i "s/\"eval_loss\": 0.5/\"eval_loss\": 0.5, \"eval_f1\": 0.$step/" "$RUN/checkpoint-$step/trainer_state.json"
    done
    sed -i 's/"eval_f1": 0.4/"eval_f1": NaN/' "$RUN/checkpoint-4/trainer_state.json"
    wait_until 30 settled
    [ "$(why 3 keep-best=1:eval_f1:max)" = 'stays: keep-best 1 by eval_f1' ]
    [ "$(why 1 'keep-best=1 by eval_f1 (min)')" = 'stays: keep-best 1 by eval_f1' ]
    policy set "$RUN" keep-best=2:eval_f1
    # The fifth is the latest by its step, the fourth by its time.
    wait_until 30 has_steps 2 3 4 5
    saves 6
    wait_until 30 has_steps 2 3 6
}

@test "what is not known to be a finished one of a run stays" {
    ckptfs_mount
    saves 100 200 300
    truncate -s -1 "$RUN/checkpoint-100/model.safetensors"
    checkpoint "$RUN/favourite-1"
    mkdir "$RUN/models"
    checkpoint "$RUN/models/one"
    checkpoint "$RUN/models/two"
    wait_until 30 settled
    policy set "$MNT" keep-last=1
    wait_until 30 has_steps 100 300
    [ "$(why 100)" = 'stays: incomplete' ]
    for name in favourite-1 models/one models/two; do [ -e "$RUN/$name/model.safetensors" ]; done
}

@test "a policy removes what its owner could, no more" {
    require_root
    ckptfs_mount allow_other
    mkdir -m 1777 "$MNT/shared"
    local user=${CKPTFS_TEST_USER:-nobody}
    chown "$user" "$MNT/shared"
    RUN=$MNT/shared/root
    saves 100 200
    wait_until 30 settled
    run_as_user "$CKPTFS" policy set "$MNT/shared" keep-last=1
    RUN=$MNT/shared/theirs
    saves 100 200
    chown -R "$user" "$RUN"
    saves 50
    wait_until 30 settled
    wait_until 30 has_steps 50 200
    [[ $(why 50) == "stays: another user's"* ]]
    RUN=$MNT/shared/root
    [ "$(policy apply "$RUN")" = '' ]
    has_steps 100 200
    [ "$(why 100)" = 'stays: no keep policy' ]
    run run_as_user "$CKPTFS" pin "$RUN/checkpoint-100"
    [[ $output == *"only the"*"owner and root"* ]]
    run run_as_user "$CKPTFS" policy apply "$RUN"
    [[ $output == *"only the directory's owner and root"* ]]
    # Root's holds for all.
    policy set "$MNT" keep-last=1
    policy set "$MNT/shared" keep-every=off
    run_as_user "$CKPTFS" policy unset "$MNT/shared" keep-last
    wait_until 30 has_steps 200
}

@test "a death while a checkpoint is taken apart leaves nothing of it" {
    CKPTFS_FAULT=fs.keep.apart:kill:1 CKPTFS_FAULT_STARTS=1 ckptfs_mount trash=off
    [ "$(ckptfs_status_field features.takeover)" = true ] || skip "needs takeover"
    checkpoint "$RUN/checkpoint-100" 4
    saves 200
    wait_until 30 settled
    policy set "$RUN" keep-last=1
    wait_until 30 eval '[ "$(ckptfs_status_field generation)" -eq 2 ]'
    wait_until 30 has_steps 200
    saves 300
    wait_until 30 has_steps 300
    end_and_check
    ckptfs_mount
    # The root, the run, its checkpoint with three files, and what is hidden.
    [ "$(ckptfs_status_field inodes)" -le 8 ]
}

@test "what a policy has removed can be had back" {
    ckptfs_mount
    saves 100 200
    wait_until 30 settled
    cp -r "$RUN/checkpoint-100" "$TEST_DIR/copy"
    policy set "$RUN" keep-last=1
    wait_until 30 has_steps 200
    "$CKPTFS" undelete --list --json "$MNT" | jq -e '.[0].reason == "no rule wants it"'
    "$CKPTFS" undelete --to "$RUN/saved" "$RUN/checkpoint-100"
    diff -r "$TEST_DIR/copy" "$RUN/saved"
    # It has a name of its own now, and no policy looks at it.
    policy apply "$RUN"
    diff -r "$TEST_DIR/copy" "$RUN/saved"
    end_and_check
}
