"""`holdwater train --model` as users call it: small models from a folder, the installed command, real examples."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.small_models import FAMILIES, make_model

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = (
    *(
        "train",
        "--model",
        "model",
        "--data",
        "rows.jsonl",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--max-memory",
        "6GB",
    ),
    *("--train-seq-length", "32", "--batch-size", "2", "--lora-rank", "4", "--eval-batches", "2"),
    *("--sample-length", "4", "--warmup-steps", "2"),
)

ROWS = [json.dumps({"text": f"{number} holds water, and {number} more"}) for number in range(60)]
SPOIL = """
from pathlib import Path

def row_42(guard):
    path = Path("late.jsonl")
    rows = path.read_text().splitlines()
    rows[41] = '{"text": 7}'.ljust(len(rows[41]))
    path.write_text("\\n".join(rows) + "\\n")
"""
"""A callback that spoils a row after the run has begun."""


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Sums to learn."""
    path = tmp_path / "rows.jsonl"
    sums = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(12) for b in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in sums), encoding="utf-8")
    return path


def tensors(run: Path) -> dict[str, bytes]:
    """The bytes of every tensor of the newest checkpoint of a run."""
    newest = max((run / "checkpoints").glob("step-*"))
    return {
        f"{path.name}/{name}": array.tobytes()
        for path in sorted(newest.glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


@pytest.mark.usefixtures("rows")
class TestTune:
    """The main job with a large model, in small."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_fine_tunes_a_model_and_leaves_adapters_that_peft_loads(
        self, holdwater: Run, tmp_path: Path, family: str
    ) -> None:
        """With a verdict, and a loss that falls."""
        make_model(tmp_path / "model", family)

        done = holdwater(*SMALL, "--steps", "30", "--learning-rate", "0.01", "--out", "run", "--json", "v.json")

        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "v.json").read_text())["steps"] == 30
        newest = max((tmp_path / "run/checkpoints").glob("step-*"))
        assert newest.name == "step-00000030"
        script = (
            "import sys, warnings; from peft import PeftModel; from transformers import AutoModelForCausalLM\n"
            "with warnings.catch_warnings(record=True) as said:\n"
            "    warnings.simplefilter('always')\n"
            f"    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained('model'), {str(newest)!r})\n"
            "assert not [w for w in said if 'missing' in str(w.message)], said\n"
            "moved = [w for n, w in model.named_parameters() if 'lora_B' in n and w.abs().sum() > 0]\n"
            "print('moved', len(moved))\n"
        )

        peft = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert peft.stdout.startswith("moved "), peft.stderr
        assert int(peft.stdout.split()[1]) >= 8

    def test_goes_on_exactly_in_fresh_processes(self, holdwater: Run, tmp_path: Path) -> None:
        """Replaced twice, with dropout: the same bytes as a straight run."""
        make_model(tmp_path / "model", "Llama")
        flags = (*SMALL, "--steps", "24", "--lora-dropout", "0.1")

        straight = holdwater(*flags, "--out", "straight")
        replaced = holdwater(*flags, "--out", "replaced", "--reload-interval", "9", "--json", "v.json")

        assert [straight.returncode, replaced.returncode] == [0, 0], replaced.stderr
        assert tensors(tmp_path / "replaced") == tensors(tmp_path / "straight")
        actions = json.loads((tmp_path / "v.json").read_text())["actions"]
        assert [action["action"] for action in actions].count("recycle") == 2

    def test_leaves_structure_out_exactly_in_fresh_processes(self, holdwater: Run, tmp_path: Path) -> None:
        """From the second epoch on; the share that was left out is counted across processes."""
        make_model(tmp_path / "model", "Llama")
        rows = [{"prompt": "hold", "completion": f'{{"water": [{number}]}}'} for number in range(12)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        selective = ("--selective-loss", "json", "--selective-loss-from", "1")
        flags = (*SMALL, "--steps", "12", "--eval-interval", "12", *selective)

        straight = holdwater(*flags, "--out", "straight")
        replaced = holdwater(*flags, "--out", "replaced", "--reload-interval", "5")

        assert [straight.returncode, replaced.returncode] == [0, 0], replaced.stderr
        assert tensors(tmp_path / "replaced") == tensors(tmp_path / "straight")
        told = [
            re.findall(r"; (.*)% of the answers' tokens were structure", one.stdout)
            for one in (straight, replaced)
        ]
        assert told[0] == told[1] != []

    @pytest.mark.parametrize("bits", ["4", "8"])
    def test_trains_beside_weights_of_few_bits(self, holdwater: Run, tmp_path: Path, bits: str) -> None:
        """Exactly so also in fresh processes, and the loss is near that of whole weights."""
        make_model(tmp_path / "model", "Qwen2")
        flags = (*SMALL, "--steps", "12", "--learning-rate", "0.01", "--lora-dropout", "0.1", "--quantize", bits)

        straight = holdwater(*flags, "--out", "straight")
        replaced = holdwater(*flags, "--out", "replaced", "--reload-interval", "7")

        assert [straight.returncode, replaced.returncode] == [0, 0], replaced.stderr
        assert tensors(tmp_path / "replaced") == tensors(tmp_path / "straight")
        assert straight.stderr.count("each step is fused") == 1
        assert replaced.stderr.count("each step is fused") == 1

    def test_trains_any_model_beside_weights_of_few_bits(self, holdwater: Run, tmp_path: Path) -> None:
        """One whose steps are not fused: it resumes with such layers, exactly."""
        make_model(tmp_path / "model", "GPT2")
        flags = (*SMALL, "--steps", "15", "--quantize", "4")

        straight = holdwater(*flags, "--out", "straight")
        replaced = holdwater(*flags, "--out", "replaced", "--reload-interval", "6")

        assert [straight.returncode, replaced.returncode] == [0, 0], replaced.stderr
        assert "the weights of 8 linear layers, " in straight.stderr
        assert tensors(tmp_path / "replaced") == tensors(tmp_path / "straight")

    def test_writes_the_model_with_its_adapters(self, holdwater: Run, tmp_path: Path) -> None:
        """The same as PEFT makes of the same adapters; a folder that is there is not touched."""
        make_model(tmp_path / "model", "Qwen2")
        flags = (*SMALL, "--steps", "8", "--learning-rate", "0.02", "--merged", "whole")

        done = holdwater(*flags, "--out", "run")
        again = holdwater(*flags, "--out", "other")

        assert done.returncode == 0, done.stderr
        assert again.returncode == 2
        assert "--merged whole is there already" in again.stderr
        newest = max((tmp_path / "run/checkpoints").glob("step-*"))
        script = (
            "import torch; from peft import PeftModel; from transformers import AutoModelForCausalLM as Auto\n"
            f"peft = PeftModel.from_pretrained(Auto.from_pretrained('model'), {str(newest)!r}).merge_and_unload()\n"
            "tokens = torch.arange(5, 25)[None]\n"
            "whole, base = Auto.from_pretrained('whole'), Auto.from_pretrained('model')\n"
            "wanted, found = peft(tokens).logits, whole(tokens).logits\n"
            "print(torch.allclose(wanted, found, atol=1e-5), torch.allclose(base(tokens).logits, found, atol=1e-3))\n"
        )
        peft = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert peft.stdout.split() == ["True", "False"], peft.stderr

    def test_a_death_that_left_no_checkpoint_is_followed_by_a_fresh_start(
        self, holdwater: Run, tmp_path: Path
    ) -> None:
        """A weight server holds what the dead process trained: the run is to end as one that never died."""
        make_model(tmp_path / "model", "Llama")
        (tmp_path / "deadly.py").write_text(
            "import os, pathlib, shutil\n"
            "def act(guard):\n"
            "    if guard.step_number == 3 and not os.path.exists('acted'):\n"
            "        pathlib.Path('acted').touch(); shutil.rmtree('killed/checkpoints'); os.kill(os.getpid(), 9)\n"
        )
        flags = (*SMALL, "--steps", "7", "--quantize", "8", "--reload-interval", "1000")

        killed = holdwater(*flags, "--out", "killed", "--callback", "deadly:act")
        straight = holdwater(*flags, "--out", "straight")

        assert [killed.returncode, straight.returncode] == [0, 0], killed.stderr
        assert "they are loaded anew by the next process" in killed.stderr
        assert tensors(tmp_path / "killed") == tensors(tmp_path / "straight")

    def test_writes_the_model_of_a_run_that_has_ended(self, holdwater: Run, tmp_path: Path) -> None:
        """By the same command, when it goes on with nothing left to do."""
        make_model(tmp_path / "model", "Llama")
        flags = (*SMALL, "--steps", "2", "--out", "done")
        first = holdwater(*flags)

        again = holdwater("train", "--out", "done", "--resume", "--merged", "whole")

        assert [first.returncode, again.returncode] == [0, 0], again.stderr
        made, given = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("whole", "model"))
        assert made["use_cache"] is given["use_cache"] is True

    def test_a_bad_row_is_found_before_the_run_begins(self, holdwater: Run, tmp_path: Path) -> None:
        """However late its turn comes."""
        make_model(tmp_path / "model", "Llama")
        (tmp_path / "late.jsonl").write_text("\n".join([*ROWS, '{"text": 7}']) + "\n")

        done = holdwater(*SMALL, "--data", "late.jsonl", "--steps", "1", "--out", "late")

        assert done.returncode == 2
        assert "late.jsonl, example 61: text is 7" in done.stderr
        assert not list((tmp_path / "late").glob("checkpoints/*"))

    def test_a_row_that_is_spoilt_costs_nothing_of_what_was_learned_before_it(
        self, holdwater: Run, tmp_path: Path
    ) -> None:
        """A checkpoint of the last step is written; the message names the row."""
        make_model(tmp_path / "model", "Llama")
        (tmp_path / "late.jsonl").write_text("\n".join(ROWS) + "\n")
        (tmp_path / "spoil.py").write_text(SPOIL)

        done = holdwater(
            *SMALL, "--data", "late.jsonl", "--steps", "400", "--out", "late", "--validation-share", "0.05",
            "--callback", "spoil:row_42",
        )  # fmt: skip

        assert done.returncode == 2
        assert "late.jsonl, example 42" in done.stderr
        assert "Traceback" not in done.stderr
        saved = sorted(int(path.name[5:]) for path in (tmp_path / "late" / "checkpoints").glob("step-*"))
        assert saved[-1] > 0

    def test_messages_need_a_chat_template(self, holdwater: Run, tmp_path: Path) -> None:
        """One line says so, once."""
        make_model(tmp_path / "model", "Llama")
        row = {"messages": [{"role": "user", "content": "hold"}, {"role": "assistant", "content": "water"}]}
        (tmp_path / "said.jsonl").write_text((json.dumps(row) + "\n") * 30)

        done = holdwater(*SMALL, "--data", "said.jsonl", "--steps", "2", "--out", "said")

        assert done.returncode == 2
        assert "this model has no chat template; write prompt and completion, or text" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("family", ["Llama", "GPT2"])
    def test_trains_all_weights_of_a_small_model(self, holdwater: Run, tmp_path: Path, family: str) -> None:
        """Exactly so in fresh processes; the checkpoint is a model of Transformers."""
        make_model(tmp_path / "model", family)
        flags = (*SMALL, "--steps", "12", "--learning-rate", "0.003", "--lora-rank", "0")

        straight = holdwater(*flags, "--out", "straight")
        replaced = holdwater(*flags, "--out", "replaced", "--reload-interval", "7")

        assert [straight.returncode, replaced.returncode] == [0, 0], replaced.stderr
        assert tensors(tmp_path / "replaced") == tensors(tmp_path / "straight")
        newest = max((tmp_path / "straight/checkpoints").glob("step-*"))
        script = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            f"print(AutoTokenizer.from_pretrained({str(newest)!r}).decode([5, 6]) != '')\n"
            f"print(AutoModelForCausalLM.from_pretrained({str(newest)!r}).dtype)"
        )
        read = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert read.stdout.split() == ["True", "torch.float32"], read.stderr
        assert "MISSING" not in read.stderr

    def test_weights_that_are_trained_are_not_in_few_bits(self, holdwater: Run, tmp_path: Path) -> None:
        """One message."""
        make_model(tmp_path / "model", "Llama")

        done = holdwater(*SMALL, "--steps", "2", "--lora-rank", "0", "--quantize", "8")

        assert done.returncode == 2
        assert "quantize is 8, but lora_rank is 0" in done.stderr
