# SPDX-License-Identifier: Apache-2.0
"""Quantized models, whose tensors are what a library makes of them: they pass through as they are, and load."""

import json
import os
import struct
import subprocess
import time

import pytest
import torch
from torchao.quantization import Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TorchAoConfig

VIEW_DEADLINE = 60
TOKENS = torch.arange(8)[None]
METHODS = {
    "torchao": TorchAoConfig(Int8WeightOnlyConfig(version=2)),
    "bitsandbytes-4bit": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "bitsandbytes-8bit": BitsAndBytesConfig(load_in_8bit=True),
}


def load(directory, **options):
    return AutoModelForCausalLM.from_pretrained(directory, device_map="cpu", **options)


def answer(model):
    with torch.no_grad():
        return model(TOKENS).logits


def read(file):
    """A safetensors file's entries and their bytes. torchao's metadata has another order in each file."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.manual_seed(1)
    directory = tmp_path_factory.mktemp("base")
    config = LlamaConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, vocab_size=500)
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module", params=METHODS)
def saved(request, base, sides):
    """The method's name, what the model says to TOKENS, and the model saved on both sides, in one file and in shards."""
    model = load(base, quantization_config=METHODS[request.param], dtype=torch.bfloat16)
    for root in sides:
        model.save_pretrained(root / request.param)
        model.save_pretrained(root / f"{request.param}-sharded", max_shard_size="100KB")
    return request.param, answer(model)


@pytest.mark.parametrize("suffix", ["", "-sharded"])
def test_is_saved_as_on_the_plain_disk(sides, saved, suffix):
    plain, mount = (root / f"{saved[0]}{suffix}" for root in sides)
    assert sorted(os.listdir(plain)) == sorted(os.listdir(mount))
    for name in os.listdir(plain):
        same = read if name.endswith(".safetensors") else type(plain).read_bytes
        assert same(plain / name) == same(mount / name), name


@pytest.mark.parametrize("suffix", ["", "-sharded"])
def test_loads_from_the_mount(sides, saved, suffix):
    method, expected = saved
    assert torch.equal(answer(load(sides.mount / f"{method}{suffix}")), expected)


@pytest.mark.parametrize("suffix", ["", "-sharded"])
def test_loads_as_one_file(sides, saved, suffix, tmp_path):
    """Shards that were joined keep what the library wrote into each one's metadata."""
    method, expected = saved
    source = sides.mount / f"{method}{suffix}"
    subprocess.run([os.environ["CKPTFS"], "assemble", source, "-o", tmp_path / "one"], check=True, capture_output=True)
    assert [name for name in os.listdir(tmp_path / "one") if name.endswith(".safetensors")] == ["model.safetensors"]
    assert torch.equal(answer(load(tmp_path / "one")), expected)


@pytest.mark.parametrize("suffix", ["", "-sharded"])
def test_loads_from_the_view(sides, saved, suffix):
    method, expected = saved
    mount = os.environ.get("CKPTFS_TEST_MOUNTPOINT", "")
    if not os.path.exists(f"{mount}/.ckptfs"):
        pytest.skip("a plain disk has no view")
    view = f"{mount}/.ckptfs/models/{os.path.relpath(sides.mount, mount)}/{method}{suffix}"
    deadline = time.monotonic() + VIEW_DEADLINE
    while not os.path.exists(f"{view}/model.safetensors"):
        assert time.monotonic() < deadline, "nothing was assembled"
        time.sleep(0.05)
    assert torch.equal(answer(load(view)), expected)
