#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# share-owners=yes: different users share bytes, and notice nothing of each other but that.

load share.bash

setup() {
    require_root
    require_command setpriv
    share_setup
    mount_for_all
}
teardown() { ckptfs_teardown; }

ONE=daemon OTHER=nobody
MIB=$((1024 * 1024))

mount_for_all() {
    ckptfs_mount allow_other share-owners=yes
    chmod 777 "$MNT"
}

# as USER COMMAND...
as() { CKPTFS_TEST_USER=$1 run_as_user "${@:2}"; }

# saves USER NAME COMMAND WORD [OPTION...]: as `save`, by the user.
saves() {
    local user=$1 name=$2
    shift 2
    "${@:1:2}" "$PLAIN/$name" "${@:3}"
    as "$user" sh -c "cat '$PLAIN/$name' >'$MNT/$name' && sync '$MNT/$name'"
}

# What a user is told of a file of his.
figures() {
    local figure
    for figure in stored unique extents hash; do
        echo "$figure $(as "$1" getfattr --absolute-names --only-values -n "user.ckptfs.$figure" "$2" 2>&1)"
    done
    as "$1" "$CKPTFS" du -b "$2"
    as "$1" "$CKPTFS" du --json "$2"
    as "$1" stat -c '%i %s %b %Y %Z' "$2"
}

attribute() { getfattr --absolute-names --only-values -n "user.ckptfs.$1" "$2"; }

# One user saves a, the other the same as b: `size` is what the store has of both.
saves_both() {
    saves $ONE a models safetensors
    settle
    saves $OTHER b cp "$PLAIN/a"
    size=$(size_of "$PLAIN/a")
    expect_stored "$size"
    settle
}

@test "what two users saved is stored once, and stays each one's own" {
    local size
    saves_both
    # Neither writes into the other's file, whichever is the whole object.
    as $ONE dd if=/dev/zero of="$MNT/a" bs=1M count=2 seek=1 conv=notrunc,fsync status=none
    dd if=/dev/zero of="$PLAIN/a" bs=1M count=2 seek=1 conv=notrunc status=none
    same_bytes
    as $OTHER dd if=/dev/zero of="$MNT/b" bs=1M count=2 seek=4 conv=notrunc,fsync status=none
    dd if=/dev/zero of="$PLAIN/b" bs=1M count=2 seek=4 conv=notrunc status=none
    same_bytes
    as $OTHER truncate -s $((3 * MIB)) "$MNT/b"
    truncate -s $((3 * MIB)) "$PLAIN/b"
    settle
    same_bytes
    run as $ONE dd if=/dev/zero of="$MNT/b" bs=1 count=1 conv=notrunc status=none
    [ "$status" -ne 0 ]
    run as $OTHER rm "$PLAIN/a"
    [ "$status" -ne 0 ]
    [ "$(stat -c %U "$MNT/a" "$MNT/b" | xargs)" = "$ONE $OTHER" ]
    ckptfs_remount allow_other share-owners=yes
    same_bytes
}

@test "what one user deletes, the other still has" {
    local size
    saves_both
    as $OTHER rm "$MNT/b"
    rm "$PLAIN/b"
    settle
    expect_stored "$size"
    saves $OTHER b cp "$PLAIN/a"
    saves root c cp "$PLAIN/a"
    expect_stored "$size"
    settle
    as $ONE rm "$MNT/a"
    rm "$PLAIN/a" "$PLAIN/c" "$MNT/c"
    expect_stored "$size"
    ckptfs_remount allow_other share-owners=yes
    same_bytes
    rm "$MNT/b" "$PLAIN/b"
    wait_until $SHARE_DEADLINE stored_at_most 65536
}

@test "tensors of one user's model in another's" {
    local ideal
    saves $ONE a models safetensors
    settle
    saves $OTHER b models safetensors --changed 2,5 --with-seed 77 --note 999
    ideal=$((($(size_of "$PLAIN/a") / 1000 / 1024 + 2) * 1000 * 1024))
    expect_stored $ideal
    settle
    # The newer one is whole.
    [ "$(attribute extents "$MNT/b")" -eq 1 ]
    [ "$(attribute extents "$MNT/a")" -gt 1 ]
    # A third user's gives both of them a new place.
    saves root c models safetensors --changed 2 --with-seed 77
    expect_stored $ideal
    settle
    [ "$(attribute extents "$MNT/c")" -eq 1 ]
    ckptfs_remount allow_other share-owners=yes
    same_bytes
    drop b
    drop c
    expect_stored "$(size_of "$PLAIN/a")"
}

@test "no figure tells a user that somebody else has such bytes" {
    saves $ONE a models safetensors
    saves $ONE own models safetensors --changed 9 --with-seed 1
    settle
    figures $ONE "$MNT/a" >"$TEST_DIR/a.before"
    figures $ONE "$MNT/own" >"$TEST_DIR/own.before"
    saves $OTHER equal cp "$PLAIN/a"
    settle
    saves $OTHER part models safetensors --changed 0,3,7 --with-seed 2 --note 77
    settle
    figures $OTHER "$MNT/part" >"$TEST_DIR/part"
    cat "$TEST_DIR/part"
    same_bytes
    # It was shared.
    [ "$(attribute unique "$MNT/a")" -eq 0 ]
    [ "$(attribute extents "$MNT/a")" -gt 1 ]
    figures $ONE "$MNT/a" | diff "$TEST_DIR/a.before" -
    figures $ONE "$MNT/own" | diff "$TEST_DIR/own.before" -
    grep -q '^extents .*No such attribute' "$TEST_DIR/part"
    grep -q '^hash .*No such attribute' "$TEST_DIR/part"
    grep -q '"extents":\s*0' "$TEST_DIR/part"
    # Nor on a mount without the option, where what was shared stays so.
    ckptfs_remount allow_other
    figures $ONE "$MNT/a" | diff "$TEST_DIR/a.before" -
    # And not when the others are gone.
    rm "$MNT/equal" "$MNT/part"
    settle
    figures $ONE "$MNT/a" | diff "$TEST_DIR/a.before" -
}

@test "bytes of two owners whose hashes are equal and that are not stay apart, and the log says so" {
    saves $ONE a models safetensors
    settle
    ckptfs_umount
    flip_byte "$(the_object)" 500000
    mount_for_all
    saves $OTHER b cp "$PLAIN/a"
    settle
    cmp "$PLAIN/a" "$MNT/b"
    [ "$(cmp -l "$PLAIN/a" "$MNT/a" | wc -l)" -eq 1 ]
    grep -q "are not the same" "$CKPTFS_LOG"
    [ "$(stored_bytes)" -ge $((2 * $(size_of "$PLAIN/a"))) ]
    # A third one is shared with the one that it equals.
    saves root c cp "$PLAIN/a"
    expect_stored_bytes $((2 * $(size_of "$PLAIN/a")))
    settle
    [ "$(cmp -l "$PLAIN/a" "$MNT/a" | wc -l)" -eq 1 ]
    cmp "$PLAIN/a" "$MNT/b"
    cmp "$PLAIN/a" "$MNT/c"
}

@test "between files of one owner the hash is enough" {
    saves $ONE a models safetensors
    settle
    ckptfs_umount
    flip_byte "$(the_object)" 500000
    mount_for_all
    saves $ONE b cp "$PLAIN/a"
    expect_stored "$(size_of "$PLAIN/a")"
}

@test "where another owner has a part in the older object, bytes are compared" {
    saves $ONE a models safetensors
    settle
    saves $OTHER b cp "$PLAIN/a"
    expect_stored "$(size_of "$PLAIN/a")"
    settle
    ckptfs_umount
    flip_byte "$(the_object)" 500000
    mount_for_all
    # Of the user who has the older file too.
    saves $ONE c cp "$PLAIN/a"
    settle
    cmp "$PLAIN/a" "$MNT/c"
    [ "$(cmp -l "$PLAIN/a" "$MNT/a" | wc -l)" -eq 1 ]
    [ "$(cmp -l "$PLAIN/a" "$MNT/b" | wc -l)" -eq 1 ]
    grep -q "are not the same" "$CKPTFS_LOG"
}

@test "a file that a user has open is left until it is not" {
    saves $ONE a models safetensors
    settle
    exec 9<"$MNT/a"
    saves $OTHER b cp "$PLAIN/a"
    same_bytes
    cmp "$PLAIN/a" - <&9
    exec 9<&-
    expect_stored "$(size_of "$PLAIN/a")"
}

@test "so many files of several owners that the newest gives way" {
    local number size
    models safetensors "$TEST_DIR/model" --tensors 4 --kib 64
    size=$(size_of "$TEST_DIR/model")
    for number in $(seq 70); do
        if [ $((number % 2)) -eq 0 ]; then
            saves $ONE "file-$number" cp "$TEST_DIR/model"
        else
            saves $OTHER "file-$number" cp "$TEST_DIR/model"
        fi
    done
    expect_stored "$size"
    settle
    saves root last cp "$TEST_DIR/model"
    expect_stored "$size"
    settle
    ckptfs_remount allow_other
    same_bytes
}

@test "without the option on a later mount nothing more is shared between owners" {
    local size
    saves_both
    ckptfs_remount allow_other
    same_bytes
    saves root c cp "$PLAIN/a"
    settle
    [ "$(stored_bytes)" -ge $((2 * size)) ]
    # What one owner has is his, though the older file is in an object that another one shares.
    saves $OTHER d cp "$PLAIN/a"
    settle
    [ "$(attribute extents "$MNT/a")" -eq 1 ]
    same_bytes
}
