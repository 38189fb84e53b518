"""Examples from files, and rows in which none of them sees another."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holdwater.errors import DataError
from holdwater.train.finetune.data import held_out
from holdwater.train.finetune.data.distrust import ExampleSource
from holdwater.train.finetune.data.examples import Corpus, Example, example_of
from holdwater.train.finetune.data.packing import PackedBatches, pack
from holdwater.train.finetune.data.rows import JsonLines, open_rows
from holdwater.train.finetune.losses import IGNORED


class Letters:
    """A tokenizer whose tokens are letters; 0 begins a text and 1 ends it."""

    eos_token_id = 1

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """By code point."""
        return [0] * add_special_tokens + [ord(letter) for letter in text]

    def apply_chat_template(self, conversation: Sequence[dict[str, str]], **options: Any) -> list[int] | str:
        """`<role>content` for each message."""
        text = "".join(f"<{one['role']}>{one['content']}." for one in conversation)
        text += "<assistant>" * options["add_generation_prompt"]
        return [0, *map(ord, text)] if options["tokenize"] else text


class Strict(Letters):
    """One with a template that does not take everything."""

    chat_template = "strict"

    def apply_chat_template(self, conversation: Sequence[dict[str, str]], **options: Any) -> list[int] | str:
        """As templates refuse: where they are used."""
        if not conversation:
            raise ValueError("nothing said")
        if conversation[0]["role"] == "system":
            raise ValueError("no system")
        "".join(one["content"] for one in conversation).encode()
        return super().apply_chat_template(conversation, **options)


def learned_text(example: Example) -> str:
    """What of an example is learned."""
    return "".join(chr(token) for token, learned in zip(example.tokens, example.learned, strict=True) if learned)


class TestExamples:
    """Three kinds, and what is wrong with the others."""

    def test_a_completion_is_learned_and_its_prompt_is_not(self) -> None:
        """Its end too."""
        row = {"prompt": "2+2=", "completion": "4"}

        assert learned_text(example_of(row, Letters())) == "4\x01"
        assert learned_text(example_of(row, Letters(), answers_only=False)) == "\x002+2=4\x01"

    def test_what_the_assistant_says_is_learned(self) -> None:
        """In each turn, by the model's own template."""
        roles = (("user", "hi"), ("assistant", "yes"), ("user", "so"), ("assistant", "no"))
        row = {"messages": [{"role": role, "content": content} for role, content in roles]}

        assert learned_text(example_of(row, Letters())) == "yes.no."

    def test_text_is_learned_as_a_whole(self) -> None:
        """With what is known of its source."""
        example = example_of({"text": "ab", "authority": 0.5, "provenance_entropy": 3}, Letters())

        assert example == Example([0, 97, 98, 1], [True] * 4, ExampleSource(0.5, 3))

    @pytest.mark.parametrize(
        ("line", "named"),
        [
            ("{", "example 2: it is no JSON"),
            ("[1]", "example 2: it is a list"),
            ('{"title": "x"}', "example 2: it has title, but an example needs text"),
            ('{"text": 3}', "example 2: text is 3"),
            ('{"messages": []}', "example 2: messages is empty"),
            ('{"messages": [{"role": "user"}]}', "example 2: a message is"),
            ('{"text": "a", "authority": 0.5}', "example 2: authority is given without provenance_entropy"),
            ('{"text": "a", "authority": 2, "provenance_entropy": 1}', "example 2: authority is 2"),
        ],
    )
    def test_names_the_line_that_is_wrong(self, tmp_path: Path, line: str, named: str) -> None:
        """And what is wrong with it."""
        path = tmp_path / "rows.jsonl"
        path.write_text('{"text": "fine"}\n\n' + line + "\n")
        corpus = Corpus(path, Letters())

        assert corpus[0].tokens == [0, *map(ord, "fine"), 1]
        with pytest.raises(DataError, match=named):
            corpus[1]
        with pytest.raises(DataError, match=named):
            corpus.check(seconds=60)

    def test_all_examples_are_checked_if_there_is_time(self, tmp_path: Path) -> None:
        """Whatever they are; and one at least."""
        rows: list[dict[str, object]] = [
            {"text": "a"}, {"prompt": "b", "completion": "c"}, {"messages": [{"role": "user", "content": "d"}]},
        ]  # fmt: skip
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        corpus = Corpus(path, Letters())

        assert corpus.check(seconds=60) == 3
        assert corpus.check(seconds=0) == 1

    @pytest.mark.parametrize(("seconds", "said"), [(0.0, "1 of 3 examples were read"), (60.0, "")])
    def test_says_when_time_was_too_short(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seconds: float,
        said: str,
    ) -> None:  # fmt: skip
        """And nothing where all were read."""
        path = tmp_path / "rows.jsonl"
        path.write_text('{"text": "a"}\n' * 3)
        monkeypatch.setattr(held_out, "CHECKING", seconds)

        with caplog.at_level("INFO", logger="holdwater"):
            held_out.check_examples(Corpus(path, Letters()))

        assert caplog.text.count("examples were read") == bool(said)
        assert said in caplog.text

    @pytest.mark.parametrize(
        ("messages", "named"),
        [
            ([{"role": "system", "content": "a"}], r"the model's chat template fails \(no system\)"),
            ([{"role": "user", "content": "\ud800"}], "the model's chat template fails .*surrogates"),
            ([{"role": "assistant", "content": "a"}], r"the model's chat template fails \(nothing said\)"),
        ],
    )
    def test_what_a_template_refuses_is_found_by_the_check(
        self, tmp_path: Path, messages: list[dict[str, str]], named: str
    ) -> None:
        """As it would be when its turn comes."""
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps({"messages": messages}) + "\n")
        corpus = Corpus(path, Strict())

        for read in (lambda: corpus.check(seconds=60), lambda: corpus[0]):
            with pytest.raises(DataError, match=named):
                read()

    def test_half_of_a_pair_of_surrogates_is_no_text(self) -> None:
        """JSON can write it, and no tokenizer takes it."""
        with pytest.raises(DataError, match=r"text holds '.ud800', half of a pair"):
            example_of(json.loads('{"text": "a\\ud800"}'), Letters())

    def test_an_empty_file_and_one_that_is_not_there(self, tmp_path: Path) -> None:
        """Two messages."""
        (tmp_path / "empty.jsonl").write_text("\n\n")

        with pytest.raises(DataError, match="holds no example; write one JSON object a line"):
            JsonLines(tmp_path / "empty.jsonl")
        with pytest.raises(DataError, match="cannot be read: No such file"):
            JsonLines(tmp_path / "none.jsonl")


class TestRows:
    """The same rows from each kind of file."""

    ROWS: Sequence[dict[str, Any]] = (
        {"text": "one", "authority": 0.5, "provenance_entropy": 2.0},
        {"prompt": "a", "completion": "b"},
    )

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("kind", ["rows.parquet", "folder"])
    def test_saved_rows_are_those_of_json_lines(self, tmp_path: Path, kind: str) -> None:
        """A column that a row leaves empty is not there."""
        import datasets

        columns = sorted({name for row in self.ROWS for name in row})
        dataset = datasets.Dataset.from_dict({name: [row.get(name) for row in self.ROWS] for name in columns})
        path = tmp_path / kind
        dataset.save_to_disk(str(path)) if kind == "folder" else dataset.to_parquet(str(path))

        rows = open_rows(path)

        assert [rows[number] for number in range(len(rows))] == list(self.ROWS)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("rows.csv", "is of no kind that is known"),
            ("broken.parquet", "cannot be read"),
            ("empty", "cannot be read"),
            ("parts", "holds the parts train; name the folder of one"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, tmp_path: Path, name: str, words: str) -> None:
        """With what to write."""
        import datasets

        path = tmp_path / name
        if name == "parts":
            part = datasets.Dataset.from_list(list(self.ROWS))
            datasets.DatasetDict(train=part).save_to_disk(str(path))
        elif name == "empty":
            path.mkdir()
        else:
            path.write_bytes(b"no rows")

        with pytest.raises(DataError, match=words):
            open_rows(path)


def plain(*tokens: int) -> Example:
    """An example that is learned as a whole."""
    return Example(list(tokens), [True] * len(tokens))


class TestPacking:
    """Rows of one shape."""

    def test_a_row_by_hand(self) -> None:
        """Two examples and padding; the last token of an example has nothing to predict."""
        packed = pack([[plain(5, 6, 7), Example([8, 9], [False, True])]], 7)

        assert packed.tokens.tolist() == [[5, 6, 7, 8, 9, 0, 0]]
        assert packed.targets.tolist() == [[6, 7, IGNORED, 9, IGNORED, IGNORED, IGNORED]]
        assert packed.positions.tolist() == [[0, 1, 2, 0, 1, 0, 0]]
        assert packed.segments.tolist() == [[1, 1, 1, 2, 2, 0, 0]]

    def test_no_example_sees_another(self) -> None:
        """Nor what comes after it."""
        mask = pack([[plain(5, 6, 7), plain(8, 9)]], 5).mask()[0, 0]

        assert mask.int().tolist() == [
            [1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 1, 0, 0],
            [0, 0, 0, 1, 0],
            [0, 0, 0, 1, 1],
        ]

    def test_all_rows_are_the_batch_itself(self) -> None:
        """So what was worked out for it is not worked out again; a part of them is a batch of its own."""
        batch = pack([[plain(5, 6, 7)], [plain(8, 9)]], 4)

        assert batch.part(0, 2) is batch
        assert batch.to("cpu") is batch
        assert batch.part(1, 3).tokens.tolist() == [[8, 9, 0, 0]]
        assert (batch.weight, batch.part(1, 3).weight) == (3.0, 1.0)
        assert batch.part(1, 2).spans.tolist() == [[0, 0, 2, 3], [2, 2, 3, 4]]

    def test_weighs_sources(self) -> None:
        """9 and 1 of the published term: 1.8 and 0.2; one of unknown source counts 1."""
        rows = [
            [Example([1, 2], [True] * 2, ExampleSource(0, 3)), Example([3], [True], ExampleSource(0, 1)), plain(4)]
        ]

        weights = pack(rows, 4, weighs=True).weights

        torch.testing.assert_close(weights, torch.tensor([[1.8, 1.8, 0.2, 1.0]]), rtol=1e-5, atol=1e-5)

    @given(
        lengths=st.lists(st.integers(min_value=2, max_value=9), min_size=1, max_size=20),
        size=st.integers(min_value=1, max_value=3),
    )
    def test_an_epoch_has_every_token_once(self, lengths: list[int], size: int) -> None:
        """Of examples that fit into a row and have something to learn, whatever the size of a batch."""
        examples = [
            plain(*[100 * number + place for place in range(length)]) for number, length in enumerate(lengths)
        ]
        batches = PackedBatches(examples, size=size, length=9, seed=0)
        seen: list[int] = []
        while batches.epochs < 1:
            batch = batches.draw()
            seen += batch.tokens[batch.segments > 0].tolist()

        first = seen[: sum(lengths)]
        assert sorted(first) == sorted(token for example in examples for token in example.tokens)
        assert batches.cut == 0

    def test_goes_on_from_any_batch(self) -> None:
        """The same rows as without a break, over two epochs."""
        examples = [plain(*range(10 * number, 10 * number + 3 + number % 4)) for number in range(11)]

        def batches() -> PackedBatches:
            """A new draw."""
            return PackedBatches(examples, size=2, length=8, seed=3)

        straight = batches()
        wanted = [straight.draw().tokens for _ in range(9)]
        first = batches()
        for _ in range(4):
            first.draw()
        second = batches()
        second.restore(json.loads(json.dumps(first.state())))

        for tokens in wanted[4:]:
            assert torch.equal(second.draw().tokens, tokens)
        assert (second.places, second.filled) == (straight.places, straight.filled)

    def test_what_is_too_long_is_cut_and_counted(self) -> None:
        """A row has room for its beginning."""
        batches = PackedBatches([plain(*range(12))], size=1, length=8, seed=0)

        assert batches.draw().tokens.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
        assert batches.cut == 1


class TestNothingToLearn:
    """Examples whose answer is cut away are passed over; where all are, that is said."""

    def test_an_example_without_a_learned_token_is_passed_over(self) -> None:
        """And the place in the order moves on."""
        empty = Example([1, 2, 3, 4, 5, 6], [False] * 5 + [True])
        batches = PackedBatches([empty, Example([7, 8], [True, True])], size=1, length=4, seed=0)

        drawn = [batches.draw() for _ in range(3)]

        assert all(batch.learned > 0 for batch in drawn)
        assert batches.epochs > 1

    def test_a_file_with_nothing_to_learn_is_refused(self) -> None:
        """With what to change."""
        batches = PackedBatches([Example([1, 2, 3], [False] * 3)] * 2, size=1, length=8, seed=0)

        with pytest.raises(DataError, match="use a larger --train-seq-length, or --learn everything"):
            batches.draw()
