"""`holdwater run`: an unchanged script runs as without it, and its memory is judged however it ends."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODEL = """
import torch
from torch import nn
torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
def train_step(step=0, rows=8):
    loss = model(torch.randn(rows, 16)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
"""

ACCUMULATION = """
for n in range(40):
    model(torch.randn(8, 16)).mean().backward()
    if n % 4 == 3:
        optimizer.step(); optimizer.zero_grad()
"""
TWO_OPTIMIZERS = """
other = torch.optim.SGD(nn.Linear(4, 4).parameters(), lr=0.1)
for _ in range(25):
    train_step()
    other.step()
"""

BUILT_FOR_CUDA = """
import torch
def no_driver(*_):
    raise RuntimeError("Found no NVIDIA driver on your system")
torch.version.cuda = "13.0"
torch.cuda.is_current_stream_capturing = torch.cuda.current_stream = no_driver
"""
"""What PyTorch's build for CUDA does on a machine without a driver."""

Observe = Callable[..., tuple["subprocess.CompletedProcess[str]", dict[str, Any]]]


class TestTheScriptIsItself:
    """Output, exit code, arguments and signals are the script's own."""

    def test_output_and_status_are_as_without(self, observe: Observe, tmp_path: Path) -> None:
        """Byte for byte, with an uncaught exception at the end."""
        script = """
            import os, sys
            print(__name__, __file__, sys.argv, os.path.basename(sys.path[0]), __package__)
            print("remark", file=sys.stderr)
            def fail():
                raise ValueError("no")
            fail()
        """
        done, verdict = observe(script, arguments=("--lr", "3", "--json", "mine"))
        plain = subprocess.run(
            [sys.executable, "script.py", "--lr", "3", "--json", "mine"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

        assert (done.returncode, done.stdout, done.stderr) == (plain.returncode, plain.stdout, plain.stderr)
        assert verdict["exit_code"] == 1

    @pytest.mark.parametrize(
        ("ending", "status"),
        [("sys.exit(7)", 7), ("os._exit(5)", 5), ("sys.exit('why')", 1), ("os.kill(os.getpid(), 9)", -9), ("", 0)],
        ids=["exit", "_exit", "exit with text", "kill", "end"],
    )
    def test_every_end_leaves_a_verdict(self, observe: Observe, ending: str, status: int) -> None:
        """With the number of steps that were made, and the script's own end."""
        done, verdict = observe(f"import os, sys\n{MODEL}\nfor step in range(60): train_step()\n{ending}\n")

        assert done.returncode == verdict["exit_code"] == status
        assert (verdict["steps"], verdict["step_source"]) == (60, "torch")
        assert verdict["findings"]

    def test_a_module_is_run_as_python_does(self, tmp_path: Path) -> None:
        """`-m package` runs its `__main__`, with relative imports."""
        (tmp_path / "pack").mkdir()
        (tmp_path / "pack" / "__init__.py").write_text("")
        (tmp_path / "pack" / "other.py").write_text("word = 'hello'")
        (tmp_path / "pack" / "__main__.py").write_text(
            "import sys\nfrom .other import word\nprint(word, __package__, __name__, sys.argv[1:])\n"
        )
        arguments = ["-m", "pack", "--flag"]
        program = str(Path(sys.executable).with_name("holdwater"))

        done, plain = (
            subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
            for command in ([program, "run", "--quiet"], [sys.executable])
        )

        assert (done.returncode, done.stdout, done.stderr) == (plain.returncode, plain.stdout, plain.stderr)

    def test_files_of_the_working_folder_shadow_nothing(self, tmp_path: Path) -> None:
        """A script elsewhere, and a `json.py` here that would fail."""
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "script.py").write_text("import json\nprint(json.dumps([1]))\n")
        (tmp_path / "json.py").write_text("raise ImportError('not this one')\n")
        program = str(Path(sys.executable).with_name("holdwater"))

        done = subprocess.run(
            [program, "run", "--quiet", "elsewhere/script.py"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

        assert (done.returncode, done.stdout, done.stderr) == (0, "[1]\n", "")

    def test_losses_are_the_same_to_the_bit(self, observe: Observe, tmp_path: Path) -> None:
        """Observation changes nothing, experiments included."""
        done, _ = observe(
            MODEL + "kept = []\nfor step in range(200):\n    print(train_step().hex())\n"
            "    kept.append(torch.ones(50_000))\n"
        )
        plain = subprocess.run(
            [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True
        )

        assert done.stdout == plain.stdout

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_passes_signals_on(self, tmp_path: Path, number: signal.Signals) -> None:
        """A signal to the command reaches the script, and its answer comes back."""
        (tmp_path / "script.py").write_text(
            "import os, signal, sys, time\n"
            "def stop(number, frame):\n    os.write(1, f'got {number}\\n'.encode())\n    sys.exit(3)\n"
            f"signal.signal({int(number)}, stop)\nos.write(1, b'ready\\n')\ntime.sleep(60)\n"
        )
        program = str(Path(sys.executable).with_name("holdwater"))
        with subprocess.Popen(
            [program, "run", "--quiet", "script.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            said = process.stdout.read()

        assert (said, process.wait(timeout=20)) == (f"got {int(number)}\n", 3)

    def test_ends_by_the_signal_that_ended_the_script(self, tmp_path: Path) -> None:
        """A shell sees what it would have seen."""
        (tmp_path / "script.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
        program = str(Path(sys.executable).with_name("holdwater"))
        with subprocess.Popen(
            [program, "run", "--quiet", "script.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.terminate()

        assert process.wait(timeout=20) == -signal.SIGTERM

    def test_ends_after_the_steps_that_were_asked_for(self, observe: Observe) -> None:
        """With 0, and the script's own clean-up done."""
        script = MODEL + "try:\n    while True:\n        train_step()\nfinally:\n    print('clean')\n"

        done, verdict = observe(script, "--steps", "40")

        assert (done.returncode, done.stdout) == (0, "clean\n")
        assert (verdict["steps"], verdict["exit_code"]) == (40, 0)

    def test_a_fork_is_not_the_run(self, observe: Observe) -> None:
        """A forked child that steps and ends by itself counts nothing and writes nothing."""
        script = (
            "import os\n" + MODEL + "for step in range(30): train_step()\n"
            "if os.fork() == 0:\n    for step in range(50): train_step()\n    raise SystemExit(9)\n"
            "os.wait()\nprint('parent')\n"
        )
        done, verdict = observe(script)

        assert (done.returncode, done.stdout, verdict["steps"]) == (0, "parent\n", 30)

    def test_workers_that_are_spawned_find_the_script(self, observe: Observe) -> None:
        """`multiprocessing` imports the main module again."""
        script = """
            import multiprocessing
            def double(x):
                return 2 * x
            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(pool.map(double, [1, 2]))
        """
        done, verdict = observe(script)

        assert (done.returncode, done.stdout, done.stderr) == (0, "[2, 4]\n", "")
        assert (verdict["steps"], verdict["step_source"]) == (0, "time")


class TestTheClock:
    """What counts as a step."""

    @pytest.mark.parametrize(
        ("loop", "steps"),
        [
            ("for _ in range(30):\n    train_step()\n", 30),
            (ACCUMULATION, 10),
            (TWO_OPTIMIZERS, 25),
            ("import holdwater\nfor _ in range(12):\n    holdwater.step()\n    train_step()\n", 12),
        ],
        ids=["plain", "accumulation", "two optimizers", "own"],
    )
    def test_counts_optimizer_steps(self, observe: Observe, loop: str, steps: int) -> None:
        """The first optimizer's, or those that the script tells."""
        _, verdict = observe(MODEL + loop)

        assert verdict["steps"] == steps

    def test_a_burst_within_one_backward_counts_once(self, observe: Observe) -> None:
        """An optimizer that steps as each gradient is ready."""
        loop = """
for parameter in model.parameters():
    parameter.register_post_accumulate_grad_hook(lambda parameter: optimizer.step())
for _ in range(20):
    model(torch.randn(8, 16)).mean().backward()
"""
        _, verdict = observe(MODEL + loop)

        assert verdict["steps"] == 20

    def test_a_step_that_the_scaler_skips_is_a_step(self, observe: Observe) -> None:
        """Every third loss overflows."""
        loop = """
scaler = torch.amp.GradScaler("cpu")
for n in range(30):
    loss = model(torch.randn(8, 16)).mean() * (float("inf") if n % 3 == 0 else 1.0)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
"""
        _, verdict = observe(MODEL + loop)

        assert verdict["steps"] == 30

    def test_time_is_the_clock_where_nothing_steps(self, observe: Observe) -> None:
        """A script without an optimizer is judged by the clock, once it has run for more than half a minute."""
        done, verdict = observe("import time\nkept = []\nfor _ in range(720):\n"
                                "    kept.append(bytearray(500_000)); time.sleep(0.05)\n")  # fmt: skip

        assert (done.returncode, verdict["steps"], verdict["step_source"]) == (0, 0, "time")
        assert verdict["verdict"] == "leak"

    def test_loading_is_no_leak(self, observe: Observe) -> None:
        """A script that loads 160 MB for some seconds, computes, and ends."""
        done, verdict = observe("import time\nkept = []\nfor _ in range(80):\n"
                                "    kept.append(bytearray(2_000_000)); time.sleep(0.05)\n", "--fail-on", "leak")  # fmt: skip

        assert done.returncode == 0
        assert verdict["verdict"] != "leak"

    @pytest.mark.slow
    def test_two_ranks_are_two_runs(self, tmp_path: Path) -> None:
        """As the module that `torchrun` launches; only the second rank leaks."""
        (tmp_path / "train.py").write_text(
            "import torch.distributed as dist\ndist.init_process_group('gloo')\n" + MODEL + "kept = []\n"
            "for step in range(200):\n    train_step()\n"
            "    if dist.get_rank() == 1: kept.append(torch.ones(50_000))\n"
            "dist.barrier()\ndist.destroy_process_group()\n"
        )
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "holdwater"]

        subprocess.run(
            [*launch, "run", "--json", "v.json", "--out", "run", "train.py"],
            cwd=tmp_path, capture_output=True, check=True, timeout=200,
        )  # fmt: skip

        first, second = (json.loads((tmp_path / name).read_text()) for name in ("v.json", "v.json.rank-1"))
        assert (first["steps"], second["steps"]) == (200, 200)
        assert first["verdict"] != "leak"
        assert second["findings"][0]["component"] == "host.tensors"

    def test_each_rank_writes_its_own_file(self, observe: Observe, tmp_path: Path) -> None:
        """Rank 0 the file itself, the others beside it."""
        observe("print(1)", RANK="2")

        assert json.loads((tmp_path / "v.json.rank-2").read_text())["exit_code"] == 0
        assert not (tmp_path / "v.json").exists()


class TestABuildForCudaWithoutADriver:
    """PyTorch as the registry gives it, on a machine without a GPU."""

    def test_trains_and_counts_as_bare(self, observe: Observe) -> None:
        """The question whether a stream is being captured is asked only where a device is in use."""
        done, verdict = observe(BUILT_FOR_CUDA + MODEL + "for step in range(40): train_step()\nprint('done')\n")

        assert (done.returncode, done.stdout) == (0, "done\n")
        assert (verdict["steps"], verdict["step_source"]) == (40, "torch")

    def test_asks_where_a_device_is_in_use(self, observe: Observe) -> None:
        """A step inside a capture is counted when the graph is replayed, not when it is captured."""
        script = (
            MODEL
            + """
torch.version.cuda = "13.0"
torch.cuda.is_initialized = lambda: True
asked = []
torch.cuda.is_current_stream_capturing = lambda: asked.append(1) or step % 2 == 1
for step in range(60): train_step()
print(len(asked) >= 60)
"""
        )
        done, verdict = observe(script)

        assert (done.stdout, verdict["steps"]) == ("True\n", 30)


class TestTheVerdict:
    """What is said of a script's memory; the zoo has the rest."""

    def test_reports_a_leak_and_fails_on_it_where_asked(self, observe: Observe) -> None:
        """Tensors kept in a list: 200 kB a step, in steps long enough for a busy machine to judge meanwhile."""
        loop = "import time\nkept = []\nfor step in range(300):\n    train_step()\n    time.sleep(0.02)\n"
        loop += "    kept.append(torch.ones(50_000))\n"

        done, verdict = observe(MODEL + loop, "--fail-on", "leak", "--max-memory", "4GB", "--report", "r.html")

        finding = verdict["findings"][0]
        assert done.returncode == verdict["exit_code"] == 3
        assert (finding["verdict"], finding["component"], finding["follows"]) == ("leak", "host.tensors", "step")
        assert finding["rate"]["low"] <= 200_064 * 1.02
        assert finding["rate"]["bytes_per_step"] == pytest.approx(200_064, rel=0.03)
        assert finding["forecast"]["limit_bytes"] == 4_000_000_000
        assert finding["detected_step"] < 300
        parts = verdict["parts"]
        named = sum(size for name, size in parts.items() if name not in {"resident", "unaccounted"})
        assert named == pytest.approx(parts["resident"], rel=0.05)

    def test_ignores_the_same_script_without_the_list(self, observe: Observe) -> None:
        """The twin: each tensor is dropped."""
        loop = "for step in range(300):\n    train_step()\n    kept = torch.ones(50_000)\n"

        done, verdict = observe(MODEL + loop, "--fail-on", "leak")

        assert (done.returncode, verdict["verdict"]) == (0, "flat")

    def test_the_scripts_own_status_wins(self, observe: Observe) -> None:
        """A leak and a failure: the failure."""
        loop = "kept = []\nfor step in range(300):\n    train_step()\n    kept.append(torch.ones(50_000))\nraise SystemExit(4)\n"

        done, verdict = observe(MODEL + loop, "--fail-on", "leak")

        assert (done.returncode, verdict["verdict"]) == (4, "leak")

    def test_a_run_can_be_judged_again(self, observe: Observe, tmp_path: Path) -> None:
        """`replay` says the same, and changes nothing."""
        loop = "kept = []\nfor step in range(300):\n    train_step()\n    kept.append(torch.ones(50_000))\n"
        observe(MODEL + loop, "--out", "run")
        before = (tmp_path / "run" / "rank-0.db").read_bytes()
        program = str(Path(sys.executable).with_name("holdwater"))

        done = subprocess.run(
            [program, "replay", "run", "--json", "again.json", "--fail-on", "leak"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

        again = json.loads((tmp_path / "again.json").read_text())
        assert done.returncode == 3, done.stderr
        assert (again["verdict"], again["findings"][0]["component"]) == ("leak", "host.tensors")
        assert (tmp_path / "run" / "rank-0.db").read_bytes() == before


class TestMistakes:
    """One message each, exit code 2, and nothing is run."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "nothing to run"),
            (["no.py"], "no.py does not exist"),
            (["--max-memory", "7XB", "x.py"], "unknown unit 'XB'"),
            (["--json", "no/folder/v.json", "x.py"], "--json no/folder/v.json cannot be written"),
            (["--steps", "-1", "x.py"], "--steps is -1"),
        ],
    )
    def test_names_what_is_wrong(self, tmp_path: Path, arguments: list[str], message: str) -> None:
        """And what to write."""
        (tmp_path / "x.py").write_text("open('ran', 'w')")
        program = str(Path(sys.executable).with_name("holdwater"))

        done = subprocess.run(
            [program, "run", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "ran").exists()
