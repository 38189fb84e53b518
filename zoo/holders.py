"""What holds the memory of a generated program: each holder with no bound (a leak), and with each of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import indent

from zoo.bounds import Stored, dict_keep, list_keep


def in_list(bound: str) -> Stored:
    """A list."""
    return Stored(
        kind="list",
        define="$store = []",
        keep=list_keep("$store", "$value", bound),
        held="$store.append($value)",
        clear="$store.clear()",
    )


def in_dict(bound: str) -> Stored:
    """A dict keyed by step."""
    keep = dict_keep("$store", "$key", "$value", bound)
    return Stored(
        kind="dict", define="$store = {}", keep=keep, held="$store[$key] = $value", clear="$store.clear()"
    )


def in_deque(bound: str) -> Stored:
    """A deque; its look-alike has a maxlen."""
    keep = list_keep("$store", "$value", "" if bound == "drop" else bound)
    return Stored(
        kind="deque",
        define="$store = deque(maxlen=$limit)" if bound == "drop" else "$store = deque()",
        keep=keep,
        held="$store.append($value)",
        clear="$store.clear()",
    )


def in_set(bound: str) -> Stored:
    """A set."""
    texts = {
        "limit": "if len($store) < $limit:\n    $store.add($value)",
        "clear": "$store.add($value)\nif len($store) >= $limit:\n    $store.clear()",
        "drop": "$store.add($value)\nif len($store) > $limit:\n    $store.pop()",
    }
    return Stored(
        kind="set",
        define="$store = set()",
        keep=texts.get(bound, "$store.add($value)"),
        held="$store.add($value)",
        clear="$store.clear()",
    )


def in_attribute(bound: str) -> Stored:
    """A list that is an attribute of an object."""
    body = indent(list_keep("self.$name", "item", bound), " " * 8)
    return Stored(
        kind="list",
        module=f"class Tracker:\n    def __init__(self):\n        self.$name = []\n\n"
        f"    def add(self, item):\n{body}\n",
        define="$tracker = Tracker()",
        keep="$tracker.add($value)",
        held="self.$name.append(item)",
        clear="$tracker.$name.clear()",
    )


def in_class_attribute(bound: str) -> Stored:
    """A list of the class, in which instances register themselves."""
    body = indent(list_keep("Example.$name", "self", bound), " " * 8)
    return Stored(
        kind="list",
        module=f"class Example:\n    $name = []\n\n"
        f"    def __init__(self, content):\n        self.content = content\n{body}\n",
        keep="Example($value)",
        held="Example.$name.append(self)",
        clear="Example.$name.clear()",
    )


def in_closure(bound: str) -> Stored:
    """A variable of an enclosing function."""
    body = indent(list_keep("$name", "item", bound), " " * 8)
    return Stored(
        kind="list",
        module=f"def make_recorder():\n    $name = []\n\n"
        f"    def remember(item):\n{body}\n        return len($name)\n\n"
        "    return remember\n",
        define="$tracker = make_recorder()",
        keep="$tracker($value)",
        held="$name.append(item)",
    )


def in_global(bound: str) -> Stored:
    """A global of the module, in a function."""
    body = indent(list_keep("$GLOBAL", "item", bound), " " * 4)
    return Stored(
        kind="list",
        module=f"$GLOBAL = []\n\n\ndef remember(item):\n{body}\n",
        keep="remember($value)",
        held="$GLOBAL.append(item)",
        clear="$GLOBAL.clear()",
        name="$GLOBAL",
    )


def in_default(bound: str) -> Stored:
    """A default argument, which is made once."""
    body = indent(list_keep("$name", "item", bound), " " * 4)
    return Stored(
        kind="list",
        module=f"def remember(item, $name=[]):\n{body}\n    return len($name)\n",
        keep="remember($value)",
        held="$name.append(item)",
    )


def in_lru_cache(bound: str) -> Stored:
    """A function with a cache of its results."""
    size = "$limit" if bound == "drop" else "None"
    key = {"cycle": "$tick % $limit", "plateau": "random.randrange($limit)"}.get(bound, "$key")
    return Stored(
        kind="lru_cache",
        module=f"@lru_cache(maxsize={size})\ndef $name(key):\n    return $made\n",
        keep=f"$name({key})",
        held="@lru_cache(maxsize=None)",
        clear="$name.cache_clear()",
        allocated="return $made",
    )


def in_hooks(bound: str) -> Stored:
    """The table of forward hooks of a module."""
    hook = "$model.register_forward_hook(lambda module, args, result, held=$value: None)"
    drop = f"$store.append({hook})\nif len($store) > $limit:\n    $store.pop(0).remove()"
    clear = f"$store.append({hook})\nif len($store) >= $limit:\n    while $store:\n        $store.pop().remove()"
    texts = {
        "drop": drop,
        "clear": clear,
        "limit": f"if len($store) < $limit:\n    $store.append({hook})",
        "overwrite": f"for handle in $store:\n    handle.remove()\n$store[:] = [{hook}]",
    }
    return Stored(
        kind="dict",
        define="$store = []",
        keep=texts.get(bound, f"$store.append({hook})"),
        held=f"$store.append({hook})",
        name="_forward_hooks",
        clear="while $store:\n    $store.pop().remove()",
        held_line_is_made=False,
    )


def in_logging(bound: str) -> Stored:
    """The buffer of a logging handler."""
    add = 'logging.getLogger("train").addHandler($store)'
    capacity = "$limit" if bound == "clear" else "10**9"
    make = f"$store = logging.handlers.MemoryHandler(capacity={capacity}, target=logging.NullHandler())"
    setup = 'logging.getLogger("train").setLevel(logging.INFO)\nlogging.getLogger("train").propagate = False'
    return Stored(
        kind="list",
        define=f"{make}\n{setup}\n{add}",
        keep='logging.getLogger("train").info("step %d: %s", $step, $value)',
        held=make,
        name="buffer",
        clear="$store.buffer.clear()",
    )


def in_queue(bound: str) -> Stored:
    """A queue that nobody reads."""
    texts = {
        "drop": "$store.put($value)\nif $store.qsize() > $limit:\n    $store.get()",
        "limit": "if $store.qsize() < $limit:\n    $store.put($value)",
        "clear": "$store.put($value)\nif $store.qsize() >= $limit:\n"
        "    while not $store.empty():\n        $store.get()",
    }
    return Stored(
        kind="Queue",
        define="$store = queue.Queue()",
        keep=texts.get(bound, "$store.put($value)"),
        held="$store.put($value)",
        clear="while not $store.empty():\n    $store.get()",
    )


def in_defaultdict(bound: str) -> Stored:
    """Lists by a small key."""
    return Stored(
        kind="defaultdict",
        define="$store = defaultdict(list)",
        keep=list_keep("$store[$tick % 4]", "$value", bound).replace("$limit", "$quarter"),
        held="$store[$tick % 4].append($value)",
        clear="$store.clear()",
    )


def in_nested(bound: str) -> Stored:
    """Lists in dicts in a dict."""
    add = '$store.setdefault("train", {}).setdefault($step // 64, []).append($value)'
    texts = {
        "overwrite": '$store["train"] = {"last": [$value]}',
        "clear": f'{add}\nif sum(map(len, $store["train"].values())) >= $limit:\n    $store.clear()',
        "limit": f'if sum(map(len, $store.get("train", {{}}).values())) < $limit:\n    {add}',
    }
    return Stored(
        kind="dict", define="$store = {}", keep=texts.get(bound, add), held=add, clear='$store.pop("train", None)'
    )


def in_heap(bound: str) -> Stored:
    """A heap of scored items."""
    add = "heapq.heappush($store, (random.random(), $step, $value))"
    texts = {
        "drop": f"{add}\nif len($store) > $limit:\n    heapq.heappop($store)",
        "clear": f"{add}\nif len($store) >= $limit:\n    $store.clear()",
        "limit": f"if len($store) < $limit:\n    {add}",
    }
    return Stored(
        kind="list",
        define="$store = []",
        keep=texts.get(bound, add),
        held=add,
        clear="$store.clear()",
    )


def in_weak_dict(bound: str) -> Stored:
    """A weak dictionary, of which each value holds its own key."""
    texts = {
        "overwrite": "node = Node($step)\n$store[node] = $value",
        "clear": "node = Node($step)\n"
        "$store[node] = (node, $value)\nif len($store) >= $limit:\n    $store.clear()",
        "limit": "node = Node($step)\nif len($store) < $limit:\n    $store[node] = (node, $value)",
    }
    return Stored(
        kind="WeakKeyDictionary",
        module="class Node:\n    def __init__(self, number):\n        self.number = number\n",
        define="$store = weakref.WeakKeyDictionary()",
        keep=texts.get(bound, "node = Node($step)\n$store[node] = (node, $value)"),
        held="$store[node] = (node, $value)",
        clear="$store.clear()",
    )


def in_chain(bound: str) -> Stored:
    """Objects of which each holds the one before."""
    before = {"overwrite": "None"}.get(bound, "$store")
    return Stored(
        kind="attribute",
        module="class State:\n    def __init__(self, previous, content):\n        self.previous = previous\n"
        "        self.content = content\n",
        define="$store = None",
        keep=f"$store = State({before}, $value)",
        held="self.previous = previous",
        name="previous",
        clear="$store = None",
        rebinds=True,
    )


def _joined(empty: str, joined: str, start: str, kind: str) -> Callable[[str], Stored]:
    """A holder that is made anew with each event, longer."""

    def held(bound: str) -> Stored:
        """A value joined to the ones before."""
        texts = {
            "drop": f"{joined}\n$store = $store[-$limit * {start} :]",
            "clear": f"{joined}\nif len($store) >= $limit * {start}:\n    $store = {empty}",
            "limit": f"if len($store) < $limit * {start}:\n    {joined}",
            "overwrite": "$store = $value",
        }
        return Stored(
            kind=kind,
            define=f"$store = {empty}",
            keep=texts.get(bound, joined),
            held=joined,
            clear=f"$store = {empty}",
            rebinds=True,
        )

    return held


in_cat = _joined("torch.empty(0)", "$store = torch.cat([$store, $value])", "$n", "tensor")
in_array = _joined("np.empty(0)", "$store = np.concatenate([$store, $value])", "$n", "ndarray")
in_text = _joined('""', "$store = $store + $value", "$bytes", "str")


@dataclass(frozen=True, slots=True)
class Holder:
    """A holder, and the ways in which it can be bounded."""

    name: str
    write: Callable[[str], Stored]
    bounds: tuple[str, ...]
    only: tuple[str, ...] = ()
    """Mechanisms that it can hold; all, where there are none."""
    events: int = 10_000
    most: float = 200e6


_ALL = ("limit", "drop", "clear", "epoch", "overwrite", "number")
_KEYS = (*_ALL, "cycle", "plateau")
HOLDERS = (
    Holder("list", in_list, (*_ALL, "whole")),
    Holder("dict", in_dict, (*_KEYS, "whole")),
    Holder("deque", in_deque, (*_ALL[:-2], "whole")),
    Holder(
        "set",
        in_set,
        ("limit", "drop", "clear", "epoch", "number"),
        ("tensor", "bytes", "text", "tuples", "files"),
    ),
    Holder("attribute", in_attribute, (*_ALL, "whole")),
    Holder("class attribute", in_class_attribute, _ALL),
    Holder("closure", in_closure, ("limit", "drop", "clear", "overwrite", "number")),
    Holder("global", in_global, _ALL),
    Holder("default argument", in_default, ("limit", "drop", "clear", "overwrite", "number")),
    Holder("lru_cache", in_lru_cache, ("drop", "epoch", "cycle", "plateau")),
    Holder("hooks", in_hooks, ("limit", "drop", "clear", "epoch", "overwrite"), events=1000),
    Holder("logging", in_logging, ("clear", "epoch", "number")),
    Holder("queue", in_queue, ("limit", "drop", "clear", "epoch", "number")),
    Holder("defaultdict", in_defaultdict, _ALL),
    Holder("nested", in_nested, ("limit", "clear", "epoch", "overwrite", "number")),
    Holder("heap", in_heap, ("limit", "drop", "clear", "epoch", "number")),
    Holder("weak dict", in_weak_dict, ("limit", "clear", "epoch", "overwrite", "number")),
    Holder("chain", in_chain, ("epoch", "overwrite", "number")),
    Holder("cat", in_cat, (*_ALL[:-1], "whole"), ("tensor",), 800, 30e6),
    Holder("concatenate", in_array, (*_ALL[:-1], "whole"), ("array",), 800, 30e6),
    Holder("joined", in_text, ("drop", "clear", "limit", "epoch", "overwrite"), ("text",), 800, 30e6),
)
