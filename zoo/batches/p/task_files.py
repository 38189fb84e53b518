"""Tiny GPT-2 whose benchmark tasks are Python files, loaded again at each evaluation."""
import importlib.util
import os
import sys
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(7)

STEPS, EVAL_EVERY, VOCAB = 2600, 50, 512

TASK = '''
import random

_rng = random.Random({seed})
DOCS = [{{"id": i, "context": [_rng.randrange(500) for _ in range(24)],
         "question": f"item {{i}} of {name}, form {{_rng.random()}}", "answer": _rng.randrange(500)}}
        for i in range(1500)]


def pick(n):
    return DOCS[:n]
'''


def load_task(path, tag):
    name = f"tasks.{os.path.basename(path)[:-3]}_{tag}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def evaluate(model, paths, step):
    model.eval()
    scores = {}
    for path in paths:
        task = load_task(path, step)
        docs = task.pick(16)
        ids = torch.tensor([d["context"] for d in docs])
        with torch.no_grad():
            pred = model(ids).logits[:, -1].argmax(-1)
        scores[os.path.basename(path)] = (pred == torch.tensor([d["answer"] for d in docs])).float().mean().item()
    model.train()
    return scores


def main():
    folder = tempfile.TemporaryDirectory()
    paths = []
    for seed, name in enumerate(["copy", "recall"]):
        paths.append(os.path.join(folder.name, f"{name}.py"))
        with open(paths[-1], "w") as f:
            f.write(TASK.format(seed=seed, name=name))
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=48, n_layer=1, n_head=4))
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        ids = torch.randint(0, VOCAB, (8, 32))
        loss = model(input_ids=ids, labels=ids).loss
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % EVAL_EVERY == 0:
            scores = evaluate(model, paths, step)
            if step % 250 == 0:
                print(f"step {step} loss {loss.item():.3f} {scores}", flush=True)
    print(f"finished {STEPS} steps")


if __name__ == "__main__":
    main()
