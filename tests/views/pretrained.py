#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""pretrained.py CHECKPOINT VIEW: saves a model in shards, and loads it from the directory's view."""

import os
import sys
import time

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

checkpoint, view = sys.argv[1:]
torch.manual_seed(1)
config = LlamaConfig(hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4, vocab_size=2000)
model = LlamaForCausalLM(config)
model.save_pretrained(checkpoint, max_shard_size="3MB")
assert len([name for name in os.listdir(checkpoint) if name.startswith("model-")]) > 2

deadline = time.monotonic() + 60
while not os.path.exists(os.path.join(view, "model.safetensors")):
    assert time.monotonic() < deadline, "nothing was assembled"
    time.sleep(0.05)
assert not any("-of-" in name or name.endswith(".index.json") for name in os.listdir(view)), os.listdir(view)

loaded = AutoModelForCausalLM.from_pretrained(view)
expected, found = model.state_dict(), loaded.state_dict()
assert expected.keys() == found.keys()
for name, tensor in expected.items():
    assert tensor.dtype == found[name].dtype and torch.equal(tensor, found[name]), name
