"""Whether adapters train better in float32 than in the bfloat16 that the model computes in.

A small Llama learns this project's documents, is then frozen in bfloat16, and its adapters learn this project's
code: once with weights and moments in float32 and once with both in bfloat16, from the same start on the same
batches, at three learning rates and from three seeds. Compared is the loss on code that is held out.

    python benchmarks/tuning_masters.py            on the CPU, into results/tuning_masters.json: 5 minutes
    python benchmarks/tuning_masters.py --small    a few steps, to try the script itself
"""

import argparse
import copy
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from holdwater.train.finetune.model.lora import LoraConfig, add_adapters
from recording import Bar, record

ROOT = Path(__file__).parent.parent
LENGTH, ROWS = 128, 8
RATES = (1e-5, 1e-4, 1e-3)
CLEARLY = 0.002
"""Nats a token from which on a difference counts."""


def read(pattern: str) -> Tensor:
    """Files of this project as bytes, one after another."""
    text = b"".join(path.read_bytes() for path in sorted(ROOT.glob(pattern)))
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def draw(data: Tensor, seed: int) -> Tensor:
    """Rows of tokens."""
    begins = torch.randint(len(data) - LENGTH - 1, (ROWS,), generator=torch.Generator().manual_seed(seed))
    return torch.stack([data[begin : begin + LENGTH + 1] for begin in begins])


def loss_of(model: Any, rows: Tensor) -> Tensor:
    """The mean cross-entropy in nats."""
    logits = model(input_ids=rows[:, :-1]).logits.flatten(0, 1).float()
    return nn.functional.cross_entropy(logits, rows[:, 1:].flatten())


def learn(model: Any, data: Tensor, *, rate: float, steps: int, seed: int) -> None:
    """Train what needs a gradient, with PyTorch's own AdamW."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, draw(data, seed * 100_000 + step)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()


def make_base(steps: int) -> Any:
    """A small Llama that knows the documents."""
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=LENGTH,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    learn(model, read("docs/**/*.md"), rate=1e-3, steps=steps, seed=99)
    return model.to(torch.bfloat16)


def tuned(base: Any, code: Tensor, *, rate: float, steps: int, seed: int) -> dict[str, float]:
    """Both ways of keeping what is trained; the loss on held-out code in nats a token."""
    torch.manual_seed(seed)
    model = copy.deepcopy(base)
    add_adapters(model, LoraConfig(rank=8))
    found, split = {}, int(0.95 * len(code))
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        one = copy.deepcopy(model)
        for weight in one.parameters():
            if weight.requires_grad:
                weight.data = weight.data.to(dtype)
        learn(one, code[:split], rate=rate, steps=steps, seed=seed)
        with torch.no_grad():
            losses = [loss_of(one, draw(code[split:], 7_000_000 + number)).item() for number in range(20)]
        found[name] = statistics.fmean(losses)
    return found


def main() -> bool:
    """All rates and seeds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    base, code = make_base(5 if options.small else 600), read("src/**/*.py")
    steps, seeds = (3, 1) if options.small else (400, 3)
    bars, kept = {}, {}
    for rate in RATES:
        found = [tuned(base, code, rate=rate, steps=steps, seed=seed) for seed in range(seeds)]
        worse = [one["bfloat16"] - one["float32"] for one in found]
        kept[f"{rate:.0e}"] = found
        bars[f"held-out loss at a learning rate of {rate:.0e}: bfloat16 against float32"] = Bar(
            f"{statistics.fmean(one['float32'] for one in found):.4f} nats in float32, "
            f"{statistics.fmean(worse):+.4f} in bfloat16 ({min(worse):+.4f} to {max(worse):+.4f})",
            "no better in bfloat16",
            min(worse) > -CLEARLY,
        )
    print({what: bar.measured for what, bar in bars.items()})
    return True if options.small else record("tuning_masters", bars, losses=kept)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
