#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""distributed.py CHECKPOINT VIEW: saves a state with torch.distributed.checkpoint, and reads the model in its view."""

import os
import sys
import time

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

checkpoint, view = sys.argv[1:]
torch.manual_seed(3)
state = {
    "embed.weight": torch.randn(300, 64),
    "layer.weight": torch.randn(64, 64).to(torch.bfloat16),
    "layer.bias": torch.randn(64),
    "steps": torch.tensor(7),
}
dcp.save({"model": state}, checkpoint_id=os.path.join(checkpoint, "pytorch_model_fsdp_0"), no_dist=True)

path = os.path.join(view, "model.safetensors")
deadline = time.monotonic() + 60
while not os.path.exists(path):
    assert time.monotonic() < deadline, "nothing was assembled"
    time.sleep(0.05)
found = load_file(path)
assert found.keys() == state.keys(), found.keys()
for name, tensor in state.items():
    assert tensor.dtype == found[name].dtype and torch.equal(tensor, found[name]), name
