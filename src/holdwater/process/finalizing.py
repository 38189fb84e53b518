"""Free the objects of a script's own modules before its process ends without Python's usual end.

Many objects complete a file only in `__del__`: `pyarrow.parquet.ParquetWriter`, loggers, handles of databases. The
order is Python's (`finalize_modules` in CPython's pylifecycle.c): modules are forgotten, garbage is collected, and
what is still alive loses its names. Imported packages stay as they are: nothing of the script's lies in them, and
to free them would write to memory that is shared with the fork server.
"""

import contextlib
import gc
import sys
import threading
import weakref
from types import ModuleType

from holdwater.attribution.kinds import is_a, namespace_of
from holdwater.attribution.user_code import users_modules

OURS = "holdwater"
"""What the names of our own threads begin with."""


def free_users_modules() -> None:
    """Free the objects of the script and of its own modules, as far as nothing else holds them."""
    with contextlib.suppress(Exception):
        modules = [weakref.ref(module) for module in _forget_users_modules()]
        gc.collect()
        if not _others_run():
            for module in reversed(modules):
                _clear(module())
            gc.collect()


def _forget_users_modules() -> list[ModuleType]:
    """Take the script's own modules out of `sys.modules`, and what Python remembers of its last exception."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            setattr(sys, name, None)
    namespaces = [id(found.names) for found in users_modules()]
    loaded = {
        id(namespace_of(module)): module for module in list(sys.modules.values()) if is_a(module, ModuleType)
    }
    modules = [loaded[namespace] for namespace in namespaces if namespace in loaded]
    ids = set(map(id, modules))
    for name in [name for name, module in list(sys.modules.items()) if id(module) in ids]:
        del sys.modules[name]
    return modules


def _others_run() -> bool:
    """Whether a thread of the script still runs: it needs the names in its modules."""
    main = threading.main_thread()
    return any(thread is not main and not thread.name.startswith(OURS) for thread in threading.enumerate())


def _clear(module: ModuleType | None) -> None:
    """Set the names of a module that is still alive to None: private ones first."""
    names = {} if module is None else vars(module)
    for private in (True, False):
        for name in list(names):
            if type(name) is str and name != "__builtins__" and (not private or _is_private(name)):
                names[name] = None


def _is_private(name: str) -> bool:
    """Whether a name begins with one underscore."""
    return name[:1] == "_" and name[:2] != "__"
