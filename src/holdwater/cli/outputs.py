"""Compare what two runs of a script print, and the files that the script names."""

import ast
import hashlib
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LONGEST = 200
"""Characters of a text in a script that may name a file."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one run of a script has left."""

    lines: tuple[str, ...] = ()
    """Of its standard output."""
    files: dict[str, str] = field(default_factory=dict)
    """The checksum of each file that the script names and has made."""
    in_place: tuple[str, ...] = ()
    """Files that it names and has changed, and that were there before: the next run begins with other ones."""


class NamedFiles:
    """The files that a script names, in its text and its arguments."""

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        """Record which there are.

        Args:
            words: `SCRIPT` and its arguments.
            folder: Where it runs.
        """
        self._folder = folder
        names = {name for name in _names(words) if name and len(name) <= LONGEST and "\0" not in name}
        self._names = sorted(names)
        self._before = {name: _stamp(folder / name) for name in self._names}

    def take(self, place: Path) -> tuple[dict[str, str], tuple[str, ...]]:
        """Checksums of the files that were made, which are moved away: the next run begins as this one did.

        Args:
            place: Where they are moved.

        Returns:
            The checksums, and the names of files that were there before and have changed.
        """
        made, changed = {}, []
        for name in self._names:
            before, now = self._before[name], _stamp(self._folder / name)
            if now is None or now == before:
                continue
            if before is not None:
                changed.append(name)
                continue
            made[name] = _checksum(self._folder / name)
            target = place / name.lstrip("/").replace("..", "__")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((self._folder / name).read_bytes())
            (self._folder / name).unlink()
        return made, tuple(changed)


def difference(one: Outputs, other: Outputs, again: Outputs | None = None) -> str | None:
    """The first difference between what two runs have left; None if there is none.

    Args:
        one: Of a straight run.
        other: Of an interrupted one, in which each process may print anew what comes before its loop.
        again: Of another straight run: what differs there is left out.
    """
    lines, theirs = list(one.lines), list(other.lines)
    if again is not None and len(again.lines) == len(lines) == len(theirs):
        alike = [number for number, line in enumerate(again.lines) if line == lines[number]]
        lines, theirs = [lines[number] for number in alike], [theirs[number] for number in alike]
    if not any(_repeats(lines, theirs, length) for length in range(len(lines) + 1)):
        pairs = list(zip(lines, theirs, strict=False))
        at = next((number for number, (first, second) in enumerate(pairs) if first != second), len(pairs))
        texts = [repr(rows[at]) if at < len(rows) else "nothing" for rows in (lines, theirs)]
        return f"line {at + 1} of what the script prints: {texts[0]} against {texts[1]}"
    left_out = set() if again is None else {n for n in one.files if one.files[n] != again.files.get(n)}
    names = sorted((one.files.keys() | other.files.keys()) - left_out)
    return next((f"the file {name}" for name in names if one.files.get(name) != other.files.get(name)), None)


def _repeats(lines: list[str], longer: list[str], length: int) -> bool:
    """Whether the longer output is the other one, with its first lines printed again any number of times."""
    extra, first, at = len(longer) - len(lines), lines[:length], 0
    if extra < 0 or (extra and (not length or extra % length)):
        return False
    for position in range(len(lines) + 1):
        while extra and position >= length and longer[at : at + length] == first:
            at, extra = at + length, extra - length
        if position < len(lines):
            if longer[at] != lines[position]:
                return False
            at += 1
    return not extra


def _names(words: Sequence[str]) -> Iterator[str]:
    """All texts that may name a file; none where there is no script."""
    if not words:
        return
    for word in words[1:]:
        yield from (word, word.partition("=")[2])
    try:
        with tokenize.open(words[0]) as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return
    yield from (
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of a file; None if there is none."""
    try:
        found = path.stat()
        return (found.st_size, found.st_mtime_ns) if path.is_file() else None
    except (OSError, ValueError):
        return None


def _checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
