"""What is imported once for all processes of a script is what the script itself would import, in its environment."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from holdwater.supervise.preimport import OURS, prepare


def prepared(
    folder: Path, text: str, modules: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[str], dict[str, str]]:
    """What is imported besides our own modules and what comes lazily, and the environment."""
    for name, body in modules.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(body)
    (folder / "train.py").write_text(text)
    found = prepare([str(folder / "train.py")])
    named = [name for name in found.modules if name not in OURS and not name.startswith("holdwater")]
    return [name for name in named if name not in {"torch._dynamo", "numpy"}], dict(found.environment)


class TestEnvironment:
    """Variables that are set before an import count for it."""

    def test_in_a_module_beside_the_script(self, tmp_path: Path) -> None:
        """A `settings.py` that is imported first."""
        settings = "import os\nos.environ['OMP_NUM_THREADS'] = '1'\n"

        found = prepared(tmp_path, "import settings\nimport torch\n", {"settings": settings})

        assert found == (["torch"], {"OMP_NUM_THREADS": "1"})

    @pytest.mark.parametrize(
        "text",
        ["from project.config import env\nimport torch\n", "from project import config\nimport torch\n",
         "import project.config\nimport torch\n"],
    )  # fmt: skip
    def test_in_a_package_with_relative_imports(self, tmp_path: Path, text: str) -> None:
        """However it is imported."""
        env = "import os\nos.environ['A_B'] = '1'\n"

        found = prepared(
            tmp_path, text, {"project/__init__": "", "project/config": "from . import env\n", "project/env": env}
        )

        assert found == (["torch"], {"A_B": "1"})

    @pytest.mark.parametrize(
        "line",
        ["os.environ |= {'A': '1'}", "env = os.environ\nenv['A'] = '1'", "f(os.environ)", "os.environ = {}",
         "from os import environ as e\ne['A'] = '1'", "load_dotenv()", "sys.path.insert(0, 'lib')",
         "sys.path = []", "sys.path[:0] = ['lib']"],
    )  # fmt: skip
    def test_what_cannot_be_foreseen_ends_it(self, tmp_path: Path, line: str) -> None:
        """What comes before is imported, what comes later is not; in the script or beside it."""
        text = f"import os, sys\nimport numpy.random\n{line}\nimport torch\n"

        assert prepared(tmp_path, text) == (["numpy.random"], {})
        assert prepared(tmp_path, "import beside\n", {"beside": text}) == (["numpy.random"], {})

    @pytest.mark.parametrize(
        "line",
        ["x = os.environ['HOME']", "x = os.environ.get('A')", "x = 'A' in os.environ", "x = dict(os.environ)",
         "x = {**os.environ}", "run(env=os.environ)", "x = os.environ | {}", "sys.path.append('lib')"],
    )  # fmt: skip
    def test_reading_is_harmless(self, tmp_path: Path, line: str) -> None:
        """As most scripts do."""
        assert prepared(tmp_path, f"import os, sys\n{line}\nimport torch\n") == (["torch"], {})

    def test_a_variable_that_is_set_after_an_import(self, tmp_path: Path) -> None:
        """It has no effect on that import; on later ones it may have."""
        text = "import os, torch\nos.environ['OMP_NUM_THREADS'] = '1'\nimport transformers\n"

        assert prepared(tmp_path, text) == (["torch"], {})

    def test_imports_in_functions_come_last(self, tmp_path: Path) -> None:
        """If nothing was changed before."""
        text = "def f():\n    import transformers\nimport torch\n"

        assert prepared(tmp_path, text)[0] == ["torch", "transformers"]
        assert prepared(tmp_path, text + "import os\nos.environ |= {}\n")[0] == ["torch"]


class TestOwnModules:
    """A module beside the script hides an installed one."""

    @pytest.mark.parametrize("place", ["datasets", "datasets/__init__"])
    def test_of_the_same_name(self, tmp_path: Path, place: str) -> None:
        """As in many repositories: a package `datasets` of their own."""
        text = "import torch\nfrom datasets import build\n"

        assert prepared(tmp_path, text)[0] == ["torch", "datasets:build"]
        assert prepared(tmp_path, text, {place: "import numpy.random\n"})[0] == ["torch", "numpy.random"]

    def test_a_folder_without_modules_hides_nothing(self, tmp_path: Path) -> None:
        """Where files called datasets lie."""
        (tmp_path / "datasets").mkdir()

        assert prepared(tmp_path, "import datasets\n")[0] == ["datasets"]

    def test_a_module_is_found_and_not_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`-m package`: what its `__init__` does, it does once, in the script's process."""
        (tmp_path / "pack").mkdir()
        (tmp_path / "pack" / "__init__.py").write_text("raise RuntimeError('imported')\n")
        (tmp_path / "pack" / "__main__.py").write_text("from . import other\n")
        (tmp_path / "pack" / "other.py").write_text("import torch\n")
        monkeypatch.chdir(tmp_path)

        assert "torch" in prepare(["-m", "pack"]).modules
