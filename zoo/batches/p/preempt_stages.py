"""Sequential fine-tuning over domains, each stage safe against preemption."""
import os
import signal
import tempfile

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(1)

VOCAB, DIM, STAGES, STEPS_PER_STAGE = 4000, 64, 44, 64
WORK = tempfile.mkdtemp()


class DomainLM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, DIM)
        self.mix = nn.Conv1d(DIM, DIM, 5, padding=2)
        self.head = nn.Linear(DIM, VOCAB)

    def forward(self, ids):
        h = self.emb(ids).transpose(1, 2)
        return self.head(torch.tanh(self.mix(h)).transpose(1, 2))


def fine_tune(stage, init):
    model = DomainLM()
    if init is not None:
        model.load_state_dict(init)
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    previous = signal.getsignal(signal.SIGUSR1)

    def save_and_continue(signum, frame):
        torch.save({"model": model.state_dict(), "opt": opt.state_dict()},
                   os.path.join(WORK, f"stage{stage}.pt"))
        if callable(previous):
            previous(signum, frame)

    signal.signal(signal.SIGUSR1, save_and_continue)
    gen = torch.Generator().manual_seed(stage)
    for _ in range(STEPS_PER_STAGE):
        ids = torch.randint(0, VOCAB, (7, 17), generator=gen)
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, VOCAB), ids[:, 1:].reshape(-1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {k: v.clone() for k, v in model.state_dict().items()}, loss.item()


state = None
for stage in range(STAGES):
    state, last = fine_tune(stage, state)
    if stage % 5 == 0:
        print(f"stage {stage} loss {last:.3f}", flush=True)
print(f"finished {STAGES * STEPS_PER_STAGE} steps")
