# SPDX-License-Identifier: Apache-2.0
"""SageMaker model parallel: whole models, parts of the optimizer, partial saves. The files are made here, by what is
published of their names (smdistributed.modelparallel.torch, checkpoint.py, version 1.10 and later).
"""

import pytest
import torch
from safetensors.torch import save_file

from assembled import assemble, assert_same, refused
from tool import inspect


def tensors():
    numbers = torch.Generator().manual_seed(9)
    return {"a.weight": torch.randn(5, 3, generator=numbers), "a.bias": torch.randn(5, generator=numbers).bfloat16()}


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "saved"
    path.mkdir()
    return path


def save_optimizer(directory, *ranks):
    for rank in ranks:
        state = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [], "_smp_is_partial": True}
        torch.save(state, directory / f"optimizer.pt_{rank}.pt")


def save_partial(directory, tag):
    path = directory / f"{tag}_partial"
    path.mkdir()
    for rank in ("0_0", "0_1", "1_0", "1_1"):
        torch.save({**tensors(), "_smp_is_partial": True}, path / f"model_{rank}.pt")
        torch.save({"_smp_is_partial": True}, path / f"optimizer_states_{rank}.pt")
    torch.save({"smp_version": "1.15.0"}, path / "smp_config.pt")
    (directory / "newest").write_text(f"{path.name}\n")
    return path


@pytest.mark.parametrize("sharded", [False, True])
def test_a_whole_model_of_the_trainer(directory, tmp_path, sharded):
    expected = tensors()
    if sharded:
        for number, name in enumerate(expected, 1):
            save_file({name: expected[name]}, directory / f"model-0000{number}-of-00002.safetensors")
        weight_map = {name: f"model-0000{number}-of-00002.safetensors" for number, name in enumerate(expected, 1)}
        text = str({"metadata": {"total_size": 70}, "weight_map": weight_map}).replace("'", '"')
        (directory / "model.safetensors.index.json").write_text(text)
    else:
        save_file(expected, directory / "model.safetensors")
    (directory / "user_content.pt").touch()
    save_optimizer(directory, "0_0", "0_1", "1_0", "1_1")
    told = inspect(directory)
    assert (told["framework"], told["whole"]) == ("sagemaker", True)
    assert "the optimizer is in 4 files of model-parallel ranks, like optimizer.pt_0_0.pt" in str(told["notes"])
    assert_same(assemble(directory, tmp_path / "out").tensors, expected)


def test_a_whole_model_under_its_tag(directory, tmp_path):
    torch.save(tensors(), directory / "total_steps100")
    torch.save({}, directory / "user_content_total_steps100")
    assert inspect(directory)["framework"] == "sagemaker"
    assert_same(assemble(directory, tmp_path / "out").tensors, tensors())


def test_a_sharded_optimizer(directory):
    save_file(tensors(), directory / "model.safetensors")
    save_optimizer(directory, "0_0_0", "0_0_1")
    assert "in 2 files of model-parallel ranks, like optimizer.pt_0_0_0.pt" in str(inspect(directory)["notes"])


def test_a_partial_save_is_refused(directory, tmp_path):
    path = save_partial(directory, "steps10")
    assert inspect(directory)["framework"] == "sagemaker"
    line = refused(directory, tmp_path / "out")
    assert "steps10_partial/model_0_0.pt is one of 4 slices of model-parallel ranks" in line
    line = refused(path, tmp_path / "out")
    assert "model_0_0.pt is one of 4 slices of model-parallel ranks" in line


def test_a_partial_save_beside_a_whole_one(directory, tmp_path):
    save_partial(directory, "steps10")
    save_file(tensors(), directory / "model.safetensors")
    told = inspect(directory)
    assert told["whole"] and "one of 4 slices" in str(told["notes"])
    assert_same(assemble(directory, tmp_path / "out").tensors, tensors())


def test_weights_are_missing(directory, tmp_path):
    (directory / "user_content.pt").touch()
    assert "no weights are here" in refused(directory, tmp_path / "out")


def test_other_directories_are_not_taken_for_one(directory):
    (directory / "my_partial").mkdir()
    (directory / "my_partial" / "notes.txt").write_text("nothing")
    save_file(tensors(), directory / "model.safetensors")
    torch.save({}, directory / "optimizer.pt")
    assert inspect(directory)["framework"] == "single"
