#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# user.ckptfs.sha256: what sha256sum says of a file, kept while the file stays as it is.

load ../lib/ckptfs.bash

MIB=1048576

setup() {
    require_command getfattr
    require_command jq
    ckptfs_setup
    if [ "$(id -u)" -eq 0 ]; then ckptfs_mount allow_other; else ckptfs_mount; fi
}
teardown() { ckptfs_teardown; }

# random_file MIB PATH
random_file() { head -c $(($1 * MIB)) /dev/urandom >"$2"; }

sum() { getfattr --absolute-names --only-values -n user.ckptfs.sha256 "$1"; }

# The attribute is what sha256sum finds; when asked a second time too.
is_right() {
    local expected again
    expected=$(sha256sum <"$1") again=
    for again in first second; do
        [ "$(sum "$1")" = "${expected%% *}" ] || {
            echo "$1: $(sum "$1") when asked for the $again time, expected $expected"
            return 1
        }
    done
}

is_settled() {
    "$CKPTFS" status --json "$MNT" |
        jq -e 'if type == "array" then .[0] else . end | .unshared_files == 0 and .behind_files == 0' >/dev/null
}

settle() { wait_until 40 is_settled; }

# Mounts so that no file can be read for its sum: what is answered was kept.
remount_without_reading() { CKPTFS_FAULT=fs.checksum:EIO:1+ ckptfs_remount; }

# keeps FILE: it is settled, and its sum is asked for.
keeps() {
    settle
    is_right "$1"
}

@test "it is what sha256sum says, of files of every sort" {
    : >"$MNT/empty"
    echo 12345 >"$MNT/small"
    random_file 5 "$MNT/large"
    truncate -s 7000000 "$MNT/hole"
    random_file 1 "$MNT/holes"
    truncate -s 9000001 "$MNT/holes"
    cp "$MNT/large" "$MNT/half"
    dd if=/dev/zero of="$MNT/half" bs=1000 seek=700 count=3 conv=notrunc status=none
    local name
    for name in empty small large hole holes half; do is_right "$MNT/$name"; done
    settle
    for name in empty small large hole holes half; do is_right "$MNT/$name"; done
    sum "$MNT/empty" | grep -qx e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    ckptfs_remount
    for name in empty small large hole holes half; do is_right "$MNT/$name"; done
}

@test "it is not listed, cannot be set, and only files have it" {
    random_file 1 "$MNT/file"
    sum "$MNT/file"
    [ -z "$(getfattr --absolute-names -d -m - "$MNT/file")" ]
    run setfattr -n user.ckptfs.sha256 -v 1 "$MNT/file"
    [[ "$output" == *"Operation not permitted"* ]]
    run sum "$MNT"
    [[ "$output" == *"No such attribute"* ]]
    mkfifo "$MNT/pipe"
    run sum "$MNT/pipe"
    [ "$status" -ne 0 ]
}

@test "who may read the file may ask for it, and nobody else" {
    require_root
    random_file 1 "$MNT/file"
    chmod 644 "$MNT/file"
    [ "$(run_as_user getfattr --absolute-names --only-values -n user.ckptfs.sha256 "$MNT/file")" = "$(sum "$MNT/file")" ]
    chmod 600 "$MNT/file"
    run run_as_user getfattr --absolute-names -n user.ckptfs.sha256 "$MNT/file"
    [ "$status" -ne 0 ]
    [[ "$output" == *"Permission denied"* ]]
}

@test "it is kept, over unmounts and changes of attributes and names" {
    random_file 5 "$MNT/file"
    keeps "$MNT/file"
    local expected
    expected=$(sum "$MNT/file")
    remount_without_reading
    [ "$(sum "$MNT/file")" = "$expected" ]
    chmod 600 "$MNT/file"
    touch -d 2020-01-01 "$MNT/file"
    mv "$MNT/file" "$MNT/moved"
    ln "$MNT/moved" "$MNT/link"
    # touch has opened it for writing: it is hashed again, and found to be the same.
    settle
    [ "$(sum "$MNT/link")" = "$expected" ]
    # Opened for writing, and not written, it is read again; nothing is kept of a file that is open so.
    exec 9<>"$MNT/moved"
    run sum "$MNT/moved"
    [ "$status" -ne 0 ]
    exec 9>&-
    ckptfs_remount
    keeps "$MNT/moved"
    remount_without_reading
    [ "$(sum "$MNT/moved")" = "$expected" ]
}

store_by_map() {
    python3 - "$1" <<'PYTHON'
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
with mmap.mmap(fd, 0) as memory:
    memory[3000000] ^= 1
os.close(fd)
PYTHON
}

copy_range() {
    python3 - "$1" "$2" <<'PYTHON'
import os, sys
source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY)
assert os.copy_file_range(source, target, 1 << 20, 0, 1 << 20) == 1 << 20
PYTHON
}

punch() { fallocate -p -o 100000 -l 300000 "$1"; }
zero() { fallocate -z -o 100000 -l 300000 "$1"; }
overwrite() { printf x | dd of="$1" bs=1 seek=2000000 conv=notrunc status=none; }
append() { echo x >>"$1"; }
cut() { truncate -s 4999999 "$1"; }
grow() { truncate -s 6000000 "$1"; }
# The bytes from its second half come to its start.
copy_within() { copy_range "$1" "$1"; }
copy_from_other() { copy_range "$MNT/other" "$1"; }
rewrite() { random_file 5 "$1"; }
empty() { : >"$1"; }

@test "no change of a file leaves an old sum, though its times say that nothing changed" {
    require_command python3
    random_file 5 "$MNT/other"
    local change round before
    for change in overwrite append cut grow punch zero store_by_map copy_within copy_from_other rewrite empty; do
        for round in alone shared; do
            echo "$change, $round"
            random_file 5 "$MNT/file"
            if [ $round = shared ]; then cp "$MNT/file" "$MNT/second"; fi
            keeps "$MNT/file"
            before=$(sum "$MNT/file")
            touch -r "$MNT/file" "$TEST_DIR/times"
            $change "$MNT/file"
            touch -r "$TEST_DIR/times" "$MNT/file"
            is_right "$MNT/file"
            [ "$(sum "$MNT/file")" != "$before" ]
            keeps "$MNT/file"
            if [ $round = shared ]; then [ "$(sum "$MNT/second")" = "$before" ]; fi
            rm -f "$MNT/file" "$MNT/second"
        done
    done
}

@test "of a file that gave way to a newer one, and of the newer one" {
    random_file 5 "$MNT/old"
    keeps "$MNT/old"
    cat "$MNT/old" >"$MNT/new"
    { cat "$MNT/old" && echo x; } >"$MNT/longer"
    keeps "$MNT/old"
    is_right "$MNT/new"
    is_right "$MNT/longer"
    rm "$MNT/old"
    keeps "$MNT/new"
    ckptfs_remount
    is_right "$MNT/new"
    is_right "$MNT/longer"
}

@test "while it is being written it is that of what is there" {
    exec 9>"$MNT/file"
    head -c 3000000 /dev/urandom >&9
    is_right "$MNT/file"
    head -c 1000 /dev/urandom >&9
    is_right "$MNT/file"
    exec 9>&-
    keeps "$MNT/file"
}

@test "without sharing, where nothing is hashed, it is computed each time" {
    ckptfs_remount sharing=off
    random_file 5 "$MNT/file"
    settle
    is_right "$MNT/file"
    overwrite "$MNT/file"
    is_right "$MNT/file"
    ckptfs_remount ro
    is_right "$MNT/file"
}

# flip_byte FILE OFFSET
flip_byte() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059
    printf "\\x$(printf %02x $((byte ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

@test "of damaged bytes there is none, and what was computed from them is not kept" {
    random_file 5 "$MNT/file"
    local right object wrong
    # Not asked for yet: none is kept.
    right=$(sha256sum <"$MNT/file")
    right=${right%% *}
    settle
    object=$(find "$STORE/objects" -type f ! -name '*.sum*')
    ckptfs_umount
    flip_byte "$object" 3000000
    ckptfs_mount
    # Nobody knows yet.
    wrong=$(sum "$MNT/file")
    [ "$wrong" != "$right" ]
    [ "$(sum "$MNT/file")" = "$wrong" ]
    run "$CKPTFS" verify "$MNT"
    [ "$status" -ne 0 ]
    run sum "$MNT/file"
    [ "$status" -ne 0 ]
    [[ "$output" == *"Input/output error"* ]]
    # It comes right again.
    ckptfs_umount
    flip_byte "$object" 3000000
    ckptfs_mount
    "$CKPTFS" verify "$MNT"
    [ "$(sum "$MNT/file")" = "$right" ]
    is_right "$MNT/file"
}

# ends_by_signal PID: it was still asking when it was told to end.
ends_by_signal() {
    local code=0
    wait "$1" || code=$?
    [ "$code" -eq 143 ]
}

@test "whoever asks can be interrupted, and keeps nobody waiting" {
    local number asking=()
    random_file 1 "$MNT/file"
    truncate -s 4T "$MNT/endless"
    # As many as there are threads for it.
    for number in 1 2 3 4; do
        getfattr --absolute-names -n user.ckptfs.sha256 "$MNT/endless" >"$TEST_DIR/asking.$number" 2>&1 &
        asking+=($!)
    done
    # Who waited behind them would wait for hours.
    [ "$(timeout 60 getfattr --absolute-names --only-values -n user.ckptfs.stored "$MNT/file")" -eq $MIB ]
    timeout 60 "$CKPTFS" du "$MNT"
    timeout 60 dd if=/dev/zero of="$MNT/file" bs=1 count=2 oflag=append conv=notrunc status=none
    timeout 60 dd if=/dev/zero of="$MNT/endless" bs=1 count=2 oflag=append conv=notrunc status=none
    timeout 60 cat "$MNT/file" >/dev/null
    timeout 60 sync "$MNT/endless"
    timeout 60 mv "$MNT/endless" "$MNT/moved"
    timeout 60 rm "$MNT/moved"
    kill "${asking[@]}"
    for number in "${asking[@]}"; do ends_by_signal "$number"; done
    is_right "$MNT/file"
}

@test "an unmount does not wait for it, and a daemon that is replaced starts again" {
    truncate -s 4T "$MNT/endless"
    random_file 5 "$MNT/file"
    local asking expected
    expected=$(sha256sum <"$MNT/file")
    if [ "$(ckptfs_status_field features.takeover)" = true ]; then
        getfattr --absolute-names -n user.ckptfs.sha256 "$MNT/endless" >"$TEST_DIR/asking" 2>&1 &
        asking=$!
        "$CKPTFS" restart "$MNT"
        [ "$(sum "$MNT/file")" = "${expected%% *}" ]
        kill "$asking"
        ends_by_signal "$asking"
    fi
    rm "$MNT/endless"
    ckptfs_umount
}
