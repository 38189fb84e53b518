"""Rules of the repository that no other tool checks: sizes, names, light imports, what the wheel holds."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "src").rglob("*.py"))
HEAVY = ("torch", "mlx", "transformers", "lightning", "accelerate", "pynvml", "scipy", "safetensors")


def test_no_module_is_longer_than_400_lines() -> None:
    """A file that cannot be read in one sitting is two files."""
    assert [path.name for path in MODULES if len(path.read_text().splitlines()) > 400] == []


def test_no_function_body_is_longer_than_50_lines() -> None:
    """25 as a rule."""
    long = [
        f"{path.name}:{node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.body[0].lineno >= 50
    ]
    assert long == []


def test_no_name_says_nothing() -> None:
    """Names come from the field."""
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "data"}
    assert [path.name for path in MODULES if path.stem in vague or path.parent.name in vague] == []


def test_every_module_opens_with_a_sentence() -> None:
    """The first screen can be read alone."""
    assert [path.name for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize(
    "module",
    ["holdwater", "holdwater.report.html", "holdwater.report.terminal", "holdwater.cli.main", "holdwater.testing"],
)
def test_importing_the_core_loads_no_framework(module: str) -> None:
    """In a fresh process; import-linter does not see a package's `__init__`."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert loaded.split() == []


@pytest.mark.parametrize(
    "module", ["holdwater.cli.train", "holdwater.cli.run", "holdwater.supervise.budget_callback"]
)
def test_what_runs_before_signals_are_held_back_loads_no_numpy(module: str) -> None:
    """Its threads would be met by signals that the supervisor waits for, and end it."""
    code = f"import sys, {module}; print('numpy' in sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert loaded.strip() == "False"


def test_every_dependency_is_pinned() -> None:
    """A fresh clone next year installs what was tested today."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements" / "dev.txt").read_text().splitlines()
        if "==" in line
    }
    extras = project["optional-dependencies"]
    needed = {
        requirement.partition(">")[0].lower()
        for requirement in project["dependencies"] + extras["torch"] + extras["dev"]
        if not requirement.startswith("holdwater[")
    }
    assert needed - pinned == set()


def test_the_wheel_holds_what_the_package_reads(tmp_path: Path) -> None:
    """Profiles, the page of the report, the mark that it is typed; and no test."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())

    assert {"holdwater/report/page.html", "holdwater/py.typed", "holdwater/config/profiles/gpu_80gb.yaml"} <= names
    assert not [name for name in names if "test_" in name]
