"""The text of a holder in a generated program, and the ways in which it can be bounded.

A text is a template: `$store` is the holder in the program, `$value` what it is given, `$limit` its bound.
"""

from dataclasses import dataclass, replace

VERDICTS = {
    "limit": "bounded",  # nothing more is kept
    "drop": "bounded",  # the oldest goes
    "clear": "cyclic",  # emptied after so many events
    "epoch": "cyclic",  # emptied after each epoch
    "overwrite": "flat",
    "cycle": "bounded",  # a finite set of keys, in turn
    "plateau": "bounded",  # a finite set of keys, drawn: growth slows down
    "rows": "bounded",  # the rows or shapes of a finite dataset
    "number": "flat",  # only a number is kept, or a copy
    "whole": "bounded",  # allocated whole at the beginning, and filled
    "restart": "cyclic",  # the worker is started anew in each epoch
    "collector": "cyclic",
    "released": "flat",
}
"""What a tool should say of a look-alike, by the way it is bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The text of a holder."""

    kind: str
    keep: str
    """What happens at an event."""
    held: str
    """The line that holds."""
    define: str = ""
    """Beside the model."""
    module: str = ""
    """Functions and classes."""
    clear: str = ""
    """What empties it, at the end of an epoch."""
    name: str = "$name"
    rebinds: bool = False
    """Whether an event gives the name a new value."""
    allocated: str | None = None
    """The line that allocates, where the holder makes what it keeps."""
    held_line_is_made: bool = True
    """Whether the expression may stand in place of the value."""


def list_keep(items: str, item: str, bound: str) -> str:
    """Append to a list, within its bound."""
    texts = {
        "limit": f"if len({items}) < $limit:\n    {items}.append({item})",
        "drop": f"{items}.append({item})\nif len({items}) > $limit:\n    {items}.pop(0)",
        "clear": f"{items}.append({item})\nif len({items}) >= $limit:\n    {items}.clear()",
        "overwrite": f"{items}[:] = [{item}]",
    }
    return texts.get(bound, f"{items}.append({item})")


def dict_keep(items: str, key: str, item: str, bound: str) -> str:
    """Set a key of a dict, within its bound."""
    texts = {
        "limit": f"if len({items}) < $limit:\n    {items}[{key}] = {item}",
        "drop": f"{items}[{key}] = {item}\nif len({items}) > $limit:\n    {items}.pop(next(iter({items})))",
        "clear": f"{items}[{key}] = {item}\nif len({items}) >= $limit:\n    {items}.clear()",
        "overwrite": f'{items}["last"] = {item}',
        "cycle": f"{items}[$tick % $limit] = {item}",
        "plateau": f"{items}[random.randrange($limit)] = {item}",
    }
    return texts.get(bound, f"{items}[{key}] = {item}")


PREFILLED = {
    "tensor": "$store = torch.empty(($rows, $n))",
    "array": "$store = np.empty(($rows, $n))",
    "mapped": '$store = np.lib.format.open_memmap(f"{folder.name}/rows.npy", "w+", float, ($rows, $n))',
}
"""What is allocated whole at the beginning, by mechanism."""


def prefilled(mechanism: str) -> Stored:
    """The look-alike of a list of arrays: one array, allocated whole and filled row by row."""
    value = "np.random.rand($n)" if mechanism == "mapped" else "$value"
    return Stored(kind="whole", define=PREFILLED[mechanism], keep=f"$store[$tick % $rows] = {value}", held="")


def number_kept(stored: Stored, number: str) -> Stored:
    """The same holder, given a number in place of the value."""
    return replace(stored, keep=stored.keep.replace("$value", number), held_line_is_made=False)
