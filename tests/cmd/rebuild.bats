#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# meta.db is lost, and the newest backup with the journal after it brings it back as it was.

bats_require_minimum_version 1.5.0
load ../lib/ckptfs.bash
load ../lib/journal.bash

setup() {
    ckptfs_setup
    require_command sqlite3
    require_command jq
    JOURNAL=$STORE/manifests/meta.db.journal
}
teardown() { ckptfs_teardown; }

# -- what is there --------------------------------------------------------------------------------------------

nothing_waits() {
    [ "$(ckptfs_status_field unshared_files)" -eq 0 ] && [ "$(ckptfs_status_field behind_files)" -eq 0 ]
}

# A pair that goes on is there a moment after the first mount.
pair_is_there() { [ -s "$STORE/manifests/meta.db.backup" ] && [ -s "$JOURNAL" ]; }

# All that a later change must not undo: small files, renames, hard links, attributes, shared and deleted files.
make_changes() {
    mkdir -p "$MNT/run/checkpoint-1" "$MNT/run/checkpoint-2" "$MNT/run/deep/er"
    head -c 3000000 /dev/urandom >"$MNT/run/checkpoint-1/model"
    printf 'small %s\n' "$1" >"$MNT/run/config.json"
    printf 'kept\n' >"$MNT/run/deep/er/kept"
    wait_until 20 nothing_waits
    # An equal file: the older one is re-pointed, and its own bytes are given back.
    cp --reflink=never "$MNT/run/checkpoint-1/model" "$MNT/run/checkpoint-2/model"
    head -c 700000 /dev/urandom >>"$MNT/run/checkpoint-2/model"
    cp --reflink=auto "$MNT/run/checkpoint-2/model" "$MNT/run/clone"
    wait_until 20 nothing_waits
    head -c 900000 /dev/urandom >"$MNT/run/deleted"
    wait_until 20 nothing_waits
    rm "$MNT/run/deleted"
    mv "$MNT/run/deep/er/kept" "$MNT/run/deep/renamed $1"
    mv "$MNT/run/deep" "$MNT/run/moved-$1"
    ln "$MNT/run/checkpoint-2/model" "$MNT/run/moved-$1/link"
    ln -sfn checkpoint-2 "$MNT/run/latest"
    setfattr -n user.note -v "value $1" "$MNT/run/config.json"
    chmod 640 "$MNT/run/clone"
    touch -d '2024-01-02 03:04:05.678' "$MNT/run/checkpoint-1"
    truncate -s 5M "$MNT/run/sparse"
    printf 'end' >>"$MNT/run/sparse"
    local i
    for i in $(seq 30); do printf '%s %s\n' "$i" "$1" >"$MNT/run/small-$i"; done
    for i in $(seq 3 3 30); do rm "$MNT/run/small-$i"; done
    wait_until 20 nothing_waits
}

# Paths, attributes, links, extended attributes and bytes of all below MNT/run.
describe() {
    (
        cd "$MNT" || return
        find run -printf '%p|%i|%y|%#m|%U:%G|%n|%s|%T@|%C@|%l\n' | sort
        find run -type f -print0 | sort -z | xargs -0 sha256sum
        find run -type f -print0 | sort -z | xargs -0 getfattr -d -m '^user\.' 2>/dev/null
    )
}

note() { describe >"$TEST_DIR/before"; }

is_the_same() {
    describe >"$TEST_DIR/after"
    diff "$TEST_DIR/before" "$TEST_DIR/after"
    [ ! -e "$MNT/lost+found" ]
}

# A keeper may start a daemon while it dies: again until there is none.
all_are_killed() {
    local process
    for process in $(ckptfs_processes); do kill -9 "$process" 2>/dev/null || continue; done
    ckptfs_no_processes && ckptfs_store_is_free
}

kill_all() {
    wait_until 20 all_are_killed
    umount -l "$MNT"
}

# fsck_ends CODE ARGUMENT...: the exit code; what it prints is in the files out and err.
fsck_ends() {
    local expected=$1 code=0
    shift
    "$CKPTFS" fsck "$@" "$STORE" >"$TEST_DIR/out" 2>"$TEST_DIR/err" || code=$?
    cat "$TEST_DIR/out" "$TEST_DIR/err"
    [ "$code" -eq "$expected" ]
}

rebuild_brings_all_back() {
    fsck_ends 1 --rebuild
    grep -q 'brought forward by' "$TEST_DIR/out"
    all_is_back
}

# Where backups are written every second: the newest may have all, and its journal nothing yet.
rebuild_of_any_pair_brings_all_back() {
    fsck_ends 1 --rebuild
    all_is_back
}

all_is_back() {
    fsck_ends 0
    ckptfs_mount
    is_the_same
    nothing_is_torn
}

nothing_is_torn() { "$CKPTFS" status --json "$MNT" | jq -e '.torn == [] and .torn_count == 0'; }

# -- tests ----------------------------------------------------------------------------------------------------

@test "meta.db and its log are deleted after a crash: all is there as it was a second after the last change" {
    ckptfs_mount
    make_changes one
    ckptfs_remount
    make_changes two
    note
    journal_has_all
    kill_all
    rm "$STORE"/meta.db*
    rebuild_brings_all_back
    ckptfs_umount
    fsck_ends 0
}

@test "meta.db is deleted and its log is not: nothing is missing, not even the last change" {
    ckptfs_mount
    make_changes one
    wait_until 20 pair_is_there
    make_changes two
    note
    kill_all
    rm "$STORE/meta.db" "$STORE/meta.db-shm"
    rebuild_brings_all_back
}

@test "meta.db is deleted after an unmount" {
    ckptfs_mount
    make_changes one
    ckptfs_umount
    ckptfs_mount
    make_changes two
    note
    ckptfs_umount
    rm "$STORE/meta.db"
    rebuild_brings_all_back
    ckptfs_umount
    # And again, of what the rebuild has made.
    rm "$STORE/meta.db"
    rebuild_brings_all_back
}

@test "pages of meta.db are overwritten" {
    ckptfs_mount
    make_changes one
    wait_until 20 pair_is_there
    make_changes two
    note
    ckptfs_umount
    local pages
    pages=$(($(stat -c %s "$STORE/meta.db") / 1024))
    dd if=/dev/urandom of="$STORE/meta.db" bs=1024 seek=$((pages / 3)) count=6 conv=notrunc status=none
    dd if=/dev/urandom of="$STORE/meta.db" bs=1024 seek=0 count=1 conv=notrunc status=none
    run ! ckptfs_mount
    # shellcheck disable=SC2154
    grep -q -- 'fsck --rebuild.*restores it as of 20' <<<"$output"
    rebuild_brings_all_back
    [ -e "$STORE/meta.db.damaged-1" ]
}

@test "a log that lost what was on stable storage is not taken for the whole database" {
    ckptfs_mount
    wait_until 20 pair_is_there
    make_changes one
    note
    journal_has_all
    kill_all
    local size
    size=$(stat -c %s "$STORE/meta.db-wal")
    dd if=/dev/urandom of="$STORE/meta.db-wal" bs=1 seek=$((size / 2)) count=50 conv=notrunc status=none
    run -27 "$CKPTFS" mount "$STORE" "$MNT"
    fsck_ends 4
    grep -q 'older copy' "$TEST_DIR/out"
    rebuild_brings_all_back
    [ -e "$STORE/meta.db.older-1" ]
}

@test "a database without its log is not taken for the whole database" {
    ckptfs_mount
    wait_until 20 pair_is_there
    make_changes one
    note
    journal_has_all
    kill_all
    rm "$STORE/meta.db-wal"
    run -27 "$CKPTFS" mount "$STORE" "$MNT"
    run -27 "$CKPTFS" mount "$STORE" "$MNT"
    rebuild_brings_all_back
    ckptfs_umount
    # The same when some of the log was moved into the database, which so is that of this mount.
    ckptfs_mount
    local size
    size=$(stat -c %Y%s "$STORE/meta.db")
    database_changed() {
        for _ in {1..40}; do printf '%-16000s' x >"$MNT/much-$RANDOM"; done
        [ "$(stat -c %Y%s "$STORE/meta.db")" != "$size" ]
    }
    wait_until 60 database_changed
    make_changes two
    note
    journal_has_all
    kill_all
    rm "$STORE/meta.db-wal"
    run -27 "$CKPTFS" mount "$STORE" "$MNT"
    fsck_ends 4
    rebuild_brings_all_back
}

@test "daemons that die and are replaced go on with the journal" {
    ckptfs_mount
    wait_until 20 pair_is_there
    local round daemon
    for round in 1 2 3; do
        make_changes "$round"
        daemon=$(ckptfs_daemon_pid)
        kill -9 "$daemon"
        daemon_is_new() { local now && now=$(ckptfs_daemon_pid) && [ -n "$now" ] && [ "$now" != "$daemon" ]; }
        wait_until 20 daemon_is_new
    done
    note
    journal_has_all
    kill_all
    rm "$STORE"/meta.db*
    rebuild_brings_all_back
}

@test "the last record of the journal is cut off: what is before it is there" {
    ckptfs_mount
    wait_until 20 pair_is_there
    make_changes one
    note
    journal_has_all
    kill_all
    rm "$STORE"/meta.db*
    truncate -s -700 "$JOURNAL"
    rebuild_brings_all_back
    run ! grep -q damage "$TEST_DIR/err"
}

@test "a changed byte in the journal: it ends there, and says so" {
    ckptfs_mount
    wait_until 20 pair_is_there
    make_changes one
    note
    journal_has_all
    local size
    size=$(stat -c %s "$JOURNAL")
    mkdir "$MNT/later"
    journal_has_all
    kill_all
    rm "$STORE"/meta.db*
    printf '\xff\xff\xff' | dd of="$JOURNAL" bs=1 seek=$((size + 200)) conv=notrunc status=none
    fsck_ends 1 --rebuild
    grep -Eq "expected a record at byte [0-9]+, found damage: the [0-9]+ bytes" "$TEST_DIR/err"
    ckptfs_mount
    is_the_same
    [ ! -e "$MNT/later" ]
}

@test "the newest backup is damaged: the one before it and both journals are as good" {
    ckptfs_mount
    make_changes one
    ckptfs_remount
    make_changes two
    note
    ckptfs_umount
    [ -e "$STORE/manifests/meta.db.backup.1" ]
    truncate -s 5000 "$STORE/manifests/meta.db.backup"
    rm "$STORE/meta.db"
    fsck_ends 1 --rebuild
    grep -q 'backup\.1, of 20' "$TEST_DIR/out"
    ckptfs_mount
    is_the_same
    nothing_is_torn
}

@test "death at each step of a backup, a journal and the emptying of the log" {
    local fault
    ckptfs_mount
    make_changes one
    ckptfs_umount
    for fault in backup.written:kill backup.journal:kill backup.rotate:kill backup.kept:kill backup.renamed:kill \
        backup.rotated:kill journal.append:kill:3 journal.appended:kill:4 journal.sync:kill:6; do
        echo "$fault"
        CKPTFS_FAULT_STARTS=1 CKPTFS_FAULT=$fault ckptfs_mount backup-interval=1
        make_changes "$fault"
        # The daemon that follows needs a moment for a pair of its own, where there is none that goes on.
        journal_has_all
        note
        journal_has_all
        kill_all
        rm "$STORE"/meta.db*
        rebuild_of_any_pair_brings_all_back
        ckptfs_umount
    done
}

@test "death while a mount brings the journal up to date" {
    local fault
    ckptfs_mount
    wait_until 20 pair_is_there
    for fault in journal.append:kill journal.appended:kill journal.sync:kill:1 journal.settle:kill journal.settled:kill \
        journal.sync:kill:2; do
        echo "$fault"
        make_changes "$fault"
        note
        journal_has_all
        # What the journal lacks of this, the next mount finds in the log.
        mkdir "$MNT/later-$fault"
        kill_all
        CKPTFS_FAULT=$fault run ! "$CKPTFS" mount -o "log=$CKPTFS_LOG" "$STORE" "$MNT"
        wait_until 20 all_are_killed
        rm -f "$STORE"/meta.db*
        rebuild_brings_all_back
        [ "$fault" = journal.append:kill ] || [ -d "$MNT/later-$fault" ]
    done
}

@test "death of everything at each step: what a rebuild makes is whole" {
    local fault
    ckptfs_mount
    make_changes one
    journal_has_all
    note
    ckptfs_umount
    for fault in backup.written:kill backup.journal:kill backup.rotate:kill backup.kept:kill backup.renamed:kill \
        journal.append:kill:3 journal.appended:kill:4 journal.sync:kill:6; do
        echo "$fault"
        CKPTFS_FAULT_STARTS=1 CKPTFS_FAULT=$fault ckptfs_mount backup-interval=1
        daemon_died() { mkdir -p "$MNT/mark" && touch "$MNT/mark" && [ "$(ckptfs_status_field generation)" -gt 1 ]; }
        wait_until 60 daemon_died
        wait_until 20 all_are_killed
        umount -l "$MNT"
        rm "$STORE"/meta.db*
        rebuild_of_any_pair_brings_all_back
        ckptfs_umount
    done
}

@test "what a journal does not know yet to be deleted is not given back" {
    ckptfs_mount
    wait_until 20 pair_is_there
    head -c 2000000 /dev/urandom >"$TEST_DIR/bytes"
    cp "$TEST_DIR/bytes" "$MNT/file"
    wait_until 20 nothing_waits
    ckptfs_umount
    # What the mount itself changes gets into the journal, and nothing after that.
    CKPTFS_FAULT=journal.append:hang:2 ckptfs_mount backup-interval=0
    rm "$MNT/file"
    cp "$TEST_DIR/bytes" "$MNT/other"
    uptime_is_at_least() { [ "$(ckptfs_status_field uptime_seconds)" -ge "$1" ]; }
    wait_until 20 uptime_is_at_least 3
    kill_all
    rm "$STORE"/meta.db*
    fsck_ends 1 --rebuild
    ckptfs_mount
    cmp "$TEST_DIR/bytes" "$MNT/file"
}

journal_size() { stat -c %s "$JOURNAL"; }

@test "the journal does not grow without end" {
    ckptfs_mount
    wait_until 20 pair_is_there
    local inode i
    inode=$(stat -c %i "$JOURNAL")
    mkdir "$MNT/run"
    # 16 MiB of small files, which live in the database, again and again.
    for i in 1 2 3 4; do
        python3 - "$MNT/run" <<'END'
import os, sys
for number in range(1200):
    with open(f"{sys.argv[1]}/{number}.new", "wb") as file:
        file.write(os.urandom(16000))
    os.rename(f"{sys.argv[1]}/{number}.new", f"{sys.argv[1]}/{number}")
END
        journal_has_all
    done
    journal_is_new() { [ "$(stat -c %i "$JOURNAL")" != "$inode" ]; }
    wait_until 90 journal_is_new
    journal_is_small() { [ "$(journal_size)" -lt "$(stat -c %s "$STORE/meta.db")" ]; }
    # A backup that could not follow what was committed meanwhile is tried again after a minute.
    wait_until 90 journal_is_small
    note
    journal_has_all
    kill_all
    rm "$STORE"/meta.db*
    rebuild_brings_all_back
}

@test "a journal that cannot be written ends with one warning, and begins anew with a backup" {
    ckptfs_mount
    wait_until 20 pair_is_there
    ckptfs_umount
    CKPTFS_FAULT=journal.append:ENOSPC:2 ckptfs_mount
    make_changes one
    local warned
    warned() { grep -q 'journal of the database ends.*No space left' "$CKPTFS_LOG"; }
    wait_until 20 warned
    make_changes two
    note
    [ "$(grep -c 'journal of the database ends' "$CKPTFS_LOG")" -eq 1 ]
    journal_has_all
    kill_all
    rm "$STORE"/meta.db*
    rebuild_brings_all_back
}

@test "a read-only mount writes nothing beside the database" {
    ckptfs_mount
    make_changes one
    ckptfs_umount
    (cd "$STORE/manifests" && sha256sum ./* && stat -c '%n %i %y' ./*) >"$TEST_DIR/manifests"
    ckptfs_mount ro
    cat "$MNT/run/config.json"
    ckptfs_umount
    (cd "$STORE/manifests" && sha256sum ./* && stat -c '%n %i %y' ./*) | diff "$TEST_DIR/manifests" -
    ckptfs_mount
    make_changes two
    note
    journal_has_all
    kill_all
    rm "$STORE"/meta.db*
    rebuild_brings_all_back
}
