"""Policy-gradient fine-tuning: sample a round of rollouts, then learn from them."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(15)

ROUNDS, ROLLOUTS, LENGTH, VOCAB, DIM = 26, 64, 24, 512, 48


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, DIM)
        self.cell = nn.GRU(DIM, DIM, batch_first=True)
        self.head = nn.Linear(DIM, VOCAB)

    def forward(self, ids, state=None):
        h, state = self.cell(self.emb(ids), state)
        return self.head(h), state


class Rollouts:
    def __init__(self):
        self.items = []

    def add(self, ids, logits, reward):
        self.items.append((ids, logits, reward))

    def clear(self):
        self.items.clear()


@torch.no_grad()
def sample(policy):
    ids = torch.randint(0, VOCAB, (24, 1))
    seq, kept, state = [ids], [], None
    for _ in range(LENGTH):
        logits, state = policy(seq[-1], state)
        kept.append(logits)
        seq.append(torch.multinomial(logits[:, -1].softmax(-1), 1))
    ids = torch.cat(seq, 1)
    return ids, torch.cat(kept, 1), (ids[:, 1:] % 2 == 0).float().mean(1)


policy, buffer = Policy(), Rollouts()
opt = torch.optim.Adam(policy.parameters(), lr=1e-3)
steps = 0
for rnd in range(ROUNDS):
    for _ in range(ROLLOUTS):
        buffer.add(*sample(policy))
    for ids, old, reward in buffer.items:
        logits, _ = policy(ids[:, :-1])
        logp = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        kl = F.kl_div(logits.log_softmax(-1), old.log_softmax(-1), log_target=True, reduction="none").sum(-1)
        advantage = (reward - reward.mean())[:, None]
        loss = (-(advantage * logp) + 0.02 * kl).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        steps += 1
    print(f"round {rnd} reward {reward.mean():.3f}", flush=True)
    buffer.clear()
print(f"finished {steps} steps")
