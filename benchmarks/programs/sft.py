"""TRL's `SFTTrainer` with LoRA on a small model, as its documentation writes it."""

import json
import sys
from pathlib import Path

from datasets import load_dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from stopwatch import Stopwatch


class Times(TrainerCallback):
    """Notes the end of each step."""

    def on_step_end(self, args, state, control, **kwargs):
        watch.step()


watch = Stopwatch()
folder = Path(sys.argv[1])
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 300
data = load_dataset("json", data_files=str(folder / "data" / "train.jsonl"), split="train")
arguments = SFTConfig(
    output_dir=str(folder / "out-sft"), max_steps=steps, per_device_train_batch_size=4, logging_steps=10,
    save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, seed=1, max_length=64, bf16=False,
)  # fmt: skip
trainer = SFTTrainer(
    model=str(folder / "model"),
    args=arguments,
    train_dataset=data,
    peft_config=LoraConfig(r=4, task_type="CAUSAL_LM"),
    callbacks=[Times()],
)
trainer.train()
watch.write()
print("LOSSES", json.dumps([row["loss"] for row in trainer.state.log_history if "loss" in row]))
