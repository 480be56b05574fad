# SPDX-License-Identifier: Apache-2.0
# Waiting for the journal beside the database of STORE. In a test file, after ckptfs.bash.

JOURNAL_CALLS=0 JOURNAL_MARKS=0

# Makes a directory, which is a change that makes no object, and looks for one of the same kind in the journal, whose
# records are pages of the database. Another one each time: a backup that begins a new journal may have taken the last.
journal_has_mark() {
    JOURNAL_MARKS=$((JOURNAL_MARKS + 1))
    mkdir -p "$MNT/mark/$1-$JOURNAL_MARKS" && grep -qF "$1-" "$STORE/manifests/meta.db.journal" 2>/dev/null
}

# Returns when the journal has, on stable storage, all that was done on MNT before the call. What was made after the first
# mark was seen is not written before the round that brought that one has ended, with its sync.
journal_has_all() {
    JOURNAL_CALLS=$((JOURNAL_CALLS + 1))
    wait_until 20 journal_has_mark "first-$JOURNAL_CALLS"
    wait_until 20 journal_has_mark "second-$JOURNAL_CALLS"
}
