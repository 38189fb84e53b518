"""What is counted to show that steps take no memory."""

from holdwater.train.finetune.step.allocator_calls import AllocatorCalls


class Counting(AllocatorCalls):
    """With an allocator that is asked when a test says so."""

    def __init__(self) -> None:
        super().__init__(enabled=True)
        self.asked = 0

    def _asked(self) -> int:
        return self.asked


def test_counts_steps_that_asked_for_nothing() -> None:
    """What is asked for between two steps, as an evaluation does, is not theirs."""
    calls = Counting()
    for own in (3, 0, 1, 0, 0):
        calls.asked += 7
        calls.begin()
        calls.asked += own
        calls.end()

    assert calls.counts() == {"static_step": {"steps": 5, "without_allocator_call": 3, "in_a_row": 2}}
    assert str(calls) == "; the last 2 of 5 steps of this process asked the allocator for nothing"


def test_says_nothing_where_there_is_no_such_allocator() -> None:
    """On a CPU."""
    calls = AllocatorCalls(enabled=False)
    calls.begin()
    calls.end()

    assert (calls.counts(), str(calls)) == ({}, "")
