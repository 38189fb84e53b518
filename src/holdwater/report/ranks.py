"""Read all ranks of a distributed run, and choose the worst."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdwater.detectors.verdict import GRAVITY
from holdwater.errors import StoreError
from holdwater.store.history import History, read_history


@dataclass(frozen=True, slots=True)
class RankTable:
    """The ranks of a run, as far as they can be read."""

    verdicts: dict[int, str]
    """Verdicts by rank; `unknown` if there is none yet."""
    worst: int
    """The rank with the most severe verdict; of several the one whose budget is spent first."""
    history: History
    """The worst rank's."""

    def in_words(self) -> str:
        """Which rank is shown, and the verdicts of the others; empty for a run of one process."""
        if len(self.verdicts) == 1:
            return ""
        others: dict[str, list[str]] = {}
        for rank, verdict in self.verdicts.items():
            if rank != self.worst:
                others.setdefault(verdict, []).append(str(rank))
        rest = "; ".join(f"{verdict}: rank {', '.join(ranks)}" for verdict, ranks in others.items())
        return f"This is rank {self.worst} of {len(self.verdicts)}, the worst. The others: {rest}."


def read_ranks(folder: Path) -> RankTable:
    """Read all ranks of a run, and choose the worst.

    Args:
        folder: The run's.

    Raises:
        StoreError: There is no run, or none of its ranks can be read.
    """
    names = sorted(folder.glob("rank-*.db"), key=lambda path: int(path.stem.partition("-")[2]))
    ranks = [int(path.stem.partition("-")[2]) for path in names]
    histories: dict[int, History] = {}
    failures: list[StoreError] = []
    for rank in ranks:
        try:
            histories[rank] = read_history(folder, rank=rank)
        except StoreError as error:
            failures.append(error)
    if not histories and failures:
        raise failures[0]
    if not histories:
        raise StoreError(
            f"{folder} is not the folder of a run: it has no rank-0.db; name the folder that the run was given"
        )
    worst = min(histories, key=lambda rank: (*_gravity(histories[rank].summary), rank))
    verdicts = {rank: _verdict(history.summary) for rank, history in histories.items()}
    return RankTable(verdicts, worst, histories[worst])


def _verdict(summary: dict[str, Any] | None) -> str:
    """The verdict of a rank."""
    return "unknown" if summary is None else str(summary["verdict"])


def _gravity(summary: dict[str, Any] | None) -> tuple[int, float]:
    """The sort key of a rank: severity of its verdict, then when its budget is spent; smaller is worse."""
    order: list[str] = list(GRAVITY)
    verdict = _verdict(summary)
    findings = [] if summary is None else summary["findings"]
    forecasts = [finding["forecast"] for finding in findings if finding.get("forecast")]
    spent = min((float(one["steps"]) for one in forecasts if "limit_bytes" in one), default=float("inf"))
    return order.index(verdict), spent
