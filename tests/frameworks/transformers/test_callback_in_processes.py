"""The one callback in scripts of their own: alone, under `holdwater run`, when memory runs short, and in two ranks."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="Transformers is not installed")

SCRIPT = """
import os, sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
import holdwater
from holdwater.frameworks.transformers.recycle import last_checkpoint

how, steps = sys.argv[1], int(sys.argv[2])
rank = int(os.environ.get("RANK", "0"))
torch.manual_seed(0)
torch.set_num_threads(1)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
)
rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (200, 16))]
kept = []


class Hoarder(Trainer):
    def compute_loss(self, *args, **kwargs):
        found = super().compute_loss(*args, **kwargs)
        if how in {"leaks", "leaks, and is terminated"}:
            kept.append(torch.zeros(30_000))
        if how == "spends" and rank == int(os.environ.get("WORLD_SIZE", "1")) - 1:
            kept.append(torch.ones(2_000_000))
        return found


class Terminates(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if how == "leaks, and is terminated" and state.global_step == 10:
            os.kill(os.getpid(), 15)


arguments = TrainingArguments(
    output_dir="out", max_steps=steps, per_device_train_batch_size=2, save_strategy="no", report_to=[],
    disable_tqdm=True, use_cpu=True, seed=1, enable_jit_checkpoint=how == "leaks, and is terminated", ddp_timeout=60,
)
callback = holdwater.HoldwaterCallback(max_memory="1.1GB" if how == "spends" else None, json="callback.json")
trainer = Hoarder(
    model=LlamaForCausalLM(config), args=arguments, train_dataset=rows, callbacks=[callback, Terminates()]
)
trainer.train(resume_from_checkpoint=last_checkpoint("out"))
print("ENDED", trainer.state.global_step)
"""


def run(folder: Path, *words: str, before: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Run the script.

    Args:
        folder: Where.
        words: Its arguments.
        before: A launcher of it, and its arguments; this interpreter without.
    """
    (folder / "train.py").write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    command = [*(before or (sys.executable,)), "train.py", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=200, check=False, env=environment
    )


def sites(verdict: Path) -> list[Any]:
    """Line, role and name of each site of the gravest finding."""
    found = json.loads(verdict.read_text())
    assert found["verdict"] == "leak"
    return [(site["role"], site["line"], site["name"]) for site in found["findings"][0]["sites"]]


LEAK = 1 + SCRIPT[: SCRIPT.index("kept.append(torch.zeros")].count("\n")


@pytest.fixture(scope="module")
def terminated(tmp_path_factory: pytest.TempPathFactory) -> tuple["subprocess.CompletedProcess[str]", Path]:
    """A leaking run with Transformers' own checkpoint on SIGTERM, which comes after ten steps; and its folder.

    Transformers waits three seconds after the signal.
    """
    folder = tmp_path_factory.mktemp("terminated")
    return run(folder, "leaks, and is terminated", "100000"), folder


def test_a_leak_is_found_with_line_and_holder_by_the_callback_alone(
    terminated: tuple["subprocess.CompletedProcess[str]", Path],
) -> None:
    """Told on standard error, with the cure, and written."""
    done, folder = terminated

    assert done.returncode == 0, done.stderr
    assert ("held", LEAK, "kept") in sites(folder / "callback.json")
    assert f"allocated at train.py:{LEAK}: kept.append(torch.zeros(30_000))" in done.stderr
    assert "stored in `kept`" in done.stderr


def test_lives_beside_transformers_own_checkpoint_on_sigterm(
    terminated: tuple["subprocess.CompletedProcess[str]", Path],
) -> None:
    """Its handler stays: the signal leads to a complete checkpoint, an end of the training, and a verdict.

    Transformers writes it at the end of a step or within one, which it then ends.
    """
    done, folder = terminated

    (checkpoint,) = (folder / "out").glob("checkpoint-*")
    last = int(done.stdout.splitlines()[-1].removeprefix("ENDED "))
    assert last - int(checkpoint.name.rpartition("-")[2]) in {0, 1}
    assert (checkpoint / "trainer_state.json").exists()
    assert not (checkpoint / "checkpoint-is-incomplete.txt").exists()
    assert json.loads((folder / "callback.json").read_text())["steps"] == last


def test_under_holdwater_run_nothing_is_watched_twice(tmp_path: Path) -> None:
    """The command finds the same; the callback says who observes."""
    command = (str(Path(sys.executable).with_name("holdwater")), "run", "--json", "v.json", "--out", "run")

    done = run(tmp_path, "leaks", "250", before=command)

    assert done.returncode == 0, done.stderr
    assert ("held", LEAK, "kept") in sites(tmp_path / "v.json")
    own = json.loads((tmp_path / "callback.json").read_text())
    assert (own["observed_by"], own["steps"], "verdict" in own) == ("holdwater run", 250, False)
    assert done.stderr.count("leak after 250 steps") == 1


def test_a_spent_budget_stops_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    """Exit code 75; the next process goes on from there."""
    done = run(tmp_path, "spends", "2000")

    assert done.returncode == 75, done.stderr
    (checkpoint,) = (tmp_path / "out").glob("checkpoint-*")
    step = int(checkpoint.name.rpartition("-")[2])
    assert f"stopped at step {step}: resident memory is" in done.stderr
    assert json.loads((tmp_path / "callback.json").read_text())["steps"] == step

    again = run(tmp_path, "goes on", str(step + 3))
    assert again.stdout.splitlines()[-1] == f"ENDED {step + 3}", again.stderr


@pytest.mark.slow
def test_two_ranks_stop_after_the_same_step(tmp_path: Path) -> None:
    """Under `accelerate launch`: one of them has spent its budget, and the checkpoint holds both."""
    pytest.importorskip("accelerate", reason="Accelerate is not installed")
    launcher = (
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
    )  # fmt: skip

    done = run(tmp_path, "spends", "2000", before=launcher)

    (checkpoint,) = (tmp_path / "out").glob("checkpoint-*")
    step = int(checkpoint.name.rpartition("-")[2])
    assert done.stderr.count(f"stopped at step {step}: rank 1: resident memory is") == 2, done.stderr
    assert "exitcode  : 75" in done.stderr
    names = {path.name for path in checkpoint.iterdir()}
    assert {"trainer_state.json", "optimizer.pt", "rng_state_0.pth", "rng_state_1.pth"} <= names
    written = [json.loads((tmp_path / name).read_text()) for name in ("callback.json", "callback.json.rank-1")]
    assert [one["steps"] for one in written] == [step, step]
