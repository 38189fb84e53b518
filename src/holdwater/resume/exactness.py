"""Record and restore the settings that affect a result's exact bits: versions, threads, deterministic settings.

Source: PyTorch documentation, "Reproducibility".
"""

from collections.abc import Mapping

import torch


def exactness() -> dict[str, object]:
    """The settings that affect a result's exact bits: versions, threads, deterministic settings."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def restore_exactness(recorded: Mapping[str, object]) -> list[str]:
    """Restore threads and deterministic settings; return messages on what could not be restored."""
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
