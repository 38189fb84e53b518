"""What is found without memory is what the same code asks for with it."""

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from holdwater.train.finetune.fused.decoder import Inputs
from holdwater.train.finetune.model.lora import LoraConfig, add_adapters
from holdwater.train.finetune.planner import CachingAllocator
from holdwater.train.finetune.planner.autograd import replay
from holdwater.train.finetune.planner.meta_autocast import (
    ALIKE,
    EXACT,
    PRODUCTS,
    WIDENED,
    MetaAutocast,
    leave_positions,
)
from holdwater.train.finetune.planner.meta_trace import Event, trace
from holdwater.train.finetune.step.autograd import AutogradStep
from holdwater.train.finetune.step.quantized_linear import quantize_linear_layers
from holdwater.train.flat import FlatWeights
from tests.small_models import make_model

ROWS, LENGTH = 2, 16


def events_of(
    folder: Path, device: str, bits: int | None = None, *, again: bool = False, whole: bool = False
) -> list[Event]:
    """Those of a micro-batch; by all weights in float32 with narrower products, or by adapters."""
    import transformers

    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))
    if not whole:
        add_adapters(model, LoraConfig(rank=2))
    if bits is not None:
        quantize_linear_layers(model, bits, device)
    weights, tokens = FlatWeights.of(model), ROWS * LENGTH

    def zeros(dtype: torch.dtype, *size: int) -> torch.Tensor:
        """An input."""
        return torch.zeros(size, dtype=dtype, device=device)

    inputs = Inputs(
        zeros(torch.int64, tokens), zeros(torch.int64, tokens), zeros(torch.float32, tokens), zeros(torch.int64, 1),
        zeros(torch.int32, 2, tokens),
    )  # fmt: skip
    if whole and device == "meta":
        leave_positions(model)
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16, cache_enabled=False)
    narrow = None if not whole else MetaAutocast if device == "meta" else autocast
    own = AutogradStep(model, weights, length=LENGTH, narrow=narrow, again=again)
    known = [*model.parameters(), *model.buffers(), weights.decayed, weights.undecayed, *weights.grads]
    parts = (inputs.tokens, inputs.targets, inputs.weights, inputs.seed, inputs.spans)
    traced = trace(lambda: own.propagate(inputs, add=False), [*known, *parts])
    assert len(traced.workspaces) == 2, "one on the way there, one in the backward pass"
    return traced.events


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "GPT2"])
def test_the_same_is_asked_for_with_and_without_memory(tmp_path: Path, family: str, bits: int | None) -> None:
    """The same sizes, and everything is given back."""
    make_model(tmp_path, family)

    found, wanted = events_of(tmp_path, "meta", bits), events_of(tmp_path, "cpu", bits)

    if bits is None:  # on a CPU weights are made whole in several steps, on a device in one
        assert sum(event.size for event in found) == sum(event.size for event in wanted)
        assert len(found) == len(wanted)
    asked, given_back = (sum(bool(event.size) is kind for event in found) for kind in (True, False))
    assert asked == given_back > 100


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Olmo2"])
def test_narrower_products_ask_for_the_same_with_and_without_memory(
    tmp_path: Path, family: str, again: bool
) -> None:
    """All weights are trained, in layers whose operations a CPU's autocast and a CUDA device's treat alike."""
    make_model(tmp_path, family)

    found, wanted = (events_of(tmp_path, device, whole=True, again=again) for device in ("meta", "cpu"))

    assert most(found) == pytest.approx(most(wanted), rel=0.01)
    assert sum(event.size for event in found) == pytest.approx(sum(event.size for event in wanted), rel=0.01)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda x: x @ x, torch.bfloat16),
        (lambda x: torch.addmm(x, x, x), torch.bfloat16),
        (lambda x: torch.nn.functional.linear(x, x.bfloat16()), torch.bfloat16),
        (lambda x: (x @ x) + x, torch.float32),
        (lambda x: (x @ x) * 2, torch.bfloat16),
        (lambda x: (x @ x) ** 2, torch.float32),
        (lambda x: 1 / (x @ x), torch.float32),
        (lambda x: (x @ x).softmax(-1), torch.float32),
        (lambda x: (x @ x).sum(), torch.float32),
        (lambda x: torch.nn.functional.layer_norm(x @ x, (4,)), torch.float32),
        (lambda x: torch.nn.functional.silu(x @ x), torch.bfloat16),
        (lambda x: torch.einsum("ij,jk->ik", x, x), torch.bfloat16),
        (lambda x: torch.softmax(x @ x, -1, torch.float32), torch.float32),
        (lambda x: torch.softmax(input=x @ x, dim=-1), torch.float32),
        (lambda x: (x @ x).sum(dtype=torch.bfloat16), torch.bfloat16),
        (lambda x: torch.linalg.vector_norm(x @ x), torch.float32),
        (lambda x: torch.tensordot(x @ x, x, 1), torch.float32),
    ],
)
def test_types_are_those_of_a_devices_autocast(
    made: Callable[[torch.Tensor], torch.Tensor], kind: torch.dtype
) -> None:
    """As PyTorch's own lists have them."""
    with MetaAutocast():
        assert made(torch.empty(4, 4, device="meta")).dtype == kind


def test_the_lists_are_pytorchs() -> None:
    """Every operation of a CUDA device's autocast that a call can name; pictures are left out."""
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    if not header.exists():
        pytest.skip("this PyTorch has no headers")
    text = header.read_text(encoding="utf-8").replace("\\\n", " ")
    lists = {
        "LOWER_PRECISION_FP": PRODUCTS,
        "FP32": EXACT,
        "FP32_SET_OPT_DTYPE": WIDENED,
        "DIFFERENT_REDISPATCH_SIGNATURE": WIDENED,
        "PROMOTE": ALIKE,
    }
    for macro, ours in lists.items():
        found = re.search(rf"#define AT_FORALL_{macro}\(_\)(.*)", text)
        assert found is not None
        named = set(re.findall(r"_\((?:ADD_NS\()?(\w+)", found[1]))
        named = {name for name in named if not name.startswith("_") and "upsample" not in name}
        assert len(named) > (0 if macro.startswith("DIFF") else 5)
        assert named - {"nll_loss2d"} <= ours


def most(events: list[Event]) -> int:
    """Bytes that were there at once, at the most."""
    sizes: dict[int, int] = {}
    now = highest = 0
    for event in events:
        now += event.size or -sizes[event.piece]
        sizes[event.piece] = event.size
        highest = max(highest, now)
    return highest


def test_layers_that_are_computed_again_keep_less(tmp_path: Path) -> None:
    """Of a model whose steps are not fused."""
    make_model(tmp_path, "Olmo2", layers=8)

    kept, again = (events_of(tmp_path, "meta", None, again=again) for again in (False, True))

    assert most(again) < 0.5 * most(kept)


def test_dropout_keeps_a_byte_for_each_number() -> None:
    """As a device's does; on a CPU it would keep noise in the rows' own type."""
    rows = torch.empty(8, 64, dtype=torch.float32, device="meta", requires_grad=True)

    found = trace(lambda: torch.nn.functional.dropout(rows, 0.5), [rows])

    assert sorted(event.size for event in found.events if event.size) == [8 * 64, 4 * 8 * 64]
    assert found.draws


def test_ignores_dropout_that_is_off() -> None:
    """Nothing is kept for it."""
    rows = torch.empty(8, 64, device="meta", requires_grad=True)

    found = trace(lambda: torch.nn.functional.dropout(rows, 0.5, training=False), [rows])

    assert [event.size for event in found.events if event.size] == []
    assert not found.draws


class Kept(torch.autograd.Function):
    """Rows times three; what autograd is told about them is kept."""

    gradients: ClassVar[list[torch.Tensor]] = []

    @staticmethod
    def forward(_ctx: object, rows: torch.Tensor) -> torch.Tensor:
        """Of the rows."""
        return rows * 3

    @staticmethod
    def backward(_ctx: object, *grads: torch.Tensor) -> torch.Tensor:
        """Their gradient."""
        found = grads[0] * 3
        Kept.gradients.append(found)
        return found


@pytest.mark.parametrize("kept", [False, True])
def test_gradients_are_added_up_in_the_first_ones_memory(kept: bool) -> None:
    """As autograd does when no mode looks on; not where something else keeps that gradient."""
    rows = torch.empty(8, 8, device="meta", requires_grad=True)

    def there_and_back() -> None:
        """The same numbers go two ways, whose gradients are added up."""
        twice = rows * 2
        one, other = (Kept.apply(twice) if kept else twice * 3 for _ in range(2))  # type: ignore[no-untyped-call]
        (one + other).sum().backward()

    found = trace(there_and_back, [rows])
    Kept.gradients.clear()

    there, back = 4, 3  # doubled, three times that, again, their sum; two gradients, half of their sum
    assert sum(event.size == rows.nbytes for event in found.events) == there + back + kept


def test_a_gradient_that_is_one_number_everywhere_is_not_added_to() -> None:
    """The sum's gradient is expanded: it has no memory for each of its numbers, and a device makes some."""
    rows = torch.empty(8, 8, device="meta", requires_grad=True)

    def there_and_back() -> None:
        """The gradient of the sum comes first, that of the product is added to it."""
        twice = rows * 2
        product = (twice * 3).sum()
        (product + twice.sum()).backward()  # type: ignore[no-untyped-call]

    found = trace(there_and_back, [rows])

    there, back = 2, 3  # doubled, three times that; three times a number, the sum of both, half of that
    assert sum(event.size == rows.nbytes for event in found.events) == there + back


@pytest.mark.parametrize("again", [False, True])
def test_gradients_that_are_derived_once_more_are_not_added_to(again: bool) -> None:
    """Autograd leaves all of them as they are then."""
    rows = torch.empty(8, 8, device="meta", requires_grad=True)

    def there_and_back() -> object:
        """The same numbers go two ways, whose gradients are added up."""
        twice = rows * 2
        return torch.autograd.grad((twice * 3 + twice * 3).sum(), rows, create_graph=again)

    found = trace(there_and_back, [rows])

    there, back = 4, 3
    assert sum(event.size == rows.nbytes for event in found.events) == there + back + again


class Spread(torch.autograd.Function):
    """Rows times three, whose gradient is given as one number in all places, or as a number in each."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, in_each: bool) -> torch.Tensor:
        """Of the rows."""
        ctx.in_each = in_each
        return rows * 3

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Their gradient."""
        one = grads[0].new_empty(1, 1).expand(grads[0].shape)
        return one.contiguous() if ctx.in_each else one, None


@pytest.mark.parametrize("in_each", [False, True])
def test_only_what_has_memory_for_each_number_is_added_to(in_each: bool) -> None:
    """Nothing else refers to that gradient in either case, and it comes first."""
    rows = torch.empty(8, 8, device="meta", requires_grad=True)

    def there_and_back() -> None:
        """The same numbers go two ways, whose gradients are added up."""
        twice = rows * 2
        one = twice * 3
        other = Spread.apply(twice, in_each)  # type: ignore[no-untyped-call]
        (one + other).sum().backward()

    found = trace(there_and_back, [rows])

    there, back = (
        4,
        3,
    )  # doubled, three times that, again, their sum; one gradient, another or their sum, half of it
    assert sum(event.size == rows.nbytes for event in found.events) == there + back


@pytest.mark.parametrize("shape", [(2, 16, 8), (2, 4, 16, 8)])
def test_attention_of_any_shape(shape: tuple[int, ...]) -> None:
    """With heads and without."""
    query, key, value = (torch.empty(shape, device="meta", requires_grad=True) for _ in range(3))

    def there_and_back() -> None:
        """Attention."""
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        out.backward(torch.empty_like(out))  # type: ignore[no-untyped-call]

    found = trace(there_and_back, [query, key, value])

    assert sum(event.size == query.nbytes for event in found.events) == 1 + 1 + 3


def test_attention_on_the_way_back_adds_up_in_float32() -> None:
    """Beside the gradients: what a device's kernels take for those of the queries, in one piece."""
    shape = (2, 16, 4, 8)  # rows, tokens, heads, width: as projections lay them out
    query, key, value = (
        torch.empty(shape, dtype=torch.bfloat16, device="meta").transpose(1, 2).requires_grad_() for _ in range(3)
    )

    def there_and_back() -> None:
        """Attention, back in the layout of projections, which is a view of it."""
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        above = torch.empty(shape, dtype=torch.bfloat16, device="meta")
        out.transpose(1, 2).contiguous().backward(above)  # type: ignore[no-untyped-call]

    found = trace(there_and_back, [query, key, value])

    numbers = 2 * 4 * 16
    sizes = Counter(event.size for event in found.events if event.size)
    assert sizes[numbers * (8 + 1) * 4] == 1
    assert sizes[numbers * 4] == 1, "the sums under the softmax, kept for the backward pass"
    assert sizes[numbers * 8 * 2] == 1 + 1 + 3, "the result, the gradient that comes in, three that go out"


def test_a_workspace_comes_with_the_first_product_of_each_way() -> None:
    """And with no other: after what that product has made, on the way there and back."""
    rows = torch.empty(8, 8, device="meta", requires_grad=True)
    made: list[int] = []

    def there_and_back() -> None:
        """Three products there; what they have asked for until then lies between the two workspaces."""
        total = ((rows + 1) @ rows @ rows @ rows).sum()
        made.append(1)
        total.backward()  # type: ignore[no-untyped-call]

    found = trace(there_and_back, [rows])
    asked = [number for number, event in enumerate(found.events) if event.size]

    assert made == [1]
    assert found.workspaces[0] == asked[1] + 1, "behind rows + 1 and the first product"
    assert len(found.workspaces) == 2
    assert found.workspaces[1] > asked[4], "behind the sum, in the backward pass"


def test_a_workspace_keeps_its_segment() -> None:
    """It is taken out of what a step has just given back, and the rest of that stays with it."""
    large, small = Event(0, 512 << 20), Event(1, 64 << 20)
    events = [large, Event(0, 0), small, Event(1, 0)]
    reserved = []
    for workspaces in ([], [2]):
        allocator = CachingAllocator()
        at_peak = replay(allocator, events, workspaces)
        allocator.empty_cache()
        reserved.append(allocator.reserved)
        assert at_peak == [large]

    assert reserved == [0, 512 << 20]


def test_what_stands_for_a_device_is_away_afterwards() -> None:
    """Attention and dropout are PyTorch's own again, whatever happens in between."""
    own = torch.nn.functional
    before = own.scaled_dot_product_attention, own.dropout

    def fail() -> None:
        """Go wrong."""
        message = "on purpose"
        raise ValueError(message)

    with pytest.raises(ValueError, match="on purpose"):
        trace(fail, [])

    assert (own.scaled_dot_product_attention, own.dropout) == before
