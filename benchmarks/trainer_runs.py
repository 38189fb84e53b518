"""One training by Transformers' Trainer or TRL's SFTTrainer on a small model made from nothing, for a benchmark.

    python trainer_runs.py Trainer FOLDER --steps 200 --leaks --callback

What it came to is the last line of its output, as JSON: losses and weights to the bit.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
import tokenizers
import torch
import transformers

import holdwater
from holdwater.frameworks.transformers import trainer as trainers
from holdwater.frameworks.transformers.recycle import last_checkpoint

KINDS = ("Trainer", "SFTTrainer")
KEPT: list[torch.Tensor] = []
"""What a leaking run never gives back."""
TrainerCallback: Any = transformers.TrainerCallback


class KilledAt(TrainerCallback):  # type: ignore[misc] # its types are not read
    """Kills the process shortly after a step has ended: in the next one, or while a checkpoint is written."""

    def __init__(self, step: int, after: float) -> None:
        self.step, self.after = step, after

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Set the clock, if it is the step."""
        del args, control, kwargs
        if state.global_step == self.step:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, self.after)


def make_model(hidden: int) -> Any:  # noqa: ANN401 - of Transformers
    """A Llama of random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def make_tokenizer() -> Any:  # noqa: ANN401 - of Transformers
    """Trained on a few words."""
    raw = tokenizers.ByteLevelBPETokenizer()
    raw.train_from_iterator(["hold water, hold fast"] * 3, vocab_size=300, special_tokens=["<s>", "</s>"])
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw._tokenizer,  # noqa: SLF001 - as Transformers' own documentation does
        **special,
    )


def make_rows(count: int, length: int) -> list[dict[str, list[int]]]:
    """Rows whose target tokens differ in number."""
    dice = random.Random(3)  # noqa: S311 - no secret
    rows = []
    for _ in range(count):
        tokens = [dice.randrange(5, 300) for _ in range(length)]
        ignored = 1 + dice.randrange(length // 2)
        rows.append({
            "input_ids": tokens,
            "labels": [-100] * ignored + tokens[ignored:],
            "attention_mask": [1] * length,
        })
    return rows


def make_trainer(
    kind: str,
    folder: Path,
    callbacks: Sequence[Any],
    *,
    hidden: int = 32,
    length: int = 16,
    **settings: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 - of Transformers or TRL
    """A trainer with recovery, as a user writes it.

    Args:
        kind: `Trainer` or `SFTTrainer`.
        folder: For its checkpoints.
        callbacks: Beside its own.
        hidden: The model's width.
        length: Tokens of a row.
        settings: Arguments of the training.
    """
    warnings.simplefilter("ignore")
    rows, model = make_rows(240, length), make_model(hidden)
    given = {
        "output_dir": str(folder), "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4,
        "logging_steps": 1, "report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True,
        "seed": 1, **settings,
    }  # fmt: skip
    if kind == "Trainer":
        arguments = transformers.TrainingArguments(**given)
        return trainers.HoldwaterTrainer(
            model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:10], callbacks=list(callbacks)
        )
    import trl  # noqa: PLC0415 - only for this kind

    data = datasets.Dataset.from_list(rows)
    arguments = trl.SFTConfig(**given, bf16=False, gradient_checkpointing=False)
    return trainers.HoldwaterSFTTrainer(
        model=model, args=arguments, train_dataset=data, eval_dataset=data.select(range(10)),
        processing_class=make_tokenizer(), callbacks=list(callbacks),
    )  # fmt: skip


def let_leak(trainer: Any) -> None:  # noqa: ANN401 - of Transformers or TRL
    """Let its loss function keep something at each call, as a list of metrics that is never cleared does."""
    own = trainer.compute_loss

    def compute_loss(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the trainer's own
        """The loss, and what is kept."""
        KEPT.append(torch.zeros(30_000))
        return own(*args, **kwargs)

    trainer.compute_loss = compute_loss


def weights_of(trainer: Any) -> str:  # noqa: ANN401 - of Transformers or TRL
    """A fingerprint of every bit of the model's weights."""
    found = hashlib.sha256()
    for weight in trainer.model.parameters():
        found.update(weight.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    """Train, and print what it came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--leaks", action="store_true")
    parser.add_argument("--callback", action="store_true")
    parser.add_argument("--save", type=int, default=0)
    parser.add_argument("--kill", type=float, nargs=2, metavar=("STEP", "SECONDS"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    callbacks: list[Any] = (
        [holdwater.HoldwaterCallback(json=options.folder / "v.json")] if options.callback else []
    )
    callbacks += [KilledAt(int(options.kill[0]), options.kill[1])] if options.kill else []
    saving = {"save_strategy": "steps", "save_steps": options.save} if options.save else {}
    trainer = make_trainer(
        options.kind, options.folder / "out", callbacks, max_steps=options.steps, eval_strategy="steps",
        eval_steps=50, **saving,
    )  # fmt: skip
    if options.leaks:
        let_leak(trainer)
    began = time.perf_counter()
    trainer.train(resume_from_checkpoint=last_checkpoint(options.folder / "out"))
    seconds = time.perf_counter() - began
    losses = [
        (row["step"], float(row[name]).hex())
        for row in trainer.state.log_history
        for name in ("loss", "eval_loss")
        if name in row
    ]
    print(json.dumps({"losses": losses, "weights": weights_of(trainer), "seconds": seconds}))


if __name__ == "__main__":
    main()
