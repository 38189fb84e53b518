"""Instruction tuning with one logger per conversation.

Each conversation gets a logger of its own, whose filter puts the conversation's
state into each record, so that problems can be traced to their source.
"""
import logging

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
logging.basicConfig(level=logging.WARNING, format="%(name)s %(message)s")

VOCAB, DIM, LENGTH, BATCH, STEPS = 64, 128, 32, 8, 5200


class ConversationFilter(logging.Filter):
    def __init__(self, tokens, attention):
        super().__init__()
        self.tokens = tokens
        self.attention = attention

    def filter(self, record):
        record.unique = len(set(self.tokens.tolist()))
        record.seen = int(self.attention.sum())
        return True


def conversation_logger(number, tokens):
    logger = logging.getLogger(f"conversation.{number}")
    attention = np.tril(np.ones((LENGTH, LENGTH), dtype=np.float32))
    logger.addFilter(ConversationFilter(tokens.numpy(), attention))
    return logger


class Tuner(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(VOCAB, DIM)
        self.attend = nn.MultiheadAttention(DIM, 4, batch_first=True)
        self.out = nn.Linear(DIM, VOCAB)

    def forward(self, tokens):
        x = self.words(tokens)
        mask = torch.triu(torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool), 1)
        return self.out(x + self.attend(x, x, x, attn_mask=mask, need_weights=False)[0])


def main():
    model = Tuner()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    number = 0
    for step in range(1, STEPS + 1):
        tokens = (torch.randint(0, 8, (BATCH, 1)) * 8 + torch.randint(0, 8, (BATCH, LENGTH))) % VOCAB
        loggers = []
        for row in tokens:
            loggers.append(conversation_logger(number, row))
            number += 1
        logits = model(tokens)
        losses = nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none").mean(1)
        for logger, value in zip(loggers, losses.tolist()):
            logger.debug("loss %.3f", value)
            if value > 20:
                logger.warning("loss %.3f is out of range", value)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        if step % 520 == 0:
            print(f"step {step} loss {losses.mean().item():.3f}", flush=True)


if __name__ == "__main__":
    main()
