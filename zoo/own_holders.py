"""Holders of what only they can hold: sums of losses, cycles, native buffers, threads, child processes."""

from collections.abc import Callable
from textwrap import indent

from zoo.bounds import Stored
from zoo.holders import HOLDERS, Holder


def _sum(add: str) -> Callable[[str], Stored]:
    """A sum that is a tensor, and so keeps the graph of each loss."""

    def held(bound: str) -> Stored:
        """A loss is added."""
        kept = add.replace("$loss", "$loss.item()") if bound == "number" else add
        clear = f"{kept}\nif $tick % $limit == 0:\n    $store = 0.0"
        return Stored(
            kind="tensor",
            define="$store = 0.0",
            keep=clear if bound == "clear" else kept,
            held=add,
            clear="$store = 0.0",
            rebinds=True,
        )

    return held


def in_meter(bound: str) -> Stored:
    """A sum that is an attribute of a meter."""
    value = "$loss.detach()" if bound == "number" else "$loss"
    keep = f"$tracker.update({value})"
    return Stored(
        kind="tensor",
        module="class Meter:\n    def __init__(self):\n        self.$name = 0.0\n        self.count = 0\n\n"
        "    def update(self, value):\n        self.$name = self.$name + value\n        self.count += 1\n",
        define="$tracker = Meter()",
        keep=f"{keep}\nif $tick % $limit == 0:\n    $tracker.$name = 0.0" if bound == "clear" else keep,
        held="self.$name = self.$name + value",
        clear="$tracker.$name = 0.0",
    )


def in_totals(bound: str) -> Stored:
    """Sums in a dict."""
    value = "float($loss)" if bound == "number" else "$loss"
    keep = f'$store["train"] = $store["train"] + {value}'
    return Stored(
        kind="dict",
        define='$store = {"train": 0.0}',
        keep=f'{keep}\nif $tick % $limit == 0:\n    $store["train"] = 0.0' if bound == "clear" else keep,
        held=keep,
        clear='$store["train"] = 0.0',
    )


def _cycle(module: str, make: str, held: str, name: str, kind: str) -> Callable[[str], Stored]:
    """Objects that hold each other, with the collector off."""

    def kept(bound: str) -> Stored:
        """One cycle more."""
        return Stored(
            kind=kind,
            module=module.replace(held, held.partition("=")[0] + "= None") if bound == "released" else module,
            define="" if bound == "collector" else "gc.disable()",
            keep=f"{make}\nif $tick % $limit == 0:\n    gc.collect()" if bound == "clear" else make,
            held=held,
            name=name,
            allocated=next(line.strip() for line in module.splitlines() if "$made" in line),
        )

    return kept


_SELF = """class Batch:
    def __init__(self, key):
        self.rows = $made
        self.parts = [[part] for part in range(60)]
        self.owner = self
"""
_PEERS = """class Part:
    def __init__(self, parent, number):
        self.parent = parent
        self.number = number


class Document:
    def __init__(self, key):
        self.content = $made
        self.parts = [Part(self, number) for number in range(40)]
"""
_CALLBACK = """class Request:
    def __init__(self, key):
        self.payload = $made
        self.steps = [[number] for number in range(50)]
        self.done = lambda: self.payload
"""


def in_malloc(bound: str) -> Stored:
    """Nobody: the address is forgotten."""
    make = "address = libc.malloc(ctypes.c_size_t($n))\nctypes.memset(address, 1, $n)"
    return Stored(
        kind="native",
        module=_LIBC,
        keep=f"{make}\nlibc.free(address)" if bound == "released" else make,
        held="address = libc.malloc(ctypes.c_size_t($n))",
        name="malloc",
        allocated="address = libc.malloc(ctypes.c_size_t($n))",
    )


def in_addresses(bound: str) -> Stored:
    """A list of addresses."""
    make = "address = libc.malloc(ctypes.c_size_t($n))\nctypes.memset(address, 1, $n)\n$store.append(address)"
    empty = "while $store:\n    libc.free($store.pop())"
    texts = {
        "limit": f"if len($store) < $limit:\n{indent(make, '    ')}",
        "drop": f"{make}\nif len($store) > $limit:\n    libc.free($store.pop(0))",
        "clear": f"{make}\nif len($store) >= $limit:\n{indent(empty, '    ')}",
    }
    return Stored(
        kind="native",
        module=_LIBC,
        define="$store = []",
        keep=texts.get(bound, make),
        held="address = libc.malloc(ctypes.c_size_t($n))",
        name="malloc",
        clear=empty,
        allocated="address = libc.malloc(ctypes.c_size_t($n))",
    )


_LIBC = """libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
"""


def in_buffer(bound: str) -> Stored:
    """An object that frees its memory only in the look-alike."""
    free = "\n    def __del__(self):\n        libc.free(self.address)\n" if bound == "released" else ""
    line = "self.address = libc.malloc(ctypes.c_size_t(size))"
    return Stored(
        kind="native",
        module=f"{_LIBC}\n\nclass Buffer:\n    def __init__(self, size):\n        {line}\n"
        f"        ctypes.memset(self.address, 1, size)\n{free}",
        keep="Buffer($n)",
        held=line,
        name="malloc",
        allocated=line,
    )


def in_threads(bound: str) -> Stored:
    """A list of threads that wait for ever."""
    start = "thread = threading.Thread(target=never.wait, daemon=True)"
    make = f"{start}\nthread.start()\n$store.append(thread)"
    empty = "never.set()\nwhile $store:\n    $store.pop().join()\nnever.clear()"
    texts = {
        "limit": f"if len($store) < $limit:\n{indent(make, '    ')}",
        "clear": f"{make}\nif len($store) >= $limit:\n{indent(empty, '    ')}",
        "released": "thread = threading.Thread(target=never.wait, args=(0.001,))\nthread.start()\nthread.join()",
    }
    return Stored(
        kind="list",
        module="never = threading.Event()\n",
        define="$store = []",
        keep=texts.get(bound, make),
        held="$store.append(thread)",
        clear=empty,
        allocated=start,
    )


def in_pools(bound: str) -> Stored:
    """A list of pools of one thread each."""
    start = "pool = ThreadPoolExecutor(max_workers=1)"
    make = f'{start}\npool.submit(len, "batch").result()\n$store.append(pool)'
    empty = "while $store:\n    $store.pop().shutdown()"
    texts = {
        "limit": f"if len($store) < $limit:\n{indent(make, '    ')}",
        "drop": f"{make}\nif len($store) > $limit:\n    $store.pop(0).shutdown()",
        "clear": f"{make}\nif len($store) >= $limit:\n{indent(empty, '    ')}",
        "released": make.replace("$store.append(pool)", "pool.shutdown()"),
    }
    return Stored(
        kind="list",
        define="$store = []",
        keep=texts.get(bound, make),
        held="$store.append(pool)",
        clear=empty,
        allocated=start,
    )


def in_children(bound: str) -> Stored:
    """A list of child processes."""
    start = '$store.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(120)"]))'
    end = "child = $store.pop(0)\nchild.kill()\nchild.wait()"
    texts = {
        "limit": f"if len($store) < $limit:\n    {start}",
        "drop": f"{start}\nif len($store) > $limit:\n{indent(end, '    ')}",
        "clear": f"{start}\nif len($store) >= $limit:\n    while $store:\n{indent(end, ' ' * 8)}",
        "released": 'subprocess.run([sys.executable, "-S", "-c", "import time; time.sleep(0.01)"], check=True)',
    }
    return Stored(
        kind="list",
        define="$store = []\natexit.register(lambda: [child.kill() for child in $store])",
        keep=texts.get(bound, start),
        held=start,
        clear=f"while $store:\n{indent(end, '    ')}",
        allocated=start,
    )


_SUMS = ("number", "epoch", "clear")
_CYCLES = ("collector", "clear", "released")
_PAYLOADS = ("tensor cycle", "array cycle")
_TAKEN = ("limit", "clear", "released", "epoch")
ALL_HOLDERS = (
    *HOLDERS,
    Holder("variable", _sum("$store = $store + $loss"), _SUMS, ("summed loss",)),
    Holder("moving average", _sum("$store = 0.9 * $store + 0.1 * $loss"), _SUMS, ("summed loss",)),
    Holder("meter", in_meter, _SUMS, ("summed loss",)),
    Holder("totals", in_totals, _SUMS, ("summed loss",)),
    Holder(
        "self reference",
        _cycle(_SELF, "Batch($tick)", "self.owner = self", "owner", "attribute"),
        _CYCLES,
        _PAYLOADS,
    ),
    Holder(
        "peers",
        _cycle(
            _PEERS,
            "Document($tick)",
            "self.parts = [Part(self, number) for number in range(40)]",
            "parts",
            "attribute",
        ),
        _CYCLES,
        _PAYLOADS,
    ),
    Holder(
        "callback",
        _cycle(_CALLBACK, "Request($tick)", "self.done = lambda: self.payload", "done", "attribute"),
        _CYCLES,
        _PAYLOADS,
    ),
    Holder("nobody", in_malloc, ("released",), ("malloc",)),
    Holder("addresses", in_addresses, ("limit", "drop", "clear", "epoch"), ("malloc",)),
    Holder("native buffer", in_buffer, ("released",), ("malloc",)),
    Holder("list of threads", in_threads, _TAKEN, ("threads",)),
    Holder("list of pools", in_pools, (*_TAKEN, "drop"), ("threads",)),
    Holder("list of children", in_children, (*_TAKEN, "drop"), ("processes",)),
)
