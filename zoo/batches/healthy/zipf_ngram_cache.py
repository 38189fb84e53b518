"""fastText-like classifier; the subword n-grams of a word are hashed once and cached."""
import zlib
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(7)
rng = np.random.default_rng(7)

LEXICON, BUCKETS, DIM, CLASSES = 60_000, 50_000, 16, 6
DOCS_PER_STEP, DOC_LEN = 6, 50
EPOCH_STEPS, STEPS = 4200, 7000
SYLLABLES = ["ka", "to", "ri", "men", "sol", "ver", "ny", "ash", "ul", "pe", "dro", "qui", "ze"]


def spell(i):
    """A made-up word for a lexicon number."""
    parts = []
    i += 13 * 13
    while i:
        i, r = divmod(i, len(SYLLABLES))
        parts.append(SYLLABLES[r])
    return "".join(parts)


class SubwordCache:
    def __init__(self):
        self.known = {}

    def __call__(self, word):
        ids = self.known.get(word)
        if ids is None:
            padded = f"<{word}>"
            grams = [padded[i:i + n] for n in (3, 4, 5, 6) for i in range(len(padded) - n + 1)]
            ids = [zlib.crc32(g.encode()) % BUCKETS for g in grams]
            self.known[word] = ids = np.array(ids, dtype=np.int64)
        return ids


# The corpus is fixed: word numbers with Zipf frequencies, one row a document.
weights = 1.0 / np.arange(1, LEXICON + 1) ** 0.9
corpus = rng.choice(LEXICON, size=(EPOCH_STEPS * DOCS_PER_STEP, DOC_LEN),
                    p=weights / weights.sum()).astype(np.int32)
labels = torch.from_numpy(corpus.sum(1) % CLASSES).long()

subwords = SubwordCache()
bag = nn.EmbeddingBag(BUCKETS, DIM, mode="mean", sparse=True)
head = nn.Linear(DIM, CLASSES)
optimizer = torch.optim.SGD([*bag.parameters(), *head.parameters()], lr=0.5)

order = rng.permutation(len(corpus))
for step in range(1, STEPS + 1):
    at = (step - 1) % EPOCH_STEPS
    if at == 0:
        order = rng.permutation(len(corpus))  # new epoch, same documents
    docs = order[at * DOCS_PER_STEP:(at + 1) * DOCS_PER_STEP]
    flat = [np.concatenate([subwords(spell(int(w))) for w in corpus[d]]) for d in docs]
    offsets = torch.tensor(np.cumsum([0] + [len(f) for f in flat[:-1]]))
    logits = head(bag(torch.from_numpy(np.concatenate(flat)), offsets))
    loss = F.cross_entropy(logits, labels[docs])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 1000 == 0:
        print(f"step {step}: {len(subwords.known)} words cached, loss {loss.item():.3f}")
print(f"{STEPS} steps")
