r"""Train a small Llama with Transformers' Trainer, and let holdwater look after its memory.

    python examples/trainer.py demo                 # what is found is told at the end
    python examples/trainer.py demo --leak          # with the line that allocates, and the name that holds
    python examples/trainer.py demo --leak --budget 1GB     # stops with a checkpoint and exit code 75
    python examples/trainer.py demo                 # and goes on from there
    holdwater run --supervise --reload-interval 100 examples/trainer.py demo --leak    # in fresh processes

The model has random weights and learns random rows, so nothing is downloaded.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import transformers

import holdwater
from holdwater.frameworks.transformers.recycle import last_checkpoint
from holdwater.frameworks.transformers.trainer import HoldwaterTrainer

LOGITS: list[torch.Tensor] = []
"""A mistake that is easily made: for a metric at the end, everything is kept."""


class Hoarder(HoldwaterTrainer):
    """A trainer with recovery from out-of-memory, and with that mistake."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as its base
        """The loss; the logits of each batch are kept."""
        wants_outputs = kwargs.pop("return_outputs", False)
        loss, outputs = super().compute_loss(model, inputs, *args, return_outputs=True, **kwargs)
        LOGITS.append(outputs["logits"].detach())
        return (loss, outputs) if wants_outputs else loss


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the checkpoints")
    parser.add_argument("--leak", action="store_true", help="keep the logits of all batches")
    parser.add_argument("--budget", help="the memory that may be used, such as 1GB")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
        )
    )
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 500, (400, 64))]
    arguments = transformers.TrainingArguments(
        output_dir=str(options.folder), max_steps=options.steps, per_device_train_batch_size=4, logging_steps=50,
        eval_strategy="steps", eval_steps=100, save_steps=100, report_to=[], use_cpu=True, seed=1,
    )  # fmt: skip
    callback = holdwater.HoldwaterCallback(
        max_memory=options.budget, json="memory.json", cleanup_every_n_steps=100
    )
    kind = Hoarder if options.leak else HoldwaterTrainer
    trainer = kind(model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:16], callbacks=[callback])
    trainer.train(resume_from_checkpoint=last_checkpoint(options.folder))
    print(f"trained to step {trainer.state.global_step}")


if __name__ == "__main__":
    main()
