"""The fixed parts of generated programs: models, imports, and what they call things."""

import random
from string import Template

from zoo.plans import Plan

IMPORTS = {
    r"\batexit\.": "import atexit",
    r"\bctypes\.": "import ctypes",
    r"\bgc\.": "import gc",
    r"\bheapq\.": "import heapq",
    r"\bio\.": "import io",
    r"\bjson\.": "import json",
    r"\blogging\.": "import logging\nimport logging.handlers",
    r"\bmmap\.mmap": "import mmap",
    r"\bos\.": "import os",
    r"\bpickle\.": "import pickle",
    r"\bqueue\.": "import queue",
    r"(?<![.\w])random\.": "import random",
    r"\bsubprocess\.": "import subprocess",
    r"\bsys\.": "import sys",
    r"\btempfile\.": "import tempfile",
    r"\bthreading\.": "import threading",
    r"(?<![.\w])time\.(sleep|monotonic)\(\w*\)?.*$": "import time",
    r"\bweakref\.": "import weakref",
    r"\bdefaultdict\(": "from collections import defaultdict",
    r"\bdeque\(": "from collections import deque",
    r"\bThreadPoolExecutor\(": "from concurrent.futures import ThreadPoolExecutor",
    r"@lru_cache": "from functools import lru_cache",
    r"\bshared_memory\.": "from multiprocessing import shared_memory",
    r"\bnp\.": "import numpy as np",
    r"\bImage\.": "from PIL import Image",
    r"": "import torch\nfrom torch import nn",
    r"\bTensorDataset\(": "from torch.utils.data import DataLoader, TensorDataset",
    r"\(Dataset\)": "from torch.utils.data import DataLoader, Dataset",
}
LAYERS = {"mlp": (64, 128, 64, 1), "deep": (64, 64, 64, 64, 64, 64, 64, 1), "broad": (64, 256, 256, 1)}
CLASSES = {
    "gru": """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(8, 32, batch_first=True)
        self.head = nn.Linear(32, 1)

    def forward(self, rows):
        return self.head(self.rnn(rows.view(len(rows), 8, 8))[0][:, -1])
""",
    "conv": """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 5, padding=2)
        self.head = nn.Linear(8, 1)

    def forward(self, rows):
        return self.head(torch.relu(self.conv(rows.unsqueeze(1))).mean(2))
""",
    "transformer": """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, rows):
        return self.head(self.layer(rows.view(len(rows), 8, 8)).mean(1))
""",
}
GARBAGE = "class Step:\n    def __init__(self, number):\n        self.number = number\n        self.first = self\n"
LOSSES = (
    "$output.pow(2).mean()",
    "nn.functional.mse_loss($output, $batch.mean(-1, keepdim=True))",
    "nn.functional.l1_loss($output, $batch[..., :1])",
    "($output - 1.0).abs().mean()",
)
OPTIMIZERS = (
    "torch.optim.AdamW($model.parameters(), lr=1e-3)",
    "torch.optim.SGD($model.parameters(), lr=1e-3, momentum=0.9)",
    "torch.optim.SGD($model.parameters(), lr=1e-3)",
)
TITLES = (
    "Train a small network on random rows.",
    "A regression on made-up features.",
    "Fit a small model and print how far it came.",
    "Training loop of an experiment.",
    "A baseline, trained on noise.",
)


def draw_words(rng: random.Random, plan: Plan) -> dict[str, str]:
    """What the program calls things, and its numbers."""
    own = "self." if plan.wrap == "trainer" else ""
    name = rng.choice((
        "history",
        "outputs",
        "cache",
        "seen",
        "archive",
        "results",
        "tracked",
        "pool",
        "log",
        "bank",
    ))
    step = rng.choice(("step", "iteration", "global_step", "it"))
    words = {
        "step": own + step,
        "batch": rng.choice(("batch", "x", "inputs", "features")),
        "output": rng.choice(("output", "prediction", "logits", "y")),
        "loss": rng.choice(("loss", "objective", "cost")),
        "model": own + rng.choice(("model", "net", "network")),
        "optimizer": own + rng.choice(("optimizer", "opt")),
        "kept": rng.choice(("item", "snapshot", "entry", "current", "piece")),
        "name": name,
        "store": own + name,
        "GLOBAL": name.upper(),
        "tracker": own + rng.choice(("tracker", "recorder", "monitor")),
        "last": own + rng.choice(("last_time", "last_report", "previous_time")),
        "visited": own + rng.choice(("visited", "known", "shapes_and_rows")),
        "recent": own + rng.choice(("recent", "window", "last_losses")),
        "record": rng.choice(("record", "after_step", "note", "on_event")),
        "objective": rng.choice(LOSSES),
        "make_optimizer": rng.choice(OPTIMIZERS if plan.pace > 0.002 else OPTIMIZERS[1:]),
        "title": rng.choice(TITLES),
        "seed": str(rng.randrange(1000)),
        "every_evaluation": str(max(7, plan.steps // rng.randrange(7, 19))),
        "every_checkpoint": str(max(9, plan.steps // rng.randrange(3, 7))),
        "scratch": f"{int(10 ** rng.uniform(4, 5.5)):_}",
        "decoys": rng.choice(("", "evaluation", "checkpoint", "both")),
        "save": rng.choice(("memory", "disk")),
        "row_source": rng.choice(("counted", "drawn")),
        "wait": rng.choice(("0.3", "0.5", "0.8")),
    }
    words |= {name: Template(words[name]).substitute(words) for name in ("objective", "make_optimizer")}
    return words | {
        "n": f"{plan.units:_}",
        "limit": f"{plan.limit:_}",
        "quarter": f"{max(1, plan.limit // 4):_}",
        "rows": f"{plan.rows:_}",
        "bytes": f"{int(plan.units * plan.style.unit):_}",
    }
