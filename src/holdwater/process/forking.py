"""The fork server: it imports slow modules once, and forks the training processes.

    python forking.py SOCKET LIFELINE MODULE,MODULE,... [FOLDER]

It runs no tensor operation and touches no device: a pool of threads or a device context does not survive a
fork. Requests and reports are JSON, one object a line:

    {"target": "module:function", "argv": [...], "environment": {...}}   ->  {"pid": 123}
                                                                             {"pid": 123, "exit": 0, "peak": 3e8}

It is run by its path, and is not a module to import. Whoever starts it blocks signals in it: they are for training
processes. Each of those waits for SIGIO before it takes its first signal.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

INTERRUPTED = 130
"""The exit code of a process that an interrupt ended, as in a shell."""
GRACE = 2.0
"""Seconds that processes left behind by a dead training process have to end by themselves."""
LAST_WORD = 8.0
"""Seconds that a training process whose supervisor has ended has to end in good order."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""Linux, prctl(2)."""


class Forker:
    """Imports, then forks on request, and reports how each child ended."""

    def __init__(self, link: socket.socket, lifeline: int) -> None:
        self._link, self._lifeline = link, lifeline
        self._children: set[int] = set()
        self._orphans_until = 0.0
        self._spares = False
        self._unread = b""
        self._woken, wake = socket.socketpair()
        for end in (self._woken, wake):
            end.setblocking(False)  # noqa: FBT003 - its name says it
        self._callers_sigchld = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._wake = wake

    def serve(self) -> dict[str, Any]:
        """Serve requests; return only in a child, with its request."""
        while True:
            wait = 0.1 if self._orphans_until else None
            ready, _, _ = select.select([self._link, self._woken], [], [], wait)
            if self._woken in ready:
                self._woken.recv(4096)
            self._reap()
            if self._link in ready:
                for line in self._lines():
                    request: dict[str, Any] = json.loads(line)
                    if self._fork(request["blocked"]):
                        return request

    def _lines(self) -> list[bytes]:
        """Read the requests; end this process when the other side has ended."""
        try:
            data = self._link.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self._leave()
        *lines, self._unread = (self._unread + data).split(b"\n")
        return lines

    def _fork(self, blocked: list[int]) -> bool:
        """Fork; True in the child.

        Args:
            blocked: The signals that the caller of the run blocks: the child does too.
        """
        server = os.getpid()
        with warnings.catch_warnings():  # Python 3.12 counts BLAS threads, which handle forks themselves
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            self._children.add(pid)
            self._say({"pid": pid})
            return False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, self._callers_sigchld)
        for end in (self._link, self._woken, self._wake):
            end.close()
        _prctl(PR_SET_CHILD_SUBREAPER, 0)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(143)
        signal.sigwait({signal.SIGIO})  # the supervisor has sent what came before this process was
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # a signal that came meanwhile is delivered now
        return True

    def _reap(self) -> None:
        """Report children that have ended, and end processes that they left behind."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._orphans_until = 0.0
                return
            if pid == 0:
                break
            if pid in self._children:
                self._children.discard(pid)
                unit = 1 if sys.platform == "darwin" else 1024
                ended = {"exit": os.waitstatus_to_exitcode(status), "peak": usage.ru_maxrss * unit}
                self._say({"pid": pid} | ended)
                self._spares = ended["exit"] == 0
                self._orphans_until = time.monotonic() + GRACE
        if self._orphans_until:
            self._end_orphans(by_force=time.monotonic() > self._orphans_until)

    def _end_orphans(self, *, by_force: bool) -> None:
        """End orphans, such as a killed process's loader workers, which the kernel made children of this one."""
        others = [pid for pid in _children_of_this_process() if pid not in self._children]
        orphans = [pid for pid in others if not self._is_spared(pid)]
        for pid in orphans:
            _send(pid, signal.SIGKILL if by_force else signal.SIGTERM)
        if not orphans:
            self._orphans_until = 0.0

    def _is_spared(self, pid: int) -> bool:
        """Whether a script that ended well put this process into a session of its own: then it may stay."""
        try:
            return self._spares and os.getsid(pid) != os.getsid(0)
        except OSError:
            return False

    def _say(self, report: dict[str, Any]) -> None:
        """Send a report; end if the other side has ended."""
        try:
            self._link.sendall(json.dumps(report).encode() + b"\n")
        except OSError:
            self._leave()

    def _leave(self) -> NoReturn:
        """The supervisor has ended: give the children, which have noticed too, some time; then end everything."""
        deadline = time.monotonic() + LAST_WORD + 1
        while self._children and time.monotonic() < deadline:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            self._children.discard(pid)
            time.sleep(0.0 if pid else 0.05)
        left = [pid for pid in _children_of_this_process() if not self._is_spared(pid)]
        for pid in left:
            _send(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            left = [pid for pid in left if pid in _children_of_this_process()]
        for pid in left:
            _send(pid, signal.SIGKILL)
        os._exit(0)

    def import_all(self, names: list[str], folder: str) -> dict[str, str | None]:
        """Import the modules that training processes will need, if they exist.

        Args:
            names: `module` or `module:attribute`.
            folder: Of the script's own modules, which hide others of their name.

        Returns:
            The environment variables that the imports have set, or deleted (None).
        """
        before, loaded = dict(os.environ), set(sys.modules)
        for name in names:
            try:
                module, _, attribute = name.partition(":")
                getattr(
                    importlib.import_module(module), attribute or "__name__"
                )  # some import their submodules late
            except Exception:  # noqa: BLE001, S112 - the training process will report it, if it matters
                continue
        _keep_what_was_imported()
        gc.collect()
        gc.freeze()  # collections and counts of objects in the children skip these: much cheaper
        hidden = _hidden(folder, set(sys.modules) - loaded)
        self._say({"unfit": hidden or _unfit()})
        changed = {name for name, _ in set(before.items()) ^ set(os.environ.items())}
        return {name: os.environ.get(name) for name in changed}


def main() -> None:
    """Import, serve, and in each child run its target."""
    if not (sys.flags.isolated or sys.flags.safe_path):
        sys.path.pop(0)  # this file's own folder
    lifeline = int(sys.argv[2])
    os.set_inheritable(lifeline, False)  # noqa: FBT003 - processes that a child starts must not inherit it
    forker = Forker(socket.socket(fileno=int(sys.argv[1])), lifeline)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    by_imports = forker.import_all([name for name in sys.argv[3].split(",") if name], "".join(sys.argv[4:]))
    try:
        request = forker.serve()
        del forker
        function = _prepare(request, lifeline, by_imports)
    except KeyboardInterrupt:  # it was blocked while the server imported
        print("holdwater: stopped before it began", file=sys.stderr)  # noqa: T201 - nothing else reports it
        os._exit(INTERRUPTED)
    _run(function)


def _prepare(request: dict[str, Any], lifeline: int, by_imports: dict[str, str | None]) -> Callable[[], None]:
    """Set up this child as the request asks; return the function to run.

    Args:
        request: What to run, with which environment.
        lifeline: A pipe that ends with the supervisor.
        by_imports: The variables that the imports have set.
    """
    threading.Thread(target=_watch, args=(lifeline,), daemon=True, name="holdwater-lifeline").start()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.environ.update({name: value for name, value in by_imports.items() if value is not None})
    for name in [name for name, value in by_imports.items() if value is None]:
        os.environ.pop(name, None)
    sys.argv = list(request["argv"])
    module, _, function = request["target"].partition(":")
    found: Callable[[], None] = getattr(importlib.import_module(module), function)
    return found


def _run(function: Callable[[], None]) -> None:
    """Run a function as a program; return its exit code."""
    end_process = importlib.import_module("holdwater.process.restart_context").end_process
    code = 0
    try:
        function()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            importlib.import_module("holdwater.standard_error").write_line(str(end.code))  # as Python itself
    except Exception:  # noqa: BLE001 - as Python itself; an interrupt ends the process by its signal
        sys.excepthook(*sys.exc_info())
        code = 1
    end_process(code)


def _watch(lifeline: int) -> None:
    """Notice that the supervisor has ended: send this process a signal, and kill it if it does not end."""
    parent = os.getppid()
    while os.getppid() == parent:
        if select.select([lifeline], [], [], 1.0)[0]:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(LAST_WORD)
            break
    os._exit(143)


def _keep_what_was_imported() -> None:
    """Let the children end without unloading the imports: PyTorch's operators alone would write to 31 MB."""
    for finalizer in tuple(weakref.finalize._registry):  # type: ignore[attr-defined] # noqa: SLF001 - no other way
        finalizer.atexit = False


def _hidden(folder: str, loaded: set[str]) -> str | None:
    """Why the imports are not those that the script would make; None if they are.

    Args:
        folder: Of the script's own modules; empty if there is none.
        loaded: The names of the modules that were loaded.
    """
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else []:
        name = path.name.partition(".")[0]
        is_module = path.suffix in {".py", ".so"} or (path / "__init__.py").exists()
        if is_module and name in loaded:
            return f"{path} hides a module that one of the imports has loaded"
    return None


def _unfit() -> str | None:
    """Why this process cannot be forked safely; None if it can."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "one of the imports has started CUDA, which does not survive a fork"
    if threading.active_count() > 1:
        others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        return f"one of the imports has started a thread ({', '.join(others)}), which does not survive a fork"
    return None


def _children_of_this_process() -> list[int]:
    """Child processes, by the kernel's list; empty on other systems."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()]
    except OSError:
        return []


def _send(pid: int, number: int) -> None:
    """Send a signal; the process may have ended."""
    try:
        os.kill(pid, number)
    except OSError:
        return


def _prctl(option: int, value: int) -> None:
    """Set a property of this process, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
