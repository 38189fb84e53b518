"""Adapters begin as nothing, are all that is trained, and go to PEFT's format and back."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from holdwater.errors import ConfigError, RunFolderError
from holdwater.train.finetune.model.lora import (
    LoraConfig,
    adapter_tensors,
    adapters,
    add_adapters,
    load_adapters,
    merge_adapters,
    save_adapters,
)


class Block(nn.Module):
    """Two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape as it came."""
        down: torch.Tensor = self.down(torch.tanh(self.up(x)))
        return x + down


class Model(nn.Module):
    """Three blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(Block() for _ in range(3))
        self.lm_head = nn.Linear(6, 11, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        for layer in self.layers:
            x = layer(x)
        logits: torch.Tensor = self.lm_head(x)
        return logits


def adapted(config: LoraConfig, *, seed: int | None = None) -> Model:
    """A model with adapters; with a seed these are no longer nothing."""
    model = Model()
    add_adapters(model, config)
    if seed is not None:
        torch.manual_seed(seed)
        for _, module in adapters(model):
            nn.init.normal_(module.lora_B)
    return model


X = torch.linspace(-1, 1, 24).reshape(4, 6)


class TestAdapters:
    """What they are, and where."""

    def test_they_begin_as_nothing(self) -> None:
        """The model gives what it gave."""
        assert torch.equal(adapted(LoraConfig(rank=2))(X), Model()(X))

    def test_only_they_are_trained(self) -> None:
        """All linear layers but the head."""
        model = adapted(LoraConfig(rank=2))

        trained = {name for name, weight in model.named_parameters() if weight.requires_grad}

        assert len(trained) == 12
        assert all("lora_" in name for name in trained)

    @pytest.mark.parametrize(
        ("config", "names"),
        [
            (LoraConfig(targets=("up",)), ["layers.0.up", "layers.1.up", "layers.2.up"]),
            (LoraConfig(layers=1), ["layers.2.up", "layers.2.down"]),
        ],
    )
    def test_some_layers(self, config: LoraConfig, names: list[str]) -> None:
        """By the last part of their names, or by number from the end."""
        assert add_adapters(Model(), config) == names

    def test_more_layers_than_there_are(self, caplog: pytest.LogCaptureFixture) -> None:
        """All of them, and it is said: a profile may be for a deeper model."""
        with caplog.at_level(logging.INFO, "holdwater"):
            assert len(add_adapters(Model(), LoraConfig(layers=4))) == 6

        assert "lora_layers is 4, and 3 layers have such weights: all of these get adapters" in caplog.text

    def test_as_many_layers_as_there_are(self, caplog: pytest.LogCaptureFixture) -> None:
        """Nothing is said; nor of a model that is only planned."""
        with caplog.at_level(logging.INFO, "holdwater"):
            assert len(add_adapters(Model(), LoraConfig(layers=3))) == 6
            assert len(add_adapters(Model().to("meta"), LoraConfig(layers=4))) == 6

        assert not caplog.text

    @pytest.mark.parametrize("targets", [("q_proj",), ("up", "q_proj")])
    def test_a_name_that_no_layer_has(self, targets: tuple[str, ...]) -> None:
        """The message tells which there are; other names do not hide it."""
        with pytest.raises(
            ConfigError, match="lora_targets has q_proj, but the linear layers of this model are down, lm_head, up"
        ):
            add_adapters(Model(), LoraConfig(targets=targets))

    def test_merged_they_give_the_same(self) -> None:
        """To rounding, without an adapter left."""
        model = adapted(LoraConfig(rank=2), seed=1)
        before = model(X)

        merge_adapters(model)

        assert not list(adapters(model))
        torch.testing.assert_close(model(X), before)

    def test_dropout_only_in_training(self) -> None:
        """An evaluation draws nothing."""
        model = adapted(LoraConfig(rank=2, dropout=0.5), seed=1)

        assert not torch.equal(model.train()(X), model(X))
        assert torch.equal(model.eval()(X), model(X))

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"rank": 0}, "lora_rank is 0"),
            ({"dropout": 1}, "lora_dropout is 1"),
            ({"layers": 0}, "lora_layers is 0"),
        ],
    )
    def test_refuses(self, wrong: dict[str, Any], named: str) -> None:
        """With the key and the value."""
        with pytest.raises(ConfigError, match=named):
            LoraConfig(**wrong)


class TestFiles:
    """PEFT's format."""

    def test_there_and_back(self, tmp_path: Path) -> None:
        """Every bit."""
        config = LoraConfig(rank=3, alpha=5)
        model = adapted(config, seed=1)

        save_adapters(model, tmp_path / "adapter", config, base="models/small")
        other = adapted(config)
        load_adapters(other, tmp_path / "adapter")

        assert torch.equal(other(X), model(X))
        text = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        assert (text["r"], text["lora_alpha"], text["target_modules"]) == (3, 5.0, ["down", "up"])

    def test_other_adapters_are_refused(self, tmp_path: Path) -> None:
        """Another rank, and layers that are not adapted."""
        config = LoraConfig(rank=3)
        save_adapters(adapted(config), tmp_path, config, base="x")

        with pytest.raises(RunFolderError, match=r"shape \(3, 6\).* but this model needs shape \(2, 6\)"):
            load_adapters(adapted(LoraConfig(rank=2)), tmp_path)
        with pytest.raises(RunFolderError, match="which this model does not adapt"):
            load_adapters(adapted(LoraConfig(rank=3, targets=("up",))), tmp_path)

    @pytest.mark.parametrize("kind", ["Llama", "GPT2"])
    def test_peft_reads_them(self, tmp_path: Path, kind: str) -> None:
        """A small model of Transformers gives the same logits with PEFT's own loader."""
        transformers = pytest.importorskip("transformers", reason="Transformers is not installed")
        peft = pytest.importorskip("peft", reason="PEFT is not installed")
        settings = (
            {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
            if kind == "Llama"
            else {"n_embd": 32, "n_layer": 2, "n_head": 4}
        )
        config = getattr(transformers, f"{kind}Config")(vocab_size=64, **settings)
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        model.save_pretrained(tmp_path / "base")
        lora = LoraConfig(rank=4, layers=1)
        add_adapters(model, lora)
        for _, module in adapters(model):
            nn.init.normal_(module.lora_B)
        save_adapters(model, tmp_path / "adapter", lora, base=str(tmp_path / "base"))
        tokens = torch.arange(12)[None]

        base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
        read = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")

        torch.testing.assert_close(read(tokens).logits, model(tokens).logits, rtol=1e-5, atol=1e-5)


class Made(TorchDispatchMode):
    """Notes on which devices operations put their results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.copies: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view and func is not torch.ops.aten.detach.default:
            self.copies.append(out.device.type)
        return out


class TestCopies:
    """What a checkpoint is written from."""

    def test_take_no_memory_of_the_device(self) -> None:
        """Copies of all adapters there would be memory that no plan has: they are made on the host."""
        model = adapted(LoraConfig(rank=2))
        with FakeTensorMode():
            for _, module in adapters(model):
                for name in ("lora_A", "lora_B"):
                    weight = torch.empty(getattr(module, name).shape, device="cuda")
                    setattr(module, name, nn.Parameter(weight))

            with Made() as made:
                tensors = adapter_tensors(model)

        assert {tensor.device.type for tensor in tensors.values()} == {"cpu"}
        assert set(made.copies) == {"cpu"}

    def test_are_copies_on_the_host_too(self) -> None:
        """Weights lie in one long tensor, and safetensors refuses memory that is shared."""
        model = adapted(LoraConfig(rank=2), seed=1)

        tensors = adapter_tensors(model)

        places = {weight.data_ptr() for weight in model.parameters()}
        assert not places & {tensor.data_ptr() for tensor in tensors.values()}
