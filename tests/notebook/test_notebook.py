"""Rules of notebooks: cells are run by IPython's own shell, in a process of its own, without a browser."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("IPython", reason="IPython is not installed: pip install ipython")

SHELL = """
import json, sys
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

class Front(DisplayPublisher):
    def publish(self, data, metadata=None, **more):
        shown.append({"text": data.get("text/plain"), "html": data.get("text/html"), "update": bool(more.get("update"))})

shown, rows = [], []
InteractiveShell.kernel = object()  # as in a notebook: what was shown can be changed
shell = InteractiveShell.instance(display_pub_class=Front)
for text in json.loads(sys.stdin.read()):
    shown.clear()
    run = shell.run_cell(text, store_history=True)
    rows.append({"value": repr(run.result), "error": repr(run.error_in_exec), "shown": list(shown)})
    html = getattr(type(run.result), "_repr_html_", None)
    rows[-1]["html"] = None if html is None else html(run.result)
json.dump(rows, open("rows.json", "w"))
"""
MODEL = """
import torch
model = torch.nn.Linear(16, 16)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
history = []

def train_step():
    loss = model(torch.randn(8, 16)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss
"""


def run_cells(folder: Path, *cells: str) -> list[dict[str, Any]]:
    """Run cells one after another; return what each has shown and returned."""
    (folder / "shell.py").write_text(SHELL, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "shell.py"], cwd=folder, input=json.dumps(cells), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "printed").write_text(done.stdout, encoding="utf-8")
    found: list[dict[str, Any]] = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    return found


class TestCells:
    """`%%holdwater` above a cell."""

    def test_reports_a_leak_with_its_cell_and_line_and_leaves_the_cell_as_it_is(self, tmp_path: Path) -> None:
        """Verdict, live line, HTML and text; the value and the error of a cell are its own."""
        load, _, leak, twice, wrong = run_cells(
            tmp_path,
            "%load_ext holdwater",
            MODEL,
            "%%holdwater leaking\n"
            "for _ in range(700):\n    train_step()\n    history.append(torch.randn(20000))\nlen(history)",
            "%%holdwater leaking\n1",
            "%%holdwater\n1 / 0",
        )

        assert load["error"] == "None"
        assert leak["value"] == "700"
        report = leak["shown"][-1]
        assert report["text"].startswith("leak  Memory leaks.")
        assert "host.tensors: leak" in report["text"]
        assert (
            "stored in `history` (list, in module __main__) at In[3]:4: history.append(torch.randn(20000))"
            in report["text"]
        )
        assert "<b style=" in report["html"]
        assert "In[3]:4" in report["html"]
        assert "host.children" not in report["text"]
        live = [one["text"] for one in leak["shown"] if one["update"]]
        assert any("steps/s, memory" in text for text in live)
        assert "leaking holds a run already" in twice["error"]
        assert wrong["error"] == "ZeroDivisionError('division by zero')"
        assert wrong["shown"][-1]["text"].startswith("unknown  Too few steps to judge.")
        assert "extension.py" not in (tmp_path / "printed").read_text(encoding="utf-8")

    def test_ignores_a_healthy_session_and_names_what_the_notebook_itself_keeps(self, tmp_path: Path) -> None:
        """`watch_notebook` over several cells; results, the last values and tracebacks have names."""
        *_, again, _, _, report, inventory, _ = run_cells(
            tmp_path,
            "import holdwater\n%load_ext holdwater\nwatch = holdwater.watch_notebook()",
            MODEL,
            "for _ in range(400): train_step()",
            "torch.ones(2_000_000)",
            "%%holdwater\n1",
            "for _ in range(400): train_step()",
            "def failing():\n    lost = torch.ones(1_000_000)\n    raise ValueError(lost.shape)\nfailing()",
            "watch.stop()",
            "%holdwater",
            "%unload_ext holdwater",
        )

        assert "the notebook is watched already" in again["error"]
        assert not report["value"].startswith("leak")
        assert "800" in report["value"]
        assert "Out[4] (Tensor); let go with: del Out[4], _4" in report["value"]
        assert "sys.last_traceback (variables of functions)" in report["value"]
        assert "<td>Out[4]</td>" in report["html"]
        assert "tensors on cpu" in inventory["value"]
        assert "<th>holder</th>" in inventory["html"]


class TestScripts:
    """Outside a notebook."""

    def test_refuses_to_watch_a_script_as_a_notebook(self) -> None:
        """And says what to write instead."""
        code = (
            "import holdwater\ntry:\n    holdwater.watch_notebook()\nexcept Exception as error:\n    print(error)"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert "this is a script; write holdwater run train.py" in run.stdout

    def test_says_what_to_install_without_ipython(self) -> None:
        """The rest of holdwater does not need it."""
        code = (
            "import sys\nsys.modules['IPython'] = None\nsys.modules['IPython.core.getipython'] = None\nimport holdwater\n"
            "try:\n    holdwater.watch_notebook()\nexcept ImportError as error:\n    print(error)"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert "write pip install ipython" in run.stdout
