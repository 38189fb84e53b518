"""What exceptions say of a lack of memory."""

import subprocess

from holdwater.oom.out_of_memory import said_by, shortage_of


def test_no_method_of_the_users_is_called() -> None:
    """An exception's text is read from its arguments."""

    class RudeError(MemoryError):
        def __str__(self) -> str:
            raise SystemExit(7)

    assert said_by(RudeError("so much", RudeError())) == "so much"
    assert said_by(OSError(24, "Too many open files")) == "[Errno 24] Too many open files"
    assert said_by(subprocess.CalledProcessError(-9, ["x"])) == "a command died with exit code -9"
    assert shortage_of(RudeError()) == "host memory"
    assert shortage_of(RuntimeError("CUDA error: out of memory")) == "device memory"
    assert shortage_of(ValueError("CUDA error: out of memory")) is None
