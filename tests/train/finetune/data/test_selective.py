"""Examples whose structure is not learned, and batches of them."""

import json
from typing import Any

import pytest

from holdwater.errors import DataError
from holdwater.train.finetune.data.examples import Corpus, Example, example_of
from holdwater.train.finetune.data.packing import PackedBatches
from holdwater.train.finetune.data.selective import SelectiveCounts, SelectiveLoss
from holdwater.train.finetune.losses import IGNORED
from tests.small_tokenizers import KINDS, small_tokenizer

JSON = SelectiveLoss()
ANSWER = '{"a": [1, null]}'


def learned(tokenizer: Any, example: Example) -> str:
    """What of an example is learned."""
    tokens = zip(example.tokens, example.learned, strict=True)
    return "".join(tokenizer.convert_ids_to_tokens([token for token, yes in tokens if yes]))


class TestExamples:
    """Completions, and what the assistant says."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("answers_only", [True, False])
    def test_tokens_are_those_of_a_whole_answer(self, kind: str, answers_only: bool) -> None:
        """And all of them are learned once structure is."""
        tokenizer = small_tokenizer(kind)
        messages = [{"role": "user", "content": "list [1]"}, {"role": "assistant", "content": ANSWER}] * 2
        for row in ({"prompt": "[0] a", "completion": ANSWER}, {"messages": messages}, {"text": ANSWER}):
            usual = example_of(row, tokenizer, answers_only=answers_only)

            example = example_of(row, tokenizer, answers_only=answers_only, selective=JSON)

            assert example.tokens == usual.tokens
            assert example.whole == usual
            assert example.beginning == usual.beginning
            assert ("text" in row) == (example == usual)

    @pytest.mark.parametrize(
        ("keys", "left", "answers_only"),
        [(False, "a1null</s>", True), (True, "1</s>", True), (False, "[0]a1null</s>", False)],
    )
    def test_the_structure_of_a_completion_is_not_learned(self, keys: bool, left: str, answers_only: bool) -> None:
        """Its end is, and so is JSON in a prompt where prompts are learned."""
        tokenizer = small_tokenizer("characters")
        row = {"prompt": "[0]", "completion": ANSWER}

        example = example_of(row, tokenizer, answers_only=answers_only, selective=SelectiveLoss(keys=keys))

        assert learned(tokenizer, example) == left
        assert example.structure is not None
        assert not any(example.structure[:3])

    def test_each_answer_of_a_conversation_is_scanned_by_itself(self) -> None:
        """One that breaks off is learned whole, and counted."""
        tokenizer = small_tokenizer("characters")
        said = ('{"a": 1', "[2]} b")
        messages = [
            message
            for one in said
            for message in ({"role": "user", "content": "[0]"}, {"role": "assistant", "content": one})
        ]

        example = example_of({"messages": messages}, tokenizer, selective=JSON)

        assert learned(tokenizer, example) == '{"a": 1<|im_end|>\n2} b<|im_end|>\n'
        assert example.whole_answers == 1

    def test_a_template_whose_text_has_other_tokens_is_refused(self, tmp_path: Any) -> None:
        """With the example that has it; without a choice nothing is asked."""

        class Odd:
            """One whose tokens are not those of its text."""

            def __init__(self, real: Any) -> None:
                self._real, self.is_fast, self.eos_token_id = real, True, None

            def __call__(self, *given: Any, **options: Any) -> Any:
                return self._real(*given, **options)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._real, name)

            def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
                """With a token more than its text."""
                made = self._real.apply_chat_template(conversation, **options)
                return [0, *made] if options["tokenize"] else made

        path = tmp_path / "rows.jsonl"
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ANSWER}]
        path.write_text(json.dumps({"messages": messages}) + "\n")
        odd = Odd(small_tokenizer("byte level"))

        assert Corpus(path, odd)[0].structure is None
        with pytest.raises(DataError, match="example 1: selective_loss needs the text that tokens were made from"):
            Corpus(path, odd, selective=JSON)[0]

    def test_examples_are_checked_without_making_tokens(self, tmp_path: Any) -> None:
        """As without a choice."""
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps({"prompt": "a", "completion": ANSWER}) + "\n")

        assert Corpus(path, small_tokenizer("characters"), selective=JSON).check(seconds=60) == 1


def marked(number: int, length: int = 4) -> Example:
    """An example whose second token is structure."""
    tokens = [10 * number + place for place in range(length)]
    flags = [place == 1 for place in range(length)]
    return Example(tokens, [not flag for flag in flags], structure=flags, whole_answers=number % 2)


class TestBatches:
    """From an epoch on, with counts that go on."""

    EXAMPLES = tuple(marked(number) for number in range(1, 6))

    def batches(self, *, selective_from: int) -> PackedBatches:
        """Of two rows."""
        return PackedBatches(self.EXAMPLES, size=2, length=6, seed=1, selective_from=selective_from)

    def test_structure_is_learned_before_an_epoch_and_not_from_it_on(self) -> None:
        """Also where a batch has examples of both."""
        batches = self.batches(selective_from=2)
        seen: list[bool] = []
        for _ in range(8):
            batch = batches.draw()
            seen += (batch.targets[:, 0] != IGNORED).tolist()

        assert seen == [True] * 10 + [False] * 6
        assert batches.selective == SelectiveCounts(answer_tokens=18, structure_tokens=6, whole_answers=4)

    @pytest.mark.parametrize("selective_from", [0, 1])
    def test_goes_on_from_any_batch(self, selective_from: int) -> None:
        """With the same targets and counts as without a break."""
        straight = self.batches(selective_from=selective_from)
        for at in range(7):
            resumed = self.batches(selective_from=selective_from)
            resumed.restore(json.loads(json.dumps(straight.state())))

            assert resumed.draw().targets.equal(straight.draw().targets), at
            assert resumed.state() == straight.state()

    def test_a_state_of_before_there_were_counts_is_gone_on_with(self) -> None:
        """They begin at 0."""
        batches = self.batches(selective_from=0)
        state = {"epoch": 0, "taken": 2, "places": 12, "filled": 8, "cut": 0}

        batches.restore(state)

        assert batches.state() == state | {"answer_tokens": 0, "structure_tokens": 0, "whole_answers": 0}

    def test_counts_what_is_within_a_row(self) -> None:
        """The first token of an example is no target, and an end that is cut off is none either."""
        example = Example(
            [1, 2, 3, 4, 5], [False, True, False, True, False], structure=[True, False, True, False, True]
        )
        batches = PackedBatches([example], size=1, length=4, seed=0)

        batch = batches.draw()

        assert batches.selective == SelectiveCounts(answer_tokens=3, structure_tokens=1)
        assert batch.learned == 2

    def test_says_what_was_left_out(self) -> None:
        """And nothing where nothing was counted."""
        assert SelectiveCounts().told("answers' tokens") == ""
        assert (
            SelectiveCounts(8, 2).told("answers' tokens")
            == "; 25.0% of the answers' tokens were structure and left out"
        )
        assert SelectiveCounts(8, 2, 3).told("tokens").endswith(", 3 answers without JSON were learned whole")
