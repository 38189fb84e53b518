"""Every dependency at its lowest supported and at its newest version: do the tests that use it pass?

Each version gets an environment on top of this one, in which it takes precedence. What a package of that version
needs comes with it. PyTorch's oldest has `make cuda-build CUDA_TORCH='torch==2.9.*'`.

    python benchmarks/dependencies.py                     all, an hour on two cores
    python benchmarks/dependencies.py --only mlx rich     some; the recorded others stay
"""

import argparse
import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

from recording import RESULTS, Bar, record

ROOT = Path(__file__).resolve().parents[1]
TESTS: dict[str, tuple[str, ...]] = {
    "numpy": ("tests/detectors", "tests/timeline", "tests/store"),
    "psutil": ("tests/probes",),
    "pyyaml": ("tests/config",),
    "rich": ("tests/report", "tests/cli/test_screen.py"),
    "safetensors": ("tests/store", "tests/train/pretrain"),  # Transformers asks for a version of its own
    "nvidia-ml-py": ("tests/probes",),
    "memray": ("tests/attribution", "tests/cli/test_explain.py"),
    "transformers": ("tests/frameworks/transformers", "tests/train/finetune/model", "tests/train/finetune/vision"),
    "pillow": ("tests/train/finetune/vision", "tests/frameworks/transformers"),
    "datasets": ("tests/train/finetune/data",),
    "accelerate": ("tests/frameworks/test_accelerate.py",),  # Transformers asks for a version of its own
    "lightning": ("tests/frameworks/test_lightning.py",),
    "ray": ("tests/frameworks/test_ray_train.py",),
    "pytest": ("tests/testing",),
    "ipython": ("tests/notebook",),
    "mlx": (
        *(f"tests/frameworks/test_mlx_{name}.py" for name in ("clock", "steps", "lm")),
        *(f"tests/train/finetune/test_mlx{name}.py" for name in ("", "_checkpoints")),
    ),
}  # fmt: skip
"""What uses each. The packages are those of `pyproject.toml`, whose lowest version stands there."""
TOGETHER = {"mlx": ("mlx-cpu",)}
"""Packages that have the same versions."""
PROGRAMS = {"ray": ("benchmarks/programs/frameworks/ray_loop.py", "200", "guard")}
"""Run besides the tests, where these have a stand-in; it prints what it found, with 200 steps."""
STEPS = 200
HEALTHY = frozenset(("flat", "bounded", "cyclic", "warming"))
WHOLE = {"ray": "ray[train]"}
"""With the extra that is used."""
LEFT_OUT = frozenset(("torch", "holdwater", "python-leak-hunter", "scalene", "scipy", "matplotlib"))
"""PyTorch, see above; and what only the zoo compares with."""
MOST_SECONDS = 1800
WIDE = {"COLUMNS": "300"}
"""Room for the reason in the line of a failed test."""
ALIKE = ("-m", "not alone")
"""Those that hang on the clock say more of the machine than of a version."""


def main() -> bool:
    """Try each version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(TESTS), default=sorted(TESTS))
    parser.add_argument("--which", choices=("lowest", "newest"), help="this end of the range alone")
    parser.add_argument("--folder", type=Path, help="where the environments are made; they are removed afterwards")
    options = parser.parse_args()
    lowest, kept = lowest_versions(), True
    for name in options.only:
        ends = {"lowest": first_from(name, lowest[name]), "newest": newest(name)}
        for which in (options.which,) if options.which else ends:
            version = ends[which]
            found = tried(name, version, options.folder)
            print(f"{name} {version}: {found['said']}", flush=True)
            kept = keep(f"{name}, {which}", found)
    return kept


def keep(key: str, found: dict[str, Any]) -> bool:
    """Add one run to those that were recorded before; parts may be tried side by side."""
    path = RESULTS / "dependencies.json"
    with Path(__file__).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        runs: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else {}
        runs[key] = found
        bars = {
            f"{name} version": Bar(f"{one['version']}: {one['said']}", "its tests pass", one["passed"])
            for name, one in sorted(runs.items())
        }  # fmt: skip
        return record("dependencies", bars, runs=runs)


def lowest_versions() -> dict[str, Version]:
    """The lowest version of each package that `pyproject.toml` asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(one for name, words in extras.items() if name != "dev" for one in words)]
    found: dict[str, Version] = {}
    for one in map(Requirement, asked):
        for clause in one.specifier:
            if clause.operator == ">=" and one.name not in LEFT_OUT:
                found[one.name] = min(Version(clause.version), found.get(one.name, Version(clause.version)))
    missing = found.keys() - TESTS.keys() - {"mlx-lm"}
    if missing:
        raise SystemExit(f"{', '.join(sorted(missing))}: no tests are named for it; add it to TESTS")
    return found


def versions(name: str) -> list[Version]:
    """All that the registry has for this Python, ascending; no pre-releases."""
    command = [sys.executable, "-m", "pip", "index", "versions", name]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted(
        Version(one) for one in re.findall(r"[\w.]+", said.split("Available versions:")[1].split("\n")[0])
    )


def first_from(name: str, lowest: Version) -> Version:
    """The lowest version that is supported and that the registry has."""
    return next(one for one in versions(name) if one >= lowest)


def newest(name: str) -> Version:
    """The newest version."""
    return versions(name)[-1]


def tried(name: str, version: Version, place: Path | None) -> dict[str, Any]:
    """Install a version over this environment, made in a place, and run its tests."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        python = str(environment(Path(folder)))
        names = (name, *TOGETHER.get(name, ()))
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*install, *(f"{WHOLE.get(one, one)}=={version}" for one in names)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = f"cannot be installed: {done.stderr.strip().splitlines()[-1]}"
            return {"version": str(version), "passed": False, "said": said}
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *ALIKE, *TESTS[name]]
        tests = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | WIDE,
            capture_output=True,
            text=True,
            check=False,
            timeout=MOST_SECONDS,
        )
        wrong = program_fails(python, name)
    lines = tests.stdout.strip().splitlines() or [tests.stderr.strip()[-300:]]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    said = re.sub(r" in [\d.]+s.*", "", lines[-1]).strip("= ")
    if name in PROGRAMS:
        said += ", and its program fails" if wrong else ", and its program runs"
        failed += [wrong] if wrong else []
    passed = tests.returncode == 0 and wrong is None
    return {"version": str(version), "passed": passed, "said": said, "failed": failed}


def program_fails(python: str, name: str) -> str | None:
    """What is wrong with the program of a package; None if it does what it should, or there is none."""
    if name not in PROGRAMS:
        return None
    with tempfile.TemporaryDirectory() as folder:
        script, *words = PROGRAMS[name]
        done = subprocess.run(
            [python, str(ROOT / script), *words], cwd=folder, capture_output=True, text=True, check=False,
            timeout=MOST_SECONDS,
        )  # fmt: skip
    line = next((one for one in done.stdout.splitlines() if one.startswith("FOUND")), None)
    if done.returncode or line is None:
        return f"{script} ended with {done.returncode}: {done.stderr.strip()[-300:]}"
    summary = json.loads(line.removeprefix("FOUND"))["summary"]
    right = summary["steps"] == STEPS and summary["verdict"] in HEALTHY
    return None if right else f"{script}: {summary['verdict']} after {summary['steps']} of {STEPS} steps"


def environment(folder: Path) -> Path:
    """An environment whose own packages come before those of this one; its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*/site-packages"))
    lines = [*(path for path in sys.path if path.endswith("-packages")), str(ROOT / "src")]
    (site / "beneath.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    program = folder / "bin" / "holdwater"
    text = f"#!{python}\nfrom holdwater.cli.main import main\nraise SystemExit(main())\n"
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)
    return python


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
