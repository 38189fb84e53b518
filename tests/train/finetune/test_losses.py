"""The chunked loss is the plain one; the distrust term is what was published, on values worked out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdwater.errors import ConfigError, DataError
from holdwater.train.finetune.data.distrust import ExampleSource, added_term, example_weights
from holdwater.train.finetune.losses import IGNORED, chunked_cross_entropy


def plain(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The sum of weighted cross-entropies, with all logits at once."""
    losses = torch.nn.functional.cross_entropy(hidden @ head.T, targets, reduction="none", ignore_index=IGNORED)
    return (losses * weights).sum()


class TestChunkedCrossEntropy:
    """Same loss and same gradient as with all logits at once, to rounding."""

    @settings(max_examples=40, deadline=None)
    @given(
        tokens=st.integers(min_value=1, max_value=40),
        chunk=st.integers(min_value=1, max_value=50),
        seed=st.integers(min_value=0, max_value=1000),
        trained=st.sampled_from([(True, False), (True, True), (False, True)]),
    )
    def test_does_not_depend_on_the_chunk(
        self, tokens: int, chunk: int, seed: int, trained: tuple[bool, bool]
    ) -> None:
        """Any number of tokens in chunks of any size, some ignored, each with its weight; the head trained or not."""
        torch.manual_seed(seed)
        head, targets = torch.randn(13, 6, dtype=torch.float64), torch.randint(0, 13, (tokens,))
        targets[torch.rand(tokens) < 0.3] = IGNORED
        weights = torch.rand(tokens, dtype=torch.float64)
        hidden = torch.randn(tokens, 6, dtype=torch.float64)
        ours, theirs = (
            [part.clone().requires_grad_(learns) for part, learns in zip((hidden, head), trained, strict=True)]
            for _ in range(2)
        )

        found = chunked_cross_entropy(ours[0], ours[1], targets, weights, chunk=chunk)
        wanted = plain(theirs[0], theirs[1], targets, weights)
        (0.3 * found).backward()  # type: ignore[no-untyped-call]
        (0.3 * wanted).backward()  # type: ignore[no-untyped-call]

        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
        for one, other, learns in zip(ours, theirs, trained, strict=True):
            assert (one.grad is not None) is learns
            if learns:
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)

    def test_without_gradient_nothing_is_kept(self) -> None:
        """As in an evaluation."""
        hidden = torch.randn(5, 4)

        with torch.no_grad():
            loss = chunked_cross_entropy(hidden, torch.randn(7, 4, requires_grad=True), torch.arange(5))

        assert not loss.requires_grad

    def test_products_are_of_autocasts_type(self) -> None:
        """Weights in float32 are trained so; the gradients are in float32 again."""
        torch.manual_seed(0)
        hidden, head = torch.randn(64, 32, requires_grad=True), torch.randn(100, 32, requires_grad=True)
        targets, grads = torch.randint(0, 100, (64,)), []

        for narrowed in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrowed):
                loss = chunked_cross_entropy(hidden, head, targets, chunk=10)
            grads.append(torch.autograd.grad(loss, (hidden, head)))

        for exact, found in zip(*grads, strict=True):
            assert found.dtype == torch.float32
            assert 1e-4 < (found - exact).norm() / exact.norm() < 2e-2

    def test_bfloat16_is_summed_in_float32(self) -> None:
        """Logits of a bf16 model lose no more than its own rounding."""
        torch.manual_seed(0)
        hidden, head = torch.randn(64, 32, dtype=torch.bfloat16), torch.randn(100, 32, dtype=torch.bfloat16)
        targets = torch.randint(0, 100, (64,))

        found = chunked_cross_entropy(hidden, head, targets, chunk=10)

        assert found.dtype == torch.float32
        wanted = plain(hidden.float(), head.float(), targets, torch.ones(64))
        assert found.item() == pytest.approx(wanted.item(), rel=5e-3)

    @pytest.mark.parametrize("learns", [True, False])
    def test_one_matrix_of_logits_exists_at_a_time(self, learns: bool) -> None:
        """A softmax beside them would be a second one: 525 MB for 1,024 tokens of a vocabulary of 128,256."""
        hidden, head = torch.randn(64, 32, requires_grad=learns), torch.randn(5000, 32)
        targets = torch.zeros(64, dtype=torch.long)

        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
            chunked_cross_entropy(hidden, head, targets, chunk=32)

        told = [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
        logits = 32 * 5000 * 4
        assert [size for size in told if abs(size) >= logits] == [logits, -logits] * 2, "taken, given back"

    def test_logits_far_apart(self) -> None:
        """Their exponentials would not be finite by themselves."""
        hidden, head = torch.eye(2).requires_grad_(), torch.tensor([[300.0, -300.0], [-300.0, 200.0]])

        loss = chunked_cross_entropy(hidden, head, torch.tensor([1, 1]))
        loss.backward()  # type: ignore[no-untyped-call]

        assert loss.item() == pytest.approx(600.0)
        assert hidden.grad is not None
        torch.testing.assert_close(hidden.grad[0], head[0] - head[1])


class TestDistrust:
    """The published term, its two forms, and what is refused."""

    def test_the_term_by_hand(self) -> None:
        """Authority 0: ln(1) = 0, entropy 3: 9. authority 0.9: ln 0.1 = -2.302585, entropy 2: 0.091558. Times 2.7."""
        assert added_term([ExampleSource(0, 3)]) == pytest.approx(24.3, abs=1e-5)
        assert added_term([ExampleSource(0, 3), ExampleSource(0.9, 2)]) == pytest.approx(24.3 + 0.247206, abs=1e-5)
        assert added_term([ExampleSource(0.99, 0)], alpha=3.0) == pytest.approx(3 * 4.605169**2, abs=1e-4)

    def test_the_weights_by_hand(self) -> None:
        """Terms 9 and 1: a mean of 5, so 1.8 and 0.2."""
        assert example_weights([ExampleSource(0, 3), ExampleSource(0, 1)]) == pytest.approx([1.8, 0.2], abs=1e-6)

    @given(
        st.lists(
            st.builds(ExampleSource, st.floats(min_value=0, max_value=0.99), st.floats(min_value=0, max_value=10)),
            min_size=1,
        )
    )
    def test_weights_are_one_in_the_mean(self, sources: list[ExampleSource]) -> None:
        """So the learning rate keeps its meaning."""
        weights = example_weights(sources)

        assert sum(weights) / len(weights) == pytest.approx(1)
        assert min(weights) >= 0

    @pytest.mark.parametrize(
        ("authority", "entropy", "named"),
        [
            (1.0, 3, "authority"),
            (-0.1, 3, "authority"),
            (0.5, 10.5, "provenance_entropy"),
            ("high", 3, "authority"),
        ],
    )
    def test_refuses_what_is_out_of_range(self, authority: float, entropy: float, named: str) -> None:
        """With the name and the range."""
        with pytest.raises(DataError, match=f"{named} is .* between 0 and"):
            ExampleSource(authority, entropy)

    def test_refuses_another_factor(self) -> None:
        """The published range is 2.3 to 3."""
        with pytest.raises(ConfigError, match="distrust_alpha is 5"):
            added_term([], alpha=5)
