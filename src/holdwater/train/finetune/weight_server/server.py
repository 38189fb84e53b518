"""A process that holds frozen weights while trainers come and go: on the device, or in shared memory of the host.

It knows nothing of models: it makes memory by name, hands it to the one trainer that is connected, and remembers
whether the weights in it are whole, and of which model. It ends when its standard input closes, as it does when
the supervisor that started it is gone; a trainer that is killed only drops its connection. Words go over a socket,
a line of JSON each; none of it is a pickle. On a CUDA device memory is shared by the driver's own handles (CUDA
IPC).
"""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Protocol

from holdwater.process.channel import allocate


class Memory(Protocol):
    """Makes memory that another process can open."""

    def make(self, name: str, size: int) -> None:
        """Make some, in bytes."""
        ...

    def handle(self, name: str) -> list[Any]:
        """What another process opens it by."""
        ...


class SharedMemory:
    """Files in the host's memory."""

    def __init__(self, folder: Path) -> None:
        """Begin with nothing.

        Args:
            folder: Where they lie.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._numbers: dict[str, int] = {}

    def make(self, name: str, size: int) -> None:
        """Make some, in bytes."""
        number = len(self._numbers)
        with (self._folder / str(number)).open("wb") as file:
            allocate(file, size)
        self._numbers[name] = number

    def handle(self, name: str) -> list[Any]:
        """The file."""
        return [str(self._folder / str(self._numbers[name]))]


class DeviceWeights:
    """Memory of a CUDA device."""

    def __init__(self) -> None:
        """Begin with nothing."""
        import torch  # noqa: PLC0415 - seconds, in a process that exists for this

        self._torch: Any = torch
        self._storages: dict[str, Any] = {}

    def make(self, name: str, size: int) -> None:
        """Make some, in bytes."""
        self._storages[name] = self._torch.UntypedStorage(size, device="cuda")

    def handle(self, name: str) -> list[Any]:
        """What the driver calls it; bytes as text."""
        shared = self._storages[name]._share_cuda_()
        return [{"bytes": base64.b64encode(one).decode()} if isinstance(one, bytes) else one for one in shared]


class WeightServer:
    """Answers one trainer after another."""

    def __init__(self, memory: Memory) -> None:
        """Begin with nothing.

        Args:
            memory: Where weights are held.
        """
        self._memory = memory
        self._sizes: dict[str, int] = {}
        self._identity = ""
        self._facts: dict[str, Any] | None = None
        self._parked: str | None = None
        self._one_at_a_time = threading.Lock()

    def answer(self, word: dict[str, Any]) -> dict[str, Any]:
        """Answer one word of a trainer.

        Args:
            word: With `say`: `begin` (whose weights, by `identity`), `place` (memory of `size` bytes by `name`),
                `whole` (the weights are all there; `facts` are sent to the next trainer), `park` (what is trained
                stays as it is from now on, under a `token`; None: it is changed from now on), `forget` (the
                weights are no longer whole: the next trainer fills them again).
        """
        with self._one_at_a_time:
            return self._answer(word)

    def _answer(self, word: dict[str, Any]) -> dict[str, Any]:
        """As `answer`."""
        say = word["say"]
        if say == "begin":
            return self._begin(str(word["identity"]))
        if say == "place":
            return self._place(str(word["name"]), int(word["size"]))
        if say == "whole":
            self._facts = dict(word["facts"])
            return {}
        if say == "forget":
            self._facts = self._parked = None
            return {}
        if say == "park":
            self._parked = word["token"]
            return {}
        return {"refused": f"{say} is no request that a weight server knows"}

    def _begin(self, identity: str) -> dict[str, Any]:
        """A trainer has come."""
        if self._facts is None:
            self._identity = identity  # whatever an unfinished trainer has left is filled again
            return {"facts": None, "park": None}
        if identity != self._identity:
            return {"refused": "these are weights of another model, or laid out in another way"}
        return {"facts": self._facts, "park": self._parked}

    def _place(self, name: str, size: int) -> dict[str, Any]:
        """Hand memory out, and make it if need be."""
        if name not in self._sizes:
            try:
                self._memory.make(name, size)
            except OSError as error:
                return {"refused": f"there is no room for the {size} bytes of {name}: {error}"}
            self._sizes[name] = size
        if self._sizes[name] != size:
            return {"refused": f"{name} has {self._sizes[name]} bytes, not {size}"}
        return {"handle": self._memory.handle(name)}


def serve(weight_server: WeightServer, path: Path) -> None:
    """Answer trainers at a socket for ever: one that hangs does not keep the next one waiting.

    Args:
        weight_server: Answers them.
        path: Of the socket.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.bind(str(path))
        door.listen(4)
        while True:
            visitor, _ = door.accept()
            threading.Thread(target=_listen, args=(weight_server, visitor), daemon=True).start()


def _listen(weight_server: WeightServer, visitor: socket.socket) -> None:
    """Answer one trainer until it is gone."""
    with contextlib.suppress(OSError), visitor, visitor.makefile("rw", encoding="utf-8") as words:
        for line in words:
            words.write(json.dumps(weight_server.answer(json.loads(line))) + "\n")
            words.flush()


def start_weight_server(door: Path, weights: Path, *, device: str) -> "subprocess.Popen[bytes]":
    """Start a weight server as a process of its own.

    Args:
        door: Of its socket.
        weights: A folder in memory, for weights that are held in the host's.
        device: `cuda`, or another for the host's memory.

    Returns:
        The process; closing its standard input ends it.
    """
    command = [sys.executable, "-P", "-m", __name__, str(door), str(weights), device]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own


def main() -> None:
    """Serve until standard input closes."""
    door, weights, device = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

    def wait_for_the_end() -> None:
        """End with the supervisor."""
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    memory: Memory = DeviceWeights() if device == "cuda" else SharedMemory(weights)
    serve(WeightServer(memory), door)


if __name__ == "__main__":
    main()
