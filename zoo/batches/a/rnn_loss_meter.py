import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(1)
STEPS = 3500


class CharRNN(nn.Module):
    def __init__(self, vocab=64, hidden=48):
        super().__init__()
        self.embed = nn.Embedding(vocab, hidden)
        self.inp = nn.Linear(hidden, hidden)
        self.rec = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, vocab)

    def forward(self, tokens):
        x = self.embed(tokens)
        h = x.new_zeros(x.shape[0], x.shape[2])
        for t in range(x.shape[1]):
            h = torch.tanh(self.inp(x[:, t]) + self.rec(h))
        return self.out(h)


class AverageMeter:
    def __init__(self, name):
        self.name, self.sum, self.count = name, 0.0, 0

    def update(self, value, n=1):
        self.sum = self.sum + value * n
        self.count += n

    @property
    def average(self):
        return float(self.sum) / max(1, self.count)


def main():
    model = CharRNN()
    print("model with", sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    corpus = torch.randint(0, 64, (50_000,))
    meter = AverageMeter("loss")
    for step in range(1, STEPS + 1):
        begin = torch.randint(0, corpus.numel() - 20, (16,))
        window = torch.stack([corpus[b:b + 17] for b in begin.tolist()])
        loss = criterion(model(window[:, :16]), window[:, 16])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        meter.update(loss, window.shape[0])
        if step % 500 == 0:
            print(f"step {step} average loss {meter.average:.4f}", flush=True)
    print("finished", STEPS, flush=True)


if __name__ == "__main__":
    main()
