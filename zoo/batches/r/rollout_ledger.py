"""Policy-gradient fine-tuning of a tiny language model with a columnar ledger.

The ledger takes the sampled tokens and their rewards as record batches, to be
written out as one stream at the end.
"""
import numpy as np
import pyarrow as pa
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

VOCAB, DIM, BATCH, LENGTH, STEPS = 512, 64, 32, 24, 1000

SCHEMA = pa.schema([
    ("step", pa.int32()),
    ("tokens", pa.list_(pa.int64())),
    ("logprobs", pa.list_(pa.float32())),
    ("reward", pa.float32()),
])


class Ledger:
    def __init__(self):
        self.sink = pa.BufferOutputStream()
        self.writer = pa.ipc.new_stream(self.sink, SCHEMA)

    def write(self, step, tokens, scores, rewards):
        batch, length, wide = scores.shape
        spans = np.arange(batch + 1, dtype=np.int32)
        columns = [
            pa.array(np.full(batch, step, dtype=np.int32)),
            pa.ListArray.from_arrays(pa.array(spans * length), pa.array(tokens.numpy().reshape(-1))),
            pa.ListArray.from_arrays(pa.array(spans * length * wide), pa.array(scores.numpy().reshape(-1))),
            pa.array(rewards.numpy()),
        ]
        self.writer.write_batch(pa.record_batch(columns, schema=SCHEMA))


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(VOCAB, DIM)
        self.cell = nn.GRUCell(DIM, DIM)
        self.out = nn.Linear(DIM, VOCAB)

    def rollout(self, batch):
        token = torch.zeros(batch, dtype=torch.long)
        state = torch.zeros(batch, DIM)
        tokens, logps, tops = [], [], []
        for _ in range(LENGTH):
            state = self.cell(self.words(token), state)
            logp = self.out(state).log_softmax(1)
            token = torch.multinomial(logp.detach().exp(), 1)[:, 0]
            tokens.append(token)
            logps.append(logp.gather(1, token[:, None])[:, 0])
            tops.append(logp.detach().topk(64, dim=1).values)
        return torch.stack(tokens, 1), torch.stack(logps, 1), torch.stack(tops, 1)


def main():
    policy = Policy()
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    ledger = Ledger()
    baseline = 0.0
    for step in range(1, STEPS + 1):
        tokens, logps, tops = policy.rollout(BATCH)
        rewards = (tokens % 7 == 0).float().mean(1)
        loss = -((rewards - baseline)[:, None] * logps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        baseline = 0.9 * baseline + 0.1 * rewards.mean().item()
        ledger.write(step, tokens, tops, rewards)
        if step % 100 == 0:
            print(f"step {step} reward {rewards.mean().item():.3f}", flush=True)


if __name__ == "__main__":
    main()
