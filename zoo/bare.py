"""What a script's variant grows by, without holdwater: `python -m zoo.bare [--columns a,b] [--only PATTERN]`.

A sampler outside reads the kernel's figures for the process and its children, and the number of steps that a hook
of the optimizers writes down, or for MLX of evaluations. The growth is that of the last four fifths of the steps,
in proportion.
"""

import argparse
import contextlib
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from zoo.columns import COLUMNS, Column, Plan, growth, read_plans, vary, why_not
from zoo.labels import Label, read_labels, what_is_missing

_COUNT = """
import mmap, os, runpy, struct, sys
view, made, own = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 8), [0], os.getpid()
def note(*_):
    made[0] += 1
    view[:8] = struct.pack("q", made[0])
sys.argv[:] = sys.argv[2:]
if "mlx" in open(sys.argv[0], encoding="utf-8").read():
    import mlx.core
    evaluate = mlx.core.eval
    def noted(*arrays):
        evaluate(*arrays)
        note()
    mlx.core.eval = noted
else:
    from torch.optim.optimizer import register_optimizer_step_post_hook
    register_optimizer_step_post_hook(note)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script and writes the number of its steps into a file; for MLX, of its evaluations."""


class Reading(NamedTuple):
    """The kernel's figures after so many steps."""

    step: int
    megabytes: float
    """Resident, with children."""
    handles: int
    """Open files and threads."""


def main() -> int:
    """Run variants and print what grew."""
    options = _options()
    columns = [column for column in COLUMNS if column.name in options.columns.split(",")]
    plans = read_plans()
    heads = f"{'script':38} {'column':11} {'steps':>6} {'seconds':>7} {'MB':>8} {'a step':>9} {'handles':>7}"
    print(f"{heads}  by the table")
    for label in read_labels(options.only):
        plan = plans.get(label.script.stem)
        for column in columns:
            if plan is not None and why_not(label, plan, column) is None and what_is_missing(label) is None:
                print(_row(label, plan, column), flush=True)
    return 0


def _row(label: Label, plan: Plan, column: Column) -> str:
    """Run one variant; what grew, beside what the table says."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        try:
            there = vary(label, plan, column, Path(folder))
            readings = measure(there, Path(folder), stop=plan.stops.get(column.name))
        except RuntimeError as error:
            return f"{label.script.stem:38} {column.name:11} {error}"
    seconds = time.perf_counter() - began
    last = readings[-1]
    first = next(reading for reading in readings if reading.step >= last.step / 5)
    rate = (last.megabytes - first.megabytes) / max(last.step - first.step, 1)
    said = "-" if plan.event is None else "{:.0f} events, {} MB".format(*growth(plan, column))
    return (
        f"{label.script.stem:38} {column.name:11} {last.step:6d} {seconds:7.1f} {rate * last.step:8.2f} "
        f"{1e6 * rate:9.0f} {last.handles - first.handles:7d}  {said}"
    )


def measure(label: Label, folder: Path, *, stop: int | None = None) -> list[Reading]:
    """Run a script and read the kernel's figures fifty times a second, until it has ended.

    Args:
        label: Of the script.
        folder: For its temporary files.
        stop: The step after which it is ended; None to let it end itself.

    Returns:
        One reading at least for all steps that took longer than a fiftieth of a second.

    Raises:
        RuntimeError: The script failed, or made no step.
    """
    counter = folder / "steps"
    counter.write_bytes(bytes(8))
    with counter.open("r+b") as file, mmap.mmap(file.fileno(), 8) as view:
        command = [sys.executable, "-c", _COUNT, str(counter), str(label.script)]
        child = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.DEVNULL
        )
        process = psutil.Process(child.pid)
        readings: list[Reading] = []
        while child.poll() is None:
            (step,) = struct.unpack("q", view[:8])
            if step and (not readings or step > readings[-1].step):
                with contextlib.suppress(psutil.Error):  # it may have just ended
                    readings.append(_read(process, step))
            if stop is not None and step >= stop:
                child.kill()
            time.sleep(0.02)
    if (stop is None and child.returncode) or not readings:
        raise RuntimeError(f"{label.script.stem} ended with {child.returncode} after {len(readings)} readings")
    return readings


def _read(process: psutil.Process, step: int) -> Reading:
    """The figures now."""
    family = [process, *process.children()]
    return Reading(
        step, sum(_resident(one.pid) for one in family) / 1e6, process.num_fds() + process.num_threads()
    )


def _resident(pid: int) -> int:
    """Resident bytes of a process; 0 if it has just gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def _options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m zoo.bare", description=__doc__)
    names = ",".join(column.name for column in COLUMNS)
    parser.add_argument("--columns", default="as-is", metavar="A,B", help=f"of {names} (default: as-is)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="scripts whose path holds this")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
