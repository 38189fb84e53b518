"""A leak is explained in the live run: the line that allocates, the list that holds, the cure; and nothing changes."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Observe = Callable[..., tuple["subprocess.CompletedProcess[str]", dict[str, Any]]]

SCRIPT = """
import os, signal, sys, time
import torch
from torch import nn
torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
rows = []

def train(steps):
    for step in range(steps):
        batch = torch.randn(256, 64)
        hidden = model[:2](batch)
        loss = model[2:](hidden).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows.append(hidden.detach()[:16])
        print(loss.item().hex(), flush=True)
"""
KEEPS, MAKES = SCRIPT.splitlines().index("        rows.append(hidden.detach()[:16])") + 1, 14


class Explained(NamedTuple):
    """400 steps of the script, under the installed command."""

    done: "subprocess.CompletedProcess[str]"
    verdict: dict[str, Any]
    folder: Path


@pytest.fixture(scope="class")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Explained:
    """One run, which several tests look at."""
    folder = tmp_path_factory.mktemp("explained")
    (folder / "script.py").write_text(SCRIPT + "train(400)\n", encoding="utf-8")
    program = str(Path(sys.executable).with_name("holdwater"))
    command = [program, "run", "--json", "v.json", "--quiet", "--report", "r.html", "--out", "run", "script.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    return Explained(done, json.loads((folder / "v.json").read_text(encoding="utf-8")), folder)


class TestExplain:
    """Who allocates, and who holds it."""

    @pytest.mark.alone
    def test_names_the_holder_and_the_line(self, explained: Explained) -> None:
        """In the verdict, in the report, and with the cure."""
        finding = explained.verdict["findings"][0]
        held, made = finding["sites"][:2]

        assert (finding["verdict"], finding["component"]) == ("leak", "host.tensors")
        assert (held["role"], held["name"], held["kind"], held["line"]) == ("held", "rows", "list", KEEPS)
        assert (made["role"], made["line"], made["file"]) == (
            "allocated",
            MAKES,
            str(explained.folder / "script.py"),
        )
        assert made["bytes_per_step"] == pytest.approx(finding["rate"]["bytes_per_step"], rel=0.1)
        assert finding["explained"] > 0.8
        assert finding["pattern"] == "view-keeps-base"
        assert "rows.append" in (explained.folder / "r.html").read_text(encoding="utf-8")

    @pytest.mark.alone
    def test_is_there_within_sixty_steps_of_the_verdict(self, explained: Explained) -> None:
        """And says what it cost; how much that may be, `benchmarks/explanations.py` holds."""
        finding = explained.verdict["findings"][0]

        assert finding["explained_step"] - finding["detected_step"] <= 60
        assert explained.verdict["overhead"]["attribution_seconds"] > 0

    @pytest.mark.alone
    def test_changes_no_bit_of_a_loss(self, explained: Explained) -> None:
        """The same script without holdwater."""
        plain = subprocess.run(
            [sys.executable, "script.py"], cwd=explained.folder, capture_output=True, text=True, check=True
        )

        assert explained.done.stdout == plain.stdout

    def test_survives_the_death_of_the_process(self, observe: Observe, tmp_path: Path) -> None:
        """Killed a moment after the window was closed."""
        script = SCRIPT + (
            "from pathlib import Path\n"
            "from holdwater.observe.agent import session\n"
            "folder = session.current().folder\n"
            "for _ in range(4000):\n"
            "    train(1)\n"
            "    if any('explanation' in p.read_text() for p in folder.glob('answer-*.json')):\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done, verdict = observe(script, "--out", "run")

        database = sqlite3.connect(tmp_path / "run" / "rank-0.db")
        stored = [json.loads(body) for (body,) in database.execute("SELECT body FROM explanations")]
        database.close()
        assert done.returncode == -9
        assert verdict["findings"][0]["sites"][0]["name"] == "rows"
        assert stored[-1]["sites"][0]["name"] == "rows"

    def test_says_what_is_missing_without_memray(self, observe: Observe, tmp_path: Path) -> None:
        """The holder is named all the same, and the line by the source."""
        (tmp_path / "memray.py").write_text("raise ImportError('not here')")

        _, verdict = observe(SCRIPT + "train(400)\n")

        finding = verdict["findings"][0]
        assert any("memray is not installed" in reason for reason in finding["missing"])
        assert {site["line"] for site in finding["sites"]} >= {KEEPS, MAKES}

    def test_a_healthy_script_is_left_alone(self, observe: Observe) -> None:
        """Nothing is explained where nothing grows."""
        _, verdict = observe(SCRIPT.replace("rows.append(", "rows = (") + "train(200)\n")

        assert verdict["verdict"] == "flat"
        assert all(not finding["sites"] for finding in verdict["findings"])

    def test_looks_inside_a_loader_worker(self, observe: Observe) -> None:
        """The dataset's own list, longer than the dataset, in the process of a worker; the training does not grow."""
        script = """
            import time
            import numpy as np
            import torch
            from torch.utils.data import DataLoader, Dataset

            class Rows(Dataset):
                def __init__(self):
                    self.decoded = []
                def __len__(self):
                    return 800
                def __getitem__(self, index):
                    row = np.random.rand(6000)
                    self.decoded.append(row)
                    return torch.from_numpy(row[:8]).float()

            model = torch.nn.Linear(8, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            loader = DataLoader(Rows(), batch_size=4, num_workers=2, persistent_workers=True)
            for epoch in range(10):
                for batch in loader:
                    model(batch).mean().backward()
                    optimizer.step()
                    time.sleep(0.01)
        """

        _, verdict = observe(script)

        finding = next(one for one in verdict["findings"] if one["component"] == "host.children")
        assert finding["verdict"] == "leak"
        assert finding["sites"][0]["name"] == "decoded"
        assert finding["chain"][0].startswith("inside a loader worker")

    def test_looks_inside_a_process_of_multiprocessing(self, observe: Observe) -> None:
        """It keeps what it is sent; a second one, and the training process, do not."""
        script = """
            import multiprocessing
            import numpy as np
            import torch

            class Recorder:
                def __init__(self, keep):
                    self.keep, self.frames = keep, []
                def record(self, frame):
                    if self.keep:
                        self.frames.append(frame)
                    return float(frame.mean())

            def serve(pipe, keep):
                recorder = Recorder(keep)
                while (frame := pipe.recv()) is not None:
                    pipe.send(recorder.record(frame))

            def start(keep):
                ours, theirs = context.Pipe()
                context.Process(target=serve, args=(theirs, keep), daemon=True).start()
                return ours

            context = multiprocessing.get_context("fork")
            pipes = [start(True), start(False)]
            model = torch.nn.Linear(8, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for step in range(1200):
                for pipe in pipes:
                    pipe.send(np.random.rand(6000))
                model(torch.full((4, 8), sum(pipe.recv() for pipe in pipes))).mean().backward()
                optimizer.step()
                sum(i * i for i in range(60000))
        """

        _, verdict = observe(script)

        finding = next(one for one in verdict["findings"] if one["component"] == "host.children")
        assert finding["verdict"] == "leak"
        assert finding["sites"][0]["name"] == "frames"
        assert finding["explained"] > 0.5
        assert finding["chain"][0].startswith("inside the process `ForkProcess-1` of multiprocessing")

    @pytest.mark.alone
    def test_names_the_call_that_registers_a_hook(self, observe: Observe) -> None:
        """A lambda is registered at each step: the table of hooks holds it, and the user's own call puts it there."""
        script = """
            import time
            import torch

            class Net(torch.nn.Module):
                def __init__(self):
                    super().__init__()
                    self.layer = torch.nn.Linear(64, 1)
                def forward(self, x):
                    return self.layer(x)

            model = Net()
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
            for step in range(400):
                batch = torch.randn(256, 64)
                model.register_forward_hook(lambda module, args, out, batch=batch: None)
                model(batch).mean().backward()
                optimizer.step()
                time.sleep(0.002)
        """

        _, verdict = observe(script)

        finding = verdict["findings"][0]
        held = next(site for site in finding["sites"] if site["role"] == "held")
        assert (held["name"], held["text"].partition("(")[0]) == ("_forward_hooks", "model.register_forward_hook")
        assert finding["pattern"] == "hook-added-each-step"

    def test_says_which_child_grows(self, observe: Observe) -> None:
        """A manager's process holds the list; the training process does not grow."""
        script = """
            import multiprocessing, time
            import torch

            if __name__ == "__main__":
                manager = multiprocessing.Manager()
                seen = manager.list()
                model = torch.nn.Linear(8, 1)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
                for step in range(800):
                    model(torch.randn(4, 8)).mean().backward()
                    optimizer.step()
                    seen.append(b"x" * 100_000)
                    time.sleep(0.01)
        """

        _, verdict = observe(script)

        finding = next(one for one in verdict["findings"] if one["component"] == "host.children")
        assert finding["verdict"] == "leak"
        assert any(line.startswith("the multiprocessing manager `SyncManager-1` (") for line in finding["chain"])
        held = next(site for site in finding["sites"] if site["role"] == "held")
        assert (held["name"], held["text"]) == ("seen", 'seen.append(b"x" * 100_000)')

    def test_a_script_that_records_with_memray_itself_goes_on(self, observe: Observe) -> None:
        """Its recorder wins, at each step; who holds the growth is said all the same."""
        script = """
            import tempfile
            import memray, torch
            folder, kept = tempfile.mkdtemp(), []
            model = torch.nn.Linear(64, 64)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for step in range(300):
                with memray.Tracker(f"{folder}/{step}.bin"):
                    model(torch.randn(8, 64)).sum().backward()
                    kept.append(torch.randn(50_000))
                optimizer.step()
            print("done", len(list(memray.FileReader(f"{folder}/299.bin").get_allocation_records())) > 0)
        """

        done, verdict = observe(script)

        finding = verdict["findings"][0]
        assert (done.returncode, done.stdout) == (0, "done True\n")
        assert finding["sites"][0]["name"] == "kept"
        assert any("memray itself" in reason for reason in finding["missing"])

    @pytest.mark.alone
    def test_a_script_that_ends_in_the_first_step_of_a_window_has_its_own_end(self, observe: Observe) -> None:
        """The verdict is there, and so is the script's own mistake."""
        script = """
            import sys
            import torch
            kept = []
            model = torch.nn.Linear(64, 64)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for step in range(400):
                model(torch.randn(8, 64)).sum().backward()
                kept.append(torch.randn(50_000))
                optimizer.step()
                if "memray" in sys.modules:
                    raise ValueError("the script's own mistake")
        """

        done, verdict = observe(script)

        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "ValueError: the script's own mistake"
        assert verdict["exit_code"] == 1
        assert verdict["findings"][0]["sites"][0]["known_by"] == "source"

    def test_a_profiler_of_the_scripts_stays_on(self, observe: Observe) -> None:
        """It counts every call, and the verdict says what was not looked at for it."""
        script = """
            import cProfile, pstats
            import torch
            kept = []

            def work(step):
                return torch.full((64, 1024), float(step))

            def train():
                model = torch.nn.Linear(8, 8)
                optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
                for step in range(1500):
                    optimizer.zero_grad(); model(torch.ones(4, 8)).mean().backward(); optimizer.step()
                    kept.append(work(step))

            profile = cProfile.Profile()
            profile.enable()
            train()
            profile.disable()
            print({key[2]: row[0] for key, row in pstats.Stats(profile).stats.items() if key[2] == "work"})
        """

        done, verdict = observe(script)

        finding = verdict["findings"][0]
        assert done.stdout == "{'work': 1500}\n"
        assert finding["sites"][0]["name"] == "kept"
        assert any(reason.startswith("a profile") for reason in finding["missing"])
