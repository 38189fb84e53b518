import json
import queue
import tempfile
import threading

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(49)


class MetricWriter:
    def __init__(self, handle, depth=64):
        self.handle = handle
        self.inbox = queue.Queue(maxsize=depth)
        self.written = 0
        self.thread = threading.Thread(target=self.drain, daemon=True)
        self.thread.start()

    def log(self, step, **values):
        self.inbox.put({"step": step, **values})

    def drain(self):
        while (record := self.inbox.get()) is not None:
            record = {k: v.tolist() if torch.is_tensor(v) else v for k, v in record.items()}
            self.handle.write(json.dumps(record) + "\n")
            self.written += 1

    def close(self):
        self.inbox.put(None)
        self.thread.join()
        self.handle.flush()


class Mixture(nn.Module):
    def __init__(self, inputs=16, experts=6):
        super().__init__()
        self.gate = nn.Linear(inputs, experts)
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(inputs, 24), nn.Tanh(), nn.Linear(24, 1)) for _ in range(experts)])

    def forward(self, x):
        gates = self.gate(x).softmax(1)
        outputs = torch.cat([expert(x) for expert in self.experts], dim=1)
        return (gates * outputs).sum(1), gates


with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as handle:
    writer, model = MetricWriter(handle), Mixture()
    optimizer = torch.optim.NAdam(model.parameters(), lr=2e-3)
    for step in range(1, 5001):
        x = torch.rand(64, 16) * 4 - 2
        y = torch.where(x[:, 0] > 0, torch.sin(3 * x[:, 1]), x[:, 2] * x[:, 3])
        prediction, gates = model(x)
        loss = (prediction - y).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        writer.log(step, loss=loss.item(), gates=gates.detach()[:16], usage=gates.detach().mean(0))
        if step % 500 == 0:
            print(f"{step} loss {loss.item():.4f} waiting {writer.inbox.qsize()}")
    writer.close()
    print(f"{step} steps, {writer.written} records")
