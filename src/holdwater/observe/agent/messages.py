"""Let a forked process of multiprocessing say what it holds: its clock is the messages that it receives."""

import functools
import threading
from types import ModuleType
from typing import Any

from holdwater.observe.agent.session import Session
from holdwater.observe.agent.worker import WorkerAgent


def watch_messages(session: Session, module: ModuleType) -> None:
    """Tell an agent of each message that a child receives (module `multiprocessing.connection`).

    Pipes, queues, pools and managers receive by these two methods. In the training process nothing is done.

    Args:
        session: The one that the children are forked from.
        module: The connections'.
    """
    base: Any = module._ConnectionBase  # noqa: SLF001 - it has no public name
    agent, turn = WorkerAgent(session, loader=False), threading.Lock()
    for name in ("recv", "recv_bytes"):
        setattr(base, name, _tick_after(getattr(base, name), session, agent, turn))


def _tick_after(receive: Any, session: Session, agent: WorkerAgent, turn: threading.Lock) -> Any:  # noqa: ANN401
    """A method that receives, and tells the agent in a child; a manager receives in several threads."""

    @functools.wraps(receive)
    def received(*words: Any, **named: Any) -> Any:  # noqa: ANN401 - a connection's own
        """Receive a message."""
        message = receive(*words, **named)
        if session.forked and turn.acquire(blocking=False):
            try:
                agent.tick()
            finally:
                turn.release()
        return message

    return received
