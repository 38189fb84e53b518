"""What a generated program allocates: each mechanism in several styles, as one expression with a known size.

A text is a template: `$n` is the number of units, `$step`, `$batch` and `$output` are what the program calls them.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Style:
    """One way of writing a mechanism."""

    expression: str
    unit: float
    """Bytes for each of `$n`, rather too few than too many."""
    setup: str = ""
    """Functions and classes that the expression calls."""
    allocated: str | None = None
    """The line of the setup that allocates; None where the expression does."""
    pure: bool = True
    """Whether it needs nothing of the program but the number of the step."""
    hashable: bool = True


@dataclass(frozen=True, slots=True)
class Mechanism:
    """What is allocated, and which part of the memory it is counted in."""

    name: str
    component: str
    styles: tuple[Style, ...]
    number: str
    """What a look-alike keeps in its place."""
    most: float = 200e6
    """Bytes in all that a program may reach with it."""
    events: int = 10_000
    """How often it may happen in one program."""
    least: float = 2e3
    """Bytes of the smallest event."""
    fewest: int = 26
    """How often it must happen to be seen."""
    fixed: bool = False
    """Whether its size is what it is."""
    own: bool = False
    """Whether only holders that name it can hold it."""
    worker: bool = False
    """Whether it happens in a child process that loads the rows."""


TENSOR = Mechanism(
    "tensor",
    "host.tensors",
    (
        Style("torch.randn($n)", 4),
        Style("torch.full(($n,), float($step))", 4),
        Style("torch.ones($n) * 0.5", 4),
        Style("torch.linspace(0.0, 1.0, $n)", 4),
        Style("torch.rand($n).sort().values", 4),
        Style("$output.detach().flatten()[:1].repeat($n)", 4, pure=False),
        Style("$batch.flatten()[:1].expand($n).clone()", 4, pure=False),
        Style("$batch.new_ones($n)", 4, pure=False),
    ),
    "float($value.mean())",
)
GRAPH = Mechanism(
    "graph",
    "host.tensors",
    (
        Style("$model(torch.randn($n, 64))", 750, pure=False),
        Style("$model(torch.rand($n, 64) - 0.5)", 750, pure=False),
    ),
    "float($value.mean())",
    most=50e6,
    events=600,
    least=80e3,
)
ARRAY = Mechanism(
    "array",
    "host.python",
    (
        Style("np.random.rand($n)", 8, hashable=False),
        Style("np.full($n, float($step))", 8, hashable=False),
        Style("np.linspace(0.0, 1.0, $n)", 8, hashable=False),
        Style("np.arange($n) * 0.25", 8, hashable=False),
        Style("np.repeat($batch.numpy().ravel()[:1], $n)", 4, pure=False, hashable=False),
        Style("np.tile($output.detach().numpy().ravel()[:1], $n)", 4, pure=False, hashable=False),
    ),
    "float($value.mean())",
)
BYTES = Mechanism(
    "bytes",
    "host.python",
    (
        Style("os.urandom($n)", 1),
        Style("bytes([$step % 251]) * $n", 1),
        Style("random.randbytes($n)", 1),
        Style("bytearray(os.urandom($n))", 1, hashable=False),
        Style("pickle.dumps(np.random.rand($n))", 8),
        Style("$batch.numpy().tobytes()[:64] * $n", 64, pure=False),
    ),
    "len($value)",
)
TEXT = Mechanism(
    "text",
    "host.python",
    (
        Style('f"{$step:08d} " * $n', 9),
        Style('", ".join(str($step + number) for number in range($n))', 4.5),
        Style("json.dumps([random.random() for _ in range($n)])", 20),
        Style('f"step {$step:06d}: loss {$loss.item():.4f}\\n" * $n', 25, pure=False),
    ),
    "len($value)",
    most=100e6,
)
RECORDS = Mechanism(
    "records",
    "host.python",
    (
        Style(
            '[{"step": $step, "row": row, "score": random.random()} for row in range($n)]',
            250,
            hashable=False,
        ),
        Style('[{"row": row, "tokens": [row, row + 1]} for row in range($n)]', 290, hashable=False),
        Style('{f"{$step}/{row}": random.random() for row in range($n)}', 130, hashable=False),
    ),
    "len($value)",
    most=80e6,
)
FLOATS = Mechanism(
    "floats",
    "host.python",
    (
        Style("[random.random() for _ in range($n)]", 38, hashable=False),
        Style("torch.rand($n).tolist()", 38, hashable=False),
        Style("np.random.rand($n).tolist()", 38, hashable=False),
    ),
    "sum($value)",
    most=80e6,
)
TUPLES = Mechanism(
    "tuples",
    "host.python",
    (
        Style("[($step, row, random.random()) for row in range($n)]", 110, hashable=False),
        Style("tuple((row, random.random()) for row in range($n))", 100),
    ),
    "len($value)",
    most=80e6,
)
_SLOTS = """
class Sample:
    __slots__ = ("row", "score")

    def __init__(self, row, score):
        self.row = row
        self.score = score
"""
_PLAIN = """
class Sample:
    def __init__(self, row, score):
        self.row = row
        self.score = score
        self.tags = [row]
"""
OBJECTS = Mechanism(
    "objects",
    "host.python",
    (
        Style("[Sample(row, random.random()) for row in range($n)]", 90, _SLOTS, hashable=False),
        Style("[Sample($step, random.random()) for row in range($n)]", 180, _PLAIN, hashable=False),
    ),
    "len($value)",
    most=80e6,
)
IMAGE = Mechanism(
    "image",
    "host.native",
    (
        Style('Image.new("RGB", (64, $n), ($step % 255, 90, 30))', 256, hashable=False),
        Style('Image.new("L", (16, 16), $step % 255).resize((128, $n))', 128, hashable=False),
        Style('Image.new("RGBA", (8, 8), (9, $step % 255, 7, 255)).resize((64, $n))', 256, hashable=False),
    ),
    "$value.size",
    least=8e3,
)
_MAP = """
folder = tempfile.TemporaryDirectory()


def open_shard(number):
    path = os.path.join(folder.name, f"shard-{number}.bin")
    np.random.rand($n).tofile(path)
    shard = np.memmap(path, dtype=np.float64, mode="r")
    checksum = float(shard.sum())
    return shard if checksum > 0 else None
"""
_MAP_PLAIN = """
folder = tempfile.TemporaryDirectory()


def read_shard(number):
    path = f"{folder.name}/{number}.npy"
    np.save(path, np.random.rand($n))
    rows = np.load(path, mmap_mode="r")
    largest = float(rows.max())
    return rows if largest > 0 else None
"""
MAPPED = Mechanism(
    "mapped",
    "host.file",
    (
        Style("open_shard($step)", 8, _MAP, "checksum = float(shard.sum())", hashable=False),
        Style("read_shard($step)", 8, _MAP_PLAIN, "largest = float(rows.max())", hashable=False),
    ),
    "float($value[0])",
    most=60e6,
    events=700,
    least=16e3,
)
_BLOCK = """
def new_block(size):
    block = shared_memory.SharedMemory(create=True, size=size)
    block.unlink()
    block.buf[:] = b"x" * len(block.buf)
    return block
"""
_ANONYMOUS = """
def new_block(size):
    block = mmap.mmap(-1, size)
    block.write(b"x" * size)
    return block
"""
SHARED = Mechanism(
    "shared",
    "host.shared",
    (
        Style(
            "new_block($n)",
            1,
            _BLOCK,
            'block.buf[:] = b"x" * len(block.buf)',
            hashable=False,
        ),
        Style("new_block($n)", 1, _ANONYMOUS, 'block.write(b"x" * size)', hashable=False),
    ),
    "$n",
    most=40e6,
    events=400,
    least=16e3,
)
_LOG = """
folder = tempfile.TemporaryDirectory()


def open_log(number):
    return open(f"{folder.name}/log-{number % 50}.txt", "a")
"""
FILES = Mechanism(
    "files",
    "process.handles",
    (
        Style('open(os.devnull, "rb")', 0),
        Style("tempfile.TemporaryFile()", 0),
        Style(
            "open_log($step)",
            0,
            _LOG,
            'return open(f"{folder.name}/log-{number % 50}.txt", "a")',
        ),
    ),
    "$value.close()",
    events=700,
)
ARRAY_VIEW = Mechanism(
    "array view",
    "host.python",
    (
        Style("np.random.rand(16, $n)[0, :8]", 128, hashable=False),
        Style("np.full($n, float($step))[:10]", 8, hashable=False),
        Style("np.linspace(0.0, 1.0, $n)[:: $n // 4]", 8, hashable=False),
    ),
    "$value.copy()",
    events=2000,
    least=16e3,
)
TENSOR_VIEW = Mechanism(
    "tensor view",
    "host.tensors",
    (
        Style("torch.randn($n, 32)[0]", 128),
        Style("torch.full(($n,), float($step))[:16]", 4),
        Style("$batch.new_ones($n)[-4:]", 4, pure=False),
    ),
    "$value.clone()",
    events=2000,
    least=16e3,
)
SUMMED = Mechanism("summed loss", "host.native", (Style("", 6000),), "", fewest=1900, fixed=True, own=True)
TENSOR_CYCLE = Mechanism(
    "tensor cycle",
    "host.tensors",
    tuple(style for style in TENSOR.styles if style.pure),
    "",
    events=3000,
    least=50e3,
    own=True,
)
ARRAY_CYCLE = Mechanism(
    "array cycle",
    "host.python",
    tuple(style for style in ARRAY.styles if style.pure),
    "",
    events=3000,
    least=50e3,
    own=True,
)
MALLOC = Mechanism("malloc", "host.native", (Style("", 1),), "", own=True)
THREADS = Mechanism("threads", "process.handles", (Style("", 0),), "", events=300, fixed=True, own=True)
PROCESSES = Mechanism("processes", "host.children", (Style("", 2.5e6),), "", events=45, fixed=True, own=True)


def _in_worker(mechanism: Mechanism) -> Mechanism:
    """The same in a child process, where only the number of the step is known."""
    pure = tuple(style for style in mechanism.styles if style.pure)
    return replace(mechanism, name=f"worker {mechanism.name}", component="host.children", styles=pure, worker=True)


MECHANISMS = (
    TENSOR,
    GRAPH,
    ARRAY,
    BYTES,
    TEXT,
    RECORDS,
    FLOATS,
    TUPLES,
    OBJECTS,
    IMAGE,
    MAPPED,
    SHARED,
    FILES,
    ARRAY_VIEW,
    TENSOR_VIEW,
    SUMMED,
    TENSOR_CYCLE,
    ARRAY_CYCLE,
    MALLOC,
    THREADS,
    PROCESSES,
    *map(_in_worker, (TENSOR, ARRAY, BYTES, RECORDS, FLOATS, TEXT)),
)
