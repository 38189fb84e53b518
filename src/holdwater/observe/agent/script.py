"""Run a script or module in this process as Python itself would, observed by a session."""

import builtins
import importlib.util
import os
import sys
import tokenize
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from holdwater.exit_codes import STOPPED
from holdwater.observe.agent import session as sessions
from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.imports import Hook, after_import
from holdwater.observe.agent.session import Session, StopRun, StopShort
from holdwater.observe.agent.uncaught import note_uncaught
from holdwater.process.restart_context import RestartContext

Attach = Callable[[Session, RestartContext | None], Mapping[str, Hook]]
"""Prepares a session for frameworks, and returns the hook for each module that the script may import."""
TRIES = 5
"""How often an end is written down, at most."""


def run_words(attach: Attach) -> None:
    """Run the command line `FOLDER LAST_STEP SCRIPT|-m MODULE [ARGS]`.

    Args:
        attach: Connects the session to the frameworks.
    """
    folder, last_step, words = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    restart = RestartContext.take()
    session = sessions.begin(folder, last_step=last_step or None, counts=restart is None or not restart.explained)
    after_import(attach(session, restart))
    try:
        _run(words)
    except BaseException as error:
        if not issubclass(type(error), SystemExit | StopRun | StopShort):
            _note(note_uncaught, folder, error)
        _finish(session)
        if restart is not None:
            _note(_note_shortage, session, error)
        if issubclass(type(error), StopRun | StopShort):
            sys.exit(STOPPED if type(error) is StopShort else 0)
        if not issubclass(type(error), SystemExit):
            _show_without_our_frames()
        raise
    else:
        _finish(session)


def _note(write: Callable[..., None], *words: object) -> None:
    """Write down what ends the script, and again where a signal handler of the script raises meanwhile.

    The script has ended by then. PyTorch's handler raises as soon as a loader's worker has been killed, and often
    just after the script has failed to read from that worker.

    Args:
        write: May be called again.
        words: For it.
    """
    for _ in range(TRIES):
        try:
            harmless(write)(*words)
        except BaseException:  # noqa: BLE001, S112 - what a handler raises, and the script's own end goes on
            continue
        return


def _note_shortage(session: Session, error: BaseException) -> None:
    """Report to the supervisor that the script ends out of memory, if it does."""
    from holdwater.oom.out_of_memory import is_out_of_memory  # noqa: PLC0415 - only when it is needed

    session.channel.put("out_of_memory", int(is_out_of_memory(error)))


def _finish(session: Session) -> None:
    """End the session; an error in it, or a signal meanwhile, does not change how the script has ended."""
    try:
        session.finish()
    except BaseException as error:  # noqa: BLE001 - the observer never kills what it observes
        sessions.say(f"the end of the run could not be observed: {error!r}")


def _run(words: list[str]) -> None:
    """Run the named script or module as `__main__`."""
    if words[0] == "-m":
        code, main_module, path = _find_module(words[1])
        sys.argv = [path, *words[2:]]
        if not isolated():
            sys.path.insert(0, os.getcwd())  # noqa: PTH109 - what python -m puts there
    else:
        code, main_module, path = _read_script(words[0])
        sys.argv = list(words)
        if not isolated():
            sys.path.insert(0, str(Path(path).resolve().parent))
    sys.modules["__main__"] = main_module
    exec(code, main_module.__dict__)  # noqa: S102 - running the script is the point


def isolated() -> bool:
    """Whether Python's safe path is on: the script's folder is not searched for modules."""
    return bool(sys.flags.isolated or sys.flags.safe_path)


def _read_script(path: str) -> tuple[CodeType, ModuleType, str]:
    """Compile a file; a folder or an archive with a `__main__.py` is run as Python runs it."""
    if Path(path).is_dir():
        path = str(Path(path) / "__main__.py")
    path = os.path.abspath(path)  # noqa: PTH100 - as Python does it: links are not followed
    with tokenize.open(path) as file:
        code = compile(file.read(), path, "exec")
    module = _main_module(path, package=None)
    module.__loader__ = SourceFileLoader("__main__", path)
    return code, module, path


def _find_module(name: str) -> tuple[CodeType, ModuleType, str]:
    """Find a module, or a package's `__main__`.

    Args:
        name: As after `python -m`.

    Raises:
        SystemExit: There is no such module.
    """
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = importlib.util.find_spec(name)
    except ImportError as error:
        raise SystemExit(f"{sys.executable}: Error while finding module {name!r}: {error}") from error
    finally:
        sys.path.pop(0)
    loader: Any = None if spec is None else spec.loader
    code = loader.get_code(name) if loader is not None and hasattr(loader, "get_code") else None
    if spec is None or code is None:
        raise SystemExit(f"{sys.executable}: No module named {name}")
    path = spec.origin or name
    module = _main_module(path, package=spec.parent)
    module.__spec__, module.__loader__ = spec, loader
    return code, module, path


def _main_module(path: str, *, package: str | None) -> ModuleType:
    """A fresh `__main__`."""
    module = ModuleType("__main__")
    module.__file__ = path
    module.__package__ = package
    module.__dict__["__builtins__"] = builtins
    module.__dict__["__cached__"] = None
    if sys.version_info < (3, 14):
        module.__annotations__ = {}
    return module


def _show_without_our_frames() -> None:
    """Let Python report an uncaught exception as if it had started the script itself."""
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Report an exception with a traceback that starts at the script's first frame."""
        at = trace
        while at is not None:
            if at.tb_frame.f_code.co_filename == __file__:
                trace = at.tb_next
            at = at.tb_next
        BaseException.with_traceback(error, trace)
        shown(kind, error, trace)

    sys.excepthook = hook
