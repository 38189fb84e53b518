"""Checkpoints of `--backend mlx`: adapters that others load, exact resume; and what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdwater.errors import ConfigError, ModelError, RunFolderError
from holdwater.store.checkpoints import CheckpointFolder, read_checkpoint
from tests.small_models import make_model

mx = pytest.importorskip("mlx.core", reason="needs MLX: pip install mlx (on Linux mlx[cpu])")
pytest.importorskip("mlx_lm", reason="needs mlx_lm: pip install mlx-lm")

from mlx_lm.utils import load  # noqa: E402 - after the check that it is there

from holdwater.train.finetune.mlx.adapters import export_peft  # noqa: E402
from holdwater.train.finetune.mlx.loading import load_mlx, read_weights  # noqa: E402
from holdwater.train.finetune.mlx.merging import write_merged  # noqa: E402
from holdwater.train.finetune.mlx.state import MlxTuneState  # noqa: E402
from mlx_trainers import our_losses  # noqa: E402
from tests.small_mlx import arrays, made, settings_of  # noqa: E402


@pytest.fixture
def trained(tmp_path: Path) -> tuple[MlxTuneState, Path]:
    """A state after some steps, and its checkpoint."""
    state = made(tmp_path, learning_rate=0.02)
    our_losses(state)
    state.step = 8
    return state, state.save(CheckpointFolder(tmp_path / "run"), best=True)


def logits(model: Any) -> Any:
    """What a model makes of some tokens."""
    return np.array(model(mx.array([[5, 9, 200, 7]])))


class TestCheckpoints:
    """Adapters that others load, and all that a run goes on with."""

    def test_mlx_lm_loads_the_adapters(self, trained: tuple[MlxTuneState, Path], tmp_path: Path) -> None:
        """They give the logits of the model in training."""
        state, checkpoint = trained

        model = load(str(tmp_path / "model"), adapter_path=str(checkpoint))[0]

        assert np.abs(logits(model) - logits(load_mlx(str(tmp_path / "model")).model)).max() > 1e-3
        assert (logits(model) == logits(state.loaded.model)).all()

    def test_peft_loads_what_is_exported(self, trained: tuple[MlxTuneState, Path], tmp_path: Path) -> None:
        """With the same logits by PyTorch."""
        peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
        state, checkpoint = trained

        export_peft(checkpoint, tmp_path / "peft")

        base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        model = peft.PeftModel.from_pretrained(base, tmp_path / "peft")
        with torch.no_grad():
            found = model(torch.tensor([[5, 9, 200, 7]])).logits.numpy()
        assert found == pytest.approx(logits(state.loaded.model), abs=1e-4)

    def test_what_is_no_adapter_is_not_exported(self, tmp_path: Path) -> None:
        """The message says what to name."""
        with pytest.raises(RunFolderError, match="name a checkpoint"):
            export_peft(tmp_path, tmp_path / "peft")

    def test_merged_weights_are_a_whole_model(self, trained: tuple[MlxTuneState, Path], tmp_path: Path) -> None:
        """For `mlx_lm` and for Transformers; a folder that is there is not touched."""
        transformers = pytest.importorskip("transformers")
        state, checkpoint = trained

        write_merged(str(tmp_path / "model"), checkpoint, tmp_path / "merged")

        expected = logits(state.loaded.model)
        assert logits(load(str(tmp_path / "merged"))[0]) == pytest.approx(expected, abs=1e-4)
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        with torch.no_grad():
            found = model(torch.tensor([[5, 9, 200, 7]])).logits.numpy()
        assert found == pytest.approx(expected, abs=1e-4)
        with pytest.raises(RunFolderError, match="is there already"):
            write_merged(str(tmp_path / "model"), checkpoint, tmp_path / "merged")

    def test_a_run_goes_on_exactly(self, tmp_path: Path) -> None:
        """Weights, moments, dropout and the order of examples."""
        straight = made(tmp_path, lora_dropout=0.1)
        first = our_losses(straight)
        straight.step = 8
        checkpoint = read_checkpoint(straight.save(CheckpointFolder(tmp_path / "run"), best=False))
        expected = our_losses(straight)

        resumed = made(tmp_path, lora_dropout=0.1)
        remarks = resumed.load(checkpoint)

        assert remarks == []
        assert resumed.step == 8
        assert our_losses(resumed) == expected != first
        assert arrays(resumed) == arrays(straight)

    def test_a_checkpoint_of_other_settings_is_refused(self, tmp_path: Path) -> None:
        """It belongs to another run."""
        state = made(tmp_path)
        checkpoint = read_checkpoint(state.save(CheckpointFolder(tmp_path / "run"), best=False))

        with pytest.raises(RunFolderError, match="lora_rank = 4"):
            made(tmp_path, lora_rank=8).load(checkpoint)

    def test_what_is_not_finite_is_named(self, tmp_path: Path) -> None:
        """Trained weights and moments."""
        state = made(tmp_path)
        assert not state.first_non_finite()

        state.taken.put_weights({"model.layers.1.mlp.up_proj.lora_b": mx.full((4, 64), float("nan"))})

        assert state.first_non_finite() == "model.layers.1.mlp.up_proj.lora_b"


class TestRefused:
    """What makes no sense, by name."""

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            ({"lora_rank": 0}, "lora_rank is 0, but --backend mlx trains adapters only; write"),
            ({"adapt_vision": "yes"}, "adapt_vision is yes, but it is for pictures"),
            ({"vision_cache": "1GB"}, "vision_cache is 1000000000, but"),
            ({"device": "cuda"}, "device is cuda, but --backend mlx uses Metal"),
            ({"threads": 2}, "threads is 2, but it counts PyTorch's threads"),
            ({"gradient_checkpointing": "yes", "lora_dropout": 0.1}, "lora_dropout is 0.1, but layers"),
            ({"gradient_checkpointing": "yes", "backend": "torch"}, "gradient_checkpointing is yes, but the plan"),
        ],
    )
    def test_settings_that_cannot_be_followed(self, tmp_path: Path, flags: dict[str, Any], said: str) -> None:
        """The message says why."""
        with pytest.raises(ConfigError, match=said):
            settings_of(tmp_path, **flags)

    @pytest.mark.parametrize(("module", "package"), [("mlx.core", "mlx"), ("mlx_lm", "mlx_lm")])
    def test_what_is_not_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
    ) -> None:
        """The message says what to install."""
        monkeypatch.setitem(sys.modules, module, None)

        with pytest.raises(
            ConfigError, match=f"needs {package}, which cannot be imported.*pip install mlx mlx-lm"
        ):
            settings_of(tmp_path)

    def test_models_with_code_of_their_own(self, tmp_path: Path) -> None:
        """It is not run."""
        folder = make_model(tmp_path / "model", "Llama")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_file": "model.py"}))

        with pytest.raises(ModelError, match="code of its own"):
            load_mlx(str(folder))

    def test_models_that_mlx_lm_does_not_have(self, tmp_path: Path) -> None:
        """By the name of the family."""
        folder = make_model(tmp_path / "model", "Llama")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama7"}))

        with pytest.raises(ModelError, match="llama7"):
            load_mlx(str(folder))

    def test_layers_that_no_block_has(self, tmp_path: Path) -> None:
        """Those that there are come in the message."""
        with pytest.raises(ConfigError, match=r"lora_targets has w_proj, but .* down_proj, gate_proj"):
            made(tmp_path, lora_targets="q_proj,w_proj")

    def test_bits_that_the_model_is_not_stored_in(self, tmp_path: Path) -> None:
        """A model in 8 bits is not made one in 4."""
        make_model(tmp_path / "model", "Llama")
        loaded = load_mlx(str(tmp_path / "model"))
        loaded.config["quantization"] = {"bits": 8, "group_size": 64}

        read_weights(loaded, 8)
        with pytest.raises(ConfigError, match="quantize is 4, but the model is stored in 8 bits"):
            read_weights(loaded, 4)
