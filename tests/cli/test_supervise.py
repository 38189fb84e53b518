"""A run outlives its process: recycled, killed, hung or asked to stop, it goes on exactly."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

Run = Callable[..., "subprocess.CompletedProcess[str]"]
STEPS = "150"
TINY = (
    *("train", "--preset", "tiny", "--train-seq-length", "16", "--eval-batches", "2", "--steps", STEPS),
    *("--sample-length", "0", "--threads", "1", "--max-memory", "4GB", "--checkpoint-interval", "40"),
    *("--eval-interval", "50", "--data", "text.txt"),
)
PROGRAM = str(Path(sys.executable).with_name("holdwater"))
ONCE = """
import os, pathlib, signal, time
def act(guard):
    if guard.step_number == 60 and not pathlib.Path('acted').exists():
        pathlib.Path('acted').touch()
        ACTION
"""
DIES_ONCE = "step == 70 and not os.path.exists('acted') and (open('acted', 'w'), os.kill(os.getpid(), 9))"
SCRIPT = """
import ctypes, os, sys
import torch
import holdwater
torch.manual_seed(0)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.1), torch.nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters())
order = torch.Generator().manual_seed(1)
for name, thing in (("model", model), ("optimizer", optimizer), ("order", order)):
    holdwater.resumable(name, thing)
losses = open("losses.txt", "a")
for step in holdwater.steps(120):
    libc.memset(libc.malloc(LEAK), 1, LEAK)
    loss = model(torch.randn(4, 8, generator=order)).pow(2).mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    print(step, loss.item().hex(), file=losses, flush=True)
    EXTRA
print("trained")
"""


def tensors(run: Path) -> dict[str, bytes]:
    """The bytes of every tensor of the newest checkpoint of a run."""
    return {
        f"{path.name}/{name}": array.tobytes()
        for path in sorted(max((run / "checkpoints").glob("step-*")).glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def left_in_memory(run: Path) -> list[Path]:
    """Folders in memory that a run has left behind."""
    folders = Path("/dev/shm").glob("holdwater-*")  # noqa: S108 - where they are
    return [folder for folder in folders if (folder / "run").read_text() == str(run)]


def trainer_of(supervisor: int) -> psutil.Process:
    """The training process: the fork server's child."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        servers = psutil.Process(supervisor).children()
        grandchildren = [child for server in servers for child in server.children()]
        if grandchildren:
            return grandchildren[0]
        time.sleep(0.05)
    raise AssertionError("no training process was started")


def wait_for_checkpoint(run: Path) -> None:
    """Wait until a run has left a checkpoint after its first step."""
    until = time.monotonic() + 60
    while time.monotonic() < until and not any((run / "checkpoints").glob("step-0000004*")):
        time.sleep(0.02)


@pytest.fixture
def text(tmp_path: Path, text_file: Path) -> None:
    """The text, in the folder where the command runs."""
    assert text_file == tmp_path / "text.txt"


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tensors of a run that nobody disturbed, in one process without a supervisor."""
    folder = tmp_path_factory.mktemp("straight")
    text = "".join(f"line {number}: the quick brown fox\n" for number in range(600))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    subprocess.run([PROGRAM, *TINY, "--no-supervise", "--out", "run"], cwd=folder, check=True, capture_output=True)
    return tensors(folder / "run")


@pytest.mark.usefixtures("text")
class TestTrain:
    """`holdwater train` keeps a supervisor."""

    def test_recycles_every_so_many_steps_exactly(
        self, holdwater: Run, tmp_path: Path, straight: dict[str, bytes]
    ) -> None:
        """Four processes, one run; nothing is left behind."""
        done = holdwater(*TINY, "--out", "run", "--reload-interval", "40", "--json", "v.json")

        verdict = json.loads((tmp_path / "v.json").read_text())
        recycled = [action for action in verdict["actions"] if action["action"] == "recycle"]
        assert done.returncode == 0, done.stderr
        assert [action["step"] for action in recycled] == [40, 80, 120]
        assert all(action["reason"] == "every 40 steps, as configured" for action in recycled)
        assert (verdict["processes"], verdict["steps"]) == (4, 150)
        assert tensors(tmp_path / "run") == straight
        assert not processes_of(tmp_path)
        assert not left_in_memory(tmp_path / "run")

    @pytest.mark.parametrize(
        ("action", "words"),
        [
            ("os.kill(os.getpid(), 9)", "it ended with SIGKILL after step 60"),
            ("os._exit(9)", "it ended with exit code 9 after step 60"),
            ("os.kill(os.getppid(), 9); time.sleep(60)", "it ended with SIGKILL"),
            ("time.sleep(120)", "no step for"),
        ],
        ids=["killed", "crashed", "fork server killed", "hung"],
    )
    def test_goes_on_exactly(
        self, holdwater: Run, tmp_path: Path, straight: dict[str, bytes], action: str, words: str
    ) -> None:
        """Whatever ends the training process."""
        (tmp_path / "once.py").write_text(ONCE.replace("ACTION", action))

        done = holdwater(*TINY, "--out", "run", "--callback", "once:act", "--hang-timeout", "8")

        assert done.returncode == 0, done.stderr
        assert words in done.stderr
        assert tensors(tmp_path / "run") == straight
        assert not processes_of(tmp_path)

    def test_gives_up_on_one_that_always_dies_at_the_same_step(
        self, holdwater: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After four processes that got no further; with the process's own end."""
        (tmp_path / "always.py").write_text(
            "import os\ndef act(guard):\n    if guard.step_number == 60: os.kill(os.getpid(), 9)\n"
        )

        (tmp_path / "message").touch()
        monkeypatch.setenv("HOLDWATER_TERMINATION_LOG", "message")

        done = holdwater(*TINY, "--out", "run", "--callback", "always:act")

        assert done.returncode == -signal.SIGKILL
        assert "4 times in a row without getting further: it is not started again" in done.stderr
        why = done.stderr.splitlines()[-1]
        assert why.startswith("holdwater: ended by a signal after step 60: ")
        assert "Nothing says that memory was short." in why
        assert (tmp_path / "message").read_text() == f"{why}\n"

    def test_one_that_always_hangs_at_the_same_step_is_given_up(self, holdwater: Run, tmp_path: Path) -> None:
        """Each hang is noticed, also by a process that went on from a step before; it can be resumed (75)."""
        (tmp_path / "always.py").write_text(
            "import time\ndef act(guard):\n    if guard.step_number == 60: time.sleep(600)\n"
        )

        done = holdwater(*TINY, "--out", "run", "--callback", "always:act", "--hang-timeout", "3")

        assert done.returncode == 75
        assert "it made no step for too long after step 60; 4 times in a row" in done.stderr

    def test_the_death_of_the_supervisor_ends_all_and_loses_nothing(
        self, holdwater: Run, tmp_path: Path, straight: dict[str, bytes]
    ) -> None:
        """The training process notices, and stops with a checkpoint; the next start goes on."""
        (tmp_path / "slow.py").write_text("import time\ndef act(guard): time.sleep(0.05)\n")
        with subprocess.Popen(
            [PROGRAM, *TINY, "--out", "run", "--callback", "slow:act"], cwd=tmp_path, stderr=subprocess.DEVNULL
        ) as supervisor:
            wait_for_checkpoint(tmp_path / "run")
            supervisor.kill()
        until = time.monotonic() + 10
        while processes_of(tmp_path) and time.monotonic() < until:
            time.sleep(0.1)

        left = processes_of(tmp_path)
        done = holdwater(*TINY, "--out", "run", "--resume")

        assert not left
        assert done.returncode == 0, done.stderr
        assert tensors(tmp_path / "run") == straight

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_stops_it_with_a_checkpoint(self, tmp_path: Path, number: signal.Signals) -> None:
        """Sent to the supervisor, by its number alone."""
        (tmp_path / "slow.py").write_text("import time\ndef act(guard): time.sleep(0.05)\n")
        with subprocess.Popen(
            [PROGRAM, *TINY, "--out", "run", "--callback", "slow:act"],
            cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        ) as supervisor:  # fmt: skip
            wait_for_checkpoint(tmp_path / "run")
            supervisor.send_signal(number)
            _, remarks = supervisor.communicate(timeout=60)

        assert supervisor.returncode == 75
        assert f"it received {number.name}" in remarks
        assert not processes_of(tmp_path)

    def test_a_stopped_process_goes_on_where_it_stood(self, tmp_path: Path, straight: dict[str, bytes]) -> None:
        """SIGSTOP for a while is no death, where no time was set for one."""
        (tmp_path / "slow.py").write_text("import time\ndef act(guard): time.sleep(0.02)\n")
        with subprocess.Popen(
            [PROGRAM, *TINY, "--out", "run", "--callback", "slow:act"], cwd=tmp_path, stderr=subprocess.DEVNULL
        ) as supervisor:
            wait_for_checkpoint(tmp_path / "run")
            trainer = trainer_of(supervisor.pid)
            trainer.suspend()
            time.sleep(2)
            trainer.resume()
            assert supervisor.wait(timeout=60) == 0

        assert tensors(tmp_path / "run") == straight

    def test_another_supervisor_is_not_doubled(self, holdwater: Run, tmp_path: Path) -> None:
        """Under torchrun there is one already: the run is one process."""
        flags = ("--out", "run", "--reload-interval", "50", "--json", "v.json")

        done = holdwater(*TINY, *flags, env=os.environ | {"TORCHELASTIC_RUN_ID": "1"})

        assert done.returncode == 0, done.stderr
        assert "recycling is refused" in done.stderr
        verdict = json.loads((tmp_path / "v.json").read_text())
        assert (verdict.get("processes", 1), verdict["steps"]) == (1, int(STEPS))
        assert "recycle" not in [action["action"] for action in verdict["actions"]]


class TestRun:
    """`holdwater run --supervise`: a script that registers its state."""

    @pytest.mark.parametrize(
        ("flags", "leak", "extra"),
        [
            (("--max-memory", "600MB"), 10_000_000, ""),
            (("--reload-interval", "50"), 1000, ""),
            ((), 1000, DIES_ONCE),
        ],
        ids=["a leak that breaks the budget", "every so many steps", "killed"],
    )  # fmt: skip
    def test_goes_on_exactly(
        self, holdwater: Run, tmp_path: Path, flags: tuple[str, ...], leak: int, extra: str
    ) -> None:
        """Each step's loss as in a plain run, none missing and none different."""
        plain = SCRIPT.replace("LEAK", "1000").replace("EXTRA", "")
        (tmp_path / "plain.py").write_text(plain.replace("losses.txt", "plain.txt"))
        (tmp_path / "train.py").write_text(SCRIPT.replace("LEAK", str(leak)).replace("EXTRA", extra))
        subprocess.run([sys.executable, "plain.py"], cwd=tmp_path, check=True, capture_output=True)

        often = ("--checkpoint-interval", "30")
        done = holdwater("run", "--supervise", "--out", "run", "--json", "v.json", *often, *flags, "train.py")

        rows = (tmp_path / "losses.txt").read_text().splitlines()
        verdict = json.loads((tmp_path / "v.json").read_text())
        assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
        assert set(rows) == set((tmp_path / "plain.txt").read_text().splitlines())
        assert (len(rows) == 120) is (not extra)
        assert verdict["processes"] > 1
        assert not processes_of(tmp_path)

    def test_a_script_without_registered_state_is_stopped_at_its_budget(
        self, holdwater: Run, tmp_path: Path
    ) -> None:
        """After what nobody uses was released; its own `finally` is run, and the kernel has killed nothing."""
        (tmp_path / "train.py").write_text(
            "import time, torch\nmodel = torch.nn.Linear(4, 1)\noptimizer = torch.optim.SGD(model.parameters())\n"
            "kept = []\ntry:\n    for step in range(300):\n"
            "        kept.append(torch.ones(2_500_000)); model(torch.ones(2, 4)).sum().backward()\n"
            "        optimizer.step(); time.sleep(0.01)\nfinally:\n    print('saved at the end')\n"
        )

        done = holdwater(
            "run", "--supervise", "--max-memory", "800MB", "--out", "run", "--json", "v.json", "train.py"
        )

        verdict = json.loads((tmp_path / "v.json").read_text())
        assert (done.returncode, done.stdout) == (75, "saved at the end\n"), done.stderr
        assert "and grows: the budget is spent after" in done.stderr
        assert {"collect", "trim"} <= {action["action"] for action in verdict["actions"]}
        assert verdict["peak"]["host_bytes"] < 900_000_000

    def test_a_healthy_script_is_left_alone(self, holdwater: Run, tmp_path: Path) -> None:
        """The twin: nothing is done."""
        (tmp_path / "train.py").write_text(
            "import torch\nmodel = torch.nn.Linear(4, 1)\noptimizer = torch.optim.SGD(model.parameters())\n"
            "for step in range(200):\n    model(torch.ones(2, 4)).sum().backward(); optimizer.step()\n"
        )

        done = holdwater(
            "run", "--supervise", "--max-memory", "800MB", "--out", "run", "--json", "v.json", "train.py"
        )

        assert done.returncode == 0, done.stderr
        assert not json.loads((tmp_path / "v.json").read_text())["actions"]

    def test_a_script_without_registered_state_is_not_started_again(self, holdwater: Run, tmp_path: Path) -> None:
        """It would begin anew."""
        (tmp_path / "train.py").write_text("import os\nprint('once', flush=True)\nos.kill(os.getpid(), 9)\n")

        done = holdwater("run", "--supervise", "--out", "run", "train.py")

        assert (done.returncode, done.stdout) == (-signal.SIGKILL, "once\n")
        assert "register the script's state with holdwater.resumable" in done.stderr

    @pytest.mark.parametrize(
        ("thing", "words"),
        [
            ("torch.utils.data.DataLoader([1])", "has no state_dict"),
            ("{'when': object()}", "progress.when is a builtins.object, which cannot be kept exactly"),
        ],
        ids=["a loader", "a part"],
    )
    def test_what_cannot_be_kept_exactly_is_refused(
        self, holdwater: Run, tmp_path: Path, thing: str, words: str
    ) -> None:
        """Never guessed."""
        (tmp_path / "train.py").write_text(
            f"import torch, holdwater\nholdwater.resumable('progress', {thing})\n"
            "for step in holdwater.steps(10): pass\n"
        )

        done = holdwater("run", "--supervise", "--out", "run", "train.py")

        assert done.returncode == 1
        assert words in done.stderr

    def test_is_a_plain_loop_without_a_supervisor(self, tmp_path: Path) -> None:
        """No checkpoint, no change."""
        (tmp_path / "train.py").write_text(SCRIPT.replace("LEAK", "1000").replace("EXTRA", ""))

        done = subprocess.run(
            [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False
        )

        assert (done.returncode, done.stdout) == (0, "trained\n")
        assert {path.name for path in tmp_path.iterdir()} == {"train.py", "losses.txt"}

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (("--reload-interval", "5"), "add --supervise"),
            (("--supervise", "--resume"), "add --out FOLDER"),
            (("--supervise", "--reload-interval", "0"), "--reload-interval is '0', but it must be 1 or more"),
            (("--supervise", "--keep-checkpoints", "0", "--max-restarts", "x"), "2 mistakes"),
        ],
        ids=["no supervisor", "no folder", "no steps", "two"],
    )
    def test_mistakes(self, holdwater: Run, tmp_path: Path, flags: tuple[str, ...], words: str) -> None:
        """One message, exit code 2."""
        (tmp_path / "train.py").write_text("print(1)\n")

        done = holdwater("run", *flags, "train.py")

        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
