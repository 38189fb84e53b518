"""What is looked into before it is a finding."""

import pytest

from holdwater.budget import Budget, Budgets
from holdwater.detectors.judge import JudgeConfig, judge
from holdwater.detectors.judgement import Judgement
from holdwater.probes.sample import Look, Sample
from holdwater.timeline.timeline import Timeline
from holdwater.units import Bytes, Step

ROUND = 45
"""Steps between two rises."""


def of_files(*, mapped: int, steps: int = 500) -> Judgement:
    """A run that reads 16 MB of mapped files every 45 steps, and maps so much more each time."""
    timeline = Timeline()
    for step in range(1, steps + 1):
        rounds = step // ROUND
        look = Look(
            heap_in_use=Bytes(50_000_000),
            file=Bytes(50_000_000 + 16_000_000 * rounds),
            virtual=Bytes(10**9 + mapped * rounds),
        )
        timeline.append(Sample(Step(step), 0.1 * step, Bytes(300_000_000 + 16_000_000 * rounds), None, look))
    return judge(timeline.buckets(), Budgets(Budget(Bytes(10**10), "given", "")), config=JudgeConfig())


def test_looks_into_ever_more_mappings_before_they_are_a_leak() -> None:
    """Objects are counted while rounds are still to come, and the window knows how far apart these are."""
    judgement = of_files(mapped=16_000_000)

    assert judgement.suspicious
    assert judgement.verdict.kind != "leak"
    assert judgement.suspect is not None
    assert judgement.suspect.component == "host.file"
    assert judgement.suspect.rate is not None
    assert judgement.suspect.rate.every_steps == ROUND


@pytest.mark.parametrize("mapped", [0, 1_000_000])
def test_does_not_look_into_a_corpus_that_is_read_once(mapped: int) -> None:
    """Its pages become resident, its mapping was there before; libraries add a little address space."""
    judgement = of_files(mapped=mapped)

    assert not judgement.suspicious
    assert judgement.suspect is None
