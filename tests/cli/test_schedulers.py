"""The recipes of docs/exit-codes.md, with a shell that plays the scheduler."""

import configparser
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "exit-codes.md").read_text(encoding="utf-8")
TRAIN = """
import os, time
import torch
import holdwater
torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.AdamW(model.parameters())
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
for step in holdwater.steps(60):
    loss = model(torch.randn(4, 8)).pow(2).mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    print(step, loss.item().hex(), flush=True)
    if step == 30:
        open("half", "w").close()  # the time limit is near
    time.sleep(0.03 if "WAITS" in os.environ else 0)
"""


def recipe(kind: str) -> str:
    """A block of code of the page."""
    found = re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def losses(text: str) -> list[str]:
    """Lines with a step and its loss."""
    return [line for line in text.splitlines() if re.fullmatch(r"\d+ -?0x\S+", line)]


def test_slurm_s_job_is_stopped_requeued_and_finished(tmp_path: Path) -> None:
    """The batch shell gets SIGTERM before the time is over; the next turn goes on from the checkpoint."""
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "job.sh").write_text(f"#!/bin/bash\n{recipe('bash')}")
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" >> requeued\n')
    (tmp_path / "scontrol").chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    known = os.environ | {"PATH": path, "SLURM_JOB_ID": "7"}
    straight = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (tmp_path / "half").unlink()

    with (tmp_path / "out").open("w") as out:
        job = subprocess.Popen(["/bin/bash", "job.sh"], cwd=tmp_path, env=known | {"WAITS": "1"}, stdout=out)
        deadline = time.monotonic() + 60
        while not (tmp_path / "half").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        job.send_signal(signal.SIGTERM)
        first = job.wait(60)
        second = subprocess.run(
            ["/bin/bash", "job.sh"], cwd=tmp_path, env=known, stdout=out, check=False, timeout=60
        )

    assert (first, second.returncode) == (75, 0)
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert losses((tmp_path / "out").read_text()) == losses(straight.stdout)


@pytest.mark.parametrize(
    ("code", "action"),
    [(0, None), (2, "FailJob"), (3, "FailJob"), (75, "Ignore"), (143, "Ignore"), (137, "Count"), (134, "Count"), (139, "Count")],
)  # fmt: skip
def test_kubernetes_starts_again_what_can_go_on(code: int, action: str | None) -> None:
    """As the table of the page says; the first rule that fits is taken."""
    spec: Any = yaml.safe_load(recipe("yaml"))["spec"]
    rules = spec["podFailurePolicy"]["rules"]

    taken = [rule["action"] for rule in rules if code in rule["onExitCodes"]["values"]]

    assert taken[:1] == ([] if action is None else [action])
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # else no rule is looked at


def test_systemd_starts_again_what_can_go_on() -> None:
    """Every failure but a mistake in the call."""
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment,method-assign] # keys as they are written
    unit.read_string(recipe("ini"))

    assert unit["Service"]["Restart"] == "on-failure"
    assert unit["Service"]["RestartPreventExitStatus"].split() == ["2", "3"]
