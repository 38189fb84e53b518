"""Help texts, usage, public names, and what is said where a package is missing."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import holdwater
from holdwater.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""
"""Lets every process of this environment be one without PyTorch."""


class TestUsage:
    """A mistake shows what would have been right."""

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("train", "--stepz", "3"), ("usage: holdwater train ", "did you mean --steps?")),
            (("run", "--quite", "x.py"), ("usage: holdwater run ", "did you mean --quiet?")),
            (("watch", "--evry", "2", "5"), ("usage: holdwater watch ", "did you mean --every?")),
            (("plan", "--xyzzy"), ("usage: holdwater plan ", "unrecognized arguments: --xyzzy\n")),
        ],
    )
    def test_of_a_wrong_flag_is_that_of_its_command(
        self, words: tuple[str, ...], said: tuple[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With exit code 2."""
        with pytest.raises(SystemExit) as ended:
            main(words)

        shown = capsys.readouterr().err
        assert ended.value.code == 2
        assert all(words in shown for words in said)

    def test_of_the_flags_of_a_script_is_its_own_matter(self, tmp_path: Path) -> None:
        """The twin: behind the script's name nothing is ours."""
        script = tmp_path / "s.py"
        script.write_text("import sys; print(sys.argv[1:])")

        done = subprocess.run(
            [sys.executable, "-m", "holdwater", "run", "--quiet", str(script), "--quite", "--json"],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip

        assert done.stdout == "['--quite', '--json']\n"

    @pytest.mark.parametrize("command", COMMANDS)
    def test_is_there_for_each_command(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Each names its flags, those of the large ones in groups."""
        with pytest.raises(SystemExit) as ended:
            main((command, "--help"))

        shown = capsys.readouterr().out
        assert ended.value.code == 0
        assert shown.startswith(f"usage: holdwater {command}")
        assert command not in {"train", "run", "watch", "plan"} or "\nmemory:\n" in shown


def test_documents_show_the_tree_that_they_lie_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help texts come from what PYTHONPATH names, not from another installed one."""
    (tmp_path / "another_tree.py").write_text("print('its help')")
    spec = importlib.util.spec_from_file_location("check_docs", ROOT / "docs" / "check_docs.py")
    assert spec is not None
    assert spec.loader is not None
    check_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check_docs)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert check_docs.help_text("another_tree") == "```\nits help\n```\n"


def test_public_names_can_be_listed() -> None:
    """For `dir` and completion, though none is loaded yet."""
    code = "import holdwater; print(*dir(holdwater))"

    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert set(holdwater.__all__) <= set(listed)
    assert {name for name in listed if not name.startswith("_")} == {
        name for name in holdwater.__all__ if not name.startswith("_")
    }


def test_messages_name_packages_that_can_be_installed() -> None:
    """This package itself is installed from a clone; an index has none of its name."""
    text = "".join(
        path.read_text(encoding="utf-8") for end in ("py", "toml") for path in (ROOT / "src").rglob(f"*.{end}")
    )

    advised = {
        name
        for line in re.findall(r"pip install ([^\n]*)", text)
        for name in re.findall(r"[\w-]+(?:\[\w+\])?", line)
    }

    assert advised == {
        "accelerate", "datasets", "ipython", "lightning", "memray", "mlx", "mlx-lm", "pillow", "ray[train]",
        "safetensors", "torch", "transformers", "trl",
    }  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--model", "m"),
        ("train", "--steps", "2", "--out", "run"),
        ("train", "--no-supervise", "--out", "r"),
    ],
    ids=["plan", "train", "train alone"],
)
def test_without_pytorch_says_what_to_install(words: tuple[str, ...], tmp_path: Path) -> None:
    """One line, no traceback, exit code 2."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    paths = [str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]

    done = subprocess.run(
        [sys.executable, "-m", "holdwater", *words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )  # fmt: skip

    assert done.returncode == 2
    assert "needs torch, which cannot be imported" in done.stderr
    assert "pip install torch" in done.stderr
    assert len(done.stderr.splitlines()) == 1
