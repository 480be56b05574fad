# SPDX-License-Identifier: Apache-2.0
# What the tests of sharing have in common: saves that are kept twice, on the mount and on the plain disk; how many
# bytes the store has of them; and waiting until it has as few as it should.

load ../crash/crash.bash

SHARE_TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# What sharing may take, in seconds: a file that somebody saw is tried again after 5 and after 10.
SHARE_DEADLINE=40

models() { timeout 120 python3 "$SHARE_TREE/models.py" "$@"; }

# PLAIN has what MNT should have.
share_setup() {
    crash_setup
    PLAIN=$TEST_DIR/plain
    mkdir "$PLAIN"
}

# save NAME COMMAND WORD [OPTION...]: `COMMAND WORD PLAIN/NAME OPTION...` writes the file, and it is saved as MNT/NAME
# and synced.
save() {
    local name=$1
    shift
    mkdir -p "$(dirname "$PLAIN/$name")" "$(dirname "$MNT/$name")"
    "${@:1:2}" "$PLAIN/$name" "${@:3}"
    cat "$PLAIN/$name" >"$MNT/$name"
    sync "$MNT/$name"
}

drop() { rm -r "${PLAIN:?}/$1" "${MNT:?}/$1"; }

same_bytes() { diff -r "$PLAIN" "$MNT"; }

# Bytes that the objects take on the disk, without the tables of hashes.
stored_bytes() {
    find "$STORE/objects" -type f ! -name '*.sum*' -printf '%b\n' 2>/dev/null | awk '{ sum += $1 } END { print sum * 512 }'
}

stored_at_most() { [ "$(stored_bytes)" -le "$1" ]; }

# expect_stored_bytes IDEAL [PERCENT]: the store comes to have at most that much more (2 %).
expect_stored_bytes() {
    local most=$(($1 + $1 * ${2:-2} / 100 + 65536))
    wait_until $SHARE_DEADLINE stored_at_most $most || {
        echo "$(stored_bytes) bytes are stored, ideal are $1, at most $most"
        return 1
    }
}

# The same, and the bytes stay right.
expect_stored() {
    expect_stored_bytes "$@"
    same_bytes
}

# A file's size; of several, the sum.
size_of() { stat -c %s "$@" | awk '{ sum += $1 } END { print sum }'; }

share_is_settled() {
    "$CKPTFS" status --json "$MNT" |
        jq -e 'if type == "array" then .[0] else . end | .unshared_files == 0 and .behind_files == 0' >/dev/null
}

settle() { wait_until $SHARE_DEADLINE share_is_settled; }

# flip_byte FILE OFFSET: of an object of an unmounted store.
flip_byte() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf "\\x$(printf %02x $((byte ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# Nothing is left of any, tables neither.
no_objects() { [ -z "$(find "$STORE/objects" -type f)" ]; }

the_object() { find "$STORE/objects" -type f ! -name '*.sum*'; }

# Each line: a path, its extents and its objects. Of an unmounted store.
extents_of_store() {
    require_command sqlite3
    rm -rf "$TEST_DIR/meta"
    mkdir "$TEST_DIR/meta"
    cp "$STORE"/meta.db* "$TEST_DIR/meta"
    sqlite3 -separator ' ' "$TEST_DIR/meta/meta.db" \
        "SELECT n.name, count(*), count(DISTINCT e.object), min(e.length) FROM extent e JOIN name n ON n.ino = e.ino
         GROUP BY n.ino, n.name ORDER BY n.name"
}
