"""The exceptions that holdwater raises on purpose, as one hierarchy.

A message names the key, the value it has, why that cannot work, and what to write instead.
"""

from collections.abc import Sequence


class HoldwaterError(Exception):
    """Base of every error that holdwater raises on purpose."""


class ConfigError(HoldwaterError, ValueError):
    """A mistake in a call, a flag, an environment variable or a config file (exit code 2)."""


class NothingFits(ConfigError):  # noqa: N818 - says what it is
    """No way to take the steps of a run fits into its budget."""


class UnitError(ConfigError):
    """A size or a rate that cannot be read."""


class SeveralConfigErrors(ConfigError):  # noqa: N818 - ends in Errors: it holds several
    """Several mistakes in one configuration, reported together."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        head = f"{count} mistakes in the configuration:" if count > 1 else "a mistake in the configuration:"
        super().__init__("\n  - ".join((head, *self.mistakes)))


class DataError(HoldwaterError):
    """Training data that is missing, empty, not text, or too short (exit code 2)."""


class ModelError(HoldwaterError):
    """A model that does not exist, needs a permission, is damaged, or does not fit (exit code 2)."""


class ProbeError(HoldwaterError):
    """A reading that could not be taken; the guard records it and goes on."""


class ActionError(HoldwaterError):
    """A remedy that failed or is not available; the guard records it and goes on."""


class StoreError(HoldwaterError):
    """The history of a run could not be written or read."""


class RunFolderError(HoldwaterError):
    """A run folder that cannot be used as asked: it holds a run already, or is read-only (exit code 2)."""


class CheckpointError(HoldwaterError):
    """A checkpoint that could not be written, or is not whole."""
