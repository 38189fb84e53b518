"""Our own training under a supervisor: what it adds to the restart loop, and its weight server."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.config import Config
from holdwater.config.replacement import replacement_config
from holdwater.policy.restarts import Answer, RestartConfig
from holdwater.process.channel import Channel
from holdwater.process.channel_folder import channel_folder
from holdwater.process.restart_context import RestartContext
from holdwater.process.spawn import ForkedProcess, die_as
from holdwater.store.in_memory_checkpoint import InMemoryFolder
from holdwater.supervise.restart_loop import EXPECTED, RunHooks, keep_going, recycled_end
from holdwater.supervise.supervisor import Launch, Supervisor, TrainerProcess
from holdwater.train.death import WatchedProcess
from holdwater.train.finetune import PRELOADED_MODEL
from holdwater.train.finetune.vision.kinds import KINDS, kind_in_folder
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
"""What it imports in addition to fine-tune a large model; none of it touches a device."""


TUNING_BY_MLX = (
    "transformers", "transformers.models.auto.tokenization_auto", "holdwater.train.finetune.data.packing",
)  # fmt: skip
"""The same for MLX, which is not imported here: Metal does not survive a fork."""


def keep_training(
    argv: Sequence[str], folder: RunFolder, config: Config, *, leave_word: Callable[[str], None]
) -> int:
    """Train under a supervisor.

    Args:
        argv: The command, as the user typed it.
        folder: Where the run lies.
        config: The gathered configuration.
        leave_word: Called with the reason, if the run ends since its process was killed.

    Returns:
        The exit code of the last process.
    """
    in_memory = InMemoryFolder(folder.out)
    if not folder.resume or folder.checkpoint is not None:
        in_memory.empty()
    with channel_folder(folder.out) as channel:
        kept = _TrainingHooks(channel, in_memory.path, folder.out)
        door = channel.path.with_name("weights.socket")
        weight_server = _start_weight_server(config, door, in_memory.path / "weights")
        kept.weight_server = "" if weight_server is None else str(door)
        launch = Launch(
            target="holdwater.cli.main:run_and_exit",
            argv=lambda _: argv,
            channel=lambda _: kept.channel,
            modules=_modules(config),
            environment=kept.environment,
            settled={PRELOADED_MODEL: config["model"]} if _tunes_by_torch(config) else {},
        )
        supervisor = Supervisor(
            launch,
            config=RestartConfig(in_all=config["max_restarts"]),
            hang_timeout=config["hang_timeout"],
        )
        try:
            code = keep_going(supervisor, kept)
        finally:
            if weight_server is not None:
                weight_server.communicate()  # closes its input, which ends it
            shutil.rmtree(in_memory.path / "weights", ignore_errors=True)
    in_memory.remove()
    return die_as(code, lambda: leave_word(kept.killed) if kept.killed else None)


def _tunes_by_torch(config: Config) -> bool:
    """Whether a model is fine-tuned by PyTorch."""
    return config["model"] is not None and config["backend"] == "torch"


def _modules(config: Config) -> tuple[str, ...]:
    """What the training processes of a run import."""
    if config["model"] is None:
        return MODULES
    return MODULES + (TUNING if _tunes_by_torch(config) else TUNING_BY_MLX)


class _TrainingHooks(RunHooks):
    """What training adds to the restart loop: each process learns how the one before it was replaced."""

    what = "training process"

    def __init__(self, channel: Channel, in_memory: Path, out: Path) -> None:
        self.channel = channel
        """All processes use it, one after another."""
        self.ended: dict[str, Any] | None = None
        """How the newest process ended, if it was replaced."""
        self.weight_server = ""
        """The socket of the weight server, if there is one."""
        self.killed = ""
        """Why the newest process that has ended was killed; empty if it was not."""
        self._watched: WatchedProcess | None = None
        self._in_memory, self._out = in_memory, out

    def begin(self, process: ForkedProcess) -> None:
        """Begin to read its memory."""
        self._watched = WatchedProcess(process, self._out)

    def look(self) -> None:
        """Read its memory."""
        if self._watched is not None:
            self._watched.look()

    def amend(self, answer: Answer) -> Answer:
        """Find out why the process was killed, if it was, while its channel and the limits are its own."""
        expected = answer.cause in EXPECTED or answer.cause == "recycled"
        watched, self._watched = self._watched, None
        self.killed = ""
        if watched is not None and not expected:
            self.killed = watched.why_killed(self.channel.get("steps"))
        return answer

    def finish(self) -> None:
        """Say why the process was killed."""
        if self.killed:
            log.error("%s", self.killed)

    def environment(self, trainer: TrainerProcess) -> Mapping[str, str]:
        """The environment of a training process."""
        facts = RestartContext(
            number=trainer.number,
            channel_path=str(self.channel.path),
            in_memory=str(self._in_memory),
            out=str(self._out),
            supervisor=os.getpid(),
            out_of_memory_restarts=trainer.out_of_memory_restarts,
            ended=self.ended,
            weight_server=self.weight_server,
        )
        return os.environ | facts.as_environment()

    def note_end(self, *, recycled: bool) -> None:
        """Take note of how a process that was replaced ended.

        Args:
            recycled: Whether it was replaced; otherwise it has died.
        """
        self.ended = recycled_end(self.channel, left_at="last_step_at") if recycled else None


def keeps_weights(config: Config) -> bool:
    """Whether processes of the run will be replaced, so that a weight server can keep its frozen weights.

    Args:
        config: The gathered configuration.
    """
    return _tunes_by_torch(config) and replacement_config(config).is_configured


def _start_weight_server(config: Config, door: Path, weights: Path) -> "subprocess.Popen[bytes] | None":
    """Start a weight server where processes will be replaced and fused steps are taken; None elsewhere."""
    if not keeps_weights(config) or kind_in_folder(str(config["model"])) in KINDS:
        return None
    on_cuda = config["device"] == "cuda" or (config["device"] == "auto" and Path("/dev/nvidiactl").exists())
    if not on_cuda and config["quantize"] is None:
        return None  # steps of the model's own code load the weights themselves
    from holdwater.train.finetune.weight_server.server import start_weight_server  # noqa: PLC0415 - for fine-tuning only

    return start_weight_server(door, weights, device="cuda" if on_cuda else "cpu")
