# SPDX-License-Identifier: Apache-2.0
"""DeepSpeed's checkpoints, assembled. Judges are zero_to_fp32, and the live model where that tool is wrong: it drops
what ZeRO-1 leaves out of the optimizer, and does not know BF16_Optimizer.
"""

import contextlib
import io
import os
import shutil

import pytest
import torch

import deepspeed_saves
import saved
from assembled import assemble, assert_same, header_size, refused
from deepspeed_saves import CASES, SHARED
from tool import inspect

EXPERTS = ("experts_zero0", "experts_zero2")
OTHERS = ("pipeline", "tensor_parallel", "adapter", "adapter_zero3", *EXPERTS)
ZERO = [(ranks, name) for ranks, name in deepspeed_saves.cases() if name not in OTHERS]
PARTITIONED = [(ranks, name) for ranks, name in ZERO if CASES[name]["stage"] > 0]
# What is frozen or empty has the model's type, and is cast.
ALL_FP32 = [(ranks, name) for ranks, name in PARTITIONED if not {"frozen", "empty"} & set(CASES[name])]


@pytest.fixture(scope="session")
def saves(tmp_path_factory):
    """The directory of all checkpoints, made once."""
    return saved.deepspeed(tmp_path_factory.mktemp("saves"))


def read(saves, ranks, name, what):
    return torch.load(saves / f"ranks{ranks}" / name / f"{what}.pt", weights_only=True)


def tied(name):
    return SHARED if CASES[name].get("tied", True) else {}


def as_fp32(tensors):
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def fp32_of_tool(directory):
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with contextlib.redirect_stdout(io.StringIO()):
        return as_fp32(get_fp32_state_dict_from_zero_checkpoint(str(directory)))


# -- what is right -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "name"), [case for case in ZERO if CASES[case[1]]["stage"] < 3])
def test_module_is_the_live_model(saves, tmp_path, ranks, name):
    done = assemble(saves / f"ranks{ranks}" / name, tmp_path)
    assert_same(done.tensors, read(saves, ranks, name, "live"), tied(name))
    assert done.made == f"{header_size(done.file)} bytes made anew"


@pytest.mark.parametrize(("ranks", "name"), PARTITIONED)
def test_fp32_is_what_the_optimizer_holds(saves, tmp_path, ranks, name):
    live = read(saves, ranks, name, "live")
    masters = read(saves, ranks, name, "masters")
    found = assemble(saves / f"ranks{ranks}" / name, tmp_path, "--fp32").tensors
    if name == "zero2_dealt":
        # safe_get_full_fp32_param reads as if parameters were not dealt out in turns. What it rounds to is right.
        rounded = {key: found[key].to(value.dtype) for key, value in live.items() if key in found}
        assert_same(rounded, live, tied(name))
    else:
        assert_same(found, {**as_fp32(live), **masters}, tied(name))


@pytest.mark.parametrize(("ranks", "name"), PARTITIONED)
def test_fp32_is_what_the_tool_makes(saves, tmp_path, ranks, name):
    directory = saves / f"ranks{ranks}" / name
    if name.startswith("bf16_optimizer"):
        with pytest.raises(ValueError, match="is not a zero checkpoint"):
            fp32_of_tool(directory)
        return
    expected = fp32_of_tool(directory)
    found = assemble(directory, tmp_path, "--fp32").tensors
    dropped = set(found) - set(expected)
    assert dropped == {
        "zero1_frozen": {"first.weight", "norm.bias"},
        "zero1_empty_parameter": {"empty"},
    }.get(name, set())
    assert_same({key: value for key, value in found.items() if key not in dropped}, expected, tied(name))


@pytest.mark.parametrize(("ranks", "name"), ALL_FP32)
def test_only_the_header_is_made(saves, tmp_path, ranks, name):
    """Partitions are ranges of the shards."""
    done = assemble(saves / f"ranks{ranks}" / name, tmp_path, "--fp32")
    assert done.made == f"{header_size(done.file)} bytes made anew"


@pytest.mark.parametrize("name", ["pipeline", "tensor_parallel"])
def test_other_parallelism_is_the_live_model(saves, tmp_path, name):
    done = assemble(saves / "ranks2" / name, tmp_path)
    assert_same(done.tensors, read(saves, 2, name, "live"))


def test_adapters_are_as_peft_saves_them(saves, tmp_path):
    directory = saves / "ranks2" / "adapter"
    found = assemble(directory, tmp_path / "16", name="adapter_model").tensors
    assert_same(found, read(saves, 2, "adapter", "live"))
    for name in ("adapter", "adapter_zero3"):
        found = assemble(saves / "ranks2" / name, tmp_path / name, "--fp32", name="adapter_model").tensors
        assert_same(found, read(saves, 2, name, "masters"))


def test_inspect_tells_what_it_is(saves):
    for ranks, name, framework in (
        (2, "zero0", "deepspeed-zero0"),
        (3, "zero1", "deepspeed-zero1"),
        (4, "zero2", "deepspeed-zero2"),
        (3, "zero3", "deepspeed-zero3"),
        (2, "pipeline", "deepspeed-pipeline"),
        (2, "tensor_parallel", "deepspeed-tensor-parallel"),
    ):
        told = inspect(saves / f"ranks{ranks}" / name)
        step = 2 if name.startswith("zero") else 1
        assert (told["framework"], told["world_size"], told["step"]) == (framework, ranks, step)
        assert told["whole"]


def test_the_tags_directory_itself(saves, tmp_path):
    found = assemble(saves / "ranks3" / "zero3" / "global_step2", tmp_path).tensors
    assert_same(found, fp32_of_tool(saves / "ranks3" / "zero3"), SHARED)


# -- what is damaged, missing, stale -----------------------------------------------------------------------------------


@pytest.fixture
def broken(saves, tmp_path):
    """A function that copies a checkpoint, to be damaged; the tag's directory is given back too."""

    def copy(ranks, name):
        directory = tmp_path / "broken"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(saves / f"ranks{ranks}" / name, directory)
        return directory, next(directory.glob("global_step*"))

    return copy


def optimizer_file(tag, rank):
    return tag / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"


def change(path, alter):
    """Saves a states file again with something altered."""
    states = torch.load(path, weights_only=False)
    alter(states)
    torch.save(states, path)


@pytest.mark.parametrize("name", ["zero2", "zero3"])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_is_missing(broken, tmp_path, name, rank):
    directory, tag = broken(3, name)
    optimizer_file(tag, rank).unlink()
    line = refused(directory, tmp_path / "out", "--fp32")
    assert f"{optimizer_file(tag, rank).name} is not here: the save had 3 ranks, 2 files are there" in line


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_a_rank_is_too_much(broken, tmp_path, name):
    directory, tag = broken(3, name)
    shutil.copy(optimizer_file(tag, 2), optimizer_file(tag, 3))
    line = refused(directory, tmp_path / "out", "--fp32")
    assert f"{optimizer_file(tag, 3).name} is of another save: this one had 3 ranks, 4 files are there" in line


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_a_rank_of_another_save(saves, broken, tmp_path, name):
    directory, tag = broken(3, name)
    shutil.copy(optimizer_file(saves / "ranks4" / name.replace("zero3", "zero3_frozen") / "global_step2", 1), tag)
    line = refused(directory, tmp_path / "out", "--fp32")
    assert "of a save with 4 ranks, the others with 3" in line


def test_optimizers_are_not_needed_for_the_module(broken, tmp_path):
    directory, tag = broken(3, "zero2")
    optimizer_file(tag, 1).unlink()
    assert set(assemble(directory, tmp_path / "out").tensors)
    notes = inspect(directory)["notes"]
    assert len(notes) == 1 and "rank_1_mp_rank_00_optim_states.pt is not here" in str(notes)


def test_a_frozen_fragment_is_missing(broken, tmp_path):
    directory, tag = broken(3, "zero3_frozen")
    (tag / "zero_pp_rank_2_mp_rank_00_model_states.pt").unlink()
    assert "zero_pp_rank_2_mp_rank_00_model_states.pt is not here" in refused(directory, tmp_path / "out")


def test_states_of_different_steps(broken, tmp_path):
    directory, tag = broken(3, "zero3_frozen")
    change(tag / "zero_pp_rank_1_mp_rank_00_model_states.pt", lambda states: states.update(global_steps=1))
    assert "of step 1, that of rank 0 is of step 2" in refused(directory, tmp_path / "out")


def partitions(states):
    return states["optimizer_state_dict"]["single_partition_of_fp32_groups"]


def resize(shapes, group, name, size):
    shapes[group][name] = torch.Size(size)


@pytest.mark.parametrize(
    ("file", "alter", "line"),
    [
        ("model", lambda s: resize(s["param_shapes"], 0, "embed.weight", (130, 7)), "embed.weight"),
        ("model", lambda s: resize(s["param_shapes"], 1, "norm.bias", (2**62,)), "norm.bias"),
        ("model", lambda s: resize(s["param_shapes"], 1, "norm.bias", (-1,)), "no number from 0 on"),
        ("model", lambda s: resize(s["param_shapes"], 0, "embed.weight", (2**40, 2**40)), "does not fit"),
        ("model", lambda s: s["param_shapes"].pop(), "expected partitions of 2 groups"),
        ("model", lambda s: s["param_shapes"][0].popitem(), "hold"),
        ("model", lambda s: s.update(param_shapes=7), "param_shapes: expected a list"),
        ("model", lambda s: s.pop("module"), "expected a dict module"),
        ("optimizer", lambda s: s["optimizer_state_dict"].update(partition_count=[5, 5, 5]), "of a save with 5 ranks"),
        ("optimizer", lambda s: s["optimizer_state_dict"].update(partition_count=[]), "partition_count is empty"),
        ("optimizer", lambda s: s["optimizer_state_dict"].update(partition_count=[3, 3, 1]), "experts"),
        ("optimizer", lambda s: s["optimizer_state_dict"].update(zero_stage=1), "of ZeRO stage 1, the others 2"),
        ("optimizer", lambda s: s.pop("optimizer_state_dict"), "expected an optimizer_state_dict"),
        ("optimizer", lambda s: partitions(s).pop(), "expected partitions of 3 groups"),
        ("optimizer", lambda s: partitions(s).__setitem__(0, partitions(s)[0][:-9].clone()), "partition 0"),
        ("optimizer", lambda s: partitions(s).__setitem__(0, partitions(s)[0].reshape(1, -1)), "a flat partition"),
        ("optimizer", lambda s: partitions(s).__setitem__(0, partitions(s)[0].bfloat16()), "BF16"),
        ("optimizer", lambda s: partitions(s).__setitem__(0, None), "tensor"),
        ("optimizer", lambda s: s["optimizer_state_dict"]["param_slice_mappings"].reverse(), "param_slice_mappings"),
    ],
)
def test_states_that_do_not_add_up(broken, tmp_path, file, alter, line):
    directory, tag = broken(3, "zero2")
    change(tag / "mp_rank_00_model_states.pt" if file == "model" else optimizer_file(tag, 1), alter)
    assert line in refused(directory, tmp_path / "out", "--fp32")


def flat_groups(states):
    return states["optimizer_state_dict"]["fp32_flat_groups"]


@pytest.mark.parametrize(
    ("file", "alter", "line"),
    [
        ("model", lambda s: resize(s["param_shapes"], 0, "embed.weight", (12, 7)), "the shapes in"),
        ("model", lambda s: resize(s["param_shapes"], 0, "embed.weight", (2**50,)), "more than there are left"),
        ("model", lambda s: resize(s["frozen_param_shapes"], ..., "norm.bias", (5,)), None),
        ("optimizer", lambda s: flat_groups(s).pop(), "flat groups as of rank 0"),
        ("optimizer", lambda s: flat_groups(s).__setitem__(0, flat_groups(s)[0][:-1].clone()), "flat group 0"),
        ("optimizer", lambda s: s["optimizer_state_dict"].update(zero_stage=2), "single_partition_of_fp32_groups"),
        ("optimizer", lambda s: s["optimizer_state_dict"].update(ds_zero_partition_groups=[1]), "experts"),
    ],
)
def test_zero3_that_does_not_add_up(broken, tmp_path, file, alter, line):
    directory, tag = broken(3, "zero3_frozen")
    if line is None:
        file, line = "model", "the fragment of norm.bias"
        alter = lambda s: s["frozen_param_shapes"].update({"norm.bias": torch.Size((500,))})  # noqa: E731
    change(tag / "zero_pp_rank_0_mp_rank_00_model_states.pt" if file == "model" else optimizer_file(tag, 1), alter)
    assert line in refused(directory, tmp_path / "out")


def test_truncated_states(broken, tmp_path):
    directory, tag = broken(3, "zero3_frozen")
    for path in (tag / "zero_pp_rank_0_mp_rank_00_model_states.pt", optimizer_file(tag, 2)):
        whole = path.read_bytes()
        for length in (0, 1, 30, 64, 1000, len(whole) // 2, len(whole) - 30, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert path.name in refused(directory, tmp_path / "out")
        path.write_bytes(whole)
    assert assemble(directory, tmp_path / "out").tensors


def test_latest_names_nothing(broken, tmp_path):
    directory, _ = broken(2, "zero0")
    (directory / "latest").write_text("global_step9\n")
    assert "latest names global_step9, which is not here; there is global_step2" in refused(directory, tmp_path / "out")
    (directory / "latest").write_text("../broken/global_step2")
    assert "there is no latest" in str(inspect(directory)["notes"])


def test_other_tags_and_no_latest(broken, tmp_path):
    directory, tag = broken(2, "zero0")
    shutil.copytree(tag, directory / "global_step10")
    assert "this is global_step2; 1 other tag is here, like global_step10" in str(inspect(directory)["notes"])
    (directory / "latest").unlink()
    notes = str(inspect(directory)["notes"])
    assert "there is no latest" in notes and "this is global_step10" in notes


def test_a_universal_checkpoint_is_told(broken):
    directory, tag = broken(3, "zero2")
    for path in tag.glob("*_optim_states.pt"):
        path.unlink()
    assert "no *_optim_states.pt is here" in str(inspect(directory)["notes"])
    (tag / "zero").mkdir()
    told = inspect(directory)
    assert told["whole"] and len(told["notes"]) == 1 and "a universal checkpoint" in str(told["notes"])


def test_two_saves_in_one_directory(saves, broken, tmp_path):
    directory, tag = broken(3, "zero3")
    shutil.copy(saves / "ranks3" / "zero2" / "global_step2" / "mp_rank_00_model_states.pt", tag)
    assert "two saves in one directory" in refused(directory, tmp_path / "out")


def test_nothing_but_optimizers(broken, tmp_path):
    directory, tag = broken(3, "zero3")
    for path in tag.glob("*_model_states.pt"):
        path.unlink()
    assert "no *_model_states.pt is here" in refused(directory, tmp_path / "out")


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_are_the_live_model_of_all_ranks(saves, tmp_path, name):
    done = assemble(saves / "ranks2" / name, tmp_path)
    assert_same(done.tensors, read(saves, 2, name, "live"), {})
    assert inspect(saves / "ranks2" / name)["framework"] == f"deepspeed-{name.removeprefix('experts_')}"


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_have_the_names_that_deepspeed_loads(saves, tmp_path, name):
    """A model that is not expert-parallel asks for each expert's file, and takes its names as they are."""
    from deepspeed.runtime.engine import DeepSpeedEngine

    assembled = assemble(saves / "ranks2" / name, tmp_path).tensors
    directory = str(saves / "ranks2" / name)
    for layer, experts in enumerate((4, 2)):
        for expert in range(experts):
            file = DeepSpeedEngine._get_expert_ckpt_name(directory, layer, expert, "global_step1")
            for key, value in torch.load(file, weights_only=True).items():
                assert torch.equal(assembled[key], value), key


def test_an_expert_is_missing(broken, tmp_path):
    directory, tag = broken(2, "experts_zero2")
    (tag / "layer_0_expert_2_mp_rank_00_model_states.pt").rename(tag / "kept")
    assert "layer_0_expert_2_mp_rank_00_model_states.pt is missing: the layer has 4 experts" in refused(
        directory, tmp_path / "out"
    )
    (tag / "kept").rename(tag / "layer_0_expert_4_mp_rank_00_model_states.pt")
    assert "layer_0_expert_2_mp_rank_00_model_states.pt is missing" in refused(directory, tmp_path / "out")
    (tag / "layer_0_expert_4_mp_rank_00_model_states.pt").rename(tag / "layer_2_expert_0_mp_rank_00_model_states.pt")
    shutil.copy(tag / "layer_0_expert_1_mp_rank_00_model_states.pt", tag / "layer_0_expert_2_mp_rank_00_model_states.pt")
    assert "the model has 2 layers of experts" in refused(directory, tmp_path / "out")


@pytest.mark.parametrize(
    ("alter", "why"),
    [
        (lambda s: s.pop("num_experts"), "num_experts does not say how many experts there are"),
        (lambda s: s.update(num_experts=["x"]), "num_experts holds no number"),
        (lambda s: s.update(num_experts=[4, 1]), "layer 1 has 1 experts, and files of 2 are here"),
        (lambda s: s.update(ds_autoep_layers=[{"moe_layer_id": 0}]), "experts that AutoEP has cut are not assembled"),
    ],
)
def test_experts_that_the_states_do_not_explain(broken, tmp_path, alter, why):
    directory, tag = broken(2, "experts_zero2")
    change(tag / "mp_rank_00_model_states.pt", alter)
    assert why in refused(directory, tmp_path / "out")


def test_experts_of_other_kinds_are_refused(broken, tmp_path):
    expert = "layer_0_expert_1_mp_rank_00_model_states.pt"
    directory, tag = broken(3, "zero3")
    (tag / expert).touch()
    assert f"{expert}: experts of ZeRO-3, or of a pipeline, are not assembled" in refused(directory, tmp_path / "out")
    directory, tag = broken(2, "pipeline")
    (tag / expert).touch()
    assert f"{expert}: experts of ZeRO-3, or of a pipeline, are not assembled" in refused(directory, tmp_path / "out")
    directory, tag = broken(2, "experts_zero0")
    shutil.copy(tag / expert, tag / "layer_0_expert_1_mp_rank_01_model_states.pt")
    assert "experts with tensor parallelism are not assembled" in refused(directory, tmp_path / "out")
    (tag / "layer_0_expert_1_mp_rank_01_model_states.pt").unlink()
    (tag / "mp_rank_00_model_states.pt").unlink()
    assert "an expert, but no mp_rank_00_model_states.pt is here" in refused(directory, tmp_path / "out")


def test_zero3_with_tensor_parallelism_is_refused(broken, tmp_path):
    directory, tag = broken(2, "zero3")
    for rank in range(2):
        name = f"zero_pp_rank_{rank}_mp_rank_%02d_model_states.pt"
        shutil.copy(tag / (name % 0), tag / (name % 1))
    assert "ZeRO-3 with tensor parallelism is not assembled" in refused(directory, tmp_path / "out")


def test_a_layer_is_missing(broken, tmp_path):
    directory, tag = broken(2, "pipeline")
    (tag / "layer_03-model_states.pt").unlink()
    line = refused(directory, tmp_path / "out")
    assert "has 3.weight, but layer 3 has no file with it here" in line


def test_layers_of_tensor_parallel_ranks_are_refused(broken, tmp_path):
    directory, tag = broken(2, "pipeline")
    for model in range(2):
        shutil.copy(tag / "layer_00-model_states.pt", tag / f"layer_00-model_{model:02d}-model_states.pt")
    (tag / "layer_00-model_states.pt").unlink()
    assert "nothing in them says how" in refused(directory, tmp_path / "out")


def first_map(states):
    return next(iter(states["universal_checkpoint_info"]["affine_map"]["params"].values()))


@pytest.mark.parametrize(
    ("alter", "line"),
    [
        (lambda s: s.pop("universal_checkpoint_info"), "nothing in it says how slices are put together"),
        (lambda s: s["universal_checkpoint_info"].pop("affine_map"), "has no affine_map"),
        (lambda s: s["universal_checkpoint_info"]["affine_map"].update(version=2), "expected version 1"),
        (lambda s: first_map(s)["ranks"][0]["pieces"][0].update(scale=0.5), "divided by a factor"),
        (lambda s: first_map(s)["ranks"][0]["pieces"][0].update(source=[2**40, [16, 1]]), "behind the parameter's end"),
        (lambda s: first_map(s)["ranks"][0]["pieces"][0].update(dest=[1, [16, 1]]), "behind the end of the slice"),
        (lambda s: first_map(s)["ranks"][0]["pieces"].clear(), "q_proj"),
        (lambda s: first_map(s)["ranks"].pop(1), "says nothing about rank 1"),
        (lambda s: s["checkpoint_parallel_dimensions"].update(tp_degree=4), "had 4 tensor-parallel ranks"),
    ],
)
def test_slices_that_do_not_add_up(broken, tmp_path, alter, line):
    directory, tag = broken(2, "tensor_parallel")
    change(tag / "mp_rank_00_model_states.pt", alter)
    assert line in refused(directory, tmp_path / "out")


def test_a_slice_is_missing(broken, tmp_path):
    directory, tag = broken(2, "tensor_parallel")
    (tag / "mp_rank_00_model_states.pt").unlink()
    assert "mp_rank_00_model_states.pt is not here, but mp_rank_01_model_states.pt is" in refused(
        directory, tmp_path / "out"
    )


def test_environment_is_the_processors(saves):
    """The checkpoints are of the CPU: no accelerator took part."""
    assert os.environ["DS_ACCELERATOR"] == "cpu"
    assert len(list(saves.glob("ranks*/*/latest"))) == len(deepspeed_saves.cases())
