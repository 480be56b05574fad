#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# `ckptfs export`: models on the plain disk, whole or not at all, from any disk and from a mount.

load ../views/views.bash

setup_file() {
    export EXPORT_MODELS=$BATS_FILE_TMPDIR/models
    python_of "$CKPTFS_TREE/tests/assemble/exported.py" save "$EXPORT_MODELS" 1 2 3 4
}

setup() {
    views_setup
    OUT=$TEST_DIR/out
    cd "$TEST_DIR"
}
teardown() { cd / && ckptfs_teardown; }

python_of() {
    local python=${CKPTFS_VENV:-$CKPTFS_TREE/build/venv}/bin/python
    [ -x "$python" ] || {
        echo "no Python at $python: contrib/setup --python makes the environment, CKPTFS_VENV names another"
        return 1
    }
    timeout 300 "$python" -B "$@"
}
exported() { python_of "$CKPTFS_TREE/tests/assemble/exported.py" "$@"; }
export_() { "$CKPTFS" export "$@"; }

# Nothing but exports and links lies in OUT (or the argument).
nothing_hidden() { [ -z "$(find "${1:-$OUT}" -maxdepth 1 -name '.?*' -not -path "${1:-$OUT}")" ]; }

sums_hold() { (cd "$1" && sha256sum --quiet -c SHA256SUMS); }

# one_file DIRECTORY MIB [SEED]: a model in shards, which is exported as one file with --max-shard-size 1TB.
one_file() {
    mkdir -p "$1"
    shards save "$1" --mib "$2" --seed "${3:-0}"
}

@test "standard files are exported byte for byte, with sums, facts and links" {
    export_ "$EXPORT_MODELS/checkpoint-2" "$OUT/deep/er" --link latest --link served --verify
    local at=$OUT/deep/er/checkpoint-2 name
    for name in "$EXPORT_MODELS/checkpoint-2"/*; do cmp "$name" "$at/${name##*/}"; done
    sums_hold "$at"
    [ "$(wc -l <"$at/SHA256SUMS")" -eq "$(find "$EXPORT_MODELS/checkpoint-2" -type f | wc -l)" ]
    jq -e --arg from "$EXPORT_MODELS/checkpoint-2" '.checkpoint == $from and .step == 2 and .framework == "sharded" and
        .dtype == "bfloat16" and .read_back and (.exported | fromdateiso8601 > 0)' "$at/ckptfs-export.json"
    [ "$(readlink "$OUT/deep/er/latest")" = checkpoint-2 ]
    [ "$(readlink "$OUT/deep/er/served")" = checkpoint-2 ]
    nothing_hidden "$OUT/deep/er"
}

@test "the same again writes nothing; other bytes under the name take its place whole" {
    cp -r "$EXPORT_MODELS/checkpoint-1" checkpoint-1
    export_ checkpoint-1 "$OUT"
    local before
    before=$(stat -c %i "$OUT/checkpoint-1/model.safetensors")
    export_ checkpoint-1 "$OUT" --json | jq -e '.unchanged and .copied_bytes == 0'
    # The same bytes, written anew.
    cp "$EXPORT_MODELS/checkpoint-1/model.safetensors" checkpoint-1/model.safetensors
    export_ checkpoint-1 "$OUT" --json | jq -e '.unchanged'
    [ "$(stat -c %i "$OUT/checkpoint-1/model.safetensors")" = "$before" ]
    cp "$EXPORT_MODELS/checkpoint-3/model.safetensors" checkpoint-1/model.safetensors
    export_ checkpoint-1 "$OUT" --json | jq -e '.replaced and (.unchanged | not)'
    cmp checkpoint-1/model.safetensors "$OUT/checkpoint-1/model.safetensors"
    nothing_hidden
    # What the disk has lost of it since is seen on request.
    printf X | dd of="$OUT/checkpoint-1/model.safetensors" bs=1 seek=9000 conv=notrunc status=none
    export_ checkpoint-1 "$OUT" --json | jq -e '.unchanged'
    export_ checkpoint-1 "$OUT" --verify --json | jq -e '.unchanged | not'
    cmp checkpoint-1/model.safetensors "$OUT/checkpoint-1/model.safetensors"
}

@test "what is another's is not replaced, what is incomplete not exported" {
    cp -r "$EXPORT_MODELS/checkpoint-1" checkpoint-1
    cp -r "$EXPORT_MODELS/checkpoint-2" checkpoint-2
    mkdir -p "$OUT/mine" "$OUT/dir"
    echo kept >"$OUT/mine/file"
    refused "is there already and is no export" export_ checkpoint-1 "$OUT" --name mine
    refused "is there and is no symbolic link" export_ checkpoint-1 "$OUT" --link dir
    [ ! -e "$OUT/checkpoint-1" ]
    export_ checkpoint-1 "$OUT"
    mkdir other
    cp -r "$EXPORT_MODELS/checkpoint-3" other/checkpoint-1
    refused "out/checkpoint-1 is an export of $TEST_DIR/checkpoint-1" export_ other/checkpoint-1 out
    export_ other/checkpoint-1 "$OUT" --name other-1
    export_ other/checkpoint-1 "$OUT" --force
    cmp other/checkpoint-1/model.safetensors "$OUT/checkpoint-1/model.safetensors"
    [ "$(cat "$OUT/mine/file")" = kept ]
    rm checkpoint-2/model-00002-of-*
    refused "nothing is exported" export_ checkpoint-2 "$OUT"
    touch checkpoint-1/checkpoint-is-incomplete.txt
    refused "checkpoint-1 is not complete" export_ checkpoint-1 "$OUT" --name new
    refused "cannot be that of an export" export_ / "$OUT"
    refused "expected a name" export_ checkpoint-1 "$OUT" --name ../x
    nothing_hidden
}

@test "type, shards and format are chosen" {
    export_ "$EXPORT_MODELS/checkpoint-2" "$OUT" --name one --max-shard-size 5GB
    [ -e "$OUT/one/model.safetensors" ]
    export_ "$EXPORT_MODELS/checkpoint-1" "$OUT" --name fp32 --dtype fp32 --max-shard-size 200KB
    [ -e "$OUT/fp32/model.safetensors.index.json" ]
    export_ "$EXPORT_MODELS/checkpoint-1" "$OUT" --name bin --format bin --dtype auto
    [ -e "$OUT/bin/pytorch_model.bin" ]
    # What lies there besides comes on request only.
    cp -r "$EXPORT_MODELS/checkpoint-1" checkpoint-1
    mkdir checkpoint-1/global
    echo optimizer | tee checkpoint-1/optimizer.pt >checkpoint-1/global/states
    export_ checkpoint-1 "$OUT" --force
    [ ! -e "$OUT/checkpoint-1/optimizer.pt" ]
    export_ checkpoint-1 "$OUT" --force --all --verify
    cmp checkpoint-1/global/states "$OUT/checkpoint-1/global/states"
    sums_hold "$OUT/checkpoint-1"
    export_ "$EXPORT_MODELS/checkpoint-2" "$OUT" --name all --all --max-shard-size 5GB
    [ -z "$(find "$OUT/all" -name 'model-*' -o -name '*.index.json')" ]
    local name
    for name in one fp32 bin checkpoint-1; do sums_hold "$OUT/$name"; done
}

@test "what is exported in another form loads" {
    long_only
    export_ "$EXPORT_MODELS/checkpoint-2" "$OUT" --name one --max-shard-size 5GB
    export_ "$EXPORT_MODELS/checkpoint-1" "$OUT" --name fp32 --dtype fp32 --max-shard-size 200KB
    export_ "$EXPORT_MODELS/checkpoint-1" "$OUT" --name bin --format bin --dtype auto
    [ "$(cd "$OUT" && exported value one fp32 bin 2>/dev/null)" = "2.0 1.0 1.0" ]
}

@test "a killed export is gone on with, and what is there already is not written again" {
    one_file model 64
    export_ model "$TEST_DIR/whole" --max-shard-size 1TB
    CKPTFS_FAULT=export.write:kill:14 export_ model "$OUT" --max-shard-size 1TB && return 1
    # Nothing is to be seen yet.
    [ -z "$(ls "$OUT")" ]
    local built=$OUT/.ckptfs-export-model/model.safetensors before
    before=$(stat -c %i "$built")
    export_ model "$OUT" --max-shard-size 1TB --verify --json >outcome
    cat outcome
    jq -e '.resumed_bytes >= 32 * 1048576 and .copied_bytes + .made_bytes <= .bytes - .resumed_bytes' outcome
    [ "$(stat -c %i "$OUT/model/model.safetensors")" = "$before" ]
    cmp whole/model/model.safetensors "$OUT/model/model.safetensors"
    sums_hold "$OUT/model"
    nothing_hidden
}

@test "what an interrupted export left is believed only where it is borne out" {
    one_file model 64
    export_ model "$TEST_DIR/whole" --max-shard-size 1TB
    local built=$OUT/.ckptfs-export-model/model.safetensors
    CKPTFS_FAULT=export.write:kill:14 export_ model "$OUT" --max-shard-size 1TB && return 1
    # Other bytes where some were stable.
    printf X | dd of="$built" bs=1 seek=5000000 conv=notrunc status=none
    export_ model "$OUT" --max-shard-size 1TB --json | jq -e '.resumed_bytes < 1048576'
    cmp whole/model/model.safetensors "$OUT/model/model.safetensors"
    # Another checkpoint.
    CKPTFS_FAULT=export.write:kill:14 export_ model "$OUT" --name next --max-shard-size 1TB && return 1
    one_file model 64 2
    export_ model "$OUT" --name next --max-shard-size 1TB --json | jq -e '.resumed_bytes == 0'
    shards same "$OUT/next/model.safetensors" --mib 64 --seed 2
    nothing_hidden
}

@test "a kill at any step leaves the old export or the new one, whole" {
    cp -r "$EXPORT_MODELS/checkpoint-1" checkpoint-1
    export_ checkpoint-1 "$OUT" --link latest
    local fault
    for fault in export.write:kill:2 export.publish:kill export.published:kill; do
        cp "$EXPORT_MODELS/checkpoint-3/model.safetensors" checkpoint-1/
        CKPTFS_FAULT=$fault export_ checkpoint-1 "$OUT" --link latest && return 1
        sums_hold "$OUT/latest"
        export_ checkpoint-1 "$OUT" --link latest
        cmp checkpoint-1/model.safetensors "$OUT/latest/model.safetensors"
        nothing_hidden
        cp "$EXPORT_MODELS/checkpoint-1/model.safetensors" checkpoint-1/
        export_ checkpoint-1 "$OUT"
    done
}

@test "a full disk is told in one line, shows nothing half-done, and is gone on with" {
    require_root
    one_file model 44
    mkdir small
    mount -t tmpfs -o size=38M tmpfs small
    local code=0
    export_ model small --max-shard-size 1TB 2>message || code=$?
    cat message
    [ $code -eq 26 ]
    [ "$(wc -l <message)" -eq 1 ]
    grep -q 'small/model/model.safetensors: No space left on device; what is written is kept' message
    [ -z "$(ls small)" ]
    mount -o remount,size=80M small
    export_ model small --max-shard-size 1TB --json | jq -e '.resumed_bytes >= 32 * 1048576'
    shards same small/model/model.safetensors --mib 44
    nothing_hidden small
    umount small
}

@test "one export of a name at a time" {
    one_file model 8
    mkdir "$OUT"
    exec 7>"$OUT/.ckptfs-export-model.lock"
    flock 7
    local code=0
    export_ model "$OUT" --no-wait 2>message || code=$?
    cat message
    [ $code -eq 36 ]
    grep -q "another export of it is under way" message
    export_ model "$OUT" 2>waiting 7>&- &
    local first=$!
    wait_until 60 grep -q "waiting for its end" waiting
    [ ! -e "$OUT/model" ]
    exec 7>&-
    wait $first
    export_ model "$OUT" --no-wait
    nothing_hidden
}

@test "a checkpoint that changes meanwhile is not exported" {
    one_file model 8
    mkdir "$OUT"
    exec 7>"$OUT/.ckptfs-export-model.lock"
    flock 7
    export_ model "$OUT" 2>message 7>&- &
    local first=$! code=0
    # It has looked at the checkpoint.
    wait_until 60 grep -q "waiting for its end" message
    one_file model 8 2
    exec 7>&-
    wait $first || code=$?
    cat message
    [ $code -eq 1 ]
    grep -q "model was changed while it was exported" message
    [ ! -e "$OUT/model" ]
    export_ model "$OUT"
    nothing_hidden
}

# turn N: checkpoint-1 is replaced by other bytes, and the links lead to another checkpoint.
turn() {
    cp "$EXPORT_MODELS/checkpoint-$(($1 % 2 * 2 + 1))/model.safetensors" run/checkpoint-1/
    cp "$EXPORT_MODELS/checkpoint-$(($1 % 2 * 2 + 2))"/model-* run/checkpoint-2/
    export_ run/checkpoint-1 "$OUT" --link served --link single --quiet
    export_ run/checkpoint-2 "$OUT" --link served --quiet
    export_ run/checkpoint-3 "$OUT" --link single --quiet
}

@test "readers of links that exports replace see whole models only" {
    mkdir run
    cp -r "$EXPORT_MODELS"/checkpoint-{1,2,3} run
    turn 0
    exported read "$OUT/served" "$OUT/single" 8 >loads 2>log &
    local reader=$! i=0 deadline=$((SECONDS + 240))
    while kill -0 $reader 2>/dev/null && [ $SECONDS -lt $deadline ]; do
        turn $((i++))
    done
    wait $reader || {
        cat log
        return 1
    }
    echo "# $(cat loads), during $i turns" >&3
    # What the reader had locked goes with the next export.
    export_ run/checkpoint-1 "$OUT"
    export_ run/checkpoint-2 "$OUT"
    nothing_hidden
}

@test "the disk shares blocks where it can" {
    require_root
    require_command mkfs.xfs
    truncate -s 400M disk
    mkfs.xfs -q -m reflink=1 disk
    mkdir xfs
    mount -o loop disk xfs || skip "no loop device"
    mkdir xfs/model
    (cd xfs && shards save model --mib 60 && export_ model out --verify --json) >outcome
    cat outcome
    jq -e '.copied_bytes < 65536 and .shared_bytes > 62 * 1000000' outcome
    sums_hold xfs/out/model
    umount xfs
}

@test "from a mount: shards are assembled, hashes checked, nothing is written to the mount" {
    ckptfs_mount
    cp -r "$EXPORT_MODELS" "$MNT/run"
    python_of "$CKPTFS_TREE/tests/views/distributed.py" "$MNT/run/fsdp/checkpoint-9" \
        "$VIEW/run/fsdp/checkpoint-9" || return 1
    settle
    export_ "$MNT/run/checkpoint-2" "$OUT" --verify --link latest --json >outcome
    cat outcome
    jq -e '.store_hashes_checked and .read_back' outcome
    sums_hold "$OUT/latest"
    # The later step stays the latest.
    export_ "$MNT/run/checkpoint-1" "$OUT" --link latest
    [ "$(readlink "$OUT/latest")" = checkpoint-2 ]
    # Of a run, the latest that is known to be whole.
    refused "no checkpoint of it is complete" export_ "$MNT/run" "$OUT" --pick latest
    local step
    for step in 1 2 3; do
        echo "{\"global_step\": $step, \"best_model_checkpoint\": \"run/checkpoint-1\", \"log_history\": []}" \
            >"$MNT/run/checkpoint-$step/trainer_state.json"
    done
    export_ "$MNT/run" "$OUT" --pick latest --link latest
    [ "$(readlink "$OUT/latest")" = checkpoint-3 ]
    export_ "$MNT/run" "$OUT" --pick best --link best
    [ "$(readlink "$OUT/best")" = checkpoint-1 ]
    export_ "$MNT/run/fsdp/checkpoint-9" "$OUT"
    sums_hold "$OUT/checkpoint-9"
    [ -e "$OUT/checkpoint-9/model.safetensors" ]
    refused "exports go to the plain disk" export_ "$MNT/run/checkpoint-1" "$MNT/run"
    # Mounted elsewhere, it is the same checkpoint.
    ckptfs_umount
    mkdir elsewhere
    ckptfs_mount_at "$STORE" "$TEST_DIR/elsewhere"
    export_ elsewhere/run/checkpoint-2 "$OUT" --json | jq -e .unchanged
    ckptfs_umount "$TEST_DIR/elsewhere"
}

@test "of a run the checkpoint is picked that a job would resume from, where there is one" {
    local run=$TEST_DIR/plain/run
    python3 "$CKPTFS_TREE/tests/lib/checkpoint.py" "$run" 5 7 --bytes 1000
    rm "$run/checkpoint-7"/*.pt "$run/checkpoint-7"/*.pth
    export_ "$run" "$OUT" --pick latest --link latest
    [ "$(readlink "$OUT/latest")" = checkpoint-5 ]
    rm "$run/checkpoint-5"/*.pt "$run/checkpoint-5"/*.pth
    export_ "$run" "$OUT" --pick latest --link latest
    [ "$(readlink "$OUT/latest")" = checkpoint-7 ]
}

@test "damage in the store is not exported" {
    ckptfs_mount
    one_file "$MNT/model" 20
    settle
    ckptfs_umount
    local object
    object=$(find "$STORE/objects" -type f ! -name '*.sum*' -size +4M | head -n 1)
    printf X | dd of="$object" bs=1 seek=3000000 conv=notrunc status=none
    ckptfs_mount
    local code=0
    export_ "$MNT/model" "$OUT" --verify 2>message || code=$?
    cat message
    [ $code -eq 4 ]
    grep -q "not what the store's hashes say" message
    [ ! -e "$OUT/model" ]
    ckptfs_umount
}

@test "another user exports what he may read, where he may write" {
    require_root
    cp -r "$EXPORT_MODELS/checkpoint-1" checkpoint-1
    chmod -R go-rwx checkpoint-1
    mkdir -m 777 open
    mkdir -m 755 closed
    cp -r "$EXPORT_MODELS/checkpoint-3" checkpoint-3
    chmod -R a+rX checkpoint-3
    refused "Permission denied" run_as_user "$CKPTFS" export checkpoint-1 open
    refused "Permission denied" run_as_user "$CKPTFS" export checkpoint-3 closed
    run_as_user "$CKPTFS" export checkpoint-3 open
    [ "$(stat -c %U open/checkpoint-3/model.safetensors)" = "$(stat -c %U open/checkpoint-3)" ]
    [ "$(stat -c %u open/checkpoint-3)" = "$(id -u "${CKPTFS_TEST_USER:-nobody}")" ]
    # What somebody else has begun there is not gone on with.
    mkdir open/.ckptfs-export-other
    refused "is another user's" run_as_user "$CKPTFS" export checkpoint-3 open --name other
}
