"""A loop over epochs ends with the run: a later epoch has no batch."""

from collections.abc import Iterator

from holdwater.guard.guard import Guard


class TestLaterEpochs:
    """`guard.steps` once an epoch, as loops are written."""

    def test_yields_none_after_a_stop(self) -> None:
        """The epoch in which the run must stop ends after its step; of the next one nothing is drawn."""
        drawn: list[int] = []

        def batches() -> Iterator[int]:
            """Five, each noted as it is drawn."""
            for number in range(5):
                drawn.append(number)
                yield number

        with Guard() as guard:
            for _ in range(3):
                for _ in guard.steps(batches()):
                    if guard.step_number == 6:
                        guard.stop("memory is short")

        assert guard.step_number == 7
        assert drawn == [0, 1, 2, 3, 4, 0, 1]

    def test_yields_all_without_one(self) -> None:
        """Three epochs of five steps."""
        with Guard() as guard:
            for _ in range(3):
                list(guard.steps(range(5)))

        assert guard.step_number == 15
