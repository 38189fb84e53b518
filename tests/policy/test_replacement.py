"""Whether and when a process is replaced: one decider for the guard, for scripts and for the supervisor."""

from holdwater.budget import Budget, Budgets
from holdwater.detectors.headroom import CALM
from holdwater.policy.approach import Approaches
from holdwater.policy.replacement import FEWEST_STEPS, Replacement, ReplacementConfig
from holdwater.probes.sample import Sample
from holdwater.units import Bytes, Step

MB = 1_000_000
BUDGETS = Budgets(Budget(Bytes(1000 * MB), "given", "given"))


def sample(step: int, megabytes: int) -> Sample:
    """What one step has found."""
    return Sample(Step(step), float(step), Bytes(megabytes * MB), None)


def begun(step: int = 100, *, possible: bool = True, **config: int) -> Replacement:
    """Of a process that continued from a step with 300 MB."""
    replacement = Replacement(ReplacementConfig(**config), Approaches(), possible=possible)
    replacement.begin(sample(step, 300))
    return replacement


def reason(replacement: Replacement, step: int, megabytes: int) -> str:
    """Why it is replaced after a step."""
    return replacement.reason(CALM, sample(step, megabytes), BUDGETS, released=False)


class TestReplacement:
    """By steps of this process, or by what it holds."""

    def test_is_due_so_many_steps_after_the_process_began(self) -> None:
        """Not after so many steps of the run."""
        replacement = begun(100, reload_interval=40)

        assert replacement.due_at == 140
        assert replacement.by_steps(139) == ""
        assert replacement.by_steps(140) == "every 40 steps, as configured"
        assert reason(replacement, 140, 300) == "every 40 steps, as configured"

    def test_is_never_due_where_it_is_not_possible_or_not_asked_for(self) -> None:
        """Nobody would start the next process."""
        assert begun(reload_interval=40, possible=False).due_at is None
        assert begun().due_at is None
        assert Replacement(ReplacementConfig(reload_interval=40), Approaches(), possible=True).due_at is None

    def test_a_threshold_counts_once_a_process_has_made_ten_steps(self) -> None:
        """Before that its memory says little."""
        replacement = begun(100, reload_threshold=400 * MB)

        assert reason(replacement, 100 + FEWEST_STEPS - 1, 500) == ""
        assert reason(replacement, 100 + FEWEST_STEPS, 500) == "memory in use is 500 MB, above 400 MB"

    def test_a_threshold_is_no_reason_where_a_fresh_process_would_hold_as_much(self) -> None:
        """It holds hardly more than at its beginning."""
        assert reason(begun(100, reload_threshold=200 * MB), 150, 320) == ""

    def test_is_configured_by_either_setting(self) -> None:
        """Then a weight server pays, and a script that cannot be replaced is worth a warning."""
        assert ReplacementConfig(reload_interval=1).is_configured
        assert ReplacementConfig(reload_threshold=1).is_configured
        assert not ReplacementConfig().is_configured
