"""A tiny GPT-2 under the Trainer; every evaluation gathers all logits for compute_metrics."""
import tempfile

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

torch.set_num_threads(1)
torch.manual_seed(0)


class Ramps(Dataset):
    def __init__(self, n, length=32, vocab=400, seed=0):
        g = torch.Generator().manual_seed(seed)
        start = torch.randint(0, vocab, (n, 1), generator=g)
        stride = torch.randint(1, 5, (n, 1), generator=g)
        self.ids = (start + stride * torch.arange(length)) % vocab

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i]}


def compute_metrics(pred):
    guess = pred.predictions[:, :-1].argmax(-1)
    return {"token_accuracy": float((guess == pred.label_ids[:, 1:]).mean())}


config = GPT2Config(vocab_size=400, n_positions=32, n_embd=64, n_layer=2, n_head=2,
                    bos_token_id=0, eos_token_id=0)
with tempfile.TemporaryDirectory() as out:
    args = TrainingArguments(out, max_steps=1200, per_device_train_batch_size=8, per_device_eval_batch_size=32,
                             eval_strategy="steps", eval_steps=100, save_strategy="no", logging_steps=100,
                             report_to=[], use_cpu=True, disable_tqdm=True, learning_rate=1e-3)
    trainer = Trainer(model=GPT2LMHeadModel(config), args=args, train_dataset=Ramps(4000),
                      eval_dataset=Ramps(1000, seed=1), compute_metrics=compute_metrics)
    trainer.train()
    print("done", trainer.state.global_step)
