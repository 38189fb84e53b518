"""`holdwater train --backend mlx` against the trainer of `mlx_lm`: losses, speed, memory, kills, replacements.

A small Llama and a small Qwen3 of random weights, in float32 on a CPU. Both trainers get the same rows, learning
rates and optimizer. For speed each is a process of its own, and they take turns: a block of steps each.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
import torch
import transformers
from safetensors.numpy import load_file

from mlx_trainers import TURNS, our_losses, state_of, their_losses
from recording import Bar, record

HERE = Path(__file__).resolve().parent
MODELS: dict[str, dict[str, int]] = {"Llama": {}, "Qwen3": {"head_dim": 16}}
LENGTH, BATCH, RANK = 64, 4, 8
LOSS_GOAL = 1e-5
FLAT_GOAL = 5e6
"""Bytes that resident memory may rise by, from the second fifth of a run to its last."""
PROGRAM = str(Path(sys.executable).with_name("holdwater"))
EXACT_STEPS = 400
EXACT = (
    *("--steps", str(EXACT_STEPS), "--checkpoint-interval", "30", "--eval-interval", "200"),
    *("--lora-dropout", "0.1", "--sample-length", "0"),
)


class Sizes(NamedTuple):
    """How much is measured."""

    losses: int
    """Steps whose losses are compared."""
    blocks: int
    block: int
    """Steps in a block."""
    flat: int
    """Steps over which memory is to be flat."""
    kills: int


FULL = Sizes(losses=200, blocks=20, block=40, flat=5000, kills=20)
SHORT = Sizes(losses=60, blocks=4, block=10, flat=1500, kills=2)


def make_models(folder: Path) -> None:
    """Write the models, each with a tokenizer, and the examples."""
    raw = tokenizers.ByteLevelBPETokenizer()
    raw.train_from_iterator(["what is twelve and seven, and what is nine and three"] * 3, vocab_size=400,
                            special_tokens=["<s>", "</s>"])  # fmt: skip
    for family, more in MODELS.items():
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(
            vocab_size=1024, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=LENGTH, bos_token_id=0, eos_token_id=1, **more,
        )  # fmt: skip
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder / family)
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=raw._tokenizer,  # noqa: SLF001 - there is no public name
            bos_token="<s>", eos_token="</s>",  # noqa: S106 - tokens of a text are no secrets
        ).save_pretrained(folder / family)  # fmt: skip
    dice = random.Random(0)  # noqa: S311 - sums, not secrets
    sums = [[dice.randrange(100) for _ in range(dice.randrange(2, 12))] for _ in range(2000)]
    rows = [{"prompt": "+".join(map(str, numbers)) + "=", "completion": str(sum(numbers))} for numbers in sums]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def command(folder: Path, family: str, *flags: str) -> list[str]:
    """The command of a run."""
    return [
        PROGRAM, "train", "--backend", "mlx", "--model", str(folder / family),
        "--data", str(folder / "rows.jsonl"), "--train-seq-length", str(LENGTH), "--batch-size", str(BATCH),
        "--lora-rank", str(RANK), "--max-memory", "4GB", *flags,
    ]  # fmt: skip


def settings(family: str, steps: int) -> dict[str, Any]:
    """The same in one process."""
    return {
        "model": family, "steps": steps, "train_seq_length": LENGTH, "batch_size": BATCH, "lora_rank": RANK,
    }  # fmt: skip


def difference(folder: Path, family: str, steps: int) -> float:
    """The largest difference of two losses of the same step."""
    ours = our_losses(state_of(folder, **settings(family, steps)))
    peer = state_of(folder, **settings(family, steps))
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = their_losses(peer, peer.batches)
    if len(ours) != len(theirs):
        raise RuntimeError(f"{len(ours)} losses and {len(theirs)}")
    return max(abs(one - other) for one, other in zip(ours, theirs, strict=True))


@contextlib.contextmanager
def in_turns(folder: Path, words: list[str], block: int) -> Iterator[tuple[Any, Any]]:
    """Start a program that waits for its turn before each block; the files that let it go on, and that tell."""
    folder.mkdir()
    for name in ("go", "done"):
        os.mkfifo(folder / name)
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {TURNS: str(folder), "MLX_BLOCK": str(block), "PYTHONPATH": path}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with (
            (folder / "go").open("w", buffering=1, encoding="utf-8") as go,  # the program opens it first, too
            (folder / "done").open(encoding="utf-8") as done,
        ):
            yield go, done
    finally:
        process.kill()
        process.wait()


def speed(folder: Path, family: str, sizes: Sizes) -> list[float]:
    """Seconds of the trainer of `mlx_lm` over ours, block by block."""
    steps, ratios = (sizes.blocks + 2) * sizes.block, []
    far = str(10 * steps)
    flags = ("--steps", str(steps), "--eval-interval", far, "--checkpoint-interval", far, "--no-supervise",
             "--callback", "mlx_trainers:our_turn", "--out", str(folder / f"speed-{family}"))  # fmt: skip
    peer = [sys.executable, str(HERE / "mlx_trainers.py"), "peer", str(folder)]
    with (
        in_turns(folder / f"ours-{family}", command(folder, family, *flags), sizes.block) as ours,
        in_turns(folder / f"peer-{family}", [*peer, json.dumps(settings(family, steps))], sizes.block) as theirs,
    ):
        for _, done in (ours, theirs):
            done.readline()  # the first block compiles
        for number in range(sizes.blocks):
            seconds = {}
            for which in (("ours", "theirs"), ("theirs", "ours"))[number % 2]:
                go, done = ours if which == "ours" else theirs
                print(file=go)
                seconds[which] = float(done.readline())
            ratios.append(seconds["theirs"] / seconds["ours"])
    print(f"{family}: {', '.join(f'{ratio:.3f}' for ratio in ratios)}", flush=True)
    return ratios


def resident(process: "subprocess.Popen[bytes]", *, seconds: float = 1e9) -> list[int]:
    """Resident memory of a process, read from outside until it ends."""
    page, until, found = os.sysconf("SC_PAGE_SIZE"), time.monotonic() + seconds, []
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError, IndexError):
            found.append(int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1]) * page)
        time.sleep(0.02)
    return found


def rise(readings: list[int]) -> float:
    """By what memory rises from the second fifth of a run to its last; the first one loads and compiles."""
    fifth = len(readings) // 5
    return statistics.median(readings[-fifth:]) - statistics.median(readings[fifth : 2 * fifth])


def flat(folder: Path, steps: int) -> float:
    """By what the memory of a run rises."""
    flags = ("--steps", str(steps), "--eval-interval", "1000", "--checkpoint-interval", "1000", "--no-supervise",
             "--out", str(folder / "flat"))  # fmt: skip
    process = subprocess.Popen(
        command(folder, "Llama", *flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    readings = resident(process)
    if process.returncode:
        raise RuntimeError("the run over many steps failed")
    return rise(readings)


def forgotten(folder: Path) -> float:
    """By what the memory of a loop rises that never evaluates, within half a minute."""
    words = [sys.executable, str(HERE / "mlx_trainers.py"), "forgetful", str(folder)]
    process = subprocess.Popen([*words, json.dumps(settings("Llama", 10))], stdout=subprocess.DEVNULL)
    readings = resident(process, seconds=30)
    process.kill()
    process.wait()
    return rise(readings)


def arrays(run: Path) -> dict[str, bytes]:
    """The bytes of every array of a run's last checkpoint."""
    return {
        f"{path.name}/{name}": array.tobytes()
        for path in sorted((run / "checkpoints" / f"step-{EXACT_STEPS:08}").glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


def finish(folder: Path, run: Path, *flags: str) -> float:
    """Train to the end; return the seconds that it took."""
    began = time.monotonic()
    words = command(folder, "Qwen3", *EXACT, "--out", str(run), *flags)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return time.monotonic() - began


def killed(folder: Path, run: Path, *, after: float) -> bool:
    """Start a run and kill all its processes after some seconds; False if it had ended before."""
    words = command(folder, "Qwen3", *EXACT, "--out", str(run))
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def exact(folder: Path, kills: int) -> dict[str, Bar]:
    """Runs that were killed, and one whose process is replaced, against the undisturbed one."""
    dice, same, done = random.Random(0), 0, 0  # noqa: S311 - moments, not secrets
    finish(folder, folder / "cold")  # compiles
    span = finish(folder, folder / "straight")
    expected = arrays(folder / "straight")
    while done < kills:
        run = folder / f"run-{done}"
        if killed(folder, run, after=dice.uniform(0.25, 0.95) * span):
            done += 1
            finish(folder, run, "--resume")
            same += arrays(run) == expected
            print(f"{done} killed, {same} exact", flush=True)
        shutil.rmtree(run)
    finish(folder, folder / "replaced", "--reload-interval", "50")
    replaced = arrays(folder / "replaced")
    equal = sum(replaced.get(name) == array for name, array in expected.items())
    return {
        f"MLX: `kill -9` at {done} random moments, resumed: every array identical": Bar(
            f"{same} of {done}", "all", same == done
        ),
        "MLX: process replaced every 50 steps: arrays of the last checkpoint identical": Bar(
            f"{equal} of {len(expected)}", "all", replaced == expected
        ),
    }


def main(sizes: Sizes, name: str) -> bool:
    """Measure everything."""
    bars: dict[str, Bar] = {}
    numbers: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_models(folder)
        for family in MODELS:
            found = difference(folder, family, sizes.losses)
            bars[f"MLX, {family}: largest difference of a loss from `mlx_lm`'s trainer, {sizes.losses} steps"] = (
                Bar(f"{found:.1e}", f"at most {LOSS_GOAL:.0e}", found <= LOSS_GOAL)
            )
        for family in MODELS:
            ratios = numbers[family] = speed(folder, family, sizes)
            low, middle, high = statistics.quantiles(ratios, n=4)
            bars[f"MLX, {family}: speed against `mlx_lm`'s trainer, guard included, {sizes.blocks} blocks"] = Bar(
                f"{middle:.2f} times (quartiles {low:.2f}–{high:.2f})", "at least 1", middle >= 1
            )
        rises = flat(folder, sizes.flat), forgotten(folder)
        bars[f"MLX: rise of resident memory seen from outside, {sizes.flat} steps"] = Bar(
            f"{rises[0] / 1e6:.1f} MB", f"at most {FLAT_GOAL / 1e6:.0f} MB", rises[0] <= FLAT_GOAL
        )
        bars["MLX: the same of a loop that never evaluates, in 30 s"] = Bar(
            f"{rises[1] / 1e6:.0f} MB", f"over {10 * FLAT_GOAL / 1e6:.0f} MB", rises[1] > 10 * FLAT_GOAL
        )
        bars |= exact(folder, sizes.kills)
    return record(name, bars, speed=numbers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few of everything, for a quick look")
    short = parser.parse_args().short
    sys.exit(not main(SHORT if short else FULL, "mlx_training_short" if short else "mlx_training"))
