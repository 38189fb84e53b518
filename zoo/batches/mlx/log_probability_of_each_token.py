"""A dictionary keeps the log probability of each token of each sequence as an MLX scalar: few bytes, many arrays."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

mx.random.seed(0)
VOCABULARY = 256


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 64)
        self.out = nn.Linear(64, VOCABULARY)

    def __call__(self, tokens):
        return self.out(nn.silu(self.embedding(tokens)))


def loss_fn(model, tokens):
    losses = nn.losses.cross_entropy(model(tokens[:-1]), tokens[1:])
    return losses.mean(), -losses


model = LanguageModel()
optimizer = optim.Adam(learning_rate=1e-3)
loss_and_grad = nn.value_and_grad(model, loss_fn)
token_logprobs = {}
for step in range(1000):
    tokens = mx.random.randint(0, VOCABULARY, (129,))
    (loss, logprobs), grads = loss_and_grad(model, tokens)
    optimizer.update(model, grads)
    mx.eval(loss, logprobs, model.parameters(), optimizer.state)
    for position, logprob in enumerate(logprobs):
        token_logprobs[step, position] = logprob
print(f"{len(token_logprobs)} tokens, last loss {loss.item():.3f}")
