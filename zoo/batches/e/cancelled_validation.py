"""Learner with callbacks that are attached for the length of a validation."""
from contextlib import contextmanager

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(11)
BATCH, FEATURES, CLASSES, STEPS, VALID_EVERY = 64, 64, 5, 6000, 60


class CancelValidException(Exception):
    pass


class PredictionTable:
    """One row per validated sample, for the table printed after the validation."""

    def __init__(self, learn):
        self.learn, self.rows, self.running = learn, [], True

    def after_batch(self, batch_index, scores, target):
        if not self.running:
            return
        for i, (row, label) in enumerate(zip(scores.tolist(), target.tolist())):
            self.rows.append({"name": f"valid/{batch_index:03d}_{i:02d}.png", "scores": row, "label": label})

    def after_validate(self):
        self.running = False


class Learner:
    def __init__(self, model):
        self.model, self.cbs, self.best = model, [], float("inf")
        self.opt = torch.optim.Adam(model.parameters(), lr=1e-3)

    @contextmanager
    def added_cbs(self, *cbs):
        self.cbs.extend(cbs)
        yield
        for cb in cbs:
            self.cbs.remove(cb)

    def one_batch(self, x, y):
        loss = nn.functional.cross_entropy(self.model(x), y)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item()

    @torch.no_grad()
    def validate(self, batches):
        table, total = PredictionTable(self), 0.0
        try:
            with self.added_cbs(table):
                for n, (x, y) in enumerate(batches):
                    scores = self.model(x)
                    total += nn.functional.cross_entropy(scores, y).item()
                    for cb in self.cbs:
                        cb.after_batch(n, scores.softmax(1), y)
                    if n >= 30 and total / (n + 1) > self.best:
                        raise CancelValidException
            self.best = min(self.best, total / len(batches))
        except CancelValidException:
            pass
        table.after_validate()
        return len(table.rows)


learn = Learner(nn.Sequential(nn.Linear(FEATURES, 384), nn.ReLU(), nn.Linear(384, 256), nn.ReLU(), nn.Linear(256, CLASSES)))
truth = torch.randn(FEATURES, CLASSES)
valid = [(x, (x @ truth + 3 * torch.randn(BATCH, CLASSES)).argmax(1)) for x in torch.randn(40, BATCH, FEATURES)]
for step in range(1, STEPS + 1):
    x = torch.randn(BATCH, FEATURES)
    loss = learn.one_batch(x, (x @ truth + 3 * torch.randn(BATCH, CLASSES)).argmax(1))
    if step % VALID_EVERY == 0:
        seen = learn.validate(valid)
        if step % 1200 == 0:
            print(f"step {step} loss {loss:.3f} best {learn.best:.3f} rows {seen}")
print(f"{STEPS} steps")
