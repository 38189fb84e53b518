"""Does each integration import where only its own framework is installed, and holdwater itself where none is?

Each gets an environment of its own with holdwater, what it requires, PyTorch where the framework trains with it,
and that one framework with what that requires. `--only NAME` measures a part; results are kept by name. The same
statements run in the tests, on links to what is installed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recording import RESULTS, Bar, commit, record

ROOT = Path(__file__).resolve().parents[1]
TORCH = "torch==2.13.0"


@dataclass(frozen=True, slots=True)
class Integration:
    """What is installed beside holdwater, and what has to work then."""

    packages: tuple[str, ...]
    statements: str


def _imports(*names: str) -> str:
    """Statements that take each name from its module, and print nothing."""
    parted = [name.rpartition(".") for name in names]
    return "\n".join(f"from {module} import {name}" for module, _, name in parted)


FRAMEWORKS = "holdwater.frameworks"
INTEGRATIONS = {
    "nothing": Integration(
        (), "import holdwater\nholdwater.Guard, holdwater.step, holdwater.steps, holdwater.inventory"
    ),
    "plain torch": Integration((TORCH,), _imports("holdwater.oom.torch_step.torch_step", "holdwater.batches")),
    "transformers": Integration(
        (TORCH, "transformers"),
        _imports(
            "holdwater.HoldwaterCallback",
            f"{FRAMEWORKS}.transformers.trainer.HoldwaterTrainer",
            f"{FRAMEWORKS}.transformers.pictures.PictureCollator",
        ),
    ),
    "trl": Integration(
        (TORCH, "trl"),
        _imports(f"{FRAMEWORKS}.transformers.trainer.HoldwaterSFTTrainer", "holdwater.HoldwaterCallback"),
    ),
    "lightning": Integration((TORCH, "lightning"), _imports(f"{FRAMEWORKS}.lightning.LightningCallback")),
    "accelerate": Integration((TORCH, "accelerate"), _imports(f"{FRAMEWORKS}.accelerate.accelerate_guard")),
    "ray": Integration((TORCH, "ray[train]"), _imports(f"{FRAMEWORKS}.ray_train.ray_worker_guard")),
    "mlx_lm": Integration(
        ("mlx[cpu]", "mlx-lm"),
        _imports(f"{FRAMEWORKS}.mlx_lm.MlxMemoryCallback", f"{FRAMEWORKS}.mlx_loop.micro_batch"),
    ),
    "pytest": Integration(
        ("pytest",),
        "import pytest\n"
        "open('test_step.py', 'w').write('def test_step(flat_memory):\\n    flat_memory(lambda: bytes(100))\\n')\n"
        "plugin = ['-p', 'holdwater.testing.pytest_plugin']\n"
        "from importlib.metadata import entry_points\n"
        "named = [one for one in entry_points(group='pytest11') if one.name == 'holdwater']\n"
        "code = pytest.main(['-q', '-p', 'no:cacheprovider', *([] if named else plugin), 'test_step.py'])\n"
        "raise SystemExit(int(code))",
    ),
    "ipython": Integration(
        ("ipython",),
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "InteractiveShell.instance().run_line_magic('load_ext', 'holdwater')\n"
        "assert 'holdwater' in InteractiveShell.instance().magics_manager.magics['cell']\n"
        "import holdwater\nholdwater.watch_notebook",
    ),
}
"""By the framework, or by what else is there."""


def main() -> bool:
    """Try the integrations that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=INTEGRATIONS, default=list(INTEGRATIONS))
    parser.add_argument("--folder", type=Path, help="where the environments are made; they are removed afterwards")
    options, path = parser.parse_args(), RESULTS / "integrations_alone.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["found"] if path.exists() else {}
    reached = True
    for name in options.only:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="alone-") as folder:
            found[name] = tried(INTEGRATIONS[name], Path(folder))
        bars = {
            f"beside {key}": Bar(one["said"], "imports, and works", one["passed"]) for key, one in found.items()
        }
        reached = record("integrations_alone", bars, found=found)
    return reached


def tried(integration: Integration, folder: Path) -> dict[str, Any]:
    """Install what an integration needs and nothing else, and run its statements."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = run([*install, *integration.packages, str(ROOT)], folder)
    if done.returncode:
        return {"passed": False, "said": f"cannot be installed: {last_line(done.stderr)}", "commit": commit()}
    # `-I`: nothing but the environment is seen, neither the current folder nor what the shell names
    done = run([str(python), "-I", "-c", integration.statements], folder)
    listed = run([str(python), "-m", "pip", "list", "--format=freeze"], folder).stdout.split()
    named = [one for one in listed if one.partition("==")[0].lower() in {*_names(integration), "holdwater"}]
    said = (
        f"works, {len(listed)} packages in all" if done.returncode == 0 else last_line(done.stderr or done.stdout)
    )
    return {"passed": done.returncode == 0, "said": said, "with": named, "packages": listed, "commit": commit()}


def _names(integration: Integration) -> set[str]:
    """The names of its packages, without versions and extras."""
    return {one.partition("==")[0].partition("[")[0] for one in integration.packages}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command there; return what it said."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing")[:300]


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
