"""`holdwater watch`: a process that already runs is judged from outside."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from holdwater.observe.candidates import training_process


class TestWatch:
    """`holdwater watch`: the same from outside."""

    def test_reports_a_leak_of_a_running_process(self, tmp_path: Path) -> None:
        """By its command line; the process ends while it is watched."""
        script = tmp_path / "finetune_me.py"
        script.write_text("import time\nkept = []\nfor _ in range(800):\n"
                          "    kept.append(bytearray(500_000)); time.sleep(0.05)\n")  # fmt: skip
        program = str(Path(sys.executable).with_name("holdwater"))
        process = subprocess.Popen([sys.executable, str(script)])
        time.sleep(0.3)

        found = subprocess.run([program, "watch", "--find"], capture_output=True, text=True, check=False)
        done = subprocess.run(
            [program, "watch", "--name", str(script), "--every", "0.1", "--json", "w.json"],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

        assert process.wait(timeout=60) == 0
        verdict = json.loads((tmp_path / "w.json").read_text())
        assert done.returncode == 0, done.stderr
        assert str(process.pid) in found.stdout
        assert (verdict["verdict"], verdict["step_source"]) == ("leak", "time")
        assert "the process has ended" in done.stdout

    def test_the_number_of_holdwater_itself_means_what_it_started(self, tmp_path: Path) -> None:
        """What the shell tells is the number of `holdwater run`; the script is its child."""
        (tmp_path / "train.py").write_text("import time\ntime.sleep(60)\n")
        program = str(Path(sys.executable).with_name("holdwater"))
        with subprocess.Popen([program, "run", "--quiet", "--out", "run", "train.py"], cwd=tmp_path) as process:
            until = time.monotonic() + 20
            while training_process(process.pid) == process.pid and time.monotonic() < until:
                time.sleep(0.05)
            found = training_process(process.pid)
            process.terminate()

        assert found not in {process.pid, os.getpid()}
        assert training_process(os.getpid()) == os.getpid()

    def test_a_process_that_is_not_there_is_a_mistake(self, tmp_path: Path) -> None:
        """And the message says how to find one."""
        program = str(Path(sys.executable).with_name("holdwater"))

        done = subprocess.run([program, "watch", "4194304"], capture_output=True, text=True, check=False)

        assert done.returncode == 2
        assert "--find" in done.stderr

    def test_asks_a_running_script_what_it_holds(self, tmp_path: Path) -> None:
        """One that `holdwater run` started: no restart, and it goes on."""
        (tmp_path / "train.py").write_text(
            "import time, torch\n"
            "model = torch.nn.Linear(1000, 1000)\n"
            "optimizer = torch.optim.AdamW(model.parameters())\n"
            "for step in range(3000):\n"
            "    model(torch.ones(2, 1000)).sum().backward()\n"
            "    optimizer.step(); time.sleep(0.02)\n"
        )
        program = str(Path(sys.executable).with_name("holdwater"))
        process = subprocess.Popen(
            [program, "run", "--quiet", "--out", "run", "train.py"], cwd=tmp_path, stderr=subprocess.PIPE
        )
        time.sleep(6)

        done = subprocess.run(
            [program, "watch", str(process.pid), "--explain", "--json", "i.json"],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

        assert process.poll() is None
        process.terminate()
        process.communicate(timeout=30)
        found = json.loads((tmp_path / "i.json").read_text())
        assert done.returncode == 0, done.stderr
        assert "AdamW, group 0: 8.01 MB of state for 2 parameters" in done.stdout
        assert found["inventory"]["tensors"][0]["bytes"] == 4_000_000

    def test_says_what_explaining_needs(self) -> None:
        """A process that was started without holdwater is not entered."""
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
        program = str(Path(sys.executable).with_name("holdwater"))

        done = subprocess.run(
            [program, "watch", str(process.pid), "--explain"], capture_output=True, text=True, check=False
        )

        process.kill()
        process.wait()
        assert done.returncode == 2
        assert "needs a process that was started by `holdwater run`" in done.stderr
