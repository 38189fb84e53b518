"""Each integration needs its own framework and no other; `benchmarks/integrations_alone.py` installs them for real.

Here an environment is a folder of links to what is installed: holdwater, what it requires, one framework with all
that this requires, and nothing else.
"""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from integrations_alone import INTEGRATIONS

SOURCE = Path(__file__).resolve().parents[2] / "src" / "holdwater"


def required(*packages: str) -> set[str]:
    """The packages, and all that they require; PackageNotFoundError where one of those named is not installed."""
    found: dict[str, set[str]] = {}
    waiting = [Requirement(package) for package in packages]
    for one in waiting:
        distribution(one.name)
    while waiting:
        one = waiting.pop()
        if one.extras <= found.get(one.name, set()) and one.name in found:
            continue
        found.setdefault(one.name, set()).update(one.extras)
        try:
            asked = [Requirement(text) for text in distribution(one.name).requires or ()]
        except PackageNotFoundError:  # nothing that is here asks for it in earnest
            continue
        for extra in {"", *one.extras}:
            waiting += [a for a in asked if a.marker is None or a.marker.evaluate({"extra": extra})]
    return set(found)


def environment(folder: Path, *packages: str) -> Path:
    """A folder of links to packages, to what they require, and to holdwater with what it requires."""
    folder.mkdir()
    (folder / "holdwater").symlink_to(SOURCE)
    for name in required("holdwater", *packages) - {"holdwater"}:
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(installed.locate_file(top))))
    return folder


def run(packages: Path, statements: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run statements that see those packages only."""
    seen = {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-S", "-s", "-P", "-c", statements],
        cwd=place,
        env=os.environ | seen,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_imports_without_the_others(name: str, tmp_path: Path) -> None:
    """And its entry works as far as that needs no training."""
    packages = tuple(package.partition("==")[0] for package in INTEGRATIONS[name].packages)
    try:
        seen = environment(tmp_path / "seen", *packages)
    except PackageNotFoundError as missing:
        pytest.skip(f"{missing.name} is not installed")

    done = run(seen, INTEGRATIONS[name].statements, tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr


def test_says_what_to_install_where_the_framework_is_not_there(tmp_path: Path) -> None:
    """PyTorch alone is installed; each integration asks for its own framework."""
    statements = """
from importlib import import_module
found = {}
for module, name in MODULES:
    try:
        getattr(import_module(module), name)
    except ImportError as error:
        found[module.rpartition(".")[2] + "." + name] = str(error).rpartition("pip install ")[2]
print(found)
"""
    named = [
        ("holdwater.frameworks.accelerate", "accelerate_guard"),
        ("holdwater.frameworks.lightning", "LightningCallback"),
        ("holdwater.frameworks.ray_train", "ray_worker_guard"),
        ("holdwater", "HoldwaterCallback"),
        ("holdwater.frameworks.transformers.trainer", "HoldwaterTrainer"),
    ]

    done = run(environment(tmp_path / "seen", "torch"), statements.replace("MODULES", repr(named)), tmp_path)

    assert done.stdout.strip() == str({
        "accelerate.accelerate_guard": "accelerate",
        "lightning.LightningCallback": "lightning",
        "ray_train.ray_worker_guard": "ray[train]",
        "holdwater.HoldwaterCallback": "transformers",
        "trainer.HoldwaterTrainer": "transformers",
    }), done.stderr


def test_says_that_batches_need_pytorch(tmp_path: Path) -> None:
    """Steps alone do not."""
    statements = """
import holdwater
print(list(holdwater.steps(3)))
try:
    holdwater.batches
except ImportError as error:
    print(error)
"""

    done = run(environment(tmp_path / "seen"), statements, tmp_path)

    steps, said = done.stdout.splitlines()
    assert steps == "[0, 1, 2]"
    assert said.startswith("holdwater.batches needs PyTorch, which is not installed; write: pip install torch")
