#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Models whose parameters all have one value, saved by transformers, and readers of exports of them.

exported.py save DIRECTORY VALUE...       DIRECTORY/checkpoint-1, ... each with another value; every second in shards
exported.py value DIRECTORY...            the value of each model; fails when its parameters differ
exported.py read SHARDED SINGLE LOADS     loads both links again and again, LOADS times at least and until two values
                                          were seen of each: every load has one value. The model in shards is loaded by
                                          a directory that is opened and locked. Prints how many loads there were, and of
                                          how many values.
"""

import fcntl
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()


def save(directory, values):
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=256, num_hidden_layers=2, dtype="bfloat16", **shape)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    for number, value in enumerate(values, 1):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(float(value))
        size = "100KB" if number % 2 == 0 else "1GB"
        model.save_pretrained(os.path.join(directory, f"checkpoint-{number}"), max_shard_size=size)


def value_of(directory):
    model = AutoModelForCausalLM.from_pretrained(directory)
    values = {value for parameter in model.parameters() for value in parameter.unique().tolist()}
    assert len(values) == 1, f"parts of several models: {values}"
    return values.pop()


def read_pinned(link):
    fd = os.open(link, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        return value_of(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def read(sharded, single, least):
    loads, values = 0, (set(), set())
    while loads < least or min(map(len, values)) < 2:
        values[0].add(read_pinned(sharded))
        values[1].add(value_of(single))
        loads += 1
    print(f"{loads} loads: {len(values[0])} models in shards, {len(values[1])} in one file")


if __name__ == "__main__":
    if sys.argv[1] == "save":
        save(sys.argv[2], sys.argv[3:])
    elif sys.argv[1] == "value":
        print(*map(value_of, sys.argv[2:]))
    else:
        read(sys.argv[2], sys.argv[3], int(sys.argv[4]))
