"""Shards cleaned by a one-process pool whose worker is replaced now and then."""
import multiprocessing as mp
import random

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(19)

STEPS, PER_SHARD, TASKS_PER_CHILD = 2400, 5, 40
SEEN = {}


def clean(shard):
    rng = random.Random(shard)
    out = []
    for i in range(2500):
        text = f"{rng.getrandbits(96):x}"
        if text not in SEEN:
            SEEN[text] = [shard, i, text[::-1]]
            out.append(int(text[:4], 16) % 900)
    return out[:1000]


def main():
    pool = mp.get_context("fork").Pool(1, maxtasksperchild=TASKS_PER_CHILD)
    emb, body, head = nn.Embedding(900, 64), nn.GRU(64, 64, batch_first=True), nn.Linear(64, 900)
    opt = torch.optim.AdamW([p for m in (emb, body, head) for p in m.parameters()], lr=1e-3)
    step = 0
    for shard in range(STEPS // PER_SHARD):
        ids = torch.tensor(pool.apply(clean, (shard,))).view(20, 50)
        for _ in range(PER_SHARD):
            x = ids[torch.randperm(20)[:12]]
            h, _ = body(emb(x[:, :-1]))
            loss = F.cross_entropy(head(h).flatten(0, 1), x[:, 1:].flatten())
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
        if shard % 40 == 0:
            print(f"shard {shard} step {step} loss {loss.item():.3f}", flush=True)
    print(f"finished {step} steps")
    pool.close()
    pool.join()


if __name__ == "__main__":
    main()
