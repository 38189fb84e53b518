"""Read what a script imports, and which environment variables it sets before, in the order of Python.

Modules in the folder of the script are followed. Reading ends where a variable is set that cannot be
foreseen, or after an import that may have read it: what comes later is left to the script's own process.
"""

import ast
import os
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

COPIERS = frozenset(("dict", "list", "sorted", "set", "len", "print", "str", "repr"))
"""Functions that do not change what they are given."""
SETTERS = frozenset(("putenv", "unsetenv", "load_dotenv", "addsitedir"))
"""Functions that change the environment, or where modules are found."""
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class ScriptImports:
    """Follows a script and the modules in its folder."""

    def __init__(self, folder: str | None, wanted: frozenset[str]) -> None:
        """Begin with nothing.

        Args:
            folder: Where the script's own modules lie; None if Python does not search there.
            wanted: Packages whose imports are listed.
        """
        self.modules: list[str] = []
        """`module` or `module:attribute`, in order."""
        self.settled: dict[str, str] = {}
        """Variables that are set before the first of them."""
        self.is_foreseen = True
        """Whether reading has come to the end."""
        self._folder, self._wanted = folder, wanted
        self._later: list[str] = []
        self._seen: set[str] = set()

    def follow_script(self, path: str) -> None:
        """Follow a script.

        Args:
            path: The file.
        """
        self._read(path, "")
        self._end()

    def follow_module(self, name: str) -> None:
        """Follow a module that is run, or the `__main__` of a package; nothing is imported.

        Args:
            name: As after `python -m`.
        """
        places = [*([] if self._folder is None else [self._folder]), *sys.path]
        self._read_own(PathFinder.find_spec(name.partition(".")[0], places), [*name.split("."), "__main__"])
        self._end()

    def _end(self) -> None:
        """Add the imports inside functions: they come last."""
        if self.is_foreseen:
            self.modules += self._later

    def _read(self, path: str, package: str) -> None:
        """Follow a file, if it was not followed before."""
        if path in self._seen:
            return
        self._seen.add(path)
        tree = _parse(path)
        self.is_foreseen &= tree is not None
        for statement in [] if tree is None else tree.body:
            if not self.is_foreseen:
                return
            self._run(statement, package)

    def _run(self, statement: ast.stmt, package: str) -> None:
        """Follow one statement of a module."""
        constants = list(_constants(statement))
        if changes_imports(statement) and (self.modules or not constants):
            self.is_foreseen = False
            return
        for name, value, given in constants:
            if not given or name not in os.environ | self.settled:
                self.settled[name] = value
        for node, is_later in _imports(statement):
            for name in _names(node, package):
                if self.is_foreseen:
                    self._import(name, is_later=is_later)

    def _import(self, name: str, *, is_later: bool) -> None:
        """Follow the import of one `module` or `module:attribute`."""
        module, _, attribute = name.partition(":")
        top = module.partition(".")[0]
        found = None if self._folder is None else PathFinder.find_spec(top, [self._folder])
        if found is not None and (found.origin or (top not in self._wanted and _installed(top) is None)):
            if not is_later:
                self._read_own(found, [*module.split("."), attribute])
        elif top in self._wanted:
            (self._later if is_later else self.modules).append(name)
        elif top not in sys.stdlib_module_names and not is_later:
            self.is_foreseen = not _sets_variables(top)

    def _read_own(self, spec: ModuleSpec | None, parts: list[str]) -> None:
        """Follow a module of the script's folder: its packages, itself, then an attribute that is a module."""
        package = ""
        while spec is not None:
            package = f"{package}.{parts[0]}".lstrip(".")
            places = spec.submodule_search_locations
            if spec.origin is not None and spec.origin.endswith(".py"):
                self._read(spec.origin, package if places is not None else package.rpartition(".")[0])
            parts = parts[1:]
            spec = PathFinder.find_spec(f"{package}.{parts[0]}", places) if places and parts and parts[0] else None


def changes_imports(statement: ast.AST) -> bool:
    """Whether a part of a script changes the environment, or where modules are found, or may do so.

    Args:
        statement: A statement, or a whole module.
    """
    harmless = {id(node) for parent in ast.walk(statement) for node in _only_read(parent)}
    return any((_is_environment(node) and id(node) not in harmless) or _sets(node) for node in ast.walk(statement))


def _only_read(node: ast.AST) -> list[ast.AST]:
    """The children of a node that it only reads."""
    match node:
        case (
            ast.Subscript(value=place, ctx=ast.Load())
            | ast.Attribute(value=place, attr="copy" | "get" | "items" | "keys" | "values")
            | ast.keyword(arg="env" | None, value=place)
            | ast.For(iter=place)
        ):
            return [place]
        case ast.Call(func=ast.Name(id=name), args=places) if name in COPIERS:
            return list(places)
        case ast.Compare(comparators=places) | ast.Dict(values=places):
            return list(places)
        case ast.BinOp(left=left, right=right):
            return [left, right]
    return []


def _sets(node: ast.AST) -> bool:
    """Whether a node changes the environment without its name, or puts something before the places of modules."""
    match node:
        case ast.ImportFrom(module="os", names=names):
            return any(one.asname is not None and one.name in {"environ", *SETTERS} for one in names)
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in SETTERS:
            return True
        case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="path", value=ast.Name(id="sys")), attr=name)):
            return name != "append"  # at the end it hides nothing
        case ast.Attribute(attr="path", value=ast.Name(id="sys"), ctx=ast.Store()):
            return True
        case ast.Subscript(value=ast.Attribute(attr="path", value=ast.Name(id="sys")), ctx=ast.Store()):
            return True
    return False


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


def _is_environment(node: ast.AST) -> bool:
    """Whether it is `os.environ`, or `environ` by itself."""
    return getattr(node, "attr", getattr(node, "id", "")) == "environ"


def _imports(node: ast.AST, *, is_later: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """The imports in a statement, and whether they lie in a function, which runs later."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, is_later
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, is_later=is_later or isinstance(node, _FUNCTIONS))


def _names(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """What an import names: `module` or `module:attribute`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    parts = package.split(".") if node.level else []
    above = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
    module = ".".join(part for part in (above, node.module) if part)
    return [f"{module}:{alias.name}" for alias in node.names] if module else []


def _installed(name: str) -> ModuleSpec | None:
    """An installed module."""
    return PathFinder.find_spec(name, sys.path)


@cache
def _sets_variables(name: str) -> bool:
    """Whether an installed module sets environment variables where it is imported; its submodules are not read."""
    spec = _installed(name)
    tree = _parse(spec.origin) if spec is not None and spec.origin and Path(spec.origin).suffix == ".py" else None
    return tree is not None and changes_imports(tree)


def _parse(path: str) -> ast.Module | None:
    """The syntax tree of a file; None if it cannot be read."""
    try:
        with tokenize.open(path) as file:
            return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
