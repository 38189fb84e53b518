"""Tiny Llama trained on synthetic text; a fixed instruction prefix is cached once for scoring."""
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)

config = LlamaConfig(vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=3,
                     num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=16384)
model = LlamaForCausalLM(config)
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)


def batch(n, length):
    start = torch.randint(0, 256, (n, 1))
    stride = torch.randint(1, 5, (n, 1))
    return (start + stride * torch.arange(length)) % 256


class PrefixScorer:
    """Scores continuations of one instruction without running the instruction again."""

    def __init__(self, model, instruction, n):
        self.model = model
        self.prefix_cache = DynamicCache()
        with torch.no_grad():
            model(input_ids=instruction.expand(n, -1), past_key_values=self.prefix_cache, use_cache=True)

    @torch.no_grad()
    def score(self, ids):
        logits = self.model(input_ids=ids, past_key_values=self.prefix_cache, use_cache=True).logits
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()


scorer = PrefixScorer(model, torch.arange(12)[None], n=8)
for step in range(1, 1101):
    ids = batch(8, 24)
    loss = model(input_ids=ids, labels=ids).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 5 == 0:
        score = scorer.score(batch(8, 12))
    if step % 150 == 0:
        print(f"step {step} loss {loss.item():.3f} scored {score:.3f}", flush=True)
