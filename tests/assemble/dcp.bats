# SPDX-License-Identifier: Apache-2.0
# Checkpoints of torch.distributed.checkpoint and FSDP, made by the libraries, assembled and compared with what the
# libraries make of them. The Python environment is CKPTFS_VENV (default: build/venv).

load ../lib/ckptfs.bash

setup() {
    PYTHON=${CKPTFS_VENV:-$CKPTFS_TREE/build/venv}/bin/python
    if [ ! -x "$PYTHON" ]; then
        echo "no Python at $PYTHON: contrib/setup --python makes the environment, CKPTFS_VENV names another"
        return 1
    fi
    ckptfs_setup
}
teardown() { ckptfs_teardown; }

@test "what ranks saved becomes the model that the libraries make of it" {
    local status=0
    export CKPTFS PYTHONWARNINGS=ignore OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
    timeout -s INT -k 30 900 "$PYTHON" -B -m pytest -p no:cacheprovider -v --tb=short --basetemp="$TEST_DIR/pytest" \
        "$CKPTFS_TREE/tests/assemble/test_dcp.py" >"$TEST_DIR/pytest.log" 2>&1 || status=$?
    sed -nE '/ (PASSED|FAILED|ERROR|SKIPPED)|^=+ .*(passed|failed|error|skipped)/s/^/# /p' "$TEST_DIR/pytest.log" >&3
    if [ $status -ne 0 ]; then
        tail -n 150 "$TEST_DIR/pytest.log"
        return 1
    fi
}
