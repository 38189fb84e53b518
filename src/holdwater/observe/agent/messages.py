"""Let a forked multiprocessing process report what it holds; its clock is the messages that it receives."""

import functools
import threading
from types import ModuleType
from typing import Any

from holdwater.observe.agent.session import Session
from holdwater.observe.agent.worker import WorkerAgent


def watch_messages(session: Session, module: ModuleType) -> None:
    """Notify an agent of each message that a child receives (module `multiprocessing.connection`).

    Pipes, queues, pools and managers receive by these two methods. In the training process they do nothing else.

    Args:
        session: The one that the children are forked from.
        module: `multiprocessing.connection`.
    """
    base: Any = module._ConnectionBase  # noqa: SLF001 - it has no public name
    agent, turn = WorkerAgent(session, loader=False), threading.Lock()
    for name in ("recv", "recv_bytes"):
        setattr(base, name, _tick_after(getattr(base, name), session, agent, turn))


def _tick_after(receive: Any, session: Session, agent: WorkerAgent, turn: threading.Lock) -> Any:  # noqa: ANN401
    """A receiving method that notifies the agent in a child; a manager receives in several threads."""

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
