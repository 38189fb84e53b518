"""The label beside each script: what a tool should say of it."""

import importlib
import importlib.util
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a script, by what is written on it."""

    number: int
    code: str
    name: str | None = None
    """What holds; None for an allocation."""
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """A script and the truth about it."""

    script: Path
    verdict: str
    component: str | None
    """None for a look-alike."""
    follows: str | None
    """None where more than one clock fits."""
    case: str
    """Its number in the list of public cases; empty where a program comes from elsewhere."""
    pair: str | None
    """The script with the same curve or the same code, and the opposite truth."""
    allocated: Line | None
    held: Line | None

    @property
    def leaks(self) -> bool:
        """Whether the script leaks."""
        return self.verdict == "leak"

    @property
    def needs_gpu(self) -> bool:
        """Whether the script is one for a CUDA device."""
        return self.script.stem.startswith("gpu_")


def read_labels(pattern: str = "") -> list[Label]:
    """Read all labels whose script's path holds the pattern, in the order of their names."""
    scripts = sorted((*HERE.glob("leaks/*.py"), *HERE.glob("lookalikes/*.py")))
    return [read_label(script) for script in scripts if pattern in str(script)]


def read_folder(folder: Path, pattern: str = "") -> list[Label]:
    """Read the labels of any folder of programs (NAME.py beside NAME.toml), in the order of their names."""
    scripts = sorted(script.resolve() for script in folder.glob("*.py") if script.with_suffix(".toml").exists())
    return [read_label(script) for script in scripts if pattern in script.name]


def read_label(script: Path) -> Label:
    """Read the label beside a script."""
    table = tomllib.loads(script.with_suffix(".toml").read_text(encoding="utf-8"))
    lines = script.read_text(encoding="utf-8").splitlines()

    def find(role: str) -> Line | None:
        """The line that a label means, by its text, which occurs once."""
        if role not in table:
            return None
        code = table[role]["code"]
        (number,) = (at for at, line in enumerate(lines, start=1) if line.strip() == code)
        return Line(number, code, table[role].get("name"), table[role].get("kind"))

    return Label(
        script=script,
        verdict=table["verdict"],
        component=table.get("component"),
        follows=table.get("follows"),
        case=table.get("case", ""),
        pair=table.get("pair"),
        allocated=find("allocated"),
        held=find("held"),
    )


def what_is_missing(label: Label) -> str | None:
    """What a script needs that this machine lacks: a CUDA device, or packages; None where it can run."""
    text = label.script.read_text(encoding="utf-8")
    names = set(re.findall(r"^(?:import|from) (\w+)", text, flags=re.MULTILINE))
    if label.needs_gpu and not _has_gpu():
        return "a CUDA device"
    absent = {name for name in names if importlib.util.find_spec(name) is None}
    if "mlx" in names - absent and not _has_mlx():
        absent.add("mlx")
    return ", ".join(sorted(absent)) or None


def _has_mlx() -> bool:
    """Whether MLX can be loaded: on Linux its package needs another, with its library."""
    try:
        importlib.import_module("mlx.core")
    except ImportError:
        return False
    return True


def _has_gpu() -> bool:
    """Whether torch sees a CUDA device."""
    import torch  # noqa: PLC0415 - only where a script asks for one

    return torch.cuda.is_available()
