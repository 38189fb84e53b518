"""Attribute to MLX's arrays what they keep beyond their own sizes: graphs that were not evaluated, whole buffers.

An array that was not evaluated keeps all that it will be computed from, and a slice keeps the array that it was
cut from. Neither can be asked, but MLX counts what it holds for all arrays: what has grown beyond the arrays that
were found belongs to them. If no container has gained arrays, it belongs to a name under which one is set again.
"""

from holdwater.attribution.gain import Gain
from holdwater.attribution.mlx_arrays import Held
from holdwater.probes.devices import mlx_is_on_the_host

LEAST_SURPLUS = 32_768
"""Less memory between two counts is not attributed to what arrays keep."""
KEEPS_MORE = "keeps more"
"""The trait of arrays that keep at least as much again as they show."""
BY_TOKENS = "by tokens"
"""The trait of prompt caches, whose arrays grow by many tokens at a time: their sizes are not corrected."""


def share_out(gains: list[Gain], grown: Held) -> None:
    """Correct the sizes of gains by what MLX holds more than at the previous count.

    Args:
        gains: All gains; those that hold no array are not changed.
        grown: What MLX holds more.
    """
    of_arrays = [gain for gain in gains if gain.arrays and gain.kind != "rebound" and BY_TOKENS not in gain.traits]
    by_tokens = sum(gain.array_bytes for gain in gains if BY_TOKENS in gain.traits)
    keeping = [gain for gain in of_arrays if gain.kind != "value"]
    keeping = keeping or [gain for gain in gains if gain.kind == "rebound"]
    shown, active = sum(gain.array_bytes for gain in of_arrays), max(grown.active - by_tokens, 0)
    if shown > active:  # parts of other arrays, or repeated, or not evaluated
        for gain in of_arrays:
            _add(gain, int(gain.array_bytes * (active / shown - 1)))
    elif active - shown >= max(shown, LEAST_SURPLUS):
        _keep_more(keeping, active - shown)


def _keep_more(keeping: list[Gain], size: int) -> None:
    """Add what arrays keep beyond themselves: by their number, or all of it to each name that may keep it."""
    number = sum(gain.arrays for gain in keeping if gain.kind != "rebound")
    for gain in keeping:
        _add(gain, size * gain.arrays // number if number else size)
        gain.traits.append(KEEPS_MORE)


def _add(gain: Gain, size: int) -> None:
    """Add to the memory of a gain's arrays, where MLX keeps arrays."""
    if mlx_is_on_the_host():
        gain.weight.tensors += size
    else:
        gain.weight.device += size
