"""Run a user's script with a session in its process, and with hooks for the frameworks that it may import.

    python observed_script.py FOLDER LAST_STEP SCRIPT|-m MODULE [ARGS]

`holdwater run` starts this; it is not a command of its own.
"""

import sys

if __name__ == "__main__" and not (sys.flags.isolated or sys.flags.safe_path):
    sys.path.pop(0)

import random
from collections.abc import Callable
from types import ModuleType

from holdwater.frameworks.mlx_clock import MlxClock
from holdwater.frameworks.torch_clock import Loaders, TorchClock, watch_compiler, watch_modules, watch_saving
from holdwater.observe.agent import session as sessions
from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.imports import Hook
from holdwater.observe.agent.messages import watch_messages
from holdwater.observe.agent.script import run_words
from holdwater.observe.agent.session import Session
from holdwater.observe.agent.shared_memory import watch_shared_memory
from holdwater.process.restart_context import RestartContext


def main() -> None:
    """Run the script; its exit status is this process's. Also called in a process forked for it."""
    run_words(attach)


def attach(session: Session, restart: RestartContext | None) -> dict[str, Hook]:
    """Prepare a session, and return the hooks for the modules that a script may import.

    Args:
        session: This process's.
        restart: The restart context; None if no other process may follow this one.
    """
    hooks = _hooks(session)
    if restart is not None:
        _keep_budget(session, restart)
        hooks |= _seed(int(restart.settings.get("seed", 0)))
    return hooks


def _seed(seed: int) -> dict[str, Hook]:
    """Begin with the same random states in each process of a run: a script may never seed them.

    Args:
        seed: Of the run.
    """
    random.seed(seed)
    return {"numpy.random": _safely(lambda module: module.seed(seed % 2**32))}


def _keep_budget(session: Session, restart: RestartContext) -> None:
    """Keep the budget of a script that a fresh process cannot resume."""
    from holdwater.frameworks.loader_workers import LoaderWorkers  # noqa: PLC0415 - loaded in the fork server already
    from holdwater.supervise.budget_callback import BudgetCallback  # noqa: PLC0415

    session.workers = LoaderWorkers(session.folder)

    recycling = BudgetCallback(restart, resumable=False)
    recycling.look_after(session)

    def keep(step: int) -> str | None:
        """Release memory if it is short; return why to stop, if that did not help."""
        ending = recycling.end(step)
        return None if ending is None else ending.reason

    session.budget_callback = harmless(keep, session.keep_no_budget)


def _hooks(session: Session) -> dict[str, Hook]:
    """The hooks that run when a framework has been imported."""
    clock, loaders, mlx = TorchClock(session), Loaders(session), MlxClock(session)

    def watch_loaders(module: ModuleType) -> None:
        """Count the batches of loaders, and manage their workers."""
        loaders.watch(module)
        if session.workers is not None:
            session.workers.watch(module)

    def watch_mlx(module: ModuleType) -> None:
        """Count what MLX computes, and the files that are saved."""
        mlx.watch_core(module)
        watch_saving(session, module, "save_safetensors")

    return {
        name: _safely(hook)
        for name, hook in (
            ("torch.optim.optimizer", clock.watch_optimizers),
            ("torch.amp.grad_scaler", clock.watch_scaler),
            ("torch.cuda.graphs", clock.watch_graphs),
            ("torch.utils.data.dataloader", watch_loaders),
            ("torch.utils.data.sampler", loaders.watch_lengths),
            ("torch.utils.data.distributed", loaders.watch_lengths),
            ("torch.utils.data._utils.fetch", loaders.watch_workers),
            ("torch.nn.modules.module", lambda module: watch_modules(session, module)),
            ("torch.serialization", lambda module: watch_saving(session, module, "save")),
            ("safetensors.torch", lambda module: watch_saving(session, module, "save_file")),
            ("torch._dynamo.utils", lambda module: watch_compiler(session, module)),
            ("mlx.optimizers.optimizers", mlx.watch_optimizers),
            ("mlx.core", watch_mlx),
            ("mlx.nn.layers.base", lambda module: watch_modules(session, module, flag="_training")),
            ("multiprocessing.connection", lambda module: watch_messages(session, module)),
            ("multiprocessing.shared_memory", lambda module: watch_shared_memory(session.folder, module)),
        )
    }


def _safely(hook: Callable[[ModuleType], None]) -> Hook:
    """A hook whose failure is reported, and does not stop the import."""

    def call(module: ModuleType) -> None:
        """Call the hook."""

        def failed(error: Exception) -> None:
            """Another version of a framework may lack what is hooked."""
            sessions.say(f"{module.__name__} cannot be watched, so its steps may not be seen: {error!r}")

        harmless(hook, failed)(module)

    return call


if __name__ == "__main__":
    main()
