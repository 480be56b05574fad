#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in which weights and an optimizer's state share files, by the libraries that write such.

    mixed_saves.py save DIRECTORY STEP...
    mixed_saves.py compare {DIRECTORY/KIND/STEP.expected MODEL}...
    mixed_saves.py read CHECKPOINT FILE MODEL {DIRECTORY/KIND/STEP.expected MODEL}...

DIRECTORY/KIND/NAME-STEP for each KIND: zero2 and zero3 as the Trainer has DeepSpeed save them, in one rank, with
the FP32 model beside it as DeepSpeed's own zero_to_fp32 gives it; and dcp, by one call of torch.distributed.checkpoint
with the model and the optimizer, and the model's tensors beside it. What is beside is DIRECTORY/KIND/STEP.expected.
`compare` says whether safetensors files have it. `read` first makes MODEL of a checkpoint that has lost its
optimizer's state, with the program that DeepSpeed has put into it, and sees that torch.load fails to read FILE of it.
"""

import json
import os
import runpy
import sys
from pathlib import Path

os.environ.update(DS_ACCELERATOR="cpu", DS_BUILD_OPS="0", OMP_NUM_THREADS="1", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
os.environ.update(MASTER_ADDR="127.0.0.1", PYTHONWARNINGS="ignore")

import torch  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402

WIDTH = 700  # FP32 partitions of 4 MB, and an optimizer's state of 8 MB


def build(seed):
    """None is like another: what they had in common would not be given up."""
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, WIDTH)]
    return torch.nn.Sequential(*layers)


def keep(path, tensors):
    torch.save({name: value.detach().clone().contiguous() for name, value in tensors.items()}, path)


def save_zero(stage, run, step):
    import deepspeed
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    model = build(10 * step + stage)
    configuration = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage},
                     "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
                     "bf16": {"enabled": True}}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=configuration)
    engine.backward(engine(torch.ones(1, WIDTH, dtype=torch.bfloat16)).float().square().mean())
    engine.step()
    checkpoint = run / f"checkpoint-{step}"
    engine.save_checkpoint(str(checkpoint), tag=f"global_step{step}")
    torch.save({"python": step}, checkpoint / "rng_state.pth")
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))
    keep(run / f"{step}.expected", get_fp32_state_dict_from_zero_checkpoint(str(checkpoint)))


def save_dcp(run, step):
    model = build(10 * step)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.ones(1, WIDTH)).square().mean().backward()
    optimizer.step()
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    dcp.save(states, checkpoint_id=str(run / f"step-{step}"), no_dist=True)
    keep(run / f"{step}.expected", model.state_dict())


def save(directory, steps):
    import deepspeed

    for kind in ("zero2", "zero3", "dcp"):
        (directory / kind).mkdir(parents=True)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, init_method=f"file://{directory}/rendezvous", rank=0,
                               world_size=1)
    for step in steps:
        for stage in (2, 3):
            save_zero(stage, directory / f"zero{stage}", step)
        save_dcp(directory / "dcp", step)


def compare(expected, model):
    from safetensors.torch import load_file

    right, found = torch.load(expected), load_file(model)
    assert found.keys() == right.keys(), model
    for name, tensor in right.items():
        assert torch.equal(found[name], tensor), (model, name)


def read_what_is_left(checkpoint, file, model):
    program = Path(checkpoint) / "zero_to_fp32.py"
    sys.argv = [str(program), checkpoint, str(Path(model).parent), "--safe_serialization"]
    runpy.run_path(str(program), run_name="__main__")
    try:
        torch.load(file, weights_only=False)
    except (OSError, RuntimeError):
        return
    raise AssertionError(f"{file} was read")


def main(what, *arguments):
    if what == "save":
        save(Path(arguments[0]).resolve(), [int(step) for step in arguments[1:]])
        return
    if what == "read":
        read_what_is_left(*arguments[:3])
        arguments = arguments[3:]
    for pair in zip(arguments[::2], arguments[1::2], strict=True):
        compare(*pair)


if __name__ == "__main__":
    main(*sys.argv[1:])
