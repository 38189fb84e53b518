"""What a process holds, on request."""

import gc

import pytest

from holdwater import inventory

torch = pytest.importorskip("torch")


class Batch:
    """Something to count."""


class TestInventory:
    """Large tensors with their holders, types with their growth, optimizer state, graph nodes."""

    def test_names_the_largest_tensor_and_its_holder(self) -> None:
        """Of two views of one storage it is counted once."""
        weights = torch.ones(3000, 4000)
        views = [weights[:10], weights[10:]]

        row = inventory().tensors[0]

        assert (row.bytes, row.shape, row.dtype, row.device) == (48_000_000, (3000, 4000), "float32", "cpu")
        assert row.holder.startswith("local weights of")
        assert len(views) == 2

    def test_adds_up_tensors_that_are_alike(self) -> None:
        """A leak of many small ones shows by their sum."""
        kept = [torch.ones(12_345) for _ in range(40)]

        row = next(row for row in inventory().tensors if row.shape == (12_345,))

        assert (row.count, row.bytes) == (40, 40 * 12_345 * 4)
        assert row.holder.startswith("local kept of")
        assert len(kept) == 40

    def test_adds_up_optimizer_state_by_group(self) -> None:
        """Two moments and a step for each parameter; a frozen one that has a state is said."""
        gc.collect()  # optimizers of other tests
        layer = torch.nn.Linear(100, 100)
        optimizer = torch.optim.AdamW([{"params": [layer.weight]}, {"params": [layer.bias]}])
        layer(torch.ones(1, 100)).sum().backward()
        optimizer.step()
        layer.bias.requires_grad = False

        found = inventory()

        groups = [row for row in found.optimizers if row.optimizer == "AdamW"]
        assert [(row.group, row.parameters, row.state_bytes, row.frozen) for row in groups] == [
            (0, 1, 80_004, 0), (1, 1, 804, 1),
        ]  # fmt: skip
        assert "1 of them frozen" in str(found)

    def test_counts_what_has_grown_since(self) -> None:
        """Objects and graph nodes."""
        before = inventory()
        kept = [Batch() for _ in range(5000)]
        total = torch.ones(1, requires_grad=True)
        for _ in range(50):
            total = total * 2

        found = inventory()

        assert (found.types[0].type.rpartition(".")[2], found.types[0].grown) == ("Batch", 5000)
        assert found.graph_nodes - before.graph_nodes == 51
        assert len(kept) == 5000
