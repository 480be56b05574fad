#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a small language model with the HuggingFace Trainer, on CPU and without a network.

An ordinary Trainer script: it knows nothing of the filesystem that --output_dir lies on. Every option of
TrainingArguments can be given on the command line; the ones of ScriptArguments below come on top. Two runs with the
same options write the same bytes.

    python train.py --output_dir MOUNTPOINT/run1 --max_steps 500 --save_steps 100
    python train.py --output_dir MOUNTPOINT/run1 --max_steps 500 --save_steps 100 --resume_from_checkpoint True
"""

import json
import os
import signal
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    HfArgumentParser,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

TEXT = """The night train leaves the harbour at nine and follows the river to the hills. A lamp burns in every carriage,
and the guard walks from the first to the last with a list in his hand. He counts the travellers, he counts the trunks,
and he writes both numbers into the book that stays on the train. When the line was young the book was lost in a storm:
the river rose over the rails, the engine stopped, and in the morning nobody could say who had been on board. Since then
two books are kept. One travels, one stays in the harbour, and the guard does not call the train departed before both of
them say the same. Some travellers find this slow. They stand at the window, look at the clock above the platform and
ask why a train that is ready should wait for ink to dry. The guard has heard the question every evening for many years.
He answers that a train may be late and nobody will remember it, but that a journey which no book knows has not been
made. Then he lifts the green lamp, the wheels begin to turn, and the harbour grows small behind the last carriage. In
the hills the stations have no names, only numbers: at the fifth there is water, at the tenth there is coal, and at the
fifteenth the line divides. Those who sleep do not notice it. Those who are awake hear the points move under them and
know, without a look at the map, which of the two valleys they will see when the sun comes up."""


@dataclass
class ScriptArguments:
    """What this script has beyond TrainingArguments."""

    hidden_size: int = field(default=64, metadata={"help": "width of the model; 1024 with 16 layers is about 1 GB"})
    layers: int = field(default=2, metadata={"help": "number of decoder layers"})
    vocabulary_size: int = field(default=512, metadata={"help": "rows of the embedding"})
    sequence_length: int = field(default=32, metadata={"help": "tokens in one sample"})
    lora: bool = field(default=False, metadata={"help": "train a LoRA adapter (PEFT) instead of the whole model"})
    lora_rank: int = field(default=4, metadata={"help": "rank of the adapter"})
    save_base_to: str = field(default="", metadata={"help": "save the model there before it is trained"})
    save_merged_to: str = field(default="", metadata={"help": "save base and adapter as one model there"})
    save_model_to: list[str] = field(default_factory=list, metadata={"help": "more directories for save_model()"})
    shard_sizes: list[str] = field(
        default_factory=list,
        metadata={"help": "save the model in shards of this size under OUTPUT_DIR/sharded, once for each size given"},
    )
    die_at_step: int = field(default=0, metadata={"help": "end by SIGKILL after that step, as a scheduler does"})
    stop_at_step: int = field(default=0, metadata={"help": "stop by SIGSTOP when that step has been logged"})


class JsonLines(TrainerCallback):
    """Appends what Trainer logs to OUTPUT_DIR/log.jsonl, without the figures that depend on the clock."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            stable = {key: value for key, value in logs.items() if not key.endswith(("_runtime", "_per_second"))}
            with open(os.path.join(args.output_dir, "log.jsonl"), "a", encoding="utf-8") as log:
                log.write(json.dumps({"step": state.global_step, **stable}) + "\n")


class DieAtStep(TrainerCallback):
    """Kills the process at the end of one step: nothing is flushed and no handler runs."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class StopAtStep(TrainerCallback):
    """Stands still in the middle of the run, until it gets SIGCONT."""

    def __init__(self, step):
        self.step = step

    def on_log(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGSTOP)


def make_tokenizer(vocabulary_size):
    """A byte-pair tokenizer trained on TEXT."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=vocabulary_size, special_tokens=special))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def make_datasets(tokenizer, length):
    """Overlapping windows of the tokenized text; every eighth is for evaluation."""
    tokens = tokenizer(TEXT)["input_ids"]
    windows = [tokens[start : start + length] for start in range(0, len(tokens) - length, length // 8)]
    samples = [{"input_ids": window, "labels": window} for window in windows]
    train = [sample for index, sample in enumerate(samples) if index % 8]
    return train, samples[::8]


def make_model(arguments):
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=arguments.vocabulary_size,
            hidden_size=arguments.hidden_size,
            intermediate_size=4 * arguments.hidden_size,
            num_hidden_layers=arguments.layers,
            num_attention_heads=4,
            max_position_embeddings=4 * arguments.sequence_length,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def add_adapter(model, rank):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=rank, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))


def main(command_line=None):
    parser = HfArgumentParser((ScriptArguments, TrainingArguments))
    parser.set_defaults(use_cpu=True, full_determinism=True, report_to="none", disable_tqdm=True, logging_steps=1)
    parser.set_defaults(per_device_train_batch_size=4, learning_rate=1e-3, dataloader_pin_memory=False)
    script, arguments = parser.parse_args_into_dataclasses(command_line)
    torch.set_num_threads(1)
    set_seed(arguments.seed)

    tokenizer = make_tokenizer(script.vocabulary_size)
    train, evaluation = make_datasets(tokenizer, script.sequence_length)
    model = make_model(script)
    if script.save_base_to:
        model.save_pretrained(script.save_base_to)
    trainer = Trainer(
        model=add_adapter(model, script.lora_rank) if script.lora else model,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        callbacks=[JsonLines(), DieAtStep(script.die_at_step), StopAtStep(script.stop_at_step)],
    )
    resume = arguments.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=True if resume == "True" else resume)

    trainer.save_model()
    trainer.save_state()
    for directory in script.save_model_to:
        trainer.save_model(directory)
    for size in script.shard_sizes:
        trainer.model.save_pretrained(os.path.join(arguments.output_dir, "sharded"), max_shard_size=size)
    if script.save_merged_to:
        trainer.model.merge_and_unload().save_pretrained(script.save_merged_to)
        tokenizer.save_pretrained(script.save_merged_to)


if __name__ == "__main__":
    main()
