#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Policies of a directory: set, inherited, shown, kept and gone with it; and what "assemble" does.

load views.bash

setup() {
    views_setup
    if [ "$(id -u)" -eq 0 ]; then ckptfs_mount allow_other; else ckptfs_mount; fi
    RUN=$MNT/run
    CHECKPOINT=$RUN/checkpoint-1
    MODEL=$VIEW/run/checkpoint-1/model.safetensors
}
teardown() { ckptfs_teardown; }

policy() { "$CKPTFS" policy "$@"; }

# of KEY DIRECTORY: "VALUE SOURCE DIRECTORY" of one key.
of() {
    policy show --json "$2" |
        jq -r --arg key "$1" '.policies[] | select(.key == $key) | "\(.value) \(.source) \(.directory)"'
}

@test "a policy is inherited from the nearest directory that has it" {
    mkdir -p "$CHECKPOINT/deep"
    [ "$(of assemble "$RUN")" = "auto default null" ]
    policy set "$RUN" assemble=ask
    [ "$(of assemble "$RUN")" = "ask directory $RUN" ]
    [ "$(of assemble "$CHECKPOINT/deep")" = "ask above $RUN" ]
    policy set "$CHECKPOINT" assemble=off
    [ "$(of assemble "$CHECKPOINT/deep")" = "off above $CHECKPOINT" ]
    [ "$(of assemble "$RUN")" = "ask directory $RUN" ]
    [ "$(of assemble "$MNT")" = "auto default null" ]
    # As people read it.
    policy show "$CHECKPOINT/deep" | grep -qE "^assemble +off +$CHECKPOINT\$"
    policy show "$RUN" | grep -qE "^assemble +ask +this directory\$"
    policy unset "$CHECKPOINT" assemble
    policy unset "$CHECKPOINT" assemble
    [ "$(of assemble "$CHECKPOINT/deep")" = "ask above $RUN" ]
    policy set "$MNT" assemble=off
    policy unset "$RUN" assemble
    [ "$(of assemble "$CHECKPOINT")" = "off above $MNT" ]
    # The view of a directory has its policies, and sets none.
    [ "$(of assemble "$VIEW/run")" = "off above $VIEW" ]
    unchangeable policy set "$VIEW/run" assemble=auto
}

@test "the mount's option is the root's default" {
    mkdir "$RUN"
    ckptfs_remount assemble=ask
    [ "$(of assemble "$RUN")" = "ask mount null" ]
    policy show "$RUN" | grep -q "the mount's option"
    policy set "$RUN" assemble=auto
    [ "$(of assemble "$RUN")" = "auto directory $RUN" ]
    [ "$(of assemble "$MNT")" = "ask mount null" ]
}

@test "what cannot be set is refused with a line" {
    mkdir "$RUN"
    echo >"$RUN/file"
    refused "assemble: expected auto, view, off or ask, found 'on'" policy set "$RUN" assemble=on
    refused "assemble: expected auto, view, off or ask, found ''" policy set "$RUN" assemble=
    refused "unknown key 'asemble'; the keys are assemble" policy set "$RUN" asemble=off
    refused "unknown key 'colour'" policy unset "$RUN" colour
    refused "expected KEY=VALUE, found 'assemble'" policy set "$RUN" assemble
    refused "expected KEY, found 'assemble=off'" policy unset "$RUN" assemble=off
    refused "expected show DIR" policy set "$RUN"
    refused "expected show DIR" policy
    refused "Not a directory" policy set "$RUN/file" assemble=off
    refused "No such file" policy set "$RUN/none" assemble=off
    refused "not on a mount" policy set "$TEST_DIR" assemble=off
    refused "not on a mount" policy show "$TEST_DIR"
    # All or nothing.
    refused "unknown key" policy set "$RUN" assemble=off colour=red
    [ "$(of assemble "$RUN")" = "auto default null" ]
    ckptfs_remount ro
    refused "Read-only" policy set "$RUN" assemble=off
    [ "$(of assemble "$RUN")" = "auto default null" ]
}

@test "only the owner and root may set, and whoever may open the directory sees" {
    mkdir "$RUN" "$MNT/theirs"
    chmod 755 "$MNT"
    run_as_user true
    chown "${CKPTFS_TEST_USER:-nobody}" "$MNT/theirs"
    refused "only the directory's owner and root" run_as_user "$CKPTFS" policy set "$RUN" assemble=off
    [ "$(of assemble "$RUN")" = "auto default null" ]
    run_as_user "$CKPTFS" policy show "$RUN" | grep -q "the default"
    run_as_user "$CKPTFS" policy set "$MNT/theirs" assemble=off
    [ "$(of assemble "$MNT/theirs")" = "off directory $MNT/theirs" ]
    refused "only the directory's owner and root" run_as_user "$CKPTFS" policy unset "$RUN" assemble
    policy set "$MNT/theirs" assemble=ask
    chmod 700 "$RUN"
    refused "Permission denied" run_as_user "$CKPTFS" policy show "$RUN"
}

@test "a policy survives a death and a remount, goes along with a rename, and goes with its directory" {
    mkdir -p "$CHECKPOINT"
    policy set "$RUN" assemble=off
    policy set "$CHECKPOINT" assemble=ask
    mv "$RUN" "$MNT/other"
    [ "$(of assemble "$MNT/other")" = "off directory $MNT/other" ]
    [ "$(of assemble "$MNT/other/checkpoint-1")" = "ask directory $MNT/other/checkpoint-1" ]
    mkdir "$RUN"
    [ "$(of assemble "$RUN")" = "auto default null" ]
    if [ "$(ckptfs_status_field features.takeover)" = true ]; then
        kill_daemon
        [ "$(of assemble "$MNT/other")" = "off directory $MNT/other" ]
    fi
    ckptfs_remount
    [ "$(of assemble "$MNT/other/checkpoint-1")" = "ask directory $MNT/other/checkpoint-1" ]
    rmdir "$MNT/other/checkpoint-1"
    mkdir "$MNT/other/checkpoint-1"
    [ "$(of assemble "$MNT/other/checkpoint-1")" = "off above $MNT/other" ]
    rm -r "$MNT/other"
    end_and_check
    ckptfs_mount
    mkdir "$MNT/other"
    [ "$(of assemble "$MNT/other")" = "auto default null" ]
}

@test "off assembles nothing and takes away what was; auto brings it back" {
    save_model "$CHECKPOINT"
    appears "$MODEL"
    policy set "$RUN" assemble=off
    vanishes "$MODEL"
    save_model "$RUN/checkpoint-2" --seed 2
    settle
    [ ! -e "$VIEW/run/checkpoint-2/model.safetensors" ]
    policy set "$RUN/checkpoint-2" assemble=auto
    appears "$VIEW/run/checkpoint-2/model.safetensors"
    settle
    [ ! -e "$MODEL" ]
    policy unset "$RUN" assemble
    appears "$MODEL"
    shards same "$MODEL"
    shards same "$VIEW/run/checkpoint-2/model.safetensors" --seed 2
    end_and_check
}

@test "ask keeps what there is and adds nothing by itself" {
    save_model "$CHECKPOINT"
    appears "$MODEL"
    policy set "$RUN" assemble=ask
    save_model "$RUN/checkpoint-2" --seed 2
    settle
    [ ! -e "$VIEW/run/checkpoint-2/model.safetensors" ]
    shards same "$MODEL"
    # What changes is withdrawn all the same.
    echo x >>"$CHECKPOINT/model-00001-of-00003.safetensors"
    [ ! -e "$MODEL" ]
    save_model "$CHECKPOINT" --seed 3
    settle
    [ ! -e "$MODEL" ]
    policy set "$RUN" assemble=auto
    appears "$MODEL"
    shards same "$MODEL" --seed 3
    appears "$VIEW/run/checkpoint-2/model.safetensors"
}

@test "what was asked for comes again with the next set of its shards, until it is turned off" {
    mkdir -p "$RUN"
    policy set "$RUN" assemble=ask
    save_model "$CHECKPOINT"
    save_model "$RUN/checkpoint-2" --seed 2
    "$CKPTFS" assemble "$CHECKPOINT"
    shards same "$MODEL"
    # The same step is saved again, also by a daemon that was not asked.
    save_model "$CHECKPOINT" --seed 3 --only 1
    [ ! -e "$MODEL" ]
    ckptfs_remount
    save_model "$CHECKPOINT" --seed 3
    appears "$MODEL"
    shards same "$MODEL" --seed 3
    save_model "$CHECKPOINT" --seed 4 --in-place
    wait_until 30 shards same "$MODEL" --seed 4
    settle
    [ ! -e "$VIEW/run/checkpoint-2/model.safetensors" ]
    # Who turned it off is to be asked again.
    policy set "$RUN" assemble=off
    vanishes "$MODEL"
    settle
    policy set "$RUN" assemble=ask
    save_model "$CHECKPOINT" --seed 5
    settle
    [ ! -e "$MODEL" ]
    "$CKPTFS" assemble "$CHECKPOINT"
    shards same "$MODEL" --seed 5
    # A lone file, too, and what is made anew from nothing is as one that nobody asked for.
    rm -r "$CHECKPOINT"
    save_model "$MNT/source" --shards 1
    mkdir "$CHECKPOINT"
    cp "$MNT/source"/model-*.safetensors "$CHECKPOINT/unet.safetensors"
    settle
    [ ! -e "$MODEL" ]
    "$CKPTFS" assemble "$CHECKPOINT"
    save_model "$MNT/source" --shards 1 --seed 6
    cp "$MNT/source"/model-*.safetensors "$CHECKPOINT/unet.safetensors"
    wait_until 30 shards same "$MODEL" --shards 1 --seed 6
    end_and_check
}

@test "a checkpoint that is moved has the policy of its new place" {
    mkdir -p "$MNT/quiet"
    policy set "$MNT/quiet" assemble=off
    save_model "$MNT/quiet/checkpoint-1"
    save_model "$RUN/checkpoint-2" --seed 2
    appears "$VIEW/run/checkpoint-2/model.safetensors"
    settle
    [ ! -e "$VIEW/quiet/checkpoint-1/model.safetensors" ]
    mv "$MNT/quiet/checkpoint-1" "$CHECKPOINT"
    mv "$RUN/checkpoint-2" "$MNT/quiet"
    appears "$MODEL"
    shards same "$MODEL"
    vanishes "$VIEW/quiet/checkpoint-2/model.safetensors"
    end_and_check
}

@test "a run with auto is assembled on a mount with assemble=off, and what its policy left is not taken up later" {
    mkdir "$RUN" "$MNT/quiet"
    policy set "$RUN" assemble=auto
    policy set "$MNT/quiet" assemble=off
    ckptfs_remount assemble=off
    save_model "$CHECKPOINT"
    save_model "$MNT/quiet/checkpoint-1"
    save_model "$MNT/else/checkpoint-1"
    appears "$MODEL"
    settle
    [ ! -e "$VIEW/else/checkpoint-1/model.safetensors" ]
    ckptfs_remount
    appears "$VIEW/else/checkpoint-1/model.safetensors"
    settle
    [ ! -e "$VIEW/quiet/checkpoint-1/model.safetensors" ]
    shards same "$MODEL"
}

@test "what a new policy means for a tree is found out after a death, too" {
    require_takeover
    local i
    policy set "$MNT" assemble=off
    for i in 1 2 3; do save_model "$RUN/checkpoint-$i"; done
    settle
    ckptfs_umount
    # The daemon dies when it has made the first of them.
    CKPTFS_FAULT=fs.assemble.publish:kill:1 CKPTFS_FAULT_STARTS=1 ckptfs_mount
    policy unset "$MNT" assemble
    for i in 1 2 3; do appears "$VIEW/run/checkpoint-$i/model.safetensors"; done
    [ "$(ckptfs_status_field generation)" -eq 2 ]
    settle
    end_and_check
}
