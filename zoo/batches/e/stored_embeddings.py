"""Sequence tagger on frozen embeddings with an expanding corpus."""
import random

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(9)
random.seed(9)
SENTENCES, TOKENS, VOCAB, DIM, TAGS, BATCH, STEPS = 4000, 20, 3000, 256, 7, 16, 4600
CHUNKS, STEPS_PER_CHUNK = 8, 190


class Sentence:
    def __init__(self):
        self.tokens = torch.randint(0, VOCAB, (TOKENS,))
        self.tags = self.tokens % TAGS
        self.embedding = None


class FrozenEmbeddings(nn.Module):
    """A fixed character-level stand-in: two frozen layers on top of a lookup."""

    def __init__(self):
        super().__init__()
        self.lookup = nn.Embedding(VOCAB, DIM)
        self.mix = nn.Sequential(nn.Linear(DIM, DIM), nn.Tanh(), nn.Linear(DIM, DIM))

    @torch.no_grad()
    def embed(self, sentences):
        fresh = [s for s in sentences if s.embedding is None]
        if fresh:
            encoded = self.mix(self.lookup(torch.stack([s.tokens for s in fresh])))
            for sentence, rows in zip(fresh, encoded):
                sentence.embedding = rows.clone()


class ExpandingChunkSampler:
    """Starts with one chunk of the corpus and adds a chunk at a time."""

    def __init__(self, corpus):
        self.corpus = corpus

    def visible(self, step):
        chunks = min(CHUNKS, 1 + step // STEPS_PER_CHUNK)
        return self.corpus[:len(self.corpus) * chunks // CHUNKS]


corpus = [Sentence() for _ in range(SENTENCES)]
embeddings, sampler = FrozenEmbeddings(), ExpandingChunkSampler(corpus)
tagger = nn.Sequential(nn.Linear(DIM, 512), nn.ReLU(), nn.Linear(512, TAGS))
optimizer = torch.optim.SGD(tagger.parameters(), lr=0.1)
for step in range(STEPS):
    batch = random.sample(sampler.visible(step), BATCH)
    embeddings.embed(batch)
    scores = tagger(torch.stack([s.embedding for s in batch]))
    loss = nn.functional.cross_entropy(scores.flatten(0, 1), torch.cat([s.tags for s in batch]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 500 == 0:
        print(f"step {step} sentences {len(sampler.visible(step))} loss {loss.item():.4f}")
print(f"{STEPS} steps")
