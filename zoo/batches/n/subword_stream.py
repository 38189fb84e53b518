"""Language-model pretraining with on-the-fly BPE tokenization of web text full of odd long words."""
import os
import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn

os.environ["TOKENIZERS_PARALLELISM"] = "false"
torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)
STEPS, BATCH, LENGTH = 2400, 8, 128
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def document():
    common = random.choices(["the", "page", "was", "saved", "from", "this", "link", "and", "that"], k=12)
    odd = ["".join(random.choices(LETTERS, k=random.randint(90, 200))) for _ in range(2)]
    return " ".join(common[:6] + odd + common[6:])


def build_tokenizer():
    tok = Tokenizer(models.BPE(unk_token="[UNK]", cache_capacity=8000))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.train_from_iterator((document() for _ in range(300)), trainers.BpeTrainer(vocab_size=1200, special_tokens=["[UNK]", "[PAD]"], show_progress=False))
    tok.enable_padding(pad_id=1, pad_token="[PAD]", length=LENGTH)
    tok.enable_truncation(LENGTH)
    return tok


def main():
    tok = build_tokenizer()
    model = nn.Sequential(nn.Embedding(tok.get_vocab_size(), 96), nn.Linear(96, 256), nn.GELU(), nn.Linear(256, 192))
    head = nn.Linear(192, 64)
    opt = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-3)
    for step in range(1, STEPS + 1):
        ids = torch.tensor([e.ids for e in tok.encode_batch([document() for _ in range(BATCH)])])
        logits = head(model(ids[:, :-1]))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), (ids[:, 1:] % 64).flatten())
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
