"""The empirical distrust term: examples count by how authoritative and how well documented their source is.

The published term is alpha * sum((ln(1 - authority + 1e-8) + provenance_entropy)^2), with alpha 2.7 in [2.3, 3.0];
`authority` in [0, 0.99] says how official a source is, `provenance_entropy` in bits [0, 10] how many independent
traces of its origin there are. ExampleSource: published as this formula; we have found no paper about it.

As published the term holds no weight of the model: added to the loss it changes the number and no gradient, so
nothing is learned from it. It acts only as a weight of each example, normalised to a mean of 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from holdwater.errors import ConfigError, DataError

ALPHA = 2.7
ALPHAS = (2.3, 3.0)
"""The published range."""
LEAST = 1e-8
MOST_AUTHORITY, MOST_ENTROPY = 0.99, 10.0


@dataclass(frozen=True, slots=True)
class ExampleSource:
    """What is known of where an example comes from."""

    authority: float
    """From 0 to 0.99."""
    provenance_entropy: float
    """In bits, from 0 to 10."""

    def __post_init__(self) -> None:
        read: tuple[tuple[str, object, float], ...] = (
            ("authority", self.authority, MOST_AUTHORITY),
            ("provenance_entropy", self.provenance_entropy, MOST_ENTROPY),
        )
        for name, value, most in read:  # from a file: they may be anything
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise DataError(
                    f"{name} is {value!r}, but it lies between 0 and {most:g}; write a number in that range"
                )

    @property
    def distance(self) -> float:
        """The square of the published term, without alpha."""
        return (math.log(1 - self.authority + LEAST) + self.provenance_entropy) ** 2


def check_alpha(alpha: float) -> float:
    """Refuse a factor outside of the published range.

    Args:
        alpha: The factor.

    Returns:
        The same.

    Raises:
        ConfigError: It is outside.
    """
    least, most = ALPHAS
    if not least <= alpha <= most:
        raise ConfigError(
            f"distrust_alpha is {alpha:g}, but it lies between {least:g} and {most:g}; write {ALPHA:g}, say"
        )
    return alpha


def added_term(sources: Sequence[ExampleSource], *, alpha: float = ALPHA) -> float:
    """The term as published; it does not depend on the model, so it is reported apart from the loss.

    Args:
        sources: Of the examples of a step.
        alpha: The factor.

    Returns:
        The term, in no unit.

    Raises:
        ConfigError: The factor is outside of the published range.
    """
    return check_alpha(alpha) * sum(source.distance for source in sources)


def example_weights(sources: Sequence[ExampleSource]) -> list[float]:
    """What each example counts: in proportion to its part of the term, and 1 in the mean.

    The factor alpha cancels out.

    Args:
        sources: Of the examples that are weighed against one another.

    Returns:
        The weights, in the same order; all 1 where the term is 0 for each.
    """
    distances = [source.distance for source in sources]
    mean = sum(distances) / max(len(distances), 1)
    return [distance / mean if mean > 0 else 1.0 for distance in distances]
