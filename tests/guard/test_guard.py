"""The guard around a loop: it observes, keeps its account, acts, and never kills what it guards."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdwater import Guard
from holdwater.actions.levers import Levers
from holdwater.budget import InUse, MachineMemory
from holdwater.errors import ConfigError, ProbeError, StoreError
from holdwater.guard.account import Account
from holdwater.guard.settings import GuardSettings
from holdwater.probes.observer import Observer
from holdwater.probes.sample import Sample
from holdwater.store.history import read_history
from holdwater.testing import ManualClock, StandInMemory, make_sample
from holdwater.units import Bytes, Step

GB = 10**9
LARGE = MachineMemory(total=Bytes(100 * GB), available=Bytes(90 * GB))


def rehearse(
    available: dict[int, int],
    *,
    steps: int = 30,
    settings: GuardSettings | None = None,
    levers: Levers | None = None,
) -> Guard:
    """Run steps of ten seconds each on a stand-in machine; `available` says from which step on it has how much."""
    clock = ManualClock()
    guard = Guard(settings, machine=LARGE, clock=clock, levers=levers, observer=Observer(clock.elapsed, []))

    def left() -> int:
        return next(size for step, size in sorted(available.items(), reverse=True) if guard.step_number >= step)

    with guard:
        guard.observer.replace(StandInMemory(left))
        for _ in guard.steps(range(steps)):
            clock.advance(10)
    return guard


def make_objects() -> list[list[int]]:
    """So many that a collection might find garbage among them."""
    return [[number] for number in range(100_000)]


class TestPressure:
    """A machine short of memory, rehearsed; each rule with its *does not act* twin."""

    @pytest.fixture(autouse=True)
    def no_accelerator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another test may have loaded MLX, whose cache is released too."""
        module = importlib.import_module("holdwater.actions.perform")  # the package has a function of that name
        monkeypatch.setattr(module, "uses_accelerator", lambda: False)

    def test_below_the_waiting_level_it_waits_and_releases(self) -> None:
        """15 GB on a large machine: collect and trim; without an accelerator there is nothing else to release."""
        kept = make_objects()

        guard = rehearse({0: 50 * GB, 10: 14 * GB})

        assert kept
        assert [outcome.action for outcome in guard.outcomes][:2] == ["collect", "trim"]
        assert guard.outcomes[0].step == 10
        assert guard.stop_reason is None
        assert guard.step_number == 30

    def test_a_dry_run_only_says_what_would_be_done(self) -> None:
        """Below the stopping level: no checkpoint is written, and the run goes on."""
        saved: list[str] = []

        guard = rehearse(
            {0: 50 * GB, 10: 9 * GB},
            settings=GuardSettings(dry_run=True),
            levers=Levers(checkpoint=lambda: saved.append("whole")),
        )

        assert (saved, guard.stop_reason, guard.step_number) == ([], None, 30)
        assert {(outcome.action, outcome.freed_bytes, outcome.seconds) for outcome in guard.outcomes} == {
            ("stop", 0, 0.0)
        }
        assert guard.outcomes[0].reason.startswith("dry run: 9.00 GB available")

    def test_above_the_waiting_level_it_does_nothing(self) -> None:
        """16 GB is enough."""
        assert not rehearse({0: 50 * GB, 10: 16 * GB}).outcomes

    def test_below_the_stopping_level_it_checkpoints_and_stops(self) -> None:
        """10 GB on a large machine."""
        saved: list[str] = []

        guard = rehearse({0: 50 * GB, 20: 9 * GB}, levers=Levers(checkpoint=lambda: saved.append("whole")))

        assert saved == ["whole"]
        assert guard.step_number == 20
        assert "9.00 GB available, under the stopping level of 10.0 GB" in str(guard.stop_reason)

    def test_above_the_stopping_level_it_goes_on(self) -> None:
        """11 GB makes it wait, not stop."""
        saved: list[str] = []

        guard = rehearse({0: 50 * GB, 20: 11 * GB}, levers=Levers(checkpoint=lambda: saved.append("whole")))

        assert (saved, guard.stop_reason, guard.step_number) == ([], None, 30)

    def test_without_a_checkpoint_it_does_not_stop(self, caplog: pytest.LogCaptureFixture) -> None:
        """The reason is said once, and the run goes on."""
        guard = rehearse({0: 50 * GB, 20: 9 * GB})

        assert (guard.step_number, guard.stop_reason) == (30, None)
        assert "Levers(checkpoint=...)" in str(guard.outcomes[-1].error)
        said = {record.message for record in caplog.records if "checkpoint" in record.message}
        assert len(said) == 1, said

    @pytest.mark.parametrize(("threshold", "acts"), [(0.01, True), (1.0, False)])
    def test_the_threshold_percentage_acts_or_does_not(self, threshold: float, acts: bool) -> None:
        """Resident memory above this share of the budget is looked through for garbage."""
        settings = GuardSettings(max_memory=Bytes(3 * GB), threshold=threshold)
        kept = make_objects()

        guard = rehearse({0: 50 * GB}, settings=settings)

        assert kept
        assert {outcome.action for outcome in guard.outcomes} == ({"collect"} if acts else set())
        assert guard.stop_reason is None

    def test_nothing_is_done_to_a_loop_that_failed_in_the_middle_of_a_step(self) -> None:
        """Half-updated weights must not become a checkpoint."""
        clock, saved = ManualClock(), []
        guard = Guard(
            machine=LARGE,
            clock=clock,
            levers=Levers(checkpoint=lambda: saved.append("half")),
            observer=Observer(clock.elapsed, []),
        )

        def fail() -> None:
            with guard:
                guard.observer.replace(StandInMemory(lambda: 5 * GB))
                raise MemoryError

        with pytest.raises(MemoryError):
            fail()

        assert saved == []

    def test_a_stop_that_failed_is_not_tried_at_every_step(self) -> None:
        """Without a checkpoint lever: once a minute, not once a step."""
        guard = rehearse({0: 50 * GB, 5: 9 * GB}, steps=30)  # ten seconds a step

        assert len([outcome for outcome in guard.outcomes if outcome.action == "stop"]) == 5

    def test_levels_can_be_set(self) -> None:
        """Both are configurable."""
        settings = GuardSettings(waiting_below=Bytes(60 * GB), stopping_below=Bytes(1 * GB))

        assert rehearse({0: 50 * GB}, settings=settings).outcomes


class OnDevice(Observer):
    """A process that holds memory of the host and of a stand-in device."""

    def __init__(self, elapsed: Callable[[], float], held: InUse, *, from_step: int = 0) -> None:
        """Begin.

        Args:
            elapsed: Seconds.
            held: By pool, in bytes.
            from_step: The step from which on the device is used.
        """
        super().__init__(elapsed, [])
        self.held, self.from_step = held, from_step

    def in_use(self) -> InUse:
        """What is held."""
        return self.held

    def sample(self, step: Step, *, loss: float | None = None, everything: bool = False) -> Sample:
        """The same, as a sample."""
        device = self.held.device if step >= self.from_step else None
        return make_sample(step, self.held.host, device_reserved=device)


CARD = MachineMemory(
    total=Bytes(100 * GB), available=Bytes(90 * GB), device_size=Bytes(80 * GB), device_available=Bytes(60 * GB)
)


def on_device(held: InUse, *, out: Path | None = None, **given: Any) -> Guard:
    """A guard on a card of 80 GB."""
    clock = ManualClock()
    return Guard(machine=CARD, clock=clock, observer=OnDevice(clock.elapsed, held), out=out, **given)


class TestPools:
    """Host and device each by its own budget."""

    def test_what_a_plan_says_fits_is_not_refused(self) -> None:
        """8.09 GB reserved of 8.2 GB, beside 1.5 GB resident: 9.59 GB together are nobody's."""
        with on_device(InUse(1_500_000_000, 8_090_000_000), max_memory="8.2GB") as guard:
            for _ in guard.steps(range(50)):
                pass

        assert (guard.step_number, guard.stop_reason) == (50, None)
        assert guard.verdict.kind != "pressure"

    def test_a_device_that_is_spent_is_refused(self) -> None:
        """With the device's numbers."""
        guard = on_device(InUse(1_500_000_000, 8_300_000_000), max_memory="8.2GB")

        with pytest.raises(ConfigError, match=r"max_memory is 8\.20 GB, but the process occupies 8\.30 GB"), guard:
            pass

    def test_a_host_that_is_spent_beside_a_device_is_refused(self) -> None:
        """By the setting's own name."""
        guard = on_device(InUse(1_500_000_000, 0), max_memory="8.2GB", max_host_memory="1GB")

        with pytest.raises(ConfigError, match=r"max_host_memory is 1\.00 GB, .* occupies 1\.50 GB"), guard:
            pass

    def test_the_summary_and_the_store_give_each_pool(self, tmp_path: Path) -> None:
        """`budget` stays: that of the pool where the tensors live."""
        with on_device(InUse(GB, GB), out=tmp_path, max_memory="8GB", max_host_memory="16GB") as guard:
            guard.step()

        summary = guard.summary()
        assert {name: row["limit_bytes"] for name, row in summary["budgets"].items()} == {
            "host": 16 * GB, "device:0": 8 * GB,
        }  # fmt: skip
        assert (summary["budget"]["bytes"], summary["budget"]["origin"]) == (8 * GB, "given")
        assert read_history(tmp_path).budgets == guard.budgets

    def test_the_devices_pressure_is_the_devices(self) -> None:
        """Over its budget while the host is not."""
        with on_device(InUse(GB, 7 * GB), max_memory="8GB") as guard:
            assert isinstance(guard.observer, OnDevice)
            guard.observer.held = InUse(GB, 9 * GB)
            for _ in guard.steps(range(20)):
                pass

        assert [finding.component for finding in guard.verdict.findings if finding.verdict == "pressure"] == [
            "device.reserved"
        ]

    def test_a_device_that_comes_into_use_later_gets_its_budget_then(self) -> None:
        """Until then what was given was the host's; nothing that was found then stays."""
        clock = ManualClock()
        observer = OnDevice(clock.elapsed, InUse(3 * GB, 5 * GB), from_step=10)
        guard = Guard(GuardSettings(max_memory=Bytes(8 * GB)), machine=LARGE, clock=clock, observer=observer)
        with guard:
            before = guard.budgets
            guard._machine = CARD
            for _ in guard.steps(range(30)):
                clock.advance(1)

        assert before.by_name().keys() == {"host"}
        assert guard.budgets.device is not None
        assert (guard.budgets.device.limit, guard.budgets.host.origin) == (8 * GB, "found")


class TestGuard:
    """Budget, account, store."""

    def test_a_budget_below_the_process_is_refused(self) -> None:
        """Before the first step, with both sizes."""
        with pytest.raises(ConfigError, match=r"occupies .* before the first step"), Guard(max_memory="1MB"):
            pass

    def test_a_bare_number_is_in_gb(self) -> None:
        """And is echoed with its unit."""
        with Guard(max_memory="4") as guard:
            assert str(guard.budget).startswith("budget 4.00 GB: given")

    def test_a_folder_that_cannot_be_written_is_refused(self, tmp_path: Path) -> None:
        """A file stands where the folder should be."""
        (tmp_path / "run").write_text("")

        with pytest.raises(StoreError, match="cannot be written"), Guard(max_memory="4GB", out=tmp_path / "run"):
            pass

    def test_its_own_error_is_said_once_and_training_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A guard never kills what it guards."""
        said: list[str] = []
        monkeypatch.setattr("holdwater.guard.guard.log.warning", said.append)

        class Broken(Observer):
            """Fails at every look but the first and the last."""

            def sample(self, step: Step, *, loss: float | None = None, everything: bool = False) -> Sample:
                """Fail."""
                if not everything:
                    raise ZeroDivisionError("a bug")
                return super().sample(step, loss=loss, everything=everything)

        clock = ManualClock()
        with Guard(machine=LARGE, clock=clock, observer=Broken(clock.elapsed, [])) as guard:
            for _ in guard.steps(range(50)):
                clock.advance(0.1)

        assert guard.step_number == 50
        assert len([message for message in said if "a bug" in message]) == 1

    def test_a_probe_that_fails_is_named_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """What is not read any more is said."""
        import logging

        logging.getLogger("holdwater").propagate = True

        def gone() -> int:
            raise ProbeError("the kernel said no")

        clock = ManualClock()
        with Guard(machine=LARGE, clock=clock, observer=Observer(clock.elapsed, [])) as guard:
            guard.observer.replace(StandInMemory(gone))
            for _ in guard.steps(range(20)):
                clock.advance(1)

        records = {id(record): record for record in caplog.records}  # a handler of another test sees them, too
        messages = [record.message for record in records.values() if "not read" in record.message]
        assert messages == ["available is not read any more: the kernel said no"]

    def test_a_mark_may_hold_anything(self, tmp_path: Path) -> None:
        """What JSON cannot hold is written as text; nothing is raised into the loop."""
        with Guard(max_memory="4GB", out=tmp_path) as guard:
            guard.mark("odd", value=set)

        assert read_history(tmp_path).marks[0].facts == {"value": "<class 'set'>"}

    def test_the_store_holds_samples_marks_and_the_verdict(self, tmp_path: Path) -> None:
        """Everything that the report needs."""
        with Guard(max_memory="4GB", out=tmp_path) as guard:
            for number in guard.steps(range(200)):
                if number == 99:
                    with guard.evaluation() as facts:
                        facts["loss"] = 1.5

        history = read_history(tmp_path)
        assert history.summary is not None
        assert history.summary["steps"] == 200
        assert [mark.kind for mark in history.marks] == ["evaluation"]
        assert history.marks[0].facts["loss"] == 1.5
        assert history.sessions[0].facts["budget_bytes"] == 4 * GB

    def test_an_exception_of_the_loop_passes_through_and_is_noted(self, tmp_path: Path) -> None:
        """The guard hides nothing."""
        with pytest.raises(RuntimeError, match="of the loop"), Guard(max_memory="4GB", out=tmp_path) as guard:
            _fail(guard)

        assert [mark.kind for mark in read_history(tmp_path).marks] == ["error"]

    def test_the_summary_has_the_fields_of_schema_1(self) -> None:
        """Other programs read it."""
        with Guard(max_memory="4GB") as guard:
            for _ in guard.steps(range(3)):
                pass
        summary = guard.summary()

        assert {"schema", "steps", "verdict", "findings", "actions", "overhead", "peak"} <= set(summary)
        assert summary["schema"] == 1
        assert set(summary["findings"][0]) >= {
            "verdict", "component", "rate", "follows", "onset_step", "detected_step",
            "forecast", "explained", "sites", "pattern", "advice",
        }  # fmt: skip


def _fail(guard: Guard) -> None:
    """A loop that fails in its first step."""
    for _ in guard.steps(range(5)):
        raise RuntimeError("of the loop")


def test_a_loss_that_is_a_tensor_keeps_no_graph() -> None:
    """Only its number is taken."""
    import torch

    with Guard(max_memory="4GB") as guard:
        guard._next_sample = 10**9
        guard.step(loss=torch.ones((), requires_grad=True) * 2)  # type: ignore[arg-type]

        assert type(guard._losses._total) is float


class TestAccount:
    """The guard knows what it costs, and slows itself down."""

    def test_percentiles_are_within_a_twentieth(self) -> None:
        """A histogram of fixed size, whatever the number of steps."""
        account = Account()
        for microseconds in range(1, 1001):
            account.add(microseconds * 1e-6, steps=1)

        assert account.percentile(0.50) == pytest.approx(500e-6, rel=0.06)
        assert account.percentile(0.99) == pytest.approx(990e-6, rel=0.06)

    def test_steps_without_a_look_count_as_free(self) -> None:
        """99 of 100 steps did not look."""
        account = Account()
        account.add(1e-3, steps=100)

        assert account.percentile(0.98) < 1e-6
        assert account.percentile(0.999) == pytest.approx(1e-3, rel=0.06)

    @pytest.mark.parametrize(("period", "stride"), [(1.0, 1), (0.1, 1), (0.0009, 93), (1e-6, 1000)])
    def test_looks_less_often_when_steps_are_short(self, period: float, stride: int) -> None:
        """A sample of 100 µs at 0.12 % of the time."""
        assert Account().stride(cost=1e-4, period=period, elapsed=3600.0) == stride

    @pytest.mark.parametrize(("elapsed", "stride"), [(0.1, 2), (1.0, 20), (4.0, 80), (80.0, 834)])
    def test_looks_lie_no_further_apart_than_the_run_is_old(self, elapsed: float, stride: int) -> None:
        """A run of steps of 100 µs: 1/500 of the time that has passed."""
        assert Account().stride(cost=1e-4, period=1e-4, elapsed=elapsed) in {stride - 1, stride}

    def test_looks_further_apart_where_another_process_judges(self) -> None:
        """Such a guard only keeps its share of the time."""
        account = Account()
        account.spacing = 1 / 50

        assert account.stride(cost=1e-4, period=1e-4, elapsed=4.0) in {799, 800}

    def test_samples_that_wait_are_counted(self) -> None:
        """Nine of 10 µs and one of 1 ms at which all are observed, in 100 steps."""
        account = Account()
        for _ in range(9):
            account.wait(1e-5)
        account.add(1e-3, steps=100)

        assert (account.steps, account.samples) == (100, 10)
        assert account.total == pytest.approx(1.09e-3)
        assert account.percentile(0.90) < 1e-6
        assert account.percentile(0.98) == pytest.approx(1e-5, rel=0.06)
        assert account.percentile(0.999) == pytest.approx(1e-3, rel=0.06)
