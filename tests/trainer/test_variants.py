# SPDX-License-Identifier: Apache-2.0
"""Other ways to train that write other files: adapters, several processes, pushes to the Hub."""

import json
import os

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import harness


def test_lora_adapter(sides):
    """A PEFT run: adapter checkpoints are identical, and an adapter loads on top of its base model."""
    options = ("--output_dir", "lora", "--lora", "--max_steps", 4, "--save_steps", 2, "--save_total_limit", 1)
    harness.run_both(sides, *options)
    harness.assert_same_tree(sides.plain / "lora", sides.mount / "lora")
    checkpoint = sides.mount / "lora" / "checkpoint-4"
    names = set(os.listdir(checkpoint))
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md", "optimizer.pt"} <= names
    assert "model.safetensors" not in names and not (sides.mount / "lora" / "checkpoint-2").exists()

    def adapted(root):
        base = harness.base_model()
        return PeftModel.from_pretrained(base, root / "lora" / "checkpoint-4").state_dict()

    harness.assert_same_tensors(adapted(sides.plain), adapted(sides.mount))


def test_two_processes(sides):
    """Data-parallel training: both ranks leave their random state in the same directory."""
    options = ("--output_dir", "ddp", "--max_steps", 4, "--save_steps", 2, "--ddp_backend", "gloo")
    harness.run_both(sides, *options, ranks=2)
    harness.assert_same_tree(sides.plain / "ddp", sides.mount / "ddp")
    for step in (2, 4):
        names = set(os.listdir(sides.mount / "ddp" / f"checkpoint-{step}"))
        assert {"rng_state_0.pth", "rng_state_1.pth", "model.safetensors", "optimizer.pt"} <= names
    harness.run_both(sides, *options, "--resume_from_checkpoint", "ddp/checkpoint-2", ranks=2)
    harness.assert_same_tree(sides.plain / "ddp", sides.mount / "ddp")


def test_push_to_hub(sides):
    """What would be uploaded, at every save and at the end: the same files with the same hashes."""
    options = ("--output_dir", "pushed", "--max_steps", 4, "--save_steps", 2, "--save_strategy", "steps")
    hub = ("--push_to_hub", "--hub_strategy", "all_checkpoints", "--hub_always_push")
    harness.run_both(sides, *options, *hub, script="offline_hub.py")
    plain, mount = ([json.loads(line) for line in open(root / "pushed.jsonl")] for root in sides)
    assert mount == plain
    assert [len(commit["files"]) > 5 for commit in mount] == [True] * len(mount)
    messages = [commit["message"] for commit in mount]
    assert messages[:2] == ["Training in progress, step 2", "Training in progress, step 2, checkpoint"]
    assert messages[-1] == "Model save" and "README.md" in mount[-1]["files"]
    assert not any(name.startswith("checkpoint-") for name in mount[-1]["files"])
    harness.assert_same_tree(sides.plain / "pushed", sides.mount / "pushed")


def test_merged_adapter_is_saved_as_a_model(sides):
    """The habit after a LoRA run: merge, save_pretrained into a new directory, load as an ordinary model."""
    checkpoint = sides.mount / "lora" / "checkpoint-4"
    merged = PeftModel.from_pretrained(harness.base_model(), checkpoint).merge_and_unload()
    for root in sides:
        merged.save_pretrained(root / "merged")
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(root / "merged")
    harness.assert_same_tree(sides.plain / "merged", sides.mount / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(sides.mount / "merged")
    harness.assert_same_tensors(merged.state_dict(), loaded.state_dict())
