"""The end of a guarded loop, and guards in threads and forked processes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from holdwater.budget import Budget, Budgets
from holdwater.detectors.headroom import HeadroomConfig
from holdwater.guard.core import CoreConfig, GuardCore
from holdwater.guard.guard import Guard
from holdwater.store.history import read_history
from holdwater.testing import make_sample
from holdwater.units import Bytes

SCRIPT = """
import sys
import torch
from holdwater import Guard
torch.set_num_threads(1)
model = torch.nn.Linear(64, 64)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
kept = []
with Guard(max_memory="20GB") as guard:
    for _ in guard.steps(range(300)):
        optimizer.zero_grad(); model(torch.randn(8, 64)).pow(2).mean().backward(); optimizer.step()
        if sys.argv[1] != "healthy": kept.append(torch.randn(20_000))
    if sys.argv[1] == "freed": kept.clear()
print(guard.verdict.kind)
"""


def core_after(rate: float) -> GuardCore:
    """A core that has seen 500 steps of memory that grows by so many bytes a step."""
    core = GuardCore(
        Budgets(Budget(Bytes(50 * 10**9), "given", "")),
        CoreConfig(headroom=HeadroomConfig(waiting_below=Bytes(0), stopping_below=Bytes(0))),
    )
    for step in range(1, 501):
        core.observe(make_sample(step, 3e8 + rate * step))
    return core


class TestEnd:
    """What is freed after the last step says nothing about the loop."""

    @pytest.mark.alone
    @pytest.mark.parametrize(
        ("what", "kinds"), [("freed", {"leak"}), ("kept", {"leak"}), ("healthy", {"flat", "warming"})]
    )
    def test_a_leak_of_the_loop_stays_one(self, tmp_path: Path, what: str, kinds: set[str]) -> None:
        """Freed before the guard closes, kept, and none at all."""
        (tmp_path / "s.py").write_text(SCRIPT)

        done = subprocess.run(
            [sys.executable, "s.py", what], cwd=tmp_path, capture_output=True, text=True, check=True
        )

        assert done.stdout.strip() in kinds

    def test_memory_that_fell_after_the_last_step(self) -> None:
        """The loop's own verdict holds."""
        assert core_after(5e5).judge_end(make_sample(500, 3e8)).kind == "leak"

    def test_memory_that_fell_after_a_healthy_loop(self) -> None:
        """The twin: no leak."""
        assert core_after(0).judge_end(make_sample(500, 2e8)).kind != "leak"


class TestThreadsAndForks:
    """The history is that of the process that has entered the guard, from any of its threads."""

    def test_a_guard_used_in_another_thread_writes_its_history(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Entered and closed here, stepped there, with a write to the store after each sample."""

        def train() -> None:
            for _ in range(200):
                guard._next_flush = 0.0
                guard.step()

        with Guard(max_memory="4GB", out=tmp_path) as guard:
            training = threading.Thread(target=train)
            training.start()
            training.join()

        history = read_history(tmp_path)
        assert not caplog.records
        assert history.summary is not None
        assert history.summary["steps"] == 200

    def test_a_forked_copy_writes_nothing(self, tmp_path: Path) -> None:
        """SQLite forbids a connection that two processes use."""
        with Guard(max_memory="4GB", out=tmp_path) as guard:
            guard.step()
            pid = os.fork()
            if pid == 0:
                for _ in range(300):
                    guard.step()
                guard.__exit__(None, None, None)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            guard.step()

        history = read_history(tmp_path)
        assert history.summary is not None
        assert history.summary["steps"] == 2
        assert int(history.samples.last_step.max()) == 2
