"""Find the statements of a file that store something under a name, or create what is stored, by syntax tree."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from holdwater.attribution.cells import is_cell, text_of

STORING = frozenset((
    "append", "appendleft", "extend", "extendleft", "insert", "add", "update", "setdefault", "put", "put_nowait",
    "push", "send", "register", "add_param_group", "__setitem__", "write", "writelines",
))  # fmt: skip
"""Methods that store their argument in the object that they are called on."""
STORING_FUNCTIONS = frozenset(("heappush", "insort", "insort_left", "insort_right", "setattr", "heappushpop"))
"""Functions that store their later arguments in the first."""
LOOKING = frozenset((
    "len", "print", "repr", "str", "id", "type", "isinstance", "getattr", "hasattr", "iter", "list", "sorted",
))  # fmt: skip
"""Functions that add nothing to what they are given."""
READING = frozenset((
    "get", "items", "keys", "values", "copy", "read", "readline", "getvalue", "close", "flush", "pop", "remove",
    "discard", "clear", "join", "format", "split", "index", "count", "to", "train", "eval", "load_state_dict",
))  # fmt: skip
"""Methods that add nothing to their object."""
VIEWS = frozenset((
    "detach", "view", "reshape", "flatten", "squeeze", "unsqueeze", "transpose", "permute", "T", "t", "expand",
    "narrow", "chunk", "split", "unbind", "ravel", "swapaxes", "numpy", "data", "requires_grad_", "items",
    "values", "cpu",
))  # fmt: skip
"""Calls that allocate nothing: what is kept was created where the object itself was."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a file."""

    line: int
    """Its first line."""
    last: int
    """Its last."""
    function: str
    """The function that contains it; `<module>` for none."""
    text: str
    """Its first line's text, without the spaces around it."""
    kind: str = "call"
    """How it stores: `call`, `entry`, `again` (the name is reassigned from itself), `name`, or `decorator`."""


class SourceFile:
    """A parsed file."""

    def __init__(self, file: str) -> None:
        """Parse a file.

        Args:
            file: Its path.

        Raises:
            OSError: It cannot be read.
            SyntaxError: It cannot be parsed.
        """
        text = text_of(file) if is_cell(file) else None
        self.text = (
            Path(file).read_text(encoding="utf-8", errors="replace") if text is None else text
        ).splitlines()
        self._tree = ast.parse("\n".join(self.text))
        self._statements: list[tuple[ast.stmt, tuple[str, ...]]] = list(_walk(self._tree.body, ()))

    def at(self, line: int) -> Statement | None:
        """The innermost statement that a line belongs to; None for an empty line or a comment."""
        found = [
            (statement, scope)
            for statement, scope in self._statements
            if _first_line(statement) <= line <= _own_last(statement)
        ]
        if not found:
            return None
        statement, scope = min(found, key=lambda pair: _own_last(pair[0]) - _first_line(pair[0]))
        return self._describe(statement, scope)

    def stores(self, name: str, *, scope: str | None = None) -> list[Statement]:
        """The statements that store something under a name, the likeliest first.

        Args:
            name: The last identifier: `losses` for `self.losses`.
            scope: A class or function that is preferred, by its name.
        """
        found = []
        for statement, inside in self._statements:
            kind = _stores(statement, name)
            if kind is not None:
                found.append((kind, statement, inside))

        def order(row: tuple[str, ast.stmt, tuple[str, ...]]) -> tuple[bool, bool, int, bool, int]:
            """The sort key: adds to it, in the scope, by a call or entry, in a loop or function, earlier."""
            kind, statement, inside = row
            elsewhere = scope is not None and scope not in inside
            return kind == "name", elsewhere, _KINDS.index(kind), not inside, statement.lineno

        return [self._describe(statement, inside, kind) for kind, statement, inside in sorted(found, key=order)]

    def passes(self, name: str) -> list[Statement]:
        """The statements with a call that is given what a name holds, and may add to it: `save(rows, buffer)`."""
        return [
            self._describe(statement, inside)
            for statement, inside in self._statements
            if inside or isinstance(statement, ast.Expr)
            for node in _parts(statement)
            if isinstance(node, ast.Call) and _is_passed(node, name)
        ]

    def calls_with(self, keyword: str) -> list[Statement]:
        """The statements with a call that passes a keyword with a value other than False."""
        return [
            self._describe(statement, inside)
            for statement, inside in self._statements
            if any(_is_given(node, keyword) for node in _parts(statement) if isinstance(node, ast.Call))
        ]

    def calls_like(self, name: str) -> list[Statement]:
        """The statements that call a function with a similar name: `register_forward_hook` for `_forward_hooks`.

        Args:
            name: The library's attribute; underscores and plural do not count.
        """
        stem = name.strip("_").removesuffix("s").casefold()
        words = set(stem.replace("hooks", "hook").split("_"))
        found = [
            (max(_likeness(called, stem, words) for called in names), statement, inside)
            for statement, inside in self._statements
            if (names := list(_called(statement)))
        ]
        likely = sorted((row for row in found if row[0] > 0), key=lambda row: -row[0])
        return [self._describe(statement, inside) for _, statement, inside in likely]

    def calls_of(self, names: Iterable[str]) -> list[Statement]:
        """The statements that call something by one of these names, such as a class."""
        wanted = frozenset(names)
        return [
            self._describe(statement, inside)
            for statement, inside in self._statements
            if not wanted.isdisjoint(_called(statement))
        ]

    def names_made_by(self, method: str) -> list[str]:
        """The names that are set to what a method of this name returns, as `rows` by `rows = manager.list()`."""
        return [
            name
            for statement, _ in self._statements
            if isinstance(statement, ast.Assign | ast.AnnAssign)
            and isinstance(statement.value, ast.Call)
            and isinstance(statement.value.func, ast.Attribute)
            and statement.value.func.attr == method
            for target in _targets(statement)
            if (name := _last(target)) is not None
        ]

    @cached_property
    def callers(self) -> dict[str, set[str]]:
        """The functions that call something, by the name that they call it by."""
        found: dict[str, set[str]] = {}
        for statement, inside in self._statements:
            for name in _called(statement):
                found.setdefault(name, set()).add(inside[-1] if inside else "<module>")
        return found

    def makes(self, store: Statement, name: str) -> Statement:
        """The statement that creates what another one stores: itself, or the one that sets its variable.

        Args:
            store: The statement that stores under the name.
            name: As for `stores`.
        """
        for _ in range(4):
            statement, inside = next(
                (statement, inside)
                for statement, inside in self._statements
                if _first_line(statement) == store.line and _own_last(statement) == store.last
            )
            variable = _variable_of(_stored(statement, name))
            if variable is None:
                break
            earlier = [
                (other, scope)
                for other, scope in self._statements
                if scope == inside and _sets(other, variable) and other is not statement
            ]
            if not earlier:
                break
            before = [pair for pair in earlier if pair[0].lineno < statement.lineno]
            other, scope = (before or earlier)[-1]
            if isinstance(other, ast.For):
                return self._describe(other, scope)
            store, name = self._describe(other, scope), variable
        return store

    def _describe(self, statement: ast.stmt, scope: tuple[str, ...], kind: str = "call") -> Statement:
        """Describe a statement."""
        line = _first_line(statement)
        inside = scope[-1] if scope else "<module>"
        return Statement(line, _own_last(statement), inside, self.text[statement.lineno - 1].strip(), kind)


@lru_cache(maxsize=64)
def parse(file: str) -> SourceFile | None:
    """A parsed file; None if it cannot be read or parsed."""
    try:
        return SourceFile(file)
    except (OSError, SyntaxError, ValueError):
        return None


_KINDS = ("decorator", "call", "entry", "again", "name")


def _walk(body: list[ast.stmt], scope: tuple[str, ...]) -> Iterator[tuple[ast.stmt, tuple[str, ...]]]:
    """All statements, each with the classes and functions that contain it."""
    for statement in body:
        yield statement, scope
        inner = (*scope, statement.name) if isinstance(statement, _SCOPES) else scope
        for field in ("body", "orelse", "finalbody"):
            yield from _walk(getattr(statement, field, []), inner)
        for handler in getattr(statement, "handlers", []) + getattr(statement, "cases", []):
            yield from _walk(handler.body, inner)


def _first_line(statement: ast.stmt) -> int:
    """The first line, a decorator's if there is one."""
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(item.lineno for item in decorators)])


def _own_last(statement: ast.stmt) -> int:
    """The last line of a statement, without the statements in it."""
    body = getattr(statement, "body", None)
    if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
        return max(statement.lineno, _first_line(body[0]) - 1)
    return int(statement.end_lineno or statement.lineno)


def _parts(statement: ast.stmt) -> Iterator[ast.expr]:
    """The expressions of a statement, without those of the statements in it; lambdas are included."""
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.expr | ast.withitem):
            yield from (node for node in ast.walk(child) if isinstance(node, ast.expr))


def _last(node: ast.expr | None) -> str | None:
    """The last identifier of the storage target: `losses` of `self.losses[key]` and of `losses.get(key)`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript):
        return _last(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _last(node.func.value)
    return None


def _stores(statement: ast.stmt, name: str) -> str | None:
    """How a statement stores under a name; None if it does not."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return "decorator" if statement.name == name and statement.decorator_list else None
    if isinstance(statement, ast.AugAssign) and _last(statement.target) == name:
        return "again"
    targets = _targets(statement)
    if any(isinstance(target, ast.Subscript) and _last(target) == name for target in targets):
        return "entry"
    if any(_call_stores(node, name) for node in _parts(statement) if isinstance(node, ast.Call)):
        return "call"
    if any(not isinstance(target, ast.Subscript) and _last(target) == name for target in targets):
        value = getattr(statement, "value", None)
        again = value is not None and any(
            _last(node) == name for node in ast.walk(value) if isinstance(node, _NAMES)
        )
        return "again" if again else "name"
    return None


def _call_stores(call: ast.Call, name: str) -> bool:
    """Whether a call stores its argument under a name."""
    function = call.func
    if isinstance(function, ast.Attribute):
        storing = function.attr in STORING or (function.attr.startswith(("register", "add_")) and call.args)
        if storing and _last(function.value) == name:
            return True
        if function.attr in STORING_FUNCTIONS and call.args:
            return _last(call.args[0]) == name
    return isinstance(function, ast.Name) and function.id in STORING_FUNCTIONS and _last(call.args[0]) == name


def _is_passed(call: ast.Call, name: str) -> bool:
    """Whether a call is given what a name holds, or is one of its methods with arguments, and may add to it."""
    function, given = call.func, [*call.args, *(part.value for part in call.keywords)]
    if isinstance(function, ast.Name) and function.id in LOOKING:
        return False
    if (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, _NAMES)
        and _last(function.value) == name
    ):
        return bool(given) and function.attr not in READING
    return any(isinstance(one, _NAMES) and _last(one) == name for one in given)


def _is_given(call: ast.Call, keyword: str) -> bool:
    """Whether a call passes a keyword that is not the literal False."""
    return any(
        part.arg == keyword and not (isinstance(part.value, ast.Constant) and not part.value.value)
        for part in call.keywords
    )


def _called(statement: ast.stmt) -> Iterator[str]:
    """The names of the functions that a statement calls."""
    for node in _parts(statement):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield str(name)


def _likeness(called: str, stem: str, words: set[str]) -> int:
    """How many words a function's name shares with a library's attribute; 0 if they do not belong together.

    `register_full_backward_hook` puts into `_backward_hooks`, and so does a tensor's `register_hook`.
    """
    called = called.casefold()
    if len(stem) > 2 and stem in called:
        return 100 + len(words)
    parts = called.split("_")
    rest = set(parts) - _REGISTERING
    return len(rest) if parts[0] in _REGISTERING and rest and rest <= words else 0


def _targets(statement: ast.stmt) -> list[ast.expr]:
    """What a statement assigns to."""
    if isinstance(statement, ast.Assign):
        found = list(statement.targets)
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign | ast.For | ast.AsyncFor):
        found = [statement.target]
    else:
        found = [node.target for node in _parts(statement) if isinstance(node, ast.NamedExpr)]
    return [part for target in found for part in (target.elts if isinstance(target, _SEQUENCES) else [target])]


def _sets(statement: ast.stmt, name: str) -> bool:
    """Whether a statement sets a variable."""
    return any(isinstance(target, ast.Name) and target.id == name for target in _targets(statement))


def _stored(statement: ast.stmt, name: str) -> ast.expr | None:
    """The expression that a statement stores under a name."""
    for node in _parts(statement):
        if isinstance(node, ast.Call) and _call_stores(node, name) and node.args:
            return node.args[-1]
    return getattr(statement, "value", None)


def _variable_of(node: ast.expr | None) -> str | None:
    """The variable that an expression is, or is a view of; None if it creates something new."""
    while True:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Subscript | ast.Starred) or (
            isinstance(node, ast.Attribute) and node.attr in VIEWS
        ):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in VIEWS:
            node = node.func.value
        elif isinstance(node, ast.Tuple) and node.elts:
            node = node.elts[-1]
        else:
            return None


_REGISTERING = frozenset(("register", "add", "full", "module"))
"""Words in names of functions that add something to a library's table."""
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_NAMES = (ast.Name, ast.Attribute)
_SEQUENCES = (ast.Tuple, ast.List)
