"""The process that holds frozen weights: it outlives trainers, refuses strangers, and ends with its supervisor."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from holdwater.train.finetune.fused.frozen import Frozen, WeightPlacement
from holdwater.train.finetune.weight_server.client import ServedWeights, WeightClient, WeightServerError
from holdwater.train.finetune.weight_server.server import SharedMemory, WeightServer, start_weight_server


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Path]:
    """The socket of a weight server."""
    path = tmp_path / "weights.socket"
    process = start_weight_server(path, tmp_path / "weights", device="cpu")
    yield path
    process.communicate(timeout=10)


def layers(fill: float) -> list[torch.nn.Linear]:
    """Two layers of 64 inputs."""
    made = [torch.nn.Linear(64, size, bias=False).requires_grad_(False) for size in (32, 48)]  # noqa: FBT003
    for one in made:
        one.weight.data.fill_(fill)
    return made


class TestKeeper:
    """As trainers see it."""

    @pytest.mark.parametrize("bits", [None, 4, 8])
    def test_weights_are_there_for_the_next_trainer(self, door: Path, bits: int | None) -> None:
        """Which needs none of its own: its layers have no memory."""
        with closing(ServedWeights(door, "mine")) as weight_client:
            assert weight_client.facts is None
            wanted = Frozen("0.gates", layers(0.5), 4, WeightPlacement("cpu", bits, weight_client))
            weight_client.whole({"step": 7})
        with torch.device("meta"):
            empty = layers(0.0)

        with closing(ServedWeights(door, "mine")) as weight_client:
            assert weight_client.facts == {"step": 7}
            found = Frozen("0.gates", empty, 4, WeightPlacement("cpu", bits, weight_client))

        for one in (wanted, found):
            if bits is not None:
                one.use_workspace(torch.zeros(one.size))
        assert torch.equal(found.whole()[:80], wanted.whole()[:80])
        assert found.whole()[:80].mean().item() == pytest.approx(0.5, abs=0.01)
        if bits is None:
            assert torch.equal(empty[1].weight, torch.full((48, 64), 0.5))

    def test_a_trainer_that_is_killed_does_not_take_them_along(self, door: Path) -> None:
        """By a signal that nobody can catch."""
        script = (
            "import os, signal, torch; from pathlib import Path\n"
            "from holdwater.train.finetune.weight_server.client import ServedWeights\n"
            f"weight_client = ServedWeights(Path({str(door)!r}), 'mine')\n"
            "weight_client.place('one', (1000,), torch.empty(0), device='cpu').fill_(3.0)\n"
            "weight_client.whole({})\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        killed = subprocess.run([sys.executable, "-c", script], check=False)

        with closing(ServedWeights(door, "mine")) as weight_client:
            assert killed.returncode == -signal.SIGKILL
            assert weight_client.facts == {}
            assert weight_client.place("one", (1000,), torch.empty(0), device="cpu").sum().item() == 3000

    def test_weights_that_are_not_whole_are_loaded_again(self, door: Path) -> None:
        """A trainer that died while it loaded has left no weights."""
        with closing(ServedWeights(door, "mine")) as weight_client:
            weight_client.place("one", (10,), torch.empty(0), device="cpu")

        with closing(ServedWeights(door, "mine")) as weight_client:
            assert weight_client.facts is None

    def test_weights_that_are_forgotten_are_loaded_again(self, door: Path) -> None:
        """By any process, for nobody knows how far they were trained."""
        with closing(ServedWeights(door, "mine")) as weight_client:
            weight_client.whole({"name": "one"})
            weight_client.park("token")
        with closing(ServedWeights(door, "mine")) as weight_client:
            assert (weight_client.facts, weight_client.parked) == ({"name": "one"}, "token")
            weight_client.forget()

        with closing(ServedWeights(door, "mine")) as weight_client:
            assert (weight_client.facts, weight_client.parked) == (None, None)

    def test_refuses_weights_of_another_model_or_size(self, door: Path) -> None:
        """With the reason."""
        with closing(ServedWeights(door, "mine")) as weight_client:
            weight_client.place("one", (10,), torch.empty(0), device="cpu")
            with pytest.raises(WeightServerError, match="one has 40 bytes, not 44"):
                weight_client.place("one", (11,), torch.empty(0), device="cpu")
            weight_client.whole({})

        with pytest.raises(WeightServerError, match="weights of another model"):
            ServedWeights(door, "another")

    def test_ends_when_its_supervisor_is_gone(self, tmp_path: Path) -> None:
        """Its standard input closes, whatever the supervisor died of."""
        process = start_weight_server(tmp_path / "weights.socket", tmp_path / "weights", device="cpu")
        with closing(ServedWeights(tmp_path / "weights.socket", "mine")) as weight_client:
            process.communicate(timeout=10)

            assert process.returncode == 0
            with pytest.raises(WeightServerError, match=r"is gone|does not answer"):
                weight_client.place("one", (10,), torch.empty(0), device="cpu")

    def test_without_a_keeper_weights_lie_in_the_process(self) -> None:
        """And nothing is known of them."""
        weight_client = WeightClient()

        assert weight_client.facts is None
        assert weight_client.place("one", (2, 3), torch.empty(0), device="cpu").shape == (2, 3)


class TestRoom:
    """Shared memory that is too small."""

    def test_weights_have_all_of_their_space(self, tmp_path: Path) -> None:
        """A store to a page without space would be a SIGBUS in the trainer."""
        server = WeightServer(SharedMemory(tmp_path))

        (path,) = server.answer({"say": "place", "name": "a", "size": 1_000_000})["handle"]

        assert 512 * Path(path).stat().st_blocks >= 1_000_000

    def test_no_room_is_refused_by_name(self) -> None:
        """The trainer hears why."""

        class Full:
            """A full disk."""

            def make(self, name: str, size: int) -> None:
                """Fail."""
                raise OSError(28, "No space left on device")

            def handle(self, name: str) -> list[object]:
                """Nothing was made."""
                raise KeyError(name)

        answer = WeightServer(Full()).answer({"say": "place", "name": "a", "size": 8})

        assert answer["refused"] == "there is no room for the 8 bytes of a: [Errno 28] No space left on device"
