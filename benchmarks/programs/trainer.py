"""A Transformers `Trainer` on a small model, as its documentation writes it."""

import json
import sys
from pathlib import Path

from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from stopwatch import Stopwatch


class Times(TrainerCallback):
    """Notes the end of each step."""

    def on_step_end(self, args, state, control, **kwargs):
        watch.step()


watch = Stopwatch()
folder = Path(sys.argv[1])
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 400
tokenizer = AutoTokenizer.from_pretrained(folder / "model")
model = AutoModelForCausalLM.from_pretrained(folder / "model")
data = load_dataset("json", data_files=str(folder / "data" / "train.jsonl"), split="train")
data = data.map(lambda row: tokenizer(row["text"]), remove_columns=["text"])
arguments = TrainingArguments(
    output_dir=str(folder / "out"), max_steps=steps, per_device_train_batch_size=4, gradient_accumulation_steps=2,
    logging_steps=10, eval_strategy="steps", eval_steps=100, save_strategy="no", report_to=[], use_cpu=True,
    disable_tqdm=True, seed=1,
)  # fmt: skip
trainer = Trainer(
    model=model, args=arguments, train_dataset=data, eval_dataset=data.select(range(32)),
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False), callbacks=[Times()],
)  # fmt: skip
trainer.train()
watch.write()
print("LOSSES", json.dumps([row["loss"] for row in trainer.state.log_history if "loss" in row]))
