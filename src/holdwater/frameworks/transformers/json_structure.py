"""Find the characters of a text that are the structure of JSON: what every answer of one form has in common.

Structure is brackets, braces, colons, commas, the quotes that delimit strings, and white space around these; never
a character inside a string. Source: RFC 8259, whose grammar is followed exactly (no NaN, no trailing comma).
"""

import re
from collections.abc import Iterator, Sequence

SPACE = re.compile(r"[ \t\n\r]*+")
OPENING = re.compile(r"[\[{]")
STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
"""A string without its closing quote: where that is missing, the match ends at what cannot stand in a string."""
LITERAL = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?")

ALLOWED = {"value": '{["a', "first value": '{["a]', "key": '"', "first key": '"}', "colon": ":"}
"""What may come in each state of an object or array; `a` stands for a number, true, false or null."""
AFTER_VALUE = {"{": ",}", "[": ",]"}
"""What may come after a value, by the bracket it is in."""
NEXT = {"{": "first key", "[": "first value", ":": "value", "}": "after", "]": "after", "a": "after"}
"""The state after a token; commas and strings depend on where they are."""

Range = tuple[int, int]
"""Where characters begin, and where they end."""


def json_structure(text: str, *, keys: bool = False) -> bytearray | None:
    """Mark the structure of all complete JSON objects and arrays in a text.

    They may stand anywhere: alone, in a fenced block, between sentences. One that breaks off or is not valid is
    passed over up to where it breaks. A number or a string that stands alone is no JSON here, but text.

    Args:
        text: Such as an answer.
        keys: Also mark the keys of objects, and `null`.

    Returns:
        One byte a character, 1 for structure; None if the text holds no complete object or array.
    """
    marks, found, at = bytearray(len(text)), 0, 0  # found: where the last one ends
    while (opening := OPENING.search(text, at)) is not None:
        scan = _Scan(text, opening.start(), keys=keys)
        if scan.complete():
            before = found + len(text[found : opening.start()].rstrip(" \t\n\r"))
            at = found = _after_space(text, scan.at)
            for begin, end in ((before, opening.start()), *scan.structure, (scan.at, at)):
                marks[begin:end] = b"\x01" * (end - begin)
        else:
            at = max(scan.at, opening.start() + 1)
    return marks if found else None


def structure_tokens(spans: Sequence[Range], structure: bytearray) -> list[bool]:
    """Turn marks of characters into marks of tokens: a token is structure if all its characters are.

    Args:
        spans: Where the characters of each token begin and end.
        structure: One byte a character, 1 for structure.

    Returns:
        One flag a token; False for a token without a character.
    """
    return [begin < end and structure.find(0, begin, end) < 0 for begin, end in spans]


def _after_space(text: str, at: int) -> int:
    """Where white space ends that begins here."""
    space = SPACE.match(text, at)
    return at if space is None else space.end()


class _Scan:
    """Goes through one object or array, from its opening bracket."""

    def __init__(self, text: str, begin: int, *, keys: bool) -> None:
        self.at = begin
        """Where the scan is: behind the value if it was complete, else where it breaks."""
        self.structure: list[Range] = []
        self._text, self._keys = text, keys
        self._open: list[str] = []
        self._state = "value"

    def complete(self) -> bool:
        """Go through it; False if it breaks off or is not valid."""
        for kind in self._kinds():
            if kind not in (ALLOWED.get(self._state) or AFTER_VALUE[self._open[-1]]):
                return False
            begin = self.at
            if not self._pass(kind):
                return False
            self.structure += self._marked(kind, begin)
            self._move(kind)
            if not self._open:
                return True
        return False

    def _kinds(self) -> Iterator[str]:
        """The kind of each token; white space before it is structure."""
        while True:
            after = _after_space(self._text, self.at)
            self.structure.append((self.at, after))
            self.at = after
            kind = self._text[after : after + 1]
            if not kind:
                return
            yield kind if kind in '{}[],:"' else "a"

    def _pass(self, kind: str) -> bool:
        """Pass the token; False where it breaks off or is not valid."""
        if kind == '"':
            inside = STRING.match(self._text, self.at)
            self.at = self.at if inside is None else inside.end()
            closed = self._text[self.at : self.at + 1] == '"'
            self.at += closed
            return closed
        if kind != "a":
            self.at += 1
            return True
        literal = LITERAL.match(self._text, self.at)
        self.at = self.at if literal is None else literal.end()
        return literal is not None

    def _marked(self, kind: str, begin: int) -> list[Range]:
        """What of the token is structure."""
        if kind == '"' and not (self._keys and "key" in self._state):
            return [(begin, begin + 1), (self.at - 1, self.at)]
        if kind == "a" and not (self._keys and self._text.startswith("null", begin)):
            return []
        return [(begin, self.at)]

    def _move(self, kind: str) -> None:
        """Enter the state after the token."""
        if kind in "{[":
            self._open.append(kind)
        elif kind in "}]":
            self._open.pop()
        if kind == ",":
            self._state = "key" if self._open[-1] == "{" else "value"
        elif kind == '"':
            self._state = "colon" if "key" in self._state else "after"
        else:
            self._state = NEXT[kind]
