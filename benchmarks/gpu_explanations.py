"""Explanations on a CUDA device (tensors, a graph, fragmentation, pinned memory), and what a window costs an 8B.

Runs on one GPU with 40 GB or more (the 8B has random weights and a LoRA of rank 16; about three minutes).
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from recording import Bar, record

HEAD = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256)).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
kept, total = [], 0
def train_step(rows=512):
    batch = torch.randn(rows, 256, device="cuda")
    output = model(batch)
    loss = output.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return output, loss
"""
CASES = {
    "device tensors": ("kept.append(output.detach())", "kept", "device.active"),
    "graph on the device": ("total = total + model(output.detach()).mean()", "total", "device.active"),
    "pinned memory": ("kept.append(torch.empty(100_000, pin_memory=True))", "kept", None),
    "fragmentation": (
        "spare = torch.empty(20_000_000 + 300_000 * step, device='cuda'); del spare",
        None,
        "device.reserved",
    ),
}
LORA = """
import json, time
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from peft import LoraConfig, get_peft_model
torch.manual_seed(0)
config = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                     num_key_value_heads=8, vocab_size=128256, max_position_embeddings=2048)
with torch.device("cuda"):
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config)
model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
kept, times = [], []
for step in range(300):
    began = time.perf_counter()
    tokens = torch.randint(0, 128256, (1, 512), device="cuda")
    output = model(input_ids=tokens, labels=tokens)
    output.loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    kept.append(output.logits[:, -8:].detach().clone())
    torch.cuda.synchronize()
    times.append(time.perf_counter() - began)
print("TIMES", json.dumps(times))
"""


def main() -> bool:
    """Run all."""
    bars: dict[str, Bar] = {}
    rows: dict[str, Any] = {}
    for name, (line, holder, component) in CASES.items():
        script = HEAD + f"for step in range(300):\n    output, loss = train_step()\n    {line}\n"
        verdict, _ = observe(script)
        findings = [one for one in verdict["findings"] if component in {None, one["component"]}]
        finding = findings[0] if findings else verdict["findings"][0]
        number = script.splitlines().index(f"    {line}") + 1
        sites = [(site["role"], site["line"], site["name"]) for site in finding["sites"]]
        right = any(line == number or (holder and name == holder) for _, line, name in sites)
        rows[name] = {key: finding.get(key) for key in ("component", "verdict", "explained", "pattern", "missing")}
        rows[name] |= {"sites": sites, "errors": verdict.get("errors")}
        bars[f"explained: {name}"] = Bar(
            f"{finding['component']} {finding['verdict']}, sites {sites}", "the line or the holder", right
        )
    verdict, text = observe(LORA)
    times = np.array(json.loads(re.search(r"TIMES (.*)", text).group(1)))  # type: ignore[union-attr]
    rows["8B LoRA"] = window_of(times, verdict)
    slower = rows["8B LoRA"]["slower_in_the_window"]
    bars["a step of an 8B LoRA within the window, median, against outside"] = Bar(
        f"{slower:+.0%}", "at most +40 %", slower <= 0.4
    )
    return record("gpu_explanations", bars, rows=rows)


def window_of(times: np.ndarray[Any, Any], verdict: dict[str, Any]) -> dict[str, Any]:
    """How much slower steps were while they were looked into."""
    finding = verdict["findings"][0]
    end = finding.get("explained_step") or 0
    inside, outside = times[max(end - 23, 0) : end - 1], np.delete(times, np.s_[max(end - 30, 0) : end + 8])[8:]
    return {
        "verdict": finding["verdict"], "component": finding["component"], "window_ends": end,
        "sites": [(site["role"], site["text"], site["name"]) for site in finding["sites"]],
        "slower_in_the_window": float(np.median(inside) / np.median(outside) - 1) if end else float("nan"),
        "step_ms": 1e3 * float(np.median(outside)), "slowest_ms": 1e3 * float(times[8:].max()),
        "attribution_seconds": verdict["overhead"]["attribution_seconds"],
        "explained": finding["explained"], "missing": finding.get("missing"), "errors": verdict.get("errors"),
    }  # fmt: skip


def observe(script: str) -> tuple[dict[str, Any], str]:
    """Run a script under holdwater; return its verdict and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "script.py").write_text(script, encoding="utf-8")
        command = [sys.executable, "-m", "holdwater", "run", "--json", "v.json", "--out", "run", "script.py"]
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=400)
        print(done.stderr[-2500:], flush=True)
        return json.loads((Path(folder) / "v.json").read_text(encoding="utf-8")), done.stdout


if __name__ == "__main__":
    sys.exit(not main())
