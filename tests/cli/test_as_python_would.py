"""Under a supervisor a script is treated as Python itself would treat it: its end, its children, its environment."""

import gzip
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from holdwater.supervise.preimport import OURS, prepare

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PROGRAM = str(Path(sys.executable).with_name("holdwater"))
LOOP = """
import holdwater
state = {"n": 0}
holdwater.resumable("state", state)
for step in holdwater.steps(STEPS):
    state["n"] += 1
    BODY
"""


def loop(steps: int, body: str, before: str = "") -> str:
    """A script with a resumable loop."""
    return before + LOOP.replace("STEPS", str(steps)).replace("BODY", body.replace("\n", "\n    "))


class TestEnd:
    """What a script has begun is ended as it would be."""

    def test_threads_that_save_are_waited_for(self, holdwater: Run, tmp_path: Path) -> None:
        """A pool that writes checkpoints, in a process that is replaced every 3 steps."""
        before = (
            "import time, pathlib\nfrom concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\n"
            "def save(n):\n    time.sleep(0.3)\n    pathlib.Path(f'saved-{n}').touch()\n"
        )
        (tmp_path / "train.py").write_text(loop(9, "if step % 3 == 2: pool.submit(save, step)", before))

        done = holdwater("run", "--supervise", "--reload-interval", "3", "--out", "run", "train.py")

        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-2", "saved-5", "saved-8"]

    def test_files_are_whole_and_temporary_ones_gone(self, holdwater: Run, tmp_path: Path) -> None:
        """A gzip file without its end cannot be read; what C has printed is there."""
        (tmp_path / "train.py").write_text(
            "import ctypes, gzip, tempfile, sys\nctypes.CDLL(None).printf(b'from C\\n')\n"
            "g = gzip.open('log.gz', 'wt'); g.write('hello')\n"
            "t = tempfile.NamedTemporaryFile(dir='.', prefix='left-')\nsys.exit(2**40 + 3)\n"
        )

        done = holdwater("run", "--supervise", "--quiet", "--out", "run", "train.py")

        assert (done.returncode, done.stdout) == (3, "from C\n")
        assert gzip.decompress((tmp_path / "log.gz").read_bytes()) == b"hello"
        assert not list(tmp_path.glob("left-*"))

    def test_a_pool_in_the_loop_can_be_ended(self, holdwater: Run, tmp_path: Path) -> None:
        """Its processes are told so by SIGTERM, which the loop itself takes as a wish to stop."""
        body = (
            "if step == 1:\n    with mp.Pool(2) as pool:\n"
            "        next(pool.imap_unordered(time.sleep, [0.1, 1000, 1000]))\n    print('closed', flush=True)"
        )
        (tmp_path / "train.py").write_text(loop(3, body, "import multiprocessing as mp, time\n"))

        done = subprocess.run(
            [PROGRAM, "run", "--supervise", "--quiet", "--out", "run", "train.py"],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

        assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr

    def test_what_is_to_stay_stays(self, holdwater: Run, tmp_path: Path) -> None:
        """An upload in a session of its own, that the script has not waited for."""
        (tmp_path / "train.py").write_text(
            "import subprocess\n"
            "subprocess.Popen(['sh', '-c', 'sleep 2; touch uploaded'], start_new_session=True)\n"
        )

        done = holdwater("run", "--supervise", "--quiet", "--out", "run", "train.py")
        deadline = time.monotonic() + 20
        while not (tmp_path / "uploaded").exists() and time.monotonic() < deadline:
            time.sleep(0.1)

        assert done.returncode == 0, done.stderr
        assert (tmp_path / "uploaded").exists()

    def test_an_interrupt_during_the_imports_counts(self, tmp_path: Path) -> None:
        """Ctrl-C in a terminal, before there is a script to receive it."""
        (tmp_path / "train.py").write_text("import torch, time\ntime.sleep(1000)\n")
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(tmp_path)
            os.execv(PROGRAM, [PROGRAM, "run", "--quiet", "--supervise", "--out", "run", "train.py"])  # noqa: S606
        time.sleep(1.0)
        os.write(terminal, b"\x03")
        began = time.monotonic()
        status = None
        while status is None and time.monotonic() - began < 40:
            found, code = os.waitpid(pid, os.WNOHANG)
            status = code if found else None
            time.sleep(0.1)

        assert status is not None
        assert os.waitstatus_to_exitcode(status) != 0


class TestGoesOn:
    """A death is no reason to give up at the next replacement."""

    def test_replaced_before_the_step_at_which_it_died(self, holdwater: Run, tmp_path: Path) -> None:
        """Killed at step 50, gone on from 0, replaced at 25 for its memory."""
        before = "import os, pathlib, signal\ndied, hold = pathlib.Path('died'), []\n"
        body = (
            "if step == 50 and not died.exists():\n    died.touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
            "if died.exists() and step == 20: hold.append(bytearray(b'x') * (400 << 20))"
        )
        (tmp_path / "train.py").write_text(loop(80, body, before))

        done = holdwater(
            *("run", "--supervise", "--max-memory", "3GB", "--reload-threshold", "0.3GB", "--out", "run"),
            *("--json", "v.json", "train.py"),
        )

        assert done.returncode == 0, done.stderr
        verdict = json.loads((tmp_path / "v.json").read_text())
        assert [action["step"] for action in verdict["actions"] if action["action"] == "recycle"] == [21]

    @pytest.mark.parametrize(
        "variables", [{"TORCHELASTIC_RUN_ID": "1"}, {"WORLD_SIZE": "2"}, {"OMPI_COMM_WORLD_SIZE": "4"}]
    )
    def test_one_rank_of_several_is_not_replaced(
        self, holdwater: Run, tmp_path: Path, variables: dict[str, str]
    ) -> None:
        """Whoever has started them."""
        (tmp_path / "train.py").write_text(loop(3, "pass"))

        done = holdwater(
            "run", "--supervise", "--out", "run", "train.py", env=os.environ | {"RANK": "0"} | variables
        )

        assert done.returncode == 0, done.stderr
        assert "the script is watched only" in done.stderr


class TestPrepared:
    """What is imported once sees the environment that the script sets."""

    def prepared(self, tmp_path: Path, text: str) -> tuple[bool, dict[str, str]]:
        """Whether its imports are made once, and with what environment."""
        (tmp_path / "train.py").write_text(text)
        found = prepare([str(tmp_path / "train.py")])
        return found.modules != list(OURS), dict(found.environment)

    def test_constants_at_the_top_are_known(self, tmp_path: Path) -> None:
        """Set, or set where nothing is set yet."""
        text = "import os\nos.environ['A_B'] = '1'\nos.environ.setdefault('PATH', 'x')\nimport torch\n"

        assert self.prepared(tmp_path, text) == (True, {"A_B": "1"})

    @pytest.mark.parametrize(
        "line",
        [
            "os.environ['A'] = str(1)",
            "os.environ.update(A='1')",
            "os.putenv('A', '1')",
            "del os.environ['A']",
            "def f():\n    os.environ['A'] = '1'",
        ],
    )
    def test_what_cannot_be_foreseen_is_not_guessed(self, tmp_path: Path, line: str) -> None:
        """Then each process imports by itself."""
        assert self.prepared(tmp_path, f"import os\n{line}\nimport torch\n") == (False, {})

    def test_reading_the_environment_is_harmless(self, tmp_path: Path) -> None:
        """As most scripts do."""
        text = "import os, torch\nrank = int(os.environ.get('RANK', 0)); home = os.environ['HOME']\n"

        assert self.prepared(tmp_path, text) == (True, {})

    def test_threads_as_set(self, holdwater: Run, tmp_path: Path) -> None:
        """`OMP_NUM_THREADS` is read when torch is imported."""
        (tmp_path / "train.py").write_text(
            "import os\nos.environ['OMP_NUM_THREADS'] = '1'\nimport torch\nprint(torch.get_num_threads())\n"
        )
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}

        done = holdwater("run", "--supervise", "--quiet", "--out", "run", "train.py", env=environment)

        assert done.stdout == "1\n"
