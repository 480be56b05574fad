#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What was removed of a complete checkpoint is given back: `ckptfs undelete`, and `.ckptfs/trash`.

load ../lib/ckptfs.bash
load ../lib/trash.bash

setup() {
    require_command jq
    require_command python3
    ckptfs_setup
    RUN=$MNT/run
}
teardown() { ckptfs_teardown; }

@test "a checkpoint that the Trainer's rotation removed is given back as it was" {
    ckptfs_mount
    checkpoint "$RUN/checkpoint-5"
    mkdir "$RUN/checkpoint-5/extra"
    echo part >"$RUN/checkpoint-5/extra/note"
    ln -s model.safetensors "$RUN/checkpoint-5/link"
    touch -d 2020-02-02 "$RUN/checkpoint-5/extra" "$RUN/checkpoint-5"
    settle "$RUN/checkpoint-5"
    rm -rf "$WAS"
    cp -a "$RUN/checkpoint-5" "$WAS"
    rmtree "$RUN/checkpoint-5"
    [ -z "$(ls "$RUN")" ]
    [ "$(trash_field path)" = "$RUN/checkpoint-5" ]
    # It is there to be read, also when the database was lost meanwhile.
    diff -r "$WAS" "$MNT/.ckptfs/trash/run/checkpoint-5"
    run touch "$MNT/.ckptfs/trash/run/checkpoint-5/more"
    [ "$status" -ne 0 ]
    ckptfs_umount
    rm "$STORE/meta.db"
    "$CKPTFS" fsck --rebuild "$STORE" || [ $? -eq 1 ]
    ckptfs_mount
    [ "$(trash_field in_part)" = false ]
    [ ! -e "$RUN/checkpoint-5" ]
    "$CKPTFS" undelete "$RUN/checkpoint-5" | grep -q 'is back'
    same_tree "$WAS" "$RUN/checkpoint-5"
    wait_until 20 is_durable "$RUN/checkpoint-5"
    trash_is_empty
    # It is a checkpoint like others: it can be removed again.
    settle "$RUN/checkpoint-5"
    rm -r "$RUN/checkpoint-5"
    "$CKPTFS" undelete "$RUN/checkpoint-5"
    same_tree "$WAS" "$RUN/checkpoint-5"
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "a removal that was broken off is completed back" {
    ckptfs_mount
    checkpoint "$RUN/checkpoint-5"
    rm "$RUN/checkpoint-5/model.safetensors" "$RUN/checkpoint-5/rng_state.pth"
    [ "$(trash_field in_part)" = true ]
    ckptfs_remount
    rm "$RUN/checkpoint-5/optimizer.pt"
    [ "$(trash_field number | wc -l)" -eq 1 ]
    # The kernel remembers that the names were gone.
    [ ! -e "$RUN/checkpoint-5/optimizer.pt" ]
    "$CKPTFS" undelete "$RUN/checkpoint-5"
    same_tree "$WAS" "$RUN/checkpoint-5"
    trash_is_empty
}

@test "nothing is replaced, and another place can be named" {
    ckptfs_mount
    checkpoint "$RUN/checkpoint-5"
    rm -r "$RUN/checkpoint-5"
    mkdir "$RUN/checkpoint-5"
    run "$CKPTFS" undelete "$RUN/checkpoint-5"
    [ "$status" -eq 1 ]
    [[ $output == *'is not replaced'* ]]
    "$CKPTFS" undelete --to "$RUN/saved" "$RUN/checkpoint-5"
    same_tree "$WAS" "$RUN/saved"
    [ -z "$(ls "$RUN/checkpoint-5")" ]
    run "$CKPTFS" undelete "$RUN/checkpoint-5"
    [ "$status" -eq 1 ]
    [[ $output == *'is not in the trash'* ]]
}

@test "of several with one name the last is meant, and each has a number" {
    local first
    ckptfs_mount
    checkpoint "$RUN/checkpoint-5" 10000
    rm -r "$RUN/checkpoint-5"
    first=$(trash_field number)
    mv "$WAS" "$TEST_DIR/first"
    checkpoint "$RUN/checkpoint-5" 20000
    rm -r "$RUN/checkpoint-5"
    [ "$(find "$MNT/.ckptfs/trash/run" -mindepth 1 -maxdepth 1 | wc -l)" -eq 2 ]
    diff -r "$TEST_DIR/first" "$MNT/.ckptfs/trash/run/checkpoint-5~$first"
    diff -r "$WAS" "$MNT/.ckptfs/trash/run/checkpoint-5"
    "$CKPTFS" undelete "$RUN/checkpoint-5"
    same_tree "$WAS" "$RUN/checkpoint-5"
    "$CKPTFS" undelete --to "$RUN/first" "$RUN/checkpoint-5~$first"
    same_tree "$TEST_DIR/first" "$RUN/first"
}

@test "a run that was removed as a whole comes back below its path" {
    ckptfs_mount
    checkpoint "$RUN/a/checkpoint-5" 10000
    mv "$WAS" "$TEST_DIR/first"
    checkpoint "$RUN/a/checkpoint-6" 10000
    chmod 700 "$RUN"
    chmod 750 "$RUN/a"
    rm -r "$RUN"
    [ ! -e "$RUN" ]
    [ "$(ls "$MNT/.ckptfs/trash/run/a")" = $'checkpoint-5\ncheckpoint-6' ]
    "$CKPTFS" undelete "$RUN"
    # Who could not look into it cannot now.
    [ "$(stat -c %a "$RUN" "$RUN/a")" = $'700\n750' ]
    same_tree "$TEST_DIR/first" "$RUN/a/checkpoint-5"
    same_tree "$WAS" "$RUN/a/checkpoint-6"
    trash_is_empty
    [ -z "$(ls "$MNT/.ckptfs/trash")" ]
}

is_incomplete() {
    "$CKPTFS" status --json "$MNT" | jq -e '.unlooked_directories == 0 and .behind_files == 0' >/dev/null &&
        [ "$("$CKPTFS" ls --json "$1" | jq -r '.[0].checkpoints[0].state')" = incomplete ]
}

@test "what is no complete checkpoint is gone at once" {
    ckptfs_mount
    checkpoint "$RUN/checkpoint-5" 10000
    mkdir "$RUN/other"
    cp "$RUN/checkpoint-5/optimizer.pt" "$RUN/other"
    rm -r "$RUN/other"
    trash_is_empty
    # One that was never complete: it is cut.
    cp -r "$WAS" "$TEST_DIR/cut"
    truncate -s 100 "$TEST_DIR/cut/model.safetensors"
    cp -r "$TEST_DIR/cut" "$RUN/checkpoint-6"
    wait_until 20 is_incomplete "$RUN/checkpoint-6"
    rm -r "$RUN/checkpoint-6"
    trash_is_empty
    # A rename is no removal, nor is a file that takes another's place.
    mv "$RUN/checkpoint-5" "$RUN/checkpoint-7"
    cp "$RUN/checkpoint-7/config.json" "$RUN/new"
    mv "$RUN/new" "$RUN/checkpoint-7/config.json"
    trash_is_empty
}

@test "of a checkpoint that is written over, what it was before is given back" {
    ckptfs_mount
    checkpoint "$RUN/checkpoint-5" 10000
    head -c 100 "$WAS/model.safetensors" >"$RUN/checkpoint-5/model.safetensors"
    wait_until 20 is_incomplete "$RUN/checkpoint-5"
    rm -r "$RUN/checkpoint-5"
    "$CKPTFS" undelete "$RUN/checkpoint-5"
    same_tree "$WAS" "$RUN/checkpoint-5"
    trash_is_empty
}

@test "what lies in the mount's root is gone at once" {
    ckptfs_mount
    checkpoint "$MNT/in-1" 10000
    mv "$MNT/in-1"/* "$MNT"
    rmdir "$MNT/in-1"
    wait_until 20 grep -qF 'complete path="/"' "$CKPTFS_LOG"
    rm "$MNT"/*
    trash_is_empty
}

@test "the trash can be switched off, for a run and for the mount" {
    ckptfs_mount
    checkpoint "$RUN/checkpoint-5" 10000
    "$CKPTFS" policy set "$RUN" trash=off
    rm -r "$RUN/checkpoint-5"
    trash_is_empty
    "$CKPTFS" policy unset "$RUN" trash
    checkpoint "$RUN/checkpoint-5" 10000
    rm -r "$RUN/checkpoint-5"
    [ "$(trash_field path)" = "$RUN/checkpoint-5" ]
    # What is in it already goes, too.
    ckptfs_remount trash=off
    wait_until 20 trash_is_empty
    wait_until 20 grep -q '/run/checkpoint-5: removed from the trash: the trash is off' "$CKPTFS_LOG"
    run "$CKPTFS" mount -o trash=perhaps "$STORE" "$MNT"
    [ "$status" -eq 2 ]
    [[ $output == *'expected on or off'* ]]
}

@test "what is in the trash goes when its time is up" {
    ckptfs_mount trash-age=1h
    checkpoint "$RUN/checkpoint-5" 10000
    rm -r "$RUN/checkpoint-5"
    [ -n "$(trash_field path)" ]
    "$CKPTFS" policy set "$RUN" trash-age=1s
    wait_until 20 trash_is_empty
    run "$CKPTFS" policy set "$RUN" trash-age=tomorrow
    [ "$status" -eq 2 ]
    # Nothing of it is left in the store.
    wait_until 20 no_objects
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "ages in the trash count by the clock that policies go by" {
    export CKPTFS_TEST_CLOCK=$TEST_DIR/clock
    echo $((10 * 86400)) >"$CKPTFS_TEST_CLOCK"
    ckptfs_mount trash-age=7d
    checkpoint "$RUN/checkpoint-5" 10000
    rm -r "$RUN/checkpoint-5"
    # A change has it looked at.
    "$CKPTFS" policy set "$MNT" trash=on
    wait_until 20 trash_is_counted
    [ -n "$(trash_field path)" ]
    echo $((18 * 86400)) >"$CKPTFS_TEST_CLOCK"
    wait_until 20 trash_is_empty
    wait_until 20 grep -q '/run/checkpoint-5: removed from the trash: its time is up' "$CKPTFS_LOG"
}

no_objects() { [ "$(ckptfs_status_field objects)" -eq 0 ]; }

available() { df --output=avail -B1 "$1" | tail -n 1; }

counts_as_free() {
    local store mount
    store=$(available "$STORE")
    mount=$(available "$MNT")
    [ $((mount - store)) -ge 29000000 ]
}

@test "df counts what is in the trash as free" {
    ckptfs_mount
    checkpoint "$RUN/checkpoint-5" 10000000
    rm -r "$RUN/checkpoint-5"
    wait_until 20 counts_as_free
    wait_until 20 trash_is_counted
    [ "$(trash_field unique_bytes)" -ge 29000000 ]
}

@test "a file of holes does not drive others out of the trash" {
    ckptfs_mount
    checkpoint "$RUN/checkpoint-5" 10000
    rm -r "$RUN/checkpoint-5"
    checkpoint "$MNT/other/checkpoint-5" 10000
    truncate -s 1T "$MNT/other/checkpoint-5/holes"
    # It is the latest of its run for a while, for whose next one no room is made.
    wait_until 30 nothing_unlooked
    [ "$(trash_field path | wc -l)" -eq 1 ]
    rm -r "$MNT/other/checkpoint-5"
    wait_until 20 holds_both
    look_once_more
    wait_until 20 holds_both
}

nothing_unlooked() { [ "$(ckptfs_status_field unlooked_directories)" -eq 0 ]; }

holds_both() { [ "$(trash_field path | wc -l)" -eq 2 ] && trash_is_counted; }

# The daemon has looked at the trash once more: the entry that is switched off is gone.
look_once_more() {
    checkpoint "$MNT/third/checkpoint-5" 10000
    rm -r "$MNT/third/checkpoint-5"
    "$CKPTFS" policy set "$MNT/third" trash=off
    wait_until 20 grep -q '/third/checkpoint-5: removed from the trash' "$CKPTFS_LOG"
}

@test "each user has his own" {
    require_root
    ckptfs_mount
    mkdir "$RUN"
    chmod 777 "$RUN"
    checkpoint "$RUN/checkpoint-5" 10000
    chown -R "${CKPTFS_TEST_USER:-nobody}" "$RUN/checkpoint-5"
    settle "$RUN/checkpoint-5"
    checkpoint "$RUN/checkpoint-6" 10000
    chmod 777 "$RUN/checkpoint-6"
    settle "$RUN/checkpoint-6"
    run_as_user rm -r "$RUN/checkpoint-5" "$RUN/checkpoint-6"
    [ "$(trash_field removed_by | sort -u)" = "$(id -u "${CKPTFS_TEST_USER:-nobody}")" ]
    [ "$(run_as_user ls "$MNT/.ckptfs/trash/run")" = checkpoint-5 ]
    run_as_user cat "$MNT/.ckptfs/trash/run/checkpoint-5/config.json"
    run run_as_user cat "$MNT/.ckptfs/trash/run/checkpoint-6/config.json"
    [ "$status" -ne 0 ]
    run run_as_user "$CKPTFS" undelete "$RUN/checkpoint-6"
    [ "$status" -ne 0 ]
    run_as_user "$CKPTFS" undelete --drop "$RUN/checkpoint-6"
    # Where he may not write, nothing comes back for him.
    chmod 755 "$RUN"
    run run_as_user "$CKPTFS" undelete "$RUN/checkpoint-5"
    [ "$status" -eq 33 ]
    chmod 777 "$RUN"
    run_as_user "$CKPTFS" undelete "$RUN/checkpoint-5"
    "$CKPTFS" undelete "$RUN/checkpoint-6"
    [ "$(ls "$RUN")" = $'checkpoint-5\ncheckpoint-6' ]
}

removed_paths() { trash_field path | sed "s|^$RUN/||" | tr '\n' ' '; }

objects_take_less_than() { [ "$(objects_take)" -lt "$1" ]; }

objects_take() { du -s --apparent-size -B1 "$STORE/objects" | cut -f1; }

@test "what is in the trash is given up for good when somebody says so" {
    ckptfs_mount
    local i numbers
    for i in 5 6 6 7; do
        checkpoint "$RUN/checkpoint-$i"
        rm -r "$RUN/checkpoint-$i"
    done
    mv "$WAS" "$TEST_DIR/seven"
    checkpoint "$RUN/checkpoint-8"
    rm "$RUN/checkpoint-8/optimizer.pt"
    [ "$(objects_take)" -gt 1400000 ]
    [ "$(removed_paths)" = "checkpoint-5 checkpoint-6 checkpoint-6 checkpoint-7 checkpoint-8 " ]
    # By its number, the older one of two: the younger stays.
    numbers=$("$CKPTFS" undelete -lj "$RUN/checkpoint-6" | jq -r '.[].number')
    "$CKPTFS" undelete -d "$RUN/checkpoint-6~${numbers%%$'\n'*}" | grep -q 'checkpoint-6~.*is gone for good'
    [ "$(trash_field number | grep -cxF "$numbers")" -eq 1 ]
    run "$CKPTFS" undelete "$RUN/checkpoint-6~${numbers%%$'\n'*}"
    [ "$status" -ne 0 ]
    # By its path, and what was removed of one that is there in part: the rest is untouched.
    "$CKPTFS" undelete --drop "$RUN/checkpoint-5" "$RUN/checkpoint-8"
    [ "$(removed_paths)" = "checkpoint-6 checkpoint-7 " ]
    [ ! -e "$MNT/.ckptfs/trash/run/checkpoint-5" ]
    [ -s "$RUN/checkpoint-8/model.safetensors" ]
    "$CKPTFS" undelete "$RUN/checkpoint-7"
    "$CKPTFS" undelete -d "$MNT"
    trash_is_empty
    [ -z "$(ls "$MNT/.ckptfs/trash")" ]
    # What is left is one checkpoint of 300 kB and the model of another.
    wait_until 20 objects_take_less_than 600000
    same_tree "$TEST_DIR/seven" "$RUN/checkpoint-7"
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "a file that was open when its checkpoint was removed is read on" {
    ckptfs_mount
    checkpoint "$RUN/checkpoint-5" 3000000
    exec 7<"$RUN/checkpoint-5/model.safetensors"
    head -c 1000 <&7 >"$TEST_DIR/read"
    rm -r "$RUN/checkpoint-5"
    "$CKPTFS" policy set "$RUN" trash=off
    wait_until 20 trash_is_empty
    cat <&7 >>"$TEST_DIR/read"
    exec 7<&-
    cmp "$TEST_DIR/read" "$WAS/model.safetensors"
    wait_until 20 no_objects
}
