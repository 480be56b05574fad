#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The tools that people use in a run directory.

load fs.bash

make_files() {
    mkdir -p "$1/sub/deep"
    local size
    for size in 0 10 16384 16385 200000 5000000; do
        head -c $size /dev/urandom >"$1/file-$size"
        head -c $size /dev/urandom >"$1/sub/deep/file-$size"
    done
    ln -s file-10 "$1/soft"
    ln "$1/file-200000" "$1/sub/hard"
    chmod 600 "$1/file-10"
    find "$1" -depth -exec touch -h -d '2001-02-03 04:05:06.789' {} +
}

# Names, kinds, modes, sizes and times of a tree.
listing() {
    (cd "$1" && find . -mindepth 1 \( -type d -printf '%p %y %m %t\n' -o -printf '%p %y %m %s %t %n %l\n' \) | sort)
}

@test "cp -r and cp -a, into it, within it and out of it" {
    make_files "$BATS_TEST_TMPDIR/source"
    cp -a "$BATS_TEST_TMPDIR/source" in
    cp -a in within
    cp -a within "$BATS_TEST_TMPDIR/out"
    cp -r in plain
    diff -r --no-dereference "$BATS_TEST_TMPDIR/source" "$BATS_TEST_TMPDIR/out"
    diff -r --no-dereference in plain
    diff <(listing "$BATS_TEST_TMPDIR/source") <(listing within)
    diff <(listing "$BATS_TEST_TMPDIR/source") <(listing "$BATS_TEST_TMPDIR/out")
}

@test "cp of a file that was just written, and of its copy after the source is gone" {
    head -c 3000000 /dev/urandom | tee source | sha256sum >"$BATS_TEST_TMPDIR/sum"
    cp source copy
    cp --reflink=auto copy copy2
    rm source
    sha256sum <copy | cmp - "$BATS_TEST_TMPDIR/sum"
    echo changed >>copy
    sha256sum <copy2 | cmp - "$BATS_TEST_TMPDIR/sum"
}

@test "rsync -a, again, and in place" {
    require_command rsync
    make_files "$BATS_TEST_TMPDIR/source"
    rsync -aH "$BATS_TEST_TMPDIR/source/" target/
    diff <(listing "$BATS_TEST_TMPDIR/source") <(listing target)
    [ -z "$(rsync -aHi "$BATS_TEST_TMPDIR/source/" target/)" ]
    echo changed >>"$BATS_TEST_TMPDIR/source/file-5000000"
    rm "$BATS_TEST_TMPDIR/source/file-10"
    rsync -aH --inplace --delete "$BATS_TEST_TMPDIR/source/" target/
    diff -r --no-dereference "$BATS_TEST_TMPDIR/source" target
}

@test "tar out of it and into it" {
    make_files source
    tar --format=posix -cf archive.tar source
    mkdir unpacked
    tar -xf archive.tar -C unpacked
    diff -r --no-dereference source unpacked/source
    diff <(listing source) <(listing unpacked/source)
    tar -df archive.tar
}

@test "rm -rf of a tree with thousands of files" {
    mkdir tree
    (cd tree && mkdir $(seq 20) && for directory in $(seq 20); do (cd "$directory" && touch $(seq 100)); done)
    [ "$(find tree -type f | wc -l)" -eq 2000 ]
    rm -rf tree
    [ ! -e tree ]
    [ "$(stat -c %h .)" -eq 2 ]
}

@test "git: init, commit, gc, fsck, clone" {
    require_command git
    export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null HOME=$BATS_TEST_TMPDIR
    export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@localhost GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@localhost
    git init -q repository
    cd repository
    local round
    for round in 1 2 3; do
        head -c 100000 /dev/urandom | base64 >"file-$round"
        git add .
        git commit -q -m "round $round"
    done
    git gc -q
    git fsck --strict
    git clone -q . ../clone
    diff -r --exclude=.git . ../clone
    [ -z "$(git status --porcelain)" ]
}

@test "SQLite with a rollback journal" {
    require_command sqlite3
    sqlite_session DELETE
}

@test "SQLite with a write-ahead log" {
    require_command sqlite3
    sqlite_session WAL
}

# Two writers and a reader at once, then a look at the whole.
sqlite_session() {
    sqlite3 run.db "PRAGMA journal_mode=$1; CREATE TABLE metric (step INTEGER, writer INTEGER, value BLOB);" >/dev/null
    local writer writers=()
    for writer in 1 2; do
        for _ in $(seq 50); do
            echo "INSERT INTO metric SELECT abs(random() % 1000), $writer, randomblob(2000);"
        done | sqlite3 -cmd '.timeout 30000' run.db 3>&- &
        writers+=($!)
    done
    for _ in $(seq 20); do sqlite3 -cmd '.timeout 30000' run.db 'SELECT count(*) FROM metric' >/dev/null; done
    for writer in "${writers[@]}"; do wait "$writer"; done
    [ "$(sqlite3 run.db 'SELECT count(*) FROM metric')" -eq 100 ]
    [ "$(sqlite3 run.db 'PRAGMA integrity_check')" = ok ]
    fs_remount
    [ "$(sqlite3 run.db 'SELECT count(*) FROM metric')" -eq 100 ]
    [ "$(sqlite3 run.db 'PRAGMA integrity_check')" = ok ]
}

output_contains() {
    grep -q "$1" "$BATS_TEST_TMPDIR/output"
}

@test "tail -f follows a log that is appended, by one writer or by many openings" {
    echo first >log
    tail -n +1 -f log >"$BATS_TEST_TMPDIR/output" 3>&- &
    local follower=$!
    wait_until 20 output_contains first
    (for line in $(seq 100); do echo "held $line"; done) >>log
    wait_until 20 output_contains 'held 100'
    for line in $(seq 100); do echo "reopened $line" >>log; done
    wait_until 20 output_contains 'reopened 100'
    kill $follower
    cmp log "$BATS_TEST_TMPDIR/output"
}

@test "tail -F follows a log that is rotated" {
    echo first >log
    tail -n +1 -F log >"$BATS_TEST_TMPDIR/output" 2>/dev/null 3>&- &
    local follower=$!
    wait_until 20 output_contains first
    mv log log.1
    echo second >log
    wait_until 20 output_contains second
    kill $follower
}

@test "dd with and without the page cache, with sync and fsync" {
    head -c 4M /dev/urandom >source
    dd if=source of=direct bs=1M oflag=direct iflag=direct status=none
    dd if=source of=sync bs=64k oflag=sync status=none
    dd if=source of=fsync bs=1000 conv=fsync status=none
    cmp source direct
    cmp source sync
    cmp source fsync
}

@test "a checkpoint directory is rotated by its mtime, also after its files were sealed" {
    local step
    is_past() { touch now && [ -n "$(find now -newer "checkpoint-$1")" ]; }
    for step in 100 200 300; do
        # Times move on by ticks of the kernel's clock, of which a machine that is fast makes two checkpoints in one.
        [ $step -eq 100 ] || wait_until 20 is_past $((step - 100))
        mkdir "checkpoint-$step"
        head -c 100000 /dev/urandom >"checkpoint-$step/model"
        echo "$step" >"checkpoint-$step/state"
    done
    # A later look into an older checkpoint changes nothing, and neither does writing into one of its files.
    cat checkpoint-100/model >/dev/null
    echo more >>checkpoint-100/state
    [ "$(ls -dtr checkpoint-*)" = "$(printf 'checkpoint-%s\n' 100 200 300)" ]
    fs_remount
    [ "$(ls -dtr checkpoint-*)" = "$(printf 'checkpoint-%s\n' 100 200 300)" ]
    rm -r checkpoint-100
    [ "$(ls -dtr checkpoint-*)" = "$(printf 'checkpoint-%s\n' 200 300)" ]
}

@test "du and df agree with what was written" {
    head -c 20M /dev/urandom >file
    sync file
    local used
    used=$(du -sk file | cut -f1)
    [ "$used" -ge 20000 ] && [ "$used" -le 21000 ]
    [ "$(df --output=avail -B1 . | tail -1)" -gt 0 ]
}

@test "Python: rmtree, copytree, listdir, replace, temporary files" {
    require_command python3
    python3 - <<'PYTHON'
import os, shutil, tempfile

os.makedirs("a/b/c")
for i in range(50):
    with open(f"a/b/c/{i}", "wb") as file:
        file.write(os.urandom(i * 1000))
shutil.copytree("a", "copy")
assert sorted(os.listdir("copy/b/c")) == sorted(map(str, range(50)))
for i in range(50):
    with open(f"a/b/c/{i}", "rb") as left, open(f"copy/b/c/{i}", "rb") as right:
        assert left.read() == right.read()
shutil.rmtree("a")
assert not os.path.exists("a")
with tempfile.NamedTemporaryFile(dir=".", delete=False) as file:
    file.write(b"new state")
os.replace(file.name, "copy/b/c/0")
assert open("copy/b/c/0", "rb").read() == b"new state"
with tempfile.TemporaryFile(dir=".") as file:
    file.write(b"x" * 100000)
    file.seek(0)
    assert file.read() == b"x" * 100000
shutil.move("copy", "moved")
assert os.listdir(".") == ["moved"]
PYTHON
}
