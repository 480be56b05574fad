#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Which checkpoints there are, and what state they are in: `ckptfs ls` on plain disks and on mounts.

load ../lib/ckptfs.bash
load ../lib/checkpoint.bash

setup() {
    require_command jq
    ckptfs_setup
    RUN=$TEST_DIR/run
}
teardown() { ckptfs_teardown; }

# field NAME CHECKPOINT: one field of a checkpoint of the run.
field() {
    "$CKPTFS" ls --json "$RUN" | jq -r --arg name "$2" ".[].checkpoints[] | select(.path == \$name).$1"
}

is_field() {
    [ "$(field "$1" "$2")" = "$3" ]
}

@test "a run is listed in the order of its steps, by people and by programs" {
    checkpoint "$RUN/checkpoint-900"
    checkpoint "$RUN/checkpoint-1000"
    "$CKPTFS" ls "$RUN" >"$TEST_DIR/table"
    [ "$(grep -c weights-only "$TEST_DIR/table")" -eq 2 ]
    grep -n 'checkpoint-900$' "$TEST_DIR/table" | grep '^3:'
    grep -n 'checkpoint-1000$' "$TEST_DIR/table" | grep '^4:'
    grep -q 'eval_loss 0.5' "$TEST_DIR/table"
    [ "$("$CKPTFS" ls -j "$RUN" | jq -c '[.[].checkpoints[].step]')" = '[900,1000]' ]
    is_field metric.value checkpoint-900 0.5
    is_field stored_bytes checkpoint-900 null
    # The same from the directory above, from inside, and of one checkpoint.
    "$CKPTFS" ls "$TEST_DIR" | grep -q 'checkpoint-1000$'
    (cd "$RUN" && "$CKPTFS" ls | grep -q 'checkpoint-1000$')
    [ "$("$CKPTFS" ls -j "$RUN/checkpoint-900" | jq -c '[.[].checkpoints[] | .path, .step]')" = '[".",900]' ]
}

@test "what is missing is said" {
    checkpoint "$RUN/checkpoint-1"
    checkpoint "$RUN/checkpoint-2"
    truncate -s -1 "$RUN/checkpoint-2/model.safetensors"
    is_field state checkpoint-2 incomplete
    "$CKPTFS" ls --why "$RUN" | grep -q '^    missing: model.safetensors'
    field 'notes[].text' checkpoint-2 | grep -q '^model.safetensors'
}

@test "a directory without a checkpoint, and none at all, are told apart" {
    mkdir "$RUN"
    run "$CKPTFS" ls "$RUN"
    [ "$status" -eq 1 ]
    [[ $output == *'no checkpoint of a known kind is there'* ]]
    [ "$("$CKPTFS" ls --json "$RUN")" = '[]' ]
    run "$CKPTFS" ls "$RUN/nowhere"
    [ "$status" -eq 1 ]
    [[ $output == *'No such file or directory'* ]]
    [[ $output != *'known kind'* ]]
}

@test "names out of files and directories are printed safely" {
    local hostile=$'checkpoint\e[31m\n\x9b'
    checkpoint "$RUN/checkpoint-1"
    mkdir "$RUN/$hostile"
    cp "$RUN/checkpoint-1"/* "$RUN/$hostile"
    touch "$RUN/checkpoint-1/tmp-"$'\e]0;x\a'
    "$CKPTFS" ls --why "$RUN" >"$TEST_DIR/table"
    grep -q 'checkpoint?\[31m' "$TEST_DIR/table"
    [ "$(tr -d '\n -~' <"$TEST_DIR/table" | wc -c)" -eq 0 ]
    "$CKPTFS" ls --json "$RUN" | jq -e '.[].checkpoints | length == 2'
}

@test "symbolic links are not followed round in circles" {
    checkpoint "$RUN/checkpoint-1"
    mkdir "$RUN/logs"
    ln -s .. "$RUN/logs/up"
    ln -s . "$RUN/self"
    [ "$("$CKPTFS" ls --json "$RUN" | jq length)" -eq 1 ]
}

@test "on a mount: writing, then weights only, with what it takes" {
    ckptfs_mount
    RUN=$MNT/run
    checkpoint "$RUN/checkpoint-1" 1
    wait_until 30 is_field state checkpoint-1 weights-only
    wait_until 30 is_field writing_files checkpoint-1 0
    [ "$(field stored_bytes checkpoint-1)" -ge 1048576 ]
    exec 9<>"$RUN/checkpoint-1/config.json"
    is_field state checkpoint-1 writing
    [ "$(field writing_files checkpoint-1)" -ge 1 ]
    is_field structure checkpoint-1 weights-only
    exec 9>&-
    wait_until 30 is_field state checkpoint-1 weights-only
    ckptfs_umount
}

@test "on a mount: complete, and then durable" {
    require_command python3
    ckptfs_mount
    RUN=$MNT/run
    checkpoint "$RUN/checkpoint-7" 1
    # torch.save's files are zip archives.
    python3 - "$RUN/checkpoint-7" <<'EOF'
import sys, zipfile
for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
    with zipfile.ZipFile(f"{sys.argv[1]}/{name}", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
EOF
    is_field structure checkpoint-7 complete
    # The mount may take it for open for a moment after its last file was closed.
    wait_until 30 is_field latest checkpoint-7 true
    # Without anybody asking for it.
    wait_until 60 is_field state checkpoint-7 durable
    is_field unsynced_files checkpoint-7 0
    is_field torn_files checkpoint-7 0
    "$CKPTFS" ls "$RUN" | grep 'checkpoint-7$' | grep -q durable
    rm "$RUN/checkpoint-7/optimizer.pt"
    is_field state checkpoint-7 incomplete
    ckptfs_umount
}
