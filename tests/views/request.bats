#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# `ckptfs assemble` on a mount: into the view when no output is named, and into ordinary files, which are extents.

load views.bash

setup() {
    views_setup
    ckptfs_mount assemble=off
    RUN=$MNT/run
    CHECKPOINT=$RUN/checkpoint-1
    MODEL=$VIEW/run/checkpoint-1/model.safetensors
}
teardown() { ckptfs_teardown; }

venv_python() {
    local python=${CKPTFS_VENV:-$CKPTFS_TREE/build/venv}/bin/python
    [ -x "$python" ] || skip "needs a Python environment in CKPTFS_VENV"
    timeout 120 "$python" "$@"
}

# -- into the view -----------------------------------------------------------------------------------------------------

@test "what is asked for is assembled at once, in the view, and the command prints where" {
    save_model "$CHECKPOINT" --mib 50
    [ ! -e "$MODEL" ]
    [ "$(cd "$RUN" && "$CKPTFS" assemble checkpoint-1)" = "$VIEW/run/checkpoint-1" ]
    shards same "$MODEL" --mib 50
    [ "$("$CKPTFS" assemble "$CHECKPOINT")" = "$VIEW/run/checkpoint-1" ]
    [ "$("$CKPTFS" assemble "$VIEW/run/checkpoint-1")" = "$VIEW/run/checkpoint-1" ]
    settle
    wait_until 20 stored_at_most $((51 << 20))
    # It stays, and goes with a change of its shards.
    ckptfs_remount assemble=off
    shards same "$MODEL" --mib 50
    save_model "$CHECKPOINT" --mib 50 --seed 2
    [ ! -e "$MODEL" ]
    "$CKPTFS" assemble "$CHECKPOINT"
    shards same "$MODEL" --mib 50 --seed 2
    end_and_check
}

@test "a lone file, which is not assembled unasked, is one model on request" {
    ckptfs_remount
    save_model "$MNT/source" --shards 1
    mkdir -p "$CHECKPOINT"
    cp "$MNT/source"/model-*.safetensors "$CHECKPOINT/unet.safetensors"
    settle
    [ ! -e "$MODEL" ]
    "$CKPTFS" assemble "$CHECKPOINT"
    shards same "$MODEL" --shards 1
    end_and_check
}

@test "why nothing is assembled is one line" {
    save_model "$CHECKPOINT"
    rm "$CHECKPOINT/model-00002-of-00003.safetensors"
    refused "run/checkpoint-1: not assembled: model-00002-of-00003.safetensors is missing" "$CKPTFS" assemble "$CHECKPOINT"
    [ "$(wc -l <<<"$REFUSAL")" -eq 1 ]
    refused "not assembled: no checkpoint of a known kind is there" "$CKPTFS" assemble "$RUN"
    [ ! -e "$MODEL" ]
    # What is missing comes, and it is asked for again.
    save_model "$CHECKPOINT"
    "$CKPTFS" assemble "$CHECKPOINT"
    shards same "$MODEL"
    refused "No such file" "$CKPTFS" assemble "$RUN/checkpoint-2"
    refused "Not a directory" "$CKPTFS" assemble "$CHECKPOINT/config.json"
    refused "expected SRC -o OUT" "$CKPTFS" assemble "$TEST_DIR"
    refused "expected SRC -o OUT" "$CKPTFS" assemble --dtype bf16 "$CHECKPOINT"
    ckptfs_remount ro
    refused "read-only" "$CKPTFS" assemble "$CHECKPOINT"
}

@test "shards that are still written are waited for; an interrupted wait ends" {
    save_model "$CHECKPOINT"
    exec 7>>"$CHECKPOINT/model-00001-of-00003.safetensors"
    run timeout -s INT 1 "$CKPTFS" assemble "$CHECKPOINT"
    [ "$status" -ne 0 ]
    "$CKPTFS" assemble "$CHECKPOINT" >"$TEST_DIR/out" 7>&- &
    local waiting=$!
    # The mount answers others meanwhile.
    [ "$(find "$CHECKPOINT" -type f | wc -l)" -eq 5 ]
    [ ! -e "$MODEL" ]
    exec 7>&-
    wait $waiting
    [ "$(cat "$TEST_DIR/out")" = "$VIEW/run/checkpoint-1" ]
    shards same "$MODEL"
}

@test "who may neither write nor own the directory may not ask" {
    require_root
    ckptfs_remount assemble=off,allow_other
    save_model "$CHECKPOINT"
    chmod 755 "$RUN" "$CHECKPOINT"
    chmod 644 "$CHECKPOINT"/*
    refused "only its owner, who may write it, and root" run_as_user "$CKPTFS" assemble "$CHECKPOINT"
    [ ! -e "$MODEL" ]
    chmod 757 "$CHECKPOINT"
    run_as_user "$CKPTFS" assemble "$CHECKPOINT"
    shards same "$MODEL"
}

@test "the daemon dies meanwhile: the next one is asked again" {
    require_takeover
    ckptfs_umount
    CKPTFS_FAULT=fs.assemble.map:kill:1 CKPTFS_FAULT_STARTS=1 ckptfs_mount assemble=off
    save_model "$CHECKPOINT"
    "$CKPTFS" assemble "$CHECKPOINT"
    [ "$(ckptfs_status_field generation)" -eq 2 ]
    shards same "$MODEL"
    end_and_check
}

@test "shards that are left of another save are not taken, and an index that comes later says which are right" {
    ckptfs_remount
    save_model "$CHECKPOINT" --seed 1
    rm "$CHECKPOINT/model.safetensors.index.json"
    appears "$MODEL"
    settle
    shards same "$MODEL" --seed 1
    # The same step, saved in two shards; nobody has removed the three.
    shards save "$CHECKPOINT" --seed 2 --shards 2
    wait_until $VIEWS_DEADLINE shards same "$MODEL" --seed 2 --shards 2
    # Without the index the only complete set is the older one.
    rm -r "$CHECKPOINT"
    save_model "$CHECKPOINT" --seed 1
    shards save "$CHECKPOINT" --seed 2 --shards 2 --only 2
    rm "$CHECKPOINT/model.safetensors.index.json"
    "$CKPTFS" assemble "$CHECKPOINT"
    shards same "$MODEL" --seed 1
    end_and_check
}

@test "a full save of SageMaker's trainer has the pytorch_model.bin that its loader looks for" {
    not_repeated
    local how
    ckptfs_remount
    for how in whole sharded; do
        venv_python "$VIEWS_TREE/sagemaker.py" save "$RUN/$how" "$how"
        appears "$VIEW/run/$how/pytorch_model.bin"
        settle
        venv_python "$VIEWS_TREE/sagemaker.py" same "$VIEW/run/$how"
        [ "$(find "$VIEW/run/$how" -type f -printf '%f\n' | sort | tr '\n' ' ')" = "model.safetensors pytorch_model.bin " ]
        [ ! -e "$RUN/$how/pytorch_model.bin" ]
    done
    [ "$("$CKPTFS" assemble "$RUN/whole")" = "$VIEW/run/whole" ]
    # With its source it goes, and one of the directory's own is what there is.
    echo x >>"$RUN/whole/model.safetensors"
    [ ! -e "$VIEW/run/whole/pytorch_model.bin" ]
    cp "$VIEW/run/sharded/pytorch_model.bin" "$RUN/sharded/pytorch_model.bin"
    settle
    [ "$(find "$VIEW/run/sharded" -type f -printf '%f\n' | sort | tr '\n' ' ')" = "model.safetensors " ]
    venv_python "$VIEWS_TREE/sagemaker.py" same "$RUN/sharded" 2>/dev/null || [ ! -e "$RUN/sharded/model.safetensors" ]
    rm -r "$RUN"
    wait_until 20 stored_at_most 0
    end_and_check
}

# -- into files --------------------------------------------------------------------------------------------------------

# of_plain_disk OUT OPTION...: the files of OUT are those that the same command makes on a plain disk.
of_plain_disk() {
    local out=$1 file
    shift
    rm -rf "$TEST_DIR/plain"
    "$CKPTFS" assemble --plain "$TEST_DIR/source" -o "$TEST_DIR/plain" "$@" >/dev/null
    [ "$(ls "$out")" = "$(ls "$TEST_DIR/plain")" ]
    for file in "$TEST_DIR/plain"/*; do cmp "$file" "$out/${file##*/}"; done
}

@test "files made on the mount are extents of the shards, at any alignment and in every form" {
    local options=("" "--max-shard-size 20MB" "--format bin" "--format bin --max-shard-size 20MB") i
    mkdir "$TEST_DIR/source"
    shards save "$TEST_DIR/source" --mib 64 --in-place
    mkdir "$RUN"
    # Right after the save, with nothing sealed or on stable storage.
    cp -r "$TEST_DIR/source" "$CHECKPOINT"
    for i in 0 1 2 3; do
        # shellcheck disable=SC2086 # options are words
        "$CKPTFS" assemble "$CHECKPOINT" -o "$RUN/out$i" ${options[i]} | tee "$TEST_DIR/told"
        grep -q "64.0 MiB shared with the source" "$TEST_DIR/told"
    done
    settle
    wait_until 20 stored_at_most $((65 << 20))
    # The files outlive the shards, a remount, and what is tidied up.
    rm -r "$CHECKPOINT"
    ckptfs_remount
    for i in 0 1 2 3; do
        # shellcheck disable=SC2086 # options are words
        of_plain_disk "$RUN/out$i" ${options[i]}
    done
    wait_until 20 stored_at_most $((65 << 20))
    "$CKPTFS" verify "$MNT"
    end_and_check
}

@test "a death of the daemon or of the command leaves nothing half made" {
    require_takeover
    mkdir "$TEST_DIR/source"
    shards save "$TEST_DIR/source" --mib 20 --in-place
    mkdir "$RUN"
    cp -r "$TEST_DIR/source" "$CHECKPOINT"
    CKPTFS_FAULT=assemble.rename:kill:1 run "$CKPTFS" assemble "$CHECKPOINT" -o "$RUN/out"
    [ "$status" -ne 0 ]
    [ "$(find "$RUN/out" -type f ! -name '.ckptfs-assemble-*' | wc -l)" -eq 0 ]
    rm -rf "$RUN/out"
    # The next daemon goes on where this one died.
    ckptfs_umount
    CKPTFS_FAULT=fs.write:kill:7 CKPTFS_FAULT_STARTS=1 ckptfs_mount assemble=off
    "$CKPTFS" assemble "$CHECKPOINT" -o "$RUN/out" --format bin
    [ "$(ckptfs_status_field generation)" -eq 2 ]
    of_plain_disk "$RUN/out" --format bin
    settle
    wait_until 20 stored_at_most $((21 << 20))
    end_and_check
}

@test "hundreds of tiny tensors take the room of their bytes" {
    mkdir -p "$RUN"
    shards save "$RUN" --shards 40 --mib 0 --in-place
    "$CKPTFS" assemble "$RUN" -o "$RUN/out" --format bin >/dev/null
    settle
    [ "$("$CKPTFS" du -b -s "$RUN/out" | awk 'NR == 2 { print ($2 < 200000) }')" = 1 ]
    "$CKPTFS" assemble --plain "$RUN" -o "$TEST_DIR/plain" --format bin >/dev/null
    cmp "$RUN/out/pytorch_model.bin" "$TEST_DIR/plain/pytorch_model.bin"
    end_and_check
}
