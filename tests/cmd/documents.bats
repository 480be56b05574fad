#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What the program says about itself and what its documents say are the same.

load ../lib/ckptfs.bash

setup() {
    ckptfs_setup
    DOC=$CKPTFS_TREE/doc
    COMMANDS=(mount umount status restart du gc verify fsck assemble export inspect ls policy pin unpin template undelete events wait)
}
teardown() { ckptfs_teardown; }

# Prints a manual page as plain text.
page() {
    mandoc -T ascii "$DOC/$1" | col -b
}

@test "--help lists the commands, and every command has one" {
    "$CKPTFS" --help >"$TEST_DIR/help"
    local command
    for command in "${COMMANDS[@]}"; do
        grep -q "^  $command " "$TEST_DIR/help"
        "$CKPTFS" "$command" --help | grep -q "^usage: ckptfs $command "
    done
    [ "$(grep -c '^  [a-z]' "$TEST_DIR/help")" -eq ${#COMMANDS[@]} ]
}

@test "--version is configure's" {
    local version
    version=$(sed -n 's/^AC_INIT(\[ckptfs\], \[\(.*\)\])$/\1/p' "$CKPTFS_TREE/configure.ac")
    [ "$("$CKPTFS" --version)" = "ckptfs $version" ]
    grep -q "^$version " "$CKPTFS_TREE/NEWS"
}

@test "every option of --help is in the manual page, and the other way round" {
    require_command mandoc
    local command
    for command in "${COMMANDS[@]}"; do
        "$CKPTFS" "$command" --help | grep -oE '^ +(-[a-z], --[a-z0-9-]+|[a-z-]+=)' | grep -oE '(--)?[a-z][a-z0-9-]+=?' |
            sort -u >"$TEST_DIR/help"
        page "ckptfs-$command.1" | grep -oE '^ +(-[a-z], --[a-z0-9-]+|[a-z-]+=)' | grep -oE '(--)?[a-z][a-z0-9-]+=?' |
            sort -u >"$TEST_DIR/page"
        diff "$TEST_DIR/help" "$TEST_DIR/page"
    done
}

@test "the manual lists every exit code" {
    # A code that another header gives is named in the comment beside it.
    grep -oE '(= |/\* )[0-9]+[,:]' "$CKPTFS_TREE/src/cmd/exit.h" | tr -dc '0-9\n' >"$TEST_DIR/code"
    sed -n '/^\.Sh EXIT STATUS/,/^\.El/s/^\.It //p' "$DOC/ckptfs.1" >"$TEST_DIR/page"
    [ "$(wc -l <"$TEST_DIR/code")" -gt 10 ]
    diff "$TEST_DIR/code" "$TEST_DIR/page"
}

@test "the manual lists every field of status --json" {
    require_command mandoc
    ckptfs_mount
    page ckptfs-status.1 >"$TEST_DIR/page"
    local field
    while read -r field; do
        grep -qw "$field" "$TEST_DIR/page" || {
            echo "$field is not in ckptfs-status(1)"
            return 1
        }
    done < <("$CKPTFS" status --json "$MNT" | jq -r '(. + .disk + .features) | keys[]')
    ckptfs_umount
}

# complete_line WORD...: what bash offers for the last word of a command line.
complete_line() {
    bash -c '
        compopt() { :; } # Only the line editor has it.
        . "$1"
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _ckptfs
        printf "%s\n" "${COMPREPLY[@]}"' - "$CKPTFS_TREE/contrib/completion/ckptfs.bash" "$@"
}

@test "completion offers the commands and their options" {
    local command
    complete_line ckptfs '' | grep -v '^--' | sort | diff - <(printf '%s\n' "${COMMANDS[@]}" | sort)
    for command in "${COMMANDS[@]}"; do
        "$CKPTFS" "$command" --help | sed -nE 's/^ +(-[a-z], )?(--[a-z0-9-]+).*/\2/p' >"$TEST_DIR/help"
        echo --help >>"$TEST_DIR/help"
        complete_line ckptfs "$command" -- | sort | diff - <(sort "$TEST_DIR/help")
    done
    "$CKPTFS" mount --help | grep -oE '^ +[a-z-]+=' | tr -d ' ' | sort >"$TEST_DIR/help"
    complete_line ckptfs mount -o '' | grep -oE '^[a-z-]+=' | sort -u | diff - "$TEST_DIR/help"
}

@test "completion offers the mount points" {
    ckptfs_mount
    complete_line ckptfs umount '' | grep -qxF "$MNT"
    ckptfs_umount
}

@test "the tests that the promises name are there" {
    require_command mandoc
    local reference name
    mandoc -T ascii -O width=1000 "$DOC/ckptfs-durability.7" | col -b >"$TEST_DIR/page"
    grep -oE 'tests/[a-z]+/[a-z_*]+\.[a-z]+' "$TEST_DIR/page" | sort -u >"$TEST_DIR/references"
    [ -s "$TEST_DIR/references" ]
    while read -r reference; do
        compgen -G "$CKPTFS_TREE/$reference" >/dev/null || {
            echo "no $reference"
            return 1
        }
    done <"$TEST_DIR/references"
    # A quoted name may end in "..." or in a remark.
    grep -E 'tests/crash/' "$TEST_DIR/page" | grep -oE '\("[^"]+"' | sed -e 's/^("//' -e 's/ *\(\.\.\.\)\?"$//' >"$TEST_DIR/names"
    [ -s "$TEST_DIR/names" ]
    while read -r name; do
        grep -h '^@test' "$CKPTFS_TREE"/tests/crash/*.bats | grep -qF -- "$name" || {
            echo "no test is named \"$name\""
            return 1
        }
    done <"$TEST_DIR/names"
}
