#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What files and trees cost: `ckptfs du` and the figures of a file as extended attributes.

load ../lib/ckptfs.bash

MIB=1048576

setup() {
    require_command jq
    ckptfs_setup
    if [ "$(id -u)" -eq 0 ]; then ckptfs_mount allow_other; else ckptfs_mount; fi
}
teardown() { ckptfs_teardown; }

# figure FIELD PATH: one figure of a path, in bytes.
figure() {
    "$CKPTFS" du -s --json "$2" | jq ".[0].$1"
}

is_figure() {
    [ "$(figure "$1" "$2")" = "$3" ]
}

everything_is_shared() {
    [ "$(ckptfs_status_field unshared_files)" -eq 0 ]
}

something_is_shared() {
    everything_is_shared && [ "$(figure stored_bytes "$MNT")" -lt "$(figure logical_bytes "$MNT")" ]
}

# random_file MIB PATH
random_file() {
    head -c $(($1 * MIB)) /dev/urandom >"$2"
}

attribute() {
    getfattr --absolute-names --only-values -n "user.ckptfs.$1" "$2"
}

@test "a clone costs nothing, and deleting one of two frees nothing" {
    mkdir -p "$MNT/run/a" "$MNT/run/b"
    random_file 4 "$MNT/run/a/model"
    cp --reflink=auto "$MNT/run/a/model" "$MNT/run/b/model"
    wait_until 30 is_figure stored_bytes "$MNT/run" $((4 * MIB))
    is_figure unique_bytes "$MNT/run" $((4 * MIB))
    is_figure logical_bytes "$MNT/run" $((8 * MIB))
    is_figure files "$MNT/run" 2
    local path
    for path in a b a/model b/model; do
        is_figure logical_bytes "$MNT/run/$path" $((4 * MIB))
        is_figure stored_bytes "$MNT/run/$path" $((4 * MIB))
        is_figure unique_bytes "$MNT/run/$path" 0
    done
    [ "$(figure share_ratio "$MNT/run")" = 2 ]
    rm -r "$MNT/run/a"
    is_figure unique_bytes "$MNT/run/b" $((4 * MIB))
}

@test "the same bytes saved twice are stored once" {
    mkdir "$MNT/first" "$MNT/second"
    random_file 6 "$TEST_DIR/model"
    cat "$TEST_DIR/model" >"$MNT/first/model"
    cat "$TEST_DIR/model" >"$MNT/second/model"
    wait_until 60 everything_is_shared
    wait_until 60 is_figure stored_bytes "$MNT" $((6 * MIB))
    is_figure logical_bytes "$MNT" $((12 * MIB))
    is_figure unique_bytes "$MNT/first" 0
    is_figure unique_bytes "$MNT/second" 0
    cmp "$TEST_DIR/model" "$MNT/first/model"
}

@test "totals add up where files share a part" {
    mkdir "$MNT/first" "$MNT/second"
    random_file 4 "$TEST_DIR/common"
    random_file 2 "$TEST_DIR/one"
    random_file 3 "$TEST_DIR/two"
    cat "$TEST_DIR/common" "$TEST_DIR/one" >"$MNT/first/model"
    cat "$TEST_DIR/common" "$TEST_DIR/two" >"$MNT/second/model"
    wait_until 60 something_is_shared
    is_figure logical_bytes "$MNT" $((13 * MIB))
    local all first second
    all=$(figure stored_bytes "$MNT")
    first=$(figure unique_bytes "$MNT/first")
    second=$(figure unique_bytes "$MNT/second")
    # Both have the same part in common, of which chunks at its end may not be recognised.
    [ $((all - first - second)) -eq $(($(figure stored_bytes "$MNT/first") - first)) ]
    [ $((all - first - second)) -eq $(($(figure stored_bytes "$MNT/second") - second)) ]
    [ "$first" -ge $((2 * MIB)) ]
    [ "$first" -lt $((4 * MIB)) ]
    [ "$second" -ge $((3 * MIB)) ]
    is_figure unique_bytes "$MNT" "$all"
}

@test "hard links count once, and one outside keeps the bytes" {
    mkdir "$MNT/in" "$MNT/out"
    random_file 1 "$MNT/in/model"
    ln "$MNT/in/model" "$MNT/in/again"
    is_figure files "$MNT/in" 1
    is_figure stored_bytes "$MNT/in" $MIB
    is_figure unique_bytes "$MNT/in" $MIB
    is_figure unique_bytes "$MNT/in/model" 0
    ln "$MNT/in/model" "$MNT/out/model"
    is_figure stored_bytes "$MNT/in" $MIB
    is_figure unique_bytes "$MNT/in" 0
    is_figure unique_bytes "$MNT" $MIB
}

@test "small files, empty ones, and one that is being written" {
    echo 12345 >"$MNT/small"
    : >"$MNT/empty"
    mkdir "$MNT/none"
    mkfifo "$MNT/pipe"
    exec 9>"$MNT/open"
    head -c 100000 /dev/zero >&9
    is_figure logical_bytes "$MNT/small" 6
    is_figure unique_bytes "$MNT/small" 6
    is_figure stored_bytes "$MNT/empty" 0
    is_figure share_ratio "$MNT/empty" null
    is_figure files "$MNT/none" 0
    is_figure stored_bytes "$MNT/open" 100000
    is_figure logical_bytes "$MNT" 100006
    is_figure files "$MNT" 3
    exec 9>&-
}

@test "directories down to the depth that was asked for" {
    mkdir -p "$MNT/1/2/3/4"
    echo 12345 >"$MNT/1/2/3/4/file"
    local text
    text=$("$CKPTFS" du -b "$MNT/1")
    echo "$text"
    [ "$(wc -l <<<"$text")" -eq 3 ]
    [ "$(sed -n 1p <<<"$text" | tr -s ' ')" = " LOGICAL STORED UNIQUE RATIO PATH" ]
    [ "$(sed -n 2p <<<"$text" | tr -s ' ')" = " 6 6 6 1.00 $MNT/1/2" ]
    [ "$(sed -n 3p <<<"$text" | tr -s ' ')" = " 6 6 6 1.00 $MNT/1" ]
    [ "$("$CKPTFS" du -s "$MNT/1" | wc -l)" -eq 2 ]
    [ "$("$CKPTFS" du --max-depth=0 "$MNT/1" | wc -l)" -eq 2 ]
    [ "$("$CKPTFS" du --max-depth=2 "$MNT/1" | wc -l)" -eq 4 ]
    [ "$("$CKPTFS" du -d 99 "$MNT/1" "$MNT/1/2/3/4/file" | wc -l)" -eq 6 ]
    "$CKPTFS" du "$MNT/1" | grep -q '6 bytes  *6 bytes  *6 bytes '
    # The columns begin and end at the same places.
    [ "$("$CKPTFS" du "$MNT/1" | sed "s|$MNT/1.*|PATH|" | awk '{ print length($0) }' | sort -u | wc -l)" -eq 1 ]
}

@test "names that JSON cannot hold" {
    mkdir "$MNT/"$'a\xff\nb"'
    "$CKPTFS" du --json "$MNT" | jq -e --arg path "$MNT/"$'a?\nb"' '.[0].path == $path'
}

@test "what is not on a mount, is not there, or may not be read" {
    run "$CKPTFS" du "$TEST_DIR"
    [ "$status" -eq 30 ]
    [[ "$output" == *"not on a mount of ckptfs"* ]]
    run "$CKPTFS" du "$MNT/missing"
    [ "$status" -eq 1 ]
    run "$CKPTFS" du
    [ "$status" -eq 2 ]
    run "$CKPTFS" du -d one "$MNT"
    [ "$status" -eq 2 ]
    # The others are still told.
    run "$CKPTFS" du -s "$MNT/missing" "$MNT"
    [ "$status" -eq 1 ]
    [[ "$output" == *" $MNT" ]]
    mkdir "$MNT/closed"
    chmod 700 "$MNT/closed"
    run run_as_user "$CKPTFS" du "$MNT/closed"
    [ "$status" -eq 1 ]
    [[ "$output" == *"Permission denied"* ]]
}

@test "nobody learns what another user's files have in common with his own" {
    require_root
    mkdir -m 755 "$MNT/mine" "$MNT/theirs"
    random_file 2 "$MNT/mine/model"
    cp --reflink=auto "$MNT/mine/model" "$MNT/theirs/model"
    wait_until 30 is_figure stored_bytes "$MNT" $((2 * MIB))
    chown "${CKPTFS_TEST_USER:-nobody}" "$MNT/theirs" "$MNT/theirs/model"
    # Root sees all; the user sees his file alone.
    is_figure unique_bytes "$MNT/theirs" 0
    [ "$(run_as_user "$CKPTFS" du -s -j "$MNT/theirs" | jq '.[0].unique_bytes')" -eq $((2 * MIB)) ]
    [ "$(run_as_user "$CKPTFS" du -s -j "$MNT" | jq '.[0].logical_bytes')" -eq $((2 * MIB)) ]
    [ "$(run_as_user "$CKPTFS" du -s -j "$MNT/mine/model" | jq '.[0].files')" -eq 0 ]
    [ "$(run_as_user getfattr --absolute-names --only-values -n user.ckptfs.unique "$MNT/theirs/model")" -eq $((2 * MIB)) ]
    local name
    for name in hash stored unique extents; do
        run run_as_user getfattr --absolute-names -n "user.ckptfs.$name" "$MNT/mine/model"
        [ "$status" -ne 0 ]
        [[ "$output" == *"No such attribute"* ]]
    done
}

is_hashed() {
    attribute hash "$MNT/model"
}

@test "the figures of a file as extended attributes" {
    require_command getfattr
    random_file 1 "$MNT/model"
    wait_until 60 is_hashed
    local hash
    hash=$(attribute hash "$MNT/model")
    [[ "$hash" =~ ^[0-9a-f]{32}$ ]]
    [ "$(attribute stored "$MNT/model")" -eq $MIB ]
    [ "$(attribute unique "$MNT/model")" -eq $MIB ]
    [ "$(attribute extents "$MNT/model")" -eq 1 ]
    [ -n "$(attribute state "$MNT/model")" ]
    ln "$MNT/model" "$MNT/link"
    [ "$(attribute unique "$MNT/model")" -eq 0 ]
    # A small file has its bytes, and no object.
    echo 12345 >"$MNT/small"
    [ "$(attribute stored "$MNT/small")" -eq 6 ]
    is_small() { [ "$(attribute extents "$MNT/small")" -le 1 ]; }
    wait_until 30 is_small
    run attribute hash "$MNT/small"
    [ "$status" -ne 0 ]
    # A file that was changed is not what was hashed.
    printf x | dd of="$MNT/model" bs=1 seek=500000 conv=notrunc status=none
    run attribute hash "$MNT/model"
    [ "$status" -ne 0 ] || [ "$output" != "$hash" ]
    [ -z "$(getfattr --absolute-names -d -m - "$MNT/model")" ]
    run setfattr -n user.ckptfs.stored -v 1 "$MNT/model"
    [[ "$output" == *"Operation not permitted"* ]]
    run setfattr -x user.ckptfs.hash "$MNT/model"
    [[ "$output" == *"Operation not permitted"* ]]
    run attribute no-such-figure "$MNT/model"
    [[ "$output" == *"No such attribute"* ]]
    run attribute stored "$MNT"
    [[ "$output" == *"No such attribute"* ]]
}

@test "many files, while others go on working" {
    require_command python3
    python3 - "$MNT" <<'PYTHON'
import os, subprocess, sys, time
top = sys.argv[1]
for directory in range(20):
    os.mkdir(f"{top}/{directory}")
    for number in range(200):
        with open(f"{top}/{directory}/{number}", "wb") as file:
            file.write(b"x" * number)
start = time.monotonic()
asking = [subprocess.Popen([os.environ["CKPTFS"], "du", "-b", top], stdout=subprocess.PIPE, text=True) for _ in range(4)]
slowest = 0
while any(process.poll() is None for process in asking):
    before = time.monotonic()
    with open(f"{top}/other", "wb"):
        pass
    os.unlink(f"{top}/other")
    slowest = max(slowest, time.monotonic() - before)
print(f"asked for {time.monotonic() - start:.2f} s, the slowest create and unlink meanwhile took {slowest:.3f} s")
for process in asking:
    lines = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert len(lines) == 22, lines
    assert int(lines[-1].split()[0]) == 20 * 199 * 100, lines[-1]
    assert sum(int(line.split()[1]) for line in lines[1:-1]) == int(lines[-1].split()[1])
assert slowest < 20
PYTHON
}

# mount_with_faults FAULT: the first daemon meets it.
mount_with_faults() {
    ckptfs_umount
    CKPTFS_FAULT=$1 CKPTFS_FAULT_STARTS=1 ckptfs_mount
    [ "$(ckptfs_status_field features.takeover)" = true ] || skip "needs a kernel with takeover"
}

@test "a daemon that dies, or is replaced, while it is asked" {
    random_file 1 "$MNT/model"
    mount_with_faults fs.report:kill:2
    is_figure stored_bytes "$MNT" $MIB
    [ "$(ckptfs_status_field generation)" -eq 2 ]
    local asking
    for _ in $(seq 100); do "$CKPTFS" du -s -b "$MNT" || echo failed; done >"$TEST_DIR/answers" &
    asking=$!
    for _ in 1 2 3; do "$CKPTFS" restart "$MNT"; done
    wait "$asking"
    [ "$(grep -c " 1.00  $MNT\$" "$TEST_DIR/answers")" -eq 100 ]
}

@test "an error of the daemon is told" {
    # The first report is that of the mount command, which asks whether there is room.
    mount_with_faults fs.report:EIO:2
    run "$CKPTFS" du "$MNT"
    [ "$status" -eq 1 ]
    [[ "$output" == *"Input/output error"* ]]
    is_figure stored_bytes "$MNT" 0
}
