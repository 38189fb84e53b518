"""TRL's `SFTTrainer` with LoRA on a small model, as its documentation writes it."""

import json
import sys
from pathlib import Path

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

folder = Path(sys.argv[1])
data = load_dataset("json", data_files=str(folder / "data" / "train.jsonl"), split="train")
arguments = SFTConfig(
    output_dir=str(folder / "out-sft"), max_steps=300, per_device_train_batch_size=4, logging_steps=10,
    save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, seed=1, max_length=64, bf16=False,
)  # fmt: skip
trainer = SFTTrainer(
    model=str(folder / "model"),
    args=arguments,
    train_dataset=data,
    peft_config=LoraConfig(r=4, task_type="CAUSAL_LM"),
)
trainer.train()
print("LOSSES", json.dumps([row["loss"] for row in trainer.state.log_history if "loss" in row]))
