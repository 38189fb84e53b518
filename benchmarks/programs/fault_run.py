"""A small training run that does harm to its surroundings at a given step, as a JSON object on its command line says.

    python fault_run.py '{"kind": "plain", "fills": ["TMPDIR"], "signal": ["SIGTERM", "group", "handled"], ...}'

All that it prints and writes is the same in each run of the same object. The process of the command that was started
is the leader of its session: the script itself when it runs bare.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

STEPS, AT = 60, 30
LONGEST = 20.0
"""Seconds to wait for a signal that is on its way."""
SETTLED = 0.25
"""Seconds in which a signal that arrives twice would have arrived again."""

plan = json.loads(sys.argv[1])
arrived = 0


def handle(number: int, frame: object) -> None:
    """Count a signal; leave if the plan says so."""
    global arrived
    arrived += 1
    if plan["signal"][2] == "leaves":
        sys.exit(7)


def harm() -> None:
    """Do what the plan says."""
    for place in plan["fills"]:
        try:
            with open(Path(os.environ[place]) / "fill", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError as error:
            print(place, error.strerror, flush=True)
    if plan["run"] == "removed":
        shutil.rmtree(os.environ["RUN"], ignore_errors=True)
    if plan["signal"]:
        send(*plan["signal"])


def send(name: str, target: str, how: str) -> None:
    """Let another process send the signal of the plan, and wait until it has arrived."""
    receiver = {"process": os.getpid(), "command": os.getsid(0), "group": -os.getpgid(0)}[target]
    sender = f"import os; os.kill({receiver}, {int(getattr(signal, name))})"
    subprocess.Popen([sys.executable, "-S", "-c", sender], start_new_session=True).wait()
    if how != "ignored":
        until = time.monotonic() + LONGEST
        while not arrived and time.monotonic() < until:
            time.sleep(0.01)
    time.sleep(SETTLED)
    print(name, "arrived", arrived, flush=True)


def numbers() -> None:
    """Steps without a framework."""
    import holdwater

    weight = 1.0
    for step in range(STEPS):
        weight = weight * 0.99 + step / 1000
        holdwater.step()
        finish_step(step, weight)


def tensors(*, resumable: bool) -> None:
    """Steps of an optimizer."""
    import torch

    import holdwater

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    if resumable:
        holdwater.resumable("model", model)
        holdwater.resumable("optimizer", optimizer)
    for step in holdwater.steps(STEPS) if resumable else range(STEPS):
        loss = model(torch.randn(4, 4)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        finish_step(step, loss.item())


def finish_step(step: int, value: float) -> None:
    """Print and write now and then; do harm at its step."""
    if step % 10 == 9:
        print(step, value.hex(), flush=True)
        Path(f"step-{step}.txt").write_text(value.hex())
    if step == AT:
        harm()


if __name__ == "__main__":
    if plan["signal"] and plan["signal"][2] in {"handled", "leaves"}:
        signal.signal(getattr(signal, plan["signal"][0]), handle)
    if plan["kind"] == "plain":
        numbers()
    else:
        tensors(resumable=plan["kind"] == "resumable")
    print("trained", flush=True)
    sys.exit(plan["exit"])
