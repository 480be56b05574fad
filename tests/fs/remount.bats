#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What was on the filesystem is there after it was mounted again, down to inode numbers and the order of directories.

load fs.bash

# A tree with one of everything; more for root.
make_tree() {
    mkdir -p run/checkpoint-1 run/checkpoint-2 run/empty "run/name with spaces"
    local size
    for size in 0 1 1000 16383 16384 16385 100000 3000000; do
        head -c $size /dev/urandom >run/checkpoint-1/file-$size
    done
    ln run/checkpoint-1/file-1000 run/checkpoint-2/hard-small
    ln run/checkpoint-1/file-3000000 run/checkpoint-2/hard-large
    ln -s ../checkpoint-1/file-1000 run/checkpoint-2/soft
    ln -s nowhere run/dangling
    cp run/checkpoint-1/file-3000000 run/checkpoint-2/copy
    mkfifo run/fifo
    truncate -s 5000000 run/sparse
    printf data | dd of=run/sparse bs=1 seek=2000000 conv=notrunc status=none
    setfattr -n user.one -v value run/checkpoint-1/file-1000
    setfattr -n user.two -v 0xff00 run/checkpoint-2
    chmod 0640 run/checkpoint-1/file-1
    chmod 1777 run/empty
    touch -d '1969-12-31 23:59:58.123456789 UTC' run/checkpoint-1/file-16384
    touch -d '2100-01-01 00:00:00.000000001 UTC' run/checkpoint-1
    local name
    for name in $(seq 1 300 | shuf); do echo "$name" >"run/name with spaces/$name"; done
    for name in $(seq 1 3 300); do rm "run/name with spaces/$name"; done
    for name in $(seq 1 6 300); do echo again >"run/name with spaces/$name"; done
    [ "$(id -u)" -eq 0 ] || return 0
    mknod run/null c 1 3
    setfattr -n trusted.three -v 3 run/checkpoint-1/file-1
    chown 1234:4321 run/checkpoint-1/file-16385 run/empty
    chmod 4755 run/checkpoint-1/file-16385
}

@test "a tree with one of everything" {
    make_tree
    fs_snapshot run >"$BATS_TEST_TMPDIR/before"
    fs_remount
    fs_snapshot run >"$BATS_TEST_TMPDIR/after"
    diff "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
    fs_remount
    fs_snapshot run >"$BATS_TEST_TMPDIR/again"
    diff "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/again"
}

@test "the tree can be changed after mounting again" {
    make_tree
    fs_remount
    local name
    for name in run/checkpoint-1/file-* run/checkpoint-2/copy run/sparse; do
        cp "$name" "$BATS_TEST_TMPDIR/expected"
        printf appended | tee -a "$BATS_TEST_TMPDIR/expected" >>"$name"
        printf X | dd of="$name" bs=1 seek=500 conv=notrunc status=none
        printf X | dd of="$BATS_TEST_TMPDIR/expected" bs=1 seek=500 conv=notrunc status=none
        cmp "$name" "$BATS_TEST_TMPDIR/expected"
    done
    cmp run/checkpoint-1/file-1000 run/checkpoint-2/hard-small
    fs_snapshot run >"$BATS_TEST_TMPDIR/before"
    fs_remount
    fs_snapshot run >"$BATS_TEST_TMPDIR/after"
    diff "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
    rm -r run
    [ "$(stat -c %h .)" -eq 2 ]
}

@test "holes are found where they were" {
    truncate -s 8M sparse
    head -c 1M /dev/urandom | dd of=sparse bs=1M seek=4 conv=notrunc status=none
    local before after
    before=$(xfs_io -r -c 'seek -a -r 0' sparse 2>/dev/null) || skip "needs xfs_io"
    fs_remount
    after=$(xfs_io -r -c 'seek -a -r 0' sparse)
    [ "$before" = "$after" ]
}

@test "inode numbers are never used again" {
    if fs_is_plain; then skip "plain disks use them again"; fi
    local numbers
    numbers=$(for name in $(seq 50); do touch "a-$name" && stat -c %i "a-$name"; done)
    rm a-*
    fs_remount
    numbers+=$'\n'$(for name in $(seq 50); do touch "b-$name" && stat -c %i "b-$name"; done)
    [ "$(sort -u <<<"$numbers" | wc -l)" -eq 100 ]
}

@test "an unlinked open file does not come back" {
    echo bytes >file
    exec 9<>file
    rm file
    echo more >&9
    exec 9>&-
    fs_remount
    [ -z "$(ls -A)" ]
}

@test "stores through a mapping are there" {
    require_command python3
    head -c 100000 /dev/zero >array
    python3 -c '
import mmap
with open("array", "r+b") as file:
    array = mmap.mmap(file.fileno(), 0)
array[5000:5006] = b"stored"
array[99990:] = b"stored end"
array.close()'
    fs_remount
    [ "$(dd if=array bs=1 skip=5000 count=6 status=none)" = stored ]
    [ "$(tail -c 10 array)" = "stored end" ]
    [ "$(stat -c %s array)" -eq 100000 ]
}

@test "rsync finds nothing to do" {
    require_command rsync
    make_tree
    rsync -aHX run/ "$BATS_TEST_TMPDIR/copy/"
    [ -z "$(rsync -aHXi run/ "$BATS_TEST_TMPDIR/copy/")" ]
    fs_remount
    [ -z "$(rsync -aHXi run/ "$BATS_TEST_TMPDIR/copy/")" ]
    [ -z "$(rsync -aHXic run/ "$BATS_TEST_TMPDIR/copy/")" ]
}
