"""What a process is asked, and when: expensive questions are few, and an accusation is never made unasked."""

import json
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from holdwater.detectors.judgement import Judgement
from holdwater.detectors.verdict import Clock, Component, Finding, Rate, Verdict
from holdwater.observe.explainer import Explainer
from holdwater.observe.questions import Questions
from holdwater.probes.children import FORK, LOADER, Child, ChildProcesses
from holdwater.process.channel import Channel, create_channel
from holdwater.units import Step


class StillOutside:
    """A process of which nothing is known from outside."""

    pid = 1
    children = ChildProcesses(psutil.Process())

    @staticmethod
    def library_pages() -> int:
        """None that count."""
        return 0


@pytest.fixture
def questions(tmp_path: Path) -> Questions:
    """Questions to a process that runs, and has been counted once."""
    create_channel(tmp_path / "channel")
    channel = Channel(tmp_path / "channel")
    channel.state = "running"
    made = Questions(channel, tmp_path, StillOutside())  # type: ignore[arg-type] # as much of it as is needed
    answer(tmp_path, 1, 0, step=16)
    made.take_answers()
    return made


def answer(folder: Path, number: int, question: int, *, step: int, collected: float | None = None) -> None:
    """Leave what a process would answer."""
    census = {"tensors": 0, "bulk": 0, "gained": {"python": 0}, "datasets": 0, "room": None}
    body: dict[str, object] = {"step": step, "number": question, "seconds": 0.1, "census": census, "before": {}}
    if collected is not None:
        body["experiment"] = {
            "collected": collected, "collected_tensors": 0, "trimmed": 0, "gc_enabled": True,
        }  # fmt: skip
    (folder / f"answer-{number}.json").write_text(json.dumps(body), encoding="utf-8")
    if question:
        Channel(folder / "channel").put("answered", question)


def judgement(
    *,
    accusing: bool = False,
    suspicious: bool = True,
    component: Component = "host.tensors",
    follows: Clock = "step",
    every_steps: int | None = None,
    untested: bool = True,
) -> Judgement:
    """A growth of 1 MB a step."""
    finding = Finding(
        verdict="leak" if accusing else "warming", component=component, detected_step=Step(64), message="",
        rate=Rate(1e6, 9e5, 1.1e6, 0.95, every_steps=every_steps), follows=follows,
    )  # fmt: skip
    return Judgement(Verdict.of((finding,), Step(64)), suspicious, accusing, untested=untested)


def asked(folder: Path) -> list[str]:
    """The questions so far."""
    return sorted(
        path.name for path in folder.iterdir() if path.name.startswith(("window", "experiment", "count"))
    )


class TestAsk:
    """One question at a time."""

    def test_opens_a_window_on_suspicion(self, questions: Questions, tmp_path: Path) -> None:
        """For the side that grows; while the growth may be healthy, it may cost a second."""
        questions.ask(judgement(), 64, final=False)

        assert asked(tmp_path) == ["window-1"]
        assert json.loads((tmp_path / "window-1").read_text()) == {"component": "host.tensors", "seconds": 1.0}

    def test_a_question_without_space_is_not_asked(self, questions: Questions, tmp_path: Path) -> None:
        """Nobody waits for its answer; the verdict names it."""
        (tmp_path / "window-1").mkdir()

        questions.ask(judgement(), 300, final=False)

        assert not questions.waiting
        assert "could not be asked" in questions.errors[0]

    def test_an_answer_without_space_is_missed_by_name(self, questions: Questions, tmp_path: Path) -> None:
        """The process says that it has answered, but there is no file."""
        questions.ask(judgement(), 300, final=False)
        Channel(tmp_path / "channel").put("answered", 1)

        questions.take_answers()
        questions.take_answers()

        assert [error for error in questions.errors if "could not write its answer" in error] == questions.errors

    def test_counts_first_where_a_loader_gives_out_rows(self, questions: Questions, tmp_path: Path) -> None:
        """The dataset may hold them: two counts tell that sooner than a window."""
        Channel(tmp_path / "channel").put("samples_total", 663)

        questions.ask(judgement(), 30, final=False)
        answer(tmp_path, 2, 1, step=31)
        questions.take_answers()
        questions.ask(judgement(), 36, final=False)

        assert asked(tmp_path) == ["count-1", "window-2"]

    def test_a_window_waits_for_events_of_the_clock(self, questions: Questions, tmp_path: Path) -> None:
        """A growth at evaluations needs some."""
        questions.ask(judgement(follows="evaluation"), 64, final=False)

        wanted = json.loads((tmp_path / "window-1").read_text())
        assert (wanted["clock"], wanted["events"]) == ("evaluations", 2)

    def test_a_window_spans_what_comes_every_few_steps(self, questions: Questions, tmp_path: Path) -> None:
        """The process is told how many."""
        questions.ask(judgement(every_steps=50), 64, final=False)

        assert json.loads((tmp_path / "window-1").read_text())["every_steps"] == 50

    def test_a_window_spans_what_is_no_finding_yet(self, questions: Questions, tmp_path: Path) -> None:
        """It is opened on suspicion, and has to see two rises too."""
        suspect = judgement(every_steps=50).verdict.findings[0]
        suspicious = Judgement(Verdict("flat", Step(64), ()), suspicious=True, accusing=False, suspect=suspect)

        questions.ask(suspicious, 64, final=False)

        assert json.loads((tmp_path / "window-1").read_text()) == {
            "component": "host.tensors",
            "every_steps": 50,
            "seconds": 1.0,
        }

    @pytest.mark.parametrize(
        ("component", "windows"), [("host.file", 2), ("process.handles", 2), ("host.tensors", 1)]
    )
    def test_opens_another_window_when_rounds_are_known(
        self, questions: Questions, tmp_path: Path, component: Component, windows: int
    ) -> None:
        """The first saw none of them; where healthy runs grow too, there is one window before a leak is certain."""
        unclear = judgement(component=component).verdict.findings[0]
        nothing = Judgement(Verdict("flat", Step(64), ()), suspicious=True, accusing=False, suspect=unclear)
        clear = judgement(component=component, every_steps=220).verdict.findings[0]
        questions.ask(nothing, 64, final=False)
        answer(tmp_path, 2, 1, step=90)
        questions.take_answers()

        questions.ask(nothing, 95, final=False)
        assert asked(tmp_path) == ["window-1"]
        questions.ask(replace(nothing, suspect=clear), 96, final=False)

        assert asked(tmp_path) == [f"window-{number + 1}" for number in range(windows)]

    def test_says_how_far_apart_events_are(self, questions: Questions, tmp_path: Path) -> None:
        """So that a window does not wait for shapes that have all come."""
        found = judgement(follows="shape").verdict.findings[0]
        assert found.rate is not None
        found = replace(found, rate=replace(found.rate, per_event=40e6))

        questions.ask(replace(judgement(), verdict=Verdict.of((found,), Step(64))), 64, final=False)

        assert json.loads((tmp_path / "window-1").read_text())["apart"] == 40

    def test_asks_again_where_nothing_is_explained_yet(self, questions: Questions, tmp_path: Path) -> None:
        """Half as many steps later, and for longer; not at once, and only for a leak."""
        questions.ask(judgement(), 64, final=False)
        answer(tmp_path, 2, 1, step=90)
        questions.take_answers()
        questions.ask(judgement(accusing=True, untested=False), 90, final=False)
        questions.ask(judgement(), 100, final=False)
        before = asked(tmp_path)
        questions.ask(judgement(accusing=True, untested=False), 100, final=False)

        assert before == ["window-1"]
        assert asked(tmp_path) == ["window-1", "window-2"]
        assert json.loads((tmp_path / "window-2").read_text())["steps"] == 96

    @pytest.mark.parametrize(("worked", "windows"), [(1.0, ["window-1", "window-2"]), (4.0, ["window-1"])])
    def test_what_was_spent_is_work(
        self, questions: Questions, tmp_path: Path, worked: float, windows: list[str]
    ) -> None:
        """Ten seconds by the clock, of which a busy machine had most."""
        questions.ask(judgement(), 64, final=False)
        answer(tmp_path, 2, 1, step=90)
        questions.take_answers()
        channel = Channel(tmp_path / "channel")
        channel.put_seconds("attribution_seconds", 10.0)
        channel.put_seconds("attribution_work", worked)
        questions.ask(judgement(accusing=True, untested=False), 100, final=False)

        assert asked(tmp_path) == windows

    def test_looks_again_into_garbage_that_nothing_collects(self, questions: Questions, tmp_path: Path) -> None:
        """It is told as warming for a while, though a line rises; what only warms up is not looked into again."""
        garbage = replace(judgement(), accusing=True, untested=False)
        questions.ask(garbage, 64, final=False)
        answer(tmp_path, 2, 1, step=90)
        questions.take_answers()
        questions.ask(judgement(), 100, final=False)
        before = asked(tmp_path)
        questions.ask(garbage, 100, final=False)

        assert (before, asked(tmp_path)) == (["window-1"], ["window-1", "window-2"])

    @pytest.mark.parametrize(("reading", "windows"), [(True, ["window-1"]), (False, ["window-1", "window-2"])])
    def test_waits_for_what_the_window_before_explains(
        self,
        questions: Questions,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        reading: bool,
        windows: list[str],
    ) -> None:
        """Its recording is read by a process of its own, which takes a moment."""
        questions.ask(judgement(), 64, final=False)
        answer(tmp_path, 2, 1, step=80)
        questions.take_answers()
        monkeypatch.setattr(Explainer, "is_reading", reading)

        questions.ask(replace(judgement(accusing=True), untested=False), 200, final=False)

        assert asked(tmp_path) == windows

    def test_makes_an_experiment_before_an_accusation_then_opens_the_window(
        self, questions: Questions, tmp_path: Path
    ) -> None:
        """The window comes even if what the experiment freed hides the growth for a while."""
        questions.ask(judgement(accusing=True), 64, final=False)
        answer(tmp_path, 2, 1, step=65, collected=0.0)
        questions.take_answers()
        questions.ask(judgement(suspicious=False), 66, final=False)

        assert asked(tmp_path) == ["experiment-1", "window-2"]

    def test_asks_workers_at_once_and_not_the_process(self, questions: Questions, tmp_path: Path) -> None:
        """It is they that grow; it is asked later where none of them has answered."""
        growing = replace(judgement(suspicious=False, component="host.children"), children=True)
        channel = Channel(tmp_path / "channel")

        questions.ask(growing, 64, final=False)
        assert (channel.get("workers_asked"), asked(tmp_path)) == (1, [])

        questions.ask(growing, 80, final=False)
        assert (channel.get("workers_asked"), asked(tmp_path)) == (1, [])

        questions.ask(growing, 200, final=False)
        assert channel.get("workers_asked") == 2

    @pytest.mark.parametrize(("kind", "wanted"), [(FORK, 4242), (LOADER, 0)])
    def test_means_the_process_that_has_grown_most(
        self, questions: Questions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, wanted: int
    ) -> None:
        """Of a loader's workers any may answer."""
        grown = [Child(4242, kind, 0, 9_000_000)]
        monkeypatch.setattr(StillOutside.children, "growers", lambda _=3: grown)

        questions.ask(
            replace(judgement(suspicious=False, component="host.children"), children=True), 64, final=False
        )

        assert Channel(tmp_path / "channel").get("worker_wanted") == wanted

    def test_asks_nothing_while_it_waits(self, questions: Questions, tmp_path: Path) -> None:
        """The process answers when it can."""
        questions.ask(judgement(), 64, final=False)
        questions.ask(judgement(accusing=True), 80, final=False)

        assert asked(tmp_path) == ["window-1"]

    @pytest.mark.parametrize(
        ("explained", "steps", "expected"),
        [(0.9, 200, []), (0.9, 300, ["count-1"]), (0.2, 200, ["count-1"])],
        ids=["explained lately", "explained long ago", "not explained"],
    )
    def test_counts_at_the_end_what_is_not_known_yet(
        self,
        questions: Questions,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        explained: float,
        steps: int,
        expected: list[str],
    ) -> None:
        """The script waits for a count then, which would say again what a window has shown."""
        answer(tmp_path, 2, 0, step=120)
        questions.take_answers()
        questions.explainer.seen = {}
        monkeypatch.setattr(Explainer, "explained", lambda *_: explained)
        questions.ask(replace(judgement(accusing=True, untested=False), suspicious=False), steps, final=True)

        assert asked(tmp_path) == expected

    def test_leaves_a_calm_run_alone(self, questions: Questions, tmp_path: Path) -> None:
        """Nothing has come up."""
        questions.ask(judgement(suspicious=False), 64, final=False)

        assert asked(tmp_path) == []

    def test_opens_no_window_when_the_script_has_ended(self, questions: Questions, tmp_path: Path) -> None:
        """There are no more steps: objects are counted once."""
        Channel(tmp_path / "channel").state = "ending"

        questions.ask(judgement(suspicious=True), 64, final=True)
        answer(tmp_path, 2, 1, step=64, collected=0.0)
        questions.take_answers()
        questions.ask(judgement(suspicious=True), 64, final=True)
        answer(tmp_path, 3, 2, step=64)
        questions.take_answers()
        questions.ask(judgement(suspicious=True), 64, final=True)

        assert asked(tmp_path) == ["count-2", "experiment-1"]
