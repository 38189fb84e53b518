"""A worker of Ray Train, with `ray_worker_guard` or without: `python ray_loop.py STEPS [guard] [leak]`."""

import json
import os
import sys
import tempfile

os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def train_loop_per_worker(config):
    """One worker."""
    import contextlib
    import json

    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from turns import Turns

    torch.set_num_threads(1)
    torch.manual_seed(1)
    kept, losses, turns = [], [], Turns()
    model = nn.Sequential(nn.Linear(256, 2048), nn.ReLU(), nn.Dropout(0.1), nn.Linear(2048, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    data = TensorDataset(torch.randn(6400, 256), torch.randint(0, 10, (6400,)))
    loader = DataLoader(data, batch_size=32, shuffle=True)
    guard = contextlib.nullcontext()
    if config["guard"]:
        from holdwater.frameworks.ray_train import ray_worker_guard

        guard = ray_worker_guard()
    with guard:
        while len(losses) < config["steps"] and not turns.over:
            for inputs, labels in loader:
                loss = nn.functional.cross_entropy(model(inputs), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                if config["leak"]:
                    kept.append(torch.ones(16_000))  # HERE
                if config["guard"]:
                    guard.step()
                turns.step()
                if len(losses) == config["steps"] or turns.over:
                    break
    summary = guard.summary() if config["guard"] else None
    weights = [weight.double().sum().item().hex() for weight in model.parameters()]
    with open(config["file"], "w") as file:
        json.dump({"losses": losses, "weights": weights, "summary": summary}, file)
    ray.train.report({"loss": losses[-1]})


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    passed = {name: os.environ[name] for name in ("TURNS", "BLOCK") if name in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        ray.init(
            num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error",
            runtime_env={"env_vars": {"PYTHONPATH": path, **passed}},
        )  # fmt: skip
        config = {
            "steps": int(sys.argv[1]), "guard": "guard" in sys.argv, "leak": "leak" in sys.argv,
            "file": os.path.join(folder, "found.json"),
        }  # fmt: skip
        TorchTrainer(
            train_loop_per_worker, train_loop_config=config, scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(storage_path=folder),
        ).fit()  # fmt: skip
        with open(config["file"]) as file:
            print("FOUND", file.read())
        ray.shutdown()
