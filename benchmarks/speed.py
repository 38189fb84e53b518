"""Speed of our loop under its guard against a plain loop, in interleaved blocks of one process.

Each pair of blocks gives one ratio; the order within a pair alternates. The noise floor is the plain loop
against a second copy of itself, measured the same way.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from holdwater.config import gather
from holdwater.guard.guard import Guard
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.train.loop import TrainingLoop, recovering_step
from holdwater.train.pretrain.state import new_state
from holdwater.train.pretrain.text import find_files, read_text, tokenise
from holdwater.train.progress import PlainScreen, Progress, Speed
from holdwater.train.settings import train_settings
from peer import PlainLoop
from recording import Bar, record

BLOCKS, STEPS = 60, 60


def blocks(one: Callable[[], object], other: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Steps per second of both, block by block."""
    rates: tuple[list[float], list[float]] = ([], [])
    for block in range(BLOCKS):
        for which in (0, 1) if block % 2 else (1, 0):
            step = (one, other)[which]
            began = time.perf_counter()
            for _ in range(STEPS):
                step()
            rates[which].append(STEPS / (time.perf_counter() - began))
    return rates


def quartiles(values: list[float]) -> list[float]:
    """The quartiles, to three digits."""
    return [float(f"{value:.4g}") for value in np.quantile(values, [0.25, 0.5, 0.75])]


def main() -> bool:
    """Interleave, compare."""
    with tempfile.TemporaryDirectory() as folder:
        settings = train_settings(gather(flags={"steps": "1000000"}, environment={}), Path(folder))
        torch.set_num_threads(settings.threads)
        tokens = tokenise(read_text(find_files(None)), "byte", validation_share=0.05, length=64)
        state = new_state(settings, tokens)
        with Guard(out=folder) as guard:
            pace = Speed(first_step=0, steps=settings.steps, tokens_in_step=settings.tokens_in_step)
            screen = PlainScreen(pace)
            loop = TrainingLoop(
                settings,
                state,
                recovering_step(settings, state),
                CheckpointFolder(Path(folder)),
                guard,
                screen,
            )

            def ours() -> None:
                loss, rate = loop.learn(state.step + 1)
                state.step += 1
                guard.step(loss=loss)
                screen.show(Progress(state.step, loss, rate, guard))

            plain, copy = PlainLoop(tokens.train), PlainLoop(tokens.train)
            for warm in (ours, plain.step, copy.step):
                for _ in range(200):
                    warm()
            mine, theirs = blocks(ours, plain.step)
            first, second = blocks(plain.step, copy.step)
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    floor = [a / b for a, b in zip(first, second, strict=True)]
    ratio = float(np.median(ratios))
    spread = "–".join(f"{value:.2f}" for value in quartiles(ratios)[::2])
    bars = {
        "speed against a plain PyTorch loop, guard included": Bar(
            f"{ratio:.2f} times (quartiles {spread})", "at least 0.98; aim 1.5", ratio >= 0.98
        )
    }
    return record(
        "speed",
        bars,
        blocks=BLOCKS,
        steps_in_a_block=STEPS,
        threads=settings.threads,
        ours_steps_per_second=quartiles(mine),
        plain_steps_per_second=quartiles(theirs),
        ratio_quartiles=quartiles(ratios),
        noise_floor_quartiles=quartiles(floor),
    )


if __name__ == "__main__":
    sys.exit(not main())
