"""Which statement stores under a name, and which one makes what is stored."""

from pathlib import Path

import pytest

from holdwater.attribution.source import SourceFile

TEXT = """
import torch
from functools import lru_cache

history = []
totals = {}

@lru_cache(maxsize=None)
def mask(length):
    return torch.ones(length)

class Tracker:
    def __init__(self):
        self.history = []
        self.rows_seen = set()

    def note(self, step, values):
        self.history.append(values)

def train(model, rows):
    total = 0
    for step, batch in enumerate(rows):
        hidden = model(batch)
        loss = hidden.pow(2).mean()
        total = total + loss
        history.append(
            loss.detach()
        )
        totals[step] = hidden[0]
        rows += [batch]
        model.register_forward_hook(lambda *a, batch=batch: None)
        loss.backward(create_graph=True)
        fine.backward(create_graph=False)
        tracker.rows_seen.add(step)
        print(buffer)
        torch.save(batch, buffer)
        size = len(buffer)
        pickler.dump(batch)
        known = pickler.get(batch)
"""


@pytest.fixture
def source(tmp_path: Path) -> SourceFile:
    """The text above, parsed."""
    (tmp_path / "train.py").write_text(TEXT, encoding="utf-8")
    return SourceFile(str(tmp_path / "train.py"))


def line_of(text: str) -> int:
    """The line that holds a text, which occurs once."""
    (number,) = (number for number, line in enumerate(TEXT.splitlines(), start=1) if text in line)
    return number


class TestStores:
    """The likeliest first; where a name is only set at the start comes last."""

    @pytest.mark.parametrize(
        ("name", "scope", "line"),
        [
            ("history", None, "self.history.append(values)"),
            ("rows_seen", "Tracker", "tracker.rows_seen.add(step)"),
            ("history", "train", "history.append("),
            ("totals", None, "totals[step] ="),
            ("total", None, "total = total + loss"),
            ("rows", None, "rows += [batch]"),
            ("mask", None, "@lru_cache"),
        ],
    )
    def test_finds_the_statement(self, source: SourceFile, name: str, scope: str | None, line: str) -> None:
        """By a call, an entry, an addition, a name made from itself, a decorator."""
        number = line_of(line) if line != "history.append(" else line_of("        history.append(")

        assert source.stores(name, scope=scope)[0].line == number

    def test_ignores_other_names(self, source: SourceFile) -> None:
        """A name that nothing is stored under."""
        assert source.stores("batches") == []

    def test_finds_calls_by_keyword_and_by_likeness(self, source: SourceFile) -> None:
        """A keyword that is plainly False does not count."""
        assert [found.line for found in source.calls_with("create_graph")] == [line_of("create_graph=True")]
        assert [found.line for found in source.calls_of(["ones", "Thread"])] == [line_of("torch.ones")]
        assert source.calls_of(["Thread"]) == []
        assert [found.line for found in source.calls_like("_forward_hooks")] == [line_of("register_forward_hook")]

    def test_finds_who_is_given_what_a_name_holds(self, source: SourceFile) -> None:
        """It may add to it; what only looks at it does not."""
        assert [found.line for found in source.passes("buffer")] == [line_of("torch.save(batch, buffer)")]
        assert [found.line for found in source.passes("pickler")] == [line_of("pickler.dump(batch)")]
        assert source.passes("totals") == []


class TestMakes:
    """Views and names are followed back; what makes its own memory is not."""

    def test_follows_views_to_what_they_are_views_of(self, source: SourceFile) -> None:
        """`loss.detach()` is the memory of `loss`, `hidden[0]` that of `hidden`."""
        (stored, *_) = source.stores("history", scope="train")
        (entry, *_) = source.stores("totals")

        assert source.makes(stored, "history").line == line_of("loss = hidden.pow")
        assert source.makes(entry, "totals").line == line_of("hidden = model(batch)")

    def test_finds_the_statement_of_any_of_its_lines(self, source: SourceFile) -> None:
        """A call that is written on three lines."""
        found = source.at(line_of("loss.detach()"))

        assert found is not None
        assert (found.line, found.function) == (line_of("        history.append("), "train")
        assert source.at(1) is None
