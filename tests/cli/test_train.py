"""`holdwater train` as users call it: the installed command, in a subprocess, on a real text."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from holdwater.store.history import read_history

Run = Callable[..., "subprocess.CompletedProcess[str]"]
TINY = (
    *("train", "--preset", "tiny", "--train-seq-length", "16", "--eval-batches", "2"),
    *("--sample-length", "8", "--threads", "1", "--max-memory", "4GB"),
)
"""A training run that takes a second or two beside the imports."""


def tensors(checkpoint: Path) -> dict[str, bytes]:
    """The bytes of every tensor of a checkpoint."""
    return {
        f"{path.name}/{name}": array.tobytes()
        for path in sorted(checkpoint.glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


def last_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run."""
    return max((run / "checkpoints").glob("step-*"))


class TestTrain:
    """The main job."""

    def test_trains_and_leaves_a_verdict_a_report_and_checkpoints(
        self, holdwater: Run, text_file: Path, tmp_path: Path
    ) -> None:
        """Everything that the folder of a run promises."""
        done = holdwater(*TINY, "--data", str(text_file), "--steps", "400", "--out", "run", "--json", "out.json")

        assert done.returncode == 0, done.stderr
        verdict = json.loads((tmp_path / "out.json").read_text())
        assert (verdict["schema"], verdict["steps"], verdict["exit_code"]) == (1, 400, 0)
        assert verdict["verdict"] in {"flat", "bounded"}
        assert verdict["command"][:2] == ["holdwater", "train"]
        assert verdict["peak"]["host_bytes"] > 50_000_000
        assert {path.name for path in (tmp_path / "run").iterdir()} >= {
            "rank-0.db", "checkpoints", "config.yaml", "report.html",
        }  # fmt: skip
        assert last_checkpoint(tmp_path / "run").name == "step-00000400"
        assert "budget 4.00 GB: given" in done.stderr
        assert "Traceback" not in done.stderr

    def test_learns(self, holdwater: Run, text_file: Path, tmp_path: Path) -> None:
        """A text of one repeated line is learnt in 400 steps."""
        done = holdwater(
            *TINY, "--data", str(text_file), "--steps", "400", "--out", "run", "--learning-rate", "0.01",
            "--level", "character", "--eval-interval", "200",
        )  # fmt: skip

        losses = [mark.facts["loss"] for mark in read_history(tmp_path / "run").marks if mark.kind == "evaluation"]
        assert done.returncode == 0, done.stderr
        assert len(losses) == 2
        assert losses[-1] < 1.0

    def test_observation_changes_no_bit(self, holdwater: Run, text_file: Path, tmp_path: Path) -> None:
        """A guard that looks at every step, collects and trims leaves the same weights as one that hardly looks."""
        (tmp_path / "quiet.py").write_text("def hide(guard):\n    guard._next_sample = 10**9\n")
        flags = (*TINY, "--data", str(text_file), "--steps", "150")
        noisy = holdwater(*flags, "--out", "noisy", "--memory-threshold-percentage", "1")
        quiet = holdwater(*flags, "--out", "quiet", "--callback", "quiet:hide")

        assert noisy.returncode == quiet.returncode == 0, noisy.stderr + quiet.stderr
        assert read_history(tmp_path / "noisy").outcomes
        assert not read_history(tmp_path / "quiet").outcomes
        assert tensors(last_checkpoint(tmp_path / "noisy")) == tensors(last_checkpoint(tmp_path / "quiet"))

    def test_reports_a_leak_of_the_callback(self, holdwater: Run, text_file: Path, tmp_path: Path) -> None:
        """200 kB a step: found while the run goes on, exit code 3 if asked for."""
        (tmp_path / "leak.py").write_text("kept = []\ndef keep(guard):\n    kept.append(bytearray(200_000))\n")

        done = holdwater(
            *TINY, "--data", str(text_file), "--steps", "600", "--out", "run", "--json", "out.json",
            "--callback", "leak:keep", "--fail-on", "leak",
        )  # fmt: skip

        verdict = json.loads((tmp_path / "out.json").read_text())
        finding = verdict["findings"][0]
        assert done.returncode == verdict["exit_code"] == 3, done.stderr
        assert (verdict["verdict"], finding["component"]) == ("leak", "host.native")
        assert finding["rate"]["bytes_per_step"] == pytest.approx(200_704, rel=0.03)  # 49 pages
        assert finding["forecast"]["limit_bytes"] == 4_000_000_000

    def test_accumulation_and_the_character_level_work_together(
        self, holdwater: Run, text_file: Path, tmp_path: Path
    ) -> None:
        """Two micro-batches of three sequences: the same weights as with six at once, but for rounding."""
        flags = (*TINY, "--data", str(text_file), "--steps", "20", "--level", "character")
        done = holdwater(*flags, "--out", "run", "--gradient-accumulation", "2", "--batch-size", "3")
        whole = holdwater(*flags, "--out", "whole", "--batch-size", "6")

        assert (done.returncode, whole.returncode) == (0, 0), done.stderr + whole.stderr
        steps, tokens = re.findall(r" ([\d.]+) steps/s +([\d,]+) tokens/s", done.stdout)[-1]
        assert int(tokens.replace(",", "")) / float(steps) == pytest.approx(2 * 3 * 16, rel=0.05)
        weights = [load_file(last_checkpoint(tmp_path / run) / "model.safetensors") for run in ("run", "whole")]
        for name, weight in weights[0].items():
            assert weight == pytest.approx(weights[1][name], abs=1e-4), name


class TestResume:
    """A killed run goes on exactly."""

    @pytest.fixture
    def undisturbed(self, holdwater: Run, text_file: Path, tmp_path: Path) -> dict[str, bytes]:
        """The tensors of a run that nobody disturbed."""
        done = holdwater(*TINY, "--data", str(text_file), "--steps", "300", "--out", "straight")
        assert done.returncode == 0, done.stderr
        return tensors(last_checkpoint(tmp_path / "straight"))

    def test_is_exact_after_kill_9_and_a_damaged_checkpoint(
        self, holdwater: Run, text_file: Path, tmp_path: Path, undisturbed: dict[str, bytes]
    ) -> None:
        """Killed twice, and the newest checkpoint is damaged in between; a benchmark kills fifty times."""
        once = ("--checkpoint-interval", "40", "--max-restarts", "0")
        flags = (*TINY, "--data", str(text_file), "--steps", "300", "--out", "run", *once)
        killer = "import os\ndef kill(guard):\n    if guard.step_number == STEP: os.kill(os.getpid(), 9)\n"
        (tmp_path / "first.py").write_text(killer.replace("STEP", "130"))
        (tmp_path / "second.py").write_text(killer.replace("STEP", "201"))

        assert holdwater(*flags, "--callback", "first:kill").returncode == -signal.SIGKILL
        damaged = last_checkpoint(tmp_path / "run") / "model.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:-1])
        second = holdwater(*flags, "--resume", "--callback", "second:kill")
        assert second.returncode == -signal.SIGKILL
        assert "step-00000120 is damaged" in second.stderr
        assert "resuming from step 80" in second.stderr
        read_history(tmp_path / "run")
        third = holdwater(*flags, "--resume")

        assert third.returncode == 0, third.stderr
        assert tensors(last_checkpoint(tmp_path / "run")) == undisturbed
        assert len(read_history(tmp_path / "run").sessions) == 3

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_stops_with_a_checkpoint(
        self,
        holdwater: Run,
        text_file: Path,
        tmp_path: Path,
        undisturbed: dict[str, bytes],
        number: signal.Signals,
    ) -> None:
        """Exit code 75, and the rest is exact."""
        flags = (*TINY, "--data", str(text_file), "--steps", "300", "--out", "run")
        (tmp_path / "sender.py").write_text(
            f"import os\ndef send(guard):\n    if guard.step_number == 77: os.kill(os.getpid(), {number})\n"
        )

        stopped = holdwater(*flags, "--callback", "sender:send")
        assert stopped.returncode == 75
        assert f"stopped at step 77: it received {number.name}" in stopped.stderr
        assert holdwater(*flags, "--resume").returncode == 0

        assert tensors(last_checkpoint(tmp_path / "run")) == undisturbed

    def test_a_signal_to_all_its_processes_stops_with_a_checkpoint_too(
        self, holdwater: Run, text_file: Path, tmp_path: Path
    ) -> None:
        """As `timeout` and schedulers send it: the supervisor passes on what the training process got already."""
        flags = (*TINY, "--data", str(text_file), "--steps", "300", "--out", "run")
        (tmp_path / "sender.py").write_text(
            "import os\ndef send(guard):\n    if guard.step_number == 77: os.killpg(os.getpgrp(), 15)\n"
        )

        stopped = holdwater(*flags, "--callback", "sender:send", start_new_session=True)

        assert stopped.returncode == 75
        assert "it received SIGTERM; continue with: holdwater train --out run --resume" in stopped.stderr
        assert last_checkpoint(tmp_path / "run").name >= "step-00000077"

    def test_a_finished_run_has_nothing_to_do(self, holdwater: Run, text_file: Path) -> None:
        """Resuming may be repeated without harm; a new run in its folder is refused."""
        flags = (*TINY, "--data", str(text_file), "--steps", "20", "--out", "run")
        assert holdwater(*flags).returncode == 0

        again, afresh = holdwater(*flags, "--resume"), holdwater(*flags)

        assert (again.returncode, afresh.returncode) == (0, 2)
        assert "has its 20 steps already" in again.stderr
        assert "add --resume" in afresh.stderr

    def test_a_run_goes_on_with_its_own_settings(self, holdwater: Run, text_file: Path, tmp_path: Path) -> None:
        """The command that the program itself names: nothing but --out and --resume."""
        (tmp_path / "sender.py").write_text(
            "import os\ndef send(guard):\n    if guard.step_number == 77: os.kill(os.getpid(), 15)\n"
        )
        flags = (*TINY, "--data", str(text_file), "--steps", "120", "--out", "run")
        assert holdwater(*flags, "--callback", "sender:send").returncode == 75

        done = holdwater("train", "--out", "run", "--resume")

        assert done.returncode == 0, done.stderr
        assert "budget 4.00 GB: given" in done.stderr
        assert last_checkpoint(tmp_path / "run").name == "step-00000120"

    def test_two_trainers_do_not_share_a_folder(self, holdwater: Run, text_file: Path, tmp_path: Path) -> None:
        """The second is refused, and leaves nothing in the folder of the first."""
        import fcntl

        (tmp_path / "run").mkdir()
        with (tmp_path / "run" / ".lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = holdwater(*TINY, "--data", str(text_file), "--steps", "20", "--out", "run")

        assert done.returncode == 2
        assert "another process trains in run" in done.stderr
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]

    def test_other_settings_are_refused(self, holdwater: Run, text_file: Path) -> None:
        """What cannot be resumed exactly is refused, not guessed."""
        flags = (*TINY, "--data", str(text_file), "--out", "run")
        assert holdwater(*flags, "--steps", "20").returncode == 0

        done = holdwater(*flags, "--steps", "40", "--batch-size", "2", "--resume")

        assert done.returncode == 2
        assert "was trained with batch_size = 1, but this run has 2" in done.stderr


PRESSURE = """
from holdwater.testing import StandInMemory
LEVELS = {levels}
def rehearse(guard):
    if guard.step_number == 1:
        guard.observer.replace(StandInMemory(lambda: max((s, v) for s, v in LEVELS.items() if s <= guard.step_number)[1]))
"""


class TestPressure:
    """A machine short of memory, rehearsed with a stand-in."""

    @pytest.mark.parametrize(
        ("low", "code", "acted"),
        [(14, 0, True), (9, 75, True), (16, 0, False)],
        ids=["waiting", "stopping", "enough"],
    )
    def test_waits_stops_or_goes_on(
        self, holdwater: Run, text_file: Path, tmp_path: Path, low: int, code: int, acted: bool
    ) -> None:
        """15 GB make it wait, 10 GB stop it with a whole checkpoint."""
        (tmp_path / "short.py").write_text(PRESSURE.format(levels={0: 50 * 10**9, 100: low * 10**9}))

        done = holdwater(
            *TINY, "--data", str(text_file), "--steps", "6000", "--out", "run", "--json", "out.json",
            "--callback", "short:rehearse", "--waiting-below", "15GB", "--stopping-below", "10GB",
        )  # fmt: skip

        actions = [row["action"] for row in json.loads((tmp_path / "out.json").read_text())["actions"]]
        assert done.returncode == code, done.stderr
        assert bool(actions) == acted
        assert ("stop" in actions) == (code == 75)
        if code == 75:
            assert last_checkpoint(tmp_path / "run").name > "step-00000100"


class TestBadInput:
    """One clear message each, exit code 2, no traceback, nothing lost."""

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (("--data", "none.txt"), "matches no file"),
            (("--data", "empty.txt"), "is empty"),
            (("--data", "binary.bin"), "not UTF-8 text"),
            (("--preset", "huge"), "must be one of tiny, small, medium, large"),
            (("--max-memory", "3XB"), "unknown unit 'XB'"),
            (("--max-memory", "10MB"), "before the first step"),
            (("--config", "broken.yaml"), "3 mistakes in the configuration"),
            (("--out", "/proc/run"), "cannot be written"),
            (("--device", "cuda"), "device is 'cuda'"),
            (("--json", "none/out.json"), "cannot be written"),
            (("--callback", "nothing:here"), "write module:function"),
            (("--quantize", "5"), "it must be one of 4, 8"),
            (("--resume", "nowhere"), "neither the folder of a run nor a checkpoint"),
        ],
    )
    def test_is_refused_with_one_message(
        self, holdwater: Run, text_file: Path, tmp_path: Path, flags: tuple[str, ...], words: str
    ) -> None:
        """Exit code 2."""
        (tmp_path / "empty.txt").write_text("")
        (tmp_path / "binary.bin").write_bytes(bytes(range(256)))
        (tmp_path / "broken.yaml").write_text("stepps: 3\nseed: x\nbatch_size: 0\n")

        done = holdwater(*TINY, "--data", str(text_file), "--steps", "5", *flags)

        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.count("holdwater: ") <= 2
        for folder in (tmp_path / "runs").glob("*"):
            assert (folder / "config.yaml").exists(), "a run that has not begun leaves no folder"

    def test_a_read_only_folder_is_refused(self, holdwater: Run, text_file: Path, tmp_path: Path) -> None:
        """Before the first step."""
        (tmp_path / "run").mkdir()
        (tmp_path / "run").chmod(0o500)
        if os.access(tmp_path / "run", os.W_OK):
            pytest.skip("root ignores permission bits; /proc/run above stands in")

        done = holdwater(*TINY, "--data", str(text_file), "--steps", "5", "--out", "run")

        assert done.returncode == 2
        assert "cannot be written" in done.stderr

    def test_a_disk_that_fills_up_stops_the_run_with_a_whole_checkpoint(
        self, holdwater: Run, text_file: Path, tmp_path: Path
    ) -> None:
        """Exit code 75; the older checkpoint is whole, and the run can go on from it."""
        (tmp_path / "full.py").write_text(
            "import resource\nimport signal\n"
            "def fill(guard):\n"
            "    if guard.step_number == 30:\n"
            "        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        )
        flags = (*TINY, "--data", str(text_file), "--steps", "60", "--out", "run", "--checkpoint-interval", "20")

        done = holdwater(*flags, "--callback", "full:fill")
        again = holdwater(*flags, "--resume")

        assert done.returncode == 75
        assert "the newest complete one is step 20" in done.stderr
        assert "Traceback" not in done.stderr
        assert again.returncode == 0
        assert "resuming from step 20" in again.stderr


def test_flags_of_fine_tuning_need_a_model(holdwater: Run, text_file: Path, tmp_path: Path) -> None:
    """Nothing is trained that nobody meant."""
    done = holdwater(*TINY, "--data", str(text_file), "--lora-rank", "8", "--out", "run")

    assert done.returncode == 2
    assert "--lora-rank is 8, but it is for fine-tuning, and no model is named; add --model FOLDER" in done.stderr
    assert not list((tmp_path / "run").glob("checkpoints/*"))
