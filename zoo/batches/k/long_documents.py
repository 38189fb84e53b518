"""Tiny Llama; between steps it reads documents chunk by chunk with a cache per document."""
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)

config = LlamaConfig(vocab_size=200, hidden_size=128, intermediate_size=256, num_hidden_layers=3,
                     num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096)
model = LlamaForCausalLM(config)
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
CHUNK, CHUNKS_PER_DOC = 32, 24


def text(n, length):
    start = torch.randint(0, 200, (n, 1))
    return (start + torch.randint(1, 4, (n, 1)) * torch.arange(length)) % 200


cache, chunks, document = None, 0, None
for step in range(1, 1201):
    ids = text(8, 20)
    loss = model(input_ids=ids, labels=ids).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 2 == 0:
        if cache is None or chunks == CHUNKS_PER_DOC:
            cache, chunks = DynamicCache(), 0
            document = text(24, CHUNK * CHUNKS_PER_DOC)
        with torch.no_grad():
            piece = document[:, chunks * CHUNK:(chunks + 1) * CHUNK]
            out = model(input_ids=piece, past_key_values=cache, use_cache=True)
        chunks += 1
    if step % 120 == 0:
        print(f"step {step} loss {loss.item():.3f} document at {chunks * CHUNK}", flush=True)
