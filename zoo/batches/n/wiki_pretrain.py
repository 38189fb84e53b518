"""Pretrain a byte-level bag model on an XML dump, page by page."""
import os
import random
import tempfile
import xml.etree.ElementTree as ET

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, BATCH, CONTEXT = 2200, 10, 96


def write_dump(path, pages):
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(3000)]
    with open(path, "w") as f:
        f.write("<mediawiki>\n")
        for i in range(pages):
            text = " ".join(rng.choices(words, k=420))
            f.write(f"<page><title>T{i}</title><ns>0</ns><id>{i}</id>")
            f.write(f"<revision><timestamp>2020-01-01</timestamp><text>{text}</text></revision></page>\n")
        f.write("</mediawiki>\n")


def articles(path):
    for _, elem in ET.iterparse(path, events=("end",)):
        if elem.tag == "page" and elem.findtext("ns") == "0":
            yield elem.findtext("revision/text")


def batches(path):
    rows = []
    for text in articles(path):
        raw = text.encode()
        at = random.randrange(len(raw) - CONTEXT - 1)
        rows.append(list(raw[at : at + CONTEXT + 1]))
        if len(rows) == BATCH:
            yield torch.tensor(rows)
            rows = []


class ByteModel(nn.Module):
    def __init__(self, width=160):
        super().__init__()
        self.embed = nn.Embedding(256, width)
        self.mix = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, 256)

    def forward(self, ids):
        h, _ = self.mix(self.embed(ids))
        return self.out(h[:, -32:])


def main():
    path = os.path.join(tempfile.gettempdir(), f"dump-{os.getpid()}.xml")
    write_dump(path, STEPS * BATCH)
    model = ByteModel(96)
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step, ids in enumerate(batches(path), 1):
        logits = model(ids[:, 33:-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, -32:].flatten())
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 200 == 0:
            print(f"step {step} bits {loss.item() / 0.6931:.3f}", flush=True)
    os.remove(path)


if __name__ == "__main__":
    main()
