"""Decide how the objects of a class are measured; once for each class, since there are thousands of objects."""

import types
from typing import Literal

from holdwater.attribution.kinds import class_of

Role = Literal["not followed", "function", "tensor", "array", "MLX array", "with more", "plain"]
"""How an object is measured; one with more owns memory beside its own bytes."""
HANDLES = (
    ("_io", "FileIO"), ("socket", "socket"), ("threading", "Thread"), ("subprocess", "Popen"),
    ("multiprocessing.process", "BaseProcess"), ("multiprocessing.connection", "_ConnectionBase"),
)  # fmt: skip
"""Classes whose objects are system handles, by module and name."""
_OWNERS = (("PIL.Image", "Image"), ("torch._C", "_CUDAGraph"), ("mmap", "mmap"))
_NOT_FOLLOWED = (type, types.ModuleType, types.CodeType, types.BuiltinFunctionType)
"""Classes, modules, functions, code: shared, and not a part of growth."""
_ROLES: dict[Role, tuple[tuple[str, str], ...]] = {
    "tensor": (("torch", "Tensor"),), "array": (("numpy", "ndarray"),),
    "MLX array": (("mlx.core", "array"),), "with more": (*HANDLES, *_OWNERS),
}  # fmt: skip
"""Classes by module and name, which need not be loaded."""


def loaded_roles() -> dict[Role, tuple[type, ...]]:
    """The classes of each role whose modules are loaded now."""
    return {role: tuple(class_of(*name) for name in names) for role, names in _ROLES.items()}


def role_of(kind: type, loaded: dict[Role, tuple[type, ...]]) -> Role:
    """How the objects of a class are measured.

    Args:
        kind: The class.
        loaded: From `loaded_roles`.
    """
    if issubclass(kind, _NOT_FOLLOWED):
        return "not followed"
    if kind is types.FunctionType:
        return "function"
    return next((role for role, bases in loaded.items() if issubclass(kind, bases)), "plain")
