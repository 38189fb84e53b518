"""Whether the hub of models is within reach: without a network its library asks six times, for half a minute."""

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies


def hub_is_away() -> bool:
    """Whether nobody knows the hub's name here, or it is not to be asked: only what is on disk can be had."""
    from huggingface_hub import constants  # noqa: PLC0415 - comes with Transformers, an extra

    if constants.HF_HUB_OFFLINE:
        return True
    if {"http", "https", "all"} & set(getproxies()):  # one of them may know it
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except (OSError, UnicodeError):
        return True
    return False
