"""The flags of the commands: one table, one set of bounds and help texts."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from holdwater.config import gather, load_profile
from holdwater.config.flags import add_flags, keys_of, read_flags
from holdwater.config.keys import Command
from holdwater.errors import SeveralConfigErrors
from holdwater.units import Bytes


def parsed(command: Command, *words: str) -> argparse.Namespace:
    """A command line with the flags of a command."""
    parser = argparse.ArgumentParser()
    add_flags(parser, command)
    return parser.parse_args(words)


class TestFlags:
    """What a flag takes does not depend on the command."""

    def test_read_values_of_each_kind(self) -> None:
        """A number of steps, a size, seconds."""
        options = parsed("run", "--reload-interval", "1_000", "--reload-threshold", "0.3", "--hang-timeout", "7.5")

        values = read_flags(options, "run")

        assert values["reload_interval_steps"] == 1000
        assert values["reload_memory_threshold_gb"] == 300_000_000
        assert values["hang_timeout"] == 7.5

    def test_have_defaults_by_command(self) -> None:
        """A script is saved every five minutes, our own training every 1000 steps."""
        values = read_flags(parsed("run"), "run")

        assert (values["checkpoint_interval"], values["keep_checkpoints"], values["max_restarts"]) == (
            None,
            3,
            1000,
        )
        assert gather(flags={}, environment={})["checkpoint_interval"] == 1000

    def test_report_all_mistakes_at_once(self) -> None:
        """Each names the flag, its value, and what to write."""
        options = parsed("run", "--reload-interval", "0", "--max-memory", "3XB", "--hang-timeout", "soon")

        with pytest.raises(SeveralConfigErrors) as caught:
            read_flags(options, "run")

        assert len(caught.value.mistakes) == 3
        assert "--reload-interval is '0', but it must be 1 or more" in str(caught.value)
        assert "--max-memory is '3XB', but '3XB' has the unknown unit 'XB'" in str(caught.value)
        assert "--hang-timeout is 'soon', but it needs a number, such as 600" in str(caught.value)

    def test_refuse_the_same_in_every_command(self) -> None:
        """`train` reads them as `run` does."""
        wrong = {"reload_interval_steps": "0", "max_restarts": "-1", "keep_checkpoints": "none"}
        options = argparse.Namespace(**{key.name: wrong.get(key.name) for key in keys_of("run")})

        with pytest.raises(SeveralConfigErrors) as in_run:
            read_flags(options, "run")
        with pytest.raises(SeveralConfigErrors) as in_train:
            gather(flags=wrong, environment={})

        assert sorted(in_run.value.mistakes) == sorted(in_train.value.mistakes)

    def test_watch_has_budgets_and_what_it_judges_by(self) -> None:
        """It replaces nothing."""
        words = ("--max-memory", "2GB", "--fail-on", "leak, over-budget", "--least", "1kB")

        assert read_flags(parsed("watch", *words), "watch") == {
            "max_memory": 2_000_000_000,
            "max_host_memory": None,
            "fail_on": ("leak", "over-budget"),
            "least": 1000.0,
        }

    def test_fail_on_names_what_there_is(self) -> None:
        """All mistakes at once, each with what could be written."""
        with pytest.raises(SeveralConfigErrors) as caught:
            read_flags(parsed("run", "--fail-on", "leak,fire", "--least", "1MB/epoch"), "run")

        assert "--fail-on is 'leak,fire', but it must be some of leak,warming,fragmentation,over-budget" in str(
            caught.value
        )
        assert "write a rate per step" in str(caught.value)

    def test_are_shown_in_groups_and_only_where_they_are_used(self) -> None:
        """`plan` takes all flags of `train`, so that one command line serves both, and shows its own."""
        parser = argparse.ArgumentParser()
        add_flags(parser, "plan", also="train")
        shown = parser.format_help()

        assert parser.parse_args(["--learning-rate", "0.1"]).learning_rate == "0.1"
        assert "--learning-rate" not in shown
        assert "--train-seq-length" in shown
        assert "adapters:" in shown
        assert "evaluation:" not in shown

    def test_load_nothing_that_takes_time(self) -> None:
        """`holdwater run` starts a script: no YAML, no numpy, no detectors before it."""
        code = "import sys, holdwater.cli.run; print(*[n for n in ('yaml', 'numpy', 'rich') if n in sys.modules])"

        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

        assert loaded.split() == []


class TestWrittenConfiguration:
    """What a run was started with can be read again when it is resumed."""

    def test_keeps_sizes_rates_and_shares(self) -> None:
        """A bare number would be read in GB."""
        given = {
            "reload_memory_threshold_gb": "300MB",
            "max_memory": "2GB",
            "memory_leak_threshold_mb": "2",
            "memory_threshold_percentage": "70",
        }
        given |= {"fail_on": "leak,warming", "least": "1kB"}
        config = gather(flags=given, environment={})
        written = dict(line.split("  #")[0].split(": ") for line in config.as_yaml().splitlines())

        again = gather(flags={name: written[name] for name in given}, environment={})

        assert again["reload_memory_threshold_gb"] == Bytes(300_000_000)
        assert {name: again[name] for name in given} == {name: config[name] for name in given}


class TestDefaultsOfFineTuning:
    """They are not those of a small model from scratch."""

    def test_are_used_where_a_model_is_named(self) -> None:
        """Rows of 2,048 tokens, no decay of adapters, and a lower learning rate; lower again for all weights."""
        names = ("train_seq_length", "learning_rate", "weight_decay")
        scratch, tuned, whole, given = (
            gather(flags=flags, environment={})
            for flags in (
                {},
                {"model": "some/model"},
                {"model": "some/model", "lora_rank": "0"},
                {"model": "some/model", "train_seq_length": "64", "learning_rate": "0.001", "weight_decay": "0.1"},
            )
        )

        assert [scratch[name] for name in names] == [64, 1e-3, 0.1]
        assert [tuned[name] for name in names] == [2048, 2e-4, 0.0]
        assert [whole[name] for name in names] == [2048, 1e-5, 0.0]
        assert [given[name] for name in names] == [64, 1e-3, 0.1]

    def test_end_at_the_positions_of_the_model(self, tmp_path: Path) -> None:
        """One with fewer than 2,048 positions could not be trained with the default."""
        (tmp_path / "config.json").write_text('{"n_positions": 1024}')

        assert gather(flags={"model": str(tmp_path)}, environment={})["train_seq_length"] == 1024

    def test_are_weaker_than_a_profile(self) -> None:
        """Its rows are made for a memory."""
        config = gather(flags={"model": "m/3b"}, environment={}, profile=load_profile("base_16gb"))

        assert config["train_seq_length"] == 1024
