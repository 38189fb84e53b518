"""The plan of a run on pictures: of the device and of the host, as its settings are, or the largest that fit."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from holdwater.errors import NothingFits
from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.planner.allocator import NOTHING
from holdwater.train.finetune.planner.fused import Choice, told_rows
from holdwater.train.finetune.planner.largest import largest_batch, longest_rows
from holdwater.train.finetune.planner.peak import Peak, margin_of
from holdwater.train.finetune.planner.plan import choose_settings
from holdwater.train.finetune.vision.planning.device import VisionPlanned, read_picture_sizes, vision_planned_of
from holdwater.train.finetune.vision.planning.host import HostPeak, plan_host
from holdwater.train.settings import TrainSettings, TuneSettings
from holdwater.units import Bytes, format_size

Search = Literal["train_seq_length", "batch_size"]
HOST_MARGIN = 0.05
"""Share of a plan of the host's memory that is kept free."""


@dataclass(frozen=True, slots=True)
class PictureRun:
    """A plan of a run on pictures."""

    settings: TrainSettings
    """That are planned for."""
    choice: Choice
    """How steps are taken, and what that takes of the memory in which tensors live."""
    host: HostPeak
    """What it takes of the host's memory."""
    parameters: int
    """Weights that are trained."""
    pictures: str
    """The sizes of its pictures, for people."""
    facts: dict[str, int]
    """The same, as numbers."""


def plan_pictures(
    settings: TrainSettings, tuning: TuneSettings, *, limit: Bytes | None, search: Search | None, device: str
) -> PictureRun:
    """Plan a run on pictures.

    On the CPU nothing is searched for: there the memory of steps is the host's.

    Args:
        settings: Of the run.
        tuning: Of the run.
        limit: What the process may take of the memory in which tensors live; None sets no limit.
        search: Of which setting the largest value that fits is looked for; None takes it as it is.
        device: `cuda`, or `cpu`.

    Raises:
        NothingFits: None do.
        NotPlanned: The model does not run on the meta device.
    """
    if limit is None or search is None:
        planned = vision_planned_of(settings, tuning)
        choose = partial(_on_cpu, settings, tuning) if device == "cpu" else choose_settings
        return _run(planned, settings, tuning, choose(planned, rows=settings.batch_size, limit=limit), device)
    if search == "batch_size":
        planned = vision_planned_of(settings, tuning)
        size, choice = largest_batch(planned, limit)
        return _run(planned, replace(settings, batch_size=size), tuning, choice, device)
    sizes = read_picture_sizes(settings, tuning)
    build = partial(vision_planned_of, sizes=sizes)
    size, choice = longest_rows(settings, tuning, limit, build=build)
    if sizes is not None and size < sizes.in_example:
        raise NothingFits(
            f"rows of at most {size:,} tokens fit, but the pictures of one example have {sizes.in_example:,}; "
            "use a smaller --max-pixels, or more memory"
        )
    settings = replace(settings, train_seq_length=size)
    return _run(build(settings, tuning), settings, tuning, choice, device)


def _run(
    planned: VisionPlanned, settings: TrainSettings, tuning: TuneSettings, choice: Choice, device: str
) -> PictureRun:
    """Add the host's memory and the sizes of pictures to what was chosen."""
    sizes = planned.sizes
    facts = {
        "examples": len(sizes.tokens), "count": sizes.count,
        "largest_patches": sizes.largest.patches, "largest_tokens": sizes.largest.tokens,
        "median_patches": sizes.median.patches, "median_tokens": sizes.median.tokens,
    }  # fmt: skip
    host = plan_host(planned, settings, tuning, device=device)
    told = sizes.told(length=settings.train_seq_length)
    return PictureRun(settings, choice, host, planned.parameters, told, facts)


def _on_cpu(
    settings: TrainSettings, tuning: TuneSettings, planned: VisionPlanned, *, rows: int, limit: Bytes | None
) -> Choice:
    """The plan of steps on the CPU, all of which lie in the host's memory."""
    host = plan_host(planned, settings, tuning, device="cpu")
    peak = Peak(host.roles, host.total, NOTHING, margin_of(host.total, HOST_MARGIN))
    if limit is not None and peak.needed > limit:
        raise NothingFits(
            f"max_memory is {format_size(limit)}, but such a run takes {format_size(peak.needed)}, "
            f"{format_size(peak.margin)} of it a margin; use a smaller --batch-size or --max-pixels"
        )
    how = told_rows(rows, planned.length, rows)
    return Choice(StepPlan(rows=rows), peak, f"{how}, eagerly on the CPU")
