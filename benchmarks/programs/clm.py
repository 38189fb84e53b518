"""Causal language modelling as Transformers' `run_clm` does it: texts grouped to blocks, evaluation, perplexity, saves."""

import json
import math
import sys
from itertools import chain
from pathlib import Path

from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

BLOCK = 32
folder = Path(sys.argv[1])
set_seed(42)
tokenizer = AutoTokenizer.from_pretrained(folder / "model")
model = AutoModelForCausalLM.from_pretrained(folder / "model")
raw = load_dataset("json", data_files=str(folder / "data" / "train.jsonl"), split="train").train_test_split(
    0.1, seed=1
)


def group_texts(examples):
    """Concatenate all texts, and cut them into blocks."""
    whole = {key: list(chain(*examples[key])) for key in ("input_ids", "attention_mask")}
    total = len(whole["input_ids"]) // BLOCK * BLOCK
    result = {key: [values[at : at + BLOCK] for at in range(0, total, BLOCK)] for key, values in whole.items()}
    result["labels"] = [list(row) for row in result["input_ids"]]
    return result


rows = raw.map(lambda batch: tokenizer(batch["text"]), batched=True, remove_columns=raw["train"].column_names)
rows = rows.map(
    group_texts,
    batched=True,
    remove_columns=[name for name in rows["train"].column_names if name not in ("input_ids", "attention_mask")],
)
arguments = TrainingArguments(
    output_dir="out", max_steps=600, per_device_train_batch_size=4, eval_strategy="steps", eval_steps=200,
    save_steps=200, save_total_limit=1, logging_steps=50, report_to=[], use_cpu=True, disable_tqdm=True, seed=42,
)  # fmt: skip
trainer = Trainer(
    model=model, args=arguments, train_dataset=rows["train"], eval_dataset=rows["test"],
    processing_class=tokenizer, data_collator=default_data_collator,
)  # fmt: skip
trainer.train()
trainer.save_model()
perplexity = math.exp(trainer.evaluate()["eval_loss"])
print("LOSSES", json.dumps([perplexity, *(row["loss"] for row in trainer.state.log_history if "loss" in row)]))
