"""Three public programs under `holdwater run` and without: the same losses, each step seen, and the right verdict.

A Transformers `Trainer`, TRL's `SFTTrainer` with LoRA, and `mlx_lm` LoRA training, from the package registry, on a
small Llama that is made from a configuration. They get an environment of their own, made here unless one is named.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from recording import Bar, record

HERE = Path(__file__).resolve().parent
PACKAGES = (
    "transformers==5.17.0", "trl==1.16.0", "peft", "accelerate", "datasets", "mlx[cpu]", "mlx-lm==0.32.2",
    # of `real_cost.py`
    "stable-baselines3==2.9.2", "gymnasium==1.4.0", "spacy==3.8.18", "lightning==2.6.6", "skorch==1.4.0",
    "scikit-learn==1.9.1", "sentence-transformers==6.2.0",
    # of `other_programs.py`
    "torch-geometric==2.8.1", "ray[train]==2.60.0", "tensorboard",
)  # fmt: skip
MLX = (
    "-m", "mlx_lm", "lora", "--model", "{folder}/model", "--train", "--data", "{folder}/data", "--iters", "300",
    "--batch-size", "4", "--num-layers", "2", "--adapter-path", "{folder}/adapters", "--steps-per-report", "10",
    "--val-batches", "2", "--seed", "3",
)  # fmt: skip
PROGRAMS = {
    "Transformers Trainer": (str(HERE / "programs" / "trainer.py"), "{folder}"),
    "TRL SFTTrainer with LoRA": (str(HERE / "programs" / "sft.py"), "{folder}"),
    "mlx_lm LoRA": MLX,
}
STEPS = {"Transformers Trainer": 400, "TRL SFTTrainer with LoRA": 300, "mlx_lm LoRA": 300}


def main() -> bool:
    """Run each program with and without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="a Python that has the packages and holdwater")
    python = parser.parse_args().python or make_environment(HERE.parent / ".venv-programs")
    bars = {}
    with tempfile.TemporaryDirectory() as folder:
        run([str(python), str(HERE / "programs" / "small_model.py"), folder], folder)
        for name, words in PROGRAMS.items():
            command = [word.format(folder=folder) for word in words]
            plain = losses(run([str(python), *command], folder))
            observed = [str(python), "-m", "holdwater", "run", "--quiet", "--json", f"{folder}/v.json", *command]
            same = losses(run(observed, folder)) == plain and len(plain) > 5
            verdict = json.loads(Path(folder, "v.json").read_text(encoding="utf-8"))
            steps, kind = verdict["steps"], verdict["verdict"]
            right = same and kind in {"flat", "bounded", "cyclic"} and steps == STEPS[name]
            clock = verdict["step_source"]
            said = f"{kind} after {steps} steps by {clock}; losses {'the same' if same else 'DIFFER'}"
            bars[name] = Bar(said, "healthy, every step seen, same losses", right)
    return record("real_programs", bars, packages=freeze(python))


def make_environment(folder: Path, packages: Sequence[str] = ()) -> Path:
    """Make an environment with the programs' packages and this holdwater, or with exactly the packages named."""
    python = folder / "bin" / "python"
    ready, wanted = folder / ".ready", "\n".join(packages or PACKAGES)
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if packages:
            subprocess.run([*install, *packages], check=True)
        else:
            subprocess.run([*install, "-r", str(HERE.parent / "requirements" / "dev.txt")], check=True)
            subprocess.run([*install, "torch==2.13.0", *PACKAGES], check=True)
            editable = [*install, "--no-deps", "--no-build-isolation", "--editable", str(HERE.parent)]
            subprocess.run(editable, check=True)
        ready.write_text(wanted, encoding="utf-8")
    return python


def run(command: list[str], folder: str) -> str:
    """Run a program; return all that it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout + done.stderr


def losses(said: str) -> list[str]:
    """The losses in what a program said, as text: a list, or `mlx_lm`'s coloured table."""
    listed = re.search(r"LOSSES (\[.*\])", said)
    if listed is not None:
        return [str(loss) for loss in json.loads(listed.group(1))]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    return re.findall(r"^\s+(\d+\s+(?:val )?\d+\.\d+)", plain, flags=re.MULTILINE)


def freeze(python: Path) -> list[str]:
    """The versions of the packages that matter."""
    listed = subprocess.run(
        [str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout
    return [
        line
        for line in listed.splitlines()
        if re.match(
            r"(transformers|trl|peft|accelerate|datasets|mlx|torch|stable|gymnasium|spacy|lightning|skorch|sentence-"
            r"|scikit|ray|timm)",
            line,
        )
    ]


if __name__ == "__main__":
    sys.exit(not main())
