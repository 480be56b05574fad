# SPDX-License-Identifier: Apache-2.0
# What the filesystem tests share. One mount serves a whole file; each test has a fresh directory, which is its
# working directory.
#
#   CKPTFS_TEST_PLAIN=1   run on a plain directory below CKPTFS_TEST_BASE, on an ext4, instead of a mount: this checks
#                         the tests themselves
#   FSPROBE               the program with the probes (default: where `make check_PROGRAMS` puts it, beside CKPTFS)

load ../lib/ckptfs.bash

fs_is_plain() {
    [ "${CKPTFS_TEST_PLAIN-}" = 1 ]
}

setup_file() {
    ckptfs_setup
    fs_is_plain || fs_mount
    export TEST_DIR STORE MNT CKPTFS_LOG
    FSPROBE=$(realpath "${FSPROBE:-$(dirname "$CKPTFS")/tests/fs/fsprobe}")
    export FSPROBE
    if [ ! -x "$FSPROBE" ]; then
        echo "no program at $FSPROBE: build it with 'make check TESTS=', or name it in FSPROBE"
        return 1
    fi
}

# Root's mounts are open to all users; a normal user's are his own.
fs_mount() {
    if [ "$(id -u)" -eq 0 ]; then ckptfs_mount allow_other; else ckptfs_mount; fi
}

teardown_file() {
    # One failed test is enough for the log to be shown.
    if [ ! -e "$TEST_DIR/failed" ]; then BATS_TEST_COMPLETED=1; fi
    ckptfs_teardown
}

setup() {
    WORK=$MNT/test-$BATS_TEST_NUMBER
    mkdir "$WORK"
    cd "$WORK" || return
}

teardown() {
    if [ -z "${BATS_TEST_COMPLETED-}" ]; then touch "$TEST_DIR/failed"; fi
    cd /
    rm -rf "$WORK"
}

# Runs a probe in the working directory; a probe that cannot run here skips the test.
probe() {
    local status=0 output
    output=$("$FSPROBE" "$1" 2>&1) || status=$?
    echo "$output"
    if [ $status -eq 77 ]; then skip "${output#skip: }"; fi
    return $status
}

# The same filesystem, mounted again; in a plain directory nothing happens.
fs_remount() {
    if fs_is_plain; then return; fi
    cd /
    ckptfs_umount
    fs_mount
    cd "$WORK" || return
}

# Everything that can be known of a tree, a line each: attributes with nanoseconds, contents, extended attributes,
# and the order in which directories list their entries.
fs_snapshot() {
    local directory=${1:-.}
    (
        cd "$directory" || return
        find . -printf '%p %y %m %U %G %s %n %i %T@ %C@ %l\n' | sort
        find . -type f -print0 | sort -z | xargs -0r sha256sum
        find . -type b -o -type c | sort | xargs -r stat -c '%n %t:%T'
        getfattr -R -P -h -d -m - -e hex . 2>/dev/null | sort
        find . -type d -print0 | sort -z | xargs -0 -n 1 ls -aU
    )
}
