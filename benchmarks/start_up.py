"""Start-up and size of the wheel, against another commit: has the program become slower to start, or larger?

`holdwater --help`, and `holdwater run` on an empty script over bare Python on the same script, of this tree and of
the other commit in a temporary worktree. Each round starts all of them once, in an order that turns; the first
round, which writes the compiled files, does not count. The wheels are built without their dependencies.

    python benchmarks/start_up.py --against 3e7f126
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from recording import Bar, record

ROOT = Path(__file__).resolve().parents[1]
STARTS = 20
SLOWER, LARGER = 1.10, 1.00
"""How many times the other commit's seconds, and bytes, are allowed."""
BARE, HELP, RUN = "python", "holdwater --help", "holdwater run"
COMMANDS = {
    BARE: ("empty.py",),
    HELP: ("-m", "holdwater", "--help"),
    RUN: ("-m", "holdwater", "run", "--quiet", "empty.py"),
}
Seconds = dict[tuple[str, str], list[float]]
"""Of each start, by the tree (`this` or `other`) and the command."""


def main() -> bool:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, metavar="COMMIT", help="which is measured beside this tree")
    other = parser.parse_args().against
    with worktree(other) as tree:
        seconds = start({"this": ROOT, "other": tree})
        sizes = {"this": wheel_size(ROOT), "other": wheel_size(tree)}
    added = {
        name: {"this": over_bare(seconds, "this", name), "other": over_bare(seconds, "other", name)}
        for name in (HELP, RUN)
    }
    bars = {
        f"start-up of `{name}`{words}, against {other}": compared(numbers["this"], numbers["other"])
        for (name, numbers), words in zip(
            added.items(), ("", " on an empty script, over bare Python"), strict=True
        )
    }
    ratio = sizes["this"] / sizes["other"]
    bars[f"size of the wheel, against {other}"] = Bar(
        f"{sizes['this'] / 1e3:.0f} kB against {sizes['other'] / 1e3:.0f} kB, {ratio:.2f} times",
        f"at most {LARGER:.2f} times",
        ratio <= LARGER,
    )
    return record(
        "start_up",
        bars,
        against=other,
        starts=STARTS,
        bare_seconds={tree: float(np.median(seconds[tree, BARE])) for tree in ("this", "other")},
        seconds_over_bare=added,
        wheel_bytes=sizes,
    )


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """The files of a commit, in a temporary worktree.

    Args:
        commit: As git knows it.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def git(*words: str) -> None:
    """Call git in this repository.

    Args:
        words: Its arguments.
    """
    subprocess.run(["git", *words], cwd=ROOT, check=True)  # noqa: S607 - git from the path


def start(trees: dict[str, Path]) -> Seconds:
    """Start every command of every tree so many times, one after the other.

    Args:
        trees: Where `src` lies, by name.
    """
    starts = [(name, command) for name in trees for command in COMMANDS]
    seconds: Seconds = {key: [] for key in starts}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty.py").touch()
        for number in range(STARTS + 1):
            turned = number % len(starts)
            for name, command in starts[turned:] + starts[:turned]:
                took = start_once(trees[name], COMMANDS[command], folder)
                if number:
                    seconds[name, command].append(took)
    return seconds


def start_once(tree: Path, words: tuple[str, ...], folder: str) -> float:
    """Seconds from the start of one command to its end.

    Args:
        tree: Whose `src` it imports.
        words: What Python is called with.
        folder: Where it works.
    """
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def over_bare(seconds: Seconds, tree: str, command: str) -> list[float]:
    """Seconds that each start took more than the bare one of its round; those of `--help` as they are.

    Args:
        seconds: Of all starts.
        tree: By its name.
        command: By its name.
    """
    own = seconds[tree, command]
    return own if command == HELP else [one - bare for one, bare in zip(own, seconds[tree, BARE], strict=True)]


def compared(this: list[float], other: list[float]) -> Bar:
    """Both medians, their ratio, and how the ratios of single rounds are spread.

    Args:
        this: Seconds, by round.
        other: The same of the other commit.
    """
    ratio = float(np.median(this) / np.median(other))
    low, high = np.quantile(np.array(this) / np.array(other), (0.25, 0.75))
    said = f"{np.median(this):.3f} s against {np.median(other):.3f} s, {ratio:.2f} times"
    return Bar(f"{said} (quartiles {low:.2f}–{high:.2f})", f"at most {SLOWER:.2f} times", ratio <= SLOWER)


def wheel_size(tree: Path) -> int:
    """Bytes of the wheel that is built from a tree.

    Args:
        tree: The repository's root.
    """
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", folder, str(tree)], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.stat().st_size


if __name__ == "__main__":
    sys.exit(not main())
