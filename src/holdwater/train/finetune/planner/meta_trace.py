"""What a model under autograd asks an allocator for, in order, found by running it on the meta device.

Each piece of memory is noted when an operation makes it, and when nothing refers to it any more. Source of the
way: PyTorch's `TorchDispatchMode`, which sees every operation, those of the backward pass included.
"""

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

IN_A_WORKSPACE = frozenset((
    torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm, torch.ops.aten.mv,
))  # fmt: skip
"""Operations that a device's library of products computes, and a model's threads begin with."""


@dataclass(frozen=True, slots=True)
class Event:
    """A piece of memory is asked for, or given back."""

    piece: int
    """Its number."""
    size: int
    """In bytes; 0 where it is given back."""
    width: int = 0
    """The last dimension of the tensor that it was made for."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a function asked for."""

    events: list[Event]
    draws: bool
    """Whether it drew random numbers."""
    workspaces: list[int]
    """Events before which the library of matrix products takes a workspace, which it keeps: there are two threads,
    one for the backward pass."""


class Recorder(TorchDispatchMode):
    """Notes what operations ask for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events: list[Event] = []
        self.draws = False
        """Whether random numbers were drawn."""
        self._pieces: dict[int, int] = {}
        self._count = 0
        self.workspaces: list[int] = []
        """Numbers of the events that follow the first product of a thread."""
        self._threads: set[bool] = set()
        """That have made a product: whether it was in the backward pass."""
        self._alone = _holders_of_a_sum()

    def know(self, tensor: Tensor) -> None:
        """Leave a tensor's memory out: it was there before."""
        self._pieces[tensor.untyped_storage()._cdata] = -1  # noqa: SLF001 - its only name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run an operation, and note what it has made."""
        # autograd adds a gradient to another in its memory where it can, but never while a mode looks on
        sums = func is torch.ops.aten.add.Tensor and _is_in_backward() and not torch.is_grad_enabled()
        if sums and _holders(args[0]) == self._alone:
            func = torch.ops.aten.add_.Tensor
        out = func(*args, **(kwargs or {}))
        self.draws |= torch.Tag.nondeterministic_seeded in func.tags
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        if func.overloadpacket in IN_A_WORKSPACE:
            self._note_product()
        return out

    def _note_product(self) -> None:
        """Note where a thread makes its first product."""
        in_backward = _is_in_backward()
        if in_backward not in self._threads:
            self._threads.add(in_backward)
            self.workspaces.append(len(self.events))

    def _note(self, tensor: Tensor) -> None:
        """Note memory that is seen for the first time."""
        storage = tensor.untyped_storage()
        key = storage._cdata  # noqa: SLF001 - its only name
        if key in self._pieces or not storage.nbytes():
            return
        self._pieces[key] = number = self._count
        self._count += 1
        self.events.append(Event(number, storage.nbytes(), tensor.shape[-1] if tensor.dim() else 0))
        weakref.finalize(storage, self._gone, key, number)

    def _gone(self, key: int, number: int) -> None:
        """Note that nothing refers to some memory any more."""
        if self._pieces.get(key) == number:
            del self._pieces[key]
            self.events.append(Event(number, 0))


def _is_in_backward() -> bool:
    """Whether autograd runs this thread."""
    return torch._C._current_graph_task_id() != -1  # noqa: SLF001 - its only name


def _holders(tensor: Any) -> tuple[int, int, int]:  # noqa: ANN401 - mypy does not know all of a tensor
    """How many refer to a tensor, from Python and else, and how many to its memory; an argument is one of them."""
    memory = tensor.untyped_storage()._cdata  # noqa: SLF001 - its only name
    return sys.getrefcount(tensor), tensor._use_count(), torch._C._storage_Use_Count(memory)  # noqa: SLF001


@cache
def _holders_of_a_sum() -> tuple[int, int, int]:
    """The same of a gradient that autograd adds another to, and that nothing else refers to: versions differ."""
    rows = torch.empty(1, device="meta", requires_grad=True)
    twice = torch.cat([rows * 2, rows * 3])
    sums = _Sums()
    with sums:
        twice.sum().backward()  # type: ignore[no-untyped-call]
    return sums.holders[0]


class _Sums(TorchDispatchMode):
    """Notes what refers to the first summand of each sum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.holders: list[tuple[int, int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run an operation."""
        if func is torch.ops.aten.add.Tensor:
            self.holders.append(_holders(args[0]))
        return func(*args, **(kwargs or {}))


def trace(function: Callable[[], object], known: list[Tensor]) -> Trace:
    """Note what a function asks for.

    Args:
        function: Runs on the meta device.
        known: What was there before.
    """
    with (
        Recorder() as recorder,
        _replaced("scaled_dot_product_attention", _attention_in_blocks(recorder)),
        _replaced("dropout", _dropout_of_a_device()),
    ):
        for tensor in known:
            recorder.know(tensor)
        result = function()
    found = Trace(recorder.events, recorder.draws, recorder.workspaces)
    del result
    return found


def peak_of(events: Iterable[Event]) -> int:
    """Most bytes that are there at once.

    Args:
        events: Of a trace.
    """
    sizes, now, most = dict[int, int](), 0, 0
    for event in events:
        if event.size:
            sizes[event.piece] = event.size
            now += event.size
            most = max(most, now)
        else:
            now -= sizes.pop(event.piece)
    return most


class _Attention(torch.autograd.Function):
    """Attention as a device computes it: in blocks, with a mask as numbers, kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:  # noqa: ANN401
        """Make the result, and the sums under the softmax in float32."""
        bias = query.new_empty(mask.shape) if mask is not None and mask.dtype == torch.bool else mask
        laid_out = query.transpose(-2, -3) if query.dim() == 4 else query  # tokens before heads, as on a device
        out = laid_out.new_empty(*laid_out.shape[:-1], value.shape[-1])
        out = out.transpose(-2, -3) if query.dim() == 4 else out
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums, *([] if bias is None else [bias]))
        return out

    @staticmethod
    def backward(ctx: Any, *_grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Make the three gradients; the first is added up in float32, with a number for each of the sums."""
        query, key, value, _, sums, *_ = ctx.saved_tensors
        made = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        workspace = sums.new_empty(*query.shape[:-1], query.shape[-1] + 1)
        del workspace  # not before the gradients are there
        return *made, None


def _attention_in_blocks(recorder: Recorder) -> Callable[..., Tensor]:
    """PyTorch's attention, taking what it takes on a device; without one it would take every score at once."""

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        **_: object,
    ) -> Tensor:
        """As PyTorch's own, in shapes."""
        recorder.draws |= dropout_p > 0
        dtype = torch.matmul(query[:0], key[:0].transpose(-1, -2)).dtype  # autocast's, where it is on
        out: Tensor = _Attention.apply(query.to(dtype), key.to(dtype), value.to(dtype), attn_mask)  # type: ignore[no-untyped-call]
        return out

    return attend


def _dropout_of_a_device() -> Callable[..., Tensor]:
    """PyTorch's dropout, keeping a mask of single bytes as on a device, and not of the rows' own type."""
    real = torch.nn.functional.dropout

    def drop(rows: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: FBT001, FBT002
        """As PyTorch's own."""
        if not training or not p or inplace:
            return real(rows, p, training, inplace)
        out: Tensor = torch.native_dropout(rows, p, training)[0]
        return out

    return drop


@contextmanager
def _replaced(name: str, function: Callable[..., Tensor]) -> Iterator[None]:
    """Let a function stand for one of PyTorch's."""
    real = getattr(torch.nn.functional, name)
    setattr(torch.nn.functional, name, function)
    try:
        yield
    finally:
        setattr(torch.nn.functional, name, real)
