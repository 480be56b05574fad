# SPDX-License-Identifier: Apache-2.0
# Models are assembled from checkpoints that the real libraries wrote, and given to the same libraries again. One
# test here is one pytest module; what it counts is printed.
# The Python environment is CKPTFS_VENV (default: build/venv, which contrib/setup --python makes).

load ../lib/ckptfs.bash
load ../lib/loaded.bash

setup_file() { loaded_start; }
teardown_file() { loaded_end; }
setup() { ckptfs_setup; }
teardown() { ckptfs_teardown; }

# run_module NAME: runs one pytest module, with its files under TEST_DIR.
run_module() {
    local status=0
    # Its own output last: bats shows it when the test failed.
    loaded_python 600 1 -mpytest -p no:cacheprovider -v --tb=short --basetemp="$TEST_DIR/pytest" \
        "$CKPTFS_TREE/tests/assemble/$1.py" >"$TEST_DIR/pytest.log" 2>&1 || status=$?
    sed -nE '/ (PASSED|FAILED|ERROR|SKIPPED)|^=+ .*(passed|failed|error|skipped)/s/^/# /p' "$TEST_DIR/pytest.log" >&3
    if [ $status -ne 0 ]; then
        tail -n 150 "$TEST_DIR/pytest.log"
        return 1
    fi
}

@test "models that save_pretrained and torch.save wrote" {
    run_module test_models
}

@test "every type, every rounding" {
    run_module test_types
}

@test "how files are written: modes, names, memory, full disks, signals" {
    run_module test_writing
}

@test "what ranks saved: torch.distributed.checkpoint, FSDP" {
    run_module test_dcp
}

@test "DeepSpeed: ZeRO, BF16_Optimizer, pipelines, tensor parallelism, adapters, and what is damaged" {
    run_module test_deepspeed
}

@test "XLA FSDP: parameters one by one, by rows, flattened, and what is damaged" {
    run_module test_xla_fsdp
}

@test "SageMaker: whole models, parts of the optimizer, partial saves" {
    run_module test_sagemaker
}

@test "which of a Trainer's checkpoints are complete, and when" {
    run_module test_complete
}

@test "which checkpoints of ranks are complete" {
    run_module test_complete_ranks
}

@test "whether a model would load: by its architecture, by a base model, or not checked" {
    run_module test_loadable
}

@test "damaged and hostile checkpoints" {
    run_module test_hostile
}

@test "checkpoints damaged where their structure lies" {
    run_module test_mutations
}

@test "models drawn at random, against the libraries' own tools" {
    run_module test_random
}

# As many as there are, one checkpoint after the other is saved, looked at and assembled where it can be; all bytes stay readable.
@test "checkpoints damaged where their structure lies, on a mount" {
    local seed=${CKPTFS_TEST_SEED:-$RANDOM} count=4 kind made=$BATS_FILE_TMPDIR/distributed-2
    if [ -n "${CKPTFS_TEST_LONG-}" ]; then count=40; fi
    [ -d "$made" ] || loaded_python 240 1 "$CKPTFS_TREE/tests/assemble/dcp_saves.py" "$made" 2 >"$TEST_DIR/saves" 2>&1
    ckptfs_mount
    for kind in bare nested hf checkpoint-7 fsdp1 shards whole; do
        python3 -W ignore "$CKPTFS_TREE/tests/assemble/mutations.py" "$made/$kind" "$TEST_DIR/plain/$kind" "$seed" $count
        cp -a "$TEST_DIR/plain/$kind" "$MNT/$kind"
    done
    wait_until 60 all_is_looked_at
    timeout 60 "$CKPTFS" ls "$MNT" >/dev/null
    timeout 60 ls -lR "$MNT/.ckptfs/models" >/dev/null
    # What is assembled besides is no file of the plain tree's.
    (cd "$TEST_DIR/plain" && find . -type f -size +0) | while IFS= read -r kind; do
        cmp "$TEST_DIR/plain/$kind" "$MNT/$kind"
    done
    timeout 60 find "$MNT/.ckptfs/models" -name '*.safetensors' -type f -exec cat {} + >/dev/null
    [ "$(ckptfs_status_field generation)" -eq 1 ]
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

all_is_looked_at() {
    "$CKPTFS" status --json "$MNT" |
        jq -e 'if type == "array" then .[0] else . end | .unshared_files == 0 and .behind_files == 0 and
            .unassembled_directories == 0 and .uncompared_directories == 0' >/dev/null
}

@test "what lies on a mount is assembled as on any disk, from it and into it" {
    mkdir "$TEST_DIR/source"
    cd "$TEST_DIR"
    make_source 4096
    ckptfs_mount
    cp -r source "$MNT/source"
    "$CKPTFS" inspect --json "$MNT/source" | jq -e '.whole and .bytes == 67108864'
    "$CKPTFS" assemble --plain source -o plain
    "$CKPTFS" assemble "$MNT/source" -o from
    "$CKPTFS" assemble --plain "$MNT/source" -o "$MNT/into"
    cmp plain/model.safetensors from/model.safetensors
    cmp plain/model.safetensors "$MNT/into/model.safetensors"
    ckptfs_umount
}

@test "a disk that is full is left as it was" {
    [ "$(id -u)" -eq 0 ] || skip "needs root to mount a disk"
    mkdir "$TEST_DIR/source" "$TEST_DIR/small"
    cd "$TEST_DIR"
    make_source 4096
    mount -t tmpfs -o size=20M tmpfs small
    local code=0 left
    "$CKPTFS" assemble --plain source -o small/out 2>message || code=$?
    left=$(find small -mindepth 1)
    umount small
    cat message
    [ $code -eq 26 ]
    grep -q 'model.safetensors: No space left on device' message
    [ -z "$left" ]
}

# The disk of the test can share blocks between files: nothing is copied.
@test "what lies alike in its blocks is shared, on a disk that can" {
    [ "$(id -u)" -eq 0 ] || skip "needs root to mount a disk"
    require_command mkfs.xfs
    truncate -s 400M "$TEST_DIR/disk"
    mkfs.xfs -q -m reflink=1 "$TEST_DIR/disk"
    mkdir "$TEST_DIR/xfs"
    mount -o loop "$TEST_DIR/disk" "$TEST_DIR/xfs" || skip "no loop device"
    local status=0
    (cd "$TEST_DIR/xfs" && share_blocks) || status=$?
    umount "$TEST_DIR/xfs"
    return $status
}

# make_source START: a model of 64 MiB whose tensor starts at this byte.
make_source() {
    "$PYTHON" - "$1" <<'EOF'
import json, os, struct, sys
size, start = 1 << 26, int(sys.argv[1])
header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
with open("source/model.safetensors", "wb") as file:
    file.write(struct.pack("<Q", start - 8) + header.ljust(start - 8) + os.urandom(size))
EOF
}

share_blocks() {
    local start
    mkdir source
    make_source 4096 && "$CKPTFS" assemble --plain source -o made || return
    start=$(($(stat -c %s made/model.safetensors) - (1 << 26)))
    # Where a block of the one is a block of the other.
    make_source $((start + 8192)) && "$CKPTFS" assemble --plain source -o made --force >report || return
    cat report
    grep -qE ' KiB copied, 6(3\.9|4\.0) MiB shared with the source' report || return
    cmp <(tail -c $((1 << 26)) source/model.safetensors) <(tail -c $((1 << 26)) made/model.safetensors)
}
