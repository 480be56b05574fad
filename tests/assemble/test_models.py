# SPDX-License-Identifier: Apache-2.0
"""Models that the libraries saved: assembled, loaded again by the same libraries, compared bit by bit."""

import copy
import filecmp
import json
import shutil
import zipfile

import peft
import pytest
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tool import assemble, inspect, refuse, run

LLAMA = dict(vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4)
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "llama-bf16": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)).to(torch.bfloat16),
    "tied": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=32, n_embd=64, n_layer=2, n_head=4)),
    "bert": lambda: BertForMaskedLM(BertConfig(vocab_size=300, hidden_size=64, num_hidden_layers=2,
                                               num_attention_heads=4, intermediate_size=128)),
}


@pytest.fixture(scope="module", params=MODELS)
def saved(request, tmp_path_factory):
    """A model, and the directories that it was saved to: in one file, in shards, by torch.save."""
    torch.manual_seed(7)
    root = tmp_path_factory.mktemp(request.param)
    model = MODELS[request.param]().eval()
    model.save_pretrained(root / "one")
    model.save_pretrained(root / "shards", max_shard_size="100KB")
    shutil.copytree(root / "one", root / "bin", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(model.state_dict(), root / "bin/pytorch_model.bin")
    return model, root


def expect_loads(model, directory):
    """from_pretrained gives the model again."""
    loaded, info = type(model).from_pretrained(directory, dtype="auto", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    ours, wanted = loaded.state_dict(), model.state_dict()
    assert ours.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("form", ["shards", "bin", "one"])
def test_one_file_is_what_save_pretrained_writes(saved, tmp_path, form):
    model, root = saved
    output, _ = assemble(root / form, tmp_path / "out")
    assert filecmp.cmp(output / "model.safetensors", root / "one/model.safetensors", shallow=False)
    expect_loads(model, output)


def test_shards_are_what_save_pretrained_writes(saved, tmp_path):
    """From a file that keeps the model's order, the same shards with the same names and the same index."""
    _, root = saved
    output, _ = assemble(root / "bin", tmp_path / "out", "--max-shard-size", "100KB")
    wanted = sorted(path.name for path in (root / "shards").iterdir() if "safetensors" in path.name)
    assert len(wanted) > 3
    assert sorted(path.name for path in output.iterdir() if "safetensors" in path.name) == wanted
    index = "model.safetensors.index.json"
    for name in wanted:
        if name != index:
            assert filecmp.cmp(output / name, root / "shards" / name, shallow=False), name
    ours, theirs = (json.loads((side / index).read_text()) for side in (output, root / "shards"))
    assert ours["weight_map"] == theirs["weight_map"]
    assert ours["metadata"]["total_size"] == theirs["metadata"]["total_size"]
    assert (output / index).read_text() == json.dumps(ours, indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("size", ["30KB", "100KB", "1MB"])
def test_shards_are_split_as_the_hub_splits(saved, tmp_path, size):
    model, root = saved
    output, _ = assemble(root / "one", tmp_path / "out", "--max-shard-size", size)
    order = [entry["name"] for entry in inspect(root / "one", "--tensors")["tensors"]]
    tensors = load_file(root / "one/model.safetensors")
    split = split_torch_state_dict_into_shards({name: tensors[name] for name in order}, max_shard_size=size)
    for name, members in split.filename_to_tensors.items():
        shard = load_file(output / name)
        assert sorted(shard) == sorted(members)
        assert all(torch.equal(shard[member], tensors[member]) for member in members)
    if split.is_sharded:
        index = json.loads((output / "model.safetensors.index.json").read_text())
        assert index["weight_map"] == split.tensor_to_filename
        assert index["metadata"]["total_size"] == split.metadata["total_size"]
    expect_loads(model, output)
    again, _ = assemble(output, tmp_path / "again")
    assert filecmp.cmp(again / "model.safetensors", root / "one/model.safetensors", shallow=False)


@pytest.mark.parametrize("shards", [[], ["--max-shard-size", "100KB"]], ids=["one", "shards"])
def test_torch_format(saved, tmp_path, shards):
    model, root = saved
    output, _ = assemble(root / "bin", tmp_path / "out", "--format", "bin", *shards)
    expect_loads(model, output)
    files = sorted(output.glob("pytorch_model*.bin"))
    assert (len(files) > 1) == bool(shards)
    merged = {}
    for file in files:
        plain = torch.load(file, weights_only=True)
        mapped = torch.load(file, weights_only=True, mmap=True)
        assert all(torch.equal(plain[name], mapped[name]) for name in plain)
        assert zipfile.ZipFile(file).namelist()[0] == "archive/data.pkl"
        merged.update(plain)
    wanted = torch.load(root / "bin/pytorch_model.bin", weights_only=True)
    assert merged.keys() == wanted.keys()
    assert all(torch.equal(merged[name], wanted[name]) for name in wanted)
    if not shards:
        assert list(merged) == list(wanted)
    # What shares bytes in the one shares them in the other.
    places = [{name: tensor.data_ptr() for name, tensor in side.items()} for side in (merged, wanted)]
    assert len(set(places[0].values())) == len(set(places[1].values()))


@pytest.mark.parametrize("name", ["bf16", "fp16", "fp32"])
def test_dtype(saved, tmp_path, name):
    model, root = saved
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[name]
    output, done = assemble(root / "shards", tmp_path / "out", "--dtype", name)
    before, after = load_file(root / "one/model.safetensors"), load_file(output / "model.safetensors")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        wanted = tensor.to(dtype) if tensor.is_floating_point() else tensor
        assert after[key].dtype == wanted.dtype and torch.equal(after[key], wanted), key
    told = "config.json says" in done.stderr
    assert told == (model.dtype != dtype), done.stderr
    assert type(model).from_pretrained(output, dtype=dtype).dtype == dtype


def test_inspect(saved):
    model, root = saved
    told = inspect(root / "shards", "--tensors")
    wanted = load_file(root / "one/model.safetensors")
    assert (told["framework"], told["whole"], told["notes"]) == ("sharded", True, [])
    assert told["bytes"] == sum(tensor.nbytes for tensor in wanted.values())
    assert told["elements"] == sum(tensor.numel() for tensor in wanted.values())
    assert {entry["name"]: entry["shape"] for entry in told["tensors"]} == {
        name: list(tensor.shape) for name, tensor in wanted.items()}
    assert told["config_dtype"] == str(model.dtype).removeprefix("torch.")
    assert inspect(root / "bin")["tied_tensors"] == len(model.state_dict()) - len(wanted)


def test_inspect_for_people(saved):
    _, root = saved
    done = run("inspect", "--tensors", root / "shards")
    assert done.returncode == 0 and "(sharded)" in done.stdout and "can be" in done.stdout
    assert run("inspect", root / "one/model.safetensors").returncode == 0


def test_trainer_files(tmp_path):
    """A step and a world size, out of files that are not strict JSON."""
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "trainer_state.json").write_text(json.dumps(
        {"best_metric": float("-inf"), "global_step": 70, "log_history": [{"loss": float("nan")}]}, indent=2))
    for rank in range(11):
        (tmp_path / f"rng_state_{rank}.pth").touch()
    told = inspect(tmp_path)
    assert (told["step"], told["world_size"]) == (70, 11)


def test_step_of_a_name(tmp_path):
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    for name, step in {"checkpoint-500": 500, "global_step7": 7, "checkpoint-best": None, "checkpoint-": None}.items():
        (tmp_path / name).mkdir()
        shutil.copy(tmp_path / "model.safetensors", tmp_path / name)
        assert inspect(f"{tmp_path / name}/")["step"] == step


def test_no_copy_in_32_bits(tmp_path):
    save_file({"w": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    assert "no FP32 copy" in refuse(tmp_path, tmp_path / "out", "--fp32")


def test_metadata_is_kept(tmp_path):
    """Quantizers keep there what their tensors mean."""
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors", {"format": "pt", "w": '{"_type": "X\\"\u00e4"}'})
    output, _ = assemble(tmp_path, tmp_path / "out")
    with safe_open(output / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "w": '{"_type": "X\\"\u00e4"}'}


def test_quantized_models_are_not_cast(tmp_path):
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"dtype": "float32", "quantization_config": {"bits": 4}}')
    assert "quantized" in refuse(tmp_path, tmp_path / "out", "--dtype", "bf16")
    assemble(tmp_path, tmp_path / "out")


def test_adapter(tmp_path):
    torch.manual_seed(8)
    model = MODELS["llama"]()
    tuned = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, value in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value)
    tuned.save_pretrained(tmp_path / "adapter")
    output, _ = assemble(tmp_path / "adapter", tmp_path / "out")
    assert filecmp.cmp(output / "adapter_model.safetensors", tmp_path / "adapter/adapter_model.safetensors",
                       shallow=False)
    bins, _ = assemble(tmp_path / "adapter", tmp_path / "bin", "--format", "bin")
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), bins)
    wanted = peft.get_peft_model_state_dict(tuned)
    ours = peft.get_peft_model_state_dict(loaded)
    assert wanted.keys() == ours.keys() and all(torch.equal(ours[name], wanted[name]) for name in wanted)
