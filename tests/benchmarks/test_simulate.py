"""The simulation: curves of known truth, an oracle, intervals."""

import numpy as np
import pytest

from simulated.shapes import HEALTHY, NOISES, Noise, healthy, leak, oracle_score
from simulated.simulate import look_all_the_way


class TestShapes:
    """Curves are what they say."""

    @pytest.mark.parametrize("noise", NOISES, ids=str)
    def test_noise_has_the_correlation_that_is_asked_for(self, noise: Noise) -> None:
        """Over 200,000 steps."""
        drawn = noise.draw(200_000, np.random.default_rng(1))

        found = float(np.corrcoef(drawn[:-1], drawn[1:])[0, 1])

        assert found == pytest.approx(noise.correlation, abs=0.02)

    @pytest.mark.parametrize("kind", HEALTHY)
    def test_the_same_seed_draws_the_same_curve(self, kind: str) -> None:
        """And another one another."""
        first, again, other = (
            healthy(kind, 1000, Noise(), np.random.default_rng(seed)).memory for seed in (1, 1, 2)
        )

        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_the_oracle_knows_the_textbook(self) -> None:
        """The slope of white noise: the root of n cubed by twelve."""
        assert oracle_score(0, 1000, Noise()) == pytest.approx(np.sqrt(1000**3 / 12), rel=0.01)


class TestLooks:
    """The detector on a few runs; the benchmark has thousands."""

    def test_finds_a_plain_leak_before_the_end(self) -> None:
        """Twenty standard errors at the end."""
        rate = 20 / oracle_score(0, 10_000, Noise(0.5))

        outcome = look_all_the_way(leak(rate, 0, 10_000, Noise(0.5), np.random.default_rng(1)))

        assert outcome.final == "leak"
        assert outcome.said_leak_at is not None
        assert outcome.said_leak_at < 9000

    @pytest.mark.parametrize("kind", HEALTHY)
    def test_calls_no_healthy_run_a_leak(self, kind: str) -> None:
        """One of each shape, with autocorrelated noise."""
        outcome = look_all_the_way(healthy(kind, 10_000, Noise(0.9), np.random.default_rng(5)))

        assert outcome.said_leak_at is None
