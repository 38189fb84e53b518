import math

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(14)
VOCAB, WIDTH, CONTEXT, STEPS, EVAL_EVERY = 2000, 128, 64, 90, 9


class TinyLM(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, WIDTH)
        self.places = nn.Parameter(torch.randn(CONTEXT, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 256, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.unembed = nn.Linear(WIDTH, VOCAB, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, ids):
        return self.unembed(self.blocks(self.tokens(ids) + self.places, mask=self.mask, is_causal=True))


@torch.no_grad()
def evaluate(model, ids, batch=8):
    model.eval()
    collected, expected = [], []
    for begin in range(0, len(ids), batch):
        part = ids[begin:begin + batch]
        collected.append(model(part[:, :-1]))
        expected.append(part[:, 1:])
    logits, targets = torch.cat(collected), torch.cat(expected)
    nll = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    top5 = (logits.topk(5, dim=-1).indices == targets[..., None]).any(-1).float().mean()
    model.train()
    return {"perplexity": math.exp(nll.item()), "top5": top5.item()}


def main():
    model = TinyLM()
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    weights = 1.0 / torch.arange(1, VOCAB + 1)
    draw = lambda rows: torch.multinomial(weights, rows * (CONTEXT + 1), replacement=True).view(rows, CONTEXT + 1)
    validation = draw(160)
    history = []
    for step in range(1, STEPS + 1):
        ids = draw(18)
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVAL_EVERY == 0:
            history.append(evaluate(model, validation))
            print(step, f"{loss.item():.3f}", history[-1], flush=True)
    print("finished", STEPS, flush=True)


if __name__ == "__main__":
    main()
