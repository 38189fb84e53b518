"""The sampler outside: what a script grows by, without holdwater."""

from pathlib import Path

import pytest

from zoo.bare import measure
from zoo.labels import Label

pytestmark = pytest.mark.alone
SCRIPT = """
import time
import torch

weight = torch.nn.Parameter(torch.ones(1))
optimizer = torch.optim.SGD([weight], lr=0.1)
kept = []
for step in range({steps}):
    optimizer.zero_grad()
    weight.sum().backward()
    optimizer.step()
    kept.append(torch.ones(250_000))
    time.sleep(0.03)
{last}
"""


def labelled(folder: Path, *, steps: int, last: str = "") -> Label:
    """A script that keeps a megabyte a step."""
    script = folder / "grows.py"
    script.write_text(SCRIPT.format(steps=steps, last=last), encoding="utf-8")
    return Label(script, "leak", "host.tensors", "step", "L16", None, None, None)


@pytest.mark.slow
class TestMeasure:
    """Reading the kernel's figures while a script runs."""

    def test_sees_what_is_kept(self, tmp_path: Path) -> None:
        """A megabyte a step, by steps that the optimizer has made."""
        readings = measure(labelled(tmp_path, steps=40), tmp_path)

        first, last = readings[0], readings[-1]
        assert last.step > 20
        assert last.megabytes - first.megabytes == pytest.approx(last.step - first.step, abs=5.0)

    def test_ends_a_run_that_would_take_too_much(self, tmp_path: Path) -> None:
        """After the step that the table names."""
        readings = measure(labelled(tmp_path, steps=100_000), tmp_path, stop=10)

        assert readings[-1].step < 40

    def test_tells_of_a_script_that_fails(self, tmp_path: Path) -> None:
        """Its numbers would mean nothing."""
        with pytest.raises(RuntimeError, match="grows ended with 3"):
            measure(labelled(tmp_path, steps=3, last="raise SystemExit(3)"), tmp_path)
