"""What a frozen vision tower takes for one picture: its forward pass is traced on the meta device."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx.experimental import _config as symbolic_shapes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from holdwater.errors import DataError
from holdwater.train.finetune.planner import CachingAllocator
from holdwater.train.finetune.planner.allocator import NOTHING, MemoryBlock
from holdwater.train.finetune.planner.autograd import replay
from holdwater.train.finetune.planner.meta_trace import Trace, peak_of, trace
from holdwater.train.finetune.vision.families import Family
from holdwater.train.finetune.vision.planning.sizes import PictureSize, PictureSizes
from holdwater.units import Bytes

SELECTING = frozenset((
    torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_,
))  # fmt: skip
"""Operations on the places that a mask selects."""


class OnMeta(TorchDispatchMode):
    """Lets code run of which some tensors have memory: a tower reads the sizes of its pictures.

    Whatever is made of a tensor without memory has none. A mask without memory counts as true everywhere, so
    that a selection by it is as large as it can be.
    """

    def __init__(self, places: tuple[torch.Size, int] | None = None) -> None:
        """Say what masks select.

        Args:
            places: The shape of a mask, and how many places it selects; None lets each select all.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._places = places
        self._counts = WeakIdKeyDictionary()
        """What is known of counts without memory: masks count as true everywhere."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run an operation."""
        kwargs = kwargs or {}
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        without = [one for one in given if one.is_meta]
        if func is torch.ops.aten._local_scalar_dense.default and without and without[0].dtype == torch.bool:  # noqa: SLF001
            return True
        if without and len(without) < len(given):
            args, kwargs = tree_map(_without_memory, (args, kwargs))
        if func.overloadpacket in SELECTING:
            args = (args[0], self._selected(args[1]), *args[2:])
        if func is torch.ops.aten._to_copy.default and args[0] in self._counts:  # noqa: SLF001
            known, kwargs = self._counts[args[0]], {key: value for key, value in kwargs.items() if key != "device"}
            return func(known, **kwargs)
        made = func(*args, **kwargs)
        if func is torch.ops.aten.sum.dim_IntList and args[0].is_meta and args[0].dtype == torch.bool:
            each = args[0].numel() // max(made.numel(), 1)
            self._counts[made] = torch.full(made.shape, each, dtype=made.dtype)
        return made

    def _selected(self, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Numbers of places instead of a mask whose places are known."""
        found = list[Tensor | None]()
        for one in indices:
            if one is None or one.dtype != torch.bool or self._places is None or one.shape != self._places[0]:
                found.append(one)
            else:
                found += [one.new_empty(self._places[1], dtype=torch.int64) for _ in one.shape]
        return found


def masks_select_all() -> AbstractContextManager[object]:
    """Let a mask without memory select all places."""
    config: Any = symbolic_shapes  # its `patch` is made when it is imported
    found: AbstractContextManager[object] = config.patch(meta_nonzero_assume_all_nonzero=True)
    return found


def _without_memory(one: Any) -> Any:  # noqa: ANN401 - an argument
    """A tensor of the same shape that has no memory; whatever else it is stays."""
    return torch.empty_like(one, device="meta") if isinstance(one, Tensor) and not one.is_meta else one


@dataclass(frozen=True, slots=True)
class PictureTrace:
    """What the features of one picture ask for."""

    trace: Trace
    features: tuple[int, ...]
    """Bytes of what is made for it: features, and what is added to hidden states of early layers."""

    @property
    def peak(self) -> int:
        """Most bytes that are there at once."""
        return peak_of(self.trace.events)


def trace_tower(model: Any, family: Family, inputs: dict[str, Tensor]) -> PictureTrace:  # noqa: ANN401
    """Trace the features of one picture, as they are made eagerly.

    Args:
        model: On the meta device.
        family: Of the model.
        inputs: What the family's processor makes of the picture.
    """
    made: list[int] = []

    @torch.no_grad()
    def run() -> None:
        """Copy the picture to the device, and make its features."""
        with OnMeta():
            on_device = {name: _copied(value) for name, value in inputs.items()}
            made.extend(one.nbytes for one in family.features(model, on_device))

    with masks_select_all():
        found = trace(run, [*model.parameters(), *model.buffers()])
    return PictureTrace(found, tuple(made))


def _copied(value: Tensor) -> Tensor:
    """A copy as a device has it; sizes and masks keep their values."""
    return torch.empty_like(value, device="meta") if value.is_floating_point() else value.clone()


class TowerPlan:
    """What features of the pictures of a micro-batch take, made one picture after another before the step."""

    captured: ClassVar[bool] = False
    """Whether its memory is apart from that of evaluations; else these take the same, in turns."""

    def __init__(
        self, sizes: PictureSizes, trace_of: Callable[[PictureSize], PictureTrace], *, length: int
    ) -> None:
        """Trace pictures of three sizes.

        Args:
            sizes: Of the pictures of a run.
            trace_of: Traces one.
            length: Tokens of a row.
        """
        self._sizes, self._length = sizes, length
        kinds = dict.fromkeys((sizes.smallest, sizes.median, sizes.largest))
        self._traces = {size: trace_of(size) for size in kinds}
        """The smallest picture first."""

    @property
    def peak(self) -> int:
        """Most bytes that making the features of the largest picture needs at once."""
        return self._traces[self._sizes.largest].peak

    def start(self, allocator: CachingAllocator) -> Bytes:
        """Nothing is captured, and nothing kept.

        Args:
            allocator: Of the device.
        """
        del allocator
        return NOTHING

    def held(self, rows: int) -> int:
        """Bytes of features of other pictures that wait meanwhile.

        Args:
            rows: Of a micro-batch.
        """
        return sum(self._others(rows))

    def replay(self, allocator: CachingAllocator, rows: int, *, first: bool = False) -> None:
        """Ask for what the features of a micro-batch take until they are in their places, and give it back.

        Args:
            allocator: Is asked.
            rows: Of the micro-batch.
            first: Whether the library of matrix products takes its workspace now.
        """
        largest, held = self._sizes.largest, list[MemoryBlock]()
        for number, (size, one) in enumerate(self._traces.items()):
            if size == largest:
                held += [allocator.allocate(each) for each in self._others(rows)]
            replay(allocator, one.trace.events, one.trace.workspaces[: first and not number])
        held += [allocator.allocate(each) for each in self._traces[largest].features]
        share = self._sizes.in_rows(rows, self._length) / max(largest.tokens, 1)
        for each in self._traces[largest].features:  # of all pictures together, to be put in their places
            allocator.free(allocator.allocate(int(each * share)))
        for block in held:
            allocator.free(block)

    def _others(self, rows: int) -> list[int]:
        """Bytes of each tensor of features of the other pictures of a micro-batch, all of the median size."""
        sizes, median = self._sizes, self._traces[self._sizes.median]
        others = sizes.in_rows(rows, self._length) - sizes.largest.tokens
        return [each for _ in range(others // max(sizes.median.tokens, 1)) for each in median.features]


class CapturedTowerPlan:
    """What a tower takes that is captured for a few budgets of patches: buffers, and the pool of its graphs."""

    captured: ClassVar[bool] = True

    def __init__(self, passes: Sequence[PictureTrace], *, buffers: Sequence[int]) -> None:
        """Take traces of its passes.

        Args:
            passes: Of each budget, the largest first, as they are captured.
            buffers: Bytes of what a pass reads, and of the features that it makes.
        """
        self._passes, self.buffers = passes, tuple(buffers)
        """Bytes of what a pass reads, and of the features that it makes."""
        eager = CachingAllocator()
        pool = self.start(eager)
        self.passes = max(pool, eager.peak - sum(buffers))
        """Bytes that passes take besides: eagerly at first, then in the pool of their graphs."""

    @property
    def peak(self) -> int:
        """Most bytes of the graphs' pool and the buffers that are in use at once."""
        return max(one.peak for one in self._passes) + sum(self.buffers)

    def start(self, allocator: CachingAllocator) -> Bytes:
        """Ask for the buffers, and take the passes: all eagerly, then each captured.

        Args:
            allocator: Of the device; the pool of the graphs has one of its own.

        Returns:
            What the pool keeps.
        """
        for size in self.buffers:
            allocator.allocate(size)
        pool = CachingAllocator()
        for each in (allocator, pool):
            for number, one in enumerate(self._passes):
                replay(each, one.trace.events, one.trace.workspaces[: not number])
        allocator.empty_cache()
        return pool.reserved

    def held(self, rows: int) -> int:
        """Nothing: features are put in their places by the pass that makes them.

        Args:
            rows: Of a micro-batch.
        """
        del rows
        return 0

    def replay(self, allocator: CachingAllocator, rows: int, *, first: bool = False) -> None:
        """Nothing is asked for once passes are captured.

        Args:
            allocator: Of the device.
            rows: Of the micro-batch.
            first: Whether this is the first one.
        """


def blank_inputs(family: Family, size: PictureSize) -> dict[str, Tensor]:
    """What a family's processor makes of a picture of a size.

    Args:
        family: Of the model.
        size: Of the picture.

    Raises:
        DataError: Pillow is not installed.
    """
    try:
        from PIL import Image  # noqa: PLC0415 - an extra
    except ImportError:
        said = "pictures need Pillow, which is not installed; write: pip install pillow"
        raise DataError(said) from None
    return family.inputs(Image.new("RGB", (size.width, size.height)))
