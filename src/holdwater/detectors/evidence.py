"""Evidence on a run beyond its curves: counts of live objects, experiments, and rows that its loaders read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdwater.probes.mappings import Kind, Touched


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a process held at one step, by kind, in bytes."""

    step: int
    in_use: float
    """Heap in use then; resident memory if the heap is not known."""
    tensors: int
    bulk: int
    """Arrays, strings and byte strings of a kilobyte or more."""
    gained_python: int
    """What containers gained since the previous count, in smaller Python objects."""
    datasets: int
    """Held by the datasets that loaders iterate."""
    room: int | None
    """What growing containers with a maximum length can still take; None if one has no maximum."""
    python_blocks: float | None = None
    library_pages: float = 0.0
    """Private pages of libraries and stacks, written to when they were loaded."""
    later: float | None = None
    """As `in_use`, when datasets were measured: a count takes some steps, and they come last."""
    graph_pools: float | None = None
    """What live CUDA graphs keep in private pools; None if unknown."""
    buffer_cache: float | None = None
    """Freed buffers that MLX keeps for reuse; None for other frameworks."""
    generation: tuple[int, int] | None = None
    """The first and the last possible step of a generation of tokens that was running; None if none was."""
    new_datasets: int = 0
    """Held by datasets that were not iterated yet at the previous count: these are more data."""
    device_in_heap: bool = False
    """Whether the arrays that are counted as a device's are in the heap: MLX's without a device."""

    def has_let_go_of(self, earlier: "Holdings") -> bool:
        """Whether a count after the script's end no longer sees what was held while it ran.

        Args:
            earlier: The previous count: functions whose variables it saw may have returned since.
        """
        held, now = earlier.tensors + earlier.bulk, self.tensors + self.bulk
        return self.in_use < earlier.in_use or now < 0.5 * held


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a collection and a trim freed."""

    step: int
    collected: float
    """Bytes of garbage that a collection freed."""
    collected_tensors: float
    """The tensors among it."""
    trimmed: float
    """Bytes that malloc returned to the system."""
    collector_on: bool
    """Whether Python's collector runs by itself."""
    at_end: bool = False
    """Whether the script had ended: what its functions held until they returned may have become garbage."""


@dataclass(frozen=True, slots=True)
class WorkerGain:
    """What a loader worker gained between two of its counts."""

    batches: int
    """Batches that it made meanwhile."""
    in_dataset: int
    """Bytes that its dataset gained."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All evidence, oldest first."""

    holdings: tuple[Holdings, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    samples_total: int = 0
    """Rows of the datasets that loaders iterate; 0 if unknown."""
    files: tuple[Touched, ...] = ()
    """What became resident of mapped files since each earlier reading of the regions, the oldest first."""
    private: tuple[Touched, ...] = ()
    """The same of private memory."""
    worker_rows: int = 0
    """First visits of rows that the loader workers can make, all together; 0 if unknown."""
    worker_gains: tuple[WorkerGain, ...] = ()
    """What loader workers gained, the newest first."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Evidence":
        """Read what `dataclasses.asdict` has written."""
        return cls(
            tuple(Holdings(**held) for held in stored.get("holdings", ())),
            tuple(Experiment(**test) for test in stored.get("experiments", ())),
            int(stored.get("samples_total", 0)),
            tuple(Touched(**one) for one in stored.get("files", ())),
            tuple(Touched(**one) for one in stored.get("private", ())),
            int(stored.get("worker_rows", 0)),
            tuple(WorkerGain(**one) for one in stored.get("worker_gains", ())),
        )

    def with_answer(
        self, answer: Mapping[str, Any], *, samples_total: int, library_pages: float = 0.0
    ) -> "Evidence":
        """Add a process's answer to a question."""
        holdings, experiments = self.holdings, self.experiments
        before = answer.get("before", {})
        if "census" in answer:
            census = answer["census"]
            held = Holdings(
                step=answer["step"],
                in_use=before.get("heap_in_use", before.get("resident", 0.0)),
                tensors=census["tensors"],
                bulk=census["bulk"],
                gained_python=census["gained"]["python"],
                datasets=census["datasets"],
                new_datasets=census.get("new_datasets", 0),
                room=census["room"],
                python_blocks=before.get("python_blocks"),
                library_pages=library_pages,
                later=before.get("later"),
                graph_pools=before.get("graph_pools"),
                generation=_steps_of(census.get("generation"), answer["step"]),
                buffer_cache=before.get("buffer_cache"),
                device_in_heap=bool(before.get("device_in_heap")),
            )
            let_go = census.get("at_end", False) and bool(holdings) and held.has_let_go_of(holdings[-1])
            holdings += () if let_go else (held,)
        if "experiment" in answer:
            found = answer["experiment"]
            experiments += (
                Experiment(
                    step=answer["step"],
                    collected=found["collected"],
                    collected_tensors=found["collected_tensors"],
                    trimmed=found["trimmed"],
                    collector_on=found["gc_enabled"],
                    at_end=bool(answer.get("at_end")),
                ),
            )
        return replace(
            self, holdings=holdings[-MOST:], experiments=experiments[-MOST:], samples_total=samples_total
        )

    def with_regions(self, files: tuple[Touched, ...], private: tuple[Touched, ...]) -> "Evidence":
        """Add what became resident within regions that had been mapped before."""
        return replace(self, files=files, private=private)

    def with_workers(self, rows: int, gains: tuple[WorkerGain, ...]) -> "Evidence":
        """Replace what is known of loader workers.

        Args:
            rows: First visits that they can make, all together.
            gains: What they gained, the newest first.
        """
        return replace(self, worker_rows=rows, worker_gains=gains)

    def touched_since(self, kind: Kind, onset: int) -> Touched | None:
        """What became resident since about the onset of a growth; None if the regions were not read twice.

        Args:
            kind: Of mapped files, or of private memory.
            onset: The step at which the growth began.
        """
        readings = self.files if kind == "file" else self.private
        before = [one for one in readings if one.since_step <= onset]
        return before[-1] if before else readings[0] if readings else None


def _steps_of(generation: Sequence[int] | None, step: int) -> tuple[int, int] | None:
    """The first and the last possible step of a generation, of its tokens so far and at most."""
    if generation is None:
        return None
    so_far, most = generation
    return step - so_far, step + most - so_far


MOST = 16
"""Most counts and experiments that are kept."""
NO_EVIDENCE = Evidence()
