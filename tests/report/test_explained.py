"""What explains a growth, in words: an answer with its cure, or that there is none yet."""

from typing import Any

from holdwater.report.explained import explanation_in_words, explanations_as_html

SITE = {
    "role": "held", "file": "/home/somebody/train.py", "line": 12, "function": "step", "name": "rows", "kind": "list",
    "bytes_per_step": 1000.0, "text": "rows.append(row)", "known_by": "source", "ran": False, "share": 0.1,
}  # fmt: skip
KNOWN = {
    "name": "list-never-cleared",
    "title": "A list",
    "why": "It grows.",
    "cure": "rows.clear()",
    "reference": "https://…",
}


def finding(**more: Any) -> dict[str, Any]:
    """A leak with one line."""
    return {
        "verdict": "leak", "component": "host.python", "explained": 0.1, "answer": "not explained yet",
        "sites": [SITE], "chain": [], "missing": [], "pattern": None,
    } | more  # fmt: skip


class TestExplanationInWords:
    """In the terminal."""

    def test_says_that_there_is_no_answer_yet(self) -> None:
        """The lines with their part, how they are known, and no cure."""
        assert explanation_in_words(finding()) == [
            "not explained yet: so far these lines account for 10%",
            "    train.py:12: rows.append(row) (+1.00 kB/step, read in the source; not seen to run)",
        ]

    def test_tells_an_answer_with_its_cure(self) -> None:
        """The way, the share, the cause."""
        told = explanation_in_words(
            finding(answer="explained", explained=0.9, chain=["made", "stored"], known=KNOWN)
        )

        assert told[:3] == ["made", "→ stored", "this explains 90% of the growth; 10% is unexplained"]
        assert "    rows.clear()" in told

    def test_is_silent_where_nothing_was_looked_into(self) -> None:
        """A finding that was only judged."""
        assert explanation_in_words({"verdict": "leak", "sites": [], "explained": 0.0}) == []

    def test_names_children_without_a_line(self) -> None:
        """Which process grows is known before its lines are."""
        told = explanation_in_words(finding(sites=[], explained=0.0, chain=["a loader worker has grown"]))

        assert told == ["a loader worker has grown", "not explained yet"]


class TestExplanationsAsHtml:
    """In the report."""

    def test_says_how_a_line_is_known(self) -> None:
        """Beside it, in its row."""
        page = explanations_as_html({"findings": [finding()]})

        assert "not explained yet: so far these lines account for 10%" in page
        assert "read in the source; not seen to run" in page
