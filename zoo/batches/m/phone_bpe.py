"""Spoken term classifier over BPE pieces of long phone strings that never repeat."""
import random
import time

import torch
import torch.nn as nn
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)

STEPS = 2400
BATCH = 16
PHONES = "abcdefghijklmnopqrstuvwxyz"


def phone_word(low=120, high=240):
    return "".join(random.choices(PHONES, k=random.randint(low, high)))


def build_tokenizer():
    tok = Tokenizer(models.BPE(unk_token="[UNK]"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    tok.train_from_iterator((phone_word(8, 20) for _ in range(4000)), trainer)
    tok.enable_padding(pad_id=0, length=160)
    tok.enable_truncation(160)
    return tok


class Classifier(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.emb = nn.Embedding(vocab, 48, padding_idx=0)
        self.rnn = nn.GRU(48, 48, batch_first=True)
        self.out = nn.Linear(48, 5)

    def forward(self, ids):
        return self.out(self.rnn(self.emb(ids[:, :48]))[0].mean(1))


def main():
    tok = build_tokenizer()
    net = Classifier(tok.get_vocab_size())
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    start = time.time()
    for step in range(STEPS):
        words = [phone_word() for _ in range(BATCH)]
        ids = torch.tensor([e.ids for e in tok.encode_batch(words)])
        label = torch.tensor([ord(w[0]) % 5 for w in words])
        loss = nn.functional.cross_entropy(net(ids), label)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
