# SPDX-License-Identifier: Apache-2.0
# The optimizer's state of older checkpoints is given up where it shares files with weights: what stays can be read and
# assembled, what went is an error in every way, and no other file has lost a byte. The checkpoints are DeepSpeed's and
# torch.distributed.checkpoint's own (mixed_saves.py).

load ../crash/crash.bash
load life.bash

PYTHON=${CKPTFS_VENV:-$CKPTFS_TREE/build/venv}/bin/python

setup_file() {
    if [ ! -x "$PYTHON" ]; then
        echo "no Python at $PYTHON: contrib/setup --python makes the environment, CKPTFS_VENV names another"
        return 1
    fi
    export MIXED_SAVES=$BATS_FILE_TMPDIR/saves
    "$PYTHON" -B "$CKPTFS_TREE/tests/life/mixed_saves.py" save "$MIXED_SAVES" 1 2 3 >"$BATS_FILE_TMPDIR/log" 2>&1 || {
        tail -n 50 "$BATS_FILE_TMPDIR/log"
        return 1
    }
}

setup() { crash_setup; }
teardown() { ckptfs_teardown; }

# name_of KIND STEP: of the checkpoint, in the run and on the mount.
name_of() { if [ "$1" = dcp ]; then echo "$1/step-$2"; else echo "$1/checkpoint-$2"; fi; }

# bring STEP: a checkpoint into each run.
bring() {
    local kind
    for kind in zero2 zero3 dcp; do cp -r "$MIXED_SAVES/$(name_of $kind "$1")" "$MNT/$kind/"; done
    for kind in zero2 zero3 dcp; do wait_until 30 latest_is $kind "$(basename "$(name_of $kind "$1")")"; done
}

state_of() {
    "$CKPTFS" ls --json "$MNT/$1" | jq -r --argjson step "$2" '.[].checkpoints[] | select(.step == $step) | .state'
}
state_is() { [ "$(state_of "$1" "$2")" = "$3" ]; }

# The file of a checkpoint that has both.
mixed_file() {
    (cd "$MIXED_SAVES" && find "$(name_of "$1" "$2")" -name '*_optim_states.pt' -o -name '*.distcp')
}

# Reads of pages, as one letter each: what of the file is as it was saved, and what is an error. Nothing else may be.
# pages_of FILE SAVED
pages_of() { "$PYTHON" -ISB "$CKPTFS_TREE/tests/life/mixed_pages.py" "$@"; }

stored_bytes() { du -s -B1 "$STORE/objects" | cut -f1; }
objects_shrank() { [ "$(stored_bytes)" -lt "$1" ]; }

# All runs, each of three checkpoints, and the oldest of each has lost what it can.
shed_all() {
    local kind step
    disk_create ext4 256
    ckptfs_mount
    mkdir "$MNT/zero2" "$MNT/zero3" "$MNT/dcp"
    for step in 1 2 3; do bring $step; done
    "$CKPTFS" policy set "$MNT" shed=optimizer
    wait_until 30 nothing_waits
    BYTES_BEFORE=$(stored_bytes)
    # The space is needed.
    ckptfs_remount min-free=90%
    wait_until 60 all_have_shed
    for kind in zero2 zero3 dcp; do wait_until 30 state_is $kind 1 weights-only; done
}

# By the log: who looks at the checkpoints has them open.
all_have_shed() { [ "$(log_count 'was given up: the space is needed')" -ge 3 ]; }

nothing_waits() { [ "$(ckptfs_status_field unshared_files)" -eq 0 ]; }

# pages_are_lost KIND...: of each mixed file of the oldest checkpoints 7.8 MB are an error, and the rest is as it was.
pages_are_lost() {
    local kind file
    for kind in "$@"; do
        file=$(mixed_file $kind 1)
        run pages_of "$MNT/$file" "$MIXED_SAVES/$file"
        [ "$status" -eq 0 ] || { echo "$output"; return 1; }
        [ "${output% *}" -gt 7800000 ] && [ "${output#* }" -gt 3900000 ]
    done
}

# weights_are_whole COMMAND...: of the oldest checkpoints, as ckptfs assembles them, for mixed_saves.py.
weights_are_whole() {
    local kind pairs=()
    for kind in zero2 zero3 dcp; do
        "$CKPTFS" assemble --fp32 --force "$MNT/$(name_of $kind 1)" -o "$TEST_DIR/$kind"
        pairs+=("$MIXED_SAVES/$kind/1.expected" "$TEST_DIR/$kind/model.safetensors")
    done
    "$PYTHON" -B "$CKPTFS_TREE/tests/life/mixed_saves.py" "$@" "${pairs[@]}"
}

@test "DeepSpeed and torch.distributed.checkpoint: an optimizer's state beside weights is given up alone" {
    local kind file
    shed_all
    for kind in zero2 zero3 dcp; do
        state_is $kind 2 durable
        state_is $kind 3 durable
        file=$(mixed_file $kind 1)
        [ "$(getfattr --only-values -n user.ckptfs.state "$MNT/$file")" = shed ]
        [ "$(stat -c %s "$MNT/$file")" -eq "$(stat -c %s "$MIXED_SAVES/$file")" ]
        expect_refusal 1 'Input/output error' cp "$MNT/$file" "$TEST_DIR/copy"
        expect_refusal 1 'Input/output error' cp --sparse=always "$MNT/$file" "$TEST_DIR/copy"
        expect_refusal 1 'Input/output error' cp "$MNT/$file" "$MNT/copy"
        expect_refusal 1 'Input/output error' dd if=/dev/zero of="$MNT/$file" conv=notrunc count=1 status=none
    done
    pages_are_lost zero2 zero3 dcp
    # The disk has its blocks back, but for the chunks at the ends of each range.
    wait_until 30 objects_shrank $((BYTES_BEFORE - 3 * 6500000))
    # DeepSpeed's own tool maps the file, and reads what it needs.
    weights_are_whole read "$MNT/zero2/checkpoint-1" "$MNT/$(mixed_file zero2 1)" "$TEST_DIR/own/model.safetensors" \
        "$MIXED_SAVES/zero2/1.expected" "$TEST_DIR/own/model.safetensors"
    for kind in zero2 zero3 dcp; do
        cmp "$MNT/$(mixed_file $kind 2)" "$MIXED_SAVES/$(mixed_file $kind 2)"
    done
    "$CKPTFS" verify "$MNT"
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
    ckptfs_mount
    pages_are_lost zero2
}

# With status 1: it has changed something.
fsck_rebuilds() {
    local status=0
    "$CKPTFS" fsck --rebuild "$STORE" || status=$?
    [ "$status" -eq 1 ]
}

@test "what was given up beside weights stays so, through deaths, remounts and a rebuilt database" {
    long_only
    require_takeover
    shed_all
    crash_kill_daemon
    pages_are_lost zero2 zero3 dcp
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
    rm -f "$STORE"/meta.db "$STORE"/meta.db-*
    fsck_rebuilds
    ckptfs_mount
    pages_are_lost zero2 zero3 dcp
    weights_are_whole compare
    "$CKPTFS" verify "$MNT"
    [ "$(ckptfs_status_field damaged_ranges)" -eq 0 ]
}
