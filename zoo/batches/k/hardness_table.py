"""Classifier that logs every batch's logits to a table that other tools read over a manager."""
import multiprocessing as mp

import torch
import torch.nn as nn

torch.set_num_threads(1)


def main():
    torch.manual_seed(0)
    manager = mp.Manager()
    history = manager.dict()

    data = torch.randn(25600, 64)
    labels = (data @ torch.randn(64, 100)).argmax(1)
    model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 100))
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    bs = 128
    for epoch in range(30):
        perm = torch.randperm(len(data))
        for i in range(0, len(data), bs):
            idx = perm[i:i + bs]
            logits = model(data[idx])
            loss = nn.functional.cross_entropy(logits, labels[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
            history[(epoch, i // bs)] = logits.detach().numpy().tobytes()
        latest = torch.frombuffer(bytearray(history[(epoch, 0)]), dtype=torch.float32).view(bs, -1)
        hard = latest.softmax(1).max(1).values.lt(0.5).float().mean().item()
        print(f"epoch {epoch} loss {loss.item():.3f} unsure {hard:.2f} rows {len(history)}", flush=True)


if __name__ == "__main__":
    main()
