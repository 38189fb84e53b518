"""Whether the hub of models is within reach: without a network its library asks six times, for half a minute."""

import os
import socket
from urllib.parse import urlsplit

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
"""Through one of these the hub may be reached although nobody here knows its name."""


def hub_is_away() -> bool:
    """Whether nobody knows the hub's name here, so that only what is on disk can be had."""
    from huggingface_hub.constants import ENDPOINT  # noqa: PLC0415 - comes with Transformers, an extra

    if any(os.environ.get(name) for name in PROXIES):
        return False
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, None)
    except OSError:
        return True
    return False
