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

# start_reader PATH: a program that has PATH open, and says the sum of what it sees when its input ends, and how many
# names that has.
start_reader() {
    mkfifo "$TEST_DIR/go"
    python3 - "$1" "$TEST_DIR/go" >"$TEST_DIR/seen" 2>&1 3>&- <<'END' &
import hashlib, os, sys

with open(sys.argv[1], "rb", buffering=0) as file:
    file.read(1)
    os.fstat(file.fileno())
    print("open", flush=True)
    open(sys.argv[2]).read()
    names = os.fstat(file.fileno()).st_nlink  # before it is read: that has the kernel ask
    file.seek(0)
    print(hashlib.md5(file.read()).hexdigest(), names)
END
    READER=$!
    wait_until 30 grep -q open "$TEST_DIR/seen"
}

# end_reader PATH: by passthrough it has seen nothing but what was there when it began, which has no name any more; else
# it sees what is there now.
end_reader() {
    local seen=$TEST_DIR/old names=0
    if [ "$(ckptfs_status_field features.passthrough)" != true ]; then seen=$1 names=$(stat -c %h "$1"); fi
    : >"$TEST_DIR/go"
    wait "$READER"
    [ "$(tail -n 1 "$TEST_DIR/seen")" = "$(md5sum <"$seen" | cut -d ' ' -f 1) $names" ]
}

@test "a shared file is changed under its readers by any of its names" {
    head -c 3000000 /dev/urandom >"$TEST_DIR/old"
    mkdir "$MNT/1" "$MNT/2"
    cp "$TEST_DIR/old" "$MNT/1/weights"
    sync "$MNT/1/weights"
    settle
    cp "$TEST_DIR/old" "$MNT/2/weights"
    sync "$MNT/2/weights"
    settle
    local first="$MNT/1/weights" names=("$MNT/1/alias" "$MNT/2/alias" "$MNT/alias")
    local name
    for name in "${names[@]}"; do ln "$first" "$name"; done
    stat "${names[@]}" "$MNT"/*/ >/dev/null
    start_reader "${names[0]}"
    cp "$TEST_DIR/old" "$TEST_DIR/new"
    printf changed | tee >(dd of="$TEST_DIR/new" bs=1 seek=1000 conv=notrunc status=none) |
        dd of="$first" bs=1 seek=1000 conv=notrunc status=none
    for name in "$first" "${names[@]}"; do
        cmp "$TEST_DIR/new" "$name"
        [ "$(stat -c %i:%h "$name")" = "$(stat -c %i:4 "$first")" ]
    done
    for name in "${names[@]}"; do
        printf '%s' "$name" | tee -a "$TEST_DIR/new" >>"$name"
        cmp "$TEST_DIR/new" "$first"
    done
    truncate -s 12345 "$TEST_DIR/new" "${names[1]}"
    for name in "$first" "${names[@]}"; do cmp "$TEST_DIR/new" "$name"; done
    cmp "$TEST_DIR/old" "$MNT/2/weights"
    end_reader "$first"
    ckptfs_remount
    for name in "$first" "${names[@]}"; do cmp "$TEST_DIR/new" "$name"; done
}

@test "a shared file is truncated by name under its readers" {
    head -c 3000000 /dev/urandom >"$TEST_DIR/old"
    cp "$TEST_DIR/old" "$MNT/first"
    sync "$MNT/first"
    settle
    cp "$TEST_DIR/old" "$MNT/second"
    sync "$MNT/second"
    settle
    ln "$MNT/first" "$MNT/alias"
    stat "$MNT/first" "$MNT/alias" >/dev/null
    start_reader "$MNT/first"
    python3 -c 'import os, sys; os.truncate(sys.argv[1], 5000)' "$MNT/alias"
    cp "$TEST_DIR/old" "$TEST_DIR/new"
    truncate -s 5000 "$TEST_DIR/new"
    cmp "$TEST_DIR/new" "$MNT/first"
    cmp "$TEST_DIR/new" "$MNT/alias"
    cmp "$TEST_DIR/old" "$MNT/second"
    end_reader "$MNT/first"
}
