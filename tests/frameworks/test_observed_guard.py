"""Tests of the guard beside which a second process watches: on real loops, in processes of their own."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from holdwater.frameworks.attached_session import observing_session
from holdwater.frameworks.loader_clock import loaders_watched
from holdwater.frameworks.observed_guard import ObservedGuard
from holdwater.observe.agent import session as sessions
from holdwater.store.history import read_history

LOOP = """
import json, sys
import torch
from holdwater.frameworks.observed_guard import ObservedGuard

torch.set_num_threads(1)
kept = []

def train(batch):
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if "leak" in sys.argv:
        kept.append(torch.ones(16_000))
    return loss.item()

def begin():
    global model, optimizer
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return torch.utils.data.DataLoader(torch.randn(3000, 64), batch_size=2, shuffle=True)

with ObservedGuard(out="run") as guard:
    losses = [train(batch) for batch in guard.steps(begin())]
bare = losses if "leak" in sys.argv else [train(batch) for batch in begin()]
print(json.dumps([losses, bare]))
json.dump(guard.summary() | {"metrics": guard.metrics()}, open("summary.json", "w"))
"""


def run(folder: Path, *words: str) -> tuple[list[list[float]], dict[str, Any], str]:
    """Run the loop in a process of its own; return its losses with and without, the judgement, and what was said."""
    script = folder / "loop.py"
    script.write_text(textwrap.dedent(LOOP), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), *words], cwd=folder, capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout), json.loads((folder / "summary.json").read_text()), done.stderr


@pytest.mark.alone
def test_names_line_and_holder_of_a_leak(tmp_path: Path) -> None:
    """Without `holdwater run`: while the loop runs on standard error, and at its end in the summary."""
    (losses, _), summary, said = run(tmp_path, "leak")
    stored = read_history(tmp_path / "run").summary

    leak = summary["findings"][0]
    sites = {(site["role"], site["name"]) for site in leak["sites"]}
    line = 1 + LOOP.splitlines().index("        kept.append(torch.ones(16_000))")
    assert (summary["verdict"], leak["component"], summary["steps"]) == ("leak", "host.tensors", len(losses))
    assert ("held", "kept") in sites
    assert {site["line"] for site in leak["sites"]} == {line}
    assert 60_000 < summary["metrics"]["memory/leak_bytes_per_step"] < 68_000
    assert "leak of host.tensors" in said
    assert stored is not None
    assert stored["findings"][0]["sites"] == leak["sites"]


def test_passes_a_healthy_loop_and_changes_no_loss(tmp_path: Path) -> None:
    """Every step is counted, and the losses are those without a guard."""
    (losses, bare), summary, said = run(tmp_path)

    assert losses == bare
    assert summary["steps"] == 1500
    assert summary["verdict"] in {"flat", "bounded", "cyclic"}
    assert "memory/leak_bytes_per_step" not in summary["metrics"]
    assert not said


def test_counts_for_holdwater_run_and_starts_no_other_watcher(observe: Any) -> None:
    """Each step once, by the guard; the outer verdict is the run's."""
    done, verdict = observe(LOOP, arguments=("leak",))

    assert done.returncode == 0, done.stderr
    assert (verdict["steps"], verdict["step_source"], verdict["verdict"]) == (1500, "holdwater.step", "leak")


class TestInThisProcess:
    """What a guard leaves behind: nothing."""

    def test_puts_back_what_it_has_hooked(self) -> None:
        """Loaders, samplers and modules are torch's own afterwards; the session counts nothing, and is none."""
        loader = torch.utils.data.DataLoader
        before = (loader.__iter__, torch.nn.Module.eval, dict(vars(torch.utils.data.sampler)))

        with ObservedGuard.for_rank(quiet=True) as guard:
            assert loader.__iter__ is not before[0]
            guard.step()
            session = sessions.current()

        assert (loader.__iter__, torch.nn.Module.eval, dict(vars(torch.utils.data.sampler))) == before
        assert session is not None
        assert session.forked
        assert not session.folder.exists()
        assert observing_session() is None

    def test_a_second_guard_counts_anew(self) -> None:
        """A program may train twice."""
        for _ in range(2):
            with ObservedGuard.for_rank(quiet=True, first_step=5) as guard:
                guard.step()
            assert guard.summary()["steps"] == 6

    def test_keeps_what_the_program_has_replaced_meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A hook of another library, set after ours, stays."""
        monkeypatch.setattr(torch.nn.Module, "eval", torch.nn.Module.eval)
        with ObservedGuard.for_rank(quiet=True):
            theirs = torch.nn.Module.eval = lambda module: module  # type: ignore[method-assign,assignment]

        assert torch.nn.Module.eval is theirs

    def test_a_hook_that_fails_leaves_torch_as_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was hooked before is undone."""
        before = torch.utils.data.DataLoader.__iter__
        hooks = {"torch.utils.data.dataloader": lambda _: setattr(torch.utils.data.DataLoader, "__iter__", None)}
        monkeypatch.setattr("holdwater.frameworks.loader_clock.attach", lambda *_: hooks)

        with pytest.raises(KeyError), loaders_watched(None):  # type: ignore[arg-type]
            pass

        assert torch.utils.data.DataLoader.__iter__ is before

    def test_goes_on_where_no_process_can_be_started(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """There is the guard's own verdict, and the reason is said."""

        def fail(*_: object, **__: object) -> None:
            """No process."""
            raise OSError("too many processes")

        monkeypatch.setattr("holdwater.frameworks.attached_session.subprocess.Popen", fail)
        with ObservedGuard() as guard:
            guard.step()

        assert guard.summary()["steps"] == 1
        assert "too many processes" in caplog.text
