"""Which variables of a suspended frame are still needed: those that are read before they are set again.

Source: Kildall (1973), "A unified approach to global program optimization", POPL; live variables.
"""

import dis
import functools
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from types import CodeType, FrameType
from typing import NamedTuple

WRITERS = frozenset(("append", "add", "extend", "appendleft", "insert"))
"""Methods of a container that only store: one that is used by nothing else is never read."""
CONTAINERS = (list, set, deque, bytearray)
ADDED_TO = "+"
"""Precedes the name of a variable of which only a writer is called."""
ENDS = frozenset(("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "RETURN_GENERATOR"))
ALWAYS = frozenset(("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE"))
SWALLOWERS = frozenset(("suppress", "ExitStack", "AsyncExitStack", "raises", "warns"))
"""Context managers after which the code goes on when an exception was raised in them."""
TESTED = ((3, 11), (3, 13))
"""The first and the last version of Python whose bytecode the tests have read."""
COLLECTING = frozenset(("LIST_APPEND", "SET_ADD", "MAP_ADD"))
"""Add to the result of a comprehension, which lies on the stack, below the iterators of its loops."""
DRAWING = frozenset((
    "CALL", "CALL_FUNCTION_EX", "CALL_KW", "PRECALL", "LIST_EXTEND", "SET_UPDATE", "UNPACK_SEQUENCE", "UNPACK_EX",
    "CONTAINS_OP",
))  # fmt: skip
"""Instructions, other than of a loop, that draw all items of a generator."""
SPACES = ("FAST", "NAME", "GLOBAL", "GLOBALS", "DEREF", "CLASSDEREF", "CLOSURE")


class _Flow(NamedTuple):
    """What one instruction does with variables, and what may follow it."""

    reads: frozenset[str]
    sets: frozenset[str]
    following: tuple[int, ...]
    """Offsets; for a loop's head, the body comes first."""


def why_unknown(version: tuple[int, int] = sys.version_info[:2]) -> str | None:
    """Why it cannot be known which variables a frame still needs; None if it can.

    Args:
        version: Of Python.
    """
    if TESTED[0] <= version <= TESTED[1]:
        return None
    first, last, now = (f"{major}.{minor}" for major, minor in (*TESTED, version))
    return (
        f"which variables the loop still needs is known for the bytecode of Python {first} to {last}, and this is "
        f"Python {now}"
    )


def live_names(frame: FrameType, *, leaves_loop: bool = False) -> frozenset[str]:
    """The variables that a frame reads before it sets them again, from where it is now.

    Args:
        frame: Suspended in a call, or at the head of a `for` loop.
        leaves_loop: Whether the loop ends here; otherwise another turn of it follows.
    """
    flows, entering = _analysed(frame.f_code)
    at = max((offset for offset in flows if offset <= frame.f_lasti), default=0)
    following = flows[at].following
    if _is_loop_head(frame.f_code, at):
        following = following[1:] if leaves_loop else following[:1]
    found = frozenset().union(*(entering[offset] for offset in following if offset in entering))
    return without_added_to(found, frame.f_globals | dict(frame.f_locals)) if _any_added_to(found) else found


def _any_added_to(names: Iterable[str]) -> bool:
    """Whether of some variable only a writer is called."""
    return any(name.startswith(ADDED_TO) for name in names)


def without_added_to(names: Iterable[str], values: Mapping[str, object]) -> frozenset[str]:
    """The variables that are read: a container that is only added to is not, any other object may do anything.

    Args:
        names: As found in bytecode.
        values: What the variables hold.
    """
    read = {name for name in names if not name.startswith(ADDED_TO)}
    added = {name.removeprefix(ADDED_TO) for name in names if name.startswith(ADDED_TO)}
    return frozenset(read | {name for name in added if type(values.get(name)) not in CONTAINERS})


def global_names(code: CodeType) -> frozenset[str]:
    """The global variables that a function, and those defined in it, read; see `without_added_to`.

    Args:
        code: Of the function.
    """
    found = {
        name for number, one in enumerate(_instructions(code)) for name in _reads(code, number) if _outer(one)
    }
    nested = (global_names(const) for const in code.co_consts if isinstance(const, CodeType))
    return frozenset(found).union(*nested)


def texts_in(code: CodeType) -> frozenset[str]:
    """The constant texts of a function, and of those defined in it.

    Args:
        code: Of the function.
    """
    own = {const for const in code.co_consts if type(const) is str}
    nested = (texts_in(const) for const in code.co_consts if isinstance(const, CodeType))
    return frozenset(own).union(*nested)


def gathers(frame: FrameType) -> bool:
    """Whether what a frame computes from the items of a loop is kept where no variable leads to it.

    That is so in a comprehension, and in a call such as `list(loop)` or `sum(loss for ... in loop)`.

    Args:
        frame: Suspended while it draws an item from a generator.
    """
    steps = _instructions(frame.f_code)
    at = max((one.offset for one in steps if one.offset <= frame.f_lasti), default=0)
    head = next(one for one in steps if one.offset == at)
    if head.opname != "FOR_ITER":
        return head.opname in DRAWING and not {"next", "__next__", "send"} & set(frame.f_code.co_names)
    heads = [one for one in steps if one.opname == "FOR_ITER" and at <= one.offset < head.argval]
    for one in steps:
        around = sum(each.offset < one.offset < each.argval for each in heads)
        if one.opname in COLLECTING and at < one.offset < head.argval and (one.arg or 0) > around:
            return True
    return False


def loop_index(frame: FrameType) -> str | None:
    """The first of several variables that a `for` loop sets, such as the index of `enumerate`, if it is read.

    Args:
        frame: Suspended at the head of the loop.
    """
    code = frame.f_code
    rest = [one for one in _instructions(code) if one.offset > frame.f_lasti]
    if len(rest) < 2 or rest[0].opname != "UNPACK_SEQUENCE":
        return "its count" if rest and rest[0].opname.startswith(("STORE", "UNPACK")) else None
    name = str(_names(rest[1])[0]) if _names(rest[1]) else "its count"
    everywhere = {read for number in range(len(_instructions(code))) for read in _reads(code, number)}
    return name if name in everywhere else None


@functools.lru_cache(maxsize=256)
def _instructions(code: CodeType) -> tuple[dis.Instruction, ...]:
    """The instructions of a function."""
    return tuple(dis.get_instructions(code))


@functools.lru_cache(maxsize=256)
def _analysed(code: CodeType) -> tuple[dict[int, _Flow], dict[int, frozenset[str]]]:
    """The flow of a function, and the live variables before each instruction."""
    flows = _flows(code)
    entering = {offset: flow.reads for offset, flow in flows.items()}
    changed = True
    while changed:
        changed = False
        for offset, flow in reversed(flows.items()):
            leaving = frozenset().union(*(entering[at] for at in flow.following if at in entering))
            now = flow.reads | (leaving - flow.sets)
            if now != entering[offset]:
                entering[offset], changed = now, True
    return flows, entering


def _flows(code: CodeType) -> dict[int, _Flow]:
    """What each instruction does, by its offset."""
    steps = _instructions(code)
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    found = {}
    for number, one in enumerate(steps):
        following = [] if one.opname in ENDS | ALWAYS or number + 1 == len(steps) else [steps[number + 1].offset]
        if _jumps(steps, number):
            following.append(int(one.argval))
        following += [entry.target for entry in entries if entry.start <= one.offset < entry.end]
        found[one.offset] = _Flow(frozenset(_reads(code, number)), frozenset(_sets(one)), tuple(following))
    return found


def _jumps(steps: tuple[dis.Instruction, ...], number: int) -> bool:
    """Whether an instruction may jump; that a `with` has swallowed an exception is expected of few of them."""
    one = steps[number]
    if "JUMP" not in one.opname and one.opname not in {"FOR_ITER", "SEND"}:
        return False
    if any(before.opname == "WITH_EXCEPT_START" for before in steps[max(number - 2, 0) : number]):
        return bool(SWALLOWERS & {str(each.argval) for each in steps if "LOAD" in each.opname})
    return True


def _is_loop_head(code: CodeType, offset: int) -> bool:
    """Whether the instruction at an offset draws the next item of a `for` loop."""
    return any(one.offset == offset and one.opname == "FOR_ITER" for one in _instructions(code))


def _parts(one: dis.Instruction) -> list[tuple[str, str]]:
    """Verbs and variables of an instruction; newer versions of Python join two of them in one."""
    verbs = [part.rstrip("_") for part in one.opname.split("_") if part in {"LOAD", "STORE", "DELETE"}]
    return list(zip(verbs * len(_names(one)) if len(verbs) == 1 else verbs, _names(one), strict=False))


def _names(one: dis.Instruction) -> tuple[str, ...]:
    """The variables of an instruction."""
    if not any(space in one.opname.split("_") for space in SPACES):
        return ()
    return tuple(map(str, one.argval)) if isinstance(one.argval, tuple) else (str(one.argval),)


def _outer(one: dis.Instruction) -> bool:
    """Whether an instruction reads names outside its function."""
    return "GLOBAL" in one.opname or "NAME" in one.opname.split("_")


def _reads(code: CodeType, number: int) -> Iterable[str]:
    """The variables that an instruction reads; for a function that it makes, those that this reads."""
    steps = _instructions(code)
    one = steps[number]
    if isinstance(one.argval, CodeType):
        return global_names(one.argval)
    later = steps[number + 1] if number + 1 < len(steps) else None
    parts = _parts(one)
    if later is not None and later.opname in {"LOAD_METHOD", "LOAD_ATTR"} and later.argval in WRITERS:
        parts[-1:] = [(verb, ADDED_TO + name) for verb, name in parts[-1:]]
    set_before = _sets(one) if parts and parts[0][0] == "STORE" else []
    return [name for verb, name in parts if verb == "LOAD" and name not in set_before]


def _sets(one: dis.Instruction) -> list[str]:
    """The variables that an instruction sets or deletes."""
    names = [name for verb, name in _parts(one) if verb in {"STORE", "DELETE"}]
    return [*names, *(ADDED_TO + name for name in names)]
