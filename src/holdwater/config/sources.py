"""Gather a configuration from its sources, and report all mistakes in it at once."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from holdwater.config.keys import ALL_WEIGHTS_RATE, BY_NAME, KEYS, Key
from holdwater.config.profile import Profile, full_name, positions_of
from holdwater.config.readers import percentage, rate, size
from holdwater.errors import ConfigError, SeveralConfigErrors
from holdwater.exit_codes import TERMINATION_LOG

PREFIX = "HOLDWATER_"


@dataclass(frozen=True, slots=True)
class Config:
    """The values of all keys, and where each comes from."""

    values: dict[str, Any]
    origins: dict[str, str]
    """For people: `default`, `profile base_16gb`, `train.yaml`, `HOLDWATER_STEPS`, `--steps`."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - each key has its own type
        return self.values[name]

    def as_yaml(self) -> str:
        """Write the resolved configuration, with the origin of each value that is not a default."""
        lines = []
        for name, value in self.values.items():
            if value is None:
                continue
            line = yaml.safe_dump({name: _plain(name, value)}, allow_unicode=True).strip()
            origin = self.origins[name]
            lines.append(line if origin == "default" else f"{line}  # {origin}")
        return "\n".join(lines) + "\n"


def gather(
    *,
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None = None,
    profile: Profile | None = None,
) -> Config:
    """Gather a configuration; later sources win: defaults, profile, file, environment, flags.

    Args:
        flags: By the name of the key; those that were not given are absent or None.
        environment: The process's environment; names begin with `HOLDWATER_`.
        file: A YAML file, with keys at the top level or under `training:`.
        profile: A hardware profile, whose rows for the preset count as defaults.

    Returns:
        The values of all keys.

    Raises:
        SeveralConfigErrors: There are mistakes; all of them are named.
    """
    mistakes: list[str] = []
    config = Config({key.name: key.default for key in KEYS}, {key.name: "default" for key in KEYS})
    sources = [
        _Source(str(file), _read_file(file, mistakes)) if file is not None else _Source("", {}),
        _Source("environment", _read_environment(environment), prefix=PREFIX),
        _Source("flags", {name: value for name, value in flags.items() if value is not None}, prefix="--"),
    ]
    for source in sources:
        source.apply(config, mistakes)
    if config.values["model"] is not None:
        config.values["model"] = full_name(config.values["model"], profile)
        _apply_tuning_defaults(config)
    if profile is not None:
        _apply_profile(profile, config)
    if mistakes:
        raise SeveralConfigErrors(mistakes)
    return config


@dataclass(frozen=True, slots=True)
class _Source:
    """Where values come from."""

    name: str
    values: Mapping[str, object]
    prefix: str = ""

    def apply(self, config: Config, mistakes: list[str]) -> None:
        """Read every value into the configuration, and note each mistake."""
        for name, value in self.values.items():
            key = BY_NAME.get(name)
            if key is None:
                mistakes.append(f"{self._where(name)} is unknown{_suggest(name)}")
            else:
                self._read(key, value, config, mistakes)

    def _read(self, key: Key, value: object, config: Config, mistakes: list[str]) -> None:
        """Read one value."""
        try:
            config.values[key.name] = key.read(value)
        except ConfigError as error:
            mistakes.append(f"{self._where(key.name)} is {value!r}, but {error}")
        else:
            config.origins[key.name] = self._where(key.name)

    def _where(self, name: str) -> str:
        """Name a key as its source writes it."""
        match self.prefix:
            case "--":
                return BY_NAME[name].flag if name in BY_NAME else f"--{name.replace('_', '-')}"
            case "":
                return f"{self.name}: {name}"
            case _:
                return f"{self.prefix}{name.upper()}"


def _read_environment(environment: Mapping[str, str]) -> dict[str, object]:
    """The variables that are meant for holdwater."""
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and name != TERMINATION_LOG
    }


def _read_file(file: Path, mistakes: list[str]) -> dict[str, object]:
    """Read a YAML file; keys under `training:` count as if they stood at the top level."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        mistakes.append(f"--config {file} does not exist; name a YAML file")
        return {}
    except (OSError, UnicodeDecodeError) as error:
        mistakes.append(f"--config {file} cannot be read: {error}")
        return {}
    except yaml.YAMLError as error:
        mistakes.append(f"{file} is not YAML: {' '.join(str(error).split())}")
        return {}
    if content is None:
        return {}
    nested = content.get("training", {}) if isinstance(content, dict) else None
    if not isinstance(nested, dict):
        mistakes.append(f"{file} must hold keys and values, such as `steps: 1000`, at the top or under training:")
        return {}
    top = {str(name): value for name, value in content.items() if name != "training"}
    mistakes.extend(
        f"{file}: {name} stands both at the top level and under training:; keep one"
        for name in sorted(top.keys() & {str(name) for name in nested})
    )
    return top | {str(name): value for name, value in nested.items()}


def _apply_tuning_defaults(config: Config) -> None:
    """Use the defaults of fine-tuning, where no source has a value."""
    usual = {key.name: key.tuned.value for key in KEYS if key.tuned is not None}
    usual["train_seq_length"] = min(usual["train_seq_length"], positions_of(config.values["model"]))
    if config.values["lora_rank"] == 0:
        usual["learning_rate"] = ALL_WEIGHTS_RATE
    config.values.update({name: value for name, value in usual.items() if config.origins[name] == "default"})


def _apply_profile(profile: Profile, config: Config) -> None:
    """Take a profile's row for the preset or the model, where no stronger source has a value."""
    for name, value in profile.row(config.values["model"], str(config.values["preset"])).items():
        if config.origins[name] == "default":
            config.values[name] = value
            config.origins[name] = f"profile {profile.name}"


def _suggest(name: str) -> str:
    """The known key that is nearest."""
    near = difflib.get_close_matches(name, [key.name for key in KEYS], n=1)
    return f"; did you mean {near[0]}?" if near else "; `holdwater train --help` lists the keys"


def _plain(name: str, value: object) -> object:
    """Write a value so that it can be read again."""
    reader = BY_NAME[name].read
    if reader is size:
        return f"{value}B"
    if reader is rate and isinstance(value, float):
        return value / 1e6
    if reader is percentage and isinstance(value, float):
        return value * 100
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value) if isinstance(value, Path) else value
