"""Tests of a process that Metal aborts: it is recognised by what it says, and the next one is told."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from holdwater.policy.micro_batch import after_out_of_memory
from holdwater.process.error_stream import ErrorStream

INSUFFICIENT = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution "
    "failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
)
"""As MLX writes it (mlx#479)."""
TOO_MANY = "terminating: [metal::malloc] Resource limit (499000) exceeded."
PROGRAM = """
import os, sys
from holdwater.process.restart_context import RestartContext

def main():
    context = RestartContext.take()
    channel = context.open_channel()
    said = {said!r}
    channel.put("steps", context.number + 1)
    with open({marks!r}, "a") as file:
        file.write(f"{{context.out_of_memory_restarts}}\\n")
    if context.number == 0:
        os.write(2, said.encode())
        os.abort()
"""


SUPERVISOR = """
import json, os, sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from holdwater.process.channel_folder import channel_folder
from holdwater.process.restart_context import RestartContext
from holdwater.supervise.restart_loop import RunHooks, keep_going
from holdwater.supervise.supervisor import Launch, Supervisor
from holdwater.testing import StandInMetal

folder, answers = Path(sys.argv[1]), []

class Hooks(RunHooks):
    def pause(self):
        return 0.02
    def amend(self, answer):
        answers.append(answer.after_out_of_memory)
        return answer

with ExitStack() as closing:
    channel = closing.enter_context(channel_folder(folder))
    closing.enter_context(StandInMetal().installed() if {metal} else nullcontext())
    def environment(trainer):
        context = RestartContext(
            number=trainer.number, channel_path=str(channel.path), in_memory=str(folder), out=str(folder),
            out_of_memory_restarts=trainer.out_of_memory_restarts,
        )
        return os.environ | context.as_environment()
    launch = Launch(
        target="aborting:main", argv=lambda _: ["aborting"], channel=lambda _: channel, modules=(),
        environment=environment, settled={{"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}},
    )
    code = keep_going(Supervisor(launch), Hooks())
print(json.dumps([code, answers]))
"""
"""A supervisor of its own process: it holds signals back, which tests must not."""


class Supervised(NamedTuple):
    """How a supervised program ended."""

    code: int
    short: list[bool]
    """Whether memory was short, at the end of each process."""
    told: list[str]
    """How many deaths for want of memory each process was told."""
    errors: str
    """What was written to standard error."""


def supervise(folder: Path, said: str, *, metal: bool = True) -> Supervised:
    """Supervise a program whose first process is aborted.

    Args:
        folder: For its files.
        said: What it writes before it is aborted.
        metal: Whether the supervisor's machine has Metal: a stand-in.
    """
    marks = folder / "marks"
    (folder / "aborting.py").write_text(PROGRAM.format(said=said, marks=str(marks)), encoding="utf-8")
    command = [sys.executable, "-c", SUPERVISOR.format(metal=metal), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, short = json.loads(done.stdout.splitlines()[-1])
    return Supervised(code, short, marks.read_text(encoding="utf-8").split(), done.stderr)


class TestSupervisor:
    """With a stand-in for Metal in the supervisor's process."""

    @pytest.mark.parametrize("said", [INSUFFICIENT, TOO_MANY])
    def test_the_next_process_knows_that_memory_ran_out(self, tmp_path: Path, said: str) -> None:
        """It begins with a smaller micro-batch; what the first one wrote is shown as it is."""
        found = supervise(tmp_path, said)

        assert (found.code, found.told) == (0, ["0", "1"])
        assert found.short == [True, False]
        assert said in found.errors
        assert "for memory was short" in found.errors

    def test_another_abort_is_no_want_of_memory(self, tmp_path: Path) -> None:
        """A failed assertion aborts too: the next process begins as the first did."""
        found = supervise(tmp_path, "Assertion failed: (rank == 2), function f, file a.cpp, line 1.")

        assert (found.code, found.told, found.short) == (0, ["0", "0"], [False, False])

    @pytest.mark.skipif(sys.platform == "darwin", reason="this machine may have Metal")
    def test_without_metal_the_standard_error_is_not_read(self, tmp_path: Path) -> None:
        """On Linux nothing stands between the processes and their standard error."""
        found = supervise(tmp_path, INSUFFICIENT, metal=False)

        assert (found.told, found.short) == (["0", "0"], [False, False])


class TestErrorStream:
    """What is written arrives unchanged."""

    def test_a_message_in_two_pieces_is_recognised(self) -> None:
        """A pipe may be read in the middle of a word."""
        stream = ErrorStream()
        half = len(INSUFFICIENT) - 20
        os.write(stream.writing, INSUFFICIENT[:half].encode())
        assert stream.said_out_of_memory(0.2) != ""  # the sentence before the code says so already
        os.write(stream.writing, b"[metal::malloc] Resour")
        assert stream.said_out_of_memory(0.2) == ""
        os.write(stream.writing, b"ce limit (499000) exceeded.")

        assert stream.said_out_of_memory() == "[metal::malloc] Resource limit ("
        stream.close()

    def test_what_an_earlier_process_has_said_is_dropped(self) -> None:
        """A process that handled it and went on is not the one that was aborted."""
        stream = ErrorStream()
        os.write(stream.writing, TOO_MANY.encode())
        assert stream.said_out_of_memory()
        os.write(stream.writing, TOO_MANY.encode())
        while not stream.said_out_of_memory(0.1):
            pass

        stream.forget()

        assert stream.said_out_of_memory(0.05) == ""
        stream.close()

    def test_a_terminal_stays_a_terminal(self) -> None:
        """Progress bars are drawn only on one, and each byte arrives as it was written."""
        code = (
            "import os\n"
            "from holdwater.process.error_stream import ErrorStream\n"
            "stream = ErrorStream()\n"
            "os.write(stream.writing, f'terminal {os.isatty(stream.writing)}\\r'.encode())\n"
            "stream.close()\n"
        )
        ours, theirs = pty.openpty()
        subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
        os.close(theirs)

        assert b"terminal True\r" in os.read(ours, 1000)
        os.close(ours)


class TestMicroBatch:
    """Smaller with each death."""

    @pytest.mark.parametrize(("deaths", "expected"), [(0, 8), (1, 4), (2, 2), (9, 1)])
    def test_halves_down_to_one(self, deaths: int, expected: int) -> None:
        """The effective batch stays: more of them are added up."""
        assert after_out_of_memory(8, deaths) == expected
