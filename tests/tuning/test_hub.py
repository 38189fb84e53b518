"""The hub is away where nobody knows its name."""

import socket

import pytest
from huggingface_hub import constants

from holdwater.train.tuning.hub import hub_is_away


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

    monkeypatch.setattr("holdwater.train.tuning.hub.getproxies", lambda: proxy)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(socket, "getaddrinfo", find)

    assert hub_is_away() is away
    assert asked == ([] if proxy or offline else ["huggingface.co"])
