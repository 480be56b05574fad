#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Shards, and the whole model file that is saved beside them, before or after: their tensors are stored once. The saves
# are the real libraries'; the Python environment is CKPTFS_VENV (default: build/venv, which contrib/setup --python makes).

load share.bash
load ../lib/loaded.bash

setup_file() { if [ -x "$PYTHON" ]; then loaded_start; fi; }
teardown_file() { loaded_end; }
setup() {
    [ -x "$PYTHON" ] || skip "needs a Python environment in CKPTFS_VENV"
    share_setup
    # What is removed here is complete, and its space is measured at once.
    export CKPTFS_MOUNT_OPTIONS=${CKPTFS_MOUNT_OPTIONS:+$CKPTFS_MOUNT_OPTIONS,}trash=off
    # 42 MB in 19 tensors, which no number of ranks divides.
    SIZES=(--hidden 600 --vocabulary 3001 --layers 2)
}
teardown() { ckptfs_teardown; }

run_library() {
    loaded_python 240 1 "$SHARE_TREE/whole_saves.py" "$1" "$2" "${SIZES[@]}" "${@:3}" >"$TEST_DIR/saves" 2>&1 || {
        cat "$TEST_DIR/saves"
        return 1
    }
}

# saves KIND PATH [OPTION...]: the libraries take seconds to start, so what is saved once is copied after that, and a file
# that was found to be as expected is known by its hash.
saves() {
    local key kept name=${2##*/} hash=''
    local new=$BATS_FILE_TMPDIR/new.${name##*.}
    if [ "$1" = expect ]; then hash=$(sha256sum <"$2"); fi
    key=$(printf '%s\n' "$1" "${name##*.}" "$hash" "${SIZES[@]}" "${@:3}" | sha256sum | cut -c 1-32)
    kept=$BATS_FILE_TMPDIR/$key
    if [ ! -e "$kept" ]; then
        if [ "$1" = expect ]; then
            run_library "$@"
            touch "$kept"
        else
            rm -rf "$new"
            run_library "$1" "$new" "${@:3}"
            mv "$new" "$kept"
        fi
    fi
    [ "$1" = expect ] || {
        mkdir -p "$(dirname "$2")"
        cp -r "$kept" "$2"
    }
}

# put NAME: what PLAIN has of that name is saved on the mount.
put() {
    mkdir -p "$(dirname "$MNT/$1")"
    cp -r "$PLAIN/$1" "$MNT/$1"
    find "$MNT/$1" -type f -exec sync {} +
}

all_is_compared() {
    "$CKPTFS" status --json "$MNT" |
        jq -e 'if type == "array" then .[0] else . end | .unshared_files == 0 and .behind_files == 0 and
            .unassembled_directories == 0 and .uncompared_directories == 0' >/dev/null
}
settle_all() { wait_until 60 all_is_compared; }

# expect_once IDEAL [PERCENT]: it comes to that, 5 % of the equal bytes may be stored twice.
expect_once() {
    settle_all
    expect_stored "$1" "${2:-5}"
}

# expect_view DIRECTORY [OPTION...]: the assembled file of the shards is still that model.
expect_view() { saves expect "$MNT/.ckptfs/models/$1/model.safetensors" --prefix "" "${@:2}"; }

# The store is sound, and every byte is what it was.
expect_sound() {
    same_bytes
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
    "$CKPTFS" verify "$STORE"
    ckptfs_mount "$@"
    same_bytes
}

# in_both_orders KIND [OPTION...]: the whole file is in the run's last directory; after its shards, and before. The
# assembled file has no name beside the shards, as the trees are compared.
in_both_orders() {
    local size order
    saves "$1" "$PLAIN/run/checkpoint-7" "${@:2}"
    saves whole "$PLAIN/run/final/model.safetensors"
    size=$(size_of "$PLAIN/run/final/model.safetensors")
    for order in "checkpoint-7 final" "final checkpoint-7"; do
        ckptfs_mount assemble=view
        for name in $order; do
            put "run/$name"
            settle_all
        done
        expect_once "$size"
        expect_view run/checkpoint-7
        expect_sound assemble=view
        expect_view run/checkpoint-7
        rm -r "${MNT:?}/run"
        wait_until 20 stored_at_most 65536
        ckptfs_umount
    done
}

@test "shards of FSDP and the whole model: 2 ranks" {
    long_only
    in_both_orders dcp --world 2
}

@test "shards of FSDP and the whole model: 7 ranks" {
    in_both_orders dcp --world 7
}

@test "partitions of ZeRO-3 and the whole model: 5 ranks" {
    in_both_orders zero3 --world 5
}

# Of each piece, blocks at its ends; of each partition, padding; tensors of a few bytes: little is alive of the shards, and
# it keeps no more than itself.
@test "small shards of FSDP and the whole model: 7 ranks" {
    SIZES=(--hidden 251 --vocabulary 1001 --layers 2)
    in_both_orders dcp --world 7
}

@test "small partitions of ZeRO-3 and the whole model: 7 ranks" {
    SIZES=(--hidden 127 --vocabulary 501 --layers 2)
    in_both_orders zero3 --world 7
}

@test "both at once, in one checkpoint, as the Trainer's SHARDED and then FULL save leave it" {
    local size
    ckptfs_mount sharing=forward
    saves dcp "$PLAIN/run/checkpoint-7/pytorch_model_fsdp_0" --world 3
    saves whole "$PLAIN/run/checkpoint-7/model.safetensors"
    put run/checkpoint-7
    size=$(size_of "$PLAIN/run/checkpoint-7/model.safetensors")
    expect_once "$size"
    expect_sound sharing=forward
    # The shards go, the file stays, and the other way round.
    drop run/checkpoint-7/pytorch_model_fsdp_0
    expect_once "$size" 1
    expect_sound sharing=forward
}

@test "the shards outlive the whole model" {
    local size
    ckptfs_mount
    saves dcp "$PLAIN/run/checkpoint-7" --world 3
    saves whole "$PLAIN/run/whole.safetensors"
    put run/checkpoint-7
    put run/whole.safetensors
    size=$(size_of "$PLAIN/run/whole.safetensors")
    expect_once "$size"
    drop run/whole.safetensors
    settle_all
    expect_view run/checkpoint-7
    expect_sound
    expect_view run/checkpoint-7
}

@test "torch's format, in several files, with the names of a wrapper" {
    long_only
    local size
    ckptfs_mount
    saves dcp "$PLAIN/run/step-7" --world 3
    saves whole "$PLAIN/run/step-7-whole/pytorch_model.bin" --prefix module.
    saves whole "$PLAIN/run/step-7-parts/model-00001-of-00002.safetensors" --part 1
    saves whole "$PLAIN/run/step-7-parts/model-00002-of-00002.safetensors" --part 2
    put run/step-7
    put run/step-7-whole
    put run/step-7-parts
    size=$(size_of "$PLAIN/run/step-7-whole/pytorch_model.bin")
    expect_once "$size"
    expect_view run/step-7
    expect_sound
}

@test "columns: rows of 4 KiB are shared, shorter ones are not" {
    local size
    SIZES=(--hidden 900 --vocabulary 3001 --layers 1)
    ckptfs_mount
    # A row of down_proj is 9604 bytes, of which a rank has 4804 or 4800; one of o_proj is 3600.
    saves dcp "$PLAIN/run/long" --world 2 --columns down_proj
    saves dcp "$PLAIN/run/short" --world 2 --columns o_proj
    saves whole "$PLAIN/run/final/model.safetensors"
    put run/long
    put run/short
    settle_all
    put run/final
    size=$(size_of "$PLAIN/run/final/model.safetensors")
    # The shards keep their o_proj; the models that are assembled of both, with columns put in order, need nothing.
    expect_once $((size + 900 * 900 * 4))
    [ "$(stored_bytes)" -ge $((size + 900 * 900 * 4)) ]
    expect_view run/long
    expect_view run/short
    expect_sound
    expect_view run/long
    expect_view run/short
}

@test "only what is equal: another step of which some tensors are frozen" {
    local whole
    ckptfs_mount
    saves whole "$PLAIN/run/final/model.safetensors"
    saves dcp "$PLAIN/run/other" --world 3 --seed 9
    put run/final
    put run/other
    whole=$(size_of "$PLAIN/run/final/model.safetensors")
    settle_all
    [ "$(stored_bytes)" -ge $((2 * whole)) ]
    same_bytes
    saves dcp "$PLAIN/run/frozen" --world 3 --changed mlp --with-seed 9
    put run/frozen
    # All that it has is in the one or the other.
    expect_once $((2 * whole))
    expect_view run/other --seed 9
    expect_view run/frozen --changed mlp --with-seed 9
    expect_sound
}

@test "a whole model that is open gives way when it is closed" {
    local size
    ckptfs_mount
    saves dcp "$PLAIN/run/checkpoint-7" --world 3
    saves whole "$PLAIN/run/final/model.safetensors"
    size=$(size_of "$PLAIN/run/final/model.safetensors")
    put run/final
    settle_all
    exec 8<"$MNT/run/final/model.safetensors"
    put run/checkpoint-7
    wait_until $SHARE_DEADLINE share_is_settled
    same_bytes
    exec 8<&-
    expect_once "$size"
    expect_sound
}

@test "another owner's model stays apart" {
    local size
    require_root
    ckptfs_mount allow_other
    chmod 777 "$MNT"
    saves dcp "$PLAIN/run/checkpoint-7" --world 3
    saves whole "$PLAIN/run/model.safetensors"
    put run/checkpoint-7
    chmod 777 "$MNT/run"
    chmod 644 "$PLAIN/run/model.safetensors"
    run_as_user sh -c "cat '$PLAIN/run/model.safetensors' >'$MNT/run/model.safetensors' && sync '$MNT/run/model.safetensors'"
    settle_all
    size=$(size_of "$PLAIN/run/model.safetensors")
    [ "$(stored_bytes)" -ge $((2 * size)) ]
    # Where owners share, they do.
    ckptfs_remount allow_other,share-owners=yes
    touch "$MNT/run/touched.bin"
    saves whole "$PLAIN/run/again.safetensors"
    put run/again.safetensors
    rm "$MNT/run/touched.bin"
    expect_once "$size"
    expect_sound allow_other,share-owners=yes
}

@test "sharing=off compares nothing, and the next mount does" {
    local size
    ckptfs_mount sharing=off
    saves dcp "$PLAIN/run/checkpoint-7" --world 3
    saves whole "$PLAIN/run/final/model.safetensors"
    put run/checkpoint-7
    put run/final
    settle_all
    size=$(size_of "$PLAIN/run/final/model.safetensors")
    [ "$(stored_bytes)" -ge $((2 * size)) ]
    ckptfs_remount
    expect_once "$size"
    expect_view run/checkpoint-7
    expect_sound
}

# survives_a_death SIZE [MOUNT_OPTION...]: of a daemon on a mount with that option, which is there.
survives_a_death() {
    local size=$1
    shift
    put run/checkpoint-7
    put run/final
    wait_until 40 daemon_has_died
    expect_once "$size"
    expect_view run/checkpoint-7
    umount_dying
    "$CKPTFS" fsck "$STORE"
    "$CKPTFS" verify "$STORE"
    ckptfs_mount "$@"
    same_bytes
    rm -r "${MNT:?}/run"
    ckptfs_umount
}

@test "death while it is compared, and while files give way" {
    local point size
    require_takeover
    saves dcp "$PLAIN/run/checkpoint-7" --world 3
    saves whole "$PLAIN/run/final/model.safetensors"
    size=$(size_of "$PLAIN/run/final/model.safetensors")
    for point in fs.share.ranges:1 fs.share:1 fs.share:2 fs.share:3 fs.punch:2; do
        echo "--- $point"
        CKPTFS_FAULT_STARTS=1 CKPTFS_FAULT=${point%:*}:kill:${point#*:} ckptfs_mount
        survives_a_death "$size"
    done
}

@test "death while what is left of shards is written anew" {
    local point size points=(commit:2 done:1)
    require_takeover
    if [ -n "${CKPTFS_TEST_LONG-}" ]; then points=(row:1 create:1 write:2 sync:1 sums:1 summed:2 commit:1 commit:3 done:1 done:2); fi
    SIZES=(--hidden 127 --vocabulary 501 --layers 2)
    saves zero3 "$PLAIN/run/checkpoint-7" --world 7
    saves whole "$PLAIN/run/final/model.safetensors"
    size=$(size_of "$PLAIN/run/final/model.safetensors")
    for point in "${points[@]}"; do
        echo "--- $point"
        CKPTFS_FAULT_STARTS=1 CKPTFS_FAULT=fs.repack.${point%:*}:kill:${point#*:} ckptfs_mount assemble=view
        survives_a_death "$size" assemble=view
    done
}

@test "an unmount in the middle, and errors of the disk: the next mount compares" {
    local size
    saves dcp "$PLAIN/run/checkpoint-7" --world 3
    saves whole "$PLAIN/run/final/model.safetensors"
    size=$(size_of "$PLAIN/run/final/model.safetensors")
    CKPTFS_FAULT=fs.share.ranges:EIO:1+ ckptfs_mount
    put run/checkpoint-7
    put run/final
    wait_until $SHARE_DEADLINE share_is_settled
    same_bytes
    ckptfs_umount
    ckptfs_mount
    expect_once "$size"
    expect_view run/checkpoint-7
    expect_sound
}
