# SPDX-License-Identifier: Apache-2.0
"""Quantized models, whose tensors are what a library makes of them: they pass through as they are, and load."""

import json
import os
import struct
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
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


def view_of(sides, name):
    """The directory's view, when its model is there."""
    mount = os.environ.get("CKPTFS_TEST_MOUNTPOINT", "")
    if not os.path.exists(f"{mount}/.ckptfs"):
        pytest.skip("a plain disk has no view")
    view = Path(f"{mount}/.ckptfs/models/{os.path.relpath(sides.mount, mount)}/{name}")
    deadline = time.monotonic() + VIEW_DEADLINE
    while not os.path.exists(view / "model.safetensors"):
        assert time.monotonic() < deadline, "nothing was assembled"
        time.sleep(0.05)
    return view


@pytest.mark.parametrize("suffix", ["", "-sharded"])
def test_loads_from_the_view(sides, saved, suffix):
    method, expected = saved
    assert torch.equal(answer(load(view_of(sides, f"{method}{suffix}"))), expected)


# -- GPTQ, whose packages need a GPU or an older transformers: its layout of files and tensors ------------------------

BITS, GROUP = 4, 32
QUANTIZER = {"bits": BITS, "group_size": GROUP, "damp_percent": 0.01, "desc_act": False, "sym": True}


def pack(values, dim):
    """Eight numbers of four bits in each int32, along the dimension."""
    parts = values.to(torch.int32).unfold(dim, 8, 8)
    return (parts << (torch.arange(8, dtype=torch.int32) * BITS)).sum(-1, dtype=torch.int32)


def unpack(packed, dim):
    parts = packed.unsqueeze(dim + 1) >> (torch.arange(8, dtype=torch.int32) * BITS).reshape(-1, *[1] * (1 - dim))
    return (parts & 15).flatten(dim, dim + 1)


def gptq_layer(rows, columns):
    groups = rows // GROUP
    weight, zero = torch.randint(0, 16, (rows, columns)), torch.randint(0, 16, (groups, columns))
    return {
        "qweight": pack(weight, 0),
        "qzeros": pack(zero, 1),
        "scales": torch.rand(groups, columns, dtype=torch.float16),
        "g_idx": torch.arange(rows, dtype=torch.int32) // GROUP,
    }


def gptq_weight(layer):
    group = layer["g_idx"].long()
    return layer["scales"][group] * (unpack(layer["qweight"], 0) - unpack(layer["qzeros"], 1)[group])


@pytest.fixture(scope="module")
def gptq(sides):
    """The tensors, saved on both sides in one file and in shards, as save_quantized does it."""
    torch.manual_seed(2)
    layers = {f"model.layers.{i}.mlp.{part}": gptq_layer(*shape)
              for i in range(2) for part, shape in (("up_proj", (64, 96)), ("down_proj", (96, 64)))}
    tensors = {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.items()}
    config = {"model_type": "llama", "quantization_config": {"quant_method": "gptq", **QUANTIZER}}
    metadata = {"format": "pt", "bits": str(BITS), "group_size": str(GROUP)}
    shards = [dict(list(tensors.items())[:7]), dict(list(tensors.items())[7:])]
    for root in sides:
        for name in ("gptq", "gptq-sharded"):
            (root / name).mkdir()
            (root / name / "config.json").write_text(json.dumps(config))
            (root / name / "quantize_config.json").write_text(json.dumps(QUANTIZER))
        save_file(tensors, root / "gptq" / "model.safetensors", metadata)
        names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        for name, shard in zip(names, shards):
            save_file(shard, root / "gptq-sharded" / name, metadata)
        weights = {key: name for name, shard in zip(names, shards) for key in shard}
        index = {"metadata": {"total_size": 0}, "weight_map": weights}
        (root / "gptq-sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    return tensors


def gptq_weights(file):
    tensors = load_file(file)
    layers = {name.rpartition(".")[0] for name in tensors}
    return {layer: gptq_weight({key: tensors[f"{layer}.{key}"] for key in ("qweight", "qzeros", "scales", "g_idx")})
            for layer in layers}


@pytest.mark.parametrize("name", ["gptq", "gptq-sharded"])
def test_gptq_is_saved_as_on_the_plain_disk(sides, gptq, name):
    for file in os.listdir(sides.plain / name):
        same = read if file.endswith(".safetensors") else Path.read_bytes
        assert same(sides.plain / name / file) == same(sides.mount / name / file), file


@pytest.mark.parametrize("name", ["gptq", "gptq-sharded"])
def test_gptq_is_shown_as_it_is(sides, gptq, name):
    view = view_of(sides, name)
    assert sorted(os.listdir(view)) == ["config.json", "model.safetensors", "quantize_config.json"]
    assert (view / "quantize_config.json").read_bytes() == (sides.plain / name / "quantize_config.json").read_bytes()
    whole = sides.mount / "gptq" / "model.safetensors"
    assert read(view / "model.safetensors") == read(whole)
    if name == "gptq":
        assert (view / "model.safetensors").read_bytes() == whole.read_bytes()
    expected, found = gptq_weights(whole), gptq_weights(view / "model.safetensors")
    assert expected.keys() == found.keys() and len(found) == 4
    assert all(torch.equal(expected[key], found[key]) for key in expected)
