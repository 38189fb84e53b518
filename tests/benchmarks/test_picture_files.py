"""The pictures of benchmarks: the same from the same seed, and ten that cannot be learned."""

from pathlib import Path

import pytest

from holdwater.errors import DataError
from holdwater.frameworks.transformers.picture_files import Picture
from picture_files import draw, draw_all, spoil_all

pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def test_are_drawn_from_a_seed(tmp_path: Path) -> None:
    """What is there already is left as it is."""
    first, second = draw_all(tmp_path, 2, (40, 30), workers=1)
    first.write_bytes(b"left")

    draw_all(tmp_path, 2, (40, 30), workers=1)

    assert draw(1, (40, 30)).tobytes() == draw(1, (40, 30)).tobytes()
    assert draw(0, (40, 30)).tobytes() != draw(1, (40, 30)).tobytes()
    assert Picture(second, "one").size() == (40, 30)
    assert first.read_bytes() == b"left"


def test_each_spoilt_one_is_refused(tmp_path: Path) -> None:
    """Each in its own way."""
    spoilt = spoil_all(tmp_path)

    assert len(set(spoilt)) == 10
    for path in spoilt:
        with pytest.raises(DataError, match=r"^one: "):
            Picture(path, "one").load()
