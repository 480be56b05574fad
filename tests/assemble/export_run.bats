#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Exports of a run that goes on: every kind of policy, readers meanwhile, deaths, a target that is full.

load ../views/views.bash
load ../life/life.bash

setup_file() {
    export EXPORT_MODELS=$BATS_FILE_TMPDIR/models
    python_of exported.py save "$EXPORT_MODELS" 1 2
}

setup() {
    views_setup
    if [ "$(id -u)" -eq 0 ]; then ckptfs_mount allow_other; else ckptfs_mount; fi
    export OUT=$TEST_DIR/out
    RUN=$MNT/run
}
teardown() { cd / && ckptfs_teardown; }

# python_of SCRIPT [ARGUMENT...]
python_of() {
    local python=${CKPTFS_VENV:-$CKPTFS_TREE/build/venv}/bin/python
    [ -x "$python" ] || {
        echo "no Python at $python: contrib/setup --python makes the environment, CKPTFS_VENV names another"
        return 1
    }
    timeout 600 "$python" -B "$CKPTFS_TREE/tests/assemble/$1" "${@:2}"
}

policy() { "$CKPTFS" policy "$@"; }
sums_hold() { (cd "$1" && sha256sum --quiet -c SHA256SUMS); }
exported_steps() { find "$1" -mindepth 1 -maxdepth 1 -name 'checkpoint-*' -printf '%f\n' 2>/dev/null | sort -V | sed 's/.*-//' | paste -sd ' '; }
exports_are() { [ "$(exported_steps "$1")" = "$2" ]; }
nothing_hidden() { [ -z "$(find "$1" -maxdepth 1 -name '.?*' -not -path "$1")" ]; }
leads_to() { [ "$(readlink "$1")" = "$2" ]; }

@test "each kind of policy exports what it says, and no more" {
    local step when
    for when in complete latest best pinned "every 20"; do
        mkdir "$MNT/${when% *}"
        policy set "$MNT/${when% *}" export="$OUT/${when% *}" "export-when=$when"
    done
    local best=(- 10 20 20 40)
    for step in 10 20 30 40; do
        for when in complete latest best pinned every; do
            save "$MNT/$when" "$step" --bytes 4000 --weights-only --best "${best[$((step / 10))]}" --loss 0.5
            [ "$step" -ne 30 ] || "$CKPTFS" pin "$MNT/$when/checkpoint-30"
        done
        # The next is saved when this one was the latest.
        wait_until 30 test -e "$OUT/latest/checkpoint-$step"
        wait_until 30 test -e "$OUT/complete/checkpoint-$step"
        [ "$step" -ne "${best[$((step / 10))]}" ] || wait_until 30 test -e "$OUT/best/checkpoint-$step"
    done
    wait_until 30 exports_are "$OUT/complete" "10 20 30 40"
    wait_until 30 exports_are "$OUT/latest" "10 20 30 40"
    wait_until 30 exports_are "$OUT/best" "10 20 40"
    wait_until 30 exports_are "$OUT/pinned" 30
    wait_until 30 exports_are "$OUT/every" "20 40"
    wait_until 30 leads_to "$OUT/every/latest" checkpoint-40
    for when in complete latest best pinned every; do
        for step in $(exported_steps "$OUT/$when"); do sums_hold "$OUT/$when/checkpoint-$step"; done
        nothing_hidden "$OUT/$when"
    done
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

# turns EXPORTS DEATHS READER...: so many exports, with readers, while the daemon dies so often.
turns() {
    local exports=$1 deaths=$2 readers=() status=0 reader part step=0
    shift 2
    mkdir "$RUN" "$OUT"
    policy set "$RUN" export="$OUT"
    for reader; do
        python_of export_turns.py "$reader" "$OUT/latest" "$TEST_DIR/stop" >"$TEST_DIR/$reader.out" 2>&1 3>&- &
        readers+=($!)
        wait_until 300 test -e "$TEST_DIR/stop.$reader"
    done
    for ((part = 1; part <= deaths; part++)); do
        python_of export_turns.py save "$EXPORT_MODELS" "$RUN" $((step + 1)) $((step + exports / deaths))
        step=$((step + exports / deaths))
        [ "$(ckptfs_status_field features.takeover)" = true ] || continue
        step=$((step + 1))
        # At some moment of the next one.
        python_of export_turns.py save "$EXPORT_MODELS" "$RUN" $step $step 3>&- &
        wait_until 30 test -e "$RUN/checkpoint-$step"
        sleep "$((RANDOM % 2)).$((RANDOM % 10))"
        kill_daemon
        wait $!
    done
    touch "$TEST_DIR/stop"
    for reader in "${readers[@]}"; do wait "$reader" || status=$?; done
    cat "$TEST_DIR"/*.out
    grep -h ' of the steps$' "$TEST_DIR"/*.out | sed 's/^/# /' >&3
    [ $status -eq 0 ]
    for ((; step > 0; step--)); do sums_hold "$OUT/checkpoint-$step"; done
    wait_until 30 nothing_hidden "$OUT"
    end_and_check
}

@test "a reader sees whole models of one step while exports replace them and the daemon dies" {
    turns 8 2 files
}

@test "readers see whole models of one step during fifty exports" {
    long_only
    turns 48 4 files load
}

# As a program does that is told DIR/latest and knows nothing of links.
@test "from_pretrained of DIR/latest loads one step or another during fifty exports" {
    long_only
    mkdir "$TEST_DIR/whole"
    cp -r "$EXPORT_MODELS/checkpoint-1" "$TEST_DIR/whole"
    EXPORT_MODELS=$TEST_DIR/whole
    turns 48 4 path
}

@test "a target that is full keeps no save from going on, and is gone on with when there is room" {
    require_root
    mkdir "$OUT" "$RUN"
    mount -t tmpfs -o size=12M tmpfs "$OUT"
    policy set "$RUN" export="$OUT" keep-last=1
    save "$RUN" 10 --bytes 20000000 --weights-only
    wait_until 60 grep -q 'No space left on device' "$CKPTFS_LOG"
    # What is not exported yet stays, and saves go on.
    save "$RUN" 20 30 --bytes 1000 --weights-only
    wait_until 30 latest_or_weights
    "$CKPTFS" policy apply "$RUN"
    [ -e "$RUN/checkpoint-10/model.safetensors" ]
    [ -z "$(exported_steps "$OUT")" ]
    policy set "$RUN" keep-last=off
    mount -o remount,size=80M "$OUT"
    [ "$("$CKPTFS" export "$RUN/checkpoint-10")" = "$OUT/checkpoint-10" ]
    sums_hold "$OUT/checkpoint-10"
    policy set "$RUN" keep-last=1
    wait_until 60 test ! -e "$RUN/checkpoint-10"
    # What failed is tried again later; or now, when somebody asks.
    "$CKPTFS" export "$RUN/checkpoint-30"
    umount "$OUT"
}
latest_or_weights() { "$CKPTFS" ls --json "$RUN" | jq -e '[.[0].checkpoints[] | select(.state == "weights-only")] | length >= 2' >/dev/null; }
