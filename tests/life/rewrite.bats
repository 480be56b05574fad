#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A checkpoint that is written over in its place is what it was before, or what it was to become, and never a mixture.

load life.bash

setup() {
    require_command jq
    ckptfs_setup
    ckptfs_mount
    HUNG=$TEST_DIR/hung
    RUN=$MNT/run
}
teardown() {
    if [ -n "${SAVER-}" ]; then kill -9 "$SAVER"; fi
    ckptfs_teardown
}

# facts DIRECTORY: all that is to be seen of it, a line each: names, modes, owners, times, attributes, bytes.
facts() {
    python3 - "$1" <<'END'
import hashlib, os, sys
top = sys.argv[1]
for path in [top] + sorted(os.path.join(where, name) for where, below, names in os.walk(top) for name in below + names):
    status = os.lstat(path)
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
    data = os.readlink(path) if os.path.islink(path) else \
        hashlib.sha256(open(path, "rb").read()).hexdigest() if os.path.isfile(path) else ""
    print(os.path.relpath(path, top), oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns,
          status.st_size if data else "", sorted(attributes.items()), data)
END
}

# has STEP FILE: the checkpoint has the facts that the file says.
has() { facts "$RUN/checkpoint-$1" | diff - "$2"; }

# kept: how often something was kept.
kept() { log_count 'what it was is kept until that is done'; }
# inodes: how many the store has, hidden ones among them.
inodes() { "$CKPTFS" status --json "$MNT" | jq .inodes; }
inodes_are() { [ "$(inodes)" -eq "$1" ]; }

state() { "$CKPTFS" ls --json "$RUN" | jq -r --arg name "checkpoint-$1" '.[].checkpoints[] | select(.path == $name).state'; }
state_is() { [ "$(state "$1")" = "$2" ]; }

# saved STEP...: complete checkpoints, the last with attributes of all sorts; its facts lie in $TEST_DIR/facts.
saved() {
    local last=${*: -1}
    save "$RUN" "$@"
    mkdir "$RUN/checkpoint-$last/more"
    # Not by this shell: it would be one of those who write, and live.
    python3 -c 'import sys; open(sys.argv[1], "w").write("text")' "$RUN/checkpoint-$last/more/note.txt"
    ln -s config.json "$RUN/checkpoint-$last/link"
    chmod 640 "$RUN/checkpoint-$last/optimizer.pt"
    setfattr -n user.note -v "of the first" "$RUN/checkpoint-$last/model.safetensors"
    wait_until 20 latest_is run "checkpoint-$last"
    wait_until 20 settled
    facts "$RUN/checkpoint-$last" >"$TEST_DIR/facts"
}

# compared STEP: the two hidden directories that are made once are there: counts of inodes can be compared from here on.
compared() {
    # They are there already where something was added to one that was found complete before.
    INODES=$(($(inodes) + ($(kept) > 0 ? 0 : 2)))
    python3 -c 'import sys; open(sys.argv[1], "r+b")' "$RUN/checkpoint-$1/scheduler.pt"
    wait_until 20 inodes_are "$INODES"
    wait_until 20 latest_is run "checkpoint-$1"
    KEPT=$(kept)
}

# rewrite STEP OPTION...: the same checkpoint again, with other bytes, in the background until it stands still.
rewrite() {
    rm -f "$HUNG"
    python3 "$LIFE_LIB/checkpoint.py" "$RUN" "$1" --seed 2 "${@:2}" 3>&- &
    SAVER=$!
    wait_until 20 test -e "$HUNG"
}

kill_saver() {
    killed "$SAVER"
    SAVER=
}

listed() { find "$RUN" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V | paste -sd ' '; }

# ways WAY...: how files are written over (tests/lib/checkpoint.py): these, or all of them.
ways() { if [ -n "${CKPTFS_TEST_LONG-}" ]; then echo truncate replace overwrite map remove; else echo "$@"; fi; }

@test "a rewrite that is killed leaves what was there before, in whatever way files are written over" {
    local how
    saved 10 20
    for how in $(ways truncate replace map); do
        rewrite 20 --how "$how" --hang-in optimizer.pt "$HUNG"
        # Who writes sees his own.
        run has 20 "$TEST_DIR/facts"
        [ "$status" -ne 0 ]
        kill_saver
        [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
        has 20 "$TEST_DIR/facts"
        state_is 20 durable
        latest_is run checkpoint-20
    done
    [ "$(find "$MNT/.ckptfs/torn/run" -mindepth 1 -maxdepth 1 | wc -l)" -eq "$(ways truncate replace map | wc -w)" ]
    [ -e "$MNT/.ckptfs/torn/run/checkpoint-20.3/config.json" ]
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "a rewrite that comes to its end leaves nothing behind" {
    local how
    saved 10 20
    compared 20
    for how in $(ways overwrite remove); do
        save "$RUN" 20 --seed 3 --how "$how"
        # The files that were removed are in the trash.
        [ "$how" = remove ] || wait_until 20 inodes_are "$INODES"
        wait_until 20 state_is 20 durable
        save "$TEST_DIR/$how" 20 --seed 3
        cmp "$TEST_DIR/$how/checkpoint-20/model.safetensors" "$RUN/checkpoint-20/model.safetensors"
        latest_is run checkpoint-20
        [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
    done
    [ "$(kept)" -eq $((KEPT + $(ways overwrite remove | wc -w))) ]
    [ ! -e "$MNT/.ckptfs/torn/run" ]
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
    # What the mount has dropped takes no place.
    [ "$(du -s --block-size=1024 "$STORE/objects" | cut -f1)" -lt 1000 ]
}

@test "whole files of two saves are no checkpoint" {
    local file
    saved 10 20
    for file in config.json model.safetensors ${CKPTFS_TEST_LONG:+optimizer.pt rng_state.pth}; do
        rewrite 20 --how replace --hang-after "$file" "$HUNG"
        # By the look of its files it is complete.
        [ "$file" = config.json ] || wait_until 20 state_is 20 writing
        kill_saver
        [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
        if [ "$file" = config.json ]; then
            # What describes the model alone is an edit.
            diff <(facts "$RUN/checkpoint-20" | grep -v '^\(config.json\|\.\) ') <(grep -v '^\(config.json\|\.\) ' "$TEST_DIR/facts")
            [ ! -e "$MNT/.ckptfs/torn/run" ]
            wait_until 20 latest_is run checkpoint-20
            facts "$RUN/checkpoint-20" >"$TEST_DIR/facts"
        else
            has 20 "$TEST_DIR/facts"
        fi
        wait_until 20 latest_is run checkpoint-20
    done
    # The last file of the trainer tells that it is done.
    rewrite 20 --how replace --hang-after trainer_state.json "$HUNG"
    wait_until 20 state_is 20 durable
    kill_saver
    [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
    run has 20 "$TEST_DIR/facts"
    [ "$status" -ne 0 ]
    wait_until 20 latest_is run checkpoint-20
}

@test "the daemon dies, alone and with who writes, and the mount ends; what was kept stays" {
    saved 10 20
    rewrite 20 --hang-after model.safetensors "$HUNG"
    kill -9 "$(ckptfs_daemon_pid)"
    # He who writes lives: nobody takes it from him.
    [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
    run has 20 "$TEST_DIR/facts"
    [ "$status" -ne 0 ]
    kill_saver
    [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
    has 20 "$TEST_DIR/facts"
    wait_until 20 latest_is run checkpoint-20
    rewrite 20 --hang-in optimizer.pt "$HUNG"
    kill -9 "$(ckptfs_daemon_pid)" "$SAVER"
    wait "$SAVER" || [ $? -eq 137 ]
    SAVER=
    [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
    has 20 "$TEST_DIR/facts"
    wait_until 20 latest_is run checkpoint-20
    rewrite 20 --how replace --hang-in optimizer.pt "$HUNG"
    kill_saver
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
    ckptfs_mount
    [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
    has 20 "$TEST_DIR/facts"
}

@test "the daemon dies while it keeps, and while it puts back" {
    saved 10 20
    ckptfs_umount
    CKPTFS_FAULT=fs.kept:kill:1 CKPTFS_FAULT_STARTS=1 ckptfs_mount
    rewrite 20 --hang-in optimizer.pt "$HUNG"
    kill_saver
    [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
    has 20 "$TEST_DIR/facts"
    wait_until 20 latest_is run checkpoint-20
    ckptfs_umount
    CKPTFS_FAULT=fs.torn.moved:kill:1 CKPTFS_FAULT_STARTS=1 ckptfs_mount
    rewrite 20 --hang-in optimizer.pt "$HUNG"
    kill_saver
    [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
    has 20 "$TEST_DIR/facts"
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "what is kept outlives the loss of the database, and comes back where nothing older is" {
    saved 20
    rewrite 20 --hang-in optimizer.pt "$HUNG"
    kill_saver
    ckptfs_umount
    rm "$STORE"/meta.db*
    "$CKPTFS" fsck --rebuild "$STORE" || [ $? -eq 1 ]
    ckptfs_mount
    [ "$(listed)" = checkpoint-20 ]
    has 20 "$TEST_DIR/facts"
    wait_until 20 latest_is run checkpoint-20
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "what people edit, and programs copy, is left as it is" {
    saved 10 20
    compared 20
    # An editor: a new file that takes the name.
    sed -i s/llama/mistral/ "$RUN/checkpoint-20/config.json"
    wait_until 20 inodes_are "$INODES"
    wait_until 20 latest_is run checkpoint-20
    # A program that changes the weights and ends as programs do.
    python3 - "$RUN/checkpoint-20/model.safetensors" <<'END'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(-100, 2)
    file.write(bytes(100))
END
    if [ "$(uname -r | cut -d. -f1)" -ge 7 ] || [[ $(uname -r) =~ ^6\.(1[5-9]|[2-9][0-9]) ]]; then
        wait_until 20 inodes_are "$INODES"
        wait_until 20 state_is 20 durable
        [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
        [ "$(tail -c 100 "$RUN/checkpoint-20/model.safetensors" | tr -d '\0' | wc -c)" -eq 0 ]
    fi
    # Copied from elsewhere, in part.
    save "$TEST_DIR/plain" 20 --seed 4
    cp "$TEST_DIR/plain/checkpoint-20/model.safetensors" "$RUN/checkpoint-20/"
    wait_until 20 inodes_are "$INODES"
    [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
    cmp "$TEST_DIR/plain/checkpoint-20/model.safetensors" "$RUN/checkpoint-20/model.safetensors"
    wait_until 20 latest_is run checkpoint-20
    # As rsync does it: a new file, its times, the name.
    python3 - "$TEST_DIR/plain/checkpoint-20/optimizer.pt" "$RUN/checkpoint-10" <<'END'
import os, shutil, sys
shutil.copyfile(sys.argv[1], sys.argv[2] + "/.optimizer.pt.x")
os.utime(sys.argv[2] + "/.optimizer.pt.x", (1, 1))
os.rename(sys.argv[2] + "/.optimizer.pt.x", sys.argv[2] + "/optimizer.pt")
END
    wait_until 20 inodes_are "$INODES"
    [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
    cmp "$TEST_DIR/plain/checkpoint-20/optimizer.pt" "$RUN/checkpoint-10/optimizer.pt"
    [ ! -e "$MNT/.ckptfs/torn/run" ]
}

@test "an edit that breaks a checkpoint which has no step stays where it is" {
    python3 "$LIFE_LIB/checkpoint.py" "$RUN" 1 --name final
    wait_until 20 grep -q 'complete path="/run/final"' "$CKPTFS_LOG"
    python3 -c 'import sys; open(sys.argv[1] + "/config.json", "w").write("{"); open(sys.argv[1] + "/mine", "w")' "$RUN/final"
    wait_until 20 settled
    ls "$RUN" >/dev/null
    [ "$(cat "$RUN/final/config.json")" = "{" ]
    [ -e "$RUN/final/mine" ]
    [ ! -e "$MNT/.ckptfs/torn/run" ]
}

@test "who goes on to the next checkpoint is done with this one" {
    saved 10 20
    # A trainer that makes something else of its weights, and lives.
    mkfifo "$TEST_DIR/go"
    python3 - "$LIFE_LIB" "$RUN" "$TEST_DIR/go" <<'END' 3>&- &
import subprocess, sys
lib, run, go = sys.argv[1:]
with open(f"{run}/checkpoint-20/model.safetensors", "r+b") as file:
    file.seek(-100, 2)
    file.write(bytes(100))
open(go).read()
subprocess.run([sys.executable, f"{lib}/checkpoint.py", run, "30"], check=True)
open(go).read()
END
    SAVER=$!
    wait_until 20 state_is 20 writing
    wait_until 20 latest_is run checkpoint-10
    echo >"$TEST_DIR/go"
    wait_until 20 latest_is run checkpoint-30
    wait_until 20 state_is 20 durable
    kill_saver
    [ "$(listed)" = "checkpoint-10 checkpoint-20 checkpoint-30" ]
    [ "$(tail -c 100 "$RUN/checkpoint-20/model.safetensors" | tr -d '\0' | wc -c)" -eq 0 ]
}

@test "a file that is opened for writing, and left as it is, changes nothing" {
    saved 10 20
    compared 20
    python3 -c '
import sys
file = open(sys.argv[1], "r+b")
open(sys.argv[2], "w").close()
sys.stdin.read()
' "$RUN/checkpoint-20/optimizer.pt" "$HUNG" < <(wait_until 20 test -e "$HUNG"; wait_until 20 state_is 20 writing)
    wait_until 20 state_is 20 durable
    wait_until 20 inodes_are "$INODES"
    [ "$(kept)" -eq $((KEPT + 1)) ]
    has 20 "$TEST_DIR/facts"
}

@test "a checkpoint that is removed or moved while it is written over" {
    saved 10 20
    rewrite 20 --hang-in optimizer.pt "$HUNG"
    # It keeps what it was wherever it goes.
    mv "$RUN/checkpoint-20" "$RUN/checkpoint-21"
    kill_saver
    [ "$(listed)" = "checkpoint-10 checkpoint-21" ]
    has 21 "$TEST_DIR/facts"
    wait_until 20 latest_is run checkpoint-21
    rewrite 21 --hang-in optimizer.pt "$HUNG"
    rm -r "$RUN/checkpoint-21"
    kill_saver
    [ "$(listed)" = checkpoint-10 ]
    # What it was is what can be had back.
    "$CKPTFS" undelete "$RUN/checkpoint-21"
    has 21 "$TEST_DIR/facts"
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
    # Without a trash all of it is gone.
    ckptfs_mount trash=off
    rewrite 21 --hang-in optimizer.pt "$HUNG"
    rm -r "$RUN/checkpoint-21"
    kill_saver
    [ "$(listed)" = checkpoint-10 ]
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
    [ "$(du -s --block-size=1024 "$STORE/objects" | cut -f1)" -lt 500 ]
}
