"""A process is replaced only where the next one goes on exactly; where it could not, that is said by name.

Each script prints what it has computed: under `holdwater run --supervise` the same as under Python alone.
"""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Observe = Callable[..., tuple["subprocess.CompletedProcess[str]", dict[str, Any]]]
BEGIN = """
import collections, sys, threading
import torch, holdwater
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
def learn(x):
    optimizer.zero_grad()
    loss = model(x).pow(2).mean()
    loss.backward()
    optimizer.step()
    return loss.item()
"""
END = """
print("weights", [value.hex() for value in model[0].weight.flatten().tolist()])
"""
BUFFER = """
import random
class Replay:
    def __init__(self): self.rows, self.rng = torch.zeros(9, 4), random.Random(1)
    def add(self, row): self.rows[self.rng.randrange(9)] = row
    def state_dict(self): return {KEPT}
    def load_state_dict(self, state): self.rows = state["rows"]; self.rng.setstate(state["rng"])
replay = Replay()
holdwater.resumable("replay", replay)
for step in holdwater.steps(20): replay.add(torch.randn(4)); print(learn(replay.rows).hex())
"""
EXACT = {
    "batches of a stream": """
        class Stream(IterableDataset):
            def __iter__(self):
                for number in range(100): yield torch.full((4,), float(number))
        for batch in holdwater.batches(DataLoader(Stream(), batch_size=2), steps=30):
            print(batch[:, 0].tolist(), learn(batch).hex())
        """,
    "a buffer of rows": BUFFER.replace("KEPT", '"rows": self.rows, "rng": self.rng.getstate()'),
    "gradients under way": """
        for step in holdwater.steps(30):
            (model(torch.randn(4, 4)).pow(2).mean() / 4).backward()
            if (step + 1) % 4 == 0:
                optimizer.step(); optimizer.zero_grad()
        """,
    "parameters frozen on the way": """
        for step in holdwater.steps(30):
            if step == 5:
                for part in model[0].parameters(): part.requires_grad_(False); part.grad = None
            learn(torch.randn(4, 4))
        """,
    "a sampler with a registered generator": """
        generator = torch.Generator().manual_seed(7)
        sampler = WeightedRandomSampler(torch.arange(1.0, 33.0), 32, generator=generator)
        holdwater.resumable("generator", generator)
        loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=2, sampler=sampler)
        for (batch,) in holdwater.batches(loader, steps=40):
            print(learn(batch).hex())
        """,
    "a sampler with a generator of its own": """
        sampler = WeightedRandomSampler(torch.arange(1.0, 33.0), 32, generator=torch.Generator().manual_seed(7))
        loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=2, sampler=sampler)
        for (batch,) in holdwater.batches(loader, steps=40):
            print(learn(batch).hex())
        """,
    "counters, named tuples and their kind": """
        Best = collections.namedtuple("Best", "step loss")
        state = {"seen": collections.Counter(), "by": collections.defaultdict(list), "best": Best(0, 9.0),
                 "last": collections.deque(maxlen=3)}
        holdwater.resumable("state", state)
        last = state["last"]
        for step in holdwater.steps(30):
            loss = learn(torch.randn(4, 4))
            state["seen"][step % 7] += 1
            state["by"][step % 9].append(step)
            last.append(step)
            if loss < state["best"].loss: state["best"] = Best(step, loss)
        print(state)
        """,
    "whatever the script catches": """
        try:
            for step in holdwater.steps(30): learn(torch.randn(4, 4))
        except:
            print("crashed")
            sys.exit(1)
        finally:
            print("at the end")
        """,
    "what no step reads": """
        kept = []
        for step in holdwater.steps(30):
            loss = learn(torch.randn(4, 4))
            kept.append(loss)
            best = min(loss, 1.0)
        """,
    "what the script says it does not need": """
        cache = {}
        holdwater.resumable("cache", None)
        for step in holdwater.steps(30):
            cache[step] = learn(cache.get(step, torch.randn(4, 4)))
        """,
    "numbers that nobody has seeded": """
        import random, numpy
        data = torch.tensor([random.random() for _ in range(8)]), torch.tensor(numpy.random.rand(8))
        print("same", data[0].sum() == data[0].sum())
        for step in holdwater.steps(30): learn(torch.randn(4, 4) + 0 * data[0][0] + 0 * data[1][0].float())
        """,
}
REFUSED = {
    "persistent workers": (
        """
        class Augmented(Dataset):
            def __len__(self): return 16
            def __getitem__(self, index): return torch.full((4,), float(index)) + torch.rand(1)
        loader = DataLoader(Augmented(), batch_size=2, shuffle=True, num_workers=1, persistent_workers=True)
        for batch in holdwater.batches(loader, steps=24): print(learn(batch).hex())
        """,
        "persistent workers",
    ),
    "a thread": (
        """
        def train():
            for step in holdwater.steps(20): learn(torch.randn(4, 4))
            print("trained")
        thread = threading.Thread(target=train); thread.start(); thread.join()
        """,
        "in a thread",
    ),
    "a second loop": (
        """
        for step in holdwater.steps(5): learn(torch.randn(4, 4))
        done = 0
        for step in holdwater.steps(20): learn(torch.randn(4, 4)); done += 1
        print("trained", done)
        """,
        "the second loop",
    ),
    "a counter": (
        """
        count = 0
        for step in holdwater.steps(20): learn(torch.randn(4, 4)); count += 1
        print(count)
        """,
        "count has changed",
    ),
    "the index of enumerate": (
        """
        loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=2)
        for index, (batch,) in enumerate(holdwater.batches(loader, steps=20)): print(index, learn(batch).hex())
        """,
        "index comes from enumerate",
    ),
    "a count that is zipped with it": (
        """
        import itertools
        loader = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=2)
        for index, (batch,) in zip(itertools.count(), holdwater.batches(loader, steps=20)):
            print(index, learn(batch).hex())
        """,
        "comes from zip",
    ),
    "a comprehension": (
        """
        losses = [learn(torch.randn(4, 4)) for step in holdwater.steps(20)]
        print(sum(losses).hex())
        """,
        "gathers the results of the loop in a comprehension or a call",
    ),
    "a sum": (
        """
        def train(): return sum(learn(torch.randn(4, 4)) for step in holdwater.steps(20))
        print(train().hex())
        """,
        "gathers the results of the loop in a comprehension or a call",
    ),
    "a meter that prints": (
        """
        class Meter:
            total = 0.0
            def add(self, loss): self.total += loss; print(self.total.hex())
        meter = Meter()
        for step in holdwater.steps(20): meter.add(learn(torch.randn(4, 4)))
        """,
        "meter.total has changed",
    ),
    "a variable of the environment": (
        """
        import os
        os.environ["ROW"] = "1"
        for step in holdwater.steps(20):
            os.environ["ROW"] = str(int(os.environ["ROW"]) * 5 % 7); print(os.environ["ROW"])
        """,
        "os.environ['ROW'] has changed",
    ),
    "a new variable of the environment": (
        """
        import os
        for step in holdwater.steps(20):
            os.environ["STAGE"] = str(int(os.environ.get("STAGE", "1")) * 5 % 7); print(os.environ["STAGE"])
        """,
        "os.environ has changed",
    ),
    "parameters as keys": (
        """
        sums = {}
        holdwater.resumable("sums", sums)
        for step in holdwater.steps(20):
            learn(torch.randn(4, 4))
            for part in model.parameters():
                sums[part] = sums.get(part, 0.0) + part.detach().sum().item()
            print(list(sums.values()))
        """,
        "sums has a Parameter as a key",
    ),
    "a cache of random numbers": (
        """
        import functools
        @functools.cache
        def noise(row): return torch.randn(4)
        for step in holdwater.steps(20): print(learn(noise(step % 9)).hex())
        """,
        "noise has changed",
    ),
    "a buffer of rows whose state leaves out its generator": (
        BUFFER.replace("KEPT", '"rows": self.rows'),
        "replay.rng has changed since the loop began, and is not in what the state_dict of replay returns",
    ),
    "a history": (
        """
        def train():
            losses = []
            for step in holdwater.steps(20): losses.append(learn(torch.randn(4, 4)))
            return losses
        print(len(train()))
        """,
        "losses has changed",
    ),
    "an average of the weights": (
        """
        average = [part.detach().clone() for part in model.parameters()]
        def update():
            for mean, part in zip(average, model.parameters()): mean.mul_(0.9).add_(part.detach(), alpha=0.1)
        for step in holdwater.steps(20): learn(torch.randn(4, 4)); update()
        print(average[0].sum().item().hex())
        """,
        "average[0] has changed",
    ),
    "attributes": (
        """
        class Trainer:
            def __init__(self): self.best = 9.0
            def train(self):
                for step in holdwater.steps(20): self.best = min(self.best, learn(torch.randn(4, 4)))
        trainer = Trainer(); trainer.train()
        print(trainer.best.hex())
        """,
        "self.best has changed",
    ),
    "draws between those of the script": (
        """
        class Noise(IterableDataset):
            def __iter__(self):
                while True: yield torch.randn(4)
        for batch in holdwater.batches(DataLoader(Noise(), batch_size=2), steps=20):
            print(learn(batch + torch.randn(4)).hex())
        """,
        "draws random numbers between its batches",
    ),
}


@pytest.fixture
def both(tmp_path: Path, observe: Observe) -> Callable[[str], tuple[str, Any, int]]:
    """Run a script under Python alone, and replaced every 7 steps; both outputs, and the number of processes."""

    def run(body: str) -> tuple[str, Any, int]:
        script = BEGIN + textwrap.dedent(body) + END
        (tmp_path / "bare.py").write_text(script)
        bare = subprocess.run(
            [sys.executable, "bare.py"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        done, verdict = observe(script, "--supervise", "--reload-interval", "7", "--out", "run")
        assert done.returncode == 0, done.stderr
        return bare.stdout, done, verdict.get("processes", 1)

    return run


class TestExact:
    """What is kept."""

    @pytest.mark.parametrize("kind", EXACT)
    def test_a_fresh_process_goes_on_exactly(self, both: Callable[[str], tuple[str, Any, int]], kind: str) -> None:
        """The same output, from several processes."""
        bare, done, processes = both(EXACT[kind])
        again = "same tensor(True)\n"  # is printed before the loop, in each process

        assert (done.stdout.replace(again, ""), processes > 2) == (bare.replace(again, ""), True), done.stderr


class TestRefused:
    """What is not kept: the script goes on in one process."""

    @pytest.mark.parametrize("kind", REFUSED)
    def test_what_no_fresh_process_could_have(
        self, both: Callable[[str], tuple[str, Any, int]], kind: str
    ) -> None:
        """Named, and the output is that of the script alone."""
        body, words = REFUSED[kind]

        bare, done, processes = both(body)

        assert (done.stdout, processes) == (bare, 1)
        assert "is not replaced by a fresh one: " in done.stderr
        assert words in done.stderr

    def test_a_script_that_registers_nothing(self, tmp_path: Path, observe: Observe) -> None:
        """Also where a loader has a position of its own."""
        body = (
            "import torch, holdwater\nseen = 0\nfor row in holdwater.batches([1, 2, 3], steps=20): seen += row\n"
        )

        done, verdict = observe(body + "print(seen)\n", "--supervise", "--reload-interval", "7", "--out", "run")

        assert (done.stdout, verdict.get("processes", 1)) == ("39\n", 1)
        assert "nothing is registered that a fresh process could go on with" in done.stderr
        assert not (tmp_path / "run" / "checkpoints").exists()

    def test_data_that_each_process_makes_otherwise(self, observe: Observe) -> None:
        """They end the run by name: the process before is gone."""
        body = "data = torch.frombuffer(bytearray(os.urandom(64)), dtype=torch.uint8).float()\n"
        loop = "for step in holdwater.steps(20): learn(data.view(16, 4))\n"

        done, _ = observe(
            "import os" + BEGIN + body + loop, "--supervise", "--reload-interval", "7", "--out", "run"
        )

        assert done.returncode == 2
        assert "this process cannot go on exactly: data is made before the loop" in done.stderr

    def test_after_a_refusal_a_death_is_the_end(self, tmp_path: Path, observe: Observe) -> None:
        """The script's own end, and why it is not started again."""
        body = "count = 0\nfor step in holdwater.steps(20):\n    count += learn(torch.randn(4, 4)) > 0\n"
        dies = "    if count == 12: import os; os.kill(os.getpid(), 9)\n"

        done, verdict = observe(BEGIN + body + dies, "--supervise", "--reload-interval", "7", "--out", "run")

        assert (done.returncode, verdict.get("processes", 1)) == (-9, 1)
        assert "it is not started again: count has changed" in done.stderr
        assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000000"]


VERIFIED = (
    BEGIN
    + """
rows = open("rows.txt", "w")
for (batch,) in holdwater.batches(DataLoader(TensorDataset(torch.randn(64, 4)), batch_size=8, shuffle=True), steps=30):
    learn(batch)
print(PRINTED, file=TARGET)
"""
)


class TestVerifyResume:
    """`holdwater verify-resume` compares what a script prints and writes, too."""

    @pytest.mark.parametrize(
        ("printed", "target", "code", "words"),
        [
            ("'done'", "sys.stdout", 0, "and so do 1 lines of output and the files rows.txt"),
            ("os.getpid()", "sys.stdout", 0, "left out: what two straight runs print or write differently"),
            ("len(os.listdir('run-count'))", "sys.stdout", 1, "line 1 of what the script prints: '1' against"),
            ("len(os.listdir('run-count'))", "rows", 1, "the file rows.txt"),
        ],
        ids=["the same", "never the same", "printed", "written"],
    )
    def test_compares_outputs(
        self, holdwater: Any, tmp_path: Path, printed: str, target: str, code: int, words: str
    ) -> None:
        """The script counts its processes in a folder, which no registered tensor shows."""
        count = (
            "import os, pathlib\n"
            "pathlib.Path('run-count').mkdir(exist_ok=True)\n"
            "[old.unlink() for old in pathlib.Path('run-count').glob('*') if old.suffix != f'.{os.getppid()}']\n"
            "pathlib.Path('run-count', f'{os.getpid()}.{os.getppid()}').touch()\n"
        )
        script = count + VERIFIED.replace("PRINTED", printed).replace("TARGET", target)
        (tmp_path / "train.py").write_text(script)

        done = holdwater("verify-resume", "--every", "10", "run", "train.py", env=dict(os.environ))

        assert done.returncode == code, done.stdout + done.stderr
        assert words in done.stdout

    def test_is_not_called_exact_where_nothing_was_replaced(self, holdwater: Any, tmp_path: Path) -> None:
        """It says why."""
        (tmp_path / "train.py").write_text(BEGIN + textwrap.dedent(REFUSED["a counter"][0]))

        done = holdwater("verify-resume", "--every", "10", "run", "train.py")

        assert done.returncode == 1
        assert "not verified, for the process is not replaced: count has changed" in done.stdout
