"""`plan` against the device for models that take pictures: memory predicted and taken, in 14 configurations.

Models of random weights of three families, with the tower's and the language model's real widths and fewer layers,
and one Qwen2.5-VL of 7B. Each configuration is planned with its data, then stepped as `holdwater train` does it:
pictures are decoded ahead, packed, and taken through the tower before the captured step. The most that PyTorch's
allocator reserved from the beginning is compared with the plan, and the most resident memory of the process with
the plan of the host's memory. Each configuration is run in a process of its own: resident memory never forgets.

    python benchmarks/vision_memory.py            on a CUDA device, into results/vision_memory.json
    python benchmarks/vision_memory.py --plans    only the plans and how long they take; writes nothing
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from holdwater.cli.main import main as holdwater
from recording import Bar, record

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import tests.small_vision_models as small  # noqa: E402 - it lies beside this folder

GIB = 1 << 30
STEPS = 4
"""The first runs eagerly, the second is captured."""
EXAMPLES = 24
AT_ONCE = 6
"""Configurations on the device: each counts only what its own allocator took."""
TEXT: dict[str, Any] = {"vocab_size": 151_936, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6}
ROPE = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
QWEN_TOWER = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}


@dataclass(frozen=True)
class Model:
    """The shape of a model."""

    family: str
    text: dict[str, Any]
    vision: dict[str, Any]
    more: dict[str, Any]


MODELS = {
    "qwen2.5-3b": Model(
        "qwen2_5_vl",
        {"hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 8, "num_attention_heads": 16,
         "num_key_value_heads": 2, "tie_word_embeddings": True},
        QWEN_TOWER | {"out_hidden_size": 2048}, {},
    ),
    "qwen2.5-7b": Model(
        "qwen2_5_vl",
        {"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4},
        QWEN_TOWER | {"out_hidden_size": 3584}, {},
    ),
    "qwen3-2b": Model(
        "qwen3_vl",
        {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 8, "num_attention_heads": 16,
         "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True},
        {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048,
         "deepstack_visual_indexes": [5, 11, 17], "num_position_embeddings": 2304}, {},
    ),
    "gemma3-4b": Model(
        "gemma3",
        {"vocab_size": 262_208, "hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 6,
         "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 1024,
         "layer_types": [*["sliding_attention"] * 5, "full_attention"]},
        SIGLIP | {"image_size": 896, "patch_size": 14, "vision_use_head": False}, {"mm_tokens_per_image": 256},
    ),
    "smolvlm-2b": Model(
        "smolvlm",
        {"vocab_size": 49_280, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 8,
         "num_attention_heads": 32, "num_key_value_heads": 32, "rope_parameters": {"rope_type": "default",
                                                                                 "rope_theta": 1e5}},
        SIGLIP | {"image_size": 384, "patch_size": 14}, {"scale_factor": 3},
    ),
}  # fmt: skip
KEPT = ("model_type", "patch_size", "spatial_merge_size", "temporal_patch_size")
"""Of the small models' configurations."""
PROCESSORS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"size": {"shortest_edge": 3136, "longest_edge": 12_845_056}},
    "qwen3_vl": {"size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}},
    "gemma3": {"size": {"height": 896, "width": 896}},
    "smolvlm": {"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}},
}


@dataclass(frozen=True)
class Case:
    """One configuration."""

    model: str
    bits: int | None
    rows: int
    length: int
    picture: tuple[int, int]
    """Width and height of the largest; the others have down to half its sides."""
    flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In words."""
        width, height = self.picture
        shape = f"{self.rows}x{self.length}, pictures of {width}x{height}"
        return " ".join((f"{self.model} {self.bits or 16} bit {shape}", *self.flags))

    @property
    def train_flags(self) -> list[str]:
        """Of the command line."""
        rank = "8" if self.bits else "64"
        few = [] if self.bits is None else ["--quantize", str(self.bits)]
        return [
            "--train-seq-length", str(self.length), "--batch-size", str(self.rows), "--lora-rank", rank, *few,
            *self.flags,
        ]  # fmt: skip


CASES = (
    Case("qwen2.5-3b", None, 1, 2048, (1120, 840)),
    Case("qwen2.5-3b", 4, 2, 2048, (1120, 840)),
    Case("qwen2.5-3b", None, 4, 1024, (560, 560)),
    Case("qwen2.5-3b", 4, 1, 4096, (2240, 1120)),
    Case("qwen2.5-7b", 4, 1, 2048, (1120, 840)),
    Case("qwen3-2b", None, 1, 2048, (1280, 960)),
    Case("qwen3-2b", 4, 4, 1024, (640, 640)),
    Case("qwen3-2b", None, 1, 4096, (1920, 1440)),
    Case("qwen3-2b", 4, 2, 2048, (1280, 960), ("--vision-cache", "1GB")),
    Case("gemma3-4b", None, 1, 1024, (800, 800)),
    Case("gemma3-4b", 4, 2, 2048, (800, 800)),
    Case("smolvlm-2b", None, 1, 2048, (1500, 1100)),
    Case("smolvlm-2b", 4, 2, 2048, (1500, 1100)),
    Case("smolvlm-2b", None, 2, 1024, (700, 700), ("--max-pixels", "589824")),
)


def write_model(folder: Path, name: str, *, weights: bool) -> Path:
    """A model in bfloat16, with tokenizer and processor."""
    one, made = MODELS[name], folder / name
    if made.exists():
        return made
    small.make_vision_model(made, one.family)
    ids = _image_tokens(made)
    config = transformers.AutoConfig.from_pretrained(made).to_dict()
    for part, own in (("text_config", {"pad_token_id": 0} | TEXT | one.text), ("vision_config", one.vision)):
        config[part] = {name: config[part][name] for name in KEPT if name in config[part]} | own
    if one.family.startswith("qwen"):
        config["text_config"]["rope_parameters"] = ROPE | (
            {"mrope_interleaved": True} if one.family == "qwen3_vl" else {}
        )
    config |= one.more | ids | {"tie_word_embeddings": one.text.get("tie_word_embeddings", False)}
    built = transformers.AutoConfig.for_model(**config)
    (made / "model.safetensors").unlink()
    built.save_pretrained(made)
    if weights:
        write_weights(made, built)
    settings = made / "preprocessor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | PROCESSORS[one.family]))
    return made


def write_weights(folder: Path, config: object) -> None:
    """Weights of one number each: only their sizes matter."""
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model = model.to_empty(device="cpu")
    model.tie_weights()
    for weight in model.parameters():
        weight.data.fill_(0.01)
    model.save_pretrained(folder)


def _image_tokens(folder: Path) -> dict[str, int]:
    """The numbers of the tokens that stand for pictures: the small model's, whose tokenizer stays."""
    config = json.loads((folder / "config.json").read_text())
    return {name: value for name, value in config.items() if name.endswith(("token_id", "token_index"))}


def write_data(folder: Path, case: Case) -> Path:
    """Examples with a picture each, the largest among the first."""
    folder.mkdir()
    dice = np.random.default_rng(0)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(EXAMPLES):
            share = 1.0 if number % 6 == 0 else 0.5 + 0.5 * dice.random()
            width, height = (int(side * share) for side in case.picture)
            coarse = dice.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((width, height)).save(folder / f"{number}.jpg", quality=90)
            row = {"image": f"{number}.jpg", "prompt": "what is this?", "completion": "a red square"}
            file.write(json.dumps(row) + "\n")
    return folder / "rows.jsonl"


def plan(case: Case, model: Path, data: Path, folder: Path) -> dict[str, Any]:
    """What the command predicts, and the seconds that it took."""
    began = time.perf_counter()
    command = ["plan", "--model", str(model), "--data", str(data), "--json", str(folder / "plan.json")]
    run([*command, *case.train_flags])
    found: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return found | {"seconds": time.perf_counter() - began}


def run(arguments: list[str]) -> str:
    """Run the command line; what it printed."""
    done = subprocess.run(
        [sys.executable, __file__, "--inside", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def inside(arguments: list[str]) -> int:
    """The command line, in this process; a training run also says what it took."""
    code = holdwater(arguments)
    if arguments[0] == "train" and code == 0:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s+(\d+)", status)
        taken = {
            "reserved": torch.cuda.max_memory_reserved(), "allocated": torch.cuda.max_memory_allocated(),
            "resident": 1024 * int(found[1]) if found else 0,
        }  # fmt: skip
        print("taken", json.dumps(taken))
    return code


def compare(case: Case, planned: dict[str, Any], place: Path, number: int) -> dict[str, Any]:
    """Run a configuration, and compare it with its plan."""
    folder = place / str(number)
    model, data = place / case.model, folder / "rows.jsonl"
    flags = ["--model", str(model), "--data", str(data), "--no-supervise", "--out", str(folder / "run"),
             "--steps", str(STEPS), "--eval-batches", "1", "--sample-length", "1", "--device", "cuda"]  # fmt: skip
    said = run(["train", *flags, *case.train_flags])
    taken = json.loads(said.rsplit("taken", 1)[1])
    error = planned["reserved_bytes"] / taken["reserved"] - 1
    host = planned["host"]["peak_bytes"] / taken["resident"] - 1
    sizes = f"{planned['reserved_bytes'] / GIB:.3f} GiB planned, {taken['reserved'] / GIB:.3f} taken"
    print(f"{case}: {sizes}, {error:+.2%}; host {host:+.2%}", flush=True)
    return {
        "case": str(case), "planned": planned["reserved_bytes"], "error": error, "roles": planned["roles"],
        "host_planned": planned["host"]["peak_bytes"], "host_error": host, "host_roles": planned["host"]["roles"],
        "plan_seconds": planned["seconds"], **taken,
    }  # fmt: skip


def plan_all(place: Path, *, weights: bool, workers: int) -> list[dict[str, Any]]:
    """Write all models and examples, and plan all configurations, some at a time."""
    with ProcessPoolExecutor(workers) as pool:
        writing = pool.map(partial(write_model, place, weights=weights), MODELS)
        examples = pool.map(write_data, (place / str(number) for number in range(len(CASES))), CASES)
        print(f"{len(list(writing))} models, {len(list(examples))} sets of examples", flush=True)

    def planned(number: int) -> dict[str, Any]:
        """One of them."""
        folder = place / str(number)
        return plan(CASES[number], place / CASES[number].model, folder / "rows.jsonl", folder)

    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(planned, range(len(CASES))))


def show_plans() -> None:
    """Print what is planned, and the seconds of each plan."""
    with tempfile.TemporaryDirectory() as place:
        for case, found in zip(CASES, plan_all(Path(place), weights=False, workers=2), strict=True):
            sizes = f"{found['reserved_bytes'] / GIB:.2f} GiB, host {found['host']['peak_bytes'] / GIB:.2f} GiB"
            print(f"{case}: {sizes}, {found['seconds']:.1f} s", flush=True)


def main() -> bool:
    """All configurations, or only their plans."""
    if sys.argv[1:] == ["--plans"]:
        show_plans()
        return True
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as place:
        plans = plan_all(Path(place), weights=True, workers=max((os.cpu_count() or 2) // 2, 1))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            places = [Path(place)] * len(CASES)
            found = list(pool.map(compare, CASES, plans, places, range(len(CASES))))
    errors, host = ([one[name] for one in found] for name in ("error", "host_error"))
    mean, worst, under = statistics.fmean(map(abs, errors)), max(map(abs, errors)), min(errors)
    bars = {
        "plans of runs on pictures, against the device: mean error": Bar(
            f"{mean:.2%} over {len(errors)}", "3 % over 12 or more", mean <= 0.03
        ),
        "plans of runs on pictures: worst error": Bar(f"{worst:.2%}", "8 %", worst <= 0.08),
        "plans of runs on pictures: most that one was under": Bar(f"{max(-under, 0):.2%}", "3 %", under >= -0.03),
        "plans of runs on pictures: the host's memory": Bar(
            f"from {min(host):+.2%} to {max(host):+.2%}", "within 10 %", max(map(abs, host)) <= 0.10
        ),
    }
    return record("vision_memory", bars, device=torch.cuda.get_device_name(), runs=found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        raise SystemExit(inside(sys.argv[2:]))
    raise SystemExit(0 if main() else 1)
