"""Write a planned program as an ordinary training script: a plain loop, epochs over a loader, a trainer."""

import re
from dataclasses import dataclass
from itertools import pairwise
from string import Template
from textwrap import indent

from zoo.bounds import Stored
from zoo.plans import COSTS, Plan
from zoo.skeletons import CLASSES, GARBAGE, IMPORTS, LAYERS


@dataclass(frozen=True, slots=True)
class Text:
    """A program, and the lines that a label names."""

    code: str
    allocated: str | None
    held: str
    name: str
    kind: str


def _when(conditions: list[str], event: str) -> str:
    """An event under conditions, if there are any."""
    return f"if {' and '.join(conditions)}:\n{indent(event, '    ')}" if conditions else event


def write(plan: Plan, words: dict[str, str], stored: Stored, *, leaks: bool) -> Text:
    """The text of a planned program.

    Args:
        plan: Its choices, the same for a leak and its twin.
        words: What it calls things, the same for both.
        stored: The holder, with or without its bound.
        leaks: Which of the two it is.
    """
    return _Writer(plan, words, stored, leaks=leaks).text()


class _Writer:
    """Puts a program together from its parts."""

    def __init__(self, plan: Plan, words: dict[str, str], stored: Stored, *, leaks: bool) -> None:
        self.plan, self.stored, self.leaks = plan, stored, leaks
        self.words = dict(words)
        if plan.loop == "worker":
            self.words |= {"store": f"self.{words['name']}", "tracker": "self.tracker", "visited": "self.visited"}
        self.outer_step = words["step"]
        self.words |= self._event_words()

    def _event_words(self) -> dict[str, str]:
        """Words of what happens at an event."""
        plan = self.plan
        step = "self.reads" if plan.loop == "worker" else self.words["step"]
        expression = self.fill(plan.style.expression, step=step)
        folded = plan.folded and self.stored.held_line_is_made and self.stored.keep.count("$value") == 1
        in_function = "$made" in self.stored.module
        if in_function or "$value" not in self.stored.keep:
            expression_of_key = self.fill(plan.style.expression, step="key") if plan.style.pure else expression
            return {"made": expression_of_key, "value": "", "step": step, **self._keys(step)}
        value = expression if folded else self.words["kept"]
        return {"made": expression, "value": value, "step": step, **self._keys(step)}

    def _keys(self, step: str) -> dict[str, str]:
        """The key of an event, and its number."""
        tick = step if self.plan.period == 1 else f"{step} // {self.plan.period}"
        if self.plan.clock == "seconds":
            tick = step
        elif self.plan.period > 1:
            tick = f"({tick})"
        key = "row" if self.plan.clock == "row" else step
        return {"tick": tick, "key": key}

    def fill(self, text: str, **more: str) -> str:
        """A template with the program's own words."""
        return Template(text).substitute(self.words | more)

    def text(self) -> Text:
        """The whole program."""
        makes = bool(self.words["value"])
        made_line = f"{self.words['kept']} = {self.words['made']}"
        held = self.fill(self.stored.held) if self.leaks else ""
        folded = makes and self.words["value"] == self.words["made"]
        allocated: str | None = made_line
        if self.plan.style.allocated:
            allocated = self.plan.style.allocated
        elif self.stored.allocated:
            allocated = self.fill(self.stored.allocated)
        elif folded:
            keep = self.fill(self.stored.keep).splitlines()
            allocated = next(line.strip() for line in keep if self.words["made"] in line)
        elif not makes:
            allocated = None
        return Text(self._program(), allocated, held, self.fill(self.stored.name), self.stored.kind)

    def _event(self) -> str:
        """What happens at an event."""
        keep = self.fill(self.stored.keep)
        if self.words["value"] and self.words["value"] != self.words["made"]:
            return f"{self.words['kept']} = {self.words['made']}\n{keep}"
        return keep

    def _guarded(self, event: str) -> str:
        """An event under its clock, as far as the loop does not give it."""
        plan, step = self.plan, self.words["step"]
        begun = [f"{step} >= {plan.onset}"] if plan.onset else []
        if plan.clock == "every":
            begun.append(f"{step} % {plan.period} == 0")
        if plan.clock == "seconds":
            begun.append(self.fill(f"time.monotonic() - $last >= {plan.pace * plan.period:.3f}"))
            event = self.fill("$last = time.monotonic()\n") + event
        if plan.clock == "shape":
            before = self.fill("shape = tuple($batch.shape)\n")
            begun.append(self.fill("shape not in $visited"))
            return before + _when(begun, self.fill("$visited.add(shape)\n") + event)
        if plan.clock == "row":
            begun.append(self.fill("row not in $visited"))
            return self._row() + _when(begun, self.fill("$visited.add(row)\n") + event)
        return _when(begun, event)

    def _row(self) -> str:
        """The number of the row: of an endless stream in a leak, of a finite dataset in its twin."""
        step, limit = self.words["step"], self.words["limit"]
        if self.words["row_source"] == "drawn":
            return f"row = random.randrange({'10**12' if self.leaks else limit})\n"
        return f"row = {step}\n" if self.leaks else f"row = {step} % {limit}\n"

    def _program(self) -> str:
        """All parts in their order."""
        blocks = [self.plan.style.setup.strip("\n"), self.fill(self.stored.module).strip("\n")]
        blocks[0] = self.fill(blocks[0])
        if self.plan.model in CLASSES:
            blocks.append(CLASSES[self.plan.model].strip())
        if self.plan.noise == "garbage":
            blocks.append(GARBAGE.strip())
        if self.plan.loop == "worker":
            blocks.append(self._dataset())
        wrapped = {"module": self._module, "main": self._main, "trainer": self._trainer}[self.plan.wrap]()
        seeds = self.fill("torch.manual_seed($seed)\ntorch.set_num_threads(1)")
        code = "\n\n\n".join(block for block in (*blocks, wrapped) if block)
        if re.search(r"(?<![.\w])random\.", code):
            seeds = self.fill("random.seed($seed)\n") + seeds
        code = f"{seeds}\n\n\n{code}"
        imports = sorted(
            {
                line
                for pattern, lines in IMPORTS.items()
                if re.search(pattern, code, re.MULTILINE)
                for line in lines.split("\n")
            },
            key=lambda line: (line.startswith("from"), line),
        )
        return f'"""{self.words["title"]}"""\n\n' + "\n".join(imports) + f"\n\n{code}\n"

    def _define(self) -> str:
        """Everything that is made before the loop."""
        plan = self.plan
        lines = [self._make_model(), self.fill("$optimizer = $make_optimizer")]
        if plan.loop != "worker":
            lines += [self._define_store()]
        if plan.clock == "seconds":
            lines.append(self.fill("$last = time.monotonic()"))
        if plan.noise == "history":
            lines.append(self.fill("$recent = deque(maxlen=100)"))
        own = "self." if plan.wrap == "trainer" else ""
        if plan.epochs or plan.wrap == "trainer":
            lines.append(f"{self.outer_step} = 0")
        if plan.epochs:
            rows = plan.steps // plan.epochs
            lines.append(
                {
                    "loader": f"{own}loader = DataLoader(TensorDataset(torch.randn({rows * plan.batch}, 64)), "
                    f"batch_size={plan.batch}, shuffle=True)",
                    "batches": f"{own}batches = [torch.randn({plan.batch}, 64) for _ in range({rows})]",
                    "worker": f"{own}loader = DataLoader(Rows(), batch_size=None, num_workers=1"
                    + (")" if plan.bound == "restart" and not self.leaks else ", persistent_workers=True)"),
                }[plan.loop]
            )
        return "\n".join(line for line in lines if line)

    def _define_store(self) -> str:
        """The holder, and what the clock has seen."""
        lines = [self.fill(self.stored.define)]
        if self.plan.clock in {"shape", "row"}:
            lines.append(self.fill("$visited = set()"))
        return "\n".join(line for line in lines if line)

    def _make_model(self) -> str:
        """The line that makes the model."""
        if self.plan.model in CLASSES:
            return self.fill("$model = Net()")
        if self.plan.model == "deep":
            hidden = "*[layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.ReLU())]"
            return self.fill(f"$model = nn.Sequential({hidden}, nn.Linear(64, 1))")
        widths = LAYERS[self.plan.model]
        layers = [f"nn.Linear({here}, {there})" for here, there in pairwise(widths)]
        return self.fill("$model = nn.Sequential(") + ", nn.ReLU(), ".join(layers) + ")"

    def _dataset(self) -> str:
        """The dataset whose worker grows."""
        rows = self.plan.steps // (self.plan.epochs or 1)
        define = self._define_store()
        return "\n".join((
            "class Rows(Dataset):",
            "    def __init__(self):",
            "        self.reads = 0",
            *([indent(define, " " * 8)] if define else []),
            f"\n    def __len__(self):\n        return {rows}\n",
            "    def __getitem__(self, index):",
            indent(self._guarded(self._event()), " " * 8),
            f"        self.reads += 1\n        return torch.randn({self.plan.batch}, 64)",
        ))

    def _module(self) -> str:
        """Everything at the top of the module; the event perhaps in a function."""
        if not self._splits():
            return f"{self._define()}\n{self._loop()}\n{self._end()}"
        parameters = self.fill("$step, $batch, $output, $loss")
        body = self.fill("global $store\n") if self.stored.rebinds else ""
        function = f"def {self.words['record']}({parameters}):\n{indent(body + self._event(), '    ')}"
        call = f"{self.words['record']}({parameters})"
        return f"{self._define()}\n\n\n{function}\n\n\n{self._loop(call)}\n{self._end()}"

    def _main(self) -> str:
        """A function for everything."""
        body = indent(f"{self._define()}\n{self._loop()}\n{self._end()}", "    ")
        return f'def main():\n{body}\n\n\nif __name__ == "__main__":\n    main()'

    def _trainer(self) -> str:
        """A class with methods."""
        methods = [f"def __init__(self):\n{indent(self._define(), '    ')}"]
        methods.append(
            self.fill("def train_step(self, $batch):\n")
            + indent(self._forward() + self.fill("\nreturn $output, $loss"), "    ")
        )
        call = None
        if self._splits():
            parameters = self.fill("$batch, $output, $loss")
            methods.append(f"def {self.words['record']}(self, {parameters}):\n{indent(self._event(), '    ')}")
            call = f"self.{self.words['record']}({parameters})"
        methods.append(f"def fit(self):\n{indent(self._loop(call), '    ')}")
        return (
            "class Trainer:\n"
            + indent("\n\n".join(methods), "    ")
            + f"\n\n\ntrainer = Trainer()\ntrainer.fit()\n{self._end().replace('self.', 'trainer.')}"
        )

    def _splits(self) -> bool:
        """Whether the event has a function of its own."""
        return self.plan.split and self.plan.loop != "worker" and self.plan.clock not in {"row", "shape"}

    def _forward(self) -> str:
        """One step of training."""
        return self.fill(
            "$output = $model($batch)\n$loss = $objective\n"
            "$optimizer.zero_grad()\n$loss.backward()\n$optimizer.step()"
        )

    def _end(self) -> str:
        """What it prints."""
        counted = self.plan.epochs or self.plan.wrap == "trainer"
        return f'print("steps", {self.outer_step if counted else self.plan.steps})'

    def _loop(self, call: str | None = None) -> str:
        """The loop over steps, or over epochs and batches."""
        plan, own = self.plan, "self." if self.plan.wrap == "trainer" else ""
        event = "" if plan.loop == "worker" else self._guarded(call or self._event())
        body = self._body(event)
        if plan.wrap == "trainer" or plan.epochs:
            body += f"\n{self.outer_step} += 1"
        if not plan.epochs:
            counter = "_" if plan.wrap == "trainer" else self.outer_step
            return f"for {counter} in range({plan.steps}):\n{indent(body, '    ')}"
        source = {"loader": "loader", "batches": "batches", "worker": "loader"}[plan.loop]
        target = self.fill("($batch,)" if plan.loop == "loader" else "$batch")
        inner = f"for {target} in {own}{source}:\n{indent(body, '    ')}"
        if plan.clock == "epoch":
            inner += f"\n{event}"
        if plan.bound == "epoch" and not self.leaks:
            inner += "\n" + self.fill(self.stored.clear)
        return f"for epoch in range({plan.epochs}):\n{indent(inner, '    ')}"

    def _body(self, event: str) -> str:
        """What happens in each step."""
        plan = self.plan
        parts = [self._batch()]
        parts.append(
            self.fill("$output, $loss = self.train_step($batch)") if plan.wrap == "trainer" else self._forward()
        )
        parts.append(self._noise())
        if plan.clock not in {"evaluation", "checkpoint", "epoch"}:
            parts.append(event)
        decoys = self.words["decoys"]
        if plan.clock == "evaluation" or plan.noise == "spikes" or decoys in {"evaluation", "both"}:
            parts.append(self._evaluation(event if plan.clock == "evaluation" else ""))
        if plan.clock == "checkpoint" or decoys in {"checkpoint", "both"}:
            parts.append(self._checkpoint(event if plan.clock == "checkpoint" else ""))
        parts.append(self._pace())
        return "\n".join(part for part in parts if part)

    def _batch(self) -> str:
        """The line that makes or trims the batch."""
        plan = self.plan
        if plan.clock == "shape":
            shape = f"{self.words['step']} // {plan.period}"
            shape = shape if self.leaks else f"{shape} % {self.words['limit']}"
            return f"number = {shape}\n" + self.fill("$batch = torch.randn(4 + number % 24, 1 + number // 24, 64)")
        lengths = "random.choice((8, 12, 16))"
        if plan.loop == "steps":
            return self.fill(f"$batch = torch.randn({lengths if plan.noise == 'lengths' else plan.batch}, 64)")
        return self.fill(f"$batch = $batch[: {lengths}]") if plan.noise == "lengths" else ""

    def _noise(self) -> str:
        """What is allocated beside, and let go."""
        return {
            "temporary": self.fill("scratch = torch.ones(random.randrange(1_000, $scratch))\ndel scratch"),
            "history": self.fill("$recent.append($loss.item())"),
            "garbage": "for number in range(4):\n    Step(number)",
        }.get(self.plan.noise, "")

    def _evaluation(self, event: str) -> str:
        """An evaluation, perhaps a large one."""
        rows = 20_000 if self.plan.noise == "spikes" and self.plan.model in LAYERS else 64
        every = str(self.plan.period) if event else self.words["every_evaluation"]
        return self.fill(
            f"if ({self.outer_step} + 1) % {every} == 0:\n    $model.eval()\n    with torch.no_grad():\n"
            f"        score = $model(torch.randn({rows}, 64)).mean().item()\n    $model.train()"
        ) + (f"\n{indent(event, '    ')}" if event else "")

    def _checkpoint(self, event: str) -> str:
        """A checkpoint, in memory or on disk."""
        every = str(self.plan.period) if event else self.words["every_checkpoint"]
        file = {"memory": "io.BytesIO()", "disk": "tempfile.TemporaryFile()"}[self.words["save"]]
        return self.fill(
            f"if ({self.outer_step} + 1) % {every} == 0:\n    with {file} as file:\n"
            f'        torch.save({{"model": $model.state_dict(), "step": {self.outer_step}}}, file)'
        ) + (f"\n{indent(event, '    ')}" if event else "")

    def _pace(self) -> str:
        """How long it waits after a step."""
        plan = self.plan
        left = plan.pace - COSTS[plan.model]
        if plan.pattern == "none" or left < 0.0004:
            return ""
        step = self.outer_step
        every = max(2, round(float(self.words["wait"]) / left))
        burst = max(20, plan.steps // 12)
        return {
            "even": f"time.sleep({left:.4f})",
            "uneven": f"time.sleep(random.uniform({left * 0.2:.4f}, {left * 1.8:.4f}))",
            "pauses": f"if {step} % {every} == {every - 1}:\n    time.sleep({left * every:.2f})",
            "bursts": f"time.sleep({left * 0.3:.4f} if {step} // {burst} % 2 else {left * 1.7:.4f})",
        }[plan.pattern]
