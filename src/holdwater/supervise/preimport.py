"""Find what the fork server imports for a script, and which environment variables these imports need."""

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
"""Packages that take long to import, and whose import runs no tensor operation and touches no device."""
LAZY = {"torch": ("torch._dynamo", "holdwater.resume.state_codec", "holdwater.resume.exactness", "numpy")}
"""Modules that a package imports only on use, and that are worth importing before."""
WRITERS = frozenset(("setdefault", "update", "pop", "clear", "popitem", "__setitem__", "putenv", "unsetenv"))
"""Methods that change the environment."""


@dataclass(frozen=True, slots=True)
class Preimport:
    """What the fork server imports, and with which environment."""

    modules: list[str]
    environment: Mapping[str, str]
    """Variables that the script sets before its imports, which read them."""


def prepare(words: Sequence[str]) -> Preimport:
    """Find those packages that a script imports and that are known to be worth importing in the fork server.

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
    """The modules to import in the fork server."""
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
    """The variables that a script sets, if all are constants at its top level; None if it sets others.

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
