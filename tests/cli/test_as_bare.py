"""A script finds the interpreter as it is without us, and its objects are not called: what it prints is the same."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Observe = Callable[..., tuple["subprocess.CompletedProcess[str]", dict[str, Any]]]

LEAK = """
import torch
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
kept = []
def train(steps):
    for step in range(steps):
        model(torch.randn(4, 8)).mean().backward()
        optimizer.step(); optimizer.zero_grad()
        kept.append(torch.ones(50_000))
"""

STATE = (
    """
import faulthandler, gc, locale, logging, os, random, signal, sys, threading, tracemalloc, warnings
import numpy as np
import torch
random.seed(1); np.random.seed(1); torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
warnings.filterwarnings("ignore", message="mine"); faulthandler.enable()
sys.displayhook = sys.excepthook = print
gc.set_threshold(500); gc.callbacks.append(lambda *_: None)
"""
    + LEAK
    + """
train(400)
print(random.random(), np.random.rand(), torch.rand(1).item(), len(kept))
print(torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled())
print(locale.setlocale(locale.LC_ALL), logging.root.handlers, logging.root.level, logging.root.manager.disable)
print(sys.argv, sys.path[0], os.getcwd(), sys.flags, sys.warnoptions, warnings.filters)
print(sorted(globals()), __spec__, type(__loader__), __loader__.path == __file__, __package__, __annotations__)
print(sys.displayhook is print, sys.excepthook is print, threading.excepthook is threading.__excepthook__)
print(sys.unraisablehook is sys.__unraisablehook__, faulthandler.is_enabled(), tracemalloc.is_tracing())
print(gc.isenabled(), gc.get_threshold(), len(gc.callbacks), sys.getswitchinterval(), sys.getrecursionlimit())
print(sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile())
print({number: signal.getsignal(number) for number in signal.valid_signals()}, threading.active_count())
"""
)

HOSTILE = """
import collections, sys
import torch
touched = collections.Counter()
NAMES = ["__getattribute__", "__len__", "__eq__", "__hash__", "__repr__", "__bool__", "__iter__", "__sizeof__",
         "__array__", "__torch_function__", "__instancecheck__", "__subclasscheck__", "__dir__", "__index__"]
def refuses(name):
    def method(*_, **__):
        touched[name] += 1
        raise SystemExit(name)
    return method
own = {name: refuses(name) for name in NAMES}
Meta = type("Meta", (type,), own)
Object = type("Object", (), own | {"__class__": property(refuses("class"))})
List, Dict, Set = (type("Hostile", (base,), own) for base in (list, dict, set))
Odd = type.__new__(Meta, "Odd", (), {})
class Closed:
    __dict__ = property(refuses("__dict__"))
class Module(torch.nn.Module):
    training = property(refuses("training"), lambda self, value: None)
class Optimizer(torch.optim.SGD):
    __hash__ = __eq__ = __len__ = refuses("of the optimizer")
class Rows(torch.utils.data.Dataset):
    def __len__(self):
        touched["len"] += 1
        return 400
    def __getitem__(self, index):
        return index
def made():
    return [object.__new__(Object), List.__new__(List), Dict.__new__(Dict), Set.__new__(Set), object.__new__(Odd),
            Closed(), torch.zeros(25_000)]
model, module = torch.nn.Linear(8, 1), Module()
optimizer = Optimizer(model.parameters(), lr=0.1)
kept = made()
touched.clear()
loader = torch.utils.data.DataLoader(Rows(), collate_fn=lambda rows: made())
for step, batch in enumerate(loader):
    model(torch.randn(4, 8)).mean().backward()
    optimizer.step(); optimizer.zero_grad()
    kept.extend(batch)
    if step % 100 == 0:
        torch.nn.Module.eval(module)
print(len(kept), sorted(touched.items()))
"""


NO_DEVICE = """
import functools, sys
import torch
torch.version.cuda = "13.0"  # a build for CUDA
asked = set()
def note(name, original):
    @functools.wraps(original)
    def call(*words, **named):
        if sys._getframe(1).f_globals["__name__"].startswith("holdwater"):
            asked.add(name)
            raise RuntimeError("Found no NVIDIA driver on your system")
        return original(*words, **named)
    return call
for name in dir(torch.cuda):
    original = getattr(torch.cuda, name)
    if callable(original) and not isinstance(original, type) and name != "is_initialized":
        setattr(torch.cuda, name, note(name, original))
"""
"""Each question of ours to torch.cuda is noted, except whether CUDA is in use."""


def bare(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a script as Python runs it."""
    (folder / "script.py").write_text(textwrap.dedent(script), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )


class TestAsBare:
    """Each is run without us, and observed."""

    @pytest.mark.parametrize("script", [STATE, HOSTILE], ids=["the interpreter's state", "hostile objects"])
    def test_prints_the_same(self, script: str, observe: Observe, tmp_path: Path) -> None:
        """A leak, so that objects are counted, and a window is opened."""
        alone = bare(script, tmp_path)

        done, verdict = observe(script)

        assert alone.returncode == 0, alone.stderr
        assert (done.returncode, done.stdout, done.stderr) == (0, alone.stdout, alone.stderr)
        assert verdict["verdict"] == "leak"
        assert "kept" in {site["name"] for site in verdict["findings"][0]["sites"]}
        assert verdict.get("errors", []) == []

    def test_a_lost_error_is_the_scripts_own(self, observe: Observe, tmp_path: Path) -> None:
        """An exception whose class, text and traceback raise; it ends the script with the same code."""
        script = LEAK + (
            "def refuse(*_): raise SystemExit(7)\n"
            "Odd = type('Odd', (Exception,), {'__class__': property(refuse), '__str__': refuse, "
            "'with_traceback': refuse})\n"
            "train(30)\nraise Odd\n"
        )
        alone = bare(script, tmp_path)

        done, _ = observe(script)

        assert (done.returncode, done.stdout) == (alone.returncode, alone.stdout)
        assert done.stderr.splitlines()[-1] == alone.stderr.splitlines()[-1]


class TestDevices:
    """One that the script does not use is not asked anything."""

    def test_cuda_is_not_asked(self, observe: Observe, tmp_path: Path) -> None:
        """In steps, counts, a window and an experiment."""
        script = (
            "LEFT = {'is_initialized', '_is_in_bad_fork', '_lazy_call'}"
            + NO_DEVICE
            + LEAK
            + ("train(400)\nprint(sorted(asked))\n")
        )
        alone = bare(script, tmp_path)

        done, verdict = observe(script)

        assert (done.returncode, done.stdout, done.stderr) == (0, alone.stdout, alone.stderr)
        assert verdict["verdict"] == "leak"

    @pytest.mark.parametrize("options", [(), ("--reload-interval", "20")], ids=["kept", "replaced"])
    def test_nor_by_a_loop_that_can_be_resumed(
        self, options: tuple[str, ...], observe: Observe, tmp_path: Path
    ) -> None:
        """Its random states are those of what it uses."""
        script = (
            "LEFT = {'is_initialized', '_is_in_bad_fork', '_lazy_call'}"
            + NO_DEVICE
            + LEAK
            + (
                "import holdwater\nholdwater.resumable('model', model)\nholdwater.resumable('optimizer', optimizer)\n"
                "for _ in holdwater.steps(50):\n    train(1)\nprint(sorted(asked))\n"
            )
        )
        alone = bare(script, tmp_path)

        done, _ = observe(script, "--supervise", *options)

        assert (done.returncode, done.stdout) == (0, alone.stdout), done.stderr


class TestSignals:
    """What a handler of the script raises reaches the script, whatever of ours runs at that moment."""

    def test_each_reaches_the_script(self, observe: Observe) -> None:
        """A timer that raises whenever it finds our code running; `tests.raising_handler` enumerates the places."""
        script = (
            LEAK
            + """
import signal
class Due(TimeoutError):
    pass
def ring(number, frame):
    global rung
    while frame is not None and "holdwater" not in frame.f_globals.get("__name__", ""):
        frame = frame.f_back
    if frame is not None and "observe.agent.script" not in frame.f_globals["__name__"]:
        rung += 1
        raise Due  # the next signal comes when this one was caught
    signal.setitimer(signal.ITIMER_REAL, 0.003)
rung = caught = 0
big = [[number] for number in range(100_000)]
train(5)
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.003)
for _ in range(3000):
    try:
        train(1)
    except Due:
        caught += 1
        signal.setitimer(signal.ITIMER_REAL, 0.003)
    if rung == 8:
        break
signal.setitimer(signal.ITIMER_REAL, 0)
print(rung > 0, rung - caught)
"""
        )

        done, _ = observe(script)

        assert (done.returncode, done.stdout) == (0, "True 0\n"), done.stderr
