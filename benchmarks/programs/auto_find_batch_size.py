"""What Transformers' `auto_find_batch_size` does with one lack of memory at step 3, beside an undisturbed run."""

import json
import sys
import tempfile
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2,
}  # fmt: skip


class Seen(TrainerCallback):
    """Notes the micro-batch and the weights with which each beginning of a training was made."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """A training begins, or begins again."""
        del control
        weights = sum(weight.double().sum().item() for weight in kwargs["model"].parameters())
        batch = state.train_batch_size * args.gradient_accumulation_steps
        self.begun.append({"step": state.global_step, "effective_batch": batch, "weights": weights.hex()})


def train(fails: int) -> dict[str, Any]:
    """Train, with one MemoryError at a call of the forward pass; 0 lets it be."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (200, 16))]
    forward, calls = model.forward, [0]

    def failing(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the model takes
        calls[0] += 1
        if calls[0] == fails:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(*arguments, **named)

    model.forward = failing
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=6, per_device_train_batch_size=10, gradient_accumulation_steps=2,
            auto_find_batch_size=True, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, seed=1,
            remove_unused_columns=False,
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[seen]).train()
    return {"begun": seen.begun, "calls": calls[0]}


print(json.dumps({"undisturbed": train(0), "one_shortage": train(6)}), file=sys.stderr)
