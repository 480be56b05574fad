#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The daemon finds out by itself what is complete, and .ckptfs/latest and best name it.

load life.bash

setup() {
    require_command jq
    ckptfs_setup
    ckptfs_mount
}
teardown() { ckptfs_teardown; }

@test "a checkpoint from a clock that is ahead is told of once" {
    save "$MNT/run" 10
    touch -d tomorrow "$MNT/run/checkpoint-10/config.json"
    wait_until 20 latest_is run checkpoint-10
    local step
    for step in 20 30 40; do
        save "$MNT/run" "$step"
        wait_until 20 latest_is run "checkpoint-$step"
    done
    # It may have been seen before its time was set.
    [ "$(log_count 'complete path="/run/checkpoint-10"')" -le 2 ]
}

@test "a look that fails is made again" {
    ckptfs_umount
    CKPTFS_FAULT=fs.look:ENOSPC:1 ckptfs_mount
    save "$MNT/run" 10
    wait_until 20 latest_is run checkpoint-10
    [ "$(log_count 'it cannot be looked at for checkpoints now: No space left on device')" -eq 1 ]
}

@test "one look at a run is for all of its checkpoints that wait for theirs" {
    require_command sqlite3
    save "$MNT/run" {10..400..10} --bytes 100
    wait_until 60 latest_is run checkpoint-400
    ckptfs_umount
    # As after a death before it was noted what was looked at.
    [ "$(sqlite3 "$STORE/meta.db" "DELETE FROM setting WHERE key = 'checkpoints-up-to'; SELECT changes()")" -eq 1 ]
    CKPTFS_FAULT=fs.look:EIO:10 ckptfs_mount
    wait_until 60 settled
    [ "$(log_count 'it cannot be looked at for checkpoints now')" -eq 0 ]
    wait_until 20 latest_is run checkpoint-400
}

@test "the newest complete checkpoint is the latest, and the one that the Trainer names is the best" {
    expect_no_link run
    save "$MNT/run" 10 20 --best 10
    wait_until 20 latest_is run checkpoint-20
    [ "$(best run)" = checkpoint-10 ]
    save "$MNT/run" 30 --best 30
    wait_until 20 latest_is run checkpoint-30
    [ "$(best run)" = checkpoint-30 ]
    # What the links name is the checkpoint, whatever way it is gone.
    cmp "$MNT/.ckptfs/latest/run/optimizer.pt" "$MNT/run/checkpoint-30/optimizer.pt"
    [ -z "$(ls -lR "$MNT/.ckptfs/latest" 2>&1 >"$TEST_DIR/listed")" ]
    grep -q 'run -> ../../run/checkpoint-30' "$TEST_DIR/listed"
    (cd "$MNT/.ckptfs/latest" && [ "$(cd run && pwd -P)" = "$(cd "$MNT/run/checkpoint-30" && pwd -P)" ])
    wait_until 20 log_has 1 '^.* complete path="/run/checkpoint-30" step=30 '
}

expect_no_link() {
    [ ! -e "$MNT/.ckptfs/latest/$1" ] && [ ! -L "$MNT/.ckptfs/latest/$1" ]
}

@test "what is not complete is not the latest: missing, cut, unfinished by its marker, weights alone" {
    save "$MNT/run" 10
    save "$MNT/run" 20 --leave-out optimizer.pt
    # Neither is complete for a moment.
    save "$TEST_DIR/plain" 30
    truncate -s -100 "$TEST_DIR/plain/checkpoint-30/optimizer.pt"
    cp -r "$TEST_DIR/plain/checkpoint-30" "$MNT/run/"
    mkdir "$MNT/run/checkpoint-40"
    touch "$MNT/run/checkpoint-40/checkpoint-is-incomplete.txt"
    save "$MNT/run" 40
    save "$MNT/other" 1
    wait_until 20 latest_is other checkpoint-1
    wait_until 20 latest_is run checkpoint-10
    wait_until 20 settled
    latest_is run checkpoint-10
    # The marker goes as the last thing.
    rm "$MNT/run/checkpoint-40/checkpoint-is-incomplete.txt"
    wait_until 20 latest_is run checkpoint-40
    save "$MNT/weights" 10 20 --weights-only
    save "$MNT/other" 2
    wait_until 20 latest_is other checkpoint-2
    expect_no_link weights
}

@test "a checkpoint whose last file is still open is not complete" {
    save "$MNT/run" 10
    save "$MNT/run" 20 --leave-out training_args.bin
    exec 8>>"$MNT/run/checkpoint-20/trainer_state.json"
    wait_until 20 latest_is run checkpoint-10
    save "$MNT/other" 1
    wait_until 20 latest_is other checkpoint-1
    wait_until 20 latest_is run checkpoint-10
    exec 8>&-
    save "$MNT/run" 20
    wait_until 20 latest_is run checkpoint-20
}

@test "a checkpoint that is removed or renamed, and its run, take the links along" {
    save "$MNT/a/b/run" 10 20
    wait_until 20 latest_is a/b/run checkpoint-20
    [ "$(readlink "$MNT/.ckptfs/latest/a/b/run")" = ../../../../a/b/run/checkpoint-20 ]
    rm -r "$MNT/a/b/run/checkpoint-20"
    wait_until 20 latest_is a/b/run checkpoint-10
    mv "$MNT/a/b/run" "$MNT/moved"
    wait_until 20 latest_is moved checkpoint-10
    [ "$(ls "$MNT/.ckptfs/latest")" = moved ]
    # Saved under another name, and renamed.
    save "$MNT/staging" 30
    mv "$MNT/staging/checkpoint-30" "$MNT/moved/checkpoint-30"
    wait_until 20 latest_is moved checkpoint-30
    rm -r "$MNT/moved"
    [ -z "$(ls "$MNT/.ckptfs/latest")" ]
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "a run in the mount's root has the link itself" {
    save "$MNT" 10
    wait_until 20 latest_is "" checkpoint-10
    [ "$(readlink "$MNT/.ckptfs/latest")" = ../checkpoint-10 ]
    cmp "$MNT/.ckptfs/latest/model.safetensors" "$MNT/checkpoint-10/model.safetensors"
}

@test "a file that is written over makes its checkpoint another; what is known outlives the daemon" {
    save "$MNT/run" 10 20
    wait_until 20 latest_is run checkpoint-20
    ckptfs_umount
    ckptfs_mount
    latest_is run checkpoint-20
    head -c 100 "$MNT/run/checkpoint-20/optimizer.pt" >"$TEST_DIR/half"
    cat "$TEST_DIR/half" >"$MNT/run/checkpoint-20/optimizer.pt"
    wait_until 20 latest_is run checkpoint-10
    save "$MNT/run" 20
    wait_until 20 latest_is run checkpoint-20
    kill -9 "$(ckptfs_daemon_pid)"
    wait_until 20 latest_is run checkpoint-20
}

# watch_latest: notes what .ckptfs/latest/run names, as long as $TEST_DIR/watching is there.
watch_latest() {
    touch "$TEST_DIR/watching"
    python3 - "$MNT/.ckptfs/latest/run" "$TEST_DIR" <<'END' 3>&- &
import os, sys, time
link, directory = sys.argv[1:]
seen = set()
while os.path.exists(f"{directory}/watching"):
    try:
        seen.add(os.path.basename(os.readlink(link)))
    except FileNotFoundError:
        seen.add("none")
    time.sleep(0.002)
with open(f"{directory}/seen", "w") as file:
    print(*sorted(seen), file=file)
END
    WATCHER=$!
}
# latest_was NAME: it has named nothing else since then.
latest_was() {
    rm "$TEST_DIR/watching"
    wait "$WATCHER"
    [ "$(cat "$TEST_DIR/seen")" = "$1" ]
}

# looked STEP: the run is looked at, for a checkpoint that is older.
looked() {
    save "$MNT/run" "$1" --ranks 2
    wait_until 20 grep -q "complete path=\"/run/checkpoint-$1\"" "$CKPTFS_LOG"
}

@test "what is added to a complete checkpoint, or changed of what is for people, leaves it the latest" {
    save "$MNT/run" 20 --ranks 2
    wait_until 20 latest_is run checkpoint-20
    looked 10
    local at=$MNT/run/checkpoint-20
    watch_latest
    # Open while the run is looked at: a new file, and one of a rank that is late.
    head -c 100 "$at/rng_state_1.pth" >"$TEST_DIR/part"
    exec 8>"$at/README.md" 9>"$at/rng_state_2.pth"
    echo text >&8
    cat "$TEST_DIR/part" >&9
    looked 11
    tail -c +101 "$at/rng_state_1.pth" >&9
    exec 8>&- 9>&-
    looked 12
    # And one that is known, once more, of which a later daemon learns.
    exec 8>>"$at/README.md"
    echo more >&8
    kill -9 "$(ckptfs_daemon_pid)"
    looked 13
    exec 8>&-
    setfattr -n user.note -v text "$at/model.safetensors"
    mkdir "$at/more"
    echo text >"$at/more/.note"
    mv "$at/more/.note" "$at/more/note"
    looked 14
    wait_until 20 settled
    latest_was checkpoint-20
    [ "$(log_count 'complete path="/run/checkpoint-20"')" -eq 1 ]
    [ "$("$CKPTFS" events "$MNT/run" | grep -c 'complete *run/checkpoint-20')" -eq 1 ]
}

# log_has COUNT TEXT: the log says it so often.
log_has() { [ "$(log_count "$2")" -eq "$1" ]; }

@test "a checkpoint that is opened to be written over is not the latest from then on" {
    save "$MNT/run" 10 20
    wait_until 20 latest_is run checkpoint-20
    wait_until 20 settled
    # While something was added.
    exec 8>"$MNT/run/checkpoint-20/note.txt"
    latest_is run checkpoint-20
    exec 9<>"$MNT/run/checkpoint-20/optimizer.pt"
    latest_is run checkpoint-10
    exec 8>&- 9>&-
    wait_until 20 latest_is run checkpoint-20
    wait_until 20 log_has 2 'complete path="/run/checkpoint-20"'
    # Another file takes the name of one.
    wait_until 20 settled
    cp "$MNT/run/checkpoint-20/config.json" "$MNT/run/config.new"
    mv "$MNT/run/config.new" "$MNT/run/checkpoint-20/config.json"
    latest_is run checkpoint-10
    wait_until 20 latest_is run checkpoint-20
    # The next daemon knows at once what this one did.
    wait_until 20 settled
    exec 9<>"$MNT/run/checkpoint-20/optimizer.pt"
    truncate -s -1 "$MNT/run/checkpoint-20/optimizer.pt"
    kill -9 "$(ckptfs_daemon_pid)"
    latest_is run checkpoint-10
    exec 9>&-
}

# write_text FILE TEXT: by a process that ends.
write_text() { python3 -c 'import sys; open(sys.argv[1], "w").write(sys.argv[2])' "$1" "$2"; }
state() { "$CKPTFS" ls --json "$MNT/run" | jq -r --arg name "checkpoint-$1" '.[].checkpoints[] | select(.path == $name).state'; }

@test "what is added to one checkpoint is not missed in the others" {
    save "$MNT/run" 10 20 --ranks 2
    wait_until 20 latest_is run checkpoint-20
    wait_until 20 settled
    # By its name it is a part of what trainers save.
    write_text "$MNT/run/checkpoint-10/optimizer_statistics.txt" text
    # Who lists the run has it looked at, and what is torn taken away.
    [ "$(find "$MNT/run" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V | paste -sd ' ')" = "checkpoint-10 checkpoint-20" ]
    wait_until 20 settled
    latest_is run checkpoint-20
    [ "$(state 20)" = durable ]
    "$CKPTFS" wait "$MNT/run/checkpoint-20" --timeout 0
    # Nor when something comes to these, too.
    write_text "$MNT/run/checkpoint-20/note.txt" text
    looked 8
    wait_until 20 settled
    latest_is run checkpoint-20
}

@test "a copy that is written over is not the latest of a later daemon either, and what is added to it is not told" {
    save "$MNT/other" 20 --ranks 2
    save "$MNT/run" 10 --ranks 2
    cp -r "$MNT/other/checkpoint-20" "$MNT/run/checkpoint-20"
    wait_until 20 latest_is run checkpoint-20
    wait_until 20 settled
    write_text "$MNT/run/checkpoint-20/note.txt" text
    looked 9
    wait_until 20 settled
    [ "$(log_count 'complete path="/run/checkpoint-20"')" -eq 1 ]
    exec 9<>"$MNT/run/checkpoint-20/optimizer.pt"
    latest_is run checkpoint-10
    looked 11
    kill -9 "$(ckptfs_daemon_pid)"
    latest_is run checkpoint-11
    exec 9>&-
}

@test "what cannot be kept before something is added is not the latest all the same when it is written over" {
    ckptfs_umount
    CKPTFS_FAULT=fs.keep:ENOSPC:1 ckptfs_mount
    save "$MNT/run" 10 20 --ranks 2
    wait_until 20 latest_is run checkpoint-20
    wait_until 20 settled
    exec 8>"$MNT/run/checkpoint-20/note.txt"
    [ "$(log_count 'what it was cannot be kept: No space left on device')" -eq 1 ]
    latest_is run checkpoint-20
    exec 9<>"$MNT/run/checkpoint-20/optimizer.pt"
    latest_is run checkpoint-10
    exec 8>&- 9>&-
    wait_until 20 latest_is run checkpoint-20
}

@test "what is added is told from the rest where the clock was set back" {
    long_only
    require_command sqlite3
    save "$MNT/run" 10 20 --ranks 2
    wait_until 20 latest_is run checkpoint-20
    wait_until 20 settled
    ckptfs_umount
    [ "$(sqlite3 "$STORE/meta.db" "UPDATE checkpoint SET completed = completed + 1000000000000000; SELECT changes()")" -eq 2 ]
    ckptfs_mount
    exec 8>"$MNT/run/checkpoint-20/note.json"
    echo "{}" >&8
    looked 9
    latest_is run checkpoint-20
    exec 8>&-
    wait_until 20 settled
    latest_is run checkpoint-20
}

# adds_notes: files come to checkpoint-20 all the time, so that its look is put off.
adds_notes() {
    python3 - "$MNT/run/checkpoint-20" "$TEST_DIR/adding" <<'END' 3>&- &
import os, sys, time
directory, mark = sys.argv[1:]
number = 0
while os.path.exists(mark):
    with open(f"{directory}/note-{number}.txt", "w") as file:
        file.write("text")
    number += 1
    time.sleep(0.05)
END
    ADDER=$!
}

@test "the latest checkpoint is looked at without delay when a file of it is moved away" {
    save "$MNT/run" 10 20 --ranks 2
    wait_until 20 latest_is run checkpoint-20
    mkdir "$MNT/aside"
    touch "$TEST_DIR/adding"
    adds_notes
    wait_until 20 test -e "$MNT/run/checkpoint-20/note-3.txt"
    mv "$MNT/run/checkpoint-20/optimizer.pt" "$MNT/aside"
    wait_until 3 latest_is run checkpoint-10
    rm "$TEST_DIR/adding"
    wait "$ADDER"
}

all_are_killed() {
    local process
    for process in $(ckptfs_processes); do kill -9 "$process" || continue; done
    ckptfs_no_processes
}

@test "complete checkpoints are durable, and come back when the database is lost" {
    require_root
    # The journal begins with the first backup.
    wait_until 20 test -s "$STORE/manifests/meta.db.journal"
    save "$MNT/run" 10 20
    wait_until 20 latest_is run checkpoint-20
    cp -r "$MNT/run" "$TEST_DIR/copy"
    wait_until 20 all_are_killed
    umount -l "$MNT"
    rm "$STORE"/meta.db*
    "$CKPTFS" fsck --rebuild "$STORE" || [ $? -eq 1 ]
    ckptfs_mount
    diff -r "$TEST_DIR/copy" "$MNT/run"
    wait_until 20 latest_is run checkpoint-20
}

@test "shown on a mount that is only read" {
    save "$MNT/run" 10
    wait_until 20 latest_is run checkpoint-10
    ckptfs_umount
    ckptfs_mount ro
    latest_is run checkpoint-10
    expect_failure touch "$MNT/.ckptfs/latest/x"
    expect_failure rm "$MNT/.ckptfs/latest/run"
    expect_failure mkdir "$MNT/.ckptfs/best/x"
}

expect_failure() {
    if "$@"; then
        echo "succeeded, but must fail: $*"
        return 1
    fi
}
