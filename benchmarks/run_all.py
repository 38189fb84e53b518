"""Measure every row of the results table, one benchmark after the other: hours on two cores.

What needs a CUDA device, or a package that is not installed, is left out, and the reason is printed.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BEFORE_THE_PACKAGES = "3e7f126"
"""The commit whose start-up and wheel are compared with: the last one before the packages were divided."""
HELD_OUT = ("--half", "held-out", "--count", "240", "--seed", "0")
"""Generated programs of the half that nothing is tuned on."""


class Measurement(NamedTuple):
    """A command that measures rows of the results table."""

    result: str
    """The file in `results/` that it writes; empty where it only prepares."""
    words: tuple[str, ...]
    """What Python is called with, in the repository's root."""
    cuda: bool = False
    """Whether it needs a CUDA device."""
    package: str | None = None
    """A package that it needs and that is not among the requirements."""


def measurements(folder: Path) -> tuple[Measurement, ...]:
    """All of them, in their order.

    Args:
        folder: For what one measurement leaves for the next.
    """
    found = ("--from", str(folder / "zoo.json"))
    return (
        Measurement("", ("-m", "zoo", "--tools", "holdwater", "--json", found[1])),
        _script("zoo_scores", *found),
        _script("explanations", *found),
        *_matrix(folder),
        *map(_script, ("simulation", "forecasts", "run_cost", "real_programs", "real_cost", "flat_run", "speed")),
        *map(_script, ("guard_cost", "count_cost", "million_steps", "kill_and_resume", "survival", "recycling")),
        *map(_script, ("out_of_memory", "soak", "soak_faults", "ladder", "leaves_nothing", "tuning_masters")),
        *map(
            _script, ("exact_loops", "diverging", "demo_time", "vision_cache", "picture_story", "mixed_pictures")
        ),
        _script("exact_loops", "--fresh")._replace(result="exact_fresh_loops"),
        _script("exact_loops", "--fresh", "fresh_loops_b")._replace(result="exact_fresh_loops_b"),
        *map(_script, ("endings", "dependencies", "integrations_alone", "pytest_plugin")),
        _script("frameworks_transformers")._replace(package="trl"),
        _script("frameworks_other")._replace(package="lightning"),
        _script("other_programs"),
        _script("auto_find_batch_size")._replace(package="accelerate"),
        _script("unified_memory")._replace(package="mlx"),
        _script("mlx_training")._replace(package="mlx_lm"),
        _script("cuda_build")._replace(package="nvidia"),  # comes with a build for CUDA: `make cuda-build`
        _script("cuda_build")._replace(package="nvidia", result="cuda_build_oldest"),  # with the oldest PyTorch
        _script("start_up", "--against", BEFORE_THE_PACKAGES),
        *(
            _script(name)._replace(cuda=True)
            for name in (
                *("gpu_explanations", "tuning_speed", "tuning_static", "tuning_memory", "tuning_rebirth"),
                *("tuning_survival", "vision_speed", "vision_static", "vision_memory", "plan_inverse"),
            )
        ),
        _script("picture_story", "--device", "cuda")._replace(result="picture_story_cuda", cuda=True),
    )


def _script(name: str, *flags: str) -> Measurement:
    """A benchmark beside this file that writes the result of its own name."""
    return Measurement(name, (str(HERE / f"{name}.py"), *flags))


def _matrix(folder: Path) -> tuple[Measurement, ...]:
    """The zoo at other paces and beside a busy program, generated programs, and the same runs again and again."""
    programs = str(folder / "held-out")

    def matrix(name: str, *flags: str) -> Measurement:
        """Some rows of the matrix."""
        files = ("--results", str(folder / f"{name}.json"), "--record", str(HERE / "results" / "zoo_matrix.json"))
        return Measurement("zoo_matrix", ("-m", "zoo.matrix", *files, *flags))

    repeated = ("--results", str(folder / "repeats.json"), "--record", str(HERE / "results" / "zoo_repeats.json"))
    return (
        matrix("columns"),
        Measurement("", ("-m", "zoo.generate", *HELD_OUT, "--out", programs)),
        matrix("generated", "--folder", programs, "--name", "generated-held-out"),
        matrix("gpu", "--columns", "as-is", "--only", "gpu_", "--name", "gpu-as-is")._replace(cuda=True),
        Measurement("zoo_repeats", ("-m", "zoo.repeats", *repeated)),
    )


def why_not(measurement: Measurement) -> str | None:
    """Why it cannot be made here; None if it can."""
    if measurement.cuda and not torch.cuda.is_available():
        return "needs a CUDA device"
    package = measurement.package
    if package is not None and importlib.util.find_spec(package) is None:
        return f"needs {package}"
    return None


def main() -> int:
    """Make the measurements; return how many missed a goal, or failed."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for measurement in measurements(Path(folder)):
            reason = why_not(measurement)
            if reason is not None:
                print(f"{' '.join(measurement.words[:2])}: left out: {reason}", flush=True)
                continue
            done = subprocess.run([sys.executable, *measurement.words], cwd=ROOT, check=False)
            missed += bool(measurement.result) and done.returncode != 0
    subprocess.run([sys.executable, str(ROOT / "docs" / "check_docs.py"), "--write"], check=False)
    return missed


if __name__ == "__main__":
    sys.exit(main())
