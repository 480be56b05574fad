#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# ckptfs fsck: finding what is broken in a store, mending it, and rebuilding its database.

bats_require_minimum_version 1.5.0
load ../lib/ckptfs.bash

setup() {
    ckptfs_setup
    require_command sqlite3
    require_command jq
}
teardown() { ckptfs_teardown; }

# Files that share bytes, clones, hard links, links, small files, holes, extended attributes.
make_tree() {
    mkdir -p "$MNT/run/checkpoint-1" "$MNT/run/checkpoint-2/deep"
    head -c 3000000 /dev/urandom >"$MNT/run/checkpoint-1/model"
    # Sharing compares what was hashed: the second one is written later.
    wait_until 20 nothing_waits
    cp --reflink=never "$MNT/run/checkpoint-1/model" "$MNT/run/checkpoint-2/model"
    head -c 700000 /dev/urandom >>"$MNT/run/checkpoint-2/model"
    cp --reflink=auto "$MNT/run/checkpoint-2/model" "$MNT/run/clone"
    ln "$MNT/run/checkpoint-2/model" "$MNT/run/checkpoint-2/deep/link"
    ln -s checkpoint-2 "$MNT/run/latest"
    printf 'small\n' >"$MNT/run/config.json"
    truncate -s 5M "$MNT/run/sparse"
    printf 'end' >>"$MNT/run/sparse"
    touch "$MNT/run/empty"
    head -c 200000 /dev/zero | tr '\0' x >"$MNT/run/odd name"$'\n\xff'
    wait_until 20 nothing_waits
}

nothing_waits() {
    [ "$(ckptfs_status_field unshared_files)" -eq 0 ] && [ "$(ckptfs_status_field behind_files)" -eq 0 ]
}

# Mounts, makes the tree, notes its sums in the file sums, unmounts.
make_store() {
    ckptfs_mount
    make_tree
    (cd "$MNT" && find . -type f -print0 | sort -z | xargs -0 sha256sum -z) >"$TEST_DIR/sums"
    ckptfs_umount
}

# Every file that the sums name is there and the same.
files_are_the_same() {
    # shellcheck disable=SC2016
    (cd "$MNT" && xargs -0 -n1 sh -c '
        sum=${1%%  *} path=${1#*  }
        [ "$(sha256sum <"$path")" = "$sum  -" ] || { echo "$path differs"; exit 255; }' - <"$TEST_DIR/sums")
}

# sql STATEMENT: runs it on the store's database, and prints what it gives.
sql() {
    sqlite3 "$STORE/meta.db" "$1"
}

# fsck_ends CODE ARGUMENT...: the exit code; what it prints is in the file out.
fsck_ends() {
    local expected=$1 code=0
    shift
    "$CKPTFS" fsck "$@" "$STORE" >"$TEST_DIR/out" 2>"$TEST_DIR/err" || code=$?
    [ "$code" -eq "$expected" ] || {
        echo "expected exit code $expected, found $code"
        cat "$TEST_DIR/out" "$TEST_DIR/err"
        return 1
    }
}

@test "a store that was used in every way is clean" {
    make_store
    fsck_ends 0
    grep -q 'clean$' "$TEST_DIR/out"
    fsck_ends 0 --json
    jq -e '.exit_code == 0 and .findings == [] and .left == 0 and .inodes > 8' "$TEST_DIR/out"
    fsck_ends 0 --repair
    ckptfs_mount
    files_are_the_same
    ckptfs_umount
}

@test "a store that was killed has nothing but notes" {
    ckptfs_mount
    make_tree
    exec 9>"$MNT/open"
    echo data >&9
    rm "$MNT/open"
    local keeper daemon
    keeper=$(ckptfs_keeper_pid) daemon=$(ckptfs_daemon_pid)
    kill -9 "$keeper" "$daemon"
    exec 9>&-
    wait_until 30 ckptfs_no_processes
    umount -l "$MNT"
    fsck_ends 0
    grep -q '\[not-closed: note\]' "$TEST_DIR/out"
    run ! grep -E 'repairable|left\]' "$TEST_DIR/out"
}

@test "a mounted store is refused, and what is no store too" {
    ckptfs_mount
    fsck_ends 8
    grep -q "in use" "$TEST_DIR/err"
    ckptfs_umount
    mkdir "$TEST_DIR/nothing"
    run -8 "$CKPTFS" fsck "$TEST_DIR/nothing"
    [ -z "$(ls -A "$TEST_DIR/nothing")" ]
    run -8 "$CKPTFS" fsck "$TEST_DIR/not-there"
    [ ! -e "$TEST_DIR/not-there" ]
    run -16 "$CKPTFS" fsck
    run -16 "$CKPTFS" fsck --nonsense "$STORE"
}

@test "what is broken in the tables is found, mended and not found again" {
    make_store
    sql "UPDATE inode SET nlink = 9 WHERE ino = (SELECT ino FROM name WHERE name = cast('clone' AS BLOB));
        DELETE FROM name WHERE name = cast('checkpoint-1' AS BLOB);
        INSERT INTO name VALUES (1, cast('ghost' AS BLOB), 800, 99999);
        INSERT INTO xattr VALUES (99999, x'61', x'62');
        DELETE FROM object WHERE id = (SELECT min(object) FROM extent)"
    fsck_ends 4
    grep -q 'clone).*\[nlink: repairable\]' "$TEST_DIR/out"
    grep -q '(/ghost).*\[name-inode: repairable\]' "$TEST_DIR/out"
    grep -q 'directory-lost: repairable' "$TEST_DIR/out"
    fsck_ends 4 # nothing was changed
    fsck_ends 1 --repair --json
    jq -e '.repaired >= 5 and .left == 0 and (.findings | map(.state) | unique) == ["repaired"]' "$TEST_DIR/out"
    [ -e "$STORE/meta.db.before-repair-1" ]
    fsck_ends 0
    ckptfs_mount
    local lost
    lost=$(ls "$MNT/lost+found")
    mv "$MNT/lost+found/$lost" "$MNT/run/checkpoint-1"
    files_are_the_same
    ckptfs_umount
    fsck_ends 0
}

@test "an object file that is missing is told with its files, and left" {
    make_store
    local object
    object=$(sql "SELECT printf('%016x', e.object) FROM extent e JOIN name n ON n.ino = e.ino
        WHERE n.name = cast('clone' AS BLOB) LIMIT 1")
    find "$STORE/objects" -name "$object" -delete
    fsck_ends 4 --repair
    grep "(/run/clone).*object $object.*missing.*\[extent-missing: left\]" "$TEST_DIR/out"
    [ ! -e "$STORE/meta.db.before-repair-1" ]
}

@test "an object file that no row knows is told, and left alone" {
    make_store
    mkdir -p "$STORE/objects/ab"
    echo stray >"$STORE/objects/ab/000000000000ab00"
    fsck_ends 4
    grep -q 'counter: repairable' "$TEST_DIR/out"
    fsck_ends 1 --repair
    grep -q 'object 000000000000ab00: .*6 bytes.*\[stray: note\]' "$TEST_DIR/out"
    [ -e "$STORE/objects/ab/000000000000ab00" ]
    fsck_ends 0
}

@test "a page of meta.db that was overwritten" {
    make_store
    local pages
    pages=$(sql 'PRAGMA page_count')
    dd if=/dev/urandom of="$STORE/meta.db" bs=1024 seek=$((pages / 2)) count=4 conv=notrunc status=none
    fsck_ends 4
    grep -q '\[database: left\]' "$TEST_DIR/out"
    grep -q -- '--rebuild' "$TEST_DIR/err"
    fsck_ends 1 --rebuild
    [ -e "$STORE/meta.db.damaged-1" ]
    fsck_ends 0
    ckptfs_mount
    files_are_the_same
    ckptfs_umount
}

@test "meta.db is gone: every file of the backup comes back" {
    make_store
    rm "$STORE"/meta.db*
    run ! ckptfs_mount
    # shellcheck disable=SC2154
    grep -q -- 'fsck --rebuild' <<<"$output"
    fsck_ends 8
    fsck_ends 1 --rebuild
    fsck_ends 0
    ckptfs_mount
    files_are_the_same
    [ ! -e "$MNT/lost+found" ]
    ckptfs_umount
    # What is sound is not taken back to a backup.
    fsck_ends 8 --rebuild
    [ ! -e "$STORE/meta.db.damaged-1" ]
}

@test "what is in no backup comes back as files of /lost+found" {
    make_store
    ckptfs_mount
    head -c 1000000 /dev/urandom >"$TEST_DIR/later"
    cp "$TEST_DIR/later" "$MNT/later"
    printf more >>"$MNT/run/sparse"
    sync "$MNT/later" "$MNT/run/sparse"
    local daemon keeper
    keeper=$(ckptfs_keeper_pid) daemon=$(ckptfs_daemon_pid)
    kill -9 "$keeper" "$daemon"
    wait_until 30 ckptfs_no_processes
    umount -l "$MNT"
    rm "$STORE"/meta.db* "$STORE"/manifests/*.journal*
    fsck_ends 1 --rebuild --json
    jq -e '.recovered_objects == 1 and (.actions | length) > 0' "$TEST_DIR/out"
    fsck_ends 0
    ckptfs_mount
    # What was appended after the backup is there; without it the file is as it was.
    [ "$(tail -c 7 "$MNT/run/sparse")" = endmore ]
    truncate -s -4 "$MNT/run/sparse"
    files_are_the_same
    local lost=("$MNT"/lost+found/object-*)
    [ ${#lost[@]} -eq 1 ]
    cmp "${lost[0]}" "$TEST_DIR/later"
    [ "$(stat -c %a "${lost[0]}")" = 600 ]
    # New files do not get the numbers of what was recovered.
    head -c 100000 /dev/urandom >"$MNT/new"
    cmp "${lost[0]}" "$TEST_DIR/later"
    ckptfs_umount
    fsck_ends 0
}

@test "no backup is good: the objects come back without their names" {
    ckptfs_mount
    head -c 1000000 /dev/urandom >"$TEST_DIR/one"
    cp "$TEST_DIR/one" "$MNT/one"
    ckptfs_umount
    rm "$STORE"/meta.db* "$STORE"/manifests/*
    echo nonsense >"$STORE/manifests/meta.db.backup"
    fsck_ends 1 --rebuild
    grep -q 'damaged too' "$TEST_DIR/err"
    ckptfs_mount
    cmp "$MNT"/lost+found/object-* "$TEST_DIR/one"
    ckptfs_umount
}

@test "the newest backup is damaged: the one before it is taken" {
    make_store
    ckptfs_mount
    touch "$MNT/later"
    ckptfs_umount
    [ -e "$STORE/manifests/meta.db.backup.1" ]
    truncate -s 5000 "$STORE/manifests/meta.db.backup"
    rm "$STORE"/meta.db* "$STORE"/manifests/*.journal*
    fsck_ends 1 --rebuild
    grep -q 'backup\.1, of 20' "$TEST_DIR/out"
    ckptfs_mount
    files_are_the_same
    [ ! -e "$MNT/later" ]
    ckptfs_umount
}

@test "bytes that were given back after the backup are told" {
    make_store
    ckptfs_mount
    head -c 4000000 /dev/urandom >"$MNT/large"
    wait_until 20 nothing_waits
    ckptfs_remount
    cp "$STORE/manifests/meta.db.backup" "$TEST_DIR/backup"
    # Three quarters of its object go; the object stays, for the first.
    cp "$MNT/large" "$MNT/part"
    wait_until 20 nothing_waits
    truncate -s 1000000 "$MNT/part"
    rm "$MNT/large"
    large_is_punched() {
        find "$STORE/objects" -type f -printf '%s %b\n' | grep '^4000000 ' >"$TEST_DIR/out"
        read -r _ blocks <"$TEST_DIR/out" && [ "$blocks" -lt 4000 ]
    }
    wait_until 20 large_is_punched
    ckptfs_umount
    cp "$TEST_DIR/backup" "$STORE/manifests/meta.db.backup"
    rm "$STORE"/meta.db* "$STORE"/manifests/*.journal*
    fsck_ends 5 --rebuild
    grep -q '(/large): .*read as zeros \[bytes-gone: left\]' "$TEST_DIR/out"
    ckptfs_mount
    files_are_the_same
    "$CKPTFS" status --json "$MNT" | jq -e '.torn == ["/large"]'
    ckptfs_umount
}

# As somebody does who has a copy: no fsck, no log.
put_database() {
    rm -f "$STORE"/meta.db*
    cp "$1" "$STORE/meta.db"
}

object_files() {
    find "$STORE/objects" -type f | sort
}

older_copy_is_refused() {
    object_files >"$TEST_DIR/before"
    run ! ckptfs_mount
    grep -q 'older copy.*fsck --rebuild' <<<"$output"
    run -27 "$CKPTFS" mount "$STORE" "$MNT"
    run -27 "$CKPTFS" verify "$STORE"
    fsck_ends 4
    grep -q 'older copy' "$TEST_DIR/out"
    fsck_ends 4 --repair
    object_files | cmp "$TEST_DIR/before" -
}

@test "an older copy of meta.db is refused, and a rebuild takes the newest backup instead" {
    ckptfs_mount
    echo first >"$MNT/first"
    ckptfs_umount
    cp "$STORE/meta.db" "$TEST_DIR/older"
    make_store
    put_database "$TEST_DIR/older"
    older_copy_is_refused
    fsck_ends 1 --rebuild
    grep -q 'manifests/meta.db.backup, of 20' "$TEST_DIR/out"
    cmp "$STORE/meta.db.older-1" "$TEST_DIR/older"
    fsck_ends 0
    ckptfs_mount
    files_are_the_same
    [ "$(cat "$MNT/first")" = first ]
    [ ! -e "$MNT/lost+found" ]
    ckptfs_umount
    # What was newest before the rebuild is an older copy after it.
    put_database "$STORE/manifests/meta.db.backup"
    older_copy_is_refused
}

# The newest backup knows the file MNT/one.
backup_has_one() {
    [ "$(sqlite3 "file:$STORE/manifests/meta.db.backup?immutable=1" \
        "SELECT count(*) FROM name WHERE name = cast('one' AS BLOB)" 2>/dev/null)" = 1 ]
}

@test "a backup that was copied over meta.db after a crash is refused" {
    make_store
    ckptfs_mount backup-interval=1
    echo one >"$MNT/one"
    wait_until 30 backup_has_one
    head -c 1000000 /dev/urandom >"$TEST_DIR/later"
    cp "$TEST_DIR/later" "$MNT/later"
    sync "$MNT/later"
    kill -9 "$(ckptfs_keeper_pid)" "$(ckptfs_daemon_pid)"
    wait_until 30 ckptfs_no_processes
    umount -l "$MNT"
    cp "$STORE/manifests/meta.db.backup" "$TEST_DIR/backup"
    put_database "$TEST_DIR/backup"
    older_copy_is_refused
    fsck_ends 1 --rebuild
    ckptfs_mount
    files_are_the_same
    [ "$(cat "$MNT/one")" = one ]
    cmp "$TEST_DIR/later" "$MNT/later" || cmp "$TEST_DIR/later" "$MNT"/lost+found/object-*
    ckptfs_umount
}

@test "an older copy that is newer than every backup: a rebuild takes it, and what it does not know is kept" {
    make_store
    cp "$STORE/meta.db" "$TEST_DIR/older"
    ckptfs_mount
    head -c 1000000 /dev/urandom >"$TEST_DIR/later"
    cp "$TEST_DIR/later" "$MNT/later"
    ckptfs_umount
    rm "$STORE"/manifests/*
    put_database "$TEST_DIR/older"
    older_copy_is_refused
    fsck_ends 1 --rebuild
    fsck_ends 0
    ckptfs_mount
    files_are_the_same
    cmp "$TEST_DIR/later" "$MNT"/lost+found/object-*
    ckptfs_umount
}

@test "a store without its sequence, or with nonsense in it, is mounted and gets a new one" {
    make_store
    rm "$STORE/sequence"
    ckptfs_mount
    files_are_the_same
    ckptfs_umount
    [ -s "$STORE/sequence" ]
    echo nonsense >"$STORE/sequence"
    ckptfs_mount
    files_are_the_same
    ckptfs_umount
    grep -q 'holds no number' "$CKPTFS_LOG"
    cp "$STORE/meta.db" "$TEST_DIR/older"
    ckptfs_mount
    ckptfs_umount
    put_database "$TEST_DIR/older"
    older_copy_is_refused
}

# More than two intervals without a change.
backup_rests() {
    local before
    before=$(stat -c %i-%y "$STORE/manifests/meta.db.backup")
    wait_until 30 uptime_is_at_least $(($(ckptfs_status_field uptime_seconds) + 3))
    [ "$(stat -c %i-%y "$STORE/manifests/meta.db.backup")" = "$before" ]
}

uptime_is_at_least() { [ "$(ckptfs_status_field uptime_seconds)" -ge "$1" ]; }

@test "backups are written while mounted, and at the unmount when something changed" {
    ckptfs_mount backup-interval=1
    echo one >"$MNT/one"
    wait_until 30 backup_has_one
    [ "$(stat -c %a "$STORE/manifests/meta.db.backup")" = 600 ]
    local before
    # What the mount does by itself after a change is one, too.
    backup_rests || backup_rests || backup_rests
    ckptfs_remount backup-interval=0
    before=$(stat -c %i-%y "$STORE/manifests/meta.db.backup")
    ckptfs_remount backup-interval=0
    [ "$(stat -c %i-%y "$STORE/manifests/meta.db.backup")" = "$before" ]
    echo two >"$MNT/two"
    ckptfs_umount
    [ "$(stat -c %i-%y "$STORE/manifests/meta.db.backup")" != "$before" ]
    [ "$(stat -c %i-%y "$STORE/manifests/meta.db.backup.1")" = "$before" ]
    [ "$(sqlite3 "file:$STORE/manifests/meta.db.backup?immutable=1" 'PRAGMA integrity_check')" = ok ]
}
