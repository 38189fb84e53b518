"""What `holdwater run` costs twelve healthy programs as their own documentation writes them.

Each whole command is run under `holdwater run --quiet --json` and bare, in pairs that begin with one and the other
in turn; pairs of two bare runs between them give the noise floor. Compared are seconds, the peak of all processes
together (sampled from outside), the longest steps (a step is compared with the same step of the bare runs), the
verdict, and what the program says. `--only NAME` measures a part; results are kept by program. With more than one
pair, a run that is thrown away comes first: it fills the machine's caches. `OMP_NUM_THREADS`, where it is set,
holds for both; where it is not, the programs compute with a thread a core, as their users' do.
"""

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from process_tree import Ran, run_sampled
from real_programs import HERE, freeze, losses, make_environment
from recording import RESULTS, Bar, commit, record

PROGRAMS_FOLDER = HERE / "programs"
RIGHT = {"flat", "bounded", "cyclic", "warming"}
GOAL = (
    "at most 2 s or 2 % longer, peak at most 60 MB higher, no step 50 ms or 5 % longer, right verdict, same output"
)
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled"}


@dataclass(frozen=True, slots=True)
class Program:
    """A public program, and how it is started."""

    words: tuple[str, ...]
    """Script or `-m MODULE`, and arguments; `{data}` is the folder that `prepare` has filled."""
    prepare: tuple[str, ...] = ()
    """A script of ours that makes its model or documents, and arguments."""
    launcher: tuple[str, ...] = ()
    ranks: int = 1
    same: bool = True
    """Whether two bare runs say the same."""


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SPACY = (
    "-m", "spacy", "train", "{data}/config.cfg", "--output", "model", "--code", "{programs}/spacy_code.py",
    "--paths.train", "{data}/train.spacy", "--paths.dev", "{data}/dev.spacy",
)  # fmt: skip
SMALL_MODEL = ("small_model.py", "{data}")
PROGRAMS = {
    "sb3-dqn": Program(("{programs}/sb3_dqn.py",)),
    "sb3-ppo": Program(("{programs}/sb3_ppo.py",)),
    "spacy": Program(SPACY, prepare=("spacy_code.py", "{data}", "700")),
    "lightning": Program(("{programs}/lightning_trainer.py",)),
    "skorch": Program(("{programs}/skorch_net.py",)),
    "sentence-transformers": Program(("{programs}/sentence_model.py",)),
    "ddp": Program(("{programs}/ddp.py",), launcher=TORCHRUN, ranks=2),
    "loader-workers": Program(("{programs}/loader_workers.py",)),
    "records": Program(("{programs}/records.py",)),
    "transformers-trainer": Program(("{programs}/trainer.py", "{data}", "1200"), prepare=SMALL_MODEL),
    "trl-sft": Program(("{programs}/sft.py", "{data}", "1200"), prepare=SMALL_MODEL),
    "gpt": Program(("{programs}/gpt.py",)),
}


def main() -> bool:
    """Measure the programs that were asked for, and say how all stand that were measured so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="a Python that has the packages")
    parser.add_argument(
        "--pairs", type=int, default=8, metavar="N", help="pairs of bare and observed (default: 8)"
    )
    parser.add_argument("--twins", type=int, default=2, metavar="N", help="pairs of two bare runs (default: 2)")
    parser.add_argument("--only", action="append", choices=PROGRAMS, help="measure this program; may be repeated")
    options = parser.parse_args()
    python = options.python or make_environment(HERE.parent / ".venv-programs")
    reached = True
    for name in options.only or PROGRAMS:
        with tempfile.TemporaryDirectory(prefix=f"real-{name}-") as folder:
            measured = measure(PROGRAMS[name], python, Path(folder), options.pairs, twins=options.twins)
        reached = keep(name, measured, freeze(python))
    return reached


def keep(name: str, measured: dict[str, Any], packages: list[str]) -> bool:
    """Add one program to those that were measured before, and hold all of them against the bar."""
    file = RESULTS / "real_cost.json"
    with Path(__file__).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parts may be measured side by side
        stored = json.loads(file.read_text(encoding="utf-8"))["programs"] if file.exists() else {}
        stored[name] = measured
        bars = {key: judge(stored[key]) for key in sorted(stored)}
        return record("real_cost", bars, programs=stored, packages=packages)


def measure(program: Program, python: Path, folder: Path, pairs: int, *, twins: int) -> dict[str, Any]:
    """Run a program in pairs.

    Args:
        program: What is run.
        python: The interpreter that has its packages.
        folder: Where its data and the folders of its runs are made.
        pairs: Of a bare run and an observed one.
        twins: Pairs of two bare runs.

    Returns:
        The runs' numbers, what they come to, and under which circumstances they were taken.
    """
    data = folder / "data"
    data.mkdir()
    if program.prepare:
        words = [word.format(data=data) for word in program.prepare]
        subprocess.run([str(python), str(PROGRAMS_FOLDER / words[0]), *words[1:]], check=True, cwd=folder)
    if pairs > 1:
        (folder / "first").mkdir()
        run(program, python, folder / "first", observed=False)
    rows: list[dict[str, Any]] = []
    for number, kinds in enumerate(order(pairs, twins)):
        for observed in kinds:
            place = folder / f"run-{len(rows)}"
            place.mkdir()
            rows.append(run(program, python, place, observed=observed) | {"pair": number})
            print(json.dumps({key: value for key, value in rows[-1].items() if key not in {"steps", "said"}}))
            sys.stdout.flush()
    compare_steps(rows)
    summary = summarize(rows, same=program.same)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "commit": commit(), "load": os.getloadavg()[1],
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        **summary,
        "runs": [{key: value for key, value in row.items() if key not in {"steps", "said"}} for row in rows],
    }  # fmt: skip


def order(pairs: int, twins: int) -> list[tuple[bool, bool]]:
    """Which runs are observed: pairs that begin with one and the other in turn, twins spread among them."""
    planned = [(True, False) if number % 2 else (False, True) for number in range(pairs)]
    for twin in range(twins, 0, -1):
        planned.insert(round(twin * pairs / (twins + 1)), (False, False))
    return planned


def run(program: Program, python: Path, place: Path, *, observed: bool) -> dict[str, Any]:
    """Run a program once, in a folder of its own, and take down what it took."""
    words = [word.format(data=place.parent / "data", programs=PROGRAMS_FOLDER) for word in program.words]
    watch = ["-m", "holdwater", "run", "--quiet", "--json", "v.json"] if observed else []
    given = os.environ.get("PYTHONPATH")
    path = [str(HERE.parent / "src"), *([given] if given else [])]
    environment = os.environ | OFFLINE | {
        "PYTHONPATH": os.pathsep.join(path), "HF_HOME": str(place / "hf"), "TMPDIR": str(place)
    }  # fmt: skip
    took = run_sampled([str(python), *program.launcher, *watch, *words], place, environment)
    steps = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(place.glob("steps-*.json"))]
    row = {
        "observed": observed, "seconds": took.seconds, "processor_seconds": took.processor_seconds,
        "peak_mb": took.peak / 1e6, "peak_parts_mb": [round(part / 1e6, 1) for part in took.peak_parts],
        "peak_second": took.peak_second, "looks": took.looks, "load": os.getloadavg()[0],
        "longest_step": max((second for rank in steps for second in rank), default=None),
        "steps": steps, "said": outcome(took),
    }  # fmt: skip
    if observed:
        row["verdicts"] = [verdict(place, rank) for rank in range(program.ranks)]
    return row


def outcome(took: Ran) -> list[str]:
    """What a program comes to: its losses, or all that it says on standard output."""
    return losses(took.said) or took.said.splitlines()


def verdict(place: Path, rank: int) -> dict[str, Any]:
    """The part of a rank's verdict that is judged here, and what it says of its own cost."""
    text = json.loads((place / ("v.json" if rank == 0 else f"v.json.rank-{rank}")).read_text(encoding="utf-8"))
    known = {key: text[key] for key in ("verdict", "steps", "step_source", "overhead")}
    known["peak_host_mb"] = text["peak"]["host_bytes"] / 1e6
    findings = [finding for finding in text["findings"] if finding["verdict"] not in RIGHT]
    names = ("verdict", "component", "advice", "chain", "explained")
    known["findings"] = [{name: finding.get(name) for name in names} for finding in findings]
    return known


def compare_steps(rows: Sequence[dict[str, Any]]) -> None:
    """Give each run its `excess`: seconds by which its worst step is longer than the same step bare.

    The median of the other bare runs stands for the step. `allowed` is the larger of 50 ms and 5 % of it.
    """
    counts = {tuple(len(rank) for rank in row["steps"]) for row in rows}
    table = [
        np.concatenate([np.asarray(rank) for rank in row["steps"]]) if len(counts) == 1 else None for row in rows
    ]
    for number, row in enumerate(rows):
        others = [
            steps
            for at, steps in enumerate(table)
            if at != number and not rows[at]["observed"] and steps is not None
        ]
        mine = table[number]
        if mine is None or not others or not mine.size:
            row["excess"] = row["allowed"] = row["worst_step"] = None
            continue
        usual = np.median(np.array(others), axis=0)
        worst = int(np.argmax(mine - np.maximum(1.05 * usual, usual + 0.05)))
        row["excess"], row["worst_step"] = float(mine[worst] - usual[worst]), worst + 1
        row["allowed"] = max(0.05, 0.05 * float(usual[worst]))


def summarize(rows: Sequence[dict[str, Any]], *, same: bool) -> dict[str, Any]:
    """What the runs come to: differences pair by pair, the noise floor, verdicts, outputs."""
    pairs: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        pairs.setdefault(row["pair"], []).append(row)
    compared = [sorted(pair, key=lambda row: bool(row["observed"])) for pair in pairs.values()]
    real = [pair for pair in compared if pair[1]["observed"]]
    twins = [pair for pair in compared if not pair[1]["observed"]]
    bare = [row["said"] for row in rows if not row["observed"]]
    return {
        "bare_seconds": float(np.median([row["seconds"] for row in rows if not row["observed"]])),
        "observed": differences(real), "noise": differences(twins),
        "allowed_step": float(np.median([row["allowed"] or 0.05 for _, row in real])),
        "verdicts": [[rank["verdict"] for rank in row["verdicts"]] for _, row in real],
        "steps": [[rank["steps"] for rank in row["verdicts"]] for _, row in real],
        "deterministic": all(said == bare[0] for said in bare),
        "same_output": all(row["said"] == bare[0] for _, row in real) if same else None,
    }  # fmt: skip


def differences(pairs: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Second of each pair against its first: median, quartiles and greatest of each difference."""
    numbers: dict[str, list[float]] = {"ratio": [two["seconds"] / one["seconds"] for one, two in pairs]}
    for key in ("seconds", "processor_seconds", "peak_mb", "longest_step", "excess"):
        if all(row[key] is not None for pair in pairs for row in pair):
            numbers[key] = [two[key] - one[key] for one, two in pairs]
    return {
        key: {"median": float(np.median(values)), "quartiles": np.quantile(values, (0.25, 0.75)).tolist(),
              "greatest": max(values), "all": values}
        for key, values in numbers.items() if values
    }  # fmt: skip


def judge(measured: dict[str, Any]) -> Bar:
    """Hold the numbers of one program against the bar."""
    cost, noise, base = measured["observed"], measured["noise"], measured["bare_seconds"]
    longer, peak = cost["seconds"]["median"], cost["peak_mb"]["median"]
    step = cost.get("excess", cost.get("longest_step"))
    kinds = sorted({kind for kinds in measured["verdicts"] for kind in kinds})
    low, high = cost["seconds"]["quartiles"]
    floor = f"{max(abs(value) for value in noise['seconds']['all']):.1f} s" if noise else "not measured"
    words = {False: "output DIFFERS", True: "same output", None: "output not compared"}
    said = (
        f"{base:.1f} s bare, {longer:+.2f} s ({cost['ratio']['median'] - 1:+.1%}; quartiles {low:+.2f} to"
        f" {high:+.2f}, noise {floor}), peak {peak:+.0f} MB, "
        + ("steps unknown" if step is None else f"worst step {1000 * step['median']:+.0f} ms")
        + f", {' and '.join(kinds)}, {words[measured['same_output']]}"
    )
    reached = (
        longer <= max(2.0, 0.02 * base)
        and peak <= 60
        and (step is None or step["median"] <= measured["allowed_step"])
        and set(kinds) <= RIGHT
        and measured["same_output"] is not False
    )
    return Bar(said, GOAL, reached)


if __name__ == "__main__":
    sys.exit(not main())
