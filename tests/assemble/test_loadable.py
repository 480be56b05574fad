# SPDX-License-Identifier: Apache-2.0
"""What inspect and assemble say of whether a model loads, beside what from_pretrained makes of it."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import peft
import pytest
import torch
import torch.distributed.checkpoint as dist_cp
from safetensors.torch import load_file, save_file
from transformers import (BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM,
                          MixtralConfig, MixtralForCausalLM, T5Config, T5ForConditionalGeneration)

import asker
from tool import PROGRAM, assemble, inspect, refuse, run

LLAMA = dict(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "tied": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=32, n_embd=64, n_layer=2, n_head=4)),
    "bert": lambda: BertForMaskedLM(BertConfig(vocab_size=300, hidden_size=64, num_hidden_layers=2,
                                               num_attention_heads=4, intermediate_size=128)),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**LLAMA, num_key_value_heads=2, num_local_experts=4)),
    "t5": lambda: T5ForConditionalGeneration(T5Config(vocab_size=300, d_model=64, d_ff=96, num_layers=2, d_kv=16,
                                                      num_heads=4)),
}
FILE = "model.safetensors"
# A Python that has no transformers: its own libraries only.
BARE = "import sys; sys.argv = sys.argv[1:]; sys.path[:] = [p for p in sys.path if 'packages' not in p]; " \
       "exec(compile(open(sys.argv[0]).read(), sys.argv[0], 'exec'))"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function from a name to the directory that the model was saved to, which is made once."""
    root = tmp_path_factory.mktemp("models")

    def directory(name):
        if not (root / name).exists():
            torch.manual_seed(7)
            MODELS[name]().save_pretrained(root / name)
        return root / name

    return directory


@pytest.fixture
def changed(saved, tmp_path):
    """A function that gives a copy of a model whose tensors and config were changed."""

    def make(name, tensors=lambda _: None, path="changed", **config):
        directory = shutil.copytree(saved(name), tmp_path / path)
        held = load_file(directory / FILE)
        tensors(held)
        save_file(held, directory / FILE, {"format": "pt"})
        set_config(directory, **config)
        return directory

    return make


@pytest.fixture
def bare(tmp_path):
    """The path of a Python without transformers."""
    program = tmp_path / "bare-python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S -c "{BARE}" "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A program that answers as the Python of the tests does, sooner."""
    root = tmp_path_factory.mktemp("asker")
    server = subprocess.Popen([sys.executable, asker.__file__, root / "socket",
                               Path(PROGRAM).parent / "ckptfs-architecture.py"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"ready\n"
        yield asker.write_client(root / "python", root / "socket")
    finally:
        server.stdin.close()
        server.wait(60)
        server.stdout.close()


@pytest.fixture(autouse=True)
def environment(library, monkeypatch, tmp_path):
    """That one is asked; nobody's cache has a base model."""
    monkeypatch.setenv("CKPTFS_PYTHON", str(library))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def python(monkeypatch):
    """The Python of the tests itself is asked."""
    monkeypatch.setenv("CKPTFS_PYTHON", sys.executable)


def set_config(directory, **config):
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))


def check(path, *options):
    done = run("inspect", "--json", "--check", path, *options, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["loadable"]


def expect(told, verdict, **lists):
    """The verdict, and the lists that are not empty."""
    assert told["verdict"] == verdict, told
    found = {name: told[name] for name in ("missing", "unexpected", "mismatched") if told[f"{name}_count"]}
    assert found == lists


# -- against the architecture ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_what_save_pretrained_wrote_loads(saved, name):
    told = check(saved(name))
    expect(told, "yes")
    assert re.fullmatch(rf"{type(MODELS[name]()).__name__} of transformers [0-9.]+\S*", told["against"])


def test_the_live_models_names_load_too(saved, tmp_path):
    """Of experts that save_pretrained writes one by one, a sharded save has those that are joined in memory."""
    live = shutil.copytree(saved("mixtral"), tmp_path / "live")
    model = MixtralForCausalLM.from_pretrained(live)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, live / FILE)
    assert load_file(live / FILE).keys() != load_file(saved("mixtral") / FILE).keys()
    expect(check(live), "yes")


def test_a_head_that_is_missing(changed):
    told = check(changed("llama", lambda held: held.pop("lm_head.weight")))
    expect(told, "in part", missing=["lm_head.weight"])


def test_a_base_model_without_its_head(changed):
    """All that BertModel has, under its own names."""

    def without_head(held):
        inner = {name.removeprefix("bert."): held[name] for name in held if name.startswith("bert.")}
        held.clear()
        held.update(inner)

    told = check(changed("bert", without_head))
    assert told["verdict"] == "in part" and told["missing_count"] == 6
    assert all(name.startswith("cls.") for name in told["missing"])


def test_a_layer_that_is_missing(changed):
    name = "model.layers.1.mlp.up_proj.weight"
    source = changed("llama", lambda held: held.pop(name))
    expect(check(source), "no", missing=[name])
    line = run("inspect", "--check", source).stdout.splitlines()[-1]
    assert re.fullmatch(rf"loadable +no, checked against LlamaForCausalLM of transformers \S+: {name} is missing", line)


def test_names_and_shapes_that_are_wrong(changed):
    def alter(held):
        held["model.norm.weight"] = torch.ones(63)
        held["model.rotary.extra"] = torch.ones(3)

    expect(check(changed("llama", alter)), "no", unexpected=["model.rotary.extra"],
           mismatched=["model.norm.weight is [63], expected [64]"])


def test_a_tie_that_the_config_denies(changed):
    """The output layer is not in the file, and would be a random one."""
    expect(check(changed("tied", tie_word_embeddings=False)), "in part", missing=["lm_head.weight"])


def test_a_sharded_save_borrows_the_config_of_its_run(saved, tmp_path):
    """It has none of its own; the shards are checked by the names of the assembled model."""
    inner = tmp_path / "checkpoint-7/pytorch_model_fsdp_0"
    dist_cp.save({"model": MODELS["tied"]().state_dict()}, checkpoint_id=inner, no_dist=True)
    expect(check(tmp_path / "checkpoint-7"), "not checked")
    for name in ("config.json", FILE):
        shutil.copy(saved("tied") / name, tmp_path)
    expect(check(tmp_path / "checkpoint-7"), "yes")
    expect(check(inner), "yes")


# -- what is not known -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config,reason", [
    (dict(architectures=["NoSuchModel"]), "has no NoSuchModel"),
    (dict(architectures=["os.path"]), "has no os.path"),
    (dict(architectures=["pipeline"]), "has no pipeline"),
    (dict(architectures=None), "names no architecture"),
    (dict(model_type="gpt2"), "its architecture is LlamaForCausalLM"),
    (dict(vocab_size=1 << 62), "transformers fails"),
    (dict(num_hidden_layers="many"), "transformers fails"),
    (dict(hidden_size=-1), "transformers fails"),
    (dict(quantization_config={"bits": 4}), "quantized"),
])
def test_configs_that_do_not_tell(changed, config, reason):
    told = check(changed("llama", **config))
    expect(told, "not checked")
    assert reason in told["reason"] and told["against"] is None


def test_without_asking_nothing_is_said(saved):
    expect(inspect(saved("llama"))["loadable"], "not checked")
    assert "not checked (--check does)" in run("inspect", saved("llama")).stdout


def test_a_checkpoint_that_is_not_whole(saved, tmp_path):
    shutil.copytree(saved("llama"), tmp_path / "part")
    with open(tmp_path / "part" / FILE, "r+b") as file:
        file.truncate(5000)
    told = check(tmp_path / "part")
    expect(told, "not checked")
    assert told["reason"] == "the model is not whole"


def test_no_library(saved, bare, monkeypatch):
    monkeypatch.setenv("CKPTFS_PYTHON", "/nonexistent/python")
    assert "/nonexistent/python cannot be started" in check(saved("llama"))["reason"]
    assert "cannot import torch" in check(saved("llama"), "--python", bare)["reason"]
    monkeypatch.delenv("CKPTFS_PYTHON")
    monkeypatch.setenv("PATH", f"{bare.parent}:/bin")
    bare.rename(bare.parent / "python3")
    assert "cannot import torch" in check(saved("llama"))["reason"]


@pytest.mark.parametrize("program,reason", [
    ("exit 3", "failed with status 3"), ("kill -9 $$", "died of signal 9"), ("echo nonsense", "not understood"),
    ("yes", "too long"), ("exec sleep 1000", "did not answer within 1 seconds"),
    ("exec >&-; exec <&-; exec sleep 1000", "did not answer within 1 seconds"),
    ("sleep 1000 & echo '{\"reason\": \"none\"}'", "did not answer within 1 seconds")])
def test_a_library_that_fails(saved, tmp_path, program, reason):
    (tmp_path / "python").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "python").chmod(0o755)
    seconds = "1" if "1 seconds" in reason else "100"
    assert reason in check(saved("llama"), "--python", tmp_path / "python", "--timeout", seconds)["reason"]


# -- hostile checkpoints -----------------------------------------------------------------------------------------------


def test_code_of_a_checkpoint_is_never_run(python, changed, tmp_path, monkeypatch):
    """Wherever a config could have it named: in itself, in its parts, as a module of a library's name."""
    mark = tmp_path / "mark"
    code = f"open({str(mark)!r}, 'w').write('run')\n"
    remote = {"AutoConfig": "evil.LlamaConfig", "AutoModel": "evil.LlamaModel",
              "AutoModelForCausalLM": "evil.LlamaForCausalLM"}
    source = changed("llama", auto_map=remote, trust_remote_code=True, attn_implementation="evil/kernel",
                     _attn_implementation="evil/kernel", inner={"auto_map": remote}, _name_or_path=str(tmp_path))
    for name in ("evil", "torch", "transformers", "json", "sitecustomize", "accelerate"):
        (source / f"{name}.py").write_text(code)
    monkeypatch.chdir(source)
    expect(check("."), "yes")
    set_config(source, architectures=["EvilForCausalLM"], model_type="evil")
    expect(check("."), "not checked")
    assert not mark.exists()


def test_a_config_that_would_never_be_done(python, changed):
    """So many layers take too much time or memory: a limit ends it, and nothing is left running."""
    source = changed("llama", num_hidden_layers=1 << 40)
    started = time.monotonic()
    told = check(source, "--timeout", "30")
    expect(told, "not checked")
    assert "30 seconds" in told["reason"] or "memory" in told["reason"] or "transformers fails" in told["reason"]
    assert time.monotonic() - started < 50


def test_a_config_that_is_no_config(saved, tmp_path):
    directory = shutil.copytree(saved("llama"), tmp_path / "odd")
    for text in ("[" * 100000, "[]", "{", '{"architectures": [[]]}', '{"architectures": {"a": 1}}', "\0" * 1000):
        (directory / "config.json").write_text(text)
        expect(check(directory), "not checked")


# -- against a base model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "tied", "gpt2", "bert"])
def test_without_the_library_a_base_model_does(saved, changed, bare, name):
    source = changed(name)
    told = check(source, "--python", bare, "--base", saved(name))
    expect(told, "yes")
    assert told["against"] == f"the model in {saved(name)}"
    file = load_file(source / FILE)
    first = sorted(file)[0]
    file[first] = torch.ones(1, 2, 3)
    del file[sorted(file)[-1]]
    save_file(file, source / FILE)
    told = check(source, "--python", bare, "--base", saved(name))
    assert told["verdict"] == "no" and told["missing_count"] == told["mismatched_count"] == 1


def test_the_runs_earlier_saves_are_base_models(saved, changed, bare, tmp_path):
    source = changed("llama", path="run/checkpoint-20")
    expect(check(source, "--python", bare), "not checked")
    shutil.copytree(saved("llama"), tmp_path / "run/checkpoint-30")
    expect(check(source, "--python", bare), "not checked")
    earlier = shutil.copytree(saved("llama"), tmp_path / "run/checkpoint-10")
    told = check(source, "--python", bare)
    expect(told, "yes")
    assert told["against"] == f"the model in {earlier}"


def test_a_base_model_in_the_hubs_cache(saved, changed, bare, tmp_path):
    revision = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "cache/models--org--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text(revision)
    shutil.copytree(saved("llama"), cached / "snapshots" / revision)
    expect(check(changed("llama", _name_or_path="org/name"), "--python", bare), "yes")
    expect(check(changed("llama", path="other", _name_or_path="../cache/models--org--name"), "--python", bare),
           "not checked")


# -- adapters ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["llama", "gpt2"])
def adapter(request, saved, tmp_path):
    """An adapter that says where its base model is."""
    modules = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn"]}[request.param]
    model = MODELS[request.param]()
    tuned = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=4, target_modules=modules,
                                                                     fan_in_fan_out=request.param == "gpt2"))
    tuned.peft_config["default"].base_model_name_or_path = str(saved(request.param))
    tuned.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_beside_its_base_model(adapter):
    told = check(adapter)
    expect(told, "yes")
    assert told["against"].startswith("adapter_config.json and /")


def test_adapters_that_do_not_fit(adapter, saved):
    other = {"llama": "gpt2", "gpt2": "llama"}["gpt2" if "c_attn" in (adapter / "adapter_config.json").read_text()
                                               else "llama"]
    assert "module that the base model lacks" in check(adapter, "--base", saved(other))["mismatched"][0]
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "org/none"}))
    told = check(adapter)
    expect(told, "not checked")
    assert "the base model org/none is not here" in told["reason"]
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "r": 8}))
    assert all("has rank 4, expected 8" in text for text in check(adapter)["mismatched"])
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    file = load_file(adapter / "adapter_model.safetensors")
    gone = sorted(file)[1]
    del file[gone]
    save_file(file, adapter / "adapter_model.safetensors")
    expect(check(adapter), "no", missing=[gone])


# -- assemble ----------------------------------------------------------------------------------------------------------


def test_assemble_writes_what_the_config_says(changed, tmp_path):
    source = changed("llama", dtype="bfloat16")
    before = load_file(source / FILE)
    output, done = assemble(source, tmp_path / "out")
    assert "float32 in the checkpoint, written as bfloat16, as config.json says" in done.stdout
    assert "loadable: not checked (--check does)" in done.stdout and not done.stderr
    after = load_file(output / FILE)
    assert all(torch.equal(after[name], before[name].to(torch.bfloat16)) for name in before)
    assert LlamaForCausalLM.from_pretrained(output, dtype="auto").dtype == torch.bfloat16
    for options in (["--dtype", "keep"], ["--dtype", "fp32"]):
        output, done = assemble(source, tmp_path / options[1], *options)
        after = load_file(output / FILE)
        assert all(after[name].dtype == torch.float32 and torch.equal(after[name], before[name]) for name in before)
        assert "config.json says bfloat16" in done.stderr and "written as" not in done.stdout


@pytest.mark.parametrize("config", [dict(dtype="float32"), dict(dtype=None), dict(dtype="nonsense"),
                                    dict(dtype="bfloat16", quantization_config={"bits": 4})])
def test_assemble_leaves_the_type(changed, tmp_path, config):
    output, done = assemble(changed("llama", **config), tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(output / FILE).values()} == {torch.float32}
    assert "written as" not in done.stdout


def test_assemble_leaves_what_is_wider_in_a_model_of_the_configs_type(changed, tmp_path):
    """A library that keeps some parameters in 32 bits saved them like that."""

    def narrow(held):
        for name in held:
            held[name] = held[name].to(torch.float32 if "norm" in name else torch.bfloat16)

    source = changed("llama", narrow, dtype="bfloat16")
    output, _ = assemble(source, tmp_path / "out")
    assert (output / FILE).read_bytes() == (source / FILE).read_bytes()


def test_assemble_keeps_what_the_architecture_keeps(python, saved, changed, tmp_path):
    """T5's wo stays in 32 bits in a model of float16, as from_pretrained has it."""
    output, done = assemble(changed("t5"), tmp_path / "out", "--dtype", "fp16", "--check", timeout=400)
    held = load_file(output / FILE)
    model = T5ForConditionalGeneration.from_pretrained(saved("t5"), dtype=torch.float16).state_dict()
    assert {tensor.dtype for tensor in held.values()} == {torch.float16, torch.float32}
    assert all(held[name].dtype == model[name].dtype and torch.equal(held[name], model[name]) for name in held)
    assert "4 tensors are not cast: the architecture keeps the type" in done.stdout


def test_assemble_checks_before_it_writes(changed, tmp_path):
    source = changed("llama", lambda held: held.pop("model.norm.weight"))
    assert "model.norm.weight is missing; nothing is assembled without --force" in \
        refuse(source, tmp_path / "out", "--check")
    _, done = assemble(source, tmp_path / "out", "--check", "--force")
    assert "loadable: no, checked against LlamaForCausalLM" in done.stdout
    whole, done = assemble(changed("llama", path="whole"), tmp_path / "whole-out", "--check")
    assert "loadable: yes, checked against LlamaForCausalLM" in done.stdout and os.listdir(whole)


def test_wrong_command_lines(saved):
    for options in (["--timeout", "0"], ["--timeout", "x"], ["--base"], ["--base", "x"] * 17):
        done = run("inspect", saved("llama"), *options)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
