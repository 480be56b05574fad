#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The life of a run from its mount to its end, with all that a user has for it; as root, and as a normal user who mounts by
# himself (tests/run). What a normal user has not got is told.

load life.bash

setup() {
    require_command jq
    ckptfs_setup
    RUN=$MNT/run
    OUT=$TEST_DIR/out
    mkdir "$OUT"
}
teardown() { cd / && ckptfs_teardown; }

state_is() { [ "$("$CKPTFS" ls --json "$RUN" | jq -r --arg name "checkpoint-$1" '.[].checkpoints[] | select(.path == $name).state')" = "$2" ]; }
listed() { find "$RUN" -mindepth 1 -maxdepth 1 -name 'checkpoint-*' -printf '%f\n' | sort -V | sed 's/.*-//' | paste -sd ' '; }
lists() { [ "$(listed)" = "$1" ]; }
told() { grep -qxF "$2" "$OUT/$1" 2>/dev/null; }
sums_hold() { (cd "$1" && sha256sum --quiet -c SHA256SUMS); }

# Nothing in these directories is another user's.
is_ours() { [ -z "$(find "$@" ! -uid "$(id -u)" -print -quit)" ]; }

# kill_save STEP: a save that is killed in its optimizer's file.
kill_save() {
    local saver
    python3 "$LIFE_LIB/checkpoint.py" "$RUN" "$1" --hang-in optimizer.pt "$TEST_DIR/hung" 3>&- &
    saver=$!
    wait_until 30 test -e "$TEST_DIR/hung"
    killed "$saver"
}

# What only root gets is missing, with the reason.
tells_what_is_missing() {
    if [ "$(id -u)" -eq 0 ]; then return; fi
    "$CKPTFS" status "$MNT" >"$TEST_DIR/status"
    grep -qE '^ +passthrough +needs ' "$TEST_DIR/status"
    grep -qE '^ +read ahead +cannot be raised' "$TEST_DIR/status"
}

# What the rotation of a Trainer with save_total_limit=2 does after a save.
rotate() { python3 -c 'import shutil, sys; shutil.rmtree(sys.argv[1])' "$RUN/checkpoint-$1"; }

@test "a run is saved, killed, resumed, rotated, exported, had back and checked by who mounted it" {
    ckptfs_mount
    mkdir "$RUN"
    local event
    for event in complete removed exported torn; do
        "$CKPTFS" policy set "$RUN" "hook-$event=echo \$CKPTFS_STEP by \$(id -u) >>$OUT/$event"
    done
    "$CKPTFS" policy set "$RUN" keep-last=3 export="$OUT/models"
    tells_what_is_missing
    save "$RUN" 10 20
    kill_save 30
    # The next process begins with what was complete.
    lists "10 20"
    wait_until 30 told torn "30 by $(id -u)"
    [ -e "$MNT/.ckptfs/torn/run/checkpoint-30/config.json" ]
    save "$RUN" 30
    rotate 10
    save "$RUN" 40 50
    "$CKPTFS" wait "$RUN/checkpoint-50" --for durable --timeout 60
    wait_until 30 latest_is run checkpoint-50
    for event in 10 20 30 40 50; do wait_until 30 told complete "$event by $(id -u)"; done
    # The policy removes when it is exported; what was rotated away is exported, or was gone before.
    for event in 20 30 40 50; do wait_until 60 told exported "$event by $(id -u)"; done
    wait_until 30 lists "30 40 50"
    wait_until 30 told removed "10 by $(id -u)"
    wait_until 30 told removed "20 by $(id -u)"
    [ "$(readlink "$OUT/models/latest")" = checkpoint-50 ]
    sums_hold "$OUT/models/latest"
    "$CKPTFS" export "$RUN/checkpoint-40" "$TEST_DIR/more"
    sums_hold "$TEST_DIR/more/checkpoint-40"
    is_ours "$OUT" "$TEST_DIR/more" "$RUN" "$STORE"
    "$CKPTFS" pin "$RUN/checkpoint-30"
    rm -r "$RUN/checkpoint-40"
    "$CKPTFS" undelete "$RUN/checkpoint-40"
    "$CKPTFS" undelete "$RUN/checkpoint-10"
    state_is 40 durable
    save "$RUN" 60
    # 10 is one too many again, and 30 stays for its pin.
    wait_until 60 lists "30 40 50 60"
    "$CKPTFS" verify "$MNT"
    "$CKPTFS" restart "$MNT" || [ "$(ckptfs_status_field features.takeover)" = false ]
    lists "30 40 50 60"
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
    ckptfs_mount
    lists "30 40 50 60"
    fusermount3 -u "$MNT"
    wait_until 30 ckptfs_no_processes
}
