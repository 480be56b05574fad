#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The hook that pushes a model to the Hub, with the real huggingface_hub, against a server that speaks the Hub's upload
# calls (hub_server.py).

load ../views/views.bash

setup() {
    PYTHON=${CKPTFS_VENV:-$CKPTFS_TREE/build/venv}/bin/python
    "$PYTHON" -c 'import huggingface_hub' 2>/dev/null || skip "needs huggingface_hub (contrib/setup --python)"
    views_setup
    HOOK=$CKPTFS_TREE/contrib/hooks/push-to-hub
    HUB=$TEST_DIR/hub
    RUN=$MNT/run
    mkdir "$HUB"
    ckptfs_mount
    mkdir "$RUN"
    python3 "$BATS_TEST_DIRNAME/hub_server.py" "$HUB" secret-token >"$TEST_DIR/url" 3>&- &
    SERVER=$!
    wait_until 20 test -s "$TEST_DIR/url"
    write_settings secret-token
}
teardown() {
    [ -z "${SERVER-}" ] || kill "$SERVER" || true
    ckptfs_teardown
}

# write_settings TOKEN: what the hook reads.
write_settings() {
    (umask 077 && printf '# of a test\nexport HF_TOKEN="%s"\nHF_ENDPOINT=%s\nHF_HUB_DISABLE_XET=1\n' \
        "$1" "$(cat "$TEST_DIR/url")" >"$TEST_DIR/hub.env")
}
set_hook() { "$CKPTFS" policy set "$RUN" hook-assembled="$PYTHON $HOOK --env $TEST_DIR/hub.env $*"; }
ends_hook() { wait_until 60 grep -qF -- "$1" "$CKPTFS_LOG"; }
none() { if "$@"; then return 1; fi; }
commits() { jq -c 'select(.commit)' "$HUB/log"; }

@test "a model is pushed when it is assembled: its bytes once, as commits of their checkpoint's step" {
    set_hook tester/model
    save_model "$RUN/checkpoint-1"
    ends_hook "checkpoint-1: done"
    shards same "$HUB/tester/model/main/model.safetensors"
    cmp "$HUB/tester/model/main/config.json" "$RUN/checkpoint-1/config.json"
    [ "$(commits | jq -r '[.commit, .repository, (.files | join(" "))] | join(": ")')" = \
        "Step 1: tester/model: config.json model.safetensors" ]
    # The same bytes, into a directory of a branch: nothing is uploaded again.
    set_hook --revision next --subdirectory second tester/model
    save_model "$RUN/checkpoint-2"
    ends_hook "checkpoint-2: done"
    shards same "$HUB/tester/model/next/second/model.safetensors"
    [ "$(jq -c 'select(.uploaded)' "$HUB/log" | wc -l)" -eq 1 ]
    # The token is nowhere to be seen.
    none grep -rqF secret-token "$CKPTFS_LOG"
    none bash -c "'$CKPTFS' policy show '$RUN' | grep -qF secret-token"
}

@test "what keeps it from pushing is one line in the log" {
    set_hook tester/model
    write_settings another-token
    save_model "$RUN/checkpoint-1"
    ends_hook "checkpoint-1: failed with exit status 1"
    grep -F "hook-assembled run/checkpoint-1: push-to-hub:" "$CKPTFS_LOG" | grep -qF "401"
    [ ! -e "$HUB/log" ]
    # By hand, what can be wrong before.
    chmod 644 "$TEST_DIR/hub.env"
    refused "others than its owner can read it" "$PYTHON" "$HOOK" --env "$TEST_DIR/hub.env" tester/model "$RUN/checkpoint-1"
    refused "has to have a line HF_TOKEN=" "$PYTHON" "$HOOK" --env "$TEST_DIR/none" tester/model "$RUN/checkpoint-1"
    refused "is no directory" "$PYTHON" "$HOOK" --env "$TEST_DIR/hub.env" tester/model "$RUN/none"
}
