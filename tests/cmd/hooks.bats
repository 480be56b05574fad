#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Hooks: commands that are run when something has become of a checkpoint, as who set them. A model that is assembled is
# the event here.

load ../views/views.bash

setup() {
    views_setup
    RUN=$MNT/run
    OUT=$TEST_DIR/out
    mkdir "$OUT"
    chmod 1777 "$OUT"
    if [ "$(id -u)" -eq 0 ]; then ckptfs_mount allow_other; else ckptfs_mount; fi
    mkdir "$RUN"
}
teardown() { ckptfs_teardown; }

policy() { "$CKPTFS" policy "$@"; }
# assemble NAME: a checkpoint whose model is assembled.
assemble() {
    save_model "$RUN/$1" --shards 2 --mib 1
}
is_logged() { grep -qF -- "$1" "$CKPTFS_LOG"; }
has_lines() { [ "$(cat "$1" 2>/dev/null | wc -l)" -ge "$2" ]; }
ends_hook() { wait_until 30 is_logged "$1"; }
none() { if "$@"; then return 1; fi; }
# What has the file locked since then is gone.
is_gone() { flock -n "$1" true; }

@test "a hook gets the facts, and nothing of the daemon's" {
    policy set "$RUN" hook-assembled="env >$OUT/env; cat >$OUT/json; pwd >$OUT/pwd; cat /proc/self/status >$OUT/status
        ls /proc/self/fd >$OUT/fds" 2>/dev/null && return 1 # no line ends
    policy set "$RUN" hook-assembled="env >$OUT/env; cat >$OUT/json; pwd >$OUT/pwd; cat /proc/self/status >$OUT/status; ls /proc/self/fd >$OUT/fds; echo out; echo err >&2"
    assemble 'checkpoint-5 "quoted" $x'
    ends_hook ": done"
    local path='run/checkpoint-5 "quoted" $x'
    grep -qxF "CKPTFS_EVENT=assembled" "$OUT/env"
    grep -qxF "CKPTFS_CHECKPOINT=$MNT/$path" "$OUT/env"
    grep -qxF "CKPTFS_RUN=$RUN" "$OUT/env"
    grep -qxF "CKPTFS_MODEL=$MNT/.ckptfs/models/$path" "$OUT/env"
    grep -qxF "CKPTFS_MOUNTPOINT=$MNT" "$OUT/env"
    grep -qxF "CKPTFS_FRAMEWORK=sharded" "$OUT/env"
    grep -qE '^CKPTFS_BYTES=[0-9]+$' "$OUT/env"
    none grep -q "^CKPTFS_TEST_DIR=" "$OUT/env"
    [ "$(jq -r '[.event, .path] | @tsv' "$OUT/json")" = "$(jq -rn --arg path "$path" '["assembled", $path] | @tsv')" ]
    [ "$(cat "$OUT/pwd")" = / ]
    # Its own three, and the one that ls reads.
    [ "$(wc -l <"$OUT/fds")" -eq 4 ]
    grep -qE '^NoNewPrivs:\s+1$' "$OUT/status"
    grep -qE '^CapEff:\s+0+$' "$OUT/status"
    grep -qE '^SigBlk:\s+0+$' "$OUT/status"
    is_logged "hook-assembled $path: out"
    is_logged "hook-assembled $path: err"
}

# save STEP... [OPTION...]: checkpoints of the run as a Trainer writes them (tests/lib/checkpoint.py).
save() { timeout 60 python3 "$CKPTFS_TREE/tests/lib/checkpoint.py" "$RUN" "$@"; }
# tear STEP: a save that is killed, and is seen to be torn by who lists the run.
tear() {
    local status=0 saver
    python3 "$CKPTFS_TREE/tests/lib/checkpoint.py" "$RUN" "$1" --hang-in optimizer.pt "$TEST_DIR/hung-$1" 3>&- &
    saver=$!
    wait_until 30 test -e "$TEST_DIR/hung-$1"
    kill -9 "$saver"
    wait "$saver" || status=$?
    [ $status -eq 137 ]
    ls "$RUN" >/dev/null
}
# are_told EVENT STEP...: the event's hook was run for these, in any order.
are_told() {
    local event=$1 step
    shift
    diff <(sort -n "$OUT/$event" 2>/dev/null) <(for step; do echo "$step $event $RUN/checkpoint-$step"; done) >/dev/null
}

@test "each event has its hook, of a checkpoint that was put away too" {
    local event
    for event in complete best removed exported torn; do
        policy set "$RUN" "hook-$event=echo \$CKPTFS_STEP \$CKPTFS_EVENT \$CKPTFS_CHECKPOINT >>$OUT/$event; cat >$OUT/$event.json"
    done
    policy set "$RUN" export="$OUT/exports" keep-last=2
    save 10 20 30 --best 20
    tear 40
    wait_until 30 are_told torn 40
    jq -e '[.path, .run, .event, .step] == ["run/checkpoint-40", "run", "torn", 40]' "$OUT/torn.json"
    wait_until 30 are_told complete 10 20 30
    wait_until 30 are_told best 20
    wait_until 30 are_told exported 10 20 30
    wait_until 30 are_told removed 10
    [ "$(find "$OUT/exports" -name 'checkpoint-*' | wc -l)" -eq 3 ]
    # A policy of the mount holds for it, too.
    policy unset "$RUN" hook-torn
    policy set "$MNT" hook-torn="echo \$CKPTFS_STEP >$OUT/of-mount"
    tear 50
    wait_until 30 grep -qx 50 "$OUT/of-mount"
}

@test "a hook runs as who set it, who may be the directory's owner or root" {
    require_root
    local user=${CKPTFS_TEST_USER:-nobody}
    run_as_user "$CKPTFS" policy set "$RUN" hook-assembled=true && return 1
    chown "$user" "$RUN"
    run_as_user "$CKPTFS" policy set "$RUN" hook-assembled="id -u >$OUT/uid; cat /proc/self/status >$OUT/status"
    # What root makes below is not theirs to be told of; what they make is.
    assemble checkpoint-1
    wait_until 30 bash -c "'$CKPTFS' events --json '$MNT' | grep -q checkpoint-1"
    mkdir "$RUN/checkpoint-2"
    cp "$RUN/checkpoint-1"/*-of-* "$RUN/checkpoint-1"/*.json "$RUN/checkpoint-2"
    chown -R "$user" "$RUN/checkpoint-2"
    touch "$RUN/checkpoint-2/config.json"
    ends_hook "checkpoint-2: done"
    [ "$(cat "$OUT/uid")" = "$(id -u "$user")" ]
    grep -qE '^CapBnd:\s+0+$' "$OUT/status"
    none is_logged "hook-assembled run/checkpoint-1"
}

@test "no hook is run out of a store that others can change, nor where the mount says no" {
    policy set "$RUN" hook-assembled="touch $OUT/ran"
    ckptfs_remount hooks=no
    refused "your hooks are not run on this mount" policy set "$RUN" hook-torn=true
    policy unset "$RUN" hook-torn
    assemble checkpoint-1
    appears "$VIEW/run/checkpoint-1/model.safetensors"
    ckptfs_umount
    chmod g+w "$STORE"
    ckptfs_mount
    is_logged "hooks are not run: others than this daemon's user own the store, or can write to it"
    refused "your hooks are not run on this mount" policy set "$RUN" hook-torn=true
    ckptfs_umount
    chmod g-w "$STORE"
    ckptfs_mount
    assemble checkpoint-2
    ends_hook "checkpoint-2: done"
    none is_logged "hook-assembled run/checkpoint-1"
}

@test "a hook that fails, says too much or takes too long is one line in the log, and the save has not felt it" {
    policy set "$RUN" hook-timeout=60 hook-assembled='seq 1 300; printf "\033[31mred\n"; exit 7'
    assemble checkpoint-1
    ends_hook "checkpoint-1: failed with exit status 7"
    is_logged "checkpoint-1: 200"
    is_logged "checkpoint-1: what it writes from here on is dropped"
    none is_logged "checkpoint-1: 201"
    # The time limit ends all that it has started.
    policy set "$RUN" hook-timeout=1 hook-assembled="exec 9>$OUT/lock; flock 9; sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & wait"
    assemble checkpoint-2
    ends_hook "checkpoint-2: took longer than 1 s and was killed"
    wait_until 30 is_gone "$OUT/lock"
    # What it leaves running when it ends goes with it.
    policy set "$RUN" hook-timeout=600 hook-assembled="exec 9>$OUT/lock; flock 9; sleep 1000 & setsid sleep 1000 & echo left"
    assemble checkpoint-3
    ends_hook "checkpoint-3: done"
    wait_until 30 is_gone "$OUT/lock"
    "$CKPTFS" ls "$RUN" >/dev/null
    shards same "$VIEW/run/checkpoint-3/model.safetensors" --shards 2 --mib 1
    policy unset "$RUN" hook-assembled
    policy show --json "$RUN" | jq -e '.policies[] | select(.key == "hook-assembled").value == null'
}

@test "a user's hooks do not keep those of others waiting" {
    require_root
    local user=${CKPTFS_TEST_USER:-nobody} name
    mkdir "$MNT/theirs"
    chown "$user" "$MNT/theirs"
    run_as_user "$CKPTFS" policy set "$MNT/theirs" hook-assembled="echo >>$OUT/theirs; sleep 1000"
    for name in 1 2 3; do
        save_model "$MNT/theirs/checkpoint-$name" --shards 2 --mib 1
        chown -R "$user" "$MNT/theirs/checkpoint-$name"
    done
    # What they are told of comes when it is theirs.
    touch "$MNT/theirs"/*/config.json
    wait_until 30 has_lines "$OUT/theirs" 2
    policy set "$RUN" hook-assembled="echo >>$OUT/ours"
    assemble checkpoint-1
    ends_hook "hook-assembled run/checkpoint-1: done"
    [ "$(wc -l <"$OUT/theirs")" -eq 2 ]
}

@test "no more than two at a time, and those that did not end are run again" {
    require_takeover
    local name
    # Each has a file open on the mount, which the daemon has to answer for when it is killed.
    policy set "$RUN" hook-assembled="echo \$CKPTFS_CHECKPOINT >>$OUT/begun; test -e $OUT/go || exec sleep 1000 <\"\$CKPTFS_CHECKPOINT\"/config.json"
    for name in 1 2 3; do assemble "checkpoint-$name"; done
    wait_until 30 has_lines "$OUT/begun" 2
    settle
    has_lines "$OUT/begun" 3 && return 1
    # The daemon is replaced, and dies: its hooks do, too, and its successor runs them.
    timeout 60 "$CKPTFS" restart "$MNT"
    wait_until 30 has_lines "$OUT/begun" 4
    kill_daemon
    wait_until 30 has_lines "$OUT/begun" 6
    [ "$(sort -u "$OUT/begun" | wc -l)" -eq 2 ]
    # So does the end of the mount.
    ckptfs_umount
    touch "$OUT/go"
    ckptfs_mount
    ends_hook "checkpoint-3: done"
    wait_until 30 bash -c "[ \$(sort -u '$OUT/begun' | wc -l) -eq 3 ]"
    wait_until 30 bash -c "[ \$(sqlite3 'file:$STORE/meta.db?mode=ro' 'SELECT count(*) FROM event WHERE pending') -eq 0 ]"
    end_and_check
}

@test "copy-with-rclone copies the checkpoint, and the model" {
    require_command "${RCLONE:-rclone}"
    local hook=$CKPTFS_TREE/contrib/hooks/copy-with-rclone
    policy set "$RUN" hook-assembled="export RCLONE=${RCLONE:-rclone} HOME=$OUT; $hook $OUT/far && $hook --model $OUT/models/"
    assemble checkpoint-1
    ends_hook "checkpoint-1: done"
    shards same "$OUT/models/run/checkpoint-1/model.safetensors" --shards 2 --mib 1
    cmp "$OUT/far/run/checkpoint-1/model-00001-of-00002.safetensors" "$RUN/checkpoint-1/model-00001-of-00002.safetensors"
    run env -i PATH="$PATH" "$hook" "$OUT/far"
    [ "$status" -eq 1 ]
    [[ $output == *"is run as a hook of ckptfs"* ]]
}
