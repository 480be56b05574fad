#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""templated.py CKPTFS RUN VIEW BASE: a model trained from BASE on two ranks of FSDP, saved as SHARDED_STATE_DICT into
RUN/checkpoint-1 without a configuration; with BASE as the run's template the directory's view is loaded whole."""

import os
import subprocess
import sys
import tempfile
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

RANKS, DEADLINE = 2, 120
WORDS = {"[UNK]": 0, "a": 1, "shard": 2, "becomes": 3, "model": 4}


def make_base(directory):
    torch.manual_seed(1)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4, vocab_size=len(WORDS)
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(directory)


def train(rank, base, run, meeting):
    dist.init_process_group("gloo", init_method=f"file://{meeting}/file", rank=rank, world_size=RANKS)
    model = AutoModelForCausalLM.from_pretrained(base)
    mesh = init_device_mesh("cpu", (RANKS,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    ids = torch.tensor([[1, 2, 3, 4]])
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    state = model.state_dict()
    dcp.save({"model": state}, checkpoint_id=os.path.join(run, "checkpoint-1", "pytorch_model_fsdp_0"))
    whole = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}
    if rank == 0:
        torch.save(whole, os.path.join(meeting, "whole.pt"))
    dist.barrier()
    dist.destroy_process_group()


def main():
    ckptfs, run, view, base = sys.argv[1:]
    make_base(base)
    os.makedirs(os.path.join(run, "checkpoint-1"), exist_ok=True)
    with tempfile.TemporaryDirectory() as meeting:
        # Forked, so that the libraries are loaded once; the test has no other threads started (OMP_NUM_THREADS).
        torch.multiprocessing.start_processes(train, (base, run, meeting), nprocs=RANKS, start_method="fork")
        expected = torch.load(os.path.join(meeting, "whole.pt"))
    deadline = time.monotonic() + DEADLINE
    while not os.path.exists(os.path.join(view, "model.safetensors")):
        assert time.monotonic() < deadline, "nothing was assembled"
        time.sleep(0.05)
    assert not os.path.exists(os.path.join(view, "config.json"))
    subprocess.run([ckptfs, "template", run, base], check=True)
    loaded = AutoModelForCausalLM.from_pretrained(view)
    found = loaded.state_dict()
    assert expected.keys() == found.keys(), expected.keys() ^ found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    start = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert any(not torch.equal(start[name], tensor) for name, tensor in found.items()), "nothing was trained"
    tokenizer = AutoTokenizer.from_pretrained(view)
    assert tokenizer("a shard becomes a model")["input_ids"] == [1, 2, 3, 1, 4], tokenizer("a shard becomes a model")


if __name__ == "__main__":
    main()
