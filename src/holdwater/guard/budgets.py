"""The budgets of a guarded run, given or found by pool; and again when the program begins to use a device."""

from holdwater.budget import Budgets, MachineMemory, Terms
from holdwater.guard.settings import GuardSettings
from holdwater.probes.machine import read_machine
from holdwater.probes.observer import Observer


def read_budgets(
    settings: GuardSettings, observer: Observer, machine: MachineMemory | None
) -> tuple[Budgets, MachineMemory]:
    """The budgets with which a run begins, and the machine that they follow from.

    Args:
        settings: What the user asked for.
        observer: Says what is in use already, and on which device.
        machine: A stand-in for what the machine has; None reads it.

    Raises:
        ConfigError: A budget that was given is spent already.
    """
    device = settings.device if settings.device != "cpu" else observer.device()
    found = machine or read_machine(device=device)
    return _terms(settings, found).budgets(observer.in_use()), found


def read_budgets_anew(settings: GuardSettings, observer: Observer, machine: MachineMemory | None) -> Budgets:
    """The budgets of a run that has begun to use a device: nothing is refused any more.

    Args:
        settings: What the user asked for.
        observer: Says which device it is, and what is in use.
        machine: A stand-in for what the machine has; None reads it.
    """
    found = machine or read_machine(device=observer.device())
    return _terms(settings, found).later(observer.in_use())


def _terms(settings: GuardSettings, machine: MachineMemory) -> Terms:
    """What was asked for, of this machine."""
    return Terms(machine=machine, max_memory=settings.max_memory, max_host_memory=settings.max_host_memory)
