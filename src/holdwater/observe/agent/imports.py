"""Call a hook when a module has been imported, without importing it: only the script loads frameworks.

Source: Python documentation, importlib, "The import system": finders on `sys.meta_path`.
"""

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Hook = Callable[[ModuleType], None]


class _Finder(MetaPathFinder):
    """Finds a watched module with the finders after it, and wraps its loader."""

    def __init__(self, hooks: Mapping[str, Hook]) -> None:
        self._hooks = dict(hooks)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the real spec with a loader that calls the hook; None for a module that is not watched."""
        del path, target
        hook = self._hooks.pop(name, None)
        if hook is None:
            return None
        spec = importlib.util.find_spec(name)  # this finder answers only once
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, hook)
        return spec


class _Loader(Loader):
    """A module's own loader, followed by a hook."""

    def __init__(self, loader: Loader, hook: Hook) -> None:
        self._loader = loader
        self._hook = hook

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module with its own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, put its own loader back, then call the hook."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._hook(module)

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)


def after_import(hooks: Mapping[str, Hook]) -> None:
    """Call each hook when its module has been imported, or now if it has been.

    Args:
        hooks: By the module's full name; each is called once, with the module as argument.
    """
    waiting = {}
    for name, hook in hooks.items():
        module = sys.modules.get(name)
        if isinstance(module, ModuleType):
            hook(module)
        else:
            waiting[name] = hook
    sys.meta_path.insert(0, _Finder(waiting))
