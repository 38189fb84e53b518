"""The zoo's labels: complete, in pairs, and true to the scripts beside them."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from zoo import labels
from zoo.labels import Label, read_labels, what_is_missing

LABELS = read_labels()


def test_there_are_enough_of_both() -> None:
    """At least 45 leaks and 25 look-alikes."""
    assert sum(label.leaks for label in LABELS) >= 45
    assert sum(not label.leaks for label in LABELS) >= 25


@pytest.mark.parametrize("label", LABELS, ids=lambda label: str(label.script.stem))
def test_each_script_is_plain_and_its_label_complete(label: Label) -> None:
    """No word of us in it; a leak has a component, and a line that allocates or holds."""
    text = label.script.read_text(encoding="utf-8")
    folder = "leaks" if label.leaks else "lookalikes"

    assert ast.get_docstring(ast.parse(text))
    assert "holdwater" not in text
    assert label.script.parent.name == folder
    assert re.fullmatch(r"[LH]\d\d", label.case)
    if label.leaks:
        assert label.component is not None
        assert label.allocated is not None or label.held is not None


def test_pairs_have_opposite_truths() -> None:
    """Each names its twin, and the twin is of the other kind."""
    by_name = {label.script.stem: label for label in LABELS}
    pairs = [(label, by_name[label.pair]) for label in LABELS if label.pair is not None]

    assert len(pairs) >= 40
    assert [label.script.stem for label, twin in pairs if label.leaks == twin.leaks] == []


@pytest.mark.parametrize("there", [True, False])
def test_programs_of_mlx_are_left_out_where_it_is_missing(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its package may be installed without its library."""
    script = tmp_path / "program.py"
    script.write_text("import mlx.core as mx\n", encoding="utf-8")
    label = Label(script, "leak", "device.active", None, "", None, None, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "found")
    monkeypatch.setattr(labels, "_has_mlx", lambda: there)

    assert what_is_missing(label) == (None if there else "mlx")
