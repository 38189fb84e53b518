"""Text: found, checked, turned into tokens and back."""

from pathlib import Path

import pytest
import torch

from holdwater.errors import DataError
from holdwater.train.pretrain.text import Batches, find_files, read_text, tokenise


class TestFiles:
    """Files of text."""

    def test_the_default_is_text_that_everybody_has(self) -> None:
        """The standard library's sources: a few megabytes of UTF-8."""
        assert len(read_text(find_files(None))) > 1_000_000

    def test_a_glob_finds_files_in_a_fixed_order(self, tmp_path: Path) -> None:
        """The same text on every run."""
        for name in ("b.txt", "a.txt", "c.md"):
            (tmp_path / name).write_text(name)

        assert read_text(find_files(str(tmp_path / "*.txt"))) == b"a.txtb.txt"

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty"),
            (b"\x89PNG\r\n\x1a\n", "not UTF-8 text .byte 0 is 0x89"),
            (b"ab\0c", "byte 2 is 0x00"),
        ],
        ids=["empty", "binary", "zero bytes"],
    )
    def test_what_is_no_text_is_refused(self, tmp_path: Path, content: bytes, words: str) -> None:
        """The message names the file and the byte."""
        path = tmp_path / "data"
        path.write_bytes(content)

        with pytest.raises(DataError, match=words):
            read_text(find_files(str(path)))

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        """With what to write instead."""
        with pytest.raises(DataError, match=r"matches no file; name a UTF-8 text file or a glob"):
            find_files(str(tmp_path / "none.txt"))


class TestTokens:
    """Tokens of bytes and of characters."""

    @pytest.mark.parametrize("level", ["byte", "character"])
    def test_can_be_turned_back_into_text(self, level: str) -> None:
        """Nothing is lost on the way, umlauts and pictures included."""
        text = "Käse → 🧀, " * 50

        tokens = tokenise(text.encode(), level, validation_share=0.1, length=8)  # type: ignore[arg-type]

        assert tokens.decode([*tokens.train.tolist(), *tokens.validation.tolist()]) == text
        assert tokens.vocabulary == (256 if level == "byte" else len(set(text)))

    def test_a_text_that_is_too_short_is_refused(self) -> None:
        """The message says what to do."""
        with pytest.raises(DataError, match="too few for sequences of 64"):
            tokenise(b"short" * 20, "byte", validation_share=0.1, length=64)


class TestBatches:
    """Sequences from random places."""

    def test_targets_are_the_tokens_that_follow(self) -> None:
        """Shifted by one."""
        inputs, targets = Batches(torch.arange(100), size=4, length=10, seed=0).draw()

        assert inputs.shape == targets.shape == (4, 10)
        assert torch.equal(inputs + 1, targets)

    def test_go_on_from_a_saved_position(self) -> None:
        """The order of samples after a resume is that of the undisturbed run."""
        one, other = (Batches(torch.arange(1000), size=2, length=8, seed=seed) for seed in (3, 4))
        one.draw()
        other.restore(one.state())

        assert torch.equal(one.draw()[0], other.draw()[0])

    def test_the_last_token_can_be_drawn(self) -> None:
        """No place of the text is left out."""
        batches = Batches(torch.arange(12), size=1, length=10, seed=0)
        seen = {int(batches.draw()[1][0, -1]) for _ in range(50)}

        assert seen == {10, 11}
