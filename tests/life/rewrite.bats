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

# settled: the mount has nothing to look at any more.
settled() { [ "$("$CKPTFS" status --json "$MNT" | jq '.unlooked_directories')" -eq 0 ]; }

# rewrite STEP OPTION...: the same checkpoint again, with other bytes, in the background until it stands still.
rewrite() {
    rm -f "$HUNG"
    python3 "$LIFE_LIB/checkpoint.py" "$RUN" "$1" --seed 2 "${@:2}" 3>&- &
    SAVER=$!
    wait_until 20 test -e "$HUNG"
}

kill_saver() {
    kill -9 "$SAVER"
    local status=0
    wait "$SAVER" || status=$?
    SAVER=
    [ $status -eq 137 ]
}

listed() { find "$RUN" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V | paste -sd ' '; }

@test "a rewrite that is killed leaves what was there before, in whatever way files are written over" {
    local how place
    saved 10 20
    for how in truncate replace overwrite map remove; do
        rewrite 20 --how $how --hang-in optimizer.pt "$HUNG"
        # Who writes sees his own.
        run has 20 "$TEST_DIR/facts"
        [ "$status" -ne 0 ]
        kill_saver
        [ "$(listed)" = "checkpoint-10 checkpoint-20" ]
        has 20 "$TEST_DIR/facts"
        state_is 20 durable
        latest_is run checkpoint-20
    done
    [ "$(find "$MNT/.ckptfs/torn/run" -mindepth 1 -maxdepth 1 | wc -l)" -eq 5 ]
    [ -e "$MNT/.ckptfs/torn/run/checkpoint-20.5/config.json" ]
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}
