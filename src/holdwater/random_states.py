"""The random states of a process: Python's, NumPy's, PyTorch's on the CPU and on each device, and MLX's.

Sources: PyTorch documentation, "Reproducibility"; MLX documentation, "Random" (its state is a key of two
words, which `mlx.core.random.seed` sets).
"""

import random
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class RandomStates:
    """Copies and restores the random states within a process; the copies can be pickled."""

    def take(self) -> tuple[Any, ...]:
        """Copy them; a device's only if it has been initialised."""
        import numpy as np  # noqa: PLC0415 - it would slow a script's start
        import torch  # noqa: PLC0415 - this module loads no framework at import

        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        return torch.get_rng_state(), cuda, random.getstate(), np.random.get_state()  # noqa: NPY002 - others use it

    def put(self, state: tuple[Any, ...]) -> None:
        """Restore them."""
        import numpy as np  # noqa: PLC0415 - as above
        import torch  # noqa: PLC0415 - as above

        cpu, cuda, python, numpy = state
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def seed_everything(seed: int) -> None:
    """Seed every source of randomness of this process."""
    import numpy as np  # noqa: PLC0415 - as above
    import torch  # noqa: PLC0415 - as above

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - others use it
    torch.manual_seed(seed)


def random_states() -> "dict[str, Tensor]":
    """Copy every random state of this process: Python, NumPy, PyTorch on the CPU and on each device, MLX."""
    import numpy as np  # noqa: PLC0415 - as above
    import torch  # noqa: PLC0415 - as above

    version, internal, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - others use it
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *internal], dtype=torch.int64),
        "python_gauss": torch.tensor([float("nan") if gauss is None else gauss], dtype=torch.float64),
        "numpy_keys": torch.from_numpy(np.asarray(keys, dtype=np.uint32).astype(np.int64)),
        "numpy_rest": torch.tensor([float(position), float(has_gauss), float(cached)], dtype=torch.float64),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # reading them would start a device
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"cuda_{index}"] = state
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    if "mlx.core" in sys.modules:
        states["mlx"] = torch.tensor(sys.modules["mlx.core"].random.state[0].tolist(), dtype=torch.int64)
    return states


def restore_random_states(states: "Mapping[str, Tensor]") -> None:
    """Restore every random state; states of devices that do not exist are left out."""
    import numpy as np  # noqa: PLC0415 - as above
    import torch  # noqa: PLC0415 - as above

    torch.set_rng_state(states["torch"])
    version, *internal = states["python"].tolist()
    gauss = float(states["python_gauss"][0])
    random.setstate((version, tuple(internal), None if gauss != gauss else gauss))  # noqa: PLR0124 - NaN
    position, has_gauss, cached = states["numpy_rest"].tolist()
    keys = states["numpy_keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), cached))  # noqa: NPY002
    devices = [name for name in states if name.startswith("cuda_")]
    if devices and torch.cuda.is_available():
        for index in range(min(len(devices), torch.cuda.device_count())):
            torch.cuda.set_rng_state(states[f"cuda_{index}"], index)
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
    if "mlx" in states and "mlx.core" in sys.modules:
        high, low = states["mlx"].tolist()
        sys.modules["mlx.core"].random.seed((high << 32) | low)
