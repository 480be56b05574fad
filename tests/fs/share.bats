#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Files with equal bytes: who gives way to whom.

load ../lib/ckptfs.bash

setup() {
    ckptfs_setup
    ckptfs_mount
}

teardown() {
    cd /
    ckptfs_teardown
}

is_settled() {
    [ "$(ckptfs_status_field unshared_files)" -eq 0 ]
}

object_count_is() {
    [ "$(find "$STORE/objects" -type f ! -name '*.sum' | wc -l)" -eq "$1" ]
}

settle() {
    sync -f "$MNT"
    wait_until 60 is_settled
}

@test "a file that many checkpoints have is one object, and all of them read the same" {
    head -c 1000000 /dev/urandom >"$TEST_DIR/tokenizer.json"
    local i
    for i in $(seq 70); do
        mkdir "$MNT/checkpoint-$i"
        cp "$TEST_DIR/tokenizer.json" "$MNT/checkpoint-$i/"
    done
    sync "$MNT"/checkpoint-*/tokenizer.json
    settle
    wait_until 60 object_count_is 1
    for i in $(seq 70); do
        cmp "$TEST_DIR/tokenizer.json" "$MNT/checkpoint-$i/tokenizer.json"
    done
    # One more: the older ones stay where they are.
    local before
    before=$(find "$STORE/objects" -type f ! -name '*.sum')
    mkdir "$MNT/checkpoint-71"
    cp "$TEST_DIR/tokenizer.json" "$MNT/checkpoint-71/"
    sync "$MNT/checkpoint-71/tokenizer.json"
    settle
    wait_until 60 object_count_is 1
    [ "$before" = "$(find "$STORE/objects" -type f ! -name '*.sum')" ]
    ckptfs_remount
    for i in $(seq 71); do
        cmp "$TEST_DIR/tokenizer.json" "$MNT/checkpoint-$i/tokenizer.json"
    done
}

# A header of 8 KiB and random tensors.
write_safetensors() {
    python3 - "$1" <<'END'
import json, os, struct, sys

TENSORS, LENGTH = 100, 200000
header = json.dumps({f"layers.{i}.weight": {"dtype": "U8", "shape": [LENGTH],
                                            "data_offsets": [i * LENGTH, (i + 1) * LENGTH]} for i in range(TENSORS)})
header += " " * (8192 - len(header))
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("<Q", len(header)) + header.encode() + os.urandom(TENSORS * LENGTH))
END
}

@test "what has nothing but its header in common stays whole" {
    local i
    for i in 1 2; do
        write_safetensors "$TEST_DIR/$i"
        mkdir "$MNT/$i"
        cp "$TEST_DIR/$i" "$MNT/$i/model.safetensors"
        sync "$MNT/$i/model.safetensors"
        settle
    done
    # Whatever was let go is gone when this returns.
    "$CKPTFS" gc "$MNT"
    object_count_is 2
    [ "$(find "$STORE/objects" -type f ! -name '*.sum' -printf '%b\n' | sort -u | wc -l)" -eq 1 ]
    for i in 1 2; do cmp "$TEST_DIR/$i" "$MNT/$i/model.safetensors"; done
}
