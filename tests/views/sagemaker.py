#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SageMaker model parallel on a mount: what its loader looks for, beside what the trainer saved.

sagemaker.py save DIRECTORY [sharded]    as the Trainer leaves it (transformers, trainer.py, save_model;
                                         smdistributed.modelparallel.torch, checkpoint.py): the whole model, the
                                         optimizer of each rank, and at last an empty user_content.pt
sagemaker.py same VIEW                   pytorch_model.bin and model.safetensors there are that model
"""

import os
import sys

import torch
from safetensors.torch import load_file, save_file


def tensors():
    numbers = torch.Generator().manual_seed(9)
    made = {f"layers.{i}.weight": torch.randn(300, 64 + i, generator=numbers) for i in range(4)}
    return {**made, "scale": torch.tensor(1.5), "steps": torch.arange(5), "half": torch.ones(3, 3).bfloat16()}


def save(directory, sharded):
    state = tensors()
    if sharded:
        names = list(state)
        for number, part in enumerate((names[:2], names[2:]), 1):
            save_file({name: state[name] for name in part}, f"{directory}/model-0000{number}-of-00002.safetensors")
    else:
        save_file(state, f"{directory}/model.safetensors", metadata={"format": "pt"})
    for rank in ("0_0", "0_1"):
        torch.save({"state": {0: torch.zeros(3)}, "param_groups": [], "_smp_is_partial": True},
                   f"{directory}/optimizer.pt_{rank}.pt")
    with open(f"{directory}/user_content.pt", "a"):
        pass


def same(view):
    loaded = torch.load(f"{view}/pytorch_model.bin", weights_only=True)
    for found in (loaded, load_file(f"{view}/model.safetensors")):
        assert found.keys() == tensors().keys(), found.keys()
        for name, tensor in tensors().items():
            assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


if sys.argv[1] == "save":
    os.makedirs(sys.argv[2], exist_ok=True)
    save(sys.argv[2], "sharded" in sys.argv[3:])
else:
    same(sys.argv[2])
