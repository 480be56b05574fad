# SPDX-License-Identifier: Apache-2.0
"""Every type that torch and safetensors have in common, and every way to round."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tool import assemble, inspect

PLAIN = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32,
         torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
EIGHT = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]


def random_bits(dtype, count):
    """Any bits: infinite, subnormal, no numbers at all."""
    raw = torch.randint(0, 256, (count * dtype.itemsize,), dtype=torch.uint8)
    return (raw % 2).bool() if dtype == torch.bool else raw.view(dtype)


def same(a, b):
    """Bit by bit."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.reshape(-1).view(torch.uint8),
                                                                     b.reshape(-1).view(torch.uint8))


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(3)
    made = {}
    for dtype in PLAIN + EIGHT:
        name = str(dtype).removeprefix("torch.")
        made[name] = random_bits(dtype, 24).reshape(2, 3, 4)
        made[name + ".scalar"] = random_bits(dtype, 1)[0] if dtype.itemsize > 1 else random_bits(dtype, 1)
        made[name + ".empty"] = random_bits(dtype, 0).reshape(0, 5)
    made["float4"] = random_bits(torch.uint8, 12).reshape(3, 4).view(torch.float4_e2m1fn_x2)
    return made


@pytest.mark.parametrize("form", ["safetensors", "bin", "legacy"])
def test_every_type_from_and_to_either_format(tensors, tmp_path, form):
    if form == "safetensors":
        save_file(tensors, tmp_path / "model.safetensors")
    else:
        torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=form == "bin")
    assert inspect(tmp_path)["whole"]
    output, _ = assemble(tmp_path, tmp_path / "safe")
    loaded = load_file(output / "model.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(same(loaded[name], tensor) for name, tensor in tensors.items())
    save_file(tensors, tmp_path / "wanted.safetensors", {"format": "pt"})
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "wanted.safetensors").read_bytes()
    output, _ = assemble(tmp_path, tmp_path / "bin", "--format", "bin")
    loaded = torch.load(output / "pytorch_model.bin", weights_only=True)
    assert loaded.keys() == tensors.keys()
    assert all(same(loaded[name], tensor) for name, tensor in tensors.items())


def test_complex128(tmp_path):
    torch.save({"w": torch.randn(4, dtype=torch.complex128)}, tmp_path / "pytorch_model.bin")
    output, _ = assemble(tmp_path, tmp_path / "bin", "--format", "bin")
    assert torch.equal(torch.load(output / "pytorch_model.bin", weights_only=True)["w"],
                       torch.load(tmp_path / "pytorch_model.bin", weights_only=True)["w"])


def test_views(tmp_path):
    """Storages that are larger than their tensors, and tensors that lie in them in another order."""
    torch.manual_seed(4)
    base = torch.randn(40, 30)
    tensors = {
        "transposed": base.t(), "columns": base[:, 3:11], "steps": base[1::3, ::2], "rows": base[5:9],
        "expanded": torch.randn(1, 6).expand(50, 6), "permuted": torch.randn(3, 4, 5).permute(2, 0, 1),
        "large": torch.randn(1200, 900).t(), "half": torch.randn(70, 50).to(torch.bfloat16).t(),
        "bytes": torch.randint(0, 256, (300, 200), dtype=torch.uint8).t()[7:, 3:],
    }
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    output, _ = assemble(tmp_path, tmp_path / "out")
    loaded = load_file(output / "model.safetensors")
    assert all(same(loaded[name], tensor) for name, tensor in tensors.items())
    output, _ = assemble(tmp_path, tmp_path / "cast", "--dtype", "fp16", "--format", "bin")
    loaded = torch.load(output / "pytorch_model.bin", weights_only=True)
    for name, tensor in tensors.items():
        assert same(loaded[name], tensor.to(torch.float16) if tensor.is_floating_point() else tensor), name


def edges(dtype):
    """Numbers around the limits and the ties of the narrower types."""
    exact = [0.0, 1.0, 65504.0, 65519.996, 65520.0, 3.3895313892515355e38, 3.4028234663852886e38, 2.0**-14, 2.0**-24,
             2.0**-25, 2.0**-26, 2.0**-126, 2.0**-133, 2.0**-134, 2.0**-149, float("inf"), float("nan")]
    exact += [(1 + 2.0**-bits * odd) * 2.0**scale
              for bits in (8, 9, 11, 12, 24, 25) for odd in (1, 3, 5) for scale in (0, -14, -15, -20, -24, 10, -126, -130)]
    wide = torch.tensor(exact, dtype=torch.float64)
    beside = torch.cat([wide, torch.nextafter(wide, wide + 1), torch.nextafter(wide, wide - 1)])
    return torch.cat([beside, -beside]).to(dtype)


@pytest.mark.parametrize("source", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16"])
def test_rounding(tmp_path, source, name):
    torch.manual_seed(5)
    count = 1 << 20
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(source) if source.itemsize == 2 else edges(source)
    tensors = {"bits": random_bits(source, count), "edges": every, "normal": torch.randn(count).to(source),
               "small": (torch.randn(count, dtype=torch.float64) * 1e-6).to(source)}
    save_file(tensors, tmp_path / "model.safetensors")
    output, _ = assemble(tmp_path, tmp_path / "out", "--dtype", name)
    loaded = load_file(output / "model.safetensors")
    target = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]
    for key, tensor in tensors.items():
        wanted = tensor.to(target)
        number = ~wanted.isnan()
        assert loaded[key].dtype == target
        assert torch.equal(loaded[key].isnan(), ~number)
        assert same(loaded[key][number], wanted[number]), key
