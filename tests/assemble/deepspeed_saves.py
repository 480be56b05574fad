# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that DeepSpeed writes, by one to four ranks on the CPU.

deepspeed_saves.py DIRECTORY makes all of CASES, each in DIRECTORY/ranksN/NAME, and beside it what is right: the tensors
of the live model (live.pt) and the FP32 copies that its optimizer holds (masters.pt), gathered from all ranks. Sizes
are chosen so that nothing divides evenly and small groups leave whole ranks without an element.

torch and DeepSpeed take seconds to import: one process does it and forks the ranks of every run.
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path

os.environ.update(DS_ACCELERATOR="cpu", DS_BUILD_OPS="0", OMP_NUM_THREADS="1")

RANKS_DEADLINE = 300
SHARED = {"head.weight": "embed.weight"}

GRADIENTS_FP32 = {"data_types": {"grad_accum_dtype": "fp32"}}  # with bf16 and ZeRO-1: BF16_Optimizer
OFFLOAD = {"offload_optimizer": {"device": "cpu"}}

# name → ZeRO stage, numbers of ranks, and what is special. "zero": keys of the configuration's zero_optimization.
CASES = {
    "zero0": {"stage": 0, "ranks": (2,)},
    "zero1": {"stage": 1, "ranks": (3,)},
    "zero1_frozen": {"stage": 1, "ranks": (2,), "frozen": True},
    "zero1_aligned": {"stage": 1, "ranks": (2, 3), "zero": {"parameter_alignment": True}},
    "zero1_empty_parameter": {"stage": 1, "ranks": (2,), "empty": True},
    "zero2": {"stage": 2, "ranks": (1, 3, 4)},
    "zero2_frozen": {"stage": 2, "ranks": (3,), "frozen": True, "empty": True},
    "zero2_dealt": {"stage": 2, "ranks": (2, 3), "zero": {"round_robin_gradients": True}},
    "zero2_offload": {"stage": 2, "ranks": (2,), "zero": OFFLOAD},
    "zero2_fp16": {"stage": 2, "ranks": (2,), "precision": "fp16"},
    "zero2_fp32": {"stage": 2, "ranks": (2,), "precision": None},
    "zero2_untied": {"stage": 2, "ranks": (2,), "tied": False},
    "bf16_optimizer": {"stage": 1, "ranks": (1, 4), "config": GRADIENTS_FP32},
    "bf16_optimizer_frozen": {"stage": 1, "ranks": (3,), "config": GRADIENTS_FP32, "frozen": True},
    "zero3": {"stage": 3, "ranks": (1, 2, 3, 4)},
    "zero3_frozen": {"stage": 3, "ranks": (3, 4), "frozen": True},
    "zero3_sub_groups": {"stage": 3, "ranks": (2, 3), "zero": {"sub_group_size": 50}},
    "zero3_offload": {"stage": 3, "ranks": (2,), "zero": {**OFFLOAD, "offload_param": {"device": "cpu"}}},
    "zero3_fp16_untied": {"stage": 3, "ranks": (2,), "precision": "fp16", "tied": False},
    "adapter": {"stage": 2, "ranks": (2,)},
    "adapter_zero3": {"stage": 3, "ranks": (2,)},
    "experts_zero0": {"stage": 0, "ranks": (2,), "precision": None},
    "experts_zero2": {"stage": 2, "ranks": (2,)},
    "pipeline": {"ranks": (2,)},
    "tensor_parallel": {"stage": 1, "ranks": (2,)},  # last: DeepSpeed keeps the groups that it made
}


def cases():
    """(number of ranks, name) of every checkpoint."""
    return [(ranks, name) for name, case in CASES.items() for ranks in case["ranks"]]


# -- one checkpoint ----------------------------------------------------------------------------------------------------


def build_model(case):
    import torch

    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(13, 7)
            self.first = torch.nn.Linear(7, 11)
            self.norm = torch.nn.LayerNorm(11)
            self.second = torch.nn.Linear(11, 7, bias=False)
            self.scale = torch.nn.Parameter(torch.tensor([1.5]))
            if case.get("empty"):
                self.empty = torch.nn.Parameter(torch.zeros(0, 3))
            self.register_buffer("mean", torch.arange(5) / 3)
            self.register_buffer("steps", torch.arange(3))
            self.register_buffer("mask", torch.tensor([True, False]))
            self.register_buffer("not_saved", torch.zeros(2), persistent=False)
            self.head = torch.nn.Linear(7, 13, bias=False)
            if case.get("tied", True):
                self.head.weight = self.embed.weight

        def forward(self, x):
            hidden = self.second(self.norm(self.first(self.embed(x)))) * self.scale
            return self.head(hidden).float().square().mean()

    torch.manual_seed(7)
    model = Odd()
    if case.get("frozen"):
        model.first.weight.requires_grad = model.norm.bias.requires_grad = False
    return model


def build_optimizer(model):
    """Three groups; the last one is a single element, so that all ranks but one have nothing of it."""
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [[p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() == 1 and p.numel() > 1]]
    groups.append([p for p in parameters if p.numel() == 1])
    return torch.optim.AdamW([{"params": group} for group in groups], lr=1e-2)


def configuration(case):
    zero = {"stage": case["stage"], "stage3_param_persistence_threshold": 0, **case.get("zero", {})}
    precision = case.get("precision", "bf16")
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        **({precision: {"enabled": True}} if precision else {}),
        **case.get("config", {}),
    }


def gather(model, stage):
    """The live tensors, tied ones under each name, and the FP32 copies of the trainable parameters."""
    import deepspeed
    import torch
    from deepspeed.utils import safe_get_full_fp32_param

    parameters = dict(model.named_parameters(remove_duplicate=False))
    gathered = deepspeed.zero.GatheredParameters(list(model.parameters())) if stage == 3 else contextlib.nullcontext()
    with gathered:
        live = {name: value.detach().clone() for name, value in parameters.items()}
    live.update({name: value.clone() for name, value in model.state_dict().items() if name not in parameters})
    masters = {}
    for name, value in parameters.items() if stage > 0 else ():
        if value.requires_grad and live[name].numel() > 0:
            masters[name] = safe_get_full_fp32_param(value).clone()
    assert torch.distributed.is_initialized()
    return live, masters


def keep(path, **results):
    import torch

    if torch.distributed.get_rank() == 0:
        for name, tensors in results.items():
            torch.save(tensors, path / f"{name}.pt")
    torch.distributed.barrier()


def save_zero(case, path):
    import deepspeed
    import torch

    model = build_model(case)
    engine, *_ = deepspeed.initialize(model=model, optimizer=build_optimizer(model), config=configuration(case))
    for step in range(2):
        loss = engine((torch.arange(4) + 3 * step + torch.distributed.get_rank()) % 13)
        engine.backward(loss)
        engine.step()
    engine.save_checkpoint(str(path))
    live, masters = gather(model, case["stage"])
    keep(path, live=live, masters=masters)


def save_pipeline(path):
    """Two stages of one rank each. Layers without parameters have no file."""
    import deepspeed
    import torch
    from deepspeed.pipe import LayerSpec, PipelineModule
    from torch import nn

    layers = [LayerSpec(nn.Linear, 7, 7), torch.relu, LayerSpec(nn.Linear, 7, 5), LayerSpec(nn.LayerNorm, 5)]
    layers.append(LayerSpec(nn.Linear, 5, 3))
    loss = lambda outputs, labels: outputs.float().square().mean()  # noqa: E731
    model = PipelineModule(layers=layers, num_stages=2, loss_fn=loss, partition_method="uniform")
    config = {**configuration({"stage": 1}), "gradient_accumulation_steps": 2}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    engine.train_batch(iter([(torch.ones(1, 7, dtype=torch.bfloat16), torch.zeros(1))] * 2))
    engine.save_checkpoint(str(path))
    parts = [None, None]
    torch.distributed.all_gather_object(parts, {name: value.cpu() for name, value in model.state_dict().items()})
    keep(path, live={**parts[0], **parts[1]})


def build_mixture(rank):
    """Two layers of experts, four and two, of which each of two ranks has half."""
    import torch
    from deepspeed.moe.layer import MoE
    from torch import nn

    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(13, 8)
            expert = nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 8))
            self.first = MoE(8, expert, num_experts=4, ep_size=2, k=1, min_capacity=4)
            self.second = MoE(8, nn.Linear(8, 8, bias=False), num_experts=2, ep_size=2, k=1, min_capacity=4)
            self.register_buffer("mean", torch.arange(5) / 3)
            self.head = nn.Linear(8, 13)

        def forward(self, x):
            hidden = self.first(self.embed(x))[0]
            return self.head(self.second(hidden)[0]).float().square().mean()

    torch.manual_seed(7)
    model = Mixture()
    for name, parameter in model.named_parameters():
        if ".deepspeed_experts." in name:
            parameter.data.add_(rank + 1)
    return model


def save_experts(case, path):
    import deepspeed
    import torch
    from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer as split

    rank = torch.distributed.get_rank()
    model = build_mixture(rank)
    groups = split({"params": list(model.parameters()), "name": "parameters"})
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(groups), config=configuration(case))
    engine.backward(engine(((torch.arange(8) + rank) % 13)[None]))
    engine.step()
    engine.save_checkpoint(str(path))
    parts = [None, None]
    torch.distributed.all_gather_object(parts, {name: value.clone() for name, value in model.state_dict().items()})
    live = {name: value for name, value in parts[0].items() if ".deepspeed_experts." not in name}
    for owner, part in enumerate(parts):
        for name, value in part.items():
            before, found, after = name.partition(".deepspeed_experts.")
            if found:
                number, _, rest = after.partition(".")
                experts = {"first": 2, "second": 1}[before.split(".")[0]]
                live[f"{before}{found}{owner * experts + int(number)}.{rest}"] = value
    keep(path, live=live)


def save_tensor_parallel(path):
    """AutoTP: DeepSpeed divides the layers of a small Llama between two ranks."""
    import deepspeed
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 16}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads))
    config = {**configuration({"stage": 1}), "tensor_parallel": {"autotp_size": 2}}
    config["optimizer"] = {"type": "AdamW", "params": {"torch_adam": True}}
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    tokens = torch.arange(8)[None]
    engine.backward(engine(input_ids=tokens, labels=tokens).loss)
    engine.step()
    engine.save_checkpoint(str(path))
    keep(path, live=engine._replace_module_consolidated_state_dict())


def save_adapter(case, path):
    """Low-rank weights alone, as the Trainer saves them; expected under the names that PEFT saves them by."""
    import deepspeed
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    base = torch.nn.Sequential(torch.nn.Linear(7, 11), torch.nn.Tanh(), torch.nn.Linear(11, 3))
    torch.manual_seed(5)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["0", "2"]))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=configuration(case))
    engine.backward(engine(torch.ones(2, 7, dtype=torch.bfloat16)).float().square().mean())
    engine.step()
    engine.save_checkpoint(str(path), exclude_frozen_parameters=True)
    live, masters = gather(model, case["stage"])
    keep(path, live=get_peft_model_state_dict(model, live), masters=get_peft_model_state_dict(model, masters))


def save(name, path):
    if name == "pipeline":
        save_pipeline(path)
    elif name == "tensor_parallel":
        save_tensor_parallel(path)
    elif name.startswith("experts"):
        save_experts(CASES[name], path)
    elif name.startswith("adapter"):
        save_adapter(CASES[name], path)
    else:
        save_zero(CASES[name], path)


# -- ranks -------------------------------------------------------------------------------------------------------------


def run_rank(rank, ranks, directory):
    """All checkpoints of so many ranks. What the libraries print goes to a file."""
    log = os.open(directory / f"rank{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import deepspeed
    import torch

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank))
    meet = f"file://{directory}/rendezvous"
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, init_method=meet, rank=rank, world_size=ranks)
    for of_ranks, name in cases():
        if of_ranks == ranks:
            print("==", name, flush=True)
            save(name, directory / name)


def fork_rank(rank, ranks, directory):
    pid = os.fork()
    if pid > 0:
        return pid
    status = 1
    try:
        run_rank(rank, ranks, directory)
        status = 0
    except BaseException:  # noqa: BLE001: the log has it, the parent the status
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_ranks(ranks, directory):
    directory.mkdir(parents=True)
    left = {fork_rank(rank, ranks, directory) for rank in range(ranks)}
    deadline = time.monotonic() + RANKS_DEADLINE
    failed = False
    while left and not failed and time.monotonic() < deadline:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            time.sleep(0.02)
        left.discard(pid)
        failed = failed or (pid > 0 and status != 0)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if failed or left:
        logs = "\n".join(path.read_text()[-3000:] for path in sorted(directory.glob("rank*.log")))
        sys.exit(f"the run of {ranks} ranks failed\n{logs}")


def main(directory):
    # Before the ranks are forked.
    import deepspeed
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    # Else it is compiled at its first use, into the user's cache, under a lock that a death leaves behind.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    for ranks in sorted({ranks for ranks, _ in cases()}):
        run_ranks(ranks, Path(directory).resolve() / f"ranks{ranks}")


if __name__ == "__main__":
    main(sys.argv[1])
