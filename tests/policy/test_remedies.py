"""Decisions: from gentle to hard, never without reason, never twice for nothing."""

import pytest

from holdwater.detectors.headroom import Headroom
from holdwater.detectors.verdict import Finding, Rate, Verdict
from holdwater.errors import ConfigError
from holdwater.policy.decision import GENTLE, RELEASE, Decision
from holdwater.policy.remedies import Remedies, RemedyConfig
from holdwater.testing import make_sample
from holdwater.units import Step

MB = 10**6
LIMIT = 1000 * MB


def names(decisions: tuple[Decision, ...]) -> tuple[str, ...]:
    """The actions that were decided on."""
    return tuple(decision.action for decision in decisions)


def leak(rate: float) -> Verdict:
    """A verdict with a leak of this rate."""
    finding = Finding(
        verdict="leak",
        component="host.native",
        detected_step=Step(200),
        advice="memory grows",
        rate=Rate(rate, rate, rate, 0.95),
    )
    return Verdict("leak", Step(200), (finding,))


class TestHeadroomIsAnswered:
    """Pressure leads to release, and to a stop where release does not help."""

    def test_releases_from_the_gentlest_on(self) -> None:
        """Wait for the device, collect, clear caches, trim."""
        decisions = Remedies(RemedyConfig()).answer(Headroom("waiting", "why"), make_sample(1, 9e8), LIMIT)

        assert names(decisions) == RELEASE
        assert decisions[0].reason == "why"

    def test_takes_nothing_harder_than_a_collection_while_memory_stays(self) -> None:
        """At 90 % of the budget, step after step: what fits is left alone."""
        remedies = Remedies(RemedyConfig(cooldown=1))
        taken = [
            name
            for step in range(1, 100)
            for name in names(remedies.answer(Headroom("threshold", "why"), make_sample(step, 900 * MB), LIMIT))
        ]

        assert set(taken) == {"synchronise", "collect"}

    def test_takes_all_that_releases_when_the_budget_is_about_to_be_spent(self) -> None:
        """20 MB a step; then, if that has not helped, the run stops before the budget is broken."""
        remedies = Remedies(RemedyConfig())
        taken = {
            step: names(remedies.answer(Headroom("threshold", "why"), make_sample(step, in_use), LIMIT))
            for step, in_use in enumerate(range(600 * MB, 1000 * MB, 20 * MB))
        }

        assert taken[0] == GENTLE
        assert taken[9] == RELEASE
        assert next(step for step, actions in taken.items() if actions == ("stop",)) == 19

    def test_a_worker_is_replaced_before_the_run_is_stopped(self) -> None:
        """One at a time; as long as that is under way, nothing is stopped, and what did not pay is not repeated."""
        remedies = Remedies(RemedyConfig(has_workers=True))

        def grow(begin: int, end: int) -> list[tuple[str, ...]]:
            """What 20 MB a step asks for, beyond the gentle."""
            return [
                asked
                for step, in_use in enumerate(range(begin * MB, end * MB, 20 * MB))
                if (
                    asked := names(remedies.answer(Headroom("threshold", "why"), make_sample(step, in_use), LIMIT))
                )
                not in {(), GENTLE, RELEASE}
            ]

        assert grow(600, 1000) == [("replace_worker",)]
        remedies.learn("replace_worker", freed=200 * MB, in_use=780 * MB)
        assert grow(780, 960) == [("replace_worker",)]
        remedies.learn("replace_worker", freed=0, in_use=960 * MB)
        assert grow(960, 1000) == [("stop",)]

    def test_a_replacement_that_does_not_end_holds_nothing_back(self) -> None:
        """Ten seconds over the budget, and the run stops."""
        remedies = Remedies(RemedyConfig(has_workers=True))
        taken = [
            names(remedies.answer(Headroom("over budget", "why"), make_sample(step, 2e9, seconds=step), LIMIT))
            for step in range(20)
        ]

        assert taken[:3] == [RELEASE, ("replace_worker",), ()]
        assert taken.index(("stop",)) == 11

    def test_does_nothing_when_calm(self) -> None:
        """No pressure, no action."""
        assert Remedies(RemedyConfig()).answer(Headroom("calm", ""), make_sample(1, 9e8), LIMIT) == ()

    def test_waits_out_the_cooldown(self) -> None:
        """Ten samples in a second are one release."""
        remedies = Remedies(RemedyConfig(cooldown=30))
        answers = [
            remedies.answer(Headroom("waiting", "why"), make_sample(step, 9e8, seconds=0.1 * step), LIMIT)
            for step in range(1, 11)
        ]

        assert [bool(answer) for answer in answers] == [True] + [False] * 9

    def test_does_not_repeat_what_did_not_pay(self) -> None:
        """An action that freed nothing waits until memory has grown again."""
        remedies = Remedies(RemedyConfig(cooldown=1))
        for action in RELEASE:
            remedies.learn(action, freed=50 * MB if action == "trim" else 0, in_use=900 * MB)

        soon = remedies.answer(Headroom("waiting", ""), make_sample(100, 900 * MB), LIMIT)
        later = remedies.answer(Headroom("waiting", ""), make_sample(200, 990 * MB), LIMIT)

        assert names(soon) == ("trim",)
        assert names(later) == RELEASE

    def test_stops_at_the_stopping_level(self) -> None:
        """No time is lost with gentle remedies."""
        decisions = Remedies(RemedyConfig()).answer(Headroom("stopping", "why"), make_sample(1, 9e8), LIMIT)

        assert names(decisions) == ("stop",)

    def test_stops_over_budget_only_after_a_release(self) -> None:
        """One release; if the next sample is still over, the run stops."""
        remedies = Remedies(RemedyConfig())
        over = Headroom("over budget", "why")

        first = remedies.answer(over, make_sample(1, 2e9), LIMIT)
        second = remedies.answer(over, make_sample(2, 2e9), LIMIT)

        assert (names(first), names(second)) == (RELEASE, ("stop",))

    def test_does_not_stop_when_the_release_helped(self) -> None:
        """Back under the budget, the next excess gets a release again."""
        remedies = Remedies(RemedyConfig())
        over = Headroom("over budget", "why")
        remedies.answer(over, make_sample(1, 2e9), LIMIT)
        remedies.answer(Headroom("calm", ""), make_sample(2, 1e8), LIMIT)

        assert names(remedies.answer(over, make_sample(3, 2e9), LIMIT)) == RELEASE


class TestVerdictsAreAnswered:
    """A leak above the threshold is a reason to release; one below it is only reported."""

    def test_releases_once_for_a_fast_leak(self) -> None:
        """Found again at the next look, it is not answered again."""
        remedies = Remedies(RemedyConfig(leak_threshold=1e6, cooldown=0))

        first = remedies.answer_verdict(leak(2e6), make_sample(200, 9e8))
        again = remedies.answer_verdict(leak(2e6), make_sample(300, 9e8))

        assert (names(first), names(again)) == (RELEASE, ())

    def test_ignores_a_slow_leak(self) -> None:
        """Below the threshold no remedy acts."""
        assert Remedies(RemedyConfig(leak_threshold=1e6)).answer_verdict(leak(5e5), make_sample(200, 9e8)) == ()


class TestInterval:
    """Caches are cleared every N steps only when that was asked for."""

    def test_clears_at_the_interval(self) -> None:
        """Every tenth step, and it says why."""
        remedies = Remedies(RemedyConfig(cache_clear_interval=10))

        answers = {step: names(remedies.answer_interval(Step(step))) for step in range(1, 31)}

        assert [step for step, answer in answers.items() if answer] == [10, 20, 30]
        assert answers[10] == ("clear_caches",)

    def test_is_kept_when_not_every_step_is_looked_at(self) -> None:
        """Every 70th step is looked at: each hundred passed is one clearing."""
        remedies = Remedies(RemedyConfig(cache_clear_interval=100))

        cleared = [step for step in range(1, 701, 70) if remedies.answer_interval(Step(step))]

        assert cleared == [141, 211, 351, 421, 561, 631]

    def test_never_clears_unasked(self) -> None:
        """A blind clearing every N steps is the folklore that this project is to end."""
        remedies = Remedies(RemedyConfig())

        assert not any(remedies.answer_interval(Step(step)) for step in range(1, 1000))

    def test_refuses_an_interval_of_nothing(self) -> None:
        """The message names the key of the config file."""
        with pytest.raises(ConfigError, match="periodic_cache_clear_interval is 0"):
            RemedyConfig(cache_clear_interval=0)
