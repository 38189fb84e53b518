"""One prompt cache serves all requests: attention looks back 128 tokens, but the KVCache of mlx-lm keeps them all."""

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import KVCache, make_prompt_cache

mx.random.seed(0)
DIMS, HEADS, WINDOW, VOCABULARY = 128, 2, 128, 512


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(DIMS)
        self.qkv = nn.Linear(DIMS, 3 * DIMS, bias=False)
        self.out = nn.Linear(DIMS, DIMS, bias=False)
        self.rope = nn.RoPE(DIMS // HEADS)

    def __call__(self, x, cache):
        B, L, _ = x.shape
        q, k, v = (
            part.reshape(B, L, HEADS, -1).transpose(0, 2, 1, 3)
            for part in mx.split(self.qkv(self.norm(x)), 3, axis=-1)
        )
        q, k = self.rope(q, offset=cache.offset), self.rope(k, offset=cache.offset)
        k, v = cache.update_and_fetch(k, v)
        k, v = k[..., -WINDOW:, :], v[..., -WINDOW:, :]
        mask = "causal" if L > 1 else None
        y = mx.fast.scaled_dot_product_attention(q, k, v, scale=(DIMS // HEADS) ** -0.5, mask=mask)
        return x + self.out(y.transpose(0, 2, 1, 3).reshape(B, L, -1))


class LanguageModel(nn.Module):
    def __init__(self, num_layers):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, DIMS)
        self.layers = [Block() for _ in range(num_layers)]

    def make_cache(self):
        return [KVCache() for _ in self.layers]

    def __call__(self, tokens, cache):
        x = self.embedding(tokens)
        for layer, c in zip(self.layers, cache):
            x = layer(x, c)
        return self.embedding.as_linear(x)


model = LanguageModel(num_layers=2)
mx.eval(model.parameters())
prompt_cache = make_prompt_cache(model)


def answer(prompt):
    logits = model(prompt[None], cache=prompt_cache)
    token = mx.argmax(logits[0, -1])
    mx.eval(token, [c.state for c in prompt_cache])
    return token.item()


answers = {}
for request in range(1200):
    prompt = mx.random.randint(0, VOCABULARY, (32,))
    token = answer(prompt)
    answers[token] = answers.get(token, 0) + 1
print(f"{len(answers)} different answers, {prompt_cache[0].offset} tokens have passed the cache")
