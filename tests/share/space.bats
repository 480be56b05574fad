#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Every byte is stored once, whatever wrote it; and what is deleted is given back.

load share.bash

setup() { share_setup; }
teardown() { ckptfs_teardown; }

MIB=$((1024 * 1024))

# ten_saves: nine of ten tensors are the same in all of them.
ten_saves() {
    local number
    for number in 0 1 2 3 4 5 6 7 8 9; do
        save "checkpoint-$number/model.safetensors" models safetensors --changed 9 --with-seed $((100 + number))
    done
}
TEN_IDEAL=$(((9 + 10) * 1000 * 1024))

@test "ten saves with nine frozen tensors of ten take the room of two" {
    ckptfs_mount
    ten_saves
    expect_stored $TEN_IDEAL
    settle
    ckptfs_remount
    expect_stored $TEN_IDEAL
    ckptfs_umount
    # The newest is one whole object.
    extents_of_store >"$TEST_DIR/extents"
    cat "$TEST_DIR/extents"
    [ "$(awk '$2 == 1' "$TEST_DIR/extents" | wc -l)" -ge 1 ]
    [ "$(awk '$2 > 3' "$TEST_DIR/extents" | wc -l)" -eq 0 ]
}

# So many, each with its table.
objects_are() {
    [ "$(find "$STORE/objects" -type f ! -name '*.sum*' | wc -l)" -eq "$1" ] &&
        [ "$(find "$STORE/objects" -type f -name '*.sum*' | wc -l)" -eq "$1" ]
}

@test "equal files are one extent of one object, and the newest keeps its own" {
    ckptfs_mount
    save a models safetensors
    settle
    save b cp "$PLAIN/a"
    expect_stored "$(size_of "$PLAIN/a")"
    settle
    save c models bytes --size $((5 * MIB))
    settle
    save d cp "$PLAIN/c"
    expect_stored "$(size_of "$PLAIN/a" "$PLAIN/c")"
    # A table goes with its object.
    wait_until 20 objects_are 2
    settle
    ckptfs_umount
    extents_of_store >"$TEST_DIR/extents"
    cat "$TEST_DIR/extents"
    [ "$(awk '$2 == 1 && $3 == 1' "$TEST_DIR/extents" | wc -l)" -eq 4 ]
    objects_are 2
}

@test "thousands of equal tensors are looked for once" {
    ckptfs_mount
    save one models safetensors --tensors 1 --zeros 15000
    settle
    save two models safetensors --tensors 1 --zeros 15000 --note 100
    settle
    expect_stored "$(size_of "$PLAIN/two")"
}

@test "the same tensors behind headers of different length" {
    ckptfs_mount
    save one models safetensors --note 0
    settle
    save two models safetensors --note 12345
    expect_stored "$(size_of "$PLAIN/two")"
}

@test "the same tensors in a safetensors file and in a torch zip" {
    ckptfs_mount
    save model.safetensors models safetensors
    settle
    save model.pt models torch
    expect_stored "$(size_of "$PLAIN/model.pt")"
    save other.safetensors models safetensors --note 7777
    expect_stored "$(size_of "$PLAIN/other.safetensors")"
}

prepend_byte() { { printf x && cat "$1"; } >"$2"; }

@test "an unknown format with a byte more in front" {
    ckptfs_mount
    save one models bytes --size $((24 * MIB))
    settle
    save two prepend_byte "$PLAIN/one"
    expect_stored "$(size_of "$PLAIN/two")" 5
}

@test "cp -r, rsync -a and tar x of a checkpoint that is there" {
    local ideal
    ckptfs_mount
    save checkpoint/model.safetensors models safetensors
    save checkpoint/optimizer.pt models torch --seed 50
    save checkpoint/unknown models bytes --size $((7 * MIB))
    save checkpoint/config.json models bytes --size 600
    ideal=$(size_of "$PLAIN"/checkpoint/*)
    settle
    cp -r "$PLAIN/checkpoint" "$MNT/by-cp"
    cp -r "$PLAIN/checkpoint" "$PLAIN/by-cp"
    expect_stored "$ideal"
    rsync -a "$PLAIN/checkpoint/" "$MNT/by-rsync/"
    cp -r "$PLAIN/checkpoint" "$PLAIN/by-rsync"
    expect_stored "$ideal"
    mkdir "$MNT/by-tar" "$PLAIN/by-tar"
    tar c -C "$PLAIN/checkpoint" . | tar x -C "$MNT/by-tar"
    cp -r "$PLAIN"/checkpoint/* "$PLAIN/by-tar"
    expect_stored "$ideal"
    # And without the first one.
    drop checkpoint
    drop by-rsync
    expect_stored "$ideal"
}

@test "what the store does later changes no attribute" {
    ckptfs_mount
    save a models safetensors
    touch -d '2020-01-01 12:34:56.789' "$MNT/a"
    chmod 640 "$MNT/a"
    setfattr -n user.x -v y "$MNT/a"
    settle
    stat -c '%n %i %s %f %u %g %h %Y %Z %W %b' "$MNT/a" >"$TEST_DIR/before"
    save b cp "$PLAIN/a"
    expect_stored "$(size_of "$PLAIN/a")"
    stat -c '%n %i %s %f %u %g %h %Y %Z %W %b' "$MNT/a" >"$TEST_DIR/after"
    diff "$TEST_DIR/before" "$TEST_DIR/after"
    [ "$(getfattr --only-values -n user.x "$MNT/a")" = y ]
}

@test "nothing under 4 KiB is shared on its own" {
    ckptfs_mount
    # Equal blocks of 3 KiB between different ones.
    save a models safetensors --tensors 40 --kib 3
    settle
    save b models safetensors --tensors 40 --kib 3 \
        --changed "$(seq -s, 0 2 39)"
    settle
    same_bytes
    ckptfs_umount
    extents_of_store | tee "$TEST_DIR/extents"
    [ "$(awk '$2 != 1 || $4 < 4096' "$TEST_DIR/extents" | wc -l)" -eq 0 ]
    ckptfs_mount
    same_bytes
}

@test "deleting the newest of ten gives back what only it had" {
    ckptfs_mount
    ten_saves
    expect_stored $TEN_IDEAL
    drop checkpoint-9
    expect_stored $((TEN_IDEAL - 1000 * 1024))
    drop checkpoint-3
    expect_stored $((TEN_IDEAL - 2000 * 1024))
    ckptfs_remount
    drop checkpoint-8
    expect_stored $((TEN_IDEAL - 3000 * 1024))
}

@test "deleting all gives all back" {
    ckptfs_mount
    ten_saves
    expect_stored $TEN_IDEAL
    rm -r "$MNT"/*
    rm -r "${PLAIN:?}"/*
    wait_until $SHARE_DEADLINE no_objects
    settle
    ckptfs_remount
    no_objects
}

@test "deleting all while it is being shared gives all back" {
    ckptfs_mount
    ten_saves
    rm -r "$MNT"/*
    rm -r "${PLAIN:?}"/*
    wait_until $SHARE_DEADLINE stored_at_most 65536
}

@test "cutting and overwriting a file gives back what it had" {
    local size
    ckptfs_mount
    save a models safetensors
    settle
    save b models safetensors --changed 0,1,2 --note 100
    size=$(size_of "$PLAIN/b")
    expect_stored $((size + 3000 * 1024))
    # The older one loses the three tensors that only it had.
    truncate -s 100000 "$MNT/a" "$PLAIN/a"
    expect_stored $((size + 100000))
    # The newest one loses its end, which nobody else has any more.
    truncate -s $((MIB * 2)) "$MNT/b" "$PLAIN/b"
    expect_stored $((MIB * 2 + 100000)) 15
    models bytes "$PLAIN/over" --size $((MIB * 2))
    dd if="$PLAIN/over" of="$MNT/b" conv=notrunc bs=1M status=none
    dd if="$PLAIN/over" of="$PLAIN/b" conv=notrunc bs=1M status=none
    rm "$PLAIN/over"
    expect_stored $((MIB * 2 + 100000)) 15
}

@test "sharing=off: nothing is hashed or shared" {
    ckptfs_mount sharing=off
    save a models safetensors
    save b cp "$PLAIN/a"
    [ "$(ckptfs_status_field unshared_files)" -eq 0 ]
    wait_until 20 behind_nothing
    ckptfs_remount sharing=off
    same_bytes
    [ -z "$(find "$STORE/objects" -name '*.sum*')" ]
    [ "$(stored_bytes)" -ge "$(size_of "$PLAIN/a" "$PLAIN/b")" ]
    # What was saved so is shared by a mount that shares.
    ckptfs_remount
    expect_stored "$(size_of "$PLAIN/a")"
    # And stays shared, and right, on one that does not.
    settle
    ckptfs_remount sharing=off
    same_bytes
    drop b
    same_bytes
    save c cp "$PLAIN/a"
    drop a
    same_bytes
}

@test "verify-on-share=yes: bytes whose hashes are equal and that are not stay apart, and the log says so" {
    ckptfs_mount verify-on-share=yes
    save a models safetensors
    settle
    ckptfs_umount
    flip_byte "$(the_object)" 500000
    ckptfs_mount verify-on-share=yes
    cp "$PLAIN/a" "$MNT/b"
    sync "$MNT/b"
    settle
    cmp "$PLAIN/a" "$MNT/b"
    [ "$(cmp -l "$PLAIN/a" "$MNT/a" | wc -l)" -eq 1 ]
    grep -q "are not the same" "$CKPTFS_LOG"
    # What is equal is shared as without the option.
    cp "$MNT/b" "$MNT/c.new"
    cat "$PLAIN/a" >"$MNT/c"
    sync "$MNT/c"
    rm "$MNT/a" "$MNT/c.new"
    expect_stored_bytes "$(size_of "$PLAIN/a")"
    cmp "$PLAIN/a" "$MNT/b"
    cmp "$PLAIN/a" "$MNT/c"
}

@test "without it a damaged older file gets the bytes of a newer one that was equal" {
    ckptfs_mount
    save a models safetensors
    settle
    ckptfs_umount
    flip_byte "$(the_object)" 500000
    ckptfs_mount
    save b cp "$PLAIN/a"
    expect_stored "$(size_of "$PLAIN/a")"
}

@test "a file that is cut off while it is hashed is no fault of the disk" {
    ckptfs_mount
    timeout 120 python3 - "$MNT/file" <<'PY'
import os, random, sys, time

path, data = sys.argv[1], os.urandom(16 << 20)
for turn in range(60):
    with open(path, "wb") as file:
        file.write(data)
    time.sleep(random.random() * 0.02)
    fd = os.open(path, os.O_RDWR)
    os.ftruncate(fd, 4096 * (turn % 5))
    os.close(fd)
PY
    settle
    run cat "$CKPTFS_LOG"
    [[ $output != *"Input/output error"* ]]
}

first_is_punched() { [ "$(stored_bytes)" -lt "$1" ]; }

@test "what is opened for writing while dead bytes are given back keeps its bytes" {
    local number fd fds=() before
    ckptfs_mount passthrough=off
    # Objects of which a part dies come first: each costs a sync.
    for number in {1..140}; do head -c 400000 /dev/urandom >"$MNT/part$number"; done
    for number in {1..100}; do head -c 40000 /dev/urandom >"$PLAIN/whole$number"; done
    cp "$PLAIN"/whole* "$MNT"
    settle
    mkdir "$MNT/copies"
    cp "$MNT"/part* "$MNT"/whole* "$MNT/copies"
    truncate -s 70000 "$MNT"/copies/part*
    settle
    before=$(stored_bytes)
    rm "$MNT"/part* "$MNT"/copies/whole*
    wait_until 20 first_is_punched "$before"
    # They lost their copies, and are looked at after those.
    for number in {1..100}; do
        printf begin | dd of="$PLAIN/whole$number" conv=notrunc status=none
        exec {fd}<>"$MNT/whole$number"
        printf begin >&"$fd"
        fds+=("$fd")
    done
    "$CKPTFS" gc "$MNT"
    for fd in "${fds[@]}"; do exec {fd}>&-; done
    rm -r "$MNT/copies"
    same_bytes
    ckptfs_remount
    same_bytes
}

# Bytes that the daemon has read so far.
daemon_read() { awk '$1 == "rchar:" { print $2 }' "/proc/$(ckptfs_daemon_pid)/io"; }

@test "a large file that is appended to again and again is not hashed each time" {
    local size=$((200 * MIB)) before end
    ckptfs_mount
    head -c $size /dev/urandom >"$PLAIN/log"
    cp "$PLAIN/log" "$MNT/log"
    settle
    before=$(daemon_read)
    end=$((SECONDS + 8))
    while [ $SECONDS -lt $end ]; do
        echo "line $SECONDS" | tee -a "$PLAIN/log" >>"$MNT/log"
    done
    echo "read: $((($(daemon_read) - before) / MIB)) MiB"
    [ $((($(daemon_read) - before) / size)) -lt 6 ]
    settle
    same_bytes
}
