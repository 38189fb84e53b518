"""The hub is away where nobody knows its name."""

import socket
from collections.abc import Callable

import pytest
import torch
import transformers
from huggingface_hub import constants

from holdwater.errors import ModelError
from holdwater.train.finetune.model import loading
from holdwater.train.finetune.model.hub import hub_is_away
from holdwater.train.finetune.planner import plan

READ: tuple[Callable[[str], object], ...] = (
    lambda name: loading.load_model(name, device="cpu", dtype=torch.float32),
    plan._model_of,
)


@pytest.mark.parametrize(
    ("known", "proxy", "offline", "away"),
    [
        (True, {}, False, False),
        (False, {}, False, True),
        (False, {"https": "http://proxy"}, False, False),
        (True, {}, True, True),
    ],
)
def test_a_name_that_nobody_knows(
    monkeypatch: pytest.MonkeyPatch, known: bool, proxy: dict[str, str], offline: bool, away: bool
) -> None:
    """A proxy may know it all the same; and who wants no network is not made to ask for it."""
    asked = []

    def find(host: str, _port: object) -> list[object]:
        """What the network says."""
        asked.append(host)
        if not known:
            raise socket.gaierror(-2, "Name or service not known")
        return []

    monkeypatch.setattr("holdwater.train.finetune.model.hub.getproxies", lambda: proxy)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(socket, "getaddrinfo", find)

    assert hub_is_away() is away
    assert asked == ([] if proxy or offline else ["huggingface.co"])


@pytest.mark.parametrize("read", READ, ids=["weights", "plan"])
@pytest.mark.parametrize("away", [True, False])
def test_a_hub_that_is_away_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], object], away: bool
) -> None:
    """Only what is on disk is looked for then."""
    asked = []

    def find(name: str, *, local_files_only: bool) -> None:
        """What Transformers is asked."""
        asked.append((name, local_files_only))
        raise OSError("We couldn't connect")

    for module in (loading, plan):
        monkeypatch.setattr(module, "hub_is_away", lambda: away)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", find)

    with pytest.raises(ModelError, match="the hub cannot be reached"):
        read("some/model")
    assert asked == [("some/model", away)]
