"""Find what the process of a multiprocessing manager keeps for others, and the names by which a program knows it.

The objects lie in the manager's server; a program has proxies of them. The name of a proxy is read in the
program's source: the variable that `manager.list()` or `manager.dict()` is assigned to, where there is only one.
"""

from collections.abc import Iterator
from typing import Any

from holdwater.attribution.kinds import is_a, module_named, name_of
from holdwater.attribution.links import PathPart
from holdwater.attribution.source import parse
from holdwater.attribution.user_code import users_modules


def kept_by_manager() -> Iterator[tuple[Any, PathPart]]:
    """What this process keeps if it is a manager's server, each object with the name of its proxy."""
    if not module_named("multiprocessing.managers"):
        return
    from multiprocessing.process import current_process  # noqa: PLC0415 - it is loaded

    kept = getattr(getattr(current_process(), "_manager_server", None), "id_to_obj", None)
    for entry in list(dict.values(kept)) if is_a(kept, dict) else ():  # type: ignore[arg-type] # seen here
        if is_a(entry, tuple) and entry and entry[0] is not None:
            yield entry[0], _proxy_of(name_of(type(entry[0])))


def _proxy_of(kind: str) -> PathPart:
    """The variable of the program that holds the only proxy of this kind; else the kind itself.

    Args:
        kind: The name of the object's class, which the method that makes it has too.
    """
    found = [
        PathPart("global", name, module.name, module.file)
        for module in users_modules()
        if (source := parse(module.file)) is not None
        for name in source.names_made_by(kind)
    ]
    return found[0] if len(set(found)) == 1 else PathPart("local", kind, "the manager's process")
