"""Where frozen weights lie: in memory of this process, or in that of a weight server, which outlives it."""

import base64
import contextlib
import hashlib
import json
import logging
import math
import socket
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holdwater.errors import HoldwaterError
from holdwater.probes.devices import EXTERNAL
from holdwater.process.restart_context import RestartContext
from holdwater.train.settings import TrainSettings, TuneSettings

log = logging.getLogger("holdwater")

PATIENCE = 60.0
"""Seconds in which a weight server must have come up."""
TURN = 0.02


class WeightServerError(HoldwaterError):
    """A weight server is not there, or refuses: the weights are loaded as if there were none."""


class WeightClient:
    """Memory of this process."""

    facts: dict[str, Any] | None = None
    """What the process before has recorded of complete weights; None where they must be loaded."""
    parked: str | None = None
    """The token under which the process before has left what is trained; None where it is not left here."""
    keeps = False
    """Whether another process finds here what this one leaves."""

    def place(self, name: str, shape: tuple[int, ...], like: Tensor, *, device: str) -> Tensor:
        """Allocate memory for weights; where `facts` are known they lie in it already.

        Args:
            name: Of the weights, the same in each process.
            shape: Of the result.
            like: Gives the type.
            device: Where they are to lie.
        """
        del name
        return torch.empty(shape, dtype=like.dtype, device=device)

    def whole(self, facts: dict[str, Any]) -> None:
        """Say that all weights are there.

        Args:
            facts: What the next process should know.
        """

    def forget(self) -> None:
        """Say that the weights are no longer whole: the next process loads them."""

    def park(self, token: str | None) -> None:
        """Say that what is trained stays as it is.

        Args:
            token: What the next process will know it by; None says that it is changed from now on.
        """


class ServedWeights(WeightClient):
    """Memory of a weight server."""

    keeps = True

    def __init__(self, path: Path, identity: str) -> None:
        """Go to a weight server.

        Args:
            path: Of its socket.
            identity: Tells these weights, and how they are laid out, from others.

        Raises:
            WeightServerError: It does not come up, or holds other weights.
        """
        self._socket = _connect(path)
        self._words = self._socket.makefile("rw", encoding="utf-8")
        try:
            known = self._ask(say="begin", identity=identity)
        except WeightServerError:
            self.close()
            raise
        self.facts, self.parked = known["facts"], known["park"]

    def place(self, name: str, shape: tuple[int, ...], like: Tensor, *, device: str) -> Tensor:
        """As above.

        Raises:
            WeightServerError: The weight server is gone, or refuses.
        """
        count = math.prod(shape)
        if count == 0:
            return torch.empty(shape, dtype=like.dtype, device=device)
        handle = self._ask(say="place", name=name, size=count * like.dtype.itemsize)["handle"]
        if len(handle) == 1:
            return torch.from_file(handle[0], shared=True, size=count, dtype=like.dtype).view(shape)
        parts = [base64.b64decode(one["bytes"]) if isinstance(one, dict) else one for one in handle]
        EXTERNAL.take(count * like.dtype.itemsize)
        torch.cuda.init()  # type: ignore[no-untyped-call]
        storage = torch.UntypedStorage._new_shared_cuda(*parts)  # noqa: SLF001 - its only name
        return torch.empty(0, dtype=like.dtype, device=device).set_(storage, 0, shape)  # type: ignore[call-overload, no-any-return]

    def whole(self, facts: dict[str, Any]) -> None:
        """As above.

        Raises:
            WeightServerError: The weight server is gone.
        """
        if self.facts is None:
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.synchronize()
            self._ask(say="whole", facts=facts)

    def forget(self) -> None:
        """As above.

        Raises:
            WeightServerError: The weight server is gone.
        """
        self._ask(say="forget")

    def park(self, token: str | None) -> None:
        """As above.

        Raises:
            WeightServerError: The weight server is gone.
        """
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        self._ask(say="park", token=token)
        self.parked = None

    def close(self) -> None:
        """Leave: another trainer may come."""
        with contextlib.suppress(OSError):  # the last message may not have arrived
            self._words.close()
        self._socket.close()

    def _ask(self, **word: object) -> dict[str, Any]:
        """Say something, and return the answer."""
        try:
            self._words.write(json.dumps(word) + "\n")
            self._words.flush()
            line = self._words.readline()
        except OSError as error:
            raise WeightServerError(f"the weight server does not answer ({error.strerror or error})") from error
        if not line:
            raise WeightServerError("the weight server is gone")
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise WeightServerError(f"the weight server refuses: {answer['refused']}")
        return answer


def open_weight_client(settings: TrainSettings, tuning: TuneSettings) -> WeightClient:
    """The weight server's memory where a supervisor has started one; else this process's own.

    Args:
        settings: Of the run.
        tuning: Which model, which adapters.
    """
    restart = RestartContext.taken()
    if restart is None or not restart.weight_server:
        return WeightClient()
    try:
        weight_client = ServedWeights(Path(restart.weight_server), _identity(settings, tuning))
    except WeightServerError as error:
        log.warning("%s: the weights are loaded from their files", error)
        return WeightClient()
    if weight_client.facts is not None:
        log.debug("the frozen weights are where the process before has left them")
    return weight_client


def _identity(settings: TrainSettings, tuning: TuneSettings) -> str:
    """Identifies weights and their layout."""
    folder = Path(tuning.model).expanduser()
    files = sorted(file for file in folder.glob("*") if file.suffix in {".json", ".safetensors"})
    known = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    layout = (tuning.lora_rank, tuning.lora_targets, tuning.lora_layers, tuning.quantize, settings.device)
    return hashlib.sha256(repr((tuning.model, known, layout, torch.__version__)).encode()).hexdigest()


def _connect(path: Path) -> socket.socket:
    """Connect to a weight server that may still be coming up."""
    end = time.monotonic() + PATIENCE
    while True:
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            door.settimeout(PATIENCE)
            door.connect(str(path))
        except OSError as error:
            door.close()
            if time.monotonic() > end:
                raise WeightServerError(f"the weight server does not come up ({error.strerror})") from error
            time.sleep(TURN)
        else:
            return door
