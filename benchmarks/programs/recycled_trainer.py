"""A Transformers `Trainer` that goes on in fresh processes: `python recycled_trainer.py OUTPUT_FOLDER`."""

import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from holdwater.frameworks.transformers.recycle import RecycleCallback, last_checkpoint

torch.manual_seed(0)
torch.set_num_threads(1)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, attention_dropout=0.1,
)  # fmt: skip
model = LlamaForCausalLM(config)
generator = torch.Generator().manual_seed(3)
rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (200, 16), generator=generator)]
arguments = TrainingArguments(
    output_dir=sys.argv[1], max_steps=90, per_device_train_batch_size=4, logging_steps=30, save_strategy="no",
    report_to=[], use_cpu=True, disable_tqdm=True, seed=1,
)  # fmt: skip
trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[RecycleCallback()])
trainer.train(resume_from_checkpoint=last_checkpoint(sys.argv[1]))
print("WEIGHTS", [parameter.double().sum().item().hex() for parameter in model.parameters()])
