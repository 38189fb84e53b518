"""`plan` against the device: memory predicted and taken by 16 configurations of a Llama, 2 of a Qwen3, 9 others.

Each configuration is planned, then built, copied for a checkpoint and stepped as `holdwater train` does it. The
most that PyTorch's allocator reserved from the beginning is compared. Weights are whatever the memory held: only
sizes matter here.

    python benchmarks/tuning_memory.py            on a CUDA device, into results/tuning_memory.json
    python benchmarks/tuning_memory.py --plans    only how long plans take, without a device; writes nothing
"""

import contextlib
import gc
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from holdwater.errors import ConfigError
from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.packing import Packed, pack
from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.model.lora import LoraConfig, adapter_tensors, add_adapters
from holdwater.train.finetune.planner.plan import choose_settings, planned_of
from holdwater.train.finetune.step.backends import choose_backend
from holdwater.train.finetune.step.static_step import StaticStep
from holdwater.units import Bytes
from recording import Bar, record

GIB = 1 << 30
SIZES: dict[str, dict[str, Any]] = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "tie_word_embeddings": True,
    },
    "qwen3": {
        "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
        "head_dim": 128, "tie_word_embeddings": True, "vocab_size": 151_936,
    },
    "olmo2": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 16,
        "num_key_value_heads": 16, "vocab_size": 100_352,
    },
    "gpt2": {"n_embd": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 50_257, "n_positions": 2048},
}  # fmt: skip
FAMILIES = {"8b": "Llama", "1b": "Llama", "qwen3": "Qwen3", "olmo2": "Olmo2", "gpt2": "GPT2"}
"""Steps of the first three are fused unless all weights are trained; all others run under autograd."""


def write_config(folder: Path, size: str) -> Path:
    """The configuration of a model."""
    import transformers

    usual: dict[str, Any] = {
        "vocab_size": 128_256, "num_key_value_heads": 8, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5
    }  # fmt: skip
    if size == "gpt2":
        usual = {}
    config = getattr(transformers, f"{FAMILIES[size]}Config")(**usual | SIZES[size])
    config.save_pretrained(folder / size)
    return folder / size


def model_of(folder: Path, dtype: torch.dtype) -> Any:
    """A model in the host's memory, with whatever that holds."""
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))
    model = model.to(dtype).to_empty(device="cpu")
    model.tie_weights()
    if hasattr(model, "model"):
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model


def rows_of(rows: int, length: int) -> Packed:
    """Rows of one example each."""
    return pack([[Example([5] * length, [True] * length)]] * rows, length)


def taken(folder: Path, tuning: Any, settings: Any, step: StepPlan, *, captured: bool) -> dict[str, Any]:
    """Build, take three steps, and say what that took."""
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = model_of(folder, torch.bfloat16 if tuning.lora_rank else torch.float32)
    if tuning.lora_rank:
        add_adapters(model, LoraConfig.of(tuning))
    backend = choose_backend(model, settings, WeightPlacement("cuda", tuning.quantize), step)
    if tuning.lora_rank:
        adapter_tensors(model)  # a run writes a checkpoint before its first step
    if not isinstance(backend, StaticStep):
        raise SystemExit("these steps are never captured")
    backend.recording.enabled = captured
    batch, took = rows_of(step.rows, settings.train_seq_length), []
    for number in range(3 if captured else 1 if settings.train_seq_length > 10_000 else 2):
        began = time.perf_counter()
        backend.clear()
        backend.propagate(batch, 1.0, seed=number)
        backend.update(0.0)
        backend.loss()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    backend.evaluate(batch)
    free, whole = torch.cuda.mem_get_info()
    reserved = torch.cuda.max_memory_reserved()
    return {
        "reserved": reserved, "allocated": torch.cuda.max_memory_allocated(), "last_step_seconds": took[-1],
        "beside_torch": whole - free - torch.cuda.memory_reserved(),
    }  # fmt: skip


class Case(NamedTuple):
    """One configuration."""

    size: str
    bits: int | None
    rows: int
    length: int
    again: bool
    """Whether all layers are computed again in the backward pass."""
    captured: bool
    offloaded: bool = False
    whole: bool = False
    """Whether all weights are trained."""

    def __str__(self) -> str:
        """In words."""
        how = ("again" if self.again else "kept", "captured" if self.captured else "eager")
        bits = 32 if self.whole else self.bits or 16
        more = " offloaded" * self.offloaded + " all weights" * self.whole
        return f"{self.size} {bits} bit {self.rows}x{self.length} {' '.join(how)}{more}"


def timed_choice(settings: Any, tuning: Any, limit: Bytes) -> float:
    """Seconds of a whole plan on two cores, with a budget for which much must be tried."""
    with two_cores(), contextlib.suppress(ConfigError):
        began = time.perf_counter()
        choose_settings(planned_of(settings, tuning), rows=settings.batch_size, limit=limit)
    return time.perf_counter() - began


@contextlib.contextmanager
def two_cores() -> Iterator[None]:
    """Keep this process to two of its cores."""
    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, sorted(allowed)[:2])
    torch.set_num_threads(min(threads, 2))
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        torch.set_num_threads(threads)


AUTOGRAD = (
    Case("olmo2", None, 2, 1024, again=False, captured=True),
    Case("olmo2", None, 2, 2048, again=True, captured=True),
    Case("olmo2", 4, 2, 1024, again=False, captured=True),
    Case("olmo2", 4, 4, 2048, again=True, captured=True),
    Case("gpt2", None, 4, 1024, again=False, captured=True),
    Case("gpt2", 8, 4, 1024, again=False, captured=True),
    Case("qwen3", None, 2, 1024, again=False, captured=True, whole=True),
    Case("qwen3", None, 4, 2048, again=True, captured=True, whole=True),
    Case("gpt2", None, 4, 1024, again=False, captured=True, whole=True),
)
"""Whose steps run under autograd."""


def tuning_of(model: Path, case: Case) -> Any:
    """Which model, and which adapters."""
    rank = 0 if case.whole else 8 if case.bits else 64
    return SimpleNamespace(
        model=str(model), lora_rank=rank, lora_alpha=None, lora_dropout=0.0, lora_targets=None,
        lora_layers=None, quantize=case.bits,
    )  # fmt: skip


def settings_of(case: Case) -> Any:
    """What else a run is told."""
    return SimpleNamespace(
        train_seq_length=case.length,
        device="cuda",
        weight_decay=0.0,
        gradient_clip=1.0,
        batch_size=case.rows,
        non_finite="stop",
    )


def step_of(case: Case) -> StepPlan:
    """How steps are taken."""
    layers = SIZES[case.size].get("num_hidden_layers", 24)
    chunk = 256 if case.again and FAMILIES[case.size] in {"Llama", "Qwen3"} else 1024
    recomputed = layers if case.again else 0
    return StepPlan(rows=case.rows, recomputed=recomputed, chunk=chunk, offloaded=case.offloaded)


def compare(folder: Path, case: Case) -> dict[str, Any]:
    """Plan one configuration, run it, and compare."""
    path = write_config(folder, case.size)
    tuning, settings, step = tuning_of(path, case), settings_of(case), step_of(case)
    planned = planned_of(settings, tuning)
    peak = planned.peak(step)
    seconds = timed_choice(settings, tuning, Bytes(int(0.7 * peak.total)))
    found = taken(path, tuning, settings, step, captured=case.captured)
    error = peak.reserved / found["reserved"] - 1
    print(f"{case}: planned {peak.reserved / GIB:.3f} GiB, taken {found['reserved'] / GIB:.3f}, {error:+.2%}")
    return {"case": str(case), "planned": peak.reserved, "error": error, "plan_seconds": seconds, **found}


def time_plans() -> None:
    """Print the seconds of plans of an 8B, and of models whose steps run under autograd."""
    with tempfile.TemporaryDirectory() as place:
        for case in (*(Case("8b", bits, 4, 2048, again=False, captured=True) for bits in (None, 4)), *AUTOGRAD):
            path = write_config(Path(place), case.size)
            settings, tuning = settings_of(case), tuning_of(path, case)
            peak = planned_of(settings, tuning).peak(step_of(case))
            print(f"{case}: {timed_choice(settings, tuning, Bytes(int(0.7 * peak.total))):.1f} s", flush=True)


def longest(folder: Path) -> list[dict[str, Any]]:
    """The longest row of an 8B QLoRA whose step, all in, stays under 24 GB: tried around what the plan says."""
    tried, capped = [], int(24e9)
    for length in (94_208, 90_112, 86_016, 81_920):
        case = Case("8b", 4, 1, length, again=True, captured=False, offloaded=True)
        try:
            found = compare(folder, case)
        except torch.OutOfMemoryError:
            continue
        fits = found["reserved"] + found["beside_torch"] <= capped
        tried.append({**found, "length": length, "fits": fits})
        if fits:
            break
    return tried


def main() -> bool:
    """All configurations, or only how long plans take."""
    if sys.argv[1:] == ["--plans"]:
        time_plans()
        return True
    shapes = itertools.cycle([(1, 512), (2, 2048), (1, 4096)])
    with tempfile.TemporaryDirectory() as place:
        found = [
            compare(Path(place), Case(size, bits, *next(shapes), again=again, captured=captured))
            for size in ("8b", "1b")
            for bits in (None, 4)
            for again in (False, True)
            for captured in (False, True)
        ]
        found += [
            compare(Path(place), Case("qwen3", None, 2, 2048, again=False, captured=True)),
            compare(Path(place), Case("qwen3", 4, 4, 1024, again=True, captured=True)),
        ]
        others = [compare(Path(place), case) for case in AUTOGRAD]
        qlora = compare(Path(place), Case("8b", 4, 2, 2048, again=True, captured=True, offloaded=True))
        wide = compare(Path(place), Case("8b", 4, 2, 2048, again=True, captured=True))
        context = longest(Path(place))
    errors = [one["error"] for one in found]
    mean, worst, under = statistics.fmean(map(abs, errors)), max(map(abs, errors)), min(errors)
    own = [one["error"] for one in others]
    own_mean = statistics.fmean(map(abs, own))
    seconds = max(one["plan_seconds"] for one in found if one["case"].startswith("8b"))
    slowest = max(one["plan_seconds"] for one in others)
    small, length = qlora["reserved"] / GIB, max([one["length"] for one in context if one["fits"]], default=0)
    bars = {
        "mean error of the plan": Bar(f"{mean:.2%} over {len(errors)}", "3 % over 16 or more", mean <= 0.03),
        "worst error": Bar(f"{worst:.2%}", "8 %", worst <= 0.08),
        "most that a plan was under": Bar(f"{max(-under, 0):.2%}", "3 %", under >= -0.03),
        "the same of models that take steps by their own code": Bar(
            f"mean {own_mean:.2%}, from {min(own):+.2%} to {max(own):+.2%}, over {len(own)}",
            "mean 3 %, worst 8 %, 3 % under at most",
            own_mean <= 0.03 and max(own) <= 0.08 and min(own) >= -0.03,
        ),
        "seconds of a plan of an 8B, on two CPU cores": Bar(
            f"{seconds:.1f} s; {slowest:.1f} s of those others", "15 s for the 8B", seconds <= 15
        ),
        "8B QLoRA rank 8, 2 x 2048": Bar(f"{small:.2f} GiB", "7.4 GiB", small <= 7.4),
        "longest context under 24 GB": Bar(
            f"{length} tokens", "78,475 (Unsloth, published)",
            length > 78_475,
        ),
    }  # fmt: skip
    return record(
        "tuning_memory", bars, device=torch.cuda.get_device_name(), runs=[*found, *others, qlora, wide, *context]
    )


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
