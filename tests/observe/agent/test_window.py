"""A window in a live script: what comes every so many steps, at events, or in a native thread, is caught in it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from holdwater.attribution.explanation import explain
from holdwater.attribution.gains import Gains
from holdwater.attribution.recorded import read
from holdwater.attribution.site import Explanation, Growing
from holdwater.frameworks import observed_script as runner
from holdwater.observe.agent.window import Standing, Window
from holdwater.process.channel import Channel, create_channel

EVERY = """
import time, torch
from torch import nn
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10))
optimizer = torch.optim.AdamW(model.parameters())
cache, newest = {}, None
for step in range(20000):
    hidden = model[:2](torch.randn(64, 256))
    loss = model[2](hidden).square().mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    if step % 25 == 0:
        newest = torch.zeros(100_000)
        cache[step] = hidden.detach().clone()
    time.sleep(0.002)
"""
EVALUATED = """
import time, torch
torch.set_num_threads(1)
model = torch.nn.Linear(64, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
results = []

def evaluate():
    model.eval()
    scores = torch.randn(100_000)
    results.append(scores)
    model.train()

for step in range(20000):
    model(torch.randn(8, 64)).mean().backward(); optimizer.step(); optimizer.zero_grad()
    if step % 30 == 29:
        evaluate()
    time.sleep(0.002)
"""

DESCRIPTORS = """
import os, time, torch
torch.set_num_threads(1)
model = torch.nn.Linear(64, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

def connect():
    first = os.open(os.devnull, os.O_RDONLY)
    os.close(first)
    return [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]

for step in range(900):
    model(torch.randn(8, 64)).mean().backward(); optimizer.step(); optimizer.zero_grad()
    with open(os.devnull) as file:
        file.read()
    if step % 10 == 9:
        connect()
    time.sleep(0.002)
"""
GARBAGE = """
import gc, time, torch
torch.set_num_threads(1)
gc.disable()
model = torch.nn.Linear(64, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
for step in range(20000):
    model(torch.randn(8, 64)).mean().backward(); optimizer.step(); optimizer.zero_grad()
    cycle = [torch.zeros(20_000)]
    cycle.append(cycle)
    time.sleep(0.002)
"""


def line_of(script: str, text: str) -> int:
    """The number of the line that holds a text."""
    return next(number for number, line in enumerate(script.splitlines(), 1) if text in line)


def look_into(folder: Path, script: str, *, after: int, request: dict[str, Any]) -> dict[str, Any]:
    """Run a script, open a window in it after some steps, and return what it has seen."""
    answers = ask(folder, script, [(after, "window", request)])
    return next(answer["explanation"] for answer in answers if "explanation" in answer)


def ask(folder: Path, script: str, questions: list[tuple[int, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Run a script, ask it something after so many steps, and return its answers in order."""
    file = folder / "train.py"
    file.write_text(script, encoding="utf-8")
    create_channel(folder / "channel")
    channel = Channel(folder / "channel")
    command = [sys.executable, runner.__file__, str(folder), "0", str(file)]
    process = subprocess.Popen(command, env=os.environ.copy(), stdout=subprocess.DEVNULL)
    try:
        for number, (after, kind, request) in enumerate(questions, 1):
            _wait(lambda: channel.get("steps") >= after, process)  # noqa: B023 - at once
            (folder / f"{kind}-{number}").write_text(json.dumps(request), encoding="utf-8")
            channel.put("asked", number)
            _wait(lambda: channel.get("answered") >= number, process)  # noqa: B023 - at once
    finally:
        process.kill()
        process.wait()
        channel.close()
    answers = [json.loads(path.read_text()) for path in folder.glob("answer-*.json")]
    return sorted(answers, key=lambda answer: int(answer["step"]))


def _wait(holds: Any, process: "subprocess.Popen[bytes]") -> None:
    """Wait until something holds."""
    until = time.monotonic() + 120
    while not holds():
        assert process.poll() is None, "the script has ended"
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.02)


def explained(folder: Path, seen: dict[str, Any], growing: Growing) -> Explanation:
    """What a window has seen, with its recording."""
    recorded = None
    if seen["allocations"] is not None:
        recorded = read(folder / seen["allocations"], every=seen["every_steps"], by_events=seen["by_events"])
    return explain(seen, growing, recorded=recorded)


class TestUnfinished:
    """Two rises are seen, or nothing is said."""

    @pytest.mark.parametrize(("steps", "unfinished"), [(99, True), (100, False)])
    def test_a_window_spans_two_rises(self, tmp_path: Path, steps: int, unfinished: bool) -> None:
        """Of growth that comes every 50 steps."""
        (tmp_path / "window-1").write_text(json.dumps({"every_steps": 50}), encoding="utf-8")
        window = Window(tmp_path, 1, Gains(), heap=None)

        assert ("unfinished" in window._unfinished(steps, 0)) == unfinished

    @pytest.mark.parametrize(("events", "unfinished"), [(1, True), (2, False)])
    def test_a_window_spans_two_events(self, tmp_path: Path, events: int, unfinished: bool) -> None:
        """Of the clock that it waits for."""
        request = {"clock": "evaluations", "events": 2}
        (tmp_path / "window-1").write_text(json.dumps(request), encoding="utf-8")
        window = Window(tmp_path, 1, Gains(), heap=None)

        assert ("unfinished" in window._unfinished(500, events)) == unfinished


class TestCost:
    """What a window costs is its work: beside busy programs each step takes longer."""

    @pytest.mark.parametrize(("work", "expensive"), [(None, True), (0.0, False)])
    def test_of_a_second_of_waiting_is_none(self, tmp_path: Path, work: float | None, expensive: bool) -> None:
        """Where it is not known how much steps have worked, all of it counts."""
        (tmp_path / "window-1").write_text("{}", encoding="utf-8")
        window = Window(tmp_path, 1, Gains(), heap=None)
        window._since = Standing(0, 0.0, 0, 0, 0.0, 0.0, work)
        window._opened, window._worked = time.perf_counter() - 1.0, time.process_time()

        assert (window._extra > 0.5) == expensive


@pytest.mark.alone
class TestWindow:
    """What is rare is waited for."""

    def test_catches_what_comes_every_few_steps(self, tmp_path: Path) -> None:
        """The line that stores, and the one that allocates; not a line that every step runs, nor what is replaced."""
        request = {"component": "host.tensors", "every_steps": 25}

        seen = look_into(tmp_path, EVERY, after=260, request=request)

        size = 64 * 512 * 4 / 25
        made = explained(tmp_path, seen, Growing("host.tensors", size, every_steps=25, per_event=size * 25))
        assert seen["to_step"] - seen["from_step"] >= 55
        line = line_of(EVERY, "cache[step] = ")
        assert [(site.role, site.line, site.known_by) for site in made.sites] == [
            ("held", line, "seen"),
            ("allocated", line, "seen"),
        ]
        assert made.sites[0].name == "cache"
        assert made.explained > 0.6

    def test_waits_for_two_events(self, tmp_path: Path) -> None:
        """An evaluation keeps its scores: the function that makes them, and the one that stores."""
        request = {"component": "host.tensors", "clock": "evaluations", "events": 2}

        seen = look_into(tmp_path, EVALUATED, after=260, request=request)

        growing = Growing("host.tensors", 400_000 / 30, "evaluation", per_event=400_000)
        made = explained(tmp_path, seen, growing)
        assert seen["events"] >= 2
        assert "unfinished" not in seen
        assert {(site.role, site.line) for site in made.sites[:2]} == {
            ("held", line_of(EVALUATED, "results.append")),
            ("allocated", line_of(EVALUATED, "scores = ")),
        }
        assert made.explained == pytest.approx(1.0, abs=0.1)

    def test_waits_for_steps_where_the_events_have_ceased(self, tmp_path: Path) -> None:
        """Growth that followed new shapes goes on when each shape has come once: then it comes by steps."""
        request = {"component": "host.tensors", "clock": "shapes", "events": 2, "apart": 25}

        seen = look_into(tmp_path, EVERY, after=260, request=request)

        size = 64 * 512 * 4 / 25
        growing = Growing("host.tensors", size, "shape", per_event=size * 25)
        made = explained(tmp_path, seen, growing)
        assert "unfinished" not in seen
        assert (seen["by_events"], seen["every_steps"]) == (False, 25)
        assert made.sites[0].name == "cache"
        assert made.explained > 0.6

    def test_counts_open_files_at_each_line(self, tmp_path: Path) -> None:
        """Nothing in Python holds the descriptors that a library has opened; one that is closed again does not count."""
        seen = look_into(tmp_path, DESCRIPTORS, after=60, request={"component": "process.handles"})

        made = explained(tmp_path, seen, Growing("process.handles", 0.3))

        assert [(site.role, site.text) for site in made.sites] == [
            ("allocated", "return [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]")
        ]
        assert made.chain[0].startswith("opened at train.py:")

    def test_counts_no_more_for_an_experiment_where_enough_was_counted(self, tmp_path: Path) -> None:
        """The second is made at once, and says what a collection has freed, and that it was tensors."""
        *_, first, second = ask(tmp_path, GARBAGE, [(60, "experiment", {}), (200, "experiment", {})])

        assert "census" in first
        assert "census" not in second
        assert second["experiment"]["collected"] > 50 * 80_000
        assert second["experiment"]["collected_tensors"] > 0.8 * second["experiment"]["collected"]
