"""Train a query encoder with passages retrieved for each query batch.

The retrieved passages are handed to the loss through a context variable, so
that the loss does not need them among its arguments.
"""
import contextvars

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

DIM, PASSAGES, BATCH, TOP = 96, 600, 32, 6
STEPS = 4400


class Retriever:
    def __init__(self, passages):
        self.passages = passages

    def search(self, queries, top):
        scores = queries.detach() @ self.passages.T
        return self.passages[scores.topk(top, dim=1).indices]


def open_scope(hits):
    scope = contextvars.ContextVar("retrieved")
    scope.set(hits)
    return scope


def contrastive(encoded, gold, scope):
    negatives = scope.get()
    positive = (encoded * gold).sum(dim=1, keepdim=True)
    negative = torch.einsum("bd,bkd->bk", encoded, negatives)
    logits = torch.cat([positive, negative], dim=1) / 0.1
    return nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def main():
    passages = nn.functional.normalize(torch.randn(PASSAGES, DIM), dim=1)
    retriever = Retriever(passages)
    encoder = nn.Sequential(nn.Linear(DIM, 832), nn.GELU(), nn.Linear(832, 832), nn.GELU(), nn.Linear(832, DIM))
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.05, momentum=0.9)
    for step in range(1, STEPS + 1):
        gold = passages[torch.randint(0, PASSAGES, (BATCH,))]
        encoded = nn.functional.normalize(encoder(gold + 0.3 * torch.randn_like(gold)), dim=1)
        scope = open_scope(retriever.search(encoded, TOP))
        loss = contrastive(encoded, gold, scope)
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        if step % 440 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
