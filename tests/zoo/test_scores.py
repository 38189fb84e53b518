"""Marks of what was said in a run, shares of a column, and the table of batches, on made-up results."""

import json
from dataclasses import replace
from pathlib import Path

from zoo.columns import Truth
from zoo.labels import Line, read_labels
from zoo.scores import BARS, Mark, Share, add_batch, add_column, goals_of, mark, missed, score
from zoo.tools import Said

LEAK = Said(
    leak=True, verdict="leak", component="host.tensors", lines=(7,), facts={"sites": [["held", 7, "kept"]]}
)
WARMING = Said(leak=False, verdict="warming", rises="host.tensors")
FLAT = Said(leak=False, verdict="flat")


class TestMarks:
    """What was right of what was said."""

    label = replace(read_labels("outputs_in_a_list")[0], allocated=Line(7, "x"), held=Line(9, "y", "kept", "list"))
    truth = Truth(leaks=True, component="host.tensors")
    early = replace(truth, early=True)
    healthy = Truth(leaks=False)

    def test_a_leak_that_is_found_and_explained(self) -> None:
        """All of it is right."""
        assert mark(self.label, self.truth, LEAK) == Mark(
            leaks=True, right=True, component=True, explained=True, line=True, holder=True
        )

    def test_a_leak_of_another_component_at_another_place(self) -> None:
        """Found, and nothing else is right."""
        said = replace(LEAK, component="host.python", lines=(8,), facts={"sites": [["held", 8, "other"]]})

        assert mark(self.label, self.truth, said) == Mark(leaks=True, right=True, explained=True)

    def test_the_first_holder_counts(self) -> None:
        """Not a later one, and no line of an allocation."""
        said = replace(
            LEAK, lines=(), facts={"sites": [["allocated", 7, "kept"], ["held", 1, "a"], ["held", 9, "kept"]]}
        )

        assert not mark(self.label, self.truth, said).holder

    def test_warming_is_right_where_little_has_grown(self) -> None:
        """With the right component, and there only."""
        other = replace(WARMING, rises="host.python")

        assert mark(self.label, self.early, WARMING) == Mark(leaks=True, right=True, component=True)
        assert not mark(self.label, self.early, other).right
        assert not mark(self.label, self.early, FLAT).right
        assert not mark(self.label, self.truth, WARMING).right

    def test_a_look_alike_passes_by_any_other_word(self) -> None:
        """But an error is no pass."""
        assert mark(self.label, self.healthy, FLAT).right
        assert mark(self.label, self.healthy, WARMING).right
        assert not mark(self.label, self.healthy, LEAK).right
        assert not mark(self.label, self.healthy, Said(leak=False, error="it fell")).right


class TestScores:
    """Shares of a column."""

    marks = (
        Mark(leaks=True, right=True, component=True, explained=True, line=True, holder=False),
        Mark(leaks=True, right=True, component=False, explained=True, line=False, holder=False),
        Mark(leaks=True, right=True, component=True),
        Mark(leaks=True, right=False),
        Mark(leaks=False, right=True),
    )

    def test_count_each_of_its_own(self) -> None:
        """Components of leaks that were found, lines and holders of those that were called so."""
        assert score(self.marks) == {
            "leaks found": Share(3, 4),
            "look-alikes passed": Share(1, 1),
            "component right": Share(2, 3),
            "line right": Share(1, 2),
            "holder right": Share(0, 2),
            "line or holder right": Share(1, 2),
        }

    def test_say_which_bars_are_missed(self) -> None:
        """What cannot be counted is not missed."""
        assert missed(score(self.marks)) == ["leaks found", "component right", "line or holder right"]
        assert missed(score([])) == []

    def test_keep_all_batches_in_a_table(self, tmp_path: Path) -> None:
        """A batch that is run again does not take the place of its first sight."""
        file = tmp_path / "batches.json"

        add_batch(file, "first", score(self.marks), commit="abc")
        text = add_batch(file, "first", score(self.marks[4:]), commit="def")

        rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
        assert [(row["batch"], row["sight"], row["commit"]) for row in rows] == [
            ("first", 1, "abc"),
            ("first", 2, "def"),
        ]
        assert rows[0]["leaks found"] == [3, 4]
        assert "| first | 1 | abc | 3 of 4 | 1 of 1 | 2 of 3 | 1 of 2 | 0 of 2 |" in text


def test_columns_keep_one_another_and_their_own_goals(tmp_path: Path) -> None:
    """Two columns in one file, each against what is asked of it."""
    shares = {what: Share(9, 10) for what in BARS}

    add_column(tmp_path / "zoo_matrix.json", "as-is", shares, commit="abc")
    add_column(tmp_path / "zoo_matrix.json", "gpu-as-is", shares | {"leaks found": Share(10, 10)}, commit="abc")
    table = json.loads((tmp_path / "zoo_matrix.json").read_text(encoding="utf-8"))

    assert list(table["columns"]) == ["as-is", "gpu-as-is"]
    assert [bar["goal"] for bar in table["bars"].values()] == ["97%, 97%, 95%, 95%", "95%, 95%, 100%, 90%"]
    assert not any(bar["reached"] for bar in table["bars"].values())
    assert not missed({what: Share(97, 100) for what in BARS}, goals_of("generated-held-out"))
