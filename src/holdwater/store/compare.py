"""Compare two runs checkpoint by checkpoint, tensor by tensor, bit by bit."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, deserialize

from holdwater.errors import CheckpointError
from holdwater.store.checkpoints import read_checkpoint

RANDOM = "random.safetensors"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference of two runs."""

    step: int
    what: str
    """The file and the tensor, or the key of the manifest."""
    how: str


@dataclass(frozen=True, slots=True)
class StateComparison:
    """The result of comparing two runs."""

    steps: tuple[int, ...]
    """The steps whose checkpoints were compared."""
    tensors: int
    """Number of tensors in all of them together."""
    difference: Difference | None
    """The first difference; None if all agree to the bit."""
    unseeded: tuple[str, ...] = ()
    """Random states that differ before the first step, since they are not seeded: they are left out."""


def compare_runs(one: Path, other: Path) -> StateComparison:
    """Compare the checkpoints that two runs have of the same steps.

    Args:
        one: The folder of a run.
        other: The folder of another.

    Returns:
        What was compared, and the first difference.

    Raises:
        CheckpointError: They have no checkpoint of the same step, or one is damaged.
    """
    places = [{path.name: path for path in (run / "checkpoints").glob("step-*")} for run in (one, other)]
    names = sorted(places[0].keys() & places[1].keys())
    if not names:
        raise CheckpointError(f"{one} and {other} have no checkpoint of the same step to compare")
    steps, tensors = [], 0
    unseeded = _unseeded(*(place[names[0]] for place in places))
    for name in names:
        first, second = (read_checkpoint(place[name]) for place in places)
        steps.append(first.step)
        count, difference = _compare(first.step, first.folder, second.folder, unseeded)
        tensors += count
        states = [
            {key: value for key, value in point.state.items() if key != "exactness"} for point in (first, second)
        ]
        if difference is None and states[0] != states[1]:
            key = next(key for key in states[0] if states[0][key] != states[1].get(key))
            difference = Difference(first.step, f"manifest.json: {key}", "the values differ")
        if difference is not None:
            return StateComparison(tuple(steps), tensors, difference, unseeded)
    return StateComparison(tuple(steps), tensors, None, unseeded)


def _unseeded(one: Path, other: Path) -> tuple[str, ...]:
    """The random states that differ before the first step."""
    if not one.name.endswith("-00000000") or not all((folder / RANDOM).exists() for folder in (one, other)):
        return ()
    mine, theirs = (_tensors(folder / RANDOM) for folder in (one, other))
    return tuple(name for name in sorted(mine) if mine[name] != theirs.get(name))


def _compare(step: int, one: Path, other: Path, left_out: tuple[str, ...]) -> tuple[int, Difference | None]:
    """Compare the tensors of two checkpoints; return how many there are, and the first difference."""
    files = [{path.name: path for path in folder.glob("*.safetensors")} for folder in (one, other)]
    if files[0].keys() != files[1].keys():
        names = ", ".join(sorted(files[0].keys() ^ files[1].keys()))
        return 0, Difference(step, names, "only one of the two has it")
    count = 0
    for name in sorted(files[0]):
        mine, theirs = (_tensors(place[name]) for place in files)
        for tensor in sorted(mine.keys() | theirs.keys()):
            if name == RANDOM and tensor in left_out:
                continue
            count += 1
            how = _how(mine.get(tensor), theirs.get(tensor))
            if how:
                return count, Difference(step, f"{name}: {tensor}", how)
    return count, None


def _tensors(file: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of each tensor of a file."""
    try:
        rows = deserialize(file.read_bytes())  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    return {name: (row["dtype"], tuple(row["shape"]), bytes(row["data"])) for name, row in rows}


def _how(
    mine: tuple[str, tuple[int, ...], bytes] | None, theirs: tuple[str, tuple[int, ...], bytes] | None
) -> str:
    """How two tensors differ; empty if they do not."""
    if mine is None or theirs is None:
        return "only one of the two runs has it"
    if mine[:2] != theirs[:2]:
        return f"{mine[0]} {mine[1]} against {theirs[0]} {theirs[1]}"
    if mine[2] == theirs[2]:
        return ""
    differing = sum(a != b for a, b in zip(mine[2], theirs[2], strict=True))
    return f"{differing:,} of {len(mine[2]):,} bytes differ"
