#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What `ckptfs verify` finds, what it says, and what reads give of it.

load ../lib/ckptfs.bash

setup() {
    require_command python3
    require_command jq
    ckptfs_setup
    ORIGINAL=$TEST_DIR/original
    head -c 5000000 /dev/urandom >"$ORIGINAL"
}
teardown() { ckptfs_teardown; }

nothing_unhashed() {
    "$CKPTFS" verify --json "$MNT" >"$TEST_DIR/unhashed"
    [ "$(jq .unhashed_objects "$TEST_DIR/unhashed")" -eq 0 ] && [ "$(jq .verified_objects "$TEST_DIR/unhashed")" -gt 0 ]
}

# Nothing is done with the files any more: what has a turn left gets a table that is lost or wrong anew.
is_settled() { nothing_unhashed && [ "$(ckptfs_status_field unshared_files)" -eq 0 ]; }

# has_inodes COUNT: files whose last handle the kernel has not given back yet are there still.
has_inodes() {
    [ "$(ckptfs_status_field inodes)" -eq "$1" ]
}

# The store mounted, with the original as dir/file, hashed. OBJECT is its object's file.
make_file() {
    ckptfs_mount "$@"
    mkdir "$MNT/dir"
    cp "$ORIGINAL" "$MNT/dir/file"
    sync "$MNT/dir/file"
    wait_until 30 is_settled
    OBJECT=$(find "$STORE/objects" -type f -size +4000k ! -name '*.sum')
    [ -f "$OBJECT" ]
}

# flip FILE OFFSET: one bit of the file is another.
flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059
    printf "\\x$(printf %02x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# verify CODE [ARGUMENT...]: the JSON in TEST_DIR/json; it ends with CODE and says so.
verify() {
    local code=$1 status=0
    shift
    "$CKPTFS" verify --json "$@" >"$TEST_DIR/json" || status=$?
    cat "$TEST_DIR/json"
    [ "$status" -eq "$code" ]
    [ "$(jq .exit_code "$TEST_DIR/json")" -eq "$code" ]
}

# finding FIELD [INDEX]
finding() {
    jq -r ".findings[${2:-0}].$1" "$TEST_DIR/json"
}

# Reads every page of a file: those in [FIRST, LAST) fail with EIO, all others are those of the original.
check_pages() {
    python3 - "$1" "$ORIGINAL" "$2" "$3" <<'PYTHON'
import errno, os, sys
path, original, first, last = sys.argv[1], open(sys.argv[2], "rb").read(), int(sys.argv[3]), int(sys.argv[4])
fd = os.open(path, os.O_RDONLY)
for at in range(0, len(original), 4096):
    expected = original[at:at + 4096]
    damaged = at < last and at + len(expected) > first
    try:
        found = os.pread(fd, 4096, at)
    except OSError as error:
        assert error.errno == errno.EIO and damaged, (at, error)
        continue
    assert not damaged and found == expected, at
PYTHON
}

@test "what is right is found right, mounted and not" {
    make_file
    verify 0 "$MNT"
    [ "$(jq .verified_bytes "$TEST_DIR/json")" -eq 5000000 ]
    run "$CKPTFS" verify "$MNT"
    [ "$status" -eq 0 ]
    [ "${#lines[@]}" -eq 1 ]
    ckptfs_umount
    verify 0 "$STORE"
    [ "$(jq '.findings | length' "$TEST_DIR/json")" -eq 0 ]
}

@test "a flipped bit is found offline, recorded, and gives EIO at its chunk alone" {
    make_file
    ckptfs_umount
    flip "$OBJECT" 3000000
    verify 4 "$STORE"
    [ "$(finding path)" = /dir/file ]
    [ "$(finding found)" = differs ]
    [ "$(finding offset)" = "$(finding object_offset)" ]
    local first last
    first=$(finding offset)
    last=$((first + $(finding length)))
    [ "$first" -le 3000000 ]
    [ "$last" -gt 3000000 ]
    [ $((last - first)) -le 1048576 ]
    ckptfs_mount
    check_pages "$MNT/dir/file" "$first" "$last"
    ckptfs_remount
    check_pages "$MNT/dir/file" "$first" "$last"
    verify 4 "$MNT"
    ckptfs_umount
}

@test "a flipped bit is found on a mount in use; what was cached is not served on" {
    make_file
    cat "$MNT/dir/file" >/dev/null
    flip "$OBJECT" 100
    run "$CKPTFS" verify "$MNT"
    echo "$output"
    [ "$status" -eq 4 ]
    [[ "${lines[0]}" == "/dir/file: "*" bytes at 0 are damaged: they have another hash; object 0"*" at 0" ]]
    verify 4 "$MNT"
    [ "$(ckptfs_status_field damaged_ranges)" -eq 1 ]
    check_pages "$MNT/dir/file" 0 "$(finding length)"
    # Right again: found so, and served by passthrough again.
    flip "$OBJECT" 100
    verify 0 "$MNT"
    [ "$(ckptfs_status_field damaged_ranges)" -eq 0 ]
    cmp "$MNT/dir/file" "$ORIGINAL"
    ckptfs_umount
}

@test "who opens a file that others have open by passthrough reads no wrong bytes" {
    make_file
    require_passthrough
    exec 9<"$MNT/dir/file"
    flip "$OBJECT" 3000000
    verify 4 "$MNT"
    run cmp "$MNT/dir/file" "$ORIGINAL"
    [[ "$output" == *"Input/output error"* ]]
    "$CKPTFS" restart "$MNT"
    run cmp "$MNT/dir/file" "$ORIGINAL"
    [[ "$output" == *"Input/output error"* ]]
    exec 9<&-
    ckptfs_umount
}

@test "damaged bytes that are written over are right again" {
    make_file
    flip "$OBJECT" 3000000
    verify 4 "$MNT"
    local first length
    first=$(finding offset)
    length=$(finding length)
    dd if="$ORIGINAL" of="$MNT/dir/file" bs=1 skip=$((first - 10)) seek=$((first - 10)) count=$((length + 20)) \
        iflag=fullblock conv=notrunc status=none
    cmp "$MNT/dir/file" "$ORIGINAL"
    verify 0 "$MNT"
    ckptfs_remount
    cmp "$MNT/dir/file" "$ORIGINAL"
    verify 0 "$MNT"
    ckptfs_umount
    verify 0 "$STORE"
}

@test "a damaged file can be truncated, replaced and removed" {
    make_file
    flip "$OBJECT" 3000000
    verify 4 "$MNT"
    truncate -s 1000000 "$MNT/dir/file"
    cmp -n 1000000 "$MNT/dir/file" "$ORIGINAL"
    verify 0 "$MNT"
    cp "$ORIGINAL" "$MNT/dir/file"
    cmp "$MNT/dir/file" "$ORIGINAL"
    rm "$MNT/dir/file"
    wait_until 20 test ! -e "$OBJECT"
    verify 0 "$MNT"
    ckptfs_umount
}

@test "damage in a copy is damage in the copy" {
    make_file
    flip "$OBJECT" 3000000
    verify 4 "$MNT"
    run cp "$MNT/dir/file" "$MNT/dir/copy"
    run cmp "$MNT/dir/copy" "$ORIGINAL"
    [ "$status" -ne 0 ]
    # Never the wrong byte.
    [ "$(od -An -tx1 -j 3000000 -N 1 "$MNT/dir/copy" 2>/dev/null)" != "$(od -An -tx1 -j 3000000 -N 1 "$OBJECT")" ]
    ckptfs_umount
}

@test "damage where no file has bytes is not reported" {
    make_file
    dd if=/dev/zero of="$MNT/dir/file" bs=1M seek=1 count=3 conv=notrunc status=none
    wait_until 20 nothing_unhashed
    ckptfs_umount
    flip "$OBJECT" 10
    verify 4 "$STORE"
    ckptfs_mount
    cp "$ORIGINAL" "$MNT/dir/file"
    ckptfs_umount
    # The old object, if it is there still, has no live bytes.
    verify 0 "$STORE"
}

# The copy has no bytes of its own: what the kernel may have copied was given back when it was sealed.
part_is_shared() { [ "$("$CKPTFS" du -s --json "$MNT/dir/part" | jq '.[0].unique_bytes')" -eq 0 ]; }

@test "dead chunks of an object in use are not looked at" {
    make_file
    python3 - "$MNT/dir/file" "$MNT/dir/part" <<'PYTHON'
import os, sys
source, copy = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
done = 0
while done < 1 << 20:
    done += os.copy_file_range(source, copy, (1 << 20) - done, done, done)
PYTHON
    wait_until 20 part_is_shared
    rm "$MNT/dir/file"
    wait_until 20 has_inodes 3
    [ -e "$OBJECT" ]
    flip "$OBJECT" 4000000
    wait_until 20 nothing_unhashed
    verify 0 "$MNT"
    cmp "$MNT/dir/part" <(head -c 1048576 "$ORIGINAL")
    ckptfs_umount
}

@test "an object that was cut off: what is missing gives EIO" {
    make_file
    ckptfs_umount
    truncate -s 2000000 "$OBJECT"
    ckptfs_mount
    check_pages "$MNT/dir/file" 2000000 5000000
    grep -q "ends at 2000000, expected 5000000 bytes" "$CKPTFS_LOG"
    verify 4 "$MNT"
    [ "$(finding found)" = short ]
    # An object that is short is never written in place, or the file would be shorter too.
    echo x | dd of="$MNT/dir/file" bs=1 conv=notrunc status=none
    [ "$(stat -c %s "$MNT/dir/file")" -eq 5000000 ]
    ckptfs_umount
    verify 4 "$STORE"
    [ "$(finding found)" = short ]
}

@test "an object that is missing" {
    make_file
    ckptfs_umount
    rm "$OBJECT"
    verify 4 "$STORE"
    [ "$(finding found)" = missing ]
    [ "$(finding path)" = /dir/file ]
    [ "$(finding length)" -eq 5000000 ]
    ckptfs_mount
    run cat "$MNT/dir/file"
    [ "$status" -ne 0 ]
    verify 4 "$MNT"
    grep -q "is missing; reads give EIO" "$CKPTFS_LOG"
    ckptfs_umount
}

@test "a table of hashes that is missing or damaged" {
    make_file
    ckptfs_umount
    flip "$OBJECT.sum" 60
    verify 5 "$STORE"
    [ "$(finding found)" = table_damaged ]
    rm "$OBJECT.sum"
    verify 5 "$STORE"
    [ "$(finding found)" = table_missing ]
    [ "$(jq .unverifiable_objects "$TEST_DIR/json")" -eq 1 ]
    ckptfs_mount
    verify 5 "$MNT"
    cmp "$MNT/dir/file" "$ORIGINAL"
    ckptfs_umount
}

@test "a table that is missing when its file is looked at for equal bytes is made anew, and said" {
    CKPTFS_FAULT=fs.share:EIO:1+ ckptfs_mount
    mkdir "$MNT/dir"
    cp "$ORIGINAL" "$MNT/dir/older"
    sync "$MNT/dir/older"
    wait_until 30 nothing_unhashed
    cp "$ORIGINAL" "$MNT/dir/file"
    sync "$MNT/dir/file"
    wait_until 30 nothing_unhashed
    ckptfs_umount
    OBJECT=$(find "$STORE/objects" -type f -size +4000k ! -name '*.sum' | sort | tail -n 1)
    rm "$OBJECT.sum"
    ckptfs_mount
    wait_until 30 grep -q "object ${OBJECT##*/}: its table of hashes is missing: it is made anew" "$CKPTFS_LOG"
    wait_until 30 is_settled
    verify 0 "$MNT"
    [ -f "$OBJECT.sum" ]
}

@test "only what the paths name is looked at" {
    make_file
    head -c 300000 /dev/urandom >"$MNT/other"
    wait_until 20 nothing_unhashed
    flip "$OBJECT" 3000000
    verify 0 "$MNT" other
    [ "$(jq .verified_bytes "$TEST_DIR/json")" -eq 300000 ]
    verify 4 "$MNT" "$MNT/dir"
    verify 4 "$MNT" other dir/file dir
    [ "$(jq .verified_bytes "$TEST_DIR/json")" -eq 5300000 ]
    run "$CKPTFS" verify "$MNT" nothing
    [ "$status" -eq 1 ]
    ckptfs_umount
    verify 0 "$STORE" /other
    verify 4 "$STORE" dir
    run "$CKPTFS" verify "$STORE" dir/nothing
    [ "$status" -eq 1 ]
}

@test "repair takes the bytes from an equal file" {
    require_root
    make_file allow_other
    chmod 777 "$MNT/dir"
    # Files of two owners share no bytes by themselves.
    run_as_user cp "$ORIGINAL" "$MNT/dir/twin"
    sync "$MNT/dir/twin"
    wait_until 20 nothing_unhashed
    flip "$OBJECT" 0
    flip "$OBJECT" 3000000
    verify 4 "$MNT"
    verify 0 --repair "$MNT"
    [ "$(finding found)" = repaired ]
    cmp "$MNT/dir/file" "$ORIGINAL"
    verify 0 "$MNT"
    [ "$(jq '.findings | length' "$TEST_DIR/json")" -eq 0 ]
    ckptfs_umount
    truncate -s 300000 "$OBJECT"
    verify 0 --repair "$STORE"
    cmp "$OBJECT" "$ORIGINAL"
    verify 0 "$STORE"
}

@test "repair leaves alone what others see, and what has no copy" {
    require_root
    make_file allow_other
    require_passthrough
    flip "$OBJECT" 3000000
    verify 4 --repair "$MNT"
    [ "$(finding found)" = differs ]
    flip "$OBJECT" 3000000
    verify 0 "$MNT"
    chmod 777 "$MNT/dir"
    run_as_user cp "$ORIGINAL" "$MNT/dir/twin"
    wait_until 20 nothing_unhashed
    exec 9<"$MNT/dir/file"
    flip "$OBJECT" 3000000
    verify 4 --repair "$MNT"
    [ "$(finding found)" = not_repaired ]
    exec 9<&-
    # The kernel gives the handle back a moment later.
    wait_until 20 verify 0 --repair "$MNT"
    cmp "$MNT/dir/file" "$ORIGINAL"
    ckptfs_umount
}

@test "files in use are verified around" {
    make_file
    local i
    for i in 1 2 3 4 5 6; do
        echo "round $i"
        dd if=/dev/urandom of="$MNT/dir/changing" bs=1M count=8 conv=notrunc status=none
        "$CKPTFS" verify "$MNT"
        rm -f "$MNT/dir/gone"
        mv "$MNT/dir/changing" "$MNT/dir/gone"
        "$CKPTFS" verify "$MNT"
        dd if=/dev/urandom of="$MNT/dir/gone" bs=1M count=4 seek=2 conv=notrunc status=none
        "$CKPTFS" verify "$MNT"
    done
    ckptfs_umount
    verify 0 "$STORE"
}

@test "another user is refused" {
    require_root
    make_file allow_other
    run run_as_user "$CKPTFS" verify "$MNT"
    echo "$output"
    [ "$status" -eq 33 ]
    ckptfs_umount
}

@test "exit codes and messages of what cannot be verified" {
    make_file
    run "$CKPTFS" verify "$STORE"
    [ "$status" -eq 23 ]
    [[ "$output" == *"mounted at $MNT"* ]]
    run "$CKPTFS" verify "$TEST_DIR/nothing"
    [ "$status" -eq 20 ]
    [ ! -e "$TEST_DIR/nothing" ]
    run "$CKPTFS" verify
    [ "$status" -eq 2 ]
    run "$CKPTFS" verify --rate=none "$MNT"
    [ "$status" -eq 2 ]
    run "$CKPTFS" verify --no-such-option "$MNT"
    [ "$status" -eq 2 ]
    ckptfs_umount
}

@test "--rate keeps to its rate" {
    make_file
    local before=${EPOCHREALTIME/./}
    "$CKPTFS" verify --rate=2 "$MNT"
    [ $((${EPOCHREALTIME/./} - before)) -gt 2000000 ]
    ckptfs_umount
}
