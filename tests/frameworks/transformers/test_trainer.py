"""The ready-made trainers: what runs out of memory is repeated, with the same numbers in the log."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_models import make_model

pytest.importorskip("transformers", reason="Transformers is not installed")
KINDS = ("Trainer", "SFTTrainer")


def learn(
    kind: str, folder: Path, *, most: int = 100, **failing: Iterable[int]
) -> tuple[list[Any], list[Any], int]:
    """Six steps and two evaluations of a small Llama; what was logged, the weights, and training's micro-batch.

    Args:
        kind: Of the trainer.
        folder: For its output.
        most: Rows that fit at once.
        failing: Calls of `forward`, `backward`, `evaluation` and `optimizer` that run out of memory.
    """
    import transformers

    from holdwater.frameworks.transformers import trainer as trainers

    if kind == "SFTTrainer":
        pytest.importorskip("trl", reason="TRL is not installed")
    path = make_model(folder / "model", "Llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    trainer = make_trainer(trainers, kind, model, folder, path)
    let_fail(model, trainer.create_optimizer(), failing, most)
    trainer.train()
    kept = [
        {key: value for key, value in row.items() if "runtime" not in key and "per_second" not in key}
        for row in trainer.state.log_history
    ]
    return kept, [weight.detach().clone() for weight in model.parameters()], trainer._recovering.micro_batch


def let_fail(model: Any, optimizer: Any, failing: dict[str, Iterable[int]], most: int) -> None:
    """Let calls run out of memory: in the second layer, in the backward pass, and where the optimizer makes state."""
    calls = dict.fromkeys(("forward", "backward", "evaluation", "optimizer"), 0)
    begin = optimizer._init_group

    def call(what: str) -> None:
        """Count a call, and fail at some."""
        calls[what] += 1
        if calls[what] in failing.get(what, ()):
            raise MemoryError(f"injected in {what}")

    def forward(module: Any, _: Any, output: Any) -> None:
        """Of training, or of an evaluation."""
        call("forward" if module.training else "evaluation")
        if len(output[0] if isinstance(output, tuple) else output) > most:
            raise MemoryError("injected: too many rows")

    def begin_group(*arguments: Any, **named: Any) -> Any:
        """The first part of a step."""
        call("optimizer")
        return begin(*arguments, **named)

    model.model.layers[1].register_forward_hook(forward)
    model.model.layers[0].register_full_backward_hook(lambda *_: call("backward"))
    optimizer._init_group = begin_group


def make_trainer(trainers: Any, kind: str, model: Any, folder: Path, path: Path) -> Any:
    """A trainer of 40 rows, whose target tokens differ in number."""
    import transformers

    rows = []
    for row in torch.randint(5, 64, (40, 16), generator=torch.Generator().manual_seed(3)).tolist():
        ignored = 1 + row[0] % 9
        rows.append({"input_ids": row, "labels": [-100] * ignored + row[ignored:], "attention_mask": [1] * 16})
    settings = {
        "output_dir": str(folder / "out"), "max_steps": 6, "per_device_train_batch_size": 4, "logging_steps": 1,
        "per_device_eval_batch_size": 4, "gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 3,
        "report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "seed": 1,
    }  # fmt: skip
    if kind == "Trainer":
        arguments = transformers.TrainingArguments(**settings)
        return trainers.HoldwaterTrainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:10])
    import datasets
    import trl

    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = tokenizer.eos_token
    data = datasets.Dataset.from_list(rows)
    arguments = trl.SFTConfig(**settings, bf16=False, gradient_checkpointing=False)
    return trainers.HoldwaterSFTTrainer(
        model=model, args=arguments, train_dataset=data, eval_dataset=data.select(range(10)),
        processing_class=tokenizer,
    )  # fmt: skip


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", KINDS)
class TestTrainers:
    """Transformers' and TRL's own, over a small Llama with accumulation."""

    def test_learn_the_same_after_any_lack_of_memory(self, kind: str, tmp_path: Path) -> None:
        """Once in each place: every bit of the weights and of the log is the same; TRL's own metrics too."""
        found = learn(kind, tmp_path, forward=(3,), backward=(7,), evaluation=(2,), optimizer=(1, 5))

        wanted = learn(kind, tmp_path)
        assert found[0] == wanted[0]
        assert all(torch.equal(one, other) for one, other in zip(found[1], wanted[1], strict=True))

    def test_keep_the_effective_batch_with_smaller_parts(self, kind: str, tmp_path: Path) -> None:
        """At most two rows fit: equal to rounding."""
        found, wanted = learn(kind, tmp_path, most=2), learn(kind, tmp_path)

        assert (found[2], wanted[2]) == (2, 4)
        for one, other in zip(found[0], wanted[0], strict=True):
            assert one == pytest.approx(other, rel=1e-5)
        for mine, other in zip(found[1], wanted[1], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)

    def test_an_evaluation_does_not_shrink_training(self, kind: str, tmp_path: Path) -> None:
        """It lacks memory twice at the same batch: training goes on as before, to the bit."""
        found, wanted = learn(kind, tmp_path, evaluation=(2, 3)), learn(kind, tmp_path)

        assert found[2] == 4
        assert all(torch.equal(one, other) for one, other in zip(found[1], wanted[1], strict=True))


def test_without_trl_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other trainer does not need it."""
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "holdwater.frameworks.transformers.trainer", raising=False)
    module = importlib.import_module("holdwater.frameworks.transformers.trainer")

    assert module.HoldwaterTrainer.__mro__[1] is module.HoldwaterTrainerMixin
    with pytest.raises(ImportError, match="pip install trl"):
        _ = module.HoldwaterSFTTrainer
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = module.Nothing
