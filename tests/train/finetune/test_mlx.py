"""Fine-tuning by MLX, in small: rows, the loss by chunks, the losses of mlx_lm's own trainer, steps that fail."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdwater.oom.recovering_step import OneSampleTooLarge

mx = pytest.importorskip("mlx.core", reason="needs MLX: pip install mlx (on Linux mlx[cpu])")
pytest.importorskip("mlx_lm", reason="needs mlx_lm: pip install mlx-lm")

from mlx.nn.layers.linear import Linear  # noqa: E402 - after the check that it is there
from mlx.nn.utils import value_and_grad  # noqa: E402

from holdwater.train.finetune.mlx import loss as chunked  # noqa: E402
from holdwater.train.finetune.mlx.batches import RowBatches, bucket  # noqa: E402
from holdwater.train.finetune.mlx.loading import load_mlx, read_weights  # noqa: E402
from holdwater.train.finetune.mlx.trees import flat  # noqa: E402
from holdwater.train.loop import recovering_step  # noqa: E402
from mlx_trainers import our_losses, their_losses  # noqa: E402
from tests.small_mlx import SIZES, arrays, made  # noqa: E402
from tests.small_models import make_model  # noqa: E402

OUT_OF_MEMORY = RuntimeError("[malloc] Unable to allocate 4096 bytes.")


class TestRowBatches:
    """Each example has a row of its own."""

    def test_lengths_are_rounded_up_to_a_few_buckets(self) -> None:
        """At most half as much again as the longest example needs, and never more than was asked for."""
        found = [bucket(longest, 2048) for longest in (1, 32, 33, 49, 65, 97, 1025, 2047)]

        assert found == [32, 32, 48, 64, 96, 128, 1536, 2048]
        assert bucket(33, 40) == bucket(100, 40) == 40

    def test_a_row_has_one_example_and_its_targets(self, tmp_path: Path) -> None:
        """Of a prompt nothing is learned; the end of the answer is."""
        state = made(tmp_path)

        batch = state.batches.draw()

        assert batch.tokens.shape == (4, 32)
        for tokens, targets, weights in zip(batch.tokens, batch.targets, batch.weights, strict=True):
            learned = np.flatnonzero(weights)
            assert (np.diff(learned) == 1).all()
            assert (targets[learned] == tokens[learned + 1]).all()
            assert targets[learned[-1]] == state.loaded.tokenizer.eos_token_id
        assert batch.weight == batch.weights.sum()

    def test_only_learned_tokens_need_logits(self, tmp_path: Path) -> None:
        """They are padded to a bucket by tokens that count nothing."""
        batch = made(tmp_path).batches.draw()

        places, targets, weights = batch.learned()

        count = int((batch.weights > 0).sum())
        assert (places.shape, targets.shape, weights.shape) == ((32,), (32,), (32,))
        assert (batch.weights.ravel()[places[:count]] == weights[:count]).all()
        assert (batch.targets.ravel()[places[:count]] == targets[:count]).all()
        assert not weights[count:].any()

    def test_goes_on_at_any_batch(self, tmp_path: Path) -> None:
        """Also across the end of an epoch."""
        state = made(tmp_path)
        for _ in range(12):
            state.batches.draw()
        place = json.loads(json.dumps(state.batches.state()))
        expected = [state.batches.draw().tokens.tolist() for _ in range(6)]

        again = made(tmp_path).batches
        again.restore(place)

        assert [again.draw().tokens.tolist() for _ in range(6)] == expected


class TestLoss:
    """Some tokens at a time."""

    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("chunk", [5, 32])
    def test_is_that_of_all_logits_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, tied: bool
    ) -> None:
        """With the same gradients, whether the head is tied to the embedding or not."""
        monkeypatch.setattr(chunked, "CHUNK", chunk)
        state = made(tmp_path, more={"tie_word_embeddings": tied})
        model, head = state.loaded.model, chunked.split_head(state.loaded.model)
        batch = state.batches.draw()
        tokens, learned = mx.array(batch.tokens), [mx.array(one) for one in batch.learned()]

        def found(head: Any, *, learns: bool = True) -> tuple[Any, dict[str, Any]]:
            """The loss and its gradients."""
            both = value_and_grad(model, lambda: chunked.loss_sum(model, head, tokens, learned, learns=learns))
            value, gradients = both()
            return value.item(), flat(gradients)

        assert head is not None
        (whole, expected), (loss, gradients) = found(None), found(head)

        assert loss == pytest.approx(whole, rel=1e-6)
        assert chunked.loss_sum(model, head, tokens, learned, learns=False).item() == pytest.approx(
            whole, rel=1e-6
        )
        for name, gradient in expected.items():
            assert mx.allclose(gradients[name], gradient, rtol=1e-4, atol=1e-7), name

    def test_takes_little_memory_for_many_tokens(self) -> None:
        """Whole logits of 2,048 tokens are 16 MB, of which a step needs several at once."""
        head, hidden = Linear(32, 2000), mx.random.normal((1, 2048, 32))
        learned = [mx.arange(2048), mx.zeros(2048, mx.int32), mx.ones(2048) / 2048]
        mx.eval(head.weight, hidden, learned)

        def peak(*, whole: bool) -> int:
            """Bytes that the loss and a gradient take."""

            def loss(scale: Any) -> Any:
                """Of hidden states that depend on one weight."""
                body = SimpleNamespace(model=lambda _: hidden * scale)
                model: Any = (lambda _: head(hidden * scale)) if whole else body
                return chunked.loss_sum(model, None if whole else head, hidden, learned, learns=True)

            mx.eval(mx.value_and_grad(loss)(mx.array(1.0)))
            before = mx.get_active_memory()
            mx.reset_peak_memory()
            mx.eval(mx.value_and_grad(loss)(mx.array(1.0)))
            return int(mx.get_peak_memory() - before)

        in_parts, at_once = peak(whole=False), peak(whole=True)

        assert at_once > 3 * 16_000_000
        assert in_parts < at_once / 2

    def test_a_head_that_does_more_is_left_to_the_model(self, tmp_path: Path) -> None:
        """Its logits are made whole."""
        model = made(tmp_path).loaded.model

        class Scaled(type(model)):  # type: ignore[misc]
            """Halves its logits, as some families do."""

            def __call__(self, tokens: Any) -> Any:
                """Halve them."""
                return super().__call__(tokens) * 0.5

        model.__class__ = Scaled

        assert chunked.split_head(model) is None


class TestSteps:
    """Compiled, and whole or not at all."""

    @pytest.mark.parametrize("family", SIZES)
    def test_losses_are_those_of_the_trainer_of_mlx_lm(self, tmp_path: Path, family: str) -> None:
        """On the same batches, within 1e-5."""
        flags: dict[str, Any] = {"steps": 24, "learning_rate": 0.002}
        ours = our_losses(made(tmp_path, family=family, **flags))
        peer = made(tmp_path, family=family, **flags)

        theirs = their_losses(peer, peer.batches)

        assert len(ours) == 24
        assert ours[-1] < ours[0]
        assert ours == pytest.approx(theirs, abs=1e-5)

    def test_several_batches_make_one_step(self, tmp_path: Path) -> None:
        """Four of one row each give what one of four rows gives."""
        whole = our_losses(made(tmp_path))

        in_parts = our_losses(made(tmp_path, batch_size=1, gradient_accumulation=4))

        assert in_parts == pytest.approx(whole, abs=1e-5)

    @pytest.mark.parametrize("fails", [1, 2, 3])
    def test_memory_that_runs_out_costs_a_smaller_micro_batch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
    ) -> None:
        """The losses are those of a run in which it did not; at first the step is repeated as it was."""
        expected = our_losses(made(tmp_path))
        state, failed = made(tmp_path), iter([OUT_OF_MEMORY] * fails)
        step, real, began = recovering_step(state.settings, state), mx.eval, arrays(state)

        def evaluate(*given: Any) -> None:
            """Fail, as MLX does when it evaluates."""
            for error in failed:
                assert arrays(state)["key"] == began["key"]
                raise error
            real(*given)

        monkeypatch.setattr(mx, "eval", evaluate)
        state.rate = state.settings.learning_rate / 2
        loss = step.take([state.batches.draw()])

        assert loss == pytest.approx(expected[0], abs=1e-5)
        assert step.micro_batch == {1: 4, 2: 2, 3: 1}[fails]
        assert arrays(state) != began

    def test_a_step_that_fails_changes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not even with dropout, and after the first of its parts."""
        state = made(tmp_path, lora_dropout=0.2)
        step, began = recovering_step(state.settings, state), arrays(state)

        def evaluate(*given: Any) -> None:
            """Never succeed."""
            raise OUT_OF_MEMORY

        batch = state.batches.draw()
        with monkeypatch.context() as patched:
            patched.setattr(mx, "eval", evaluate)
            with pytest.raises(OneSampleTooLarge):
                step.take([batch])

        assert arrays(state) == began
        assert np.isfinite(our_losses(state)).all()

    def test_a_step_that_is_not_finite_can_be_skipped(self, tmp_path: Path) -> None:
        """It changes neither weights nor moments."""
        state = made(tmp_path, non_finite="skip")
        functions, batch = state.step_functions(), state.batches.draw()
        began, state.rate = arrays(state), 0.1

        functions.propagate(batch, float("nan"))
        functions.update()

        assert np.isnan(functions.loss())  # type: ignore[misc]
        after = arrays(state)
        changed = {name for name in began if after[name] != began[name]}
        assert len(changed) == 1  # the learning rate, which is set before each step

    def test_layers_that_are_computed_again_give_the_same(self, tmp_path: Path) -> None:
        """Other models of the same class are left alone."""
        plain = made(tmp_path)
        expected = our_losses(plain)

        again = made(tmp_path, gradient_checkpointing="yes")

        assert our_losses(again) == pytest.approx(expected, abs=1e-5)
        assert type(again.loaded.model.layers[0]) is not type(plain.loaded.model.layers[0])
        assert again.sample(3)

    def test_trains_beside_weights_of_few_bits(self, tmp_path: Path) -> None:
        """Near the losses of whole weights."""
        wide = {"hidden_size": 64, "intermediate_size": 128}
        whole = our_losses(made(tmp_path, more=wide))

        state = made(tmp_path, more=wide, quantize=8)

        assert our_losses(state) == pytest.approx(whole, abs=0.05)
        assert sum(name.endswith("scales") for name in flat(state.loaded.model.parameters())) >= 14
        assert state.evaluate() > 0

    def test_whole_weights_are_not_held_beside_those_of_few_bits(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Each is read, quantized and freed before the next."""
        more = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
        folder = make_model(tmp_path / "model", "Llama", **more)
        whole = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        before = mx.get_active_memory()
        mx.reset_peak_memory()

        loaded = load_mlx(str(folder))
        with caplog.at_level("INFO", logger="holdwater"):
            read_weights(loaded, 8)

        assert "30 of 30 matrices are in 8 bits" in caplog.text
        assert loaded.config["model_type"] == "llama"
        assert mx.get_peak_memory() - before < 0.5 * whole

    def test_only_the_last_layers_get_adapters(self, tmp_path: Path) -> None:
        """And of these the named ones."""
        state = made(tmp_path, lora_layers=1, lora_targets="q_proj,v_proj")

        names = {name.rpartition(".")[0] for name in flat(state.loaded.model.trainable_parameters())}

        assert names == {f"model.layers.1.self_attn.{one}_proj" for one in "qv"}


def test_an_evaluation_changes_nothing(tmp_path: Path) -> None:
    """And it is always on the same rows; what the model writes is not drawn."""
    state = made(tmp_path, lora_dropout=0.3)
    began, place = arrays(state), state.batches.state()

    assert state.evaluate() == state.evaluate()
    assert state.sample(4) == state.sample(4)

    assert (arrays(state), state.batches.state()) == (began, place)
    assert isinstance(state.batches, RowBatches)
