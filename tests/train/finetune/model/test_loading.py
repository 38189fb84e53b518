"""Small models of three families, made from configurations: loaded from a folder, packed, and adapted."""

from pathlib import Path
from typing import Any

import pytest
import torch

from holdwater.errors import ModelError
from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.packing import pack
from holdwater.train.finetune.model.loading import load_model, packed_loss
from holdwater.train.finetune.model.lora import LoraConfig, add_adapters
from holdwater.train.finetune.model.plain_head import has_plain_head
from tests.small_models import FAMILIES, make_model

transformers = pytest.importorskip("transformers", reason="Transformers is not installed")


def rows(*sizes: int) -> list[Example]:
    """Examples of random tokens."""
    torch.manual_seed(1)
    return [Example(torch.randint(2, 300, (size,)).tolist(), [True] * size) for size in sizes]


@pytest.mark.parametrize("family", FAMILIES)
class TestFamilies:
    """The same holds for each."""

    def test_packed_examples_do_not_see_one_another(self, tmp_path: Path, family: str) -> None:
        """The loss of a packed row is the sum of the losses of its examples, one by one, by the model's own logits."""
        loaded = load_model(str(make_model(tmp_path, family)), device="cpu", dtype=torch.float32)
        model, examples = loaded.model.eval(), rows(5, 9, 4)

        together = packed_loss(model, pack([examples[:2], examples[2:]], 16), chunk=7)

        alone = 0.0
        for example in examples:
            tokens = torch.tensor([example.tokens])
            logits = model(tokens).logits[0, :-1]
            alone += torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum").item()
        assert together.item() == pytest.approx(alone, rel=1e-5)

    @pytest.mark.parametrize("whole", [False, True])
    def test_what_is_trained_gets_the_gradients_of_the_plain_loss(
        self, tmp_path: Path, family: str, whole: bool
    ) -> None:
        """Though logits never exist at once; adapters, and all weights."""
        loaded = load_model(str(make_model(tmp_path, family)), device="cpu", dtype=torch.float32)
        loaded.model.eval()  # GPT-2 has dropout
        if not whole:
            add_adapters(loaded.model, LoraConfig(rank=2))
        trained = [weight for weight in loaded.model.parameters() if weight.requires_grad]
        packed = pack([rows(7, 8)], 16)

        packed_loss(loaded.model, packed, chunk=5).backward()  # type: ignore[no-untyped-call]
        found = [weight.grad.clone() for weight in trained if weight.grad is not None]
        for weight in trained:
            weight.grad = None
        logits = loaded.model(
            input_ids=packed.tokens, position_ids=packed.positions, attention_mask=packed.mask()
        ).logits
        torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), packed.targets.flatten(), reduction="sum"
        ).backward()  # type: ignore[no-untyped-call]

        assert len(found) == len(trained)
        for one, weight in zip(found, trained, strict=True):
            torch.testing.assert_close(one, weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "special", "plain"),
    [
        ("Llama", {}, True),
        ("OPT", {}, True),
        ("Granite", {}, True),
        ("Granite", {"logits_scaling": 2.0}, False),
        ("Gemma2", {}, False),
        ("RecurrentGemma", {}, False),
        ("Phi", {}, False),
    ],
)
def test_what_is_more_than_a_product_with_the_head_is_found(
    family: str, special: dict[str, float], plain: bool
) -> None:
    """By trying the model: caps, factors and biases under whatever name; and the model is as it was."""
    config = getattr(transformers, f"{family}Config")(num_hidden_layers=1, **special)
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForCausalLM")(config)
    modules, random = list(model.named_modules()), torch.get_rng_state()

    assert has_plain_head(model) is plain
    assert list(model.named_modules()) == modules
    assert torch.equal(torch.get_rng_state(), random)


class TestMessages:
    """What is wrong with a model is said, each in its own words."""

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        """Nothing is looked up on the hub."""
        with pytest.raises(ModelError, match=r"there is no such folder; name one that holds config\.json"):
            load_model(str(tmp_path / "none"), device="cpu", dtype=torch.float32)

    def test_a_folder_without_a_model(self, tmp_path: Path) -> None:
        """A folder of something else."""
        with pytest.raises(ModelError, match=r"config\.json cannot be read"):
            load_model(str(tmp_path), device="cpu", dtype=torch.float32)

    def test_weights_that_are_no_safetensors(self, tmp_path: Path) -> None:
        """A pickle is not read."""
        make_model(tmp_path, "Llama")
        (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")

        with pytest.raises(ModelError, match=r"holds pytorch_model.bin and no .safetensors"):
            load_model(str(tmp_path), device="cpu", dtype=torch.float32)

    def test_weights_that_are_damaged(self, tmp_path: Path) -> None:
        """A download that was cut short."""
        make_model(tmp_path, "Llama")
        file = tmp_path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])

        with pytest.raises(ModelError, match=r"model.safetensors is damaged"):
            load_model(str(tmp_path), device="cpu", dtype=torch.float32)

    def test_a_folder_without_a_tokenizer(self, tmp_path: Path) -> None:
        """The message says which files are missing."""
        make_model(tmp_path, "Llama")
        for file in tmp_path.glob("*token*"):
            file.unlink()

        with pytest.raises(ModelError, match=r"has no tokenizer that can be read .*; copy tokenizer\.json and"):
            load_model(str(tmp_path), device="cpu", dtype=torch.float32)

    def test_a_model_that_does_not_fit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As the allocator says it."""
        make_model(tmp_path, "Llama")

        def run_out(*_: Any, **__: Any) -> None:
            """Raise as torch does."""
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 16.00 GiB")

        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", run_out)

        with pytest.raises(ModelError, match="does not fit into memory"):
            load_model(str(tmp_path), device="cpu", dtype=torch.float32)

    def test_a_model_that_needs_a_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As the hub says it."""
        make_model(tmp_path, "Llama")
        gated = type("GatedRepoError", (Exception,), {})

        def refuse(*_: Any, **__: Any) -> None:
            """Raise as Transformers does."""
            raise OSError("You are trying to access a gated repo.") from gated("403")

        monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)

        with pytest.raises(ModelError, match="needs a permission: ask for it on the model's page"):
            load_model(str(tmp_path), device="cpu", dtype=torch.float32)
