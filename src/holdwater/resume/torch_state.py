"""PyTorch's random states and settings as tensors, so that a resumed run goes on exactly.

Source: PyTorch documentation, "Reproducibility".
"""

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed every source of randomness of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - others use it
    torch.manual_seed(seed)


def random_states() -> dict[str, Tensor]:
    """Copy every random state of this process: Python, NumPy, PyTorch on the CPU and on each device."""
    version, internal, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - others use it
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *internal], dtype=torch.int64),
        "python_gauss": torch.tensor([float("nan") if gauss is None else gauss], dtype=torch.float64),
        "numpy_keys": torch.from_numpy(np.asarray(keys, dtype=np.uint32).astype(np.int64)),
        "numpy_rest": torch.tensor([float(position), float(has_gauss), float(cached)], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"cuda_{index}"] = state
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Tensor]) -> None:
    """Put every random state back; states of devices that are not there are left out."""
    torch.set_rng_state(states["torch"])
    version, *internal = states["python"].tolist()
    gauss = float(states["python_gauss"][0])
    random.setstate((version, tuple(internal), None if gauss != gauss else gauss))  # noqa: PLR0124 - NaN
    position, has_gauss, cached = states["numpy_rest"].tolist()
    keys = states["numpy_keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), cached))  # noqa: NPY002
    if torch.cuda.is_available():
        devices = [name for name in states if name.startswith("cuda_")]
        for index in range(min(len(devices), torch.cuda.device_count())):
            torch.cuda.set_rng_state(states[f"cuda_{index}"], index)
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])


def exactness() -> dict[str, object]:
    """What the bits of a result depend on besides the states: versions, threads, deterministic settings."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def restore_exactness(recorded: Mapping[str, object]) -> list[str]:
    """Set threads and deterministic settings as they were; return in words what could not be restored."""
    torch.set_num_threads(int(str(recorded["threads"])))
    if torch.are_deterministic_algorithms_enabled() != recorded["deterministic"]:  # the call imports 70 MB
        torch.use_deterministic_algorithms(bool(recorded["deterministic"]))
    torch.set_float32_matmul_precision(str(recorded["matmul_precision"]))
    now = exactness()
    return [
        f"{name} was {recorded[name]} and is {now[name]}: the rest of the run may differ in its last bits"
        for name in recorded
        if name in now and recorded[name] != now[name] and name != "interop_threads"
    ]
