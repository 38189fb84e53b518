"""The peers of `vision_speed.py`: TRL's SFTTrainer, plain and with a model of Unsloth.

Each is used as its documentation shows, with its own collator. Set are only bf16, AdamW's second beta, a constant
learning rate, the order of the rows, no recomputation of layers, and pictures at the size that the processor gives
them (Unsloth's collator would make them smaller).
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from vision_models import RANK, RATE, SEED, begin, built, processor


class Noted:
    """What is noted of the steps of a trainer."""

    def __init__(self) -> None:
        self.ticks: list[float] = []
        self.losses: list[Any] = []
        self.tokens: list[int] = []

    def result(self) -> dict[str, Any]:
        """As JSON."""
        peak = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
        losses = [float(loss) for loss in self.losses]
        return {"ticks": self.ticks, "losses": losses, "tokens": self.tokens[-1:], "peak": peak}


def ticking(noted: Noted) -> Any:
    """A callback of Transformers that notes when a step ends on the device."""
    from transformers import TrainerCallback

    class Ticking(TrainerCallback):  # type: ignore[misc]
        """Notes when a step ends."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            """Waits for the device."""
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            noted.ticks.append(time.perf_counter())

    return Ticking()


def settings(folder: Path, options: argparse.Namespace, *, size: int, steps: int, **more: Any) -> Any:
    """Of SFTTrainer, for `size` examples a step."""
    return importlib.import_module("trl").SFTConfig(
        output_dir=str(folder / "trl"), max_steps=steps, per_device_train_batch_size=size,
        bf16=not options.small, use_cpu=options.small, gradient_checkpointing=False, logging_steps=1,
        learning_rate=RATE, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0, adam_beta2=0.95,
        max_grad_norm=1.0, report_to="none", save_strategy="no", dataloader_pin_memory=not options.small,
        disable_tqdm=True, seed=SEED, **more,
    )  # fmt: skip


def rows_of(folder: Path, numbers: list[int]) -> list[dict[str, Any]]:
    """Some rows of `rows.jsonl`, in this order."""
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(lines[number]) for number in numbers]


def trl_way(folder: Path, options: argparse.Namespace, order: Callable[[str], list[int]]) -> dict[str, Any]:
    """TRL's SFTTrainer on a data set of pictures, prompts and completions.

    Args:
        folder: Holds rows, adapters and all of the model but its weights.
        options: Of the command line.
        order: The numbers of the rows of a case, step after step.
    """
    import peft

    model = built(options)
    model.set_attn_implementation(options.attention)
    model = peft.PeftModel.from_pretrained(model, str(folder / "adapters"), is_trainable=True)
    known = processor(folder / "built", options.shape, pillow=options.pillow)
    return {case: _trl_case(model, known, folder, options, order(case)) for case in options.cases}


def _trl_case(
    model: Any, known: Any, folder: Path, options: argparse.Namespace, numbers: list[int]
) -> dict[str, Any]:
    """One case."""
    import datasets
    from torch.utils.data import SequentialSampler

    trainers: Any = importlib.import_module("trl")
    begin()
    noted = Noted()

    class InOrder(trainers.SFTTrainer):  # type: ignore[misc]
        """Takes the rows as they come."""

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset if dataset is None else dataset)

        def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
            noted.tokens.append(inputs["input_ids"].numel())
            found = super().compute_loss(model, inputs, *arguments, **named)
            loss = found[0] if isinstance(found, tuple) else found
            noted.losses.append(loss.detach().clone())
            return found

    rows = [
        {
            "images": row["images"],
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in rows_of(folder, numbers)
    ]
    given = datasets.Dataset.from_list(rows).cast_column("images", datasets.Sequence(datasets.Image()))
    config = settings(folder, options, size=len(numbers) // options.steps, steps=options.steps)
    trainer = InOrder(
        model=model, args=config, train_dataset=given, processing_class=known, callbacks=[ticking(noted)]
    )
    trainer.train()
    return noted.result()


def unsloth_way(folder: Path, options: argparse.Namespace, order: Callable[[str], list[int]]) -> dict[str, Any]:
    """Unsloth's FastVisionModel, its collator, and SFTTrainer, as its notebooks show.

    Args:
        folder: Holds rows and all of the model but its weights.
        options: Of the command line.
        order: The numbers of the rows of a case, step after step.
    """
    fast = importlib.import_module("unsloth").FastVisionModel  # it has changed Transformers as it was imported
    auto = importlib.import_module("transformers").AutoModelForImageTextToText
    processor(folder / "built", options.shape, pillow=False).save_pretrained(folder / "built")
    with mock.patch.object(auto, "from_pretrained", lambda *_, **__: built(options)):  # noqa: PT008 - when asked
        model, known = fast.from_pretrained(
            str(folder / "built"), load_in_4bit=False, use_gradient_checkpointing=False,
            dtype=torch.float32 if options.small else torch.bfloat16, local_files_only=True,
        )  # fmt: skip
    model = fast.get_peft_model(
        model, finetune_vision_layers=False, finetune_language_layers=True, r=RANK, lora_alpha=2 * RANK,
        lora_dropout=0, bias="none", use_gradient_checkpointing=False, random_state=SEED,
    )  # fmt: skip
    fast.for_training(model)
    return {case: _unsloth_case(model, known, folder, options, order(case)) for case in options.cases}


def _unsloth_case(
    model: Any, known: Any, folder: Path, options: argparse.Namespace, numbers: list[int]
) -> dict[str, Any]:
    """One case."""
    import datasets

    begin()
    noted = Noted()
    rows = [{"row": json.dumps(row)} for row in rows_of(folder, numbers)]
    config = settings(
        folder, options, size=len(numbers) // options.steps, steps=options.steps, remove_unused_columns=False,
        dataset_text_field="", dataset_kwargs={"skip_prepare_dataset": True}, max_length=2048,
    )  # fmt: skip
    collator = importlib.import_module("unsloth.trainer").UnslothVisionDataCollator(model, known, resize="max")

    def collate(examples: list[Any]) -> Any:
        """Decode pictures, and count the tokens of the batch."""
        batch = collator([_messages(json.loads(one["row"])) for one in examples])
        noted.tokens.append(batch["input_ids"].numel())
        return batch

    trainer = importlib.import_module("trl").SFTTrainer(
        model=model, args=config, train_dataset=datasets.Dataset.from_list(rows), processing_class=known,
        data_collator=collate, callbacks=[ticking(noted)],
    )  # fmt: skip
    trainer.train()
    noted.losses = [said["loss"] for said in trainer.state.log_history if "loss" in said]
    return noted.result()


def _messages(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the collator takes it."""
    from PIL import Image

    with Image.open(row["images"][0]) as file:
        picture = {"type": "image", "image": file.convert("RGB")}
    question, answer = ({"type": "text", "text": row[name]} for name in ("prompt", "completion"))
    return {"messages": [
        {"role": "user", "content": [picture, question]}, {"role": "assistant", "content": [answer]},
    ]}  # fmt: skip
