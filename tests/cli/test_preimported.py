"""Under a supervisor a script finds the modules and the environment that it would find by itself."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SETTINGS = "import os\nos.environ['OMP_NUM_THREADS'] = str(1)\n"
CASES = {
    "constants in a module": (
        "import settings, torch\nprint(torch.get_num_threads())\n",
        {"settings.py": "import os\nos.environ['OMP_NUM_THREADS'] = '1'\n"},
    ),
    "others in a module": ("import settings, torch\nprint(torch.get_num_threads())\n", {"settings.py": SETTINGS}),
    "joined": ("import os\nos.environ |= {'OMP_NUM_THREADS': '1'}\nimport torch\nprint(torch.get_num_threads())\n", {}),
    "own package": (
        "import torch\nfrom datasets import build\nprint(build())\n",
        {"datasets/__init__.py": "def build(): return 'own'\n"},
    ),
    "installed": ("import torch, datasets\nprint(datasets.__name__, torch.get_num_threads() > 0)\n", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_as_plain_python_would(holdwater: Run, tmp_path: Path, case: str) -> None:
    """The same output, for a script with modules of its own."""
    script, modules = CASES[case]
    environment: Mapping[str, str] = {
        name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"
    }
    for name, text in {"train.py": script, **modules}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    bare = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=True, env=environment
    )

    done = holdwater("run", "--supervise", "--quiet", "--out", "run", "train.py", env=environment)

    assert (done.returncode, done.stdout) == (0, bare.stdout), done.stderr


def test_variables_that_an_import_sets(holdwater: Run, tmp_path: Path) -> None:
    """By a package that is imported once for all processes: each of them has the variables."""
    (tmp_path / "lib" / "timm").mkdir(parents=True)
    (tmp_path / "lib" / "timm" / "__init__.py").write_text("import os\nos.environ['SET_BY_IMPORT'] = 'yes'\n")
    (tmp_path / "train.py").write_text("import timm, os\nprint(os.environ.get('SET_BY_IMPORT'))\n")
    path = os.pathsep.join([str(tmp_path / "lib"), os.environ.get("PYTHONPATH", "")])

    done = holdwater(
        "run", "--supervise", "--quiet", "--out", "run", "train.py", env=os.environ | {"PYTHONPATH": path}
    )

    assert (done.returncode, done.stdout) == (0, "yes\n"), done.stderr
