"""Tests of the callback for the trainer of mlx_lm, with a small model on the CPU."""

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdwater.actions.levers import Levers
from holdwater.guard.guard import Guard
from holdwater.guard.settings import GuardSettings
from holdwater.store.history import read_history
from holdwater.units import Bytes

mx = pytest.importorskip("mlx.core", reason="MLX is not installed")
pytest.importorskip("mlx_lm", reason="mlx_lm is not installed")

llama = pytest.importorskip("mlx_lm.models.llama")
optimizers = pytest.importorskip("mlx.optimizers")
utils = pytest.importorskip("mlx.utils")
trainer = pytest.importorskip("mlx_lm.tuner.trainer")

from holdwater.frameworks.mlx_lm import MlxMemoryCallback  # noqa: E402 - needs mlx_lm

STEPS = 7


def small_model() -> Any:
    """A Llama of one layer, always the same."""
    mx.random.seed(0)
    shape = llama.ModelArgs(
        model_type="llama",
        hidden_size=32,
        num_hidden_layers=1,
        intermediate_size=64,
        num_attention_heads=2,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        vocab_size=64,
    )
    model = llama.Model(shape)
    mx.eval(model.parameters())
    return model


def train(folder: Path, guard: Guard | None, *, clocked: bool = True, steps: int = STEPS) -> dict[str, Any]:
    """Train by mlx_lm; return the weights.

    Args:
        folder: For its adapters.
        guard: None trains without.
        clocked: Whether batches are taken through the callback.
        steps: Of the trainer.
    """
    model, rows = small_model(), [([(at + row) % 64 for at in range(20 + row)], 0) for row in range(8)]
    args = trainer.TrainingArgs(
        batch_size=2,
        iters=steps,
        val_batches=1,
        steps_per_report=3,
        steps_per_eval=4,
        steps_per_save=100,
        adapter_file=str(folder / "adapters.safetensors"),
    )
    callback = None if guard is None else MlxMemoryCallback(guard)
    batches = {} if callback is None or not clocked else {"iterate_batches": callback.iterate_batches}
    trainer.np.random.seed(1)
    trainer.train(model, optimizers.Adam(1e-3), rows, rows, args, training_callback=callback, **batches)
    return {name: array.tolist() for name, array in utils.tree_flatten(model.parameters())}


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """MLX's limits are as they were afterwards."""
    memory, cache = mx.set_memory_limit(1 << 40), mx.set_cache_limit(1 << 30)
    mx.set_memory_limit(memory)
    mx.set_cache_limit(cache)
    yield
    mx.set_memory_limit(memory)
    mx.set_cache_limit(cache)


class TestMemoryCallback:
    """Memory is read after each step, and nothing else changes."""

    def test_counts_every_step_and_marks_evaluations(self, tmp_path: Path) -> None:
        """Seven steps with a report after 3, 6 and 7; evaluations before 1, 4 and 7."""
        with Guard(out=tmp_path / "run") as guard:
            train(tmp_path, guard)

        marks = read_history(tmp_path / "run").marks
        assert guard.step_number == STEPS
        assert [(mark.kind, mark.step) for mark in marks] == [
            ("evaluation", 0),
            ("evaluation", 3),
            ("evaluation", 6),
        ]

    def test_the_weights_are_those_without_it(self, tmp_path: Path) -> None:
        """Batches and random numbers are the same."""
        with Guard() as guard:
            guarded = train(tmp_path, guard)

        assert guarded == train(tmp_path, None)

    def test_ends_after_a_step_if_the_run_must_stop(self, tmp_path: Path) -> None:
        """The trainer saves its adapters then, as at its end."""

        class StopsAtTwo(Guard):
            """Memory is short after the second step."""

            def step(self, *, loss: float | None = None) -> None:
                """Count it."""
                super().step(loss=loss)
                if self.step_number == 2:
                    self.stop("memory is short")

        with StopsAtTwo() as guard:
            train(tmp_path, guard)

        assert guard.step_number == 2
        assert (tmp_path / "adapters.safetensors").exists()

    def test_says_what_is_not_seen_without_the_clock(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Steps between reports are counted at the report, and the user learns how to have them read."""
        with caplog.at_level(logging.WARNING, "holdwater"), Guard() as guard:
            train(tmp_path, guard, clocked=False)

        assert guard.step_number == STEPS
        assert "pass iterate_batches=callback.iterate_batches" in caplog.text

    @pytest.mark.parametrize(("wanted", "left"), [(None, 0), (3_000_000, 3_000_000)])
    def test_undoes_the_wired_limit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int | None, left: int
    ) -> None:
        """The trainer wires what the device recommends; only a limit that the user gave stays."""
        limits = [0]
        """In order; MLX without Metal keeps none."""

        def set_wired_limit(limit: int) -> int:
            """Return the limit before."""
            limits.append(limit)
            return limits[-2]

        monkeypatch.setattr(mx, "set_wired_limit", set_wired_limit)
        monkeypatch.setattr(trainer, "maybe_set_recommended_wired_limit", lambda: set_wired_limit(5_000_000))
        settings = GuardSettings(wired_limit=None if wanted is None else Bytes(wanted))

        with Guard(settings) as guard:
            train(tmp_path, guard, steps=2)

        assert 5_000_000 in limits
        assert limits[-1] == left

    def test_a_checkpoint_of_the_users_own_is_kept(self) -> None:
        """A lever that was given is not replaced."""
        mine = Levers(checkpoint=lambda: None)
        guard = Guard(levers=mine)

        MlxMemoryCallback(guard)

        assert guard.levers is mine

    def test_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without mlx_lm the module names the extra."""
        monkeypatch.setitem(sys.modules, "mlx_lm.tuner.callbacks", None)
        monkeypatch.delitem(sys.modules, "holdwater.frameworks.mlx_lm")

        with pytest.raises(ImportError, match=r"pip install mlx mlx-lm"):
            importlib.import_module("holdwater.frameworks.mlx_lm")
