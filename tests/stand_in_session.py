"""Stand-ins for a process that `holdwater run` has started: its session, its channel, and what decides its end."""

from typing import Any


class Channel(dict[str, Any]):
    """Keeps what the supervisor would read."""

    source = "time"

    def put(self, name: str, value: float) -> None:
        """Say a number."""
        self[name] = value

    put_seconds = put

    def get_seconds(self, name: str) -> float:
        """A number that was said; 0 before."""
        return float(self.get(name, 0.0))


class Session:
    """Of a process that makes steps."""

    def __init__(self) -> None:
        self.channel = Channel()
        self.steps, self.source = 0, "time"
        self.budget_callback: object = "the script's own"
        self.counted: list[str] = []

    def step(self, source: str) -> None:
        """Count a step."""
        self.counted.append(source)


class EndsAt:
    """Stands for the ladder: ends the process after one step, and asks for a checkpoint every so many."""

    def __init__(self, step: int, ending: Any, *, every: int = 1000) -> None:
        self.step, self.ending, self.every = step, ending, every
        self.looks_after: object = None
        self.asked = 0

    def look_after(self, session: object) -> None:
        """Take up the workers of a session."""
        self.looks_after = session

    def in_use(self) -> int:
        """Bytes: 101 when it is asked first, and one more each time."""
        self.asked += 1
        return 100 + self.asked

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is to be written."""
        return seconds >= 0 and step % self.every == 0

    def end(self, step: int) -> Any:
        """How the process is to end."""
        return self.ending if step == self.step else None
