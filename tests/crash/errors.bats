# SPDX-License-Identifier: Apache-2.0
# What a user gets wrong: one line with the cause and the next step, an exit code of its own, and nothing lost.

load crash.bash

setup() { crash_setup; }
teardown() { ckptfs_teardown; }

store_with_a_file() {
    ckptfs_mount
    echo kept >"$MNT/file"
    head -c 100k /dev/urandom >"$MNT/object"
    ckptfs_umount
}

store_is_intact() {
    ckptfs_mount
    [ "$(cat "$MNT/file")" = kept ]
    [ "$(stat -c %s "$MNT/object")" -eq 102400 ]
}

@test "the mountpoint is missing" {
    expect_refusal 10 "$TEST_DIR/nothing" "$CKPTFS" mount "$STORE" "$TEST_DIR/nothing"
    # A mount that was refused makes no store.
    [ -z "$(ls -A "$STORE")" ]
}

@test "the mountpoint is a file" {
    touch "$TEST_DIR/file"
    expect_refusal 11 "not a directory" "$CKPTFS" mount "$STORE" "$TEST_DIR/file"
}

@test "something is mounted on the mountpoint" {
    ckptfs_mount
    mkdir "$TEST_DIR/other"
    expect_refusal 12 "mount" "$CKPTFS" mount "$TEST_DIR/other" "$MNT"
    touch "$MNT/still-there"
}

@test "two mounts of one store" {
    ckptfs_mount
    echo kept >"$MNT/file"
    mkdir "$TEST_DIR/mnt2"
    expect_refusal 23 "mounted|in use" "$CKPTFS" mount "$STORE" "$TEST_DIR/mnt2"
    [ "$(cat "$MNT/file")" = kept ]
    ckptfs_umount
    ckptfs_mount_at "$STORE" "$TEST_DIR/mnt2"
    [ "$(cat "$TEST_DIR/mnt2/file")" = kept ]
}

@test "two mounts of one store, by another path to it" {
    ckptfs_mount
    ln -s store "$TEST_DIR/link"
    mkdir "$TEST_DIR/mnt2"
    expect_refusal 23 "mounted|in use" "$CKPTFS" mount "$TEST_DIR/link" "$TEST_DIR/mnt2"
}

@test "a dead mount left by a crash" {
    ckptfs_mount
    echo kept >"$MNT/file"
    head -c 100k /dev/urandom >"$MNT/object"
    # shellcheck disable=SC2046
    kill -9 $(ckptfs_processes)
    wait_until 20 ckptfs_no_processes
    ckptfs_is_mounted
    expect_refusal 13 "umount" "$CKPTFS" mount "$STORE" "$MNT"
    # The next step that it names works.
    "$CKPTFS" umount "$MNT"
    expect_failure ckptfs_is_mounted
    store_is_intact
}

@test "FUSE is not available" {
    expect_refusal 14 "/dev/fuse" unshare -m sh -c \
        "mount --bind /dev/null /dev/fuse && exec \"$CKPTFS\" mount \"$STORE\" \"$MNT\""
}

@test "a directory with other things in it is no store" {
    echo precious >"$STORE/thesis.txt"
    expect_refusal 20 "not a ckptfs store.*thesis.txt" "$CKPTFS" mount "$STORE" "$MNT"
    [ "$(ls -A "$STORE")" = thesis.txt ]
}

@test "a file is no store" {
    echo precious >"$TEST_DIR/file"
    expect_refusal 20 "director" "$CKPTFS" mount "$TEST_DIR/file" "$MNT"
    [ "$(cat "$TEST_DIR/file")" = precious ]
}

@test "a store of a newer version" {
    store_with_a_file
    cp "$STORE/ckptfs.json" "$TEST_DIR/ckptfs.json"
    jq '(.. | numbers | select(. == 1)) |= 99' "$TEST_DIR/ckptfs.json" >"$STORE/ckptfs.json"
    expect_failure cmp -s "$TEST_DIR/ckptfs.json" "$STORE/ckptfs.json"
    expect_refusal 21 "newer" "$CKPTFS" mount "$STORE" "$MNT"
    cp "$TEST_DIR/ckptfs.json" "$STORE/ckptfs.json"
    store_is_intact
}

@test "a database of a newer version" {
    require_command sqlite3
    store_with_a_file
    sqlite3 "$STORE/meta.db" "UPDATE format SET version = version + 98"
    expect_refusal 21 "newer" "$CKPTFS" mount "$STORE" "$MNT"
    sqlite3 "$STORE/meta.db" "UPDATE format SET version = version - 98"
    store_is_intact
}

@test "a store on a read-only disk" {
    disk_create ext4 64
    store_with_a_file
    mount -o remount,ro "$DISK"
    expect_refusal 22 "read-only|not writable" "$CKPTFS" mount "$STORE" "$MNT"
    mount -o remount,rw "$DISK"
    ckptfs_mount
    [ "$(cat "$MNT/file")" = kept ]
}

@test "a store of another user" {
    store_with_a_file
    chmod 700 "$STORE"
    chown nobody "$MNT"
    local code=0
    run_as_user "$CKPTFS" mount "$STORE" "$MNT" 2>"$TEST_DIR/err" || code=$?
    cat "$TEST_DIR/err"
    [ "$code" -eq 22 ]
    [ "$(wc -l <"$TEST_DIR/err")" -eq 1 ]
    chown root "$MNT"
    store_is_intact
}

@test "objects without their meta.db are never taken for a new store" {
    store_with_a_file
    mv "$STORE/meta.db" "$TEST_DIR/meta.db"
    rm -f "$STORE"/meta.db-*
    expect_refusal 24 "meta.db" "$CKPTFS" mount "$STORE" "$MNT"
    [ ! -e "$STORE/meta.db" ]
    # Not even when all else that marks a store is gone too.
    mkdir "$TEST_DIR/saved"
    find "$STORE" -mindepth 1 -maxdepth 1 ! -name objects -exec mv -t "$TEST_DIR/saved" {} +
    expect_refusal 24 "meta.db" "$CKPTFS" mount "$STORE" "$MNT"
    mv "$TEST_DIR"/saved/* "$STORE"
    mv "$TEST_DIR/meta.db" "$STORE"
    store_is_intact
}

@test "a damaged database" {
    store_with_a_file
    cp "$STORE/meta.db" "$TEST_DIR/meta.db"
    head -c 4096 /dev/urandom | dd of="$STORE/meta.db" conv=notrunc status=none
    local _
    for _ in 1 2 3 4 5; do
        expect_refusal 25 "meta.db|damaged" "$CKPTFS" mount "$STORE" "$MNT"
        expect_failure mountpoint -q "$MNT" # nothing is left, at once
    done
    cp "$TEST_DIR/meta.db" "$STORE/meta.db"
    store_is_intact
}

@test "a damaged ckptfs.json" {
    store_with_a_file
    cp "$STORE/ckptfs.json" "$TEST_DIR/ckptfs.json"
    echo '{"version": ' >"$STORE/ckptfs.json"
    expect_refusal 25 "ckptfs.json" "$CKPTFS" mount "$STORE" "$MNT"
    cp "$TEST_DIR/ckptfs.json" "$STORE/ckptfs.json"
    store_is_intact
}

@test "umount and status of something that is no mount" {
    mkdir "$TEST_DIR/other"
    expect_refusal 30 "no ckptfs is mounted" "$CKPTFS" umount "$TEST_DIR/other"
    expect_refusal 30 "no ckptfs is mounted" "$CKPTFS" status "$TEST_DIR/other"
}

@test "umount while a process uses the mount" {
    ckptfs_mount
    exec 8>"$MNT/open"
    expect_refusal 31 "busy|use" "$CKPTFS" umount "$MNT"
    echo still >&8
    exec 8>&-
    ckptfs_umount
}

@test "a wrong option, a missing argument, an unknown command" {
    expect_refusal 2 "sparkling" "$CKPTFS" mount -o sparkling "$STORE" "$MNT"
    expect_refusal 2 "mountpoint|usage|argument" "$CKPTFS" mount "$STORE"
    expect_refusal 2 "frobnicate" "$CKPTFS" frobnicate
}

@test "a copy of the mount in another namespace: umount says who has it, and waits for its end" {
    local holder unmounter
    ckptfs_mount
    echo kept >"$MNT/file"
    # shellcheck disable=SC2016 # the inner shell expands it
    in_mount_namespace sh -c ': >"$1" && exec sleep 1000' sh "$TEST_DIR/copied" 3>&- &
    holder=$!
    wait_until 20 test -e "$TEST_DIR/copied"
    expect_refusal 32 "not finished" "$CKPTFS" umount --timeout 1 "$MNT"
    ckptfs_mount_at "$TEST_DIR/other" "$MNT"
    ckptfs_umount
    kill "$holder"
    wait_until 20 ckptfs_no_processes

    ckptfs_mount
    # shellcheck disable=SC2016 # the inner shell expands it
    in_mount_namespace sh -c 'rm "$1" && exec sleep 1000' sh "$TEST_DIR/copied" 3>&- &
    holder=$!
    wait_until 20 test ! -e "$TEST_DIR/copied"
    "$CKPTFS" umount "$MNT" 2>"$TEST_DIR/said" 3>&- &
    unmounter=$!
    wait_until 30 grep -q "process $holder (sleep)" "$TEST_DIR/said"
    kill "$holder"
    wait "$unmounter"
    ckptfs_mount
    [ "$(cat "$MNT/file")" = kept ]
}
