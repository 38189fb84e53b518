"""The flags of the commands, made from the table of keys, and their values."""

import argparse
from typing import Any

from holdwater.config.keys import KEYS, KEYS_BY_GROUP, Command, Key
from holdwater.config.readers import switch
from holdwater.errors import ConfigError, SeveralConfigErrors


def keys_of(command: Command) -> tuple[Key, ...]:
    """The keys that a command has flags for, in the order of the help text.

    Args:
        command: Its name.
    """
    return tuple(key for key in KEYS if command in key.commands)


def add_flags(parser: Any, command: Command, *, also: Command | None = None) -> dict[str, Any]:  # noqa: ANN401
    """Add the flags of a command; what was written is read later, so that all mistakes are reported at once.

    Args:
        parser: Of the command; argparse has no public type for it.
        command: Its name.
        also: Another command whose flags are accepted as well, and not shown.

    Returns:
        The groups of its help text by name; one without flags is not shown.
    """
    groups = {}
    for name, keys in KEYS_BY_GROUP.items():
        groups[name] = parser.add_argument_group(name)
        for key in keys:
            if command in key.commands:
                text = key.help + key.shown_default(command)
                _add_flag(groups[name], key, text)
            elif also in key.commands:
                _add_flag(parser, key, argparse.SUPPRESS)
    return groups


def _add_flag(parser: Any, key: Key, text: str) -> None:  # noqa: ANN401
    """Add the flag of a key; that of a switch needs no value."""
    alone: dict[str, Any] = {"nargs": "?", "const": "yes"} if key.read is switch else {}
    parser.add_argument(key.flag, dest=key.name, metavar=key.metavar, help=text, **alone)


def read_flags(options: argparse.Namespace, command: Command) -> dict[str, Any]:
    """Read the values of the flags of a command that takes them from the command line only.

    Args:
        options: The parsed command line.
        command: Its name.

    Returns:
        The values by the name of the key; the default where a flag was not given.

    Raises:
        SeveralConfigErrors: There are mistakes; all of them are named.
    """
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for key in keys_of(command):
        text = getattr(options, key.name)
        try:
            values[key.name] = key.default_for(command) if text is None else key.read(text)
        except ConfigError as error:
            mistakes.append(f"{key.flag} is {text!r}, but {error}")
    if mistakes:
        raise SeveralConfigErrors(mistakes)
    return values
