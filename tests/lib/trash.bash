# SPDX-License-Identifier: Apache-2.0
# What the tests of the trash share.

# checkpoint DIRECTORY [BYTES]: a whole one, on stable storage. A copy of it stays in WAS.
checkpoint() {
    WAS=$TEST_DIR/was
    python3 "$CKPTFS_TREE/tests/lib/checkpoint.py" "${1%/*}" "${1##*-}" --name "${1##*/}" --bytes "${2:-100000}" \
        --seed "$RANDOM"
    rm -rf "$WAS"
    cp -a "$1" "$WAS"
    settle "$1"
}

# Waits until the mount knows that the checkpoint is complete.
settle() {
    sync -f "$1"
    wait_until 20 is_durable "$1"
}

is_durable() {
    [ "$("$CKPTFS" ls --json "$1" | jq -r '.[0].checkpoints[0].state')" = durable ] && is_known "$1"
}

# The daemon has looked at all, and has found this one complete.
is_known() {
    "$CKPTFS" status --json "$MNT" | jq -e '.unlooked_directories == 0' >/dev/null &&
        grep -qF "complete path=\"${1#"$MNT"}\"" "$CKPTFS_LOG"
}

# As the Trainer's rotation does it.
rmtree() {
    python3 -c 'import shutil, sys; shutil.rmtree(sys.argv[1])' "$1"
}

# trash_field FIELD: of all that the trash of MNT has, the oldest first.
trash_field() {
    "$CKPTFS" undelete --list --json "$MNT" | jq -r ".[].$1"
}

trash_is_empty() { [ -z "$(trash_field path)" ]; }

trash_is_counted() { [[ $(trash_field bytes) != *null* ]]; }

# same_tree A B: names, bytes, modes and times, also of the directories.
same_tree() {
    diff -r "$1" "$2" && diff <(list_tree "$1") <(list_tree "$2")
}

list_tree() { (cd "$1" && find . -printf '%P %M %U %G %T@ %l\n' | sort); }
