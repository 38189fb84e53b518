"""The hub is away where nobody knows its name."""

import socket

import pytest

from holdwater.train.tuning.hub import PROXIES, hub_is_away


@pytest.mark.parametrize(
    ("known", "proxy", "away"), [(True, "", False), (False, "", True), (False, "http://proxy", False)]
)
def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch, known: bool, proxy: str, away: bool) -> None:
    """A proxy may know it all the same."""
    asked = []

    def find(host: str, _port: object) -> list[object]:
        """What the network says."""
        asked.append(host)
        if not known:
            raise socket.gaierror(-2, "Name or service not known")
        return []

    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    if proxy:
        monkeypatch.setenv(PROXIES[0], proxy)
    monkeypatch.setattr(socket, "getaddrinfo", find)

    assert hub_is_away() is away
    assert asked == ([] if proxy else ["huggingface.co"])
