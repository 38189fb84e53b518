"""Find the statements of a program that start child processes."""

from collections.abc import Mapping
from typing import Any

from holdwater.attribution.site import Site
from holdwater.attribution.source import parse

STARTING = (
    "Popen", "create_subprocess_exec", "create_subprocess_shell", "Process", "Pool", "ProcessPoolExecutor",
    "Manager", "start_processes", "spawn", "fork", "posix_spawn", "spawnv", "spawnl", "spawnvp", "spawnlp",
)  # fmt: skip
"""Functions and classes of the standard library and of PyTorch that start one."""


def starting_site(seen: Mapping[str, Any], size: float) -> Site | None:
    """The statement that starts processes, by the source: one that ran, or the only one there is.

    Args:
        seen: What a process saw: see `explain`.
        size: Bytes a step.

    Returns:
        None if there is none, or if several could have done it.
    """
    found = []
    for file in seen.get("users_files", ()):
        source = parse(file)
        lines = seen.get("ran", {}).get(file, ())
        for one in [] if source is None else source.calls_of(STARTING):
            seen_to_run = any(one.line <= line <= one.last for line in lines)
            found.append(
                Site("allocated", file, one.line, one.function, None, None, size, one.text, "source", seen_to_run)
            )
    likely = [site for site in found if site.ran] or found
    return likely[0] if len(likely) == 1 else None
