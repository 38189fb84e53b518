"""What `vision_speed.py` has to reach, from its runs: a bar is there as soon as its runs are."""

import statistics
from collections.abc import Mapping
from typing import Any

from recording import Bar

FLOOR = 782e12
"""FLOP/s of a large bf16 matrix product on random data on an H200."""
TOWER, LANGUAGE = 2 * 0.67e9 * 1564, 4 * 7.07e9
"""Operations of a picture in the tower, and of a token in the language model; of Qwen2.5-VL-7B."""
BUDGET = 24e9
"""Bytes of device memory in which QLoRA is to fit."""
TITLES = {"qwen2.5-vl-7b": "Qwen2.5-VL-7B shape, LoRA rank 16", "qwen3-vl-8b": "Qwen3-VL-8B shape, LoRA rank 16"}
PICTURES = {"eight": "8 pictures a step", "one": "1 picture a step"}
TIMES = {("trl", "eight"): 2.5, ("trl", "one"): 5.0, ("unsloth", "eight"): 1.5, ("unsloth", "one"): 1.5}
"""How many times as fast as a peer `holdwater train` has to be."""
SHARE, CACHED_SHARE, CACHED_TIMES = 0.7, 0.65, 3.2
NAMES = {"trl": "TRL", "unsloth": "Unsloth"}

Runs = Mapping[str, dict[str, Any]]


def judged(runs: Runs) -> dict[str, Bar]:
    """The bars whose runs are known.

    Args:
        runs: By program, shape, case and flags, joined by commas.
    """
    bars: dict[str, Bar] = {}
    for shape in TITLES:
        for case in PICTURES:
            bars |= _against_peers(runs, shape, case)
    return bars | _cached(runs) | _quantized(runs) | _losses(runs)


def _against_peers(runs: Runs, shape: str, case: str) -> dict[str, Bar]:
    """Speed, memory and share of the floor of a case."""
    ours, what = runs.get(f"ours, {shape}, {case}"), f"{TITLES[shape]}, {PICTURES[case]}"
    if ours is None:
        return {}
    bars = {f"{what}: seconds a step and tokens/s": _reported(ours)}
    known = {name: runs[key] for name in NAMES if (key := f"{name}, {shape}, {case}") in runs}
    for name, peer in known.items():
        times, least = peer["seconds"] / ours["seconds"], TIMES[name, case]
        theirs = f"{peer['seconds']:.4f} s, {peer['tokens_a_second']:.0f} tokens/s"
        bars[f"{what}: times {NAMES[name]}"] = Bar(f"{times:.2f} ({theirs})", f"{least:g}", times >= least)
    if known:
        peaks = " and ".join(f"{peer['peak'] / 1e9:.1f} GB ({NAMES[name]})" for name, peer in known.items())
        bars[f"{what}: reserved device memory at most"] = Bar(
            f"{ours['peak'] / 1e9:.1f} GB against {peaks}", "no more",
            ours["peak"] <= min(peer["peak"] for peer in known.values()),
        )  # fmt: skip
    if (shape, case) == (next(iter(TITLES)), "eight"):
        share = (8 * TOWER + LANGUAGE * ours["tokens"]) / FLOOR / ours["seconds"]
        aim = f"{SHARE:.0%} (an aim)"
        bars[f"{what}: share of the arithmetic floor"] = Bar(f"{share:.0%}", aim, share >= SHARE)
    return bars


def _cached(runs: Runs) -> dict[str, Bar]:
    """What keeping features is worth."""
    shape, title = next(iter(TITLES.items()))
    ours, trl = (runs.get(f"{way}, {shape}, eight{flag}") for way, flag in (("ours", ", --cached"), ("trl", "")))
    if ours is None:
        return {}
    what = f"{title}, 8 pictures a step, their features kept"
    share = LANGUAGE * ours["tokens"] / FLOOR / ours["seconds"]
    bars = {
        f"{what}: seconds a step and tokens/s": _reported(ours),
        f"{what}: share of the arithmetic floor": Bar(
            f"{share:.0%}", f"{CACHED_SHARE:.0%} (an aim)", share >= CACHED_SHARE
        ),
    }
    if trl is not None:
        times = trl["seconds"] / ours["seconds"]
        bars[f"{what}: times TRL"] = Bar(f"{times:.2f}", f"{CACHED_TIMES:g}", times >= CACHED_TIMES)
    return bars


def _quantized(runs: Runs) -> dict[str, Bar]:
    """QLoRA on a small device."""
    shape, title = next(iter(TITLES.items()))
    ours = runs.get(f"ours, {shape}, eight, --quantize, 4")
    if ours is None:
        return {}
    what = f"{title}, 8 pictures a step, frozen weights in 4 bits"
    return {
        f"{what}: seconds a step and tokens/s": _reported(ours),
        f"{what}: reserved device memory at most": Bar(
            f"{ours['peak'] / 1e9:.1f} GB", "under 24 GB", ours["peak"] < BUDGET
        ),
    }


def _losses(runs: Runs) -> dict[str, Bar]:
    """How far losses are from TRL's."""
    found = {
        way: one["losses"]
        for key, one in runs.items()
        if "--pillow" in key
        for way in ["eager" if "eager" in key else key.partition(",")[0]]
    }
    if found.keys() != {"ours", "trl", "eager"}:
        return {}
    apart, peers = (
        statistics.fmean(abs(one - other) for one, other in zip(found[way], found["trl"], strict=True))
        for way in ("ours", "eager")
    )
    return {
        f"mean loss difference to TRL in {len(found['trl'])} steps, on a model of fewer layers": Bar(
            f"{apart:.2e} nats; TRL's own two ways of attention differ by {peers:.2e}", "twice that at most",
            apart <= 2 * peers,
        )
    }  # fmt: skip


def _reported(run: dict[str, Any]) -> Bar:
    """A number that has no goal of its own."""
    return Bar(f"{run['seconds']:.4f} s, {run['tokens_a_second']:.0f} tokens/s", "reported", reached=True)
