"""HoldwaterCallback and HoldwaterTrainer under Transformers' Trainer and TRL's SFTTrainer: bar L1.

Is the same leak found with line and holder, by the callback alone and under `holdwater run`; is the healthy run
passed; are losses the same to the bit; what does the callback cost; is a run that was killed gone on with exactly;
and is a lack of memory at 60 places of each trainer recovered with the same effective batch, evaluations included?
`--only PART` measures a part; the parts that were measured before are kept.
"""

import argparse
import fcntl
import hashlib
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers
import trl

import holdwater
from recording import RESULTS, Bar, record
from trainer_runs import KINDS, make_trainer, weights_of

HERE = Path(__file__).parent
SCRIPT = HERE / "trainer_runs.py"
HOLDWATER = str(Path(sys.executable).with_name("holdwater"))
LEAK = 1 + next(
    number for number, line in enumerate(SCRIPT.read_text(encoding="utf-8").splitlines()) if "KEPT.append" in line
)
"""The line that leaks."""
BLOCKS = 20
TrainerCallback: Any = transformers.TrainerCallback


def run(kind: str, folder: Path, *words: str, before: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Run one training in a process of its own."""
    folder.mkdir(exist_ok=True)
    command = [*(before or (sys.executable,)), str(SCRIPT), kind, str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=600)


def result_of(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """What a training came to."""
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def names_the_leak(verdict: dict[str, Any]) -> bool:
    """Whether a leak is found with the line that allocates and the name that holds."""
    sites = [site for row in verdict["findings"][:1] for site in row["sites"]]
    held = any(site["role"] == "held" and site["name"] == "KEPT" and site["line"] == LEAK for site in sites)
    allocated = any(site["role"] == "allocated" and site["line"] == LEAK for site in sites)
    return verdict["verdict"] == "leak" and held and allocated


def measure_verdicts(place: Path) -> dict[str, Any]:
    """The same leak and the same healthy run: by the callback alone, and with it under `holdwater run`."""
    rows: dict[str, Any] = {}
    for kind in KINDS:
        for leaks in (True, False):
            words = ("--steps", "250", "--callback", *(("--leaks",) if leaks else ()))
            for alone in (True, False):
                how = "callback alone" if alone else "holdwater run"
                folder = place / f"{kind}-{leaks}-{alone}"
                before = () if alone else (HOLDWATER, "run", "--quiet", "--json", str(place / "v.json"))
                result_of(run(kind, folder, *words, before=before))
                file = folder / "v.json" if alone else place / "v.json"
                verdict = json.loads(file.read_text(encoding="utf-8"))
                right = names_the_leak(verdict) if leaks else verdict["verdict"] in {"flat", "bounded", "warming"}
                rows[f"{kind}, {'leak' if leaks else 'healthy'}, {how}"] = {
                    "verdict": verdict["verdict"], "right": right,
                    "explained": [row["explained"] for row in verdict["findings"][:1]],
                }  # fmt: skip
    return rows


def measure_identity(place: Path) -> dict[str, Any]:
    """Losses of all steps and evaluations, and all weights: with the callback, without, and without again."""
    rows = {}
    for kind in KINDS:
        bare, again, watched = (
            result_of(run(kind, place / f"{kind}-{name}", "--steps", "200", *words))
            for name, words in (("bare", ()), ("again", ()), ("watched", ("--callback",)))
        )
        same = [(one["losses"], one["weights"]) == (bare["losses"], bare["weights"]) for one in (again, watched)]
        rows[kind] = {"losses": len(bare["losses"]), "without_again": same[0], "with_callback": same[1]}
    return rows


class Blocks(TrainerCallback):  # type: ignore[misc] # its types are not read
    """Hands the steps of one training to the callback in every third block, and times all blocks."""

    def __init__(self, callback: Any, steps: int) -> None:  # noqa: ANN401 - the one that is measured
        self.callback, self.steps, self.seen = callback, steps, 0
        self.elapsed: dict[str, list[float]] = defaultdict(list)
        self.worked: dict[str, list[float]] = defaultdict(list)
        self.began, self.inside = (0.0, 0.0), 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Begin as the callback does."""
        began = time.perf_counter()
        self.callback.on_train_begin(args, state, control, **kwargs)
        self.elapsed["begin"].append(time.perf_counter() - began)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """End as the callback does."""
        began = time.perf_counter()
        self.callback.on_train_end(args, state, control, **kwargs)
        self.elapsed["end"].append(time.perf_counter() - began)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Count a step in its block: with, without, or without again, in turning order."""
        block, at = divmod(self.seen, self.steps)
        arm = ("with", "without", "again")[(block + block // 3) % 3]
        if arm == "with":
            began = time.thread_time()
            self.callback.on_step_end(args, state, control, **kwargs)
            self.inside += (time.thread_time() - began) if block >= 3 else 0.0
        self.seen += 1
        if at < self.steps - 1:
            return
        now = time.perf_counter(), time.process_time()
        if block >= 3:  # the first round warms up
            self.elapsed[arm].append(now[0] - self.began[0])
            self.worked[arm].append(now[1] - self.began[1])
        self.began = time.perf_counter(), time.process_time()


def compared(took: dict[str, list[float]]) -> dict[str, Any]:
    """What blocks cost with the callback, and again without it, against those without."""
    cost = [one / other - 1 for one, other in zip(took["with"], took["without"], strict=True)]
    floor = [one / other - 1 for one, other in zip(took["again"], took["without"], strict=True)]
    return {
        "cost": statistics.median(cost), "noise_floor": statistics.median(floor),
        "cost_quartiles": statistics.quantiles(cost, n=4), "noise_quartiles": statistics.quantiles(floor, n=4),
    }  # fmt: skip


def measure_time(place: Path) -> dict[str, Any]:
    """What a step costs with the callback: interleaved blocks of one training; and its beginning and end."""
    rows = {}
    for kind in KINDS:
        callback = holdwater.HoldwaterCallback(max_memory="100GB")
        blocks = Blocks(callback, steps=10)
        trainer = make_trainer(
            kind, place / kind, [blocks], hidden=256, length=128, max_steps=10 * 3 * (BLOCKS + 1), logging_steps=50
        )
        trainer.train()
        overhead = (callback.summary or {})["overhead"]
        rows[kind] = {
            "blocks": len(blocks.elapsed["with"]), "load": os.getloadavg()[0],
            "seconds_of_a_step": statistics.median(blocks.worked["without"]) / blocks.steps,
            "processor_time": compared(blocks.worked), "elapsed": compared(blocks.elapsed),
            "inside": blocks.inside / sum(blocks.worked["with"]), "begin_seconds": blocks.elapsed["begin"][0],
            "end_seconds": blocks.elapsed["end"][0],
            "hook_us_a_step": overhead["step_us_mean"], "counting_seconds": overhead["attribution_seconds"],
        }  # fmt: skip
    return rows


def measure_kills(place: Path) -> dict[str, Any]:
    """Runs that are killed within a step or while a checkpoint is written, and gone on with."""
    dice, rows = random.Random(5), {}  # noqa: S311 - no secret
    words = ("--steps", "60", "--save", "10", "--callback")
    for kind in KINDS:
        straight = result_of(run(kind, place / f"{kind}-straight", *words))
        exact, killed = 0, 0
        for number in range(4):
            folder = place / f"{kind}-{number}"
            step = dice.choice([20, 30, 40, 47])  # at a multiple of ten a checkpoint is being written
            done = run(kind, folder, *words, "--kill", str(step), f"{dice.uniform(0.0005, 0.03):.4f}")
            killed += done.returncode == -9
            found = result_of(run(kind, folder, *words))
            after = {int(one): loss for one, loss in found["losses"]}
            wanted = {int(one): loss for one, loss in straight["losses"] if int(one) in after}
            exact += found["weights"] == straight["weights"] and after == wanted
        rows[kind] = {"killed": killed, "exact": exact, "runs": 4}
    return rows


class Shortage:
    """Lets a trainer run out of memory at some turns of one place."""

    PLACES = ("forward", "loss", "backward", "optimizer", "evaluation", "between batches")

    def __init__(self, place: str, turns: set[int]) -> None:
        self.place, self.turns, self.count, self.raised = place, turns, 0, 0

    def __call__(self, place: str) -> None:
        """Count a turn of a place, and raise if it is one of those."""
        if place != self.place:
            return
        self.count += 1
        if self.count in self.turns:
            self.raised += 1
            raise MemoryError(f"injected in {place}")

    def attach(self, trainer: Any) -> None:  # noqa: ANN401 - of Transformers or TRL
        """Hook a trainer."""
        layers, loss = trainer.model.model.layers, trainer.compute_loss
        optimizer = trainer.create_optimizer()
        begin, prepare = optimizer._init_group, trainer.callback_handler.on_prediction_step  # noqa: SLF001

        def begin_group(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the optimizer's own
            self("optimizer")
            return begin(*args, **kwargs)

        def compute_loss(model: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the trainer's own
            found = loss(model, *args, **kwargs)
            if model.training:
                self("loss")
            return found

        def on_prediction_step(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the trainer's own
            self("between batches")
            return prepare(*args, **kwargs)

        layers[1].register_forward_hook(lambda module, *_: self("forward" if module.training else "evaluation"))
        layers[0].register_full_backward_hook(lambda *_: self("backward"))
        optimizer._init_group, trainer.compute_loss = begin_group, compute_loss  # noqa: SLF001 - of torch
        trainer.callback_handler.on_prediction_step = on_prediction_step


def train(kind: str, folder: Path, batch: int, accumulation: int, shortage: Shortage | None) -> dict[str, Any]:
    """Eight steps and two evaluations in this process; what they came to."""
    trainer = make_trainer(
        kind, folder, [], max_steps=8, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
        eval_strategy="steps", eval_steps=4,
    )  # fmt: skip
    seen: dict[int, list[str]] = defaultdict(list)
    own = trainer.get_batch_samples

    def get_batch_samples(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the trainer's own
        """Note which samples a step learns from."""
        found = own(*args, **kwargs)
        text = b"".join(part["input_ids"].numpy().tobytes() for part in found[0])
        seen[trainer.state.global_step].append(hashlib.sha256(text).hexdigest())
        return found

    trainer.get_batch_samples = get_batch_samples
    if shortage is not None:
        shortage.attach(trainer)
    trainer.train()
    log = [
        {key: value for key, value in row.items() if "runtime" not in key and "per_second" not in key}
        for row in trainer.state.log_history
    ]
    weights = [weight.detach().clone() for weight in trainer.model.parameters()]
    return {
        "log": log, "weights": weights, "bits": weights_of(trainer), "seen": dict(seen),
        "steps": trainer.state.global_step, "micro_batch": trainer._recovering.micro_batch,  # noqa: SLF001
    }  # fmt: skip


def trial(
    dice: random.Random, kind: str, place: str, folder: Path, known: dict[tuple[str, int, int], dict[str, Any]]
) -> dict[str, Any]:
    """One run with a shortage, compared with the same run without."""
    batch, accumulation = dice.choice([3, 4, 6]), dice.choice([1, 2])
    key = (kind, batch, accumulation)
    if key not in known:
        known[key] = train(kind, folder, batch, accumulation, None)
    in_parts = place in {"forward", "loss", "backward", "evaluation"}
    times = dice.choice([1, 2]) if in_parts else 1
    last = {"optimizer": 8, "evaluation": 4, "between batches": 5}.get(place, 8 * accumulation - 1)
    turn = dice.randrange(1, last)
    shortage, straight = Shortage(place, set(range(turn, turn + times))), known[key]
    row = {
        "kind": kind,
        "place": place,
        "times": times,
        "turn": turn,
        "batch": batch,
        "accumulation": accumulation,
    }
    try:
        found = train(kind, folder, batch, accumulation, shortage)
    except Exception:  # noqa: BLE001 - that is the measurement
        return row | {"whole": False, "bits": False, "error": traceback.format_exc()[-400:]}
    evaluated = place in {"evaluation", "between batches"}
    apart = max(
        float((one - other).norm() / other.norm())
        for one, other in zip(found["weights"], straight["weights"], strict=True)
    )
    return row | {
        "raised": shortage.raised,
        "whole": found["steps"] == 8 and found["seen"] == straight["seen"] and shortage.raised == times,
        "bits": found["bits"] == straight["bits"] and (times == 2 or found["log"] == straight["log"]),
        "apart": apart,
        "log_apart": _log_difference(found["log"], straight["log"]),
        "micro_batch_kept": found["micro_batch"] == straight["micro_batch"] if evaluated or times == 1 else None,
    }


def _log_difference(found: list[dict[str, float]], wanted: list[dict[str, float]]) -> float:
    """The largest relative difference of what was logged; infinite where other things were."""
    if [row.keys() for row in found] != [row.keys() for row in wanted]:
        return float("inf")
    return max(
        abs(mine[key] - other[key]) / max(abs(other[key]), 1e-6)
        for mine, other in zip(found, wanted, strict=True)
        for key in other
    )


def measure_memory(place: Path) -> dict[str, Any]:
    """A lack of memory at 60 places of each trainer."""
    dice, rows = random.Random(0), list[dict[str, Any]]()  # noqa: S311 - no secret
    known: dict[tuple[str, int, int], dict[str, Any]] = {}
    for kind in KINDS:
        for number in range(60):
            rows.append(trial(dice, kind, Shortage.PLACES[number % 6], place / "out", known))
    return {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}


PARTS = {
    "verdicts": measure_verdicts,
    "identity": measure_identity,
    "time": measure_time,
    "kills": measure_kills,
    "memory": measure_memory,
}


def bars_of(parts: dict[str, Any]) -> dict[str, Bar]:
    """Hold what was measured so far against the bars."""
    bars: dict[str, Bar] = {}
    for kind in KINDS:
        rows = {name: row for name, row in parts.get("verdicts", {}).items() if name.startswith(f"{kind},")}
        for what in ("leak", "healthy"):
            right = [row["right"] for name, row in rows.items() if f", {what}," in name]
            if right:
                title = "leak found with line and holder" if what == "leak" else "healthy run passed"
                bars[f"{kind}: {title}, by the callback alone and under holdwater run"] = Bar(
                    f"{sum(right)} of {len(right)}", "both", all(right)
                )
        bars |= {f"{kind}: {name}": bar for name, bar in _bars_of_kind(parts, kind).items()}
    return bars


def _bars_of_kind(parts: dict[str, Any], kind: str) -> dict[str, Bar]:
    """The bars of one trainer beside its verdicts."""
    bars: dict[str, Bar] = {}
    if "identity" in parts:
        row = parts["identity"][kind]
        bars["losses and weights with the callback, to the bit"] = Bar(
            f"{row['losses']} losses {'the same' if row['with_callback'] else 'NOT the same'}", "the same",
            row["with_callback"] and row["without_again"],
        )  # fmt: skip
    if "time" in parts:
        row = parts["time"][kind]
        worked, elapsed = row["processor_time"], row["elapsed"]
        bars[f"processor time of a step with the callback, median of {row['blocks']} interleaved blocks"] = Bar(
            f"{_against(worked)} in steps of {1000 * row['seconds_of_a_step']:.0f} ms, {100 * row['inside']:.2f} "
            f"% inside the callback; elapsed time, on a busy machine, {_against(elapsed)}",
            "at most 1 % more", worked["cost"] <= 0.01,
        )  # fmt: skip
    if "kills" in parts:
        row = parts["kills"][kind]
        bars["killed with -9, gone on exactly"] = Bar(
            f"{row['exact']} of {row['runs']}", "all", row["exact"] == row["runs"] == row["killed"]
        )
    if "memory" in parts:
        bars |= _bars_of_memory(parts["memory"][kind])
    return bars


def _against(row: dict[str, Any]) -> str:
    """A cost beside its noise floor."""
    return f"{100 * row['cost']:+.2f} % (the same against itself {100 * row['noise_floor']:+.2f} %)"


def _bars_of_memory(rows: list[dict[str, Any]]) -> dict[str, Bar]:
    """The bars of lacks of memory."""
    whole = [row["whole"] for row in rows]
    once = [row["bits"] for row in rows if row["times"] == 1]
    parts = [max(row.get("apart", 1.0), row.get("log_apart", 1.0)) for row in rows if row["times"] == 2]
    kept = [
        row["micro_batch_kept"]
        for row in rows
        if row["place"] in {"evaluation", "between batches"} and "raised" in row
    ]
    worst = max(parts, default=0.0)
    return {
        "a lack of memory at 60 places recovered, same samples in each step": Bar(
            f"{sum(whole)} of {len(whole)}", "all", all(whole)
        ),
        "to the bit where the batch stays whole, weights and log": Bar(
            f"{sum(once)} of {len(once)}", "all", all(once)
        ),
        "smaller parts against the whole batch, weights and log, worst": Bar(
            f"{worst:.1e} in {len(parts)} runs", "at most 1e-5", worst <= 1e-5
        ),
        "evaluations that lacked memory, and left training's micro-batch": Bar(
            f"{sum(map(bool, kept))} of {len(kept)}", "all", all(kept)
        ),
    }


def keep(measured: dict[str, Any]) -> bool:
    """Add parts to those that were measured before, and hold all of them against the bars."""
    file = RESULTS / "frameworks_transformers.json"
    with Path(__file__).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = json.loads(file.read_text(encoding="utf-8"))["parts"] if file.exists() else {}
        stored |= measured
        stored = {name: stored[name] for name in PARTS if name in stored}
        packages = {"transformers": transformers.__version__, "trl": trl.__version__}
        return record("frameworks_transformers", bars_of(stored), packages=packages, parts=stored)


def main() -> bool:
    """Measure the parts that were asked for, and say how all stand that were measured so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part; may be repeated")
    options = parser.parse_args()
    logging.getLogger("holdwater").setLevel(logging.CRITICAL)
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    reached = True
    for name in options.only or PARTS:
        with tempfile.TemporaryDirectory(prefix="trans-") as folder:
            reached = keep({name: PARTS[name](Path(folder))})
    return reached


if __name__ == "__main__":
    sys.exit(not main())
