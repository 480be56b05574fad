# SPDX-License-Identifier: Apache-2.0
# The power goes: the store lies on a filesystem of its own that is shut down without a flush, and mounted again.

load crash.bash
load ../lib/journal.bash

setup() {
    crash_setup
    require_command xfs_io
}
teardown() { ckptfs_teardown; }

writers_went_on() { [ "$(cat "$TEST_DIR"/progress.* 2>/dev/null | awk '{ sum += $1 } END { print sum + 0 }')" -ge "$1" ]; }

torn_of_status() { "$CKPTFS" status --json "$MNT" | jq -r 'if type == "array" then .[0] else . end | .torn[]' | sort; }

# power_round ROUND SYNC_PERCENT [MOUNT_OPTION...]: two writers, a cut at a random moment, and a look at what is left.
power_round() {
    local round=$1 sync=$2 writer writers=() status
    shift 2
    ckptfs_mount "$@"
    rm -f "$TEST_DIR"/progress.* "$TEST_DIR/cut"
    for writer in 1 2; do
        crashtree write "$MNT/tree-$writer" "$TEST_DIR/state-$writer" --seed $((SEED + 10 * round + writer)) \
            --operations 100000 --sync "$sync" --cut "$TEST_DIR/cut" --progress "$TEST_DIR/progress.$writer" \
            >"$TEST_DIR/out-$writer" 3>&- &
        writers+=($!)
    done
    wait_until 60 writers_went_on $((RANDOM % 500 + 60))
    disk_cut_power
    for writer in 1 2; do
        status=0
        wait "${writers[writer - 1]}" || status=$?
        [ "$status" -eq 10 ] # stopped by the cut, not before it
        fsyncs=$((fsyncs + $(jq .fsyncs "$TEST_DIR/out-$writer")))
    done
    machine_restart
    ckptfs_mount "$@"
    : >"$TEST_DIR/torn"
    for writer in 1 2; do
        crashtree check "$MNT/tree-$writer" "$TEST_DIR/state-$writer" --after power >"$TEST_DIR/checked"
        cat "$TEST_DIR/checked"
        jq -r '.torn[]' "$TEST_DIR/checked" >>"$TEST_DIR/torn"
    done
    if [ -s "$TEST_DIR/torn" ]; then grep -q torn "$CKPTFS_LOG"; fi
    ckptfs_umount
}

lose_power() {
    local filesystem=$1 round fsyncs=0
    shift
    disk_create "$filesystem" 1024
    for round in $(seq "${CKPTFS_POWER_ROUNDS:-2}"); do
        power_round $round 20 "$@"
    done
    # A run without an fsync that returned would prove nothing.
    [ "$fsyncs" -gt 0 ]
    ckptfs_mount "$@"
    crashtree remove "$MNT/tree-1"
    crashtree remove "$MNT/tree-2"
}

@test "power cuts on XFS: what was fsynced is there, the rest is old, absent or torn" {
    lose_power xfs
}

@test "power cuts on ext4: what was fsynced is there, the rest is old, absent or torn" {
    lose_power ext4
}

@test "power cuts on XFS, served by the daemon" {
    long_only
    lose_power xfs passthrough=off
}

@test "power cuts on ext4, served by the daemon" {
    lose_power ext4 passthrough=off
}

# Nothing is fsynced: durable all the same when status says that nothing is behind.
durable_by_itself() {
    disk_create "$@" 1024
    ckptfs_mount
    crashtree write "$MNT/tree" "$TEST_DIR/state" --seed "$SEED" --operations 300 --sync 0
    head -c 20M /dev/urandom >"$MNT/big"
    cp "$MNT/big" "$TEST_DIR/big"
    wait_until 30 behind_nothing
    crashtree settle "$TEST_DIR/state"
    disk_cut_power
    machine_restart
    ckptfs_mount
    crashtree check "$MNT/tree" "$TEST_DIR/state" --after power
    cmp "$TEST_DIR/big" "$MNT/big"
}

@test "XFS: durable seconds after the last write without any fsync" {
    durable_by_itself xfs
}

@test "ext4: durable seconds after the last write without any fsync" {
    durable_by_itself ext4
}

is_behind() { [ "$(ckptfs_status_field behind_bytes)" -gt 0 ]; }

@test "as long as names are not on stable storage status says that something is behind" {
    local number
    CKPTFS_FAULT=meta.sync:EIO:20+ ckptfs_mount
    for number in {1..40}; do
        echo data >"$MNT/$number"
        sync "$MNT/$number" || break
    done
    [ "$number" -lt 40 ]
    is_behind
    wait_until 20 eval '[ "$(ckptfs_status_field behind_files)" -eq 0 ]'
    is_behind
}

# The power goes while files are written, and meta.db goes with it: what was durable a second before is there.
database_is_lost() {
    disk_create "$1" 1024
    local round
    for round in 1 2; do
        ckptfs_mount
        journal_has_all
        crashtree write "$MNT/tree-$round" "$TEST_DIR/state-$round" --seed "$((SEED + round))" \
            --operations 300 --sync 20
        wait_until 30 behind_nothing
        crashtree settle "$TEST_DIR/state-$round"
        journal_has_all
        head -c 3M /dev/urandom >"$MNT/unsynced"
        disk_cut_power
        machine_restart
        rm "$STORE"/meta.db*
        code=0
        "$CKPTFS" fsck --rebuild "$STORE" || code=$?
        # What was being written in the last moment may be what is left.
        [ "$code" -eq 1 ] || [ "$code" -eq 5 ]
        ckptfs_mount
        crashtree check "$MNT/tree-$round" "$TEST_DIR/state-$round" --after power
        ckptfs_umount
    done
}

@test "XFS: the database is lost with the power, and comes back" {
    long_only
    database_is_lost xfs
}

@test "ext4: the database is lost with the power, and comes back" {
    database_is_lost ext4
}

# Files that were fsynced are appended to inside their last blocks, and something else is fsynced before the power goes.
append_behind_syncs() {
    disk_create "$1" 300
    ckptfs_mount "${@:2}"
    timeout 100 python3 - "$MNT" <<'PY'
import os, sys

files = []
for number in range(40):
    files.append(os.open(f"{sys.argv[1]}/{number}", os.O_WRONLY | os.O_CREAT, 0o600))
    os.write(files[-1], b"a" * (20000 + 97 * number))
    os.fsync(files[-1])
for number, file in enumerate(files):
    os.write(file, b"b" * (number % 3 * 4000 + 40))
other = os.open(f"{sys.argv[1]}/other", os.O_WRONLY | os.O_CREAT, 0o600)
os.write(other, b"o" * 100000)
os.fsync(other)
PY
    disk_cut_power
    machine_restart
    ckptfs_mount "${@:2}"
    python3 - "$MNT" <<'PY'
import sys

for number in range(40):
    with open(f"{sys.argv[1]}/{number}", "rb") as file:
        found = file.read()
    synced = 20000 + 97 * number
    assert found[:synced] == b"a" * synced, f"{number}: synced bytes are lost"
    assert not found[synced:].strip(b"b"), f"{number}: {found[synced:][:20]} behind what was synced"
PY
}

@test "bytes that were appended after an fsync are there or not, on XFS and ext4" {
    append_behind_syncs xfs
    ckptfs_umount
    umount "$DISK"
    rm -r "$DISK" "$DISK_IMAGE" "$TEST_DIR/cut"
    append_behind_syncs ext4
}

@test "bytes that were appended after an fsync are there or not, served by the daemon" {
    append_behind_syncs ext4 passthrough=off
}

# Files that were synced are changed in place, each in its own way, while other files are synced, until the power goes.
# What has changed has the new bytes, or is told as torn.
change_synced_files() {
    disk_create "$1" 1024
    ckptfs_mount "${@:2}"
    cat >"$TEST_DIR/change.py" <<'PY'
import errno, os, sys, threading

directory, progress = sys.argv[1:]
COUNT, SIZE = 300, 400000


def until_cut(work, *arguments):
    """The disk that has gone gives EIO, or ends the process."""
    try:
        work(*arguments)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EROFS, errno.ENOTCONN, errno.ECONNABORTED, errno.EUCLEAN):
            raise


def sync_others():
    number = 0
    while True:
        with open(f"{directory}/other-{number % 20}", "wb") as other:
            other.write(b"o" * 20000)
            other.flush()
            os.fsync(other.fileno())
        number += 1


def change():
    for number in range(COUNT):
        path = f"{directory}/{number}"
        if number % 3 == 0:
            os.truncate(path, SIZE // 2 + 97 * number)
        else:
            with open(path, "r+b") as file:
                file.write(b"b" * 100000)
                file.flush()
                if number % 3 == 1:
                    os.fsync(file.fileno())
        os.pwrite(seen, b"%8d" % number, 0)


for number in range(COUNT):
    with open(f"{directory}/{number}", "wb") as file:
        file.write(b"a" * SIZE)
        file.flush()
        os.fsync(file.fileno())
seen = os.open(progress, os.O_WRONLY | os.O_CREAT, 0o600)
threading.Thread(target=until_cut, args=(sync_others,), daemon=True).start()
until_cut(change)
PY
    local round
    for round in $(seq "${CKPTFS_POWER_ROUNDS:-2}"); do
        rm -f "$TEST_DIR/changed" "$TEST_DIR/cut"
        rm -rf "$MNT"/*
        timeout 200 python3 "$TEST_DIR/change.py" "$MNT" "$TEST_DIR/changed" 3>&- &
        wait_until 60 has_changed $((RANDOM % 250 + 1))
        disk_cut_power
        wait $!
        machine_restart
        ckptfs_mount "${@:2}"
        python3 - "$MNT" <<'PY'
import os, sys

for number in range(300):
    path = f"{sys.argv[1]}/{number}"
    with open(path, "rb") as file:
        found = file.read()
    old = b"a" * 400000
    new = old[:200000 + 97 * number] if number % 3 == 0 else b"b" * 100000 + old[100000:]
    if found in (old, new):
        continue
    try:
        torn = os.getxattr(path, "user.ckptfs.state") == b"torn"
    except OSError:
        torn = False
    assert torn, f"{path}: {len(found)} bytes that are neither the old ones nor the new ones, and not torn"
    kept = len(new) if number % 3 == 0 else 100000
    assert found[kept:] == old[kept:len(found)], f"{path}: synced bytes behind what was changed are lost"
    assert len(found) >= len(new), f"{path}: {len(found)} bytes are left"
    assert not found.strip(b"ab\0"), f"{number}: bytes that were never there"
PY
    done
}

has_changed() {
    local seen
    seen=$(cat "$TEST_DIR/changed" 2>/dev/null) && [ "${seen:--1}" -ge "$1" ]
}

@test "synced files that are changed in place are old, new or torn, on ext4" {
    change_synced_files ext4
}

@test "synced files that are changed in place are old, new or torn, on XFS by the daemon" {
    change_synced_files xfs passthrough=off
}

# The mark of a changed file cannot get to the disk: then its bytes must not either.
@test "an fsync or a truncation whose mark fails has changed nothing on the disk" {
    disk_create ext4 256
    CKPTFS_FAULT=fs.mark:EIO:1+ ckptfs_mount
    for name in 0 1 2 3 4 5 6 7; do
        head -c 300K /dev/urandom >"$TEST_DIR/old-$name"
        cp "$TEST_DIR/old-$name" "$MNT/$name"
        sync "$MNT/$name"
    done
    wait_until 30 behind_nothing
    python3 - "$MNT" >"$TEST_DIR/failed" <<'PY'
import errno, os, sys

# The daemon syncs its marks every second anyway: then the change goes through, which is as well.
for number in range(8):
    path = f"{sys.argv[1]}/{number}"
    try:
        if number % 2:
            os.truncate(path, 100001)
            continue
        with open(path, "r+b") as file:
            file.write(b"changed" * 10000)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        assert error.errno == errno.EIO, error
        print(number)
PY
    disk_cut_power
    cat "$TEST_DIR/failed"
    [ "$(wc -l <"$TEST_DIR/failed")" -ge 2 ]
    machine_restart
    ckptfs_mount
    while read -r name; do
        cmp "$TEST_DIR/old-$name" "$MNT/$name" || [ "$(getfattr --only-values -n user.ckptfs.state "$MNT/$name")" = torn ]
    done <"$TEST_DIR/failed"
}

@test "a rename over a file gives the old or the new one, whole" {
    disk_create xfs 1024
    local round content
    for round in 1 2 3 4; do
        ckptfs_mount
        head -c 3M /dev/urandom >"$TEST_DIR/old"
        cp "$TEST_DIR/old" "$MNT/file"
        sync "$MNT/file"
        head -c 5M /dev/urandom >"$TEST_DIR/new"
        cp "$TEST_DIR/new" "$MNT/file.tmp"
        mv "$MNT/file.tmp" "$MNT/file"
        if [ $((round % 2)) -eq 0 ]; then sync "$MNT/file"; fi
        disk_cut_power
        machine_restart
        ckptfs_mount
        content=other
        if cmp -s "$MNT/file" "$TEST_DIR/old"; then content=old; fi
        if cmp -s "$MNT/file" "$TEST_DIR/new"; then content=new; fi
        echo "round $round: $content"
        [ $content != other ]
        [ $((round % 2)) -eq 1 ] || [ $content = new ]
        ckptfs_umount
    done
}

@test "what a power cut hit is reported: xattr, status and a log line" {
    disk_create xfs 1024
    ckptfs_mount
    mkdir "$MNT/checkpoint"
    sync "$MNT/checkpoint"
    head -c 8M /dev/urandom >"$TEST_DIR/source"
    exec 8>"$MNT/checkpoint/open"
    head -c 4M "$TEST_DIR/source" >&8
    sync "$MNT/checkpoint/open"
    tail -c 4M "$TEST_DIR/source" >&8
    disk_cut_power
    exec 8>&-
    machine_restart
    : >"$CKPTFS_LOG"
    ckptfs_mount
    # The half that was fsynced is there.
    cmp -n 4194304 "$MNT/checkpoint/open" "$TEST_DIR/source"
    [ "$(getfattr --only-values -n user.ckptfs.state "$MNT/checkpoint/open")" = torn ]
    torn_of_status | grep -q 'checkpoint/open$'
    grep torn "$CKPTFS_LOG" | grep -q 'checkpoint/open'
    # Written anew it is whole again.
    cp "$TEST_DIR/source" "$MNT/checkpoint/open"
    getfattr --only-values -n user.ckptfs.state "$MNT/checkpoint/open" >"$TEST_DIR/state" || echo "no such attribute"
    expect_failure grep -q torn "$TEST_DIR/state"
}

@test "a replaced file never comes back under a name that it did not have" {
    disk_create xfs 1024
    ckptfs_mount
    head -c 3M /dev/urandom >"$TEST_DIR/old"
    cp "$TEST_DIR/old" "$MNT/file"
    touch "$MNT/other"
    sync "$MNT/file" "$MNT/other" "$MNT"
    # Its bytes stay behind as long as it is being written; its names are brought to stable storage by another's fsync.
    exec 8>"$MNT/file.tmp"
    head -c 1M /dev/urandom >&8
    mv "$MNT/file.tmp" "$MNT/file"
    mv "$MNT/file" "$MNT/moved"
    echo changed >"$MNT/other"
    sync "$MNT/other"
    disk_cut_power
    exec 8>&-
    machine_restart
    ckptfs_mount
    if [ -e "$MNT/file" ]; then cmp "$MNT/file" "$TEST_DIR/old"; fi
    if [ -e "$MNT/moved" ]; then
        expect_failure cmp -s "$MNT/moved" "$TEST_DIR/old"
        [ "$(getfattr --only-values -n user.ckptfs.state "$MNT/moved")" = torn ]
    fi
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

# retry_after_failure FILE: a writer whose first fsync fails writes all of it again, and syncs that.
retry_after_failure() {
    python3 - "$1" <<'PYTHON'
import errno
import os
import sys

file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
os.write(file, b"first" * 100000)
try:
    os.fsync(file)
except OSError as error:
    if error.errno != errno.EIO:
        raise
else:
    sys.exit("the first fsync did not fail")
os.pwrite(file, b"again" * 100000, 0)
os.fsync(file)
PYTHON
}

@test "what is written and synced after a failed fsync survives" {
    local options
    disk_create ext4 256
    for options in passthrough=auto passthrough=off; do
        CKPTFS_FAULT=fs.sync:EIO ckptfs_mount $options
        retry_after_failure "$MNT/file"
        disk_cut_power
        machine_restart
        ckptfs_mount
        cmp "$MNT/file" <(yes again | head -n 100000 | tr -d '\n')
        [ "$(getfattr --absolute-names --only-values -n user.ckptfs.state "$MNT/file")" = torn ]
        rm "$MNT/file"
        ckptfs_umount
    done
}

# facts DIRECTORY: names, modes, times and sums of all that is in it.
facts() { (cd "$1" && find . -printf '%P %M %T@\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

# overwrite_and_cut FILESYSTEM [MOUNT_OPTION...]: a checkpoint is saved over itself, in each way that files are written
# over, and the power goes in the middle of each.
overwrite_and_cut() {
    local how saver latest=$MNT/.ckptfs/latest/run step=0
    disk_create "$1" 512
    shift
    for how in truncate replace overwrite map remove; do
        step=$((step + 1))
        ckptfs_mount "$@"
        python3 "$CRASH_TREE/../lib/checkpoint.py" "$MNT/run" $step --bytes 400000
        wait_until 20 is_link "$latest" "checkpoint-$step"
        facts "$MNT/run/checkpoint-$step" >"$TEST_DIR/facts"
        python3 "$CRASH_TREE/../lib/checkpoint.py" "$MNT/run" $step --bytes 400000 --seed 2 --how $how \
            --hang-in scheduler.pt "$TEST_DIR/hung" 3>&- &
        saver=$!
        wait_until 20 test -e "$TEST_DIR/hung"
        rm "$TEST_DIR/hung"
        # Also where the rewrite has got to the disk in part.
        if [ $((step % 2)) -eq 0 ]; then sync "$MNT/run/checkpoint-$step/model.safetensors"; fi
        disk_cut_power
        kill -9 $saver
        wait $saver || [ $? -eq 137 ]
        machine_restart
        ckptfs_mount "$@"
        ls "$MNT/run" >/dev/null
        # A rewrite that has got no further than the configuration is a new one for the model that was there.
        diff <(facts "$MNT/run/checkpoint-$step" | grep -v '^config.json -') <(grep -v '^config.json -' "$TEST_DIR/facts")
        wait_until 20 is_link "$latest" "checkpoint-$step"
        ckptfs_umount
        "$CKPTFS" fsck "$STORE"
    done
}

is_link() { [ "$(basename "$(readlink "$1")")" = "$2" ]; }

@test "a checkpoint that is saved over itself is what it was before, on ext4" {
    overwrite_and_cut ext4
}

@test "a checkpoint that is saved over itself is what it was before, on XFS by the daemon" {
    long_only
    overwrite_and_cut xfs passthrough=off
}
