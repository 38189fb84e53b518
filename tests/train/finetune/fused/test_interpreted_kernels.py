"""The Triton kernels against plain torch on the CPU, in Triton's interpreter.

Triton comes with torch's CUDA wheels for Linux. torch's CPU wheel is installed without it, and these tests are
skipped there: as a development requirement of its own it takes a gigabyte, and must have the version that the CUDA
wheel names.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which torch's CPU wheel is installed without"
)
KERNELS = (
    "norm", "norm_heads", "rotate", "gate", "lora_b_backward", "cross_entropy", "attention", "tower_attention",
    "dropout", "dequantized", "update", "skipped",
)  # fmt: skip


@pytest.fixture(scope="module")
def distances(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """How far each kernel's results are from plain torch's: in its own process, since Triton reads the variable once."""
    script = Path(__file__).with_name("interpreted_kernels.py")
    cache = str(tmp_path_factory.mktemp("triton"))
    environment = {**os.environ, "TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": cache, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_all_kernels_are_run(distances: dict[str, float]) -> None:
    """Each of the script's is named here."""
    assert set(distances) == set(KERNELS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_does_what_plain_torch_does(distances: dict[str, float], kernel: str) -> None:
    """To the rounding of float32."""
    assert distances[kernel] < 1e-4
