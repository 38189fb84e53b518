"""What the machine has, read once before a run: the numbers that a budget is found from."""

import contextlib

import psutil

from holdwater.budget import MachineMemory
from holdwater.errors import ProbeError
from holdwater.probes.cgroup import Cgroup
from holdwater.probes.devices import loaded
from holdwater.units import Bytes


def read_machine(*, device: str = "cpu") -> MachineMemory:
    """Read the memory of the machine, of the cgroup, and of the device that the run uses.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, `mps` or `mlx`.
    """
    memory = psutil.virtual_memory()
    cgroup = Cgroup.of_this_process()
    available = memory.available
    if cgroup.limit is not None:
        with contextlib.suppress(ProbeError):  # a limit without a readable usage still bounds the budget
            available = min(available, max(cgroup.limit - cgroup.usage(), 0))
    return MachineMemory(
        total=Bytes(memory.total),
        available=Bytes(available),
        cgroup_limit=cgroup.limit,
        device_size=_device_size(device),
    )


def _device_size(device: str) -> Bytes | None:
    """Memory of the device; None for a CPU and for memory that the device shares with the machine."""
    torch = loaded("torch")
    if torch is None or not device.startswith("cuda"):
        return None
    return Bytes(torch.cuda.get_device_properties(device).total_memory)
