"""Numbers by digest, in about 12 bytes each: a sorted array, and a small dictionary of the newest ones.

A dictionary of Python takes 150 bytes an entry and more.
"""

from typing import Any

import numpy as np

RECENT = 10_000
"""Entries in the dictionary, at most; then they are sorted into the array."""


class DigestTable:
    """Finds the number that belongs to a digest by the digest's first 8 bytes.

    Two digests with the same first 8 bytes are taken for one: whoever asks compares the whole digest.
    """

    def __init__(
        self, prefixes: "np.ndarray[Any, np.dtype[np.uint64]]", numbers: "np.ndarray[Any, np.dtype[np.uint32]]"
    ) -> None:
        """Begin with some entries.

        Args:
            prefixes: The first 8 bytes of each digest, little-endian. Shape (entries,).
            numbers: That belong to them. Shape (entries,).
        """
        self._recent: dict[int, int] = {}
        self._sort(prefixes, numbers)

    def __len__(self) -> int:
        return len(self._prefixes) + len(self._recent)

    def find(self, digest: bytes) -> int | None:
        """The number of a digest; None where it is not known.

        Args:
            digest: At least 8 bytes.
        """
        prefix = _prefix(digest)
        at = int(np.searchsorted(self._prefixes, np.uint64(prefix)))
        if at < len(self._prefixes) and int(self._prefixes[at]) == prefix:
            return int(self._numbers[at])
        return self._recent.get(prefix)

    def add(self, digest: bytes, number: int) -> None:
        """Remember the number of a digest that is not known yet.

        Args:
            digest: At least 8 bytes.
            number: Below 2^32.
        """
        self._recent[_prefix(digest)] = number
        if len(self._recent) >= RECENT:
            prefixes = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
            numbers = np.fromiter(self._recent.values(), np.uint32, len(self._recent))
            self._recent = {}
            self._sort(np.append(self._prefixes, prefixes), np.append(self._numbers, numbers))

    def _sort(
        self, prefixes: "np.ndarray[Any, np.dtype[np.uint64]]", numbers: "np.ndarray[Any, np.dtype[np.uint32]]"
    ) -> None:
        """Take these as the array."""
        order = np.argsort(prefixes, kind="stable")
        self._prefixes, self._numbers = prefixes[order], numbers[order]


def _prefix(digest: bytes) -> int:
    """The first 8 bytes, as a number."""
    return int.from_bytes(digest[:8], "little")
