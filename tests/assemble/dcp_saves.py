# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that torch.distributed.checkpoint and accelerate write, by as many ranks as are asked for.

save(directory, world) makes every kind that this number of ranks can make, each in a directory of its own, and beside
each NAME.expected: the full tensors of the live model under the names that an assembled file has. Sizes are chosen so
that they divide unevenly and leave ranks without a row.
"""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardedStateDictConfig, StateDictType, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

RANKS_DEADLINE = 240

os.environ.update(PYTHONWARNINGS="ignore", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", ACCELERATE_USE_CPU="true")


class Odd(nn.Module):
    """Two linear layers whose sizes fit no number of ranks, a norm with buffers, a tensor without a dimension."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 11)
        self.norm = nn.BatchNorm1d(11)
        self.down = nn.Linear(11, 6)
        self.scale = nn.Parameter(torch.tensor([1.5]))
        self.register_buffer("table", torch.arange(10).reshape(2, 5))

    def forward(self, x):
        return self.down(self.norm(self.up(x))) * self.scale


def full(state):
    """Whole tensors, however they are laid out over the ranks. All ranks have to call it."""
    whole = {}
    for name, value in state.items():
        value = value.full_tensor() if isinstance(value, DTensor) else value
        whole[name] = value.detach().clone().contiguous()
    return whole


def expect(directory, name, tensors):
    """Only what one rank wrote is kept; the others wait until it is there."""
    if dist.get_rank() == 0:
        torch.save(tensors, directory / f"{name}.expected")
    dist.barrier()


def of_every_type(mesh):
    """Tensors of all element types and odd shapes, split by rows, or whole on every rank."""
    shard, replicate = [Shard(0)], [Replicate()]
    generator = torch.Generator().manual_seed(1)

    def numbers(*shape):
        return torch.randn(*shape, generator=generator)

    state = {
        "rows.seven": distribute_tensor(numbers(7, 5), mesh, shard),
        "rows.thirteen": distribute_tensor(numbers(13, 2, 3).bfloat16(), mesh, shard),
        "rows.one": distribute_tensor(numbers(1, 9).half(), mesh, shard),
        "rows.two": distribute_tensor(torch.arange(2), mesh, shard),
        "columns": distribute_tensor(numbers(4, 9), mesh, [Shard(1)]),
        "middle": distribute_tensor(numbers(3, 7, 2), mesh, [Shard(1)]),
        "empty.rows": distribute_tensor(torch.zeros(0, 3), mesh, shard),
        "empty.columns": distribute_tensor(torch.zeros(3, 0), mesh, shard),
        "replicated": distribute_tensor(numbers(3, 3).double(), mesh, replicate),
        "scalar": torch.tensor(3.5),
        "scalar.integer": torch.tensor(2**40 + 1),
        "flags": distribute_tensor(numbers(9) > 0, mesh, shard),
        "flag": torch.tensor(True),
        "transposed": numbers(4, 6).t(),
        "view": numbers(20)[3:11],
        "strided": numbers(6, 6)[::2, 1::2],
    }
    for kind in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.uint64):
        state[f"integers.{str(kind).removeprefix('torch.')}"] = torch.arange(5).to(kind)
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64):
        state[f"numbers.{str(kind).removeprefix('torch.')}"] = numbers(5).to(kind)
    return state


def save_every_type(directory, mesh):
    state = of_every_type(mesh)
    dcp.save(state, checkpoint_id=directory / "bare")
    expect(directory, "bare", full(state))
    optimizer = {"state": {name: {"step": torch.tensor(2.0), "exp_avg": value} for name, value in state.items()},
                 "param_groups": [{"lr": 0.1, "params": list(state)}]}
    dcp.save({"model": state, "optimizer": optimizer, "epoch": 3}, checkpoint_id=directory / "nested",
             storage_writer=FileSystemWriter(directory / "nested", thread_count=2))
    expect(directory, "nested", full(state))
    state = {name: value.contiguous() for name, value in state.items()}
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(str(directory / "hf"), save_distributed=True))
    expect(directory, "hf", full(state))


def accelerator():
    rank, world = dist.get_rank(), dist.get_world_size()
    return SimpleNamespace(process_index=rank, num_processes=world, is_main_process=rank == 0)


def plugin(version, kind):
    from accelerate.utils import FullyShardedDataParallelPlugin

    return FullyShardedDataParallelPlugin(fsdp_version=version, state_dict_type=kind)


def llama(tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=67, hidden_size=24, intermediate_size=27, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied)
    return LlamaForCausalLM(config)


def save_fsdp2(directory, mesh):
    """What the Trainer's SHARDED_STATE_DICT leaves in a checkpoint, and the same without DCP."""
    from accelerate.utils import save_fsdp_model, save_fsdp_optimizer

    for name, tied in (("checkpoint-7", True), ("checkpoint-8", False)):
        model = llama(tied)
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer = torch.optim.AdamW(model.parameters())
        ids = torch.arange(12).reshape(2, 6)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        sharded = plugin(2, "SHARDED_STATE_DICT")
        save_fsdp_model(sharded, accelerator(), model, directory / name)
        save_fsdp_optimizer(sharded, accelerator(), optimizer, model, directory / name)
        if not tied:
            save_fsdp_model(sharded, accelerator(), model, directory / "ranks", use_dcp=False)
            save_fsdp_model(plugin(2, "FULL_STATE_DICT"), accelerator(), model, directory / "whole")
        tensors = full(model.state_dict())
        expect(directory, name, tensors)
        if not tied:
            expect(directory, "ranks", tensors)
            expect(directory, "whole", tensors)


def save_fsdp1(directory):
    """The first FSDP: flat parameters, which SHARDED and LOCAL write as ShardedTensors; and the former as verl does."""
    from accelerate.utils import save_fsdp_model

    torch.manual_seed(4)
    whole = Odd()
    expected = full(whole.state_dict())
    model = FullyShardedDataParallel(whole, device_id=torch.device("cpu"), use_orig_params=True)
    for name, kind in (("fsdp1", "SHARDED_STATE_DICT"), ("local", "LOCAL_STATE_DICT")):
        save_fsdp_model(plugin(1, kind), accelerator(), model, directory / name)
        expect(directory, name, expected)
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.SHARDED_STATE_DICT, ShardedStateDictConfig()):
        save_as_verl(directory, "shards", model.state_dict())
    expect(directory, "shards", expected)


def save_transformers(directory):
    """transformers' own sharded save, of a model that it shards while it loads it."""
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    whole = llama(True)
    if dist.get_rank() == 0:
        whole.save_pretrained(directory / "source")
    dist.barrier()
    config = DistributedConfig(fsdp_size=dist.get_world_size())
    model = AutoModelForCausalLM.from_pretrained(directory / "source", distributed_config=config)
    model.save_pretrained(directory / "transformers", distributed_checkpoint=True)
    expect(directory, "transformers", full(whole.state_dict()))


def save_adapter(directory, mesh):
    from accelerate.utils import save_fsdp_model
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    model = get_peft_model(llama(False), LoraConfig(r=3, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    fully_shard(model, mesh=mesh)
    for name, kind in (("adapter", "SHARDED_STATE_DICT"), ("adapter-whole", "FULL_STATE_DICT")):
        save_fsdp_model(plugin(2, kind), accelerator(), model, directory / name, adapter_only=True)
        expect(directory, name, full(get_peft_model_state_dict(model)))


def save_as_verl(directory, name, state):
    (directory / name).mkdir(exist_ok=True)
    torch.save(state, directory / name / f"model_world_size_{dist.get_world_size()}_rank_{dist.get_rank()}.pt")


def save_boxes(directory):
    """Tensor parallel inside, FSDP outside: boxes in two dimensions, and rows that are dealt out twice."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(10, 14, bias=True), nn.Linear(14, 6), nn.LayerNorm(6))
    parallelize_module(model, mesh["tp"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
    fully_shard(model, mesh=mesh["dp"])
    state = model.state_dict()
    dcp.save({"model": state}, checkpoint_id=directory / "boxes")
    save_as_verl(directory, "boxes-ranks", state)
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(str(directory / "boxes-hf"), save_distributed=True))
    for name in ("boxes", "boxes-ranks", "boxes-hf"):
        expect(directory, name, full(state))
    save_placements(directory, mesh)


def save_placements(directory, mesh):
    """What DTensors can say of two dimensions of ranks, for sizes that divide and for those that do not."""
    placements = {"strided": [_StridedShard(0, split_factor=2), Shard(0)], "twice": [Shard(0), Shard(0)],
                  "both": [Shard(1), Shard(0)], "replicas": [Replicate(), Shard(0)], "columns": [Shard(1), Replicate()],
                  "whole": [Replicate(), Replicate()]}
    torch.manual_seed(6)
    state = {f"{name}.{rows}": distribute_tensor(torch.randn(rows, 7), mesh, placement, src_data_rank=None)
             for name, placement in placements.items() for rows in (1, 5, 8, 13)}
    save_as_verl(directory, "placements", state)
    expect(directory, "placements", full(state))


def run_rank(rank, world, directory, meeting):
    os.fsync = lambda file: None  # what is written is looked at, not how safe it is
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    save_every_type(directory, mesh)
    if world <= 4:
        from accelerate import PartialState

        PartialState(cpu=True)
        save_fsdp2(directory, mesh)
        save_fsdp1(directory)
        save_adapter(directory, mesh)
    if world == 3:
        save_transformers(directory)
    if world == 4:
        save_boxes(directory)
    dist.destroy_process_group()


def save(directory, world):
    """Makes the checkpoints in `directory`, which is made. The ranks are forked, so that torch is loaded once."""
    directory = Path(directory)
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as meeting:
        context = torch.multiprocessing.get_context("fork")
        arguments = [(rank, world, directory, f"{meeting}/file") for rank in range(world)]
        ranks = [context.Process(target=run_rank, args=argument, daemon=True) for argument in arguments]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(RANKS_DEADLINE)
            if rank.exitcode != 0:
                for other in ranks:
                    other.kill()
                raise AssertionError(f"a rank of {world} ended with {rank.exitcode}")


if __name__ == "__main__":
    import sys

    save(sys.argv[1], int(sys.argv[2]))
