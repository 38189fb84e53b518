"""Keep a training run going in one process after another, until it has made its last step."""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.config import Config
from holdwater.config.replacement import replacement_config
from holdwater.policy.restarts import RestartConfig
from holdwater.process.channel import Channel, create_channel
from holdwater.process.restart_context import RestartContext, reason_file
from holdwater.process.spawn import die_as
from holdwater.store.in_memory_checkpoint import InMemoryFolder
from holdwater.supervise.supervisor import Launch, Supervisor, TrainerProcess
from holdwater.train.finetune import PRELOADED_MODEL
from holdwater.train.run_folder import RunFolder

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger("holdwater")

MODULES = ("holdwater.cli.main", "holdwater.cli.train", "holdwater.train.run", "rich.live", "rich.progress_bar")
"""What a training process imports."""
TUNING = (
    "transformers", "transformers.models.auto.modeling_auto", "holdwater.train.finetune.state",
    "holdwater.train.finetune.preload",
)  # fmt: skip
"""What it imports besides to fine-tune a large model; none of it touches a device."""
TURN = 0.25
"""Seconds between two looks at the process."""


def keep_training(argv: Sequence[str], folder: RunFolder, config: Config) -> int:
    """Train under a supervisor.

    Args:
        argv: The command, as the user typed it.
        folder: Where the run lies.
        config: The gathered configuration.

    Returns:
        The exit code of the last process.
    """
    in_memory = InMemoryFolder(folder.out)
    if not folder.resume or folder.checkpoint is not None:
        in_memory.empty()
    with tempfile.TemporaryDirectory(prefix="holdwater-") as place:
        channel_path = Path(place) / "channel"
        create_channel(channel_path)
        kept = _Kept(Channel(channel_path), channel_path, in_memory.path, folder.out)
        weight_server = _start_weight_server(config, Path(place) / "weights.socket", in_memory.path / "weights")
        kept.weight_server = "" if weight_server is None else str(Path(place) / "weights.socket")
        launch = Launch(
            target="holdwater.cli.main:run_and_exit",
            argv=argv,
            modules=MODULES if config["model"] is None else MODULES + TUNING,
            environment=kept.environment,
            settled={} if config["model"] is None else {PRELOADED_MODEL: config["model"]},
        )
        supervisor = Supervisor(
            launch,
            kept.channel,
            config=RestartConfig(in_all=config["max_restarts"]),
            hang_timeout=config["hang_timeout"],
        )
        try:
            code = _keep(supervisor, kept)
        finally:
            supervisor.close()
            if weight_server is not None:
                weight_server.communicate()  # closes its input, which ends it
            shutil.rmtree(in_memory.path / "weights", ignore_errors=True)
    in_memory.remove()
    return die_as(code, sys.stdout.flush)


class _Kept:
    """What processes of a run tell one another."""

    def __init__(self, channel: Channel, channel_path: Path, in_memory: Path, out: Path) -> None:
        self.channel = channel
        self.ended: dict[str, Any] | None = None
        """How the newest process ended, if it was recycled."""
        self.weight_server = ""
        """The socket of the weight server, if there is one."""
        self._channel_path, self._in_memory, self._out = channel_path, in_memory, out

    def environment(self, trainer: TrainerProcess) -> Mapping[str, str]:
        """The environment of a training process."""
        facts = RestartContext(
            number=trainer.number,
            channel_path=str(self._channel_path),
            in_memory=str(self._in_memory),
            out=str(self._out),
            supervisor=os.getpid(),
            out_of_memory_restarts=trainer.out_of_memory_restarts,
            ended=self.ended,
            weight_server=self.weight_server,
        )
        return os.environ | facts.as_environment()

    def note_end(self) -> None:
        """Note how a process that was recycled ended."""
        channel, reason = self.channel, reason_file(self._channel_path).read_text(encoding="utf-8")
        self.ended = {
            "step": channel.get("steps"),
            "reason": reason,
            "in_use": channel.get("in_use"),
            "at": channel.get_seconds("last_step_at"),
        }


def keeps_weights(config: Config) -> bool:
    """Whether processes of the run will be replaced, so that a weight server may keep its frozen weights.

    Args:
        config: The gathered configuration.
    """
    return bool(config["model"]) and replacement_config(config).is_configured


def _start_weight_server(config: Config, door: Path, weights: Path) -> "subprocess.Popen[bytes] | None":
    """Start a weight server where processes will be replaced and steps are written out."""
    if not keeps_weights(config):
        return None
    on_cuda = config["device"] == "cuda" or (config["device"] == "auto" and Path("/dev/nvidiactl").exists())
    if not on_cuda and config["quantize"] is None:
        return None  # the model's own code takes the steps there
    from holdwater.train.finetune.weight_server.server import start_weight_server  # noqa: PLC0415 - for fine-tuning only

    return start_weight_server(door, weights, device="cuda" if on_cuda else "cpu")


def _keep(supervisor: Supervisor, kept: _Kept) -> int:
    """Start one process after another; return the exit code of the last."""
    while True:
        process = supervisor.start()
        while process.wait(TURN):
            supervisor.turn()
        answer = supervisor.answer()
        if not answer.again:
            if answer.cause not in {"done", "asked to stop"}:
                log.error("the training process is not started again: %s", answer.reason)
            return answer.exit_code
        kept.ended = None
        if answer.cause == "recycled":
            kept.note_end()
        else:
            log.warning("the training process is started again: %s", answer.reason)
