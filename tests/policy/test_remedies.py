"""Decisions: from gentle to hard, never without reason, never twice for nothing."""

from collections.abc import Callable

import pytest

from holdwater.budget import Budget, Budgets, InUse
from holdwater.detectors.headroom import Headroom, HeadroomConfig, judge_headroom
from holdwater.detectors.verdict import Finding, Rate, Verdict
from holdwater.errors import ConfigError
from holdwater.policy.decision import GENTLE, RELEASE, Decision
from holdwater.policy.remedies import Remedies, RemedyConfig
from holdwater.testing import make_sample
from holdwater.units import Bytes, Step

MB = 10**6
BUDGETS = Budgets(Budget(Bytes(1000 * MB), "given", "given"))
CALM_LEVELS = HeadroomConfig(waiting_below=Bytes(0), stopping_below=Bytes(0))


def names(decisions: tuple[Decision, ...]) -> tuple[str, ...]:
    """The actions that were decided on."""
    return tuple(decision.action for decision in decisions)


def leak(rate: float) -> Verdict:
    """A verdict with a leak of this rate."""
    finding = Finding(
        verdict="leak",
        component="host.native",
        detected_step=Step(200),
        message="memory grows",
        rate=Rate(rate, rate, rate, 0.95),
    )
    return Verdict("leak", Step(200), (finding,))


class TestHeadroomIsAnswered:
    """Pressure leads to release, and to a stop where release does not help."""

    def test_releases_from_the_gentlest_on(self) -> None:
        """Wait for the device, collect, clear caches, trim."""
        decisions = Remedies(RemedyConfig()).answer(Headroom("waiting", "why"), make_sample(1, 9e8), BUDGETS)

        assert names(decisions) == RELEASE
        assert decisions[0].reason == "why"

    def test_takes_nothing_harder_than_a_collection_while_memory_stays(self) -> None:
        """At 90 % of the budget, step after step: what fits is left alone."""
        remedies = Remedies(RemedyConfig(cooldown=1))
        taken = [
            name
            for step in range(1, 100)
            for name in names(remedies.answer(Headroom("threshold", "why"), make_sample(step, 900 * MB), BUDGETS))
        ]

        assert set(taken) == {"synchronise", "collect"}

    def test_takes_all_that_releases_when_the_budget_is_about_to_be_spent(self) -> None:
        """20 MB a step; then, if that has not helped, the run stops before the budget is broken."""
        remedies = Remedies(RemedyConfig())
        taken = {
            step: names(remedies.answer(Headroom("threshold", "why"), make_sample(step, in_use), BUDGETS))
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
                    asked := names(
                        remedies.answer(Headroom("threshold", "why"), make_sample(step, in_use), BUDGETS)
                    )
                )
                not in {(), GENTLE, RELEASE}
            ]

        assert grow(600, 1000) == [("replace_worker",)]
        remedies.learn("replace_worker", freed=InUse(200 * MB), in_use=InUse(780 * MB))
        assert grow(780, 960) == [("replace_worker",)]
        remedies.learn("replace_worker", freed=InUse(), in_use=InUse(960 * MB))
        assert grow(960, 1000) == [("stop",)]

    def test_a_replacement_that_does_not_end_holds_nothing_back(self) -> None:
        """Ten seconds over the budget, and the run stops."""
        remedies = Remedies(RemedyConfig(has_workers=True))
        taken = [
            names(remedies.answer(Headroom("over budget", "why"), make_sample(step, 2e9, seconds=step), BUDGETS))
            for step in range(20)
        ]

        assert taken[:3] == [RELEASE, ("replace_worker",), ()]
        assert taken.index(("stop",)) == 11

    def test_does_nothing_when_calm(self) -> None:
        """No pressure, no action."""
        assert Remedies(RemedyConfig()).answer(Headroom("calm", ""), make_sample(1, 9e8), BUDGETS) == ()

    def test_waits_out_the_cooldown(self) -> None:
        """Half a minute from one release to the next."""
        remedies = Remedies(RemedyConfig())
        answers = [
            remedies.answer(Headroom("waiting", "why"), make_sample(step, 9e8, seconds=second), BUDGETS)
            for step, second in enumerate([0.1, 0.2, 15.2, 30.0, 30.1, 30.2])
        ]

        assert [bool(answer) for answer in answers] == [True, False, False, False, True, False]

    def test_does_not_repeat_what_did_not_pay(self) -> None:
        """An action that freed nothing waits until memory has grown again."""
        remedies = Remedies(RemedyConfig(cooldown=1))
        for action in RELEASE:
            remedies.learn(action, freed=InUse(50 * MB if action == "trim" else 0), in_use=InUse(900 * MB))

        soon = remedies.answer(Headroom("waiting", ""), make_sample(100, 900 * MB), BUDGETS)
        later = remedies.answer(Headroom("waiting", ""), make_sample(200, 990 * MB), BUDGETS)

        assert names(soon) == ("trim",)
        assert names(later) == RELEASE

    def test_stops_at_the_stopping_level(self) -> None:
        """No time is lost with gentle remedies."""
        decisions = Remedies(RemedyConfig()).answer(Headroom("stopping", "why"), make_sample(1, 9e8), BUDGETS)

        assert names(decisions) == ("stop",)

    def test_stops_over_budget_only_after_a_release(self) -> None:
        """One release; if the next sample is still over, the run stops."""
        remedies = Remedies(RemedyConfig())
        over = Headroom("over budget", "why")

        first = remedies.answer(over, make_sample(1, 2e9), BUDGETS)
        second = remedies.answer(over, make_sample(2, 2e9), BUDGETS)

        assert (names(first), names(second)) == (RELEASE, ("stop",))

    def test_does_not_stop_when_the_release_helped(self) -> None:
        """Back under the budget, the next excess gets a release again."""
        remedies = Remedies(RemedyConfig())
        over = Headroom("over budget", "why")
        remedies.answer(over, make_sample(1, 2e9), BUDGETS)
        remedies.answer(Headroom("calm", ""), make_sample(2, 1e8), BUDGETS)

        assert names(remedies.answer(over, make_sample(3, 2e9), BUDGETS)) == RELEASE


LEFT = {
    (300, "trim"): 15.0, (300, "recycle"): 15.0,
    (1000, "trim"): 50.0, (1000, "recycle"): 25.17, (1000, "stop"): 16.78,
    (10_000, "trim"): 500.0, (10_000, "recycle"): 200.0, (10_000, "stop"): 100.0,
}  # fmt: skip
"""MB below a budget of so many MB at which small rises ask for an action."""


@pytest.mark.parametrize(("megabytes", "action"), LEFT)
def test_acts_at_a_distance_that_goes_with_the_budget(megabytes: int, action: str) -> None:
    """Rises of 1.1 MB: a share of the budget, or some MB where that is more, but not more than 5 % of it."""
    budgets = Budgets(Budget(Bytes(megabytes * MB), "given", "given"))
    remedies = Remedies(RemedyConfig(can_recycle=action == "recycle"))
    remedies.begin(make_sample(0, 0.5 * megabytes * MB))
    rise = 1.1 * MB
    size, step = 0.93 * megabytes * MB, 20
    asked: tuple[str, ...] = ()
    while action not in asked:
        size, step = size + rise, step + 1
        sample = make_sample(step, size)
        asked = names(remedies.answer(judge_headroom(sample, budgets, CALM_LEVELS), sample, budgets))

    left = megabytes * MB - size
    assert left < LEFT[megabytes, action] * MB <= left + 1.01 * rise


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


BOTH = Budgets(BUDGETS.host, Budget(Bytes(5000 * MB), "given", "given"))


def taken(host: Callable[[int], float], device: Callable[[int], float], *, steps: int = 100) -> dict[int, str]:
    """At which step something harder than a collection is asked for; in MB of the step, beside 1 and 5 GB."""
    remedies = Remedies(RemedyConfig(can_recycle=True))
    found: dict[int, str] = {}
    for step in range(steps):
        sample = make_sample(step, host(step) * MB, device_reserved=int(device(step) * MB))
        if step == 0:
            remedies.begin(sample)
        decisions = remedies.answer(judge_headroom(sample, BOTH, CALM_LEVELS), sample, BOTH)
        harder = [one for one in decisions if one.action not in GENTLE]
        if harder:
            found[step] = f"{harder[0].action}: {harder[0].reason}"
        if any(one.action == "recycle" for one in decisions):
            break
    return found


class TestPools:
    """Each pool by its own budget, and by its own growth."""

    def test_a_device_that_grows_is_answered_beside_a_host_that_stays(self) -> None:
        """The host at 95 % of its budget is the fuller one; the device's is about to be spent."""
        found = taken(lambda _: 950, lambda step: 3000 + 25 * step)

        assert list(found)[-1] in range(72, 80)
        assert found[list(found)[-1]].startswith("recycle: device memory reserved is 4.")

    def test_a_host_that_grows_is_answered_beside_a_device_that_stays(self) -> None:
        """The other way round."""
        found = taken(lambda step: 300 + 10 * step, lambda _: 4900)

        assert list(found)[-1] in range(60, 70)
        assert found[list(found)[-1]].startswith("recycle: resident memory is 9")

    def test_ignores_what_two_pools_come_to_together(self) -> None:
        """70 % of each: together more than either."""
        assert not taken(lambda _: 700, lambda _: 3500)

    def test_ignores_memory_that_moves_from_one_pool_to_the_other(self) -> None:
        """Weights that are loaded in the host and go to the device; what rises falls elsewhere."""
        assert not taken(lambda step: 900 - 5 * step, lambda step: 1000 + 5 * step)

    def test_what_did_not_pay_is_tried_again_when_one_pool_has_grown(self) -> None:
        """The host by a tenth, beside a device seventy times as large; not while neither has."""
        remedies = Remedies(RemedyConfig(cooldown=1))
        for action in RELEASE:
            remedies.learn(action, freed=InUse(), in_use=InUse(900 * MB, 70_000 * MB))

        def asked(step: int, host: int) -> tuple[str, ...]:
            """What a host of so many MB asks for."""
            sample = make_sample(step, host * MB, device_reserved=70_000 * MB)
            return names(remedies.answer(Headroom("waiting", ""), sample, BOTH))

        assert asked(100, 900) == ()
        assert asked(200, 990) == RELEASE
