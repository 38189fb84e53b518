"""Masked-word training with an evaluation that gathers all logits before the metric."""
import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM
from transformers.trainer_pt_utils import nested_concat, nested_numpify

torch.set_num_threads(1)
torch.manual_seed(0)

VOCAB, LENGTH, BATCH = 1200, 24, 8
STEPS, EVERY, EVAL_BATCHES = 1200, 120, 130


def corpus(rows):
    start = torch.randint(4, VOCAB, (rows, 1))
    return 4 + (start + 3 * torch.arange(LENGTH)[None]) % (VOCAB - 4)


def mask(tokens):
    hidden = torch.rand(tokens.shape) < 0.15
    return tokens.masked_fill(hidden, 1), tokens.masked_fill(~hidden, -100)


def evaluate(model, held_out):
    model.eval()
    logits, labels = None, None
    with torch.no_grad():
        for batch in held_out.split(BATCH):
            inputs, target = mask(batch)
            out = nested_numpify(model(input_ids=inputs).logits)
            target = nested_numpify(target)
            logits = out if logits is None else nested_concat(logits, out, padding_index=-100)
            labels = target if labels is None else nested_concat(labels, target, padding_index=-100)
    model.train()
    asked = labels != -100
    return float((logits[asked].argmax(axis=1) == labels[asked]).mean())


def main():
    config = BertConfig(vocab_size=VOCAB, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=128, max_position_embeddings=64)
    model = BertForMaskedLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    held_out = corpus(BATCH * EVAL_BATCHES)
    for step in range(1, STEPS + 1):
        inputs, target = mask(corpus(BATCH))
        loss = model(input_ids=inputs, labels=target).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVERY == 0:
            print(f"step {step} loss {loss.item():.3f} accuracy {evaluate(model, held_out):.3f}", flush=True)


if __name__ == "__main__":
    main()
