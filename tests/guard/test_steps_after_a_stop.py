"""A loop over epochs ends with the run: a later epoch has no batch."""

from holdwater.guard.guard import Guard


class TestLaterEpochs:
    """`guard.steps` once an epoch, as loops are written."""

    def test_yields_none_after_a_stop(self) -> None:
        """The epoch in which the run must stop ends after its step; of the next one nothing is drawn."""
        drawn = []
        with Guard() as guard:
            for epoch in range(3):
                for batch in guard.steps(drawn.append((epoch, number)) for number in range(5)):
                    assert batch is None
                    if guard.step_number == 6:
                        guard.stop("memory is short")

        assert guard.step_number == 7
        assert drawn == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1)]

    def test_yields_all_without_one(self) -> None:
        """Three epochs of five steps."""
        with Guard() as guard:
            for _ in range(3):
                list(guard.steps(range(5)))

        assert guard.step_number == 15
