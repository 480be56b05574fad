# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of torch.distributed.checkpoint and FSDP: `ckptfs assemble --plain` against the libraries.

The judge is the live model's full tensors, accelerate's merge_fsdp_weights and from_pretrained.
"""

import logging
import os
import pickle
import random
import re
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

import dcp_saves
import saved
import tool
from tool import assemble, inspect

logging.disable(logging.INFO)  # DCP tells of each of its steps

# What each number of ranks saves, besides LOCAL_STATE_DICT.
EVERY_TYPE = ["bare", "nested", "hf"]
MODELS = ["checkpoint-7", "checkpoint-8", "fsdp1", "shards", "ranks", "whole", "adapter", "adapter-whole"]
MESHES = ["boxes", "boxes-ranks", "boxes-hf", "placements"]
KINDS = [(world, kind) for world in (1, 2, 3, 4) for kind in EVERY_TYPE + MODELS]
KINDS += [(3, "transformers")] + [(8, kind) for kind in EVERY_TYPE] + [(4, kind) for kind in MESHES]
TIED = {"lm_head.weight": "model.embed_tokens.weight"}


@pytest.fixture(scope="session")
def saves(tmp_path_factory):
    """A function from the number of ranks to the directory of what they saved, which is made once."""
    root = tmp_path_factory.mktemp("saves")
    return lambda world: saved.distributed(world, root)


@pytest.fixture
def copy(saves, tmp_path):
    """A function that gives a copy of a checkpoint, to be damaged."""

    def make(world, kind):
        shutil.rmtree(tmp_path / kind, ignore_errors=True)
        return Path(shutil.copytree(saves(world) / kind, tmp_path / kind))

    return make


def refuse(source, output, *words):
    """It is refused, with a line that has all the words."""
    said = tool.refuse(source, output)
    assert [line for line in said.splitlines() if all(word in line for word in words)], (words, said)


def same(one, other):
    """The same type, shape and bits: NaN is NaN."""
    as_bytes = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*as_bytes)


def compare(found, expected):
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if not same(found[name], expected[name])] == []


def untied(tensors):
    """Without what has the bytes of another that it is tied to."""
    return {name: tensor for name, tensor in tensors.items()
            if TIED.get(name) not in tensors or not same(tensor, tensors[TIED[name]])}


def model_file(output):
    files = sorted(path.name for path in output.glob("*.safetensors"))
    assert len(files) == 1, files
    return output / files[0]


# -- equal -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world,kind", KINDS)
def test_every_tensor_is_the_live_models(saves, tmp_path, world, kind):
    directory = saves(world)
    assemble(directory / kind, tmp_path / "out")
    file = model_file(tmp_path / "out")
    assert file.name == ("adapter_model.safetensors" if kind.startswith("adapter") else "model.safetensors")
    compare(load_file(file), untied(torch.load(directory / f"{kind}.expected")))
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["format"] == "pt"


@pytest.mark.parametrize("kind", ["bare", "fsdp1", "adapter", "checkpoint-7", "checkpoint-8"])
def test_as_accelerate_merges_it(saves, tmp_path, kind):
    from accelerate.utils import merge_fsdp_weights

    source = saves(3) / kind
    inside = source / "pytorch_model_fsdp_0"
    merge_fsdp_weights(str(inside if inside.exists() else source), str(tmp_path / "merged"))
    assemble(source, tmp_path / "out")
    merged = load_file(tmp_path / "merged/model.safetensors")
    compare(load_file(model_file(tmp_path / "out")), untied(merged))
    # The directory of the shards themselves is as good.
    if inside.exists():
        assemble(inside, tmp_path / "inside")
        compare(load_file(model_file(tmp_path / "inside")), untied(merged))


@pytest.mark.parametrize("kind,tied", [("checkpoint-7", True), ("checkpoint-8", False)])
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_from_pretrained_loads_it(saves, copy, tmp_path, kind, tied, form):
    from transformers import AutoModelForCausalLM

    source = copy(2, kind)
    dcp_saves.llama(tied).config.save_pretrained(source)
    assemble(source, tmp_path / "out", "--format", form)
    model, told = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(told.values()), told
    compare(model.state_dict(), torch.load(saves(2) / f"{kind}.expected"))


def test_an_output_layer_that_a_config_calls_its_own_is_kept(saves, copy, tmp_path):
    source = copy(2, "checkpoint-7")
    dcp_saves.llama(False).config.save_pretrained(source)
    assemble(source, tmp_path / "out")
    compare(load_file(model_file(tmp_path / "out")), torch.load(saves(2) / "checkpoint-7.expected"))


@pytest.mark.parametrize("kind", ["adapter", "adapter-whole"])
def test_peft_loads_the_adapter(saves, tmp_path, kind):
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    assemble(saves(2) / kind, tmp_path / "out")
    model = get_peft_model(dcp_saves.llama(False), LoraConfig(r=3, target_modules=["q_proj", "v_proj"]))
    told = set_peft_model_state_dict(model, load_peft_weights(str(tmp_path / "out"), device="cpu"))
    assert not told.unexpected_keys
    compare(get_peft_model_state_dict(model), torch.load(saves(2) / "adapter.expected"))


# -- what it is --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind,framework", [
    ("bare", "dcp"), ("checkpoint-7", "fsdp-sharded"), ("fsdp1", "fsdp-sharded"), ("hf", "dcp-huggingface"),
    ("ranks", "fsdp-ranks"), ("shards", "verl"), ("whole", "fsdp-full"), ("local", "fsdp-ranks")])
@pytest.mark.parametrize("world", [2, 3])
def test_it_is_recognised(saves, world, kind, framework):
    told = inspect(saves(world) / kind)
    assert told["framework"] == framework
    if kind not in ("whole", "local"):
        assert told["world_size"] == world


def test_rows_are_copied_and_only_the_header_is_new(saves, tmp_path):
    for kind in ("checkpoint-7", "fsdp1", "ranks", "whole"):
        _, done = assemble(saves(4) / kind, tmp_path / kind)
        file = model_file(tmp_path / kind)
        with file.open("rb") as opened:
            header = 8 + int.from_bytes(opened.read(8), "little")
        made = re.search(r"([\d.]+) (bytes|KiB) made anew", done.stdout)
        size = float(made[1]) * (1024 if made[2] == "KiB" else 1)
        assert abs(size - header) < 64, (kind, header, done.stdout)


def save_alone(directory, state):
    """What one process saves, without a group."""
    torch.distributed.checkpoint.save(state, checkpoint_id=directory, no_dist=True)


def test_where_the_model_is_in_nested_dictionaries(tmp_path):
    plain = {"layers.0.weight": torch.randn(3, 4), "layers.0.bias": torch.randn(3), "model.norm": torch.randn(2)}
    weights = {**plain, "optimizer.learned": torch.randn(2)}
    layers = {"0": {"weight": weights["layers.0.weight"], "bias": weights["layers.0.bias"]}}
    other = {"state": {"layers.0.weight": {"exp_avg": torch.zeros(3, 4)}}, "param_groups": [{"lr": 0.1}]}
    states = {
        "app": ({"app": {"model": weights, "optim": other}}, weights),
        "both": ({"model": weights, "optimizer": other, "lr_scheduler": {"last": torch.tensor(3)}}, weights),
        "beside": ({**plain, "optimizer": other, "train_state": {"step": torch.tensor(5)}}, plain),
        "second": ({"model": weights, "ema_model": weights, "scheduler": {"last": torch.tensor(3)}}, weights),
        "lightning": ({"state_dict": weights, "optimizer_states": [other], "epoch": 3}, weights),
        "alone": ({"model": {"layers": layers, "model": {"norm": plain["model.norm"]},
                             "optimizer": {"learned": weights["optimizer.learned"]}}}, weights),
    }
    for name, (state, expected) in states.items():
        save_alone(tmp_path / name, state)
        told = [note["text"] for note in inspect(tmp_path / name)["notes"]]
        assert any("left out" in text for text in told) == (name != "alone"), (name, told)
        assemble(tmp_path / name, tmp_path / f"{name}-out")
        compare(load_file(model_file(tmp_path / f"{name}-out")), expected)


def test_whose_names_they_are_is_told(tmp_path):
    save_alone(tmp_path / "titan", {"tok_embeddings.weight": torch.randn(5, 2), "optimizer": {"x": torch.zeros(1)}})
    save_alone(tmp_path / "megatron", {"decoder.layers.mlp.linear_fc1.weight": torch.randn(2, 6, 3),
                                       "optimizer.state.exp_avg.decoder.layers.mlp.linear_fc1.weight": torch.zeros(2)})
    torch.save({"args": None}, tmp_path / "megatron/common.pt")
    for name, framework, tensors in (("titan", "torchtitan", 1), ("megatron", "megatron-torch-dist", 1)):
        told = inspect(tmp_path / name)
        assert (told["framework"], told["tensor_count"], told["whole"]) == (framework, tensors, True)
        assert any("names" in note["text"] for note in told["notes"])


def test_a_lightning_file_is_recognised(tmp_path):
    weights = {"model.layer.weight": torch.randn(3, 2), "loss.scale": torch.tensor(1.5)}
    (tmp_path / "run").mkdir()
    torch.save({"epoch": 1, "pytorch-lightning_version": "2.5.0", "state_dict": weights, "optimizer_states": [{}],
                "hyper_parameters": {"path": Path("x")}}, tmp_path / "run/epoch=1-step=10.ckpt")
    assert inspect(tmp_path / "run")["framework"] == "lightning"
    assemble(tmp_path / "run", tmp_path / "out")
    compare(load_file(model_file(tmp_path / "out")), weights)


def test_what_is_tied(tmp_path):
    """Names that are tied in some model, and the same bytes; else both are kept."""
    shared, bias = torch.randn(7, 3), torch.randn(7)
    other = shared.clone()
    other[6, 2] += 1
    cases = {
        "t5": ({"shared.weight": shared, "encoder.embed_tokens.weight": shared, "decoder.embed_tokens.weight": shared,
                "lm_head.weight": shared}, {"shared.weight"}),
        "gpt2": ({"lm_head.weight": shared, "transformer.wte.weight": shared}, {"transformer.wte.weight"}),
        "bert": ({"bert.embeddings.word_embeddings.weight": shared, "cls.predictions.decoder.weight": shared,
                  "cls.predictions.bias": bias, "cls.predictions.decoder.bias": bias},
                 {"bert.embeddings.word_embeddings.weight", "cls.predictions.bias"}),
        "one element": ({"model.embed_tokens.weight": shared, "lm_head.weight": other},
                        {"model.embed_tokens.weight", "lm_head.weight"}),
        "other type": ({"model.embed_tokens.weight": shared, "lm_head.weight": shared.half()},
                       {"model.embed_tokens.weight", "lm_head.weight"}),
        "layers": ({"layers.0.weight": shared, "layers.1.weight": shared}, {"layers.0.weight", "layers.1.weight"}),
    }
    for name, (state, kept) in cases.items():
        save_alone(tmp_path / name, {"model": {key: tensor.clone() for key, tensor in state.items()}})
        assemble(tmp_path / name, tmp_path / f"{name}-out")
        compare(load_file(model_file(tmp_path / f"{name}-out")), {key: state[key] for key in kept})


def test_flat_parameters_are_refused(saves, tmp_path):
    refuse(saves(2) / "local", tmp_path / "out", "LOCAL_STATE_DICT", "shapes")


def test_an_optimizer_is_no_model(saves, tmp_path):
    refuse(saves(2) / "checkpoint-7/optimizer_0", tmp_path / "out", "no model")


def test_files_of_an_earlier_save_are_told(copy, tmp_path):
    source = copy(2, "checkpoint-7") / "pytorch_model_fsdp_0"
    shutil.copy(source / "__1_0.distcp", source / "__5_0.distcp")
    (source / "__6_0.distcp").touch()
    assert any("__5_0.distcp" in note["text"] for note in inspect(source)["notes"])
    assemble(source, tmp_path / "out")


def test_a_second_model_is_told(saves, copy, tmp_path):
    source = copy(2, "checkpoint-7")
    shutil.copytree(saves(2) / "fsdp1/pytorch_model_fsdp_0", source / "pytorch_model_fsdp_1")
    told = inspect(source)
    assert told["tensor_count"] == 21 and any("pytorch_model_fsdp_1" in note["text"] for note in told["notes"])
    assemble(source / "pytorch_model_fsdp_1", tmp_path / "out")
    compare(load_file(model_file(tmp_path / "out")), torch.load(saves(2) / "fsdp1.expected"))


# -- damaged -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind,file", [
    ("bare", "__1_0.distcp"), ("checkpoint-7", "pytorch_model_fsdp_0/__0_0.distcp"), ("bare", ".metadata"),
    ("checkpoint-7", "pytorch_model_fsdp_0/.metadata"), ("ranks", "pytorch_model_fsdp_0_rank1.bin"),
    ("ranks", "pytorch_model_fsdp_0_rank2.bin"), ("hf", "shard-00002-model-00001-of-00001.safetensors"),
    ("shards", "model_world_size_3_rank_0.pt")])
def test_a_missing_file_is_named(copy, tmp_path, kind, file):
    source = copy(3, kind)
    (source / file).unlink()
    words = {"ranks": "ranks" if "rank2" in file else "rank", "hf": "shard 00002", "shards": "ranks"}
    refuse(source, tmp_path / "out", words.get(kind, file.rpartition("/")[2]))


def test_a_last_shard_that_is_missing_is_noticed(copy, tmp_path):
    source = copy(3, "hf")
    (source / "shard-00003-model-00001-of-00001.safetensors").unlink()
    for rank in range(3):
        (source / f"rng_state_{rank}.pth").touch()
    refuse(source, tmp_path / "out", "3 processes", "2 shards")


def test_a_short_file_is_refused(copy, tmp_path):
    source = copy(2, "bare")
    size = (source / "__0_0.distcp").stat().st_size
    for left in (0, 1, size // 2, size - 1):
        os.truncate(source / "__0_0.distcp", left)
        refuse(source, tmp_path / "out", "__0_0.distcp", "rows.seven" if left < 1000 else "__0_0")


def read_metadata(source):
    with (source / ".metadata").open("rb") as file:
        return pickle.load(file)


def write_metadata(source, metadata):
    with (source / ".metadata").open("wb") as file:
        pickle.dump(metadata, file)


def first_place(metadata):
    return next(iter(metadata.storage_data.values()))


def other_file(metadata):
    first_place(metadata).relative_path = "../bare/__0_0.distcp"


def far_offset(metadata):
    first_place(metadata).offset = 2**63 - 1


def large_length(metadata):
    first_place(metadata).length = 2**63 - 1


def larger_than_64_bits(metadata):
    first_place(metadata).offset = 2**64


def negative(metadata):
    first_place(metadata).offset = -1


def wrong_place(metadata):
    first_place(metadata).offset += 1


def another_tensors_place(metadata):
    places = list(metadata.storage_data.values())
    places[0].offset = places[1].offset


def encoded(metadata):
    first_place(metadata).transform_descriptors = ["zstd"]


def overlap(metadata):
    metadata.state_dict_metadata["rows.seven"].chunks.append(
        ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([3, 5])))


def outside(metadata):
    metadata.state_dict_metadata["rows.seven"].chunks[0].sizes = torch.Size([8, 5])


def hole(metadata):
    del metadata.state_dict_metadata["rows.seven"].chunks[0]


def larger(metadata):
    metadata.state_dict_metadata["rows.seven"].size = torch.Size([2**62, 5])


def other_type(metadata):
    metadata.state_dict_metadata["rows.seven"].properties.dtype = torch.int32


def unknown_type(metadata):
    metadata.state_dict_metadata["rows.seven"].properties.dtype = torch.quint8


def other_rank(metadata):
    metadata.state_dict_metadata["rows.seven"].chunks[0].sizes = torch.Size([4])


def no_place(metadata):
    del metadata.storage_data[next(index for index in metadata.storage_data if index.fqn == "rows.seven")]


def no_storage(metadata):
    metadata.storage_data = None


def one_name_twice(metadata):
    metadata.planner_data["rows.seven"] = ("rows.one",)


@pytest.mark.parametrize("change", [
    other_file, far_offset, large_length, larger_than_64_bits, negative, wrong_place, another_tensors_place, encoded,
    overlap, outside, hole, larger, other_type, unknown_type, other_rank, no_place, no_storage, one_name_twice])
def test_metadata_that_lies_is_refused(copy, tmp_path, change):
    source = copy(2, "bare")
    metadata = read_metadata(source)
    change(metadata)
    write_metadata(source, metadata)
    word = {no_storage: ".metadata", one_name_twice: "rows.one", other_file: ".metadata"}
    refuse(source, tmp_path / "out", word.get(change, "rows.seven"))


def test_older_metadata_is_read(saves, copy, tmp_path):
    """Without what newer versions added, and with a place that does not say where it starts."""
    source = copy(2, "bare")
    metadata = read_metadata(source)
    for item in (metadata, metadata.storage_meta):
        for name in ("version", "modules"):
            item.__dict__.pop(name, None)
    for index, place in list(metadata.storage_data.items()):
        del metadata.storage_data[index]
        place.__dict__.pop("transform_descriptors", None)
        if index.fqn == "replicated":
            index = MetadataIndex(index.fqn)
        metadata.storage_data[index] = place
    metadata.planner_data = None
    write_metadata(source, metadata)
    assemble(source, tmp_path / "out")
    compare(load_file(model_file(tmp_path / "out")), torch.load(saves(2) / "bare.expected"))


def test_what_every_rank_saved_is_taken_once(saves, copy, tmp_path):
    """As savers do that do not look for replicas: the same part is listed again."""
    source = copy(2, "bare")
    metadata = read_metadata(source)
    for item in metadata.state_dict_metadata.values():
        item.chunks.append(item.chunks[0])
    write_metadata(source, metadata)
    assemble(source, tmp_path / "out")
    compare(load_file(model_file(tmp_path / "out")), torch.load(saves(2) / "bare.expected"))


@pytest.mark.parametrize("kind,file", [("bare", ".metadata"), ("bare", "__0_0.distcp"),
                                       ("ranks", "pytorch_model_fsdp_0_rank0.bin")])
def test_damaged_bytes_end_in_a_line(copy, tmp_path, kind, file):
    """Truncated, and with bytes changed, at places that are drawn anew each time."""
    source = copy(2, kind)
    content = (source / file).read_bytes()
    seed = random.randrange(10**6)
    print("seed", seed)
    generator = random.Random(seed)
    for attempt in range(40):
        damaged = bytearray(content)
        if attempt % 2:
            del damaged[generator.randrange(len(content)):]
        else:
            for _ in range(generator.randrange(1, 4)):
                damaged[generator.randrange(len(content))] = generator.randrange(256)
        (source / file).write_bytes(damaged)
        done = tool.run("assemble", "--plain", source, "-o", tmp_path / "out", "--force")
        assert done.returncode in (0, 1), done
        assert done.returncode == 0 or done.stderr.strip()
