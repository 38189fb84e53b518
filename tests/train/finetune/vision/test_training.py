"""Fine-tuning on examples with pictures, as `holdwater train` makes it, with small models."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from holdwater.errors import ConfigError, DataError
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.model.lora import adapters
from holdwater.train.finetune.model.merging import write_merged
from holdwater.train.finetune.vision import backend as backend_module
from holdwater.train.finetune.vision.backend import CapturedVisionBackend
from holdwater.train.finetune.vision.cache import FeatureCache
from holdwater.train.finetune.vision.corpus import PictureCorpus
from holdwater.train.finetune.vision.examples import PassedOver
from holdwater.train.finetune.vision.loading import load_to_merge
from holdwater.train.finetune.vision.packing import PackedPictures
from holdwater.train.finetune.vision.passed_over import PassedOverExamples
from holdwater.train.finetune.vision.state import VisionState, held_out_batches, new_vision_tuning
from holdwater.train.finetune.vision.tower_setup import Sampled, sample
from holdwater.train.loop import recovering_step
from holdwater.units import Bytes
from tests.small_vision_models import FAMILIES, make_vision_model
from tests.vision_runs import learn, settings_of

pytest.importorskip("transformers", reason="Transformers is not installed")
image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

COLOURS = ("red", "blue", "green")
LENGTH = 160


def write_rows(folder: Path, count: int = 24, *, spoil: Callable[[Path, int], None] | None = None) -> Path:
    """Examples with a picture each, but for every fifth; some pictures may be spoilt."""
    (folder / "pictures").mkdir()
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            path = folder / "pictures" / f"{number}.png"
            image.new("RGB", (40 + 3 * number, 90 - 2 * number), COLOURS[number % 3]).save(path)
            if spoil is not None:
                spoil(path, number)
            parts = [{"type": "text", "text": "what is in this picture?"}]
            if number % 5:
                parts.insert(0, {"type": "image", "image": f"pictures/{number}.png"})
            answer = {"role": "assistant", "content": f"a {COLOURS[number % 3]} square"}
            file.write(json.dumps({"messages": [{"role": "user", "content": parts}, answer]}) + "\n")
    return folder / "rows.jsonl"


def made(folder: Path, family: str = "smolvlm", **flags: Any) -> VisionState:
    """A state from flags; the model and the examples are made where they are not there yet."""
    if not (folder / family).exists():
        make_vision_model(folder / family, family)
    if not (folder / "rows.jsonl").exists():
        write_rows(folder)
    settings = settings_of(folder, family, length=LENGTH, **flags)
    assert settings.tuning is not None
    return new_vision_tuning(settings, settings.tuning)


class TestSteps:
    """What a step learns from, and what it keeps."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_loss_falls(self, tmp_path: Path, family: str) -> None:
        """In each family, whose towers stay as they were."""
        state = made(tmp_path, family)
        frozen = {
            name: one.clone() for name, one in state.loaded.model.named_parameters() if not one.requires_grad
        }

        losses = learn(state, 16)

        assert sum(losses[-3:]) < 0.97 * sum(losses[:3])
        assert all(
            torch.equal(one, dict(state.loaded.model.named_parameters())[name]) for name, one in frozen.items()
        )
        assert all("vision" not in name and "visual" not in name for name, _ in adapters(state.loaded.model))

    def test_pictures_are_let_go_of(self, tmp_path: Path) -> None:
        """When their features are made."""
        state = made(tmp_path)
        batch = state.batches.draw("cpu")
        assert isinstance(batch, PackedPictures)
        placed = [one for row in batch.pictures for one in row]
        assert placed
        assert all(one.inputs is not None for one in placed)

        state.propagate(batch, 1.0)

        assert all(one.inputs is None for one in placed)

    def test_kept_features_change_nothing(self, tmp_path: Path) -> None:
        """In memory or in a folder, filled by this run or by an earlier one; to the bit."""
        write_rows(tmp_path, 8)
        plain = learn(made(tmp_path), 7)
        state = made(tmp_path, vision_cache="50MB")
        in_memory = learn(state, 7)
        folder = {"vision_cache": "50MB", "vision_cache_folder": str(tmp_path / "features")}
        first, second = learn(made(tmp_path, **folder), 7), made(tmp_path, **folder)

        assert plain == in_memory == first == learn(second, 7)
        assert state.epochs > 1
        assert "100.0 % hits" in second.remarks

    @pytest.mark.parametrize(
        ("family", "parts"),
        [
            ("smolvlm", {"text_model", "vision_model", "connector"}),
            ("gemma3", {"language_model", "vision_tower"}),  # its projector is no layer
        ],
    )
    def test_a_tower_that_learns(self, tmp_path: Path, family: str, parts: set[str]) -> None:
        """Gets adapters when that is asked for, and gradients; a head that no feature goes through gets none."""
        state = made(tmp_path, family, adapt_vision="yes", adapt_projector="yes")
        names = [name for name, _ in adapters(state.loaded.model)]
        if family == "gemma3":  # its projector begins with zeros
            torch.nn.init.normal_(state.loaded.model.model.multi_modal_projector.mm_input_projection_weight)

        learn(state, 2)

        assert {name.split(".")[1] for name in names} == parts
        assert [name for name, one in adapters(state.loaded.model) if not one.lora_B.any()] == []

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            ({"adapt_vision": "yes", "vision_cache": "1GB"}, "adapt_vision changes the features"),
            ({"vision_cache_folder": "x"}, "no size is given"),
            ({"lora_rank": 0}, "only adapters are trained"),
            ({"lora_targets": "nothing"}, "the linear layers of this model are"),
        ],
    )
    def test_settings_that_contradict_one_another(self, tmp_path: Path, flags: dict[str, Any], said: str) -> None:
        """Are refused."""
        with pytest.raises(ConfigError, match=said):
            made(tmp_path, **flags)


class TestCheckpoints:
    """They are adapters of PEFT, and a run goes on from them to the bit."""

    @pytest.mark.parametrize("family", ["smolvlm", "qwen2_5_vl"])
    def test_load_in_peft(self, tmp_path: Path, family: str) -> None:
        """With the same logits as here, and as the merged model's."""
        peft = pytest.importorskip("peft", reason="PEFT is not installed")
        import transformers

        state = made(tmp_path, family, lora_layers=1)
        learn(state, 3)
        folder = state.save(CheckpointFolder(tmp_path / "checkpoints"), best=True)
        tokens = torch.arange(50, 70)[None]
        wanted = state.loaded.model.eval()(input_ids=tokens).logits

        base = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / family, dtype=torch.float32)
        write_merged(str(tmp_path / family), folder, tmp_path / "merged", load=load_to_merge)
        merged = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype=torch.float32)
        loaded = peft.PeftModel.from_pretrained(base, str(folder)).eval()

        torch.testing.assert_close(loaded(input_ids=tokens).logits, wanted, rtol=1e-4, atol=1e-5)
        assert (tmp_path / "merged" / "preprocessor_config.json").is_file()
        torch.testing.assert_close(merged.eval()(input_ids=tokens).logits, wanted, rtol=1e-4, atol=1e-5)

    def test_go_on_to_the_bit(self, tmp_path: Path) -> None:
        """At the same example, though others were decoded ahead."""
        state = made(tmp_path)
        learn(state, 5)
        folder = CheckpointFolder(tmp_path / "checkpoints")
        state.save(folder, best=True)
        straight = learn(state, 8)

        other = made(tmp_path)
        newest = folder.newest(print)
        assert newest is not None
        other.load(newest)

        assert learn(other, 8) == straight


def truncate(path: Path, number: int) -> None:
    """Cut the seventh and the eighth picture: one in its pixels, one in its header."""
    if number in {6, 7}:
        path.write_bytes(path.read_bytes()[: 60 if number == 6 else 10])


class TestBadPictures:
    """Named with their row, or passed over and counted."""

    def test_end_a_run_by_name(self, tmp_path: Path) -> None:
        """Those whose header shows it before the run, the others at their turn."""
        write_rows(tmp_path, spoil=truncate)
        state = made(tmp_path)

        with pytest.raises(DataError, match=r"example 8.*7\.png"):
            state.check_data()
        with pytest.raises(DataError, match=r"example [78].*[67]\.png.*--bad-pictures skip"):
            learn(state, 20)

    def test_are_passed_over(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """And the run is the same as if their rows had not been there, but for the order."""
        write_rows(tmp_path, spoil=truncate)
        state = made(tmp_path, bad_pictures="skip", validation_share=0.04)
        state.check_data()

        learn(state, 25)

        said = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
        assert len(said) == 2
        assert {line.split("example ")[1][0] for line in said} == {"7", "8"}
        assert state.epochs > 1
        assert "examples were passed over for their pictures" in state.remarks

    def test_are_named_once_in_a_run(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A later process of the run names only those that it meets first; their file has all of them."""
        write_rows(tmp_path, spoil=truncate)
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        file = tmp_path / "run" / "passed-over.jsonl"
        file.write_text('{"example": 7, "reason": "cut short"}\n{"exam', encoding="utf-8")

        learn(made(tmp_path, bad_pictures="skip"), 14)
        learn(made(tmp_path, bad_pictures="skip"), 14)

        said = [record.getMessage() for record in caplog.records if "passed over:" in record.getMessage()]
        assert [line.split("example ")[1][0] for line in said] == ["8"]

    def test_names_of_a_run_that_was_refused_do_not_count(self, tmp_path: Path) -> None:
        """Its folder holds no run, and the next one begins there."""
        (tmp_path / "passed-over.jsonl").write_text('{"example": 7, "reason": "cut short"}\n', encoding="utf-8")
        passed_over = PassedOverExamples(tmp_path)

        passed_over.name(6, "example 7: it is empty")

        assert "it is empty" in (tmp_path / "passed-over.jsonl").read_text(encoding="utf-8")

    @pytest.mark.parametrize("kept", [False, True])
    def test_what_was_decoded_in_vain_is_let_go_of(self, tmp_path: Path, kept: bool) -> None:
        """The other pictures of an example that is passed over, and those whose features were kept meanwhile."""
        write_rows(tmp_path, spoil=lambda path, number: None if kept else truncate(path, number))
        row = {"images": ["pictures/6.png", "pictures/9.png"], "prompt": "what?", "completion": "two"}
        (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" + '{"text": "plain"}\n' * 3, encoding="utf-8")
        corpus = made(tmp_path, bad_pictures="skip").corpus
        assert isinstance(corpus, PictureCorpus)
        corpus.forget()
        corpus.expect([0])
        corpus._is_kept = lambda _: kept

        if kept:
            assert corpus[0].tokens
        else:
            with pytest.raises(PassedOver):
                corpus[0]

        corpus._prefetcher.close()
        assert (corpus._prefetcher._held, dict(corpus._prefetcher._jobs)) == (0, {})

    def test_pictures_that_would_be_cut_are_refused(self, tmp_path: Path) -> None:
        """With what to do."""
        with pytest.raises(DataError, match=r"example \d+: its pictures end at token \d+, but a row has 30"):
            made(tmp_path, train_seq_length=30)


class TestSamples:
    """Text that the model writes of a held-out picture."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_begin_with_the_question(self, tmp_path: Path, family: str) -> None:
        """And go on behind the arrow."""
        state = made(tmp_path, family)

        begin, written = state.sample(4).split(" → ")

        assert "what is in this picture?" in begin
        assert len(written) > 0
        assert state.evaluate() == state.evaluate()


def captured(
    state: VisionState, sampled: Sequence[Sampled] = (), cache: FeatureCache | None = None, **how: Any
) -> CapturedVisionBackend:
    """Static steps of a model: fused, but for Gemma 3 by its own code."""
    settings = state.settings
    where = WeightPlacement("cpu", state.tuning.quantize)
    step = StepPlan(**{"rows": settings.batch_size, **how})
    return CapturedVisionBackend(
        state.loaded.model, settings, state.family, where, step, cache=cache, sampled=sampled
    )


class TestCapturedSteps:
    """Steps whose addresses never change, which a CUDA device captures; here they run eagerly."""

    @pytest.mark.parametrize("several", [False, True])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_learn_the_same(self, tmp_path: Path, family: str, several: bool) -> None:
        """As eager steps, on batches with many pictures, few and none, which may share passes of the tower."""
        eager, static = made(tmp_path, family), made(tmp_path, family)
        settings = static.settings
        sampled = sample(cast("PictureCorpus", static.corpus), range(24)) if several else []
        static.backend = backend = captured(static, sampled)
        assert (backend.tower is not None) == several

        wanted, found = learn(eager, 6), learn(static, 6)

        assert found == pytest.approx(wanted, rel=1e-5)
        batch = held_out_batches(eager.held_out, settings).draw()
        assert static.backend.evaluate(batch) == pytest.approx(
            eager.backend.evaluate(held_out_batches(eager.held_out, settings).draw()), rel=1e-5
        )
        assert ("padding" in backend.features.remark) == several

    @pytest.mark.parametrize("evaluated", [False, True])
    def test_make_features_while_the_device_works(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluated: bool
    ) -> None:
        """Once for each step, before it begins; an evaluation between two steps changes nothing but the work."""
        wanted, state = learn(made(tmp_path), 6), made(tmp_path)
        state.backend = backend = captured(state)
        placed: list[PackedPictures] = []
        place = backend._place

        def noting(packed: PackedPictures) -> None:
            """Note which features are made."""
            placed.append(packed)
            place(packed)

        monkeypatch.setattr(backend, "_place", noting)

        found = []
        for number in range(6):
            found += learn(state, 1)
            assert state.batches._waiting[0].pictures == placed[-1].pictures
            if evaluated and number % 2:
                state.evaluate()

        assert found == pytest.approx(wanted, rel=1e-5)
        assert evaluated or len(placed) == 7

    def test_survive_a_lack_of_memory_ahead(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the features of the next step are made: this step has been taken, and the next one makes them."""
        wanted, state = learn(made(tmp_path), 4), made(tmp_path)
        state.backend = backend = captured(state)
        place, calls = backend._place, iter([None, torch.OutOfMemoryError("out of memory"), None, None])

        def failing(packed: PackedPictures) -> None:
            """Fail at the second call."""
            error = next(calls, None)
            if error is not None:
                raise error
            place(packed)

        monkeypatch.setattr(backend, "_place", failing)

        assert learn(state, 4) == pytest.approx(wanted, rel=1e-5)

    @pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
    def test_learn_the_same_whatever_is_kept(self, tmp_path: Path, family: str) -> None:
        """To the bit, although other pictures share passes of the tower then."""
        losses, part, whole = [], FeatureCache(Bytes(10_000)), FeatureCache(Bytes(10_000_000))
        for cache in (None, part, part, whole, whole):
            state = made(tmp_path, family, vision_cache=Bytes(10_000_000))
            sampled = sample(cast("PictureCorpus", state.corpus), range(24))
            state.backend = backend = captured(state, sampled, cache)
            assert backend.tower is not None
            losses.append(learn(state, 6))

        assert losses == [losses[0]] * 5
        assert part.misses > whole.misses
        assert part.hits > 0

    @pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm"])
    def test_learn_the_same_by_their_own_code(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
    ) -> None:
        """Where the kernels do not know a model."""
        eager, static = made(tmp_path, family), made(tmp_path, family)
        monkeypatch.setattr(backend_module, "why_not", lambda *_, **__: "not known")
        static.backend = backend = captured(static)

        assert not backend.fused
        assert learn(static, 6) == pytest.approx(learn(eager, 6), rel=1e-5)

    @pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
    def test_learn_the_same_in_parts_that_are_computed_again(self, tmp_path: Path, family: str) -> None:
        """As a plan may choose where memory is short."""
        eager, static = made(tmp_path, family), made(tmp_path, family)
        static.backend = captured(static, rows=1, recomputed=2)
        static.micro_batch = 1

        def step(state: VisionState) -> float:
            """One step, in as many micro-batches as its state says."""
            state.rate = 1e-2
            loss: float = recovering_step(state.settings, state).take([state.batches.draw("cpu")])
            state.step += 1
            return loss

        assert [step(static) for _ in range(4)] == pytest.approx([step(eager) for _ in range(4)], rel=1e-5)

    @pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm"])
    def test_learn_with_weights_in_few_bits(self, tmp_path: Path, family: str) -> None:
        """Fused on the CPU too; in 8 bits nearly the same as whole, and they write."""
        whole, few = made(tmp_path, family), made(tmp_path, family, quantize=8)

        assert isinstance(few.backend, CapturedVisionBackend)
        assert few.backend.fused
        assert learn(few, 6) == pytest.approx(learn(whole, 6), rel=2e-2)
        assert few.sample(5)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_write_the_same(self, tmp_path: Path, family: str) -> None:
        """Fused steps by kept keys and values, with positions in three dimensions."""
        state = made(tmp_path, family)
        wanted = state.sample(9)
        state.backend = backend = captured(state)

        assert backend.fused == (family != "gemma3")
        assert state.sample(9) == wanted
