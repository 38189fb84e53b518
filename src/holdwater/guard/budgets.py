"""Give or find a guarded run's budgets by pool, at its start and when the program begins to use a device."""

from holdwater.budget import Budgets, MachineMemory, Terms
from holdwater.guard.settings import GuardSettings
from holdwater.probes.machine import read_machine
from holdwater.probes.observer import Observer


def read_budgets(
    settings: GuardSettings, observer: Observer, machine: MachineMemory | None
) -> tuple[Budgets, MachineMemory]:
    """The budgets at the start of a run, and the machine that they are derived from.

    Args:
        settings: The user's.
        observer: Reads what is in use already, and on which device.
        machine: The machine's memory, for tests; None reads it.

    Raises:
        ConfigError: A budget that was given is spent already.
    """
    device = settings.device if settings.device != "cpu" else observer.device()
    found = machine or read_machine(device=device)
    return _terms(settings, found).budgets(observer.in_use()), found


def read_budgets_anew(settings: GuardSettings, observer: Observer, machine: MachineMemory | None) -> Budgets:
    """The budgets of a run that has begun to use a device: none is refused any more.

    Args:
        settings: The user's.
        observer: Reads the device and what is in use.
        machine: The machine's memory, for tests; None reads it.
    """
    found = machine or read_machine(device=observer.device())
    return _terms(settings, found).later(observer.in_use())


def _terms(settings: GuardSettings, machine: MachineMemory) -> Terms:
    """The user's budgets, with this machine."""
    return Terms(machine=machine, max_memory=settings.max_memory, max_host_memory=settings.max_host_memory)
