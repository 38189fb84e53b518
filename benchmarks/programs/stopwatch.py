"""Write down when each step of a program ended, in memory that is taken at the start: no object for each step."""

import array
import json
import os
import time

PLACES = 200_000


class Stopwatch:
    """Calls of `step` end a step; `write` leaves the seconds of all steps but the first in `steps-RANK.json`."""

    def __init__(self) -> None:
        self.ends = array.array("d", bytes(8 * PLACES))
        self.count = 0

    def step(self, *_, **__) -> None:
        """A step has ended."""
        self.ends[self.count] = time.perf_counter()
        self.count += 1

    def write(self) -> None:
        """Write the seconds between the ends."""
        seconds = [round(self.ends[at] - self.ends[at - 1], 6) for at in range(1, self.count)]
        with open(f"steps-{os.environ.get('RANK', '0')}.json", "w", encoding="utf-8") as file:
            json.dump(seconds, file)
