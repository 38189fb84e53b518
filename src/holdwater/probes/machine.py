"""Read the machine's memory once before a run: the numbers from which a budget is found."""

import contextlib

import psutil

from holdwater.budget import MachineMemory
from holdwater.errors import ProbeError
from holdwater.probes.cgroup import Cgroup
from holdwater.probes.devices import is_unified, loaded
from holdwater.probes.metal import DeviceLimits, metal
from holdwater.signal_errors import suppressed
from holdwater.units import Bytes


def read_machine(*, device: str = "cpu") -> MachineMemory:
    """Read the memory of the machine, of the cgroup, and of the device that the run uses.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, `mps` or `mlx`; a CUDA device is initialised by this.
    """
    memory = psutil.virtual_memory()
    cgroup = Cgroup.of_this_process()
    available = memory.available
    if cgroup.limit is not None:
        with contextlib.suppress(ProbeError):  # a limit without a readable usage still bounds the budget
            available = min(available, max(cgroup.limit - cgroup.usage(), 0))
    size, free = _device_memory(device)
    source, unified = metal(), is_unified(device)
    limits = source.limits() if source is not None and unified else DeviceLimits()
    return MachineMemory(
        total=Bytes(memory.total),
        available=Bytes(available),
        cgroup_limit=cgroup.limit,
        device_size=size,
        device_available=free,
        unified=unified,
        working_set=limits.working_set,
        buffers=limits.buffers,
    )


def _device_memory(device: str) -> tuple[Bytes | None, Bytes | None]:
    """Size and free memory of the device; None for a CPU, and for memory that it shares with the machine."""
    torch = loaded("torch")
    if torch is None or not device.startswith("cuda"):
        return None, None
    size = Bytes(torch.cuda.get_device_properties(device).total_memory)
    with suppressed(RuntimeError):
        return size, Bytes(int(torch.cuda.mem_get_info(device)[0]))
    return size, None
