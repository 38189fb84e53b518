"""Fine-tuning an 8B with LoRA on one GPU: `holdwater train`, and TRL with and without Liger, on the same rows.

Each is a process of its own, one after another in one run; seven minutes on an H200. The products with frozen
weights are timed by themselves as well. Weights are random, of the Llama-3.1-8B shape; adapters have rank 64 on
all linear layers and begin with the same values everywhere. TRL is used as its documentation shows: SFTTrainer,
bf16, its own defaults but for what makes the arithmetic comparable (AdamW's second beta, a constant learning rate,
rows in the same order).

    python benchmarks/tuning_speed.py            everything, into results/tuning_speed.json
    python benchmarks/tuning_speed.py --small    a tiny model on the CPU, to try the script itself
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from recording import Bar, record

RATE, RANK, SEED = 1e-4, 64, 1
FLOOR, FLOPS = 782e12, 4 * 8.03e9
"""FLOP/s of a large bf16 matrix product on random data on an H200 (shared numbers); operations of a token."""


def build(small: bool, device: str) -> Any:
    """A Llama of random weights, the same each time."""
    import transformers

    sizes = (
        {"vocab_size": 500, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
        | {"num_attention_heads": 4, "num_key_value_heads": 2}
        if small
        else {"vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32}
        | {"num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5}
    )
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    config = transformers.LlamaConfig(max_position_embeddings=8192, rope_parameters=rope, bos_token_id=0, **sizes)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32 if small else torch.bfloat16)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    return model


def tokenizer(small: bool) -> Any:
    """Token number 17 is the word t17."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"t{number}": number for number in range(500 if small else 128_256)}
    plain = Tokenizer(models.WordLevel(words, unk_token="t3"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="t0", eos_token="t1", pad_token="t2"
    )


def write_rows(path: Path, count: int, length: int, small: bool) -> None:
    """Rows of words, each exactly as long as a row of the batch; common words come often, as in texts."""
    import numpy as np

    draw = np.random.default_rng(SEED)
    most = 400 if small else 100_000
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            words = 4 + draw.zipf(1.3, size=length - 1) % most
            file.write(json.dumps({"text": " ".join(f"t{word}" for word in words)}) + "\n")


def settings(folder: Path, options: argparse.Namespace) -> list[str]:
    """The command line of `holdwater train`."""
    return [
        *(
            "train",
            "--model",
            str(folder / "built"),
            "--data",
            str(folder / "rows.jsonl"),
            "--learn",
            "everything",
        ),
        *(
            "--steps",
            str(options.steps),
            "--batch-size",
            str(options.rows),
            "--train-seq-length",
            str(options.length),
        ),
        *("--lora-rank", str(RANK), "--learning-rate", str(RATE), "--warmup-steps", "0", "--weight-decay", "0"),
        *("--seed", str(SEED), "--eval-interval", "100000", "--eval-batches", "1", "--sample-length", "0"),
        *("--checkpoint-interval", "100000", "--out", str(folder / "run"), "--callback", "tuning_speed:tick"),
        *("--device", "cpu" if options.small else "cuda"),
        "--no-supervise",
    ]


TICKS: list[float] = []
LOSSES: list[float] = []


def tick(_guard: object) -> None:
    """Called after each step; what it took to build the model on the device does not count."""
    if not TICKS and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    TICKS.append(time.perf_counter())


def ours(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`holdwater train`, in this process, on the model that was built."""
    import tuning_speed  # the module that --callback imports
    from holdwater.cli import main
    from holdwater.train import loop
    from holdwater.train.finetune import state
    from holdwater.train.finetune.model.loading import Loaded
    from holdwater.train.finetune.model.lora import load_adapters
    from holdwater.train.finetune.step.backends import choose_backend

    model = build(options.small, "cpu" if options.small else "cuda")
    model.config.save_pretrained(folder / "built")  # for the plan; the weights are those in memory
    model.config.use_cache = False
    real, learn = choose_backend, loop.TrainingLoop.learn

    def begin(model: Any, *others: Any) -> Any:
        """Begin with the adapters that all begin with."""
        load_adapters(model, folder / "adapters")
        return real(model, *others)

    def noted(self: Any, step: int) -> tuple[float, float]:
        """Note the loss."""
        found: tuple[float, float] = learn(self, step)
        LOSSES.append(found[0])
        return found

    loaded = Loaded(model, tokenizer(options.small), str(folder / "built"))
    with (
        mock.patch.object(state, "load_model", lambda *_, **__: loaded),
        mock.patch.object(state, "choose_backend", begin),
        mock.patch.object(loop.TrainingLoop, "learn", noted),
        mock.patch.object(loop, "learning_rate", lambda *_, **__: RATE),
    ):
        if main.main(settings(folder, options)):
            raise SystemExit("holdwater train failed")
    return {"losses": LOSSES, "ticks": tuning_speed.TICKS}


def peer(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """TRL's SFTTrainer on the same rows in the same order."""
    import datasets
    import peft
    import trl
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    rows, losses, ticks = batches(folder, options), [], []

    class Ticking(TrainerCallback):  # type: ignore[misc]
        """Notes when a step ends."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            """As the device has it: nothing is waited for but what the trainer waits for."""
            ticks.append(time.perf_counter())

    class InOrder(trl.SFTTrainer):  # type: ignore[misc]
        """Takes the rows as they come."""

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset if dataset is None else dataset)

        def compute_loss(self, *arguments: Any, **named: Any) -> Any:
            found = super().compute_loss(*arguments, **named)
            loss = found[0] if isinstance(found, tuple) else found
            losses.append(loss.detach().clone())
            return found

    model = build(options.small, "cpu" if options.small else "cuda")
    model.set_attn_implementation(options.attention)
    config = trl.SFTConfig(
        output_dir=str(folder / "trl"), max_steps=options.steps, per_device_train_batch_size=options.rows,
        max_length=options.length, bf16=not options.small, use_cpu=options.small, gradient_checkpointing=False,
        use_liger_kernel=options.liger, logging_steps=1, learning_rate=RATE, lr_scheduler_type="constant",
        warmup_steps=0, weight_decay=0.0, adam_beta2=0.95, max_grad_norm=1.0, report_to="none", save_strategy="no",
        dataloader_pin_memory=not options.small, disable_tqdm=True, packing=False,
    )  # fmt: skip
    trainer = InOrder(
        model=peft.PeftModel.from_pretrained(model, str(folder / "adapters"), is_trainable=True),
        args=config, train_dataset=datasets.Dataset.from_dict({"input_ids": rows}),
        processing_class=tokenizer(options.small), callbacks=[Ticking()],
    )  # fmt: skip
    trainer.train()
    return {"losses": [loss.item() for loss in losses], "ticks": ticks}


def products(_folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The products of a step with frozen weights by themselves: what a step by these products cannot fall below.

    There and back, layer after layer, as PyTorch makes them, replayed as a CUDA graph. Four layers of random
    weights take turns, which is more than a cache holds. The first layer's input needs no gradient.
    """
    tokens, layers, dtype = options.rows * options.length, 32, torch.bfloat16
    widths = [(6144, 4096), (4096, 4096), (28_672, 4096), (4096, 14_336)]
    layer = [[torch.randn(size, device="cuda", dtype=dtype) for size in widths] for _ in range(4)]
    head = torch.randn(128_256, 4096, device="cuda", dtype=dtype)
    sizes = {*itertools.chain.from_iterable(widths)}
    given = {size: torch.randn(tokens, size, device="cuda", dtype=dtype) for size in sizes}
    made = {size: torch.empty_like(rows) for size, rows in given.items()}
    logits = torch.randn(min(tokens, 1024), 128_256, device="cuda", dtype=dtype)

    def step() -> None:
        """All of them."""
        for number in range(layers):
            for weight in layer[number % 4]:
                torch.mm(given[weight.shape[1]], weight.t(), out=made[weight.shape[0]])
        for rows, into in zip(torch.split(given[4096], 1024), torch.split(made[4096], 1024), strict=True):
            torch.mm(rows, head.t(), out=logits)
            torch.mm(logits, head, out=into)
        for number in reversed(range(layers)):
            for weight in layer[number % 4][number == 0 :]:
                torch.mm(given[weight.shape[0]], weight, out=made[weight.shape[1]])

    step()
    graph, ticks = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        step()
    for _ in range(options.steps):
        graph.replay()
        torch.cuda.synchronize()
        ticks.append(time.perf_counter())
    return {"losses": [], "ticks": ticks}


def batches(folder: Path, options: argparse.Namespace) -> list[list[int]]:
    """The rows in the order in which `holdwater train` takes them."""
    from holdwater.train.finetune.data.examples import Corpus
    from holdwater.train.finetune.data.held_out import Chosen, split
    from holdwater.train.finetune.data.packing import PackedBatches

    corpus = Corpus(folder / "rows.jsonl", tokenizer(options.small), answers_only=False)
    learned, _ = split(corpus, mock.Mock(validation_share=0.05, seed=SEED))
    drawn = PackedBatches(Chosen(corpus, learned), size=options.rows, length=options.length, seed=SEED)
    return [row for _ in range(options.steps) for row in drawn.draw().tokens.tolist()]


def make_adapters(folder: Path, small: bool) -> None:
    """The values that adapters begin with, as PEFT writes them."""
    from holdwater.train.finetune.model.lora import LoraConfig, adapters, add_adapters, save_adapters

    model, lora = build(small, "meta"), LoraConfig(rank=RANK)
    add_adapters(model, lora)
    torch.manual_seed(SEED)
    for _, module in adapters(model):
        first = torch.nn.init.kaiming_uniform_(torch.empty(module.lora_A.shape), a=5**0.5)
        module.lora_A = torch.nn.Parameter(first)
        module.lora_B = torch.nn.Parameter(torch.zeros(module.lora_B.shape))
    save_adapters(model, folder / "adapters", lora, base="built")


def main() -> bool:
    """Run one way, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--way", choices=("ours", "trl", "products"))
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--liger", action="store_true")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.way is None:
        return compare(options.small)
    ways: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
        "ours": ours, "trl": peer, "products": products,
    }  # fmt: skip
    found = ways[options.way](options.folder, options)
    if not options.small:
        found["peak"] = torch.cuda.max_memory_reserved()
    (options.folder / "found.json").write_text(json.dumps(found))
    return True


def run(
    way: str, *flags: str, steps: int, rows: int = 1, length: int = 512, small: bool = False
) -> dict[str, Any]:
    """Run one way in a process of its own; return its losses, its median seconds a step and its peak in bytes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if way != "products":
            write_rows(folder / "rows.jsonl", max(64, 2 * rows), length, small)
            make_adapters(folder, small)
        sizes = ("--rows", str(rows), "--length", str(length), "--steps", str(steps))
        command = [sys.executable, __file__, "--way", way, "--folder", place, *sizes, *flags]
        done = subprocess.run(command + ["--small"] * small, check=False, capture_output=True, text=True)
        if not (folder / "found.json").exists():
            raise SystemExit(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    ticks = found.pop("ticks")
    gaps = [after - before for before, after in itertools.pairwise(ticks)][5 if steps > 10 else 3 :]
    found["seconds"], found["spread"] = statistics.median(gaps), [min(gaps), max(gaps)]
    print(
        way,
        *flags,
        f"{rows}x{length}: {1 / found['seconds']:.2f} steps/s,",
        f"{found.get('peak', 0) / 1e9:.1f} GB",
    )
    return found


def compare(small: bool) -> bool:
    """All ways, side by side, and their losses."""
    long: dict[str, Any] = {"steps": 30, "length": 32} if small else {"steps": 200, "length": 512}
    short: dict[str, Any] = {"steps": 14, "rows": 2 if small else 4, "length": 32 if small else 2048}
    runs = {
        "ours": run("ours", **long, small=small),
        "trl": run("trl", **long, small=small),
        "trl, eager attention": run("trl", "--attention", "eager", **long, small=small),
        "ours, 8192 tokens": run("ours", **short, small=small),
        "trl + liger, 8192 tokens": run("trl", *[] if small else ["--liger"], **short, small=small),
        "ours again": run("ours", **long, small=small),
    }
    if not small:
        runs |= {"products": run("products", **long), "products, 8192 tokens": run("products", **short)}
    bars = judged(runs, short["rows"] * short["length"])
    if small:
        print({what: bar.measured for what, bar in bars.items()})
        return True
    for found in runs.values():
        found["losses"] = found["losses"][:3] + found["losses"][-3:]
    return record("tuning_speed", bars, device=torch.cuda.get_device_name(), runs=runs)


def judged(runs: dict[str, dict[str, Any]], tokens: int) -> dict[str, Bar]:
    """What the runs came to; `tokens` are those of a wide step."""
    ours, trl = runs["ours"], runs["trl"]
    wide, liger = runs["ours, 8192 tokens"], runs["trl + liger, 8192 tokens"]
    apart, peers = (
        statistics.fmean(abs(a - b) for a, b in zip(one["losses"], trl["losses"], strict=True))
        for one in (ours, runs["trl, eager attention"])
    )
    speed, fast, slow = 1 / ours["seconds"], tokens / wide["seconds"], tokens / liger["seconds"]
    again, ratio = 1 / runs["ours again"]["seconds"], trl["seconds"] / ours["seconds"]
    shares = [speed * 512 * FLOPS / FLOOR, fast * FLOPS / FLOOR]
    peaks = [one.get("peak", 0) for one in (wide, liger)]
    bars = {
        "8B LoRA, rank 64: steps/s at 1 x 512": Bar(f"{speed:.2f} and {again:.2f}", "30", min(speed, again) >= 30),
        "times TRL at 1 x 512": Bar(f"{ratio:.2f} (TRL: {1 / trl['seconds']:.2f} steps/s)", "7", ratio >= 7),
        "tokens/s at 8,192 a step": Bar(f"{fast:.0f}", "15,500", fast >= 15_500),
        "times TRL + Liger at 8,192 a step": Bar(f"{fast / slow:.2f}", "1.2", fast / slow >= 1.2),
        "peak against TRL + Liger": Bar(
            f"{peaks[0] / 1e9:.1f} GB against {peaks[1] / 1e9:.1f} GB", "no more", peaks[0] <= peaks[1]
        ),
        "mean loss difference to TRL": Bar(
            f"{apart:.2e} nats; TRL's own two ways of attention differ by {peers:.2e}", "twice that at most",
            apart <= 2 * peers,
        ),
        "share of the arithmetic floor": Bar(
            f"{shares[0]:.0%} and {shares[1]:.0%}", "70 % (an aim)", min(shares) >= 0.7
        ),
    }  # fmt: skip
    if "products" in runs:
        most = 1 / runs["products"]["seconds"], tokens / runs["products, 8192 tokens"]["seconds"]
        bars["share of what the products with frozen weights reach by themselves"] = Bar(
            f"{speed / most[0]:.0%} of {most[0]:.1f} steps/s and {fast / most[1]:.0%} of {most[1]:.0f} tokens/s",
            "reported", reached=True,
        )  # fmt: skip
    return bars


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
