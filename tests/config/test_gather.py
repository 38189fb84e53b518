"""The configuration: one from many sources, all mistakes at once, nothing ignored in silence."""

import json
from pathlib import Path

import pytest
import yaml

from holdwater.config import choose_profile, gather, load_profile
from holdwater.config.profile import NAMES, size_of
from holdwater.errors import ConfigError, SeveralConfigErrors
from holdwater.units import Bytes


def config_file(folder: Path, text: str) -> Path:
    """Write a YAML file."""
    path = folder / "train.yaml"
    path.write_text(text, encoding="utf-8")
    return path


class TestGather:
    """Later sources win."""

    def test_flags_beat_the_environment_beats_the_file_beats_defaults(self, tmp_path: Path) -> None:
        """And each value knows where it comes from."""
        file = config_file(tmp_path, "steps: 10\nbatch_size: 20\nseed: 30\n")

        config = gather(
            flags={"steps": "1"}, environment={"HOLDWATER_STEPS": "2", "HOLDWATER_BATCH_SIZE": "3"}, file=file
        )

        assert (config["steps"], config["batch_size"], config["seed"], config["level"]) == (1, 3, 30, "byte")
        assert config.origins["steps"] == "--steps"
        assert config.origins["batch_size"] == "HOLDWATER_BATCH_SIZE"
        assert config.origins["seed"].endswith("train.yaml: seed")
        assert config.origins["level"] == "default"

    def test_understands_keys_under_training(self, tmp_path: Path) -> None:
        """The older form of config files."""
        file = config_file(
            tmp_path,
            "training:\n  memory_leak_threshold_mb: 2.5\n  memory_threshold_percentage: 70\n"
            "  periodic_cache_clear_interval: 50\nmax_memory: 70\n",
        )

        config = gather(flags={}, environment={}, file=file)

        assert config["memory_leak_threshold_mb"] == 2.5e6
        assert config["memory_threshold_percentage"] == 0.7
        assert config["periodic_cache_clear_interval"] == 50
        assert config["max_memory"] == 70_000_000_000

    def test_reports_all_mistakes_at_once(self, tmp_path: Path) -> None:
        """Three in the file, one in the environment, one flag: five lines, each with its place."""
        file = config_file(tmp_path, "steps: many\nstep: 5\nmemory_threshold_percentage: 180\n")

        with pytest.raises(SeveralConfigErrors) as caught:
            gather(flags={"max_memory": "3XB"}, environment={"HOLDWATER_SEED": "-1"}, file=file)

        text = str(caught.value)
        assert len(caught.value.mistakes) == 5
        assert "steps is 'many', but it needs a whole number" in text
        assert "step is unknown; did you mean steps?" in text
        assert "memory_threshold_percentage is 180, but it must be above 0 and at most 100" in text
        assert "HOLDWATER_SEED is '-1', but it must be 0 or more" in text
        assert "--max-memory is '3XB', but '3XB' has the unknown unit 'XB'" in text

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("steps: [1\n", "is not YAML"),
            ("- steps\n", "must hold keys and values"),
            ("training: 5\n", "must hold keys and values"),
            ("steps: 1\ntraining:\n  steps: 2\n", "both at the top level and under training"),
        ],
    )
    def test_refuses_a_file_of_another_form(self, tmp_path: Path, text: str, words: str) -> None:
        """One message, no traceback."""
        with pytest.raises(SeveralConfigErrors, match=words):
            gather(flags={}, environment={}, file=config_file(tmp_path, text))

    def test_names_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        """With its path."""
        with pytest.raises(SeveralConfigErrors, match=r"no\.yaml does not exist"):
            gather(flags={}, environment={}, file=tmp_path / "no.yaml")

    def test_what_was_resolved_can_be_read_again(self, tmp_path: Path) -> None:
        """`config.yaml` of a run gives the same run."""
        flags = {
            "max_memory": "1.5GB",
            "memory_leak_threshold_mb": "2",
            "steps": "7",
            "out": "a b",
            "data": "*.txt",
        }
        first = gather(flags=flags, environment={})

        second = gather(flags={}, environment={}, file=config_file(tmp_path, first.as_yaml()))

        assert first.values == second.values
        assert "steps: 7  # --steps" in first.as_yaml()


class TestProfiles:
    """Hardware profiles, by name or by the machine."""

    @pytest.mark.parametrize("name", NAMES)
    def test_each_is_whole(self, name: str) -> None:
        """A size, a kind, and rows for fine-tuning."""
        profile = load_profile(name)

        assert str(profile.memory // 10**9) in name
        assert (profile.kind == "gpu") == name.startswith("gpu")
        assert {"lora_rank", "lora_layers", "batch_size", "train_seq_length"} <= set(profile.models["1b"])

    @pytest.mark.parametrize(
        ("model", "row"),
        [("meta/Llama-3.1-8B", "8b"), ("Qwen2.5-14B-Instruct", "14b"), ("some-7b", "8b"), ("nobody/knows", None)],
    )
    def test_a_model_gets_the_row_of_its_size(self, model: str, row: str | None) -> None:
        """By its name, where there is no configuration to read."""
        profile = load_profile("gpu_80gb")

        assert profile.row(model, "small") == ({} if row is None else profile.models[row])
        assert profile.row(None, "small") == profile.presets["small"]

    def test_the_size_of_a_model_is_read_from_its_configuration(self, tmp_path: Path) -> None:
        """Llama-3.1-8B's own numbers."""
        numbers = {
            "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 128256,
        }  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(numbers))

        assert size_of(str(tmp_path)) == pytest.approx(8.03, abs=0.01)

    @pytest.mark.parametrize(
        ("memory", "gpu", "name"),
        [
            (25, False, "base_16gb"),
            (15, False, "base_16gb"),
            (66, False, "max_64gb"),
            (85, True, "gpu_80gb"),
            (500, False, "ultra_192gb"),
            (143, True, "gpu_141gb"),
        ],
    )
    def test_the_largest_that_fits_is_chosen(self, memory: float, gpu: bool, name: str) -> None:
        """A machine sold as 16 GB shows a little less."""
        profile = choose_profile(Bytes(int(memory * 10**9)), gpu=gpu)

        assert profile is not None
        assert profile.name == name

    def test_none_fits_a_machine_that_is_too_small(self) -> None:
        """8 GB is below the smallest."""
        assert choose_profile(Bytes(8 * 10**9), gpu=False) is None

    def test_its_rows_are_defaults(self) -> None:
        """They yield to the file and to flags, and say where they come from."""
        profile = load_profile("gpu_80gb")

        config = gather(flags={"train_seq_length": "128"}, environment={}, profile=profile)

        assert (config["batch_size"], config["train_seq_length"]) == (64, 128)
        assert config.origins["batch_size"] == "profile gpu_80gb"

    def test_an_unknown_one_is_refused_with_the_names(self) -> None:
        """The message lists what there is."""
        with pytest.raises(ConfigError, match=r"gpu_999gb.*base_16gb"):
            load_profile("gpu_999gb")

    def test_a_short_name_stands_for_a_model(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Known ones, and those of a profile; a folder of that name comes first."""
        monkeypatch.chdir(tmp_path)
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"memory": "10GB", "kind": "gpu", "names": {"ours": "we/ours-8b"}}))
        profile = load_profile(str(path))

        def model(name: str) -> str:
            """As it is resolved."""
            return str(gather(flags={"model": name}, environment={}, profile=profile)["model"])

        assert model("llama-8b") == "meta-llama/Llama-3.1-8B"
        assert model("ours") == "we/ours-8b"
        assert model("somebody/else") == "somebody/else"
        (tmp_path / "llama-8b").mkdir()
        assert model("llama-8b") == "llama-8b"

    def test_a_file_of_the_same_form_is_read(self, tmp_path: Path) -> None:
        """Anybody may write one; a wrong key is named."""
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"memory": "10GB", "kind": "gpu", "presets": {"tiny": {"batch": 3}}}))

        with pytest.raises(ConfigError, match="unknown key batch"):
            load_profile(str(path))
