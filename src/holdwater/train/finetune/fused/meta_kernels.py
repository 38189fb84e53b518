"""Kernels that do nothing, for tensors without memory: on a CUDA device these ask for no memory either."""


def norm(*_: object) -> None:
    """As in `plain_kernels`."""


def gate(*_: object) -> None:
    """As in `plain_kernels`."""
