#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What different users save stays apart.

load share.bash

setup() {
    share_setup
    ckptfs_mount allow_other
    chmod 777 "$MNT"
}
teardown() { ckptfs_teardown; }

user_saves() { run_as_user sh -c "cat '$PLAIN/$1' >'$MNT/$1' && sync '$MNT/$1'"; }

@test "equal bytes of two owners are not shared" {
    local size
    save a models safetensors
    settle
    cp "$PLAIN/a" "$PLAIN/b"
    user_saves b
    size=$(size_of "$PLAIN/a")
    settle
    same_bytes
    [ "$(stored_bytes)" -ge $((2 * size)) ]
    # Each owner's own are.
    cp "$PLAIN/a" "$PLAIN/c"
    user_saves c
    save d cp "$PLAIN/a"
    expect_stored $((2 * size))
    settle
    [ "$(stored_bytes)" -ge $((2 * size)) ]
}

@test "a file that was given away stays right, and is not shared with its old owner's" {
    local size
    save a models safetensors
    settle
    save b cp "$PLAIN/a"
    size=$(size_of "$PLAIN/a")
    expect_stored "$size"
    settle
    # a and b are one object now: b changes hands, and changes.
    chown nobody "$MNT/b"
    same_bytes
    run_as_user dd if=/dev/zero of="$MNT/b" bs=1M count=2 seek=1 conv=notrunc,fsync status=none
    dd if=/dev/zero of="$PLAIN/b" bs=1M count=2 seek=1 conv=notrunc status=none
    settle
    same_bytes
    save c cp "$PLAIN/a"
    settle
    same_bytes
    drop a
    same_bytes
    drop c
    expect_stored "$size" 25
    drop b
    wait_until $SHARE_DEADLINE stored_at_most 65536
}

@test "chown while it is being hashed" {
    local number
    for number in 1 2 3 4 5 6; do
        save "file-$number" models safetensors
        chown nobody "$MNT/file-$number"
        same_bytes
        if [ $((number % 2)) -eq 0 ]; then chown root "$MNT/file-$number"; fi
    done
    settle
    same_bytes
    [ "$(stat -c %U "$MNT/file-1" "$MNT/file-2" | xargs)" = "nobody root" ]
    rm -r "$MNT"/* "${PLAIN:?}"/*
    wait_until $SHARE_DEADLINE stored_at_most 65536
}
