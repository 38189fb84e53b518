"""When a process is replaced by a fresh one, and what follows when one has ended."""

from typing import Any

import pytest

from holdwater.budget import Budget, Budgets
from holdwater.detectors.headroom import HeadroomConfig, judge_headroom
from holdwater.errors import ConfigError
from holdwater.policy.decision import RELEASE
from holdwater.policy.remedies import Remedies, RemedyConfig
from holdwater.policy.replacement import ReplacementConfig
from holdwater.policy.restarts import End, RestartConfig, Restarts, describe, relieved
from holdwater.probes.sample import Look, Sample
from holdwater.units import Bytes, Step

MB = 1_000_000
BUDGETS = Budgets(Budget(Bytes(1000 * MB), "given", "given"))
LEVELS = HeadroomConfig(waiting_below=Bytes(200 * MB), stopping_below=Bytes(100 * MB))


def sample(step: int, megabytes: float, *, available: int = 10_000) -> Sample:
    """What one step has found."""
    return Sample(Step(step), float(step), Bytes(int(megabytes * MB)), None, Look(available=Bytes(available * MB)))


def steps_until_recycled(
    rate: float, *, begin: float = 300, available: int = 10_000, steps: int = 400, **config: Any
) -> int | None:
    """The step after which a growing process is replaced; None where it is not."""
    remedies = Remedies(RemedyConfig(can_recycle=True, replacement=ReplacementConfig(**config)))
    remedies.begin(sample(0, begin))
    for step in range(1, steps + 1):
        seen = sample(step, begin + rate * step, available=available)
        headroom = judge_headroom(seen, BUDGETS, LEVELS)
        decisions = remedies.answer(headroom, seen, BUDGETS)
        if any(decision.action == "recycle" for decision in decisions):
            return step
    return None


class TestRecycling:
    """By steps, above a threshold, before the budget is spent; never without need."""

    def test_before_the_budget_is_spent(self) -> None:
        """10 MB a step from 300 MB: the budget of 1 GB would be spent at step 70."""
        step = steps_until_recycled(10)

        assert step is not None
        assert 60 <= step < 70

    def test_not_while_memory_stays(self) -> None:
        """At 90 % of the budget, from its first steps on."""
        assert steps_until_recycled(0, begin=900) is None

    def test_every_so_many_steps(self) -> None:
        """Exactly."""
        assert steps_until_recycled(0, reload_interval=40) == 40

    def test_above_a_threshold_that_a_fresh_process_would_be_under(self) -> None:
        """Growth of 1 MB a step, threshold 400 MB."""
        assert steps_until_recycled(1, reload_threshold=400 * MB) == 101
        assert steps_until_recycled(0, begin=500, reload_threshold=400 * MB) is None

    def test_a_machine_that_others_have_filled_makes_the_run_stop_instead(self) -> None:
        """A fresh process would find the same."""
        assert steps_until_recycled(1, available=50) is None

    def test_where_releasing_did_not_help(self) -> None:
        """From 300 MB to 1,100 at once: first all is released; if it is still over the budget, a fresh process."""
        remedies = Remedies(RemedyConfig(can_recycle=True))
        remedies.begin(sample(0, 300))

        answers = [
            remedies.answer(judge_headroom(seen, BUDGETS, LEVELS), seen, BUDGETS)
            for seen in (sample(20, 1100), sample(21, 1100))
        ]

        assert [answer[0].action for answer in answers] == [RELEASE[0], "recycle"]
        assert (
            answers[1][0].reason
            == "resident memory is 1.10 GB, over the budget of 1.00 GB, and releasing did not help"
        )

    @pytest.mark.parametrize(("megabytes", "action"), [(1090, "stop"), (1110, "recycle")])
    def test_not_where_a_fresh_process_would_hold_as_much(self, megabytes: int, action: str) -> None:
        """It began with 1,000 MB: less than a tenth more is no reason, so the run stops."""
        remedies = Remedies(RemedyConfig(can_recycle=True))
        budgets = Budgets(Budget(Bytes(1050 * MB), "given", "given"))
        remedies.begin(sample(0, 1000))

        answers = [
            remedies.answer(judge_headroom(seen, budgets, LEVELS), seen, budgets)
            for seen in (sample(20, megabytes), sample(21, megabytes))
        ]

        assert answers[-1][0].action == action

    @pytest.mark.parametrize(("step", "expected"), [(9, None), (10, 10)])
    def test_not_in_its_first_steps(self, step: int, expected: int | None) -> None:
        """It would be replaced again and again."""
        assert steps_until_recycled(50, steps=step, reload_threshold=400 * MB) == expected

    def test_never_where_nobody_starts_another(self) -> None:
        """The budget is then kept by stopping."""
        remedies = Remedies(RemedyConfig(replacement=ReplacementConfig(reload_interval=1)))
        remedies.begin(sample(0, 300))
        seen = sample(50, 990)

        decisions = remedies.answer(judge_headroom(seen, BUDGETS, LEVELS), seen, BUDGETS)
        assert "recycle" not in [decision.action for decision in decisions]


def end(status: int, step: int, *, first_step: int = 0, **facts: bool) -> End:
    """A process that went on from a step."""
    return End(status=status, first_step=first_step, step=step, **facts)


class TestRestarts:
    """What follows an end."""

    @pytest.mark.parametrize("status", [0, 2, 3, 75])
    def test_an_end_on_purpose_is_final(self, status: int) -> None:
        """With its own exit code."""
        answer = Restarts(RestartConfig()).answer(end(status, 10))

        assert (answer.again, answer.exit_code) == (False, status)

    @pytest.mark.parametrize("status", [-9, -11, 1, 137])
    def test_a_death_is_followed_by_another_process(self, status: int) -> None:
        """As long as each gets further than the one before, a thousand times."""
        restarts = Restarts(RestartConfig())

        assert all(restarts.answer(end(status, step)).again for step in range(1000))
        assert not restarts.answer(end(status, 1000)).again

    def test_deaths_at_the_same_step_end_it(self) -> None:
        """After three in a row that got no further."""
        restarts = Restarts(RestartConfig())

        answers = [restarts.answer(end(-9, 60)) for _ in range(4)]

        assert [answer.again for answer in answers] == [True, True, True, False]
        assert answers[-1].exit_code == -9

    def test_recycling_without_a_step_would_never_end(self) -> None:
        """It stops, and can be resumed."""
        answer = Restarts(RestartConfig()).answer(end(0, 0, recycled=True))

        assert (answer.again, answer.exit_code) == (False, 75)

    def test_recycling_that_loses_steps_would_never_end(self) -> None:
        """Each process goes on from an older step than the one before it had left."""
        restarts = Restarts(RestartConfig())

        answers = [restarts.answer(end(0, 4, recycled=True)) for _ in range(4)]

        assert [answer.again for answer in answers] == [True, True, True, False]
        assert answers[-1].exit_code == 75
        assert "from step 0" in answers[-1].reason

    def test_a_death_in_between_may_cost_steps(self) -> None:
        """The way back to where it was takes processes, and each goes on from where the one before had left."""
        restarts = Restarts(RestartConfig())
        ways = [(0, 4), (4, 8), (0, 4), (4, 8), (8, 12)]

        answers = [restarts.answer(end(0, 4, recycled=True)), restarts.answer(end(-9, 5))]
        answers += [restarts.answer(end(0, step, recycled=True, first_step=begin)) for begin, step in ways]

        assert all(answer.again for answer in answers)

    def test_whoever_was_asked_to_stop_stays_down(self) -> None:
        """Even if it had to be killed."""
        answer = Restarts(RestartConfig()).answer(end(-9, 10, stopping=True))

        assert (answer.again, answer.exit_code) == (False, 75)

    def test_a_lack_of_memory_asks_for_relief(self) -> None:
        """The next process is told."""
        assert Restarts(RestartConfig()).answer(end(-9, 10, out_of_memory=True)).after_out_of_memory

    def test_relief_is_a_smaller_budget(self) -> None:
        """By a tenth for each death, and never less than half."""
        assert [relieved(1000, deaths) for deaths in (0, 1, 2, 50)] == [1000, 900, 810, 500]

    def test_a_limit_on_deaths_in_all(self) -> None:
        """And a number below zero is refused."""
        restarts = Restarts(RestartConfig(in_all=2))

        assert [restarts.answer(end(1, step)).again for step in (10, 20, 30)] == [True, True, False]
        with pytest.raises(ConfigError, match="max_restarts is -1"):
            RestartConfig(in_all=-1)

    def test_describes_signals_by_name(self) -> None:
        """For people."""
        assert [describe(status) for status in (-9, 3, 0)] == ["SIGKILL", "exit code 3", "exit code 0"]
        assert describe(-200) == "signal 200"
