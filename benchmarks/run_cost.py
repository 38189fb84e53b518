"""What `holdwater run` costs healthy scripts of the zoo, by its own account and by comparison.

The scripts are made as long as is asked for.

By its own account: the looks and the counting inside the script's process, and all of the watching process's time
on a processor, from the first step to the last. By comparison: within one run, blocks of two seconds in which the
observer is switched off (and the watching process stopped) alternate with blocks in which it works; the noise
floor compares the blocks that are off with each other.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from recording import Bar, record

ZOO = Path(__file__).resolve().parents[1] / "zoo" / "lookalikes"
SCRIPTS = ("loss_summed_as_float", "gradient_penalty_by_grad")
HEAD = '''
import json as _json, os as _os, signal as _signal, sys as _sys, time as _time

def _long(seconds, blocks):
    """Count steps for so many seconds; with blocks, switch the observer off and on, and time each step."""
    session = _sys.modules["holdwater.observe.agent.session"].current() if blocks else None
    end, times, step = _time.perf_counter() + seconds, {False: [], True: []}, 0
    off, switch = False, _time.perf_counter() + 2
    block = []
    while _time.perf_counter() < end:
        began = _time.perf_counter()
        yield step
        step += 1
        if blocks:
            block.append(_time.perf_counter() - began)
            if _time.perf_counter() > switch and session is not None:
                times[off].append(block)
                block, off, switch = [], not off, _time.perf_counter() + 2
                session.forked = off
                _os.kill(_os.getppid(), _signal.SIGSTOP if off else _signal.SIGCONT)
    if blocks:
        _os.kill(_os.getppid(), _signal.SIGCONT)
        medians = {str(key): [sorted(b)[len(b) // 2] for b in value] for key, value in times.items()}
        means = {str(key): [sum(b) / len(b) for b in value] for key, value in times.items()}
        print("TIMES", _json.dumps({"medians": medians, "means": means}))
'''


def main() -> bool:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of each script by its own account")
    parser.add_argument("--compare", type=float, default=120.0, help="seconds of each comparison")
    options = parser.parse_args()
    with ThreadPoolExecutor(2) as pool:
        accounts = list(pool.map(lambda name: own_account(name, options.seconds), SCRIPTS))
    print(json.dumps(accounts), flush=True)
    compared = [comparison(name, options.compare) for name in SCRIPTS]
    starts = start_up()
    share = max(row["share"] for row in accounts)
    mean = max(row["mean_us"] for row in accounts)
    slower = float(np.median([row["slower"] for row in compared]))
    floor = float(np.median([row["floor"] for row in compared]))
    bars = {
        f"cost by its own account, worst of {len(SCRIPTS)} scripts of {options.seconds:.0f} s": Bar(
            f"{share:.2%}", "at most 0.5 %", share <= 0.005
        ),
        "cost of a step inside the script, mean, worst script": Bar(f"{mean:.1f} µs", "at most 25 µs", mean <= 25),
        "cost by comparison of blocks, median script": Bar(
            f"{slower:+.2%} (noise floor {floor:.2%})", "at most 0.5 %", slower <= 0.005
        ),
        "start-up": Bar(f"{starts['median']:.2f} s", "at most 0.3 s", starts["median"] <= 0.3),
    }
    return record("run_cost", bars, accounts=accounts, compared=compared, start_up=starts)


def own_account(name: str, seconds: float) -> dict[str, Any]:
    """Run one script for so long, and read its verdict."""
    with tempfile.TemporaryDirectory() as folder:
        verdict = run(name, Path(folder), seconds, blocks=False)[0]
    cost = verdict["overhead"]
    total = cost["guard_seconds"] + cost["watcher_seconds"]
    return {
        "script": name, "steps": verdict["steps"], "verdict": verdict["verdict"],
        "share": total / cost["run_seconds"],
        "inside": cost["guard_seconds"] / cost["run_seconds"],
        "watcher": cost["watcher_seconds"] / cost["run_seconds"],
        "mean_us": 1e6 * cost["guard_seconds"] / verdict["steps"],
        "watcher_grew_bytes": cost["watcher_grew_bytes"],
    }  # fmt: skip


def comparison(name: str, seconds: float) -> dict[str, Any]:
    """Run one script with the observer on and off in turn."""
    with tempfile.TemporaryDirectory() as folder:
        said = run(name, Path(folder), seconds, blocks=True)[1]
    times = json.JSONDecoder().raw_decode(said.rpartition("TIMES ")[2])[0]["means"]
    on, off = np.array(times["False"][2:]), np.array(times["True"][1:])
    count = min(len(on), len(off))
    pairs = on[:count] / off[:count]
    twins = off[1::2][: count // 2] / off[::2][: len(off[1::2])][: count // 2]
    return {
        "script": name, "blocks": int(count), "slower": float(np.median(pairs) - 1),
        "floor": float(np.median(np.abs(twins - np.median(twins))) / np.sqrt(max(count, 1))),
        "quartiles": [float(np.quantile(pairs, q) - 1) for q in (0.25, 0.75)],
    }  # fmt: skip


def run(name: str, folder: Path, seconds: float, *, blocks: bool) -> tuple[dict[str, Any], str]:
    """Run a script of the zoo for so many seconds."""
    text = (ZOO / f"{name}.py").read_text(encoding="utf-8")
    long, count = re.subn(r"for step in range\(\d+\):", f"for step in _long({seconds}, {blocks}):", text, count=1)
    if not count:
        raise ValueError(f"{name} has no loop over steps")
    (folder / "script.py").write_text(HEAD + long, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "holdwater",
        "run",
        "--quiet",
        "--out",
        "run",
        "--json",
        "v.json",
        "script.py",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads((folder / "v.json").read_text(encoding="utf-8")), done.stdout


def start_up() -> dict[str, float]:
    """Seconds from the call to the script's first line, with and without, in turn."""
    code = "import time; print(time.time())"
    more = []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(code, encoding="utf-8")
        holdwater = [sys.executable, "-m", "holdwater", "run", "--quiet"]
        for _ in range(12):
            took = []
            for command in ([*holdwater, str(script)], [sys.executable, str(script)]):
                began = time.time()
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
                took.append(float(done.stdout) - began)
            more.append(took[0] - took[1])
    return {"median": float(np.median(more)), "worst": max(more)}


if __name__ == "__main__":
    sys.exit(not main())
