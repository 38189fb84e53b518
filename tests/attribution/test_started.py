"""The statement that starts child processes, as far as the source tells."""

from pathlib import Path
from typing import Any

import pytest

from holdwater.attribution.started import starting_site

ONE = "server = subprocess.Popen(command)\n"
TWO = f"{ONE}other = multiprocessing.Process(target=work)\n"


@pytest.mark.parametrize(
    ("text", "ran", "line"),
    [(ONE, (), 1), (TWO, (2,), 2), (TWO, (), None), (TWO, (1, 2), None), ("print()\n", (1,), None)],
    ids=["the only one", "the one that ran", "one of two", "both ran", "none"],
)
def test_is_named_if_there_is_one(text: str, ran: tuple[int, ...], line: int | None, tmp_path: Path) -> None:
    """Or if one was seen to run."""
    file = str(tmp_path / "train.py")
    Path(file).write_text(text, encoding="utf-8")
    seen: dict[str, Any] = {"users_files": [file], "ran": {file: list(ran)}}

    site = starting_site(seen, 1e4)

    assert (None if site is None else site.line) == line
