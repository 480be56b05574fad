# SPDX-License-Identifier: Apache-2.0
# For test files that start Python with torch and transformers many times: they are loaded once, by a process of which
# the others are forks (loaded.py). In a test file, after ckptfs.bash:
#
#     setup_file() { loaded_start; }
#     teardown_file() { loaded_end; }
#
# PYTHON is the environment's, from CKPTFS_VENV (default: build/venv, which contrib/setup --python makes).

PYTHON=${CKPTFS_VENV:-$CKPTFS_TREE/build/venv}/bin/python

# Loads the libraries. What they read of the environment when they are loaded is as in the runs of tests/trainer.
loaded_start() {
    if [ ! -x "$PYTHON" ]; then
        echo "no Python at $PYTHON: contrib/setup --python makes the environment, CKPTFS_VENV names another"
        return 1
    fi
    export CKPTFS_TEST_LOADED=$BATS_FILE_TMPDIR/loaded
    HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=warning \
        OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PYTHONHASHSEED=0 \
        "$PYTHON" -B "$CKPTFS_TREE/tests/lib/loaded.py" serve "$CKPTFS_TEST_LOADED" \
        >"$BATS_FILE_TMPDIR/loaded.log" 2>&1 3>&- &
    LOADED_PID=$!
    if ! wait_until 240 loaded_is_ready || [ ! -S "$CKPTFS_TEST_LOADED" ]; then
        cat "$BATS_FILE_TMPDIR/loaded.log"
        return 1
    fi
}

loaded_is_ready() { [ -S "$CKPTFS_TEST_LOADED" ] || ! kill -0 "$LOADED_PID" 2>/dev/null; }

loaded_end() {
    [ -n "${LOADED_PID-}" ] || return 0
    kill "$LOADED_PID"
    wait "$LOADED_PID" || return 0
}

# loaded_python SECONDS RANKS PROGRAM|-mMODULE [ARGUMENT...]: as Python would run it, or torchrun with several ranks;
# interrupted when the time is over.
loaded_python() {
    timeout -s INT -k 30 "$1" "$PYTHON" -IS "$CKPTFS_TREE/tests/lib/loaded.py" run "$CKPTFS_TEST_LOADED" "${@:2}"
}
