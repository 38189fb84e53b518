"""The one callback, in real trainings by Transformers' Trainer in this process."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="Transformers is not installed")

import holdwater  # noqa: E402 - the callback needs Transformers
from holdwater.errors import ConfigError  # noqa: E402

TrainerCallback: Any = transformers.TrainerCallback


class Reporter(TrainerCallback):  # type: ignore[misc] # its types are not read
    """As TensorBoard's, for example: sends what is logged elsewhere."""

    def __init__(self) -> None:
        self.sent: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Send."""
        self.sent.append(dict(logs))


def trainer(folder: Path, *callbacks: Any, **more: Any) -> Any:
    """A Trainer of a small Llama, 60 steps with evaluations and checkpoints."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        attention_dropout=0.1,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    rows = [
        {"input_ids": row, "labels": row}
        for row in torch.randint(0, 64, (60, 12), generator=torch.Generator().manual_seed(3))
    ]
    arguments = transformers.TrainingArguments(**{
        "output_dir": str(folder), "max_steps": 60, "per_device_train_batch_size": 2, "logging_steps": 20,
        "eval_strategy": "steps", "eval_steps": 30, "save_steps": 30, "report_to": [], "disable_tqdm": True,
        "use_cpu": True, "seed": 1, **more,
    })  # fmt: skip
    return transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:4], callbacks=list(callbacks)
    )


def steady(log: list[dict[str, float]]) -> list[dict[str, float]]:
    """What does not depend on the clock."""
    return [
        {key: value for key, value in row.items() if "runtime" not in key and "second" not in key} for row in log
    ]


@pytest.mark.filterwarnings("default")
def test_a_healthy_run_is_as_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every bit of losses and weights, and what is printed and logged; reporters get memory beside it."""
    plain = trainer(tmp_path / "plain", Reporter())
    plain.train()
    printed = capsys.readouterr().out
    reporter = Reporter()
    callback = holdwater.HoldwaterCallback(
        max_memory="200GB", out=tmp_path / "run", json=tmp_path / "v.json", cleanup_every_n_steps=20
    )
    watched = trainer(tmp_path / "watched", reporter, callback)
    watched.train()
    told = capsys.readouterr()

    assert steady(watched.state.log_history) == steady(plain.state.log_history)
    for one, other in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert len(told.out.splitlines()) == len(printed.splitlines())
    assert "memory/" not in told.out
    assert all(row["memory/host_bytes"] > 1e7 for row in reporter.sent)
    verdict = json.loads((tmp_path / "v.json").read_text())
    assert verdict == callback.summary
    assert (verdict["schema"], verdict["steps"], verdict["verdict"] in {"leak", "pressure"}) == (1, 60, False)
    assert {row["action"] for row in verdict["actions"]} >= {"collect"}
    assert "the clean-up (every 20 steps) freed" in told.err
    assert (tmp_path / "run" / "rank-0.db").exists()


@pytest.mark.filterwarnings("default")
def test_marks_and_hooks_end_with_the_training(tmp_path: Path) -> None:
    """Evaluations and checkpoints are in the history; torch is as before; a second training is watched anew."""
    from torch.utils.data import dataloader

    from holdwater.store.history import read_history

    before = dict(vars(dataloader.DataLoader)), dict(vars(dataloader._BaseDataLoaderIter))
    callback = holdwater.HoldwaterCallback(out=tmp_path / "run")
    twice = trainer(tmp_path / "twice", callback)
    twice.train()
    first = callback.summary
    twice.train()

    marks = [(mark.step, mark.kind) for mark in read_history(tmp_path / "run").marks]
    assert {(30, "evaluation"), (30, "checkpoint"), (60, "evaluation"), (60, "checkpoint")} <= set(marks)
    assert (dict(vars(dataloader.DataLoader)), dict(vars(dataloader._BaseDataLoaderIter))) == before
    assert first is not None
    assert callback.summary is not None
    assert first is not callback.summary
    assert "verdict" in callback.summary


class TestSettings:
    """Checked before anything begins."""

    def test_refuses_a_clean_up_without_steps(self) -> None:
        """It says what to write."""
        with pytest.raises(ConfigError, match=r"cleanup_every_n_steps is 0.*set it to 1 or more"):
            holdwater.HoldwaterCallback(cleanup_every_n_steps=0)

    def test_refuses_a_budget_that_is_no_size(self) -> None:
        """As everywhere."""
        with pytest.raises(ConfigError, match="lots"):
            holdwater.HoldwaterCallback(max_memory="lots")

    @pytest.mark.filterwarnings("default")
    def test_refuses_a_budget_that_is_spent(self, tmp_path: Path) -> None:
        """Before the first step, with what is needed."""
        with pytest.raises(ConfigError, match=r"max_memory is 10\.0 MB, but the process occupies"):
            trainer(tmp_path, holdwater.HoldwaterCallback(max_memory="10MB")).train()
