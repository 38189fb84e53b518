"""`holdwater doctor`: which readings work on this machine, what each costs, and why others do not."""

import argparse
import contextlib
import importlib
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from holdwater.budget import Terms, stopping_level, waiting_level
from holdwater.config import choose_profile
from holdwater.errors import ProbeError
from holdwater.probes.devices import DEVICES, Cuda
from holdwater.probes.host import Resident
from holdwater.probes.machine import read_machine
from holdwater.probes.observer import PROBES
from holdwater.units import format_size

REPEATS = 20


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the subcommand."""
    parser = commands.add_parser(
        "doctor",
        help="which readings work here, and what each costs",
        description="Try every reading on this machine, and show the budget and the profile it would get.",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the tables; return the exit code."""
    del options
    for framework in ("torch", "mlx.core"):  # a probe asks a framework only when it is loaded
        with contextlib.suppress(ImportError):
            importlib.import_module(framework)
    console = Console()
    console.print(_probe_table())
    _print_machine(console)
    return 0


def _probe_table() -> Table:
    """Every probe, tried."""
    table = Table("probe", "reads", "how often", "cost", "now", box=None, padding=(0, 2, 0, 0))
    resident = Resident()
    table.add_row("resident", resident.measures, "each step", _cost(resident.read), format_size(resident.read()))
    for device in (make() for make in DEVICES):
        reason = device.unavailable()
        cost = "-" if reason else _cost(device.read)
        table.add_row(device.name, device.measures, "each step", cost, reason or "works")
    for probe in (make() for make in PROBES):
        reason = probe.unavailable()
        every, cost, now = f"each {probe.every:g} s", "-", reason or ""
        if reason is None:
            try:
                now, cost = _write(probe.read()), _cost(probe.read)
            except ProbeError as error:
                now = f"fails: {error}"
        table.add_row(probe.name, probe.measures, every, cost, now)
    return table


def _print_machine(console: Console) -> None:
    """Print the budget, levels and profile that a run would get on this machine."""
    gpu = Cuda().unavailable() is None
    machine = read_machine(device="cuda" if gpu else "cpu")
    console.print()
    for pool, budget in Terms(machine=machine).budgets().by_name().items():
        console.print(f"{pool}: {budget}", highlight=False)
    console.print(
        f"a run waits below {format_size(waiting_level(machine))} available, "
        f"and stops below {format_size(stopping_level(machine))}",
        highlight=False,
    )
    profile = choose_profile(machine.device_size or machine.total, gpu=gpu)
    if profile is None:
        console.print("profile: none (this machine is smaller than the smallest)", highlight=False)
        return
    console.print(f"profile: {profile.name}; for fine-tuning it sets", highlight=False)
    for model, row in profile.models.items():
        console.print(f"  {model}: {', '.join(f'{key} {value}' for key, value in row.items())}", highlight=False)


def _cost(read: Callable[[], object]) -> str:
    """The median time of a reading."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        read()
        times.append(time.perf_counter() - began)
    return f"{1e6 * sorted(times)[REPEATS // 2]:.0f} µs"


def _write(reading: Any) -> str:  # noqa: ANN401 - a Reading
    """Format a probe's reading, with units."""
    counts = {"child_count", "open_files", "threads", "device_buffers", "pressure_level"}
    return ", ".join(
        f"{name} {value:.1f} %"
        if name == "pressure"
        else f"{name} {value}"
        if name in counts
        else f"{name} {format_size(value)}"
        for name, value in reading.items()
    )
