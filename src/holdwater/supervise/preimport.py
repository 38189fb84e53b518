"""What is imported once for a script that is started again and again, and what that needs of the environment."""

import ast
import logging
import os
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

log = logging.getLogger("holdwater")

OURS = (
    "holdwater.frameworks.observed_script",
    "holdwater.resume.resumable",
    "holdwater.supervise.budget_callback",
)
WORTH_IT = frozenset((
    "torch", "numpy", "transformers", "peft", "trl", "datasets", "accelerate", "torchvision", "torchaudio",
    "lightning", "pytorch_lightning", "scipy", "pandas", "sklearn", "safetensors", "tokenizers", "PIL", "timm",
    "diffusers", "sentence_transformers", "mlx", "mlx_lm", "matplotlib",
))  # fmt: skip
"""Packages that take long to import, run no tensor operation while they are, and touch no device."""
LAZY = {"torch": ("torch._dynamo", "holdwater.resume.state_codec", "holdwater.resume.exactness", "numpy")}
"""What they import only when it is used."""
WRITERS = frozenset(("setdefault", "update", "pop", "clear", "popitem", "__setitem__", "putenv", "unsetenv"))
"""Methods that change the environment."""


@dataclass(frozen=True, slots=True)
class Preimport:
    """What the process that is forked from imports, and with what in its environment."""

    modules: list[str]
    environment: Mapping[str, str]
    """What the script itself sets before its imports: they would not see it otherwise."""


def prepare(words: Sequence[str]) -> Preimport:
    """Find the packages that a script imports, as far as they are known to be worth it.

    Args:
        words: `SCRIPT` and its arguments, or `-m MODULE` and its arguments.
    """
    try:
        path = words[0]
        if path == "-m":
            spec = find_spec(words[1])
            path = (spec and spec.origin) or ""
        with tokenize.open(path) as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, ImportError):
        return Preimport(list(OURS), {})
    environment = settled_environment(tree)
    if environment is None:
        log.info(
            "the script changes its environment in a way that cannot be foreseen: each process imports everything "
            "itself, which takes seconds; set constants at its beginning, or outside"
        )
        return Preimport(list(OURS), {})
    return Preimport(_modules(tree), environment)


def _modules(tree: ast.Module) -> list[str]:
    """What to import once."""
    named = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    named += [
        f"{node.module}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    ]
    found = [name for name in dict.fromkeys(named) if package_of(name) in WORTH_IT]
    more = [name for package in sorted({package_of(name) for name in found}) for name in LAZY.get(package, ())]
    return [*OURS, *found, *more]


def settled_environment(tree: ast.Module) -> dict[str, str] | None:
    """What a script sets in its environment, if these are constants at its top level; None where they are not.

    Args:
        tree: Of the script.
    """
    settled: dict[str, str] = {}
    known = 0
    for statement in tree.body:
        for name, value, given in _constants(statement):
            known += 1
            if not given or name not in os.environ:
                settled[name] = value
    return settled if known == sum(map(_changes_environment, ast.walk(tree))) else None


def _constants(statement: ast.stmt) -> Iterator[tuple[str, str, bool]]:
    """Name and value that a statement sets, and whether only where nothing is set yet."""
    match statement:
        case ast.Assign(
            targets=[ast.Subscript(value=place, slice=ast.Constant(value=str(name)))],
            value=ast.Constant(value=str(value)),
        ) if _is_environment(place):
            yield name, value, False
        case ast.Expr(
            value=ast.Call(
                func=ast.Attribute(value=place, attr="setdefault"),
                args=[ast.Constant(value=str(name)), ast.Constant(value=str(value))],
            )
        ) if _is_environment(place):
            yield name, value, True


def _changes_environment(node: ast.AST) -> bool:
    """Whether a part of a script changes the environment."""
    match node:
        case ast.Subscript(value=place, ctx=ast.Store() | ast.Del()):
            return _is_environment(place)
        case ast.Call(func=ast.Attribute(value=place, attr=name)) if name in WRITERS:
            return name.endswith("env") or _is_environment(place)
    return False


def _is_environment(node: ast.AST) -> bool:
    """Whether it is `os.environ`, or `environ` by itself."""
    return getattr(node, "attr", getattr(node, "id", "")) == "environ"


def package_of(name: str) -> str:
    """The package of a module or `module:attribute`."""
    return name.partition(":")[0].partition(".")[0]
