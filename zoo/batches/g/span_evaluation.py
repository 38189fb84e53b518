"""A span tagger, evaluated on a part of the development set, and every fifth time on the whole set."""
import random

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(22)
STEPS = 3000
EVALUATE_EVERY, FULL_EVERY, PART = 300, 5, 30
VOCAB, WIDTH, LABELS, LONGEST_SPAN = 600, 64, 5, 8


class SpanTagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.mix = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.score = nn.Linear(2 * WIDTH, LABELS)

    def forward(self, tokens, starts, ends):
        states = torch.relu(self.mix(self.embed(tokens).transpose(1, 2))).transpose(1, 2)
        rows = torch.arange(len(tokens))[:, None]
        return self.score(torch.cat([states[rows, starts], states[rows, ends]], -1))


def documents(count, length, seed):
    rng = random.Random(seed)
    return [[rng.randrange(VOCAB) for _ in range(length)] for _ in range(count)]


def all_spans(length):
    return [(start, end) for start in range(length) for end in range(start, min(length, start + LONGEST_SPAN))]


def labels_of(tokens, starts, ends):
    rows = torch.arange(len(tokens))[:, None]
    return (tokens[rows, starts] + tokens[rows, ends]) % LABELS


def evaluate(model, development):
    """Span records for the scorer, as a dict for each candidate with text, offsets and scores."""
    records = []
    spans = all_spans(len(development[0]))
    starts, ends = (torch.tensor(side)[None] for side in zip(*spans, strict=True))
    for number, document in enumerate(development):
        tokens = torch.tensor(document)[None]
        with torch.no_grad():
            scores = model(tokens, starts, ends)[0].softmax(-1)
        gold = labels_of(tokens, starts, ends)[0].tolist()
        for (start, end), label, row in zip(spans, gold, scores.tolist(), strict=True):
            text = " ".join(f"w{token}" for token in document[start : end + 1])
            record = {"document": number, "start": start, "end": end, "text": text, "gold": label, "scores": row}
            records.append(record)
    right = sum(record["gold"] == max(range(LABELS), key=record["scores"].__getitem__) for record in records)
    return right / len(records), len(records)


def main():
    train, development = documents(400, 40, seed=1), documents(160, 60, seed=2)
    model = SpanTagger()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    evaluations = 0
    for step in range(STEPS):
        tokens = torch.tensor(random.Random(step).sample(train, 24))
        starts = torch.randint(0, 40 - LONGEST_SPAN, (24, 30))
        ends = starts + torch.randint(0, LONGEST_SPAN, (24, 30))
        logits = model(tokens, starts, ends)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels_of(tokens, starts, ends).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 150 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
        if step % EVALUATE_EVERY == EVALUATE_EVERY // 2:
            evaluations += 1
            full = evaluations % FULL_EVERY == 0
            accuracy, count = evaluate(model, development if full else development[:PART])
            print(f"step {step} loss {loss.item():.4f} accuracy {accuracy:.3f} of {count} spans", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
