"""What torch.compile has compiled again, and why."""

import subprocess
import sys

SCRIPT = """
import sys
import torch
from holdwater.observe.agent.recompiles import recompilations
assert recompilations() == []

def scale(values, factor):
    return values * factor

compiled = torch.compile(scale, backend="eager", dynamic=False)
for factor in (2, 3, 4):
    compiled(torch.ones(3), factor)
print(recompilations())
"""


def test_names_the_function_and_the_guard() -> None:
    """A number that changes: the graph was compiled for another one."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "'function': 'scale'" in done.stdout
    assert "'often': 2" in done.stdout
    assert "factor ==" in done.stdout
