"""Whether the state that an object of the user's returns covers what has changed in the object.

Compared by content: an attribute is covered if its value, or its bytes, occur anywhere in the state.
"""

import zlib
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from holdwater.resume.fingerprint import WITH_ITEMS, compared, in_any_order
from holdwater.resume.introspection import PLAIN, is_users, isinstance_exactly
from holdwater.signal_errors import suppressed

KINDS = (np.float32, np.float64, np.int32, np.int64)
"""Types as which a number of a state may lie in an array."""
KEPT_WHOLE = (torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.Generator, dict)
"""What is kept without a state of the user's making."""


def has_own_state(thing: object) -> bool:
    """Whether a registered object is of the user's making, and so is what its state leaves out.

    Args:
        thing: A registered object.
    """
    return is_users(type(thing)) and not isinstance(thing, KEPT_WHOLE) and hasattr(thing, "state_dict")


def contents(state: object) -> set[object]:
    """Everything that a state holds, as it would be recorded of a variable.

    Args:
        state: Numbers, strings, tensors, arrays, and containers of them.
    """
    found: set[object] = set()
    waiting, seen = deque([state]), set()
    while waiting:
        one: Any = waiting.popleft()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            one = one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        if isinstance(one, np.ndarray):
            found.add(zlib.crc32(np.ascontiguousarray(one).tobytes()))
        elif isinstance(one, dict):
            found.add(repr(one) if "bit_generator" in one else None)
            waiting.extend([*one, *one.values()])
        elif isinstance(one, list | tuple | deque | set | frozenset):
            found |= _of_items(one)
            waiting.extend(one)
        elif isinstance_exactly(one, PLAIN) or isinstance(one, np.generic):
            found |= {compared(one), *_as_arrays([one])}
    return found


def _of_items(items: Any) -> set[object]:  # noqa: ANN401 - a container
    """What a container is when it is compared as a whole: the state of a generator, a set, an array."""
    found: set[object] = {in_any_order(items), *_as_arrays(items)}
    with suppressed(TypeError):  # it holds something that has no hash
        found.add(hash(items))
    return found


def _as_arrays(items: Iterable[Any]) -> set[object]:
    """The bytes of numbers, in an array of each kind."""
    numbers = list(items)
    if not all(type(one) in {int, float, bool} for one in numbers):
        return set()
    with suppressed(OverflowError), np.errstate(all="ignore"):
        return {zlib.crc32(np.asarray(numbers).astype(kind).tobytes()) for kind in KINDS}
    return set()


def is_covered(leaf: object, found: set[object]) -> bool:
    """Whether a state holds what was recorded of a part of the object.

    Args:
        leaf: As recorded.
        found: The contents of the state.
    """
    if leaf is None or isinstance(leaf, bool):  # they are everywhere
        return True
    if not isinstance(leaf, tuple) or len(leaf) != 2 or not isinstance(leaf[0], str):
        return leaf in found
    name, state = leaf
    if state is None or name in WITH_ITEMS:  # its items are recorded apart
        return True
    if isinstance(state, tuple) and name not in {"set", "frozenset"}:
        state = state[-1]
    return state in found
