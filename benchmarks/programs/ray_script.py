"""Ray Train's `TorchTrainer` with one worker, as its first page writes it: a report with a checkpoint each epoch."""

import json
import os
import tempfile

os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
import ray.train
import torch
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train_loop_per_worker(config):
    """One worker."""
    torch.manual_seed(2)
    features = torch.randn(3200, 64)
    loader = DataLoader(TensorDataset(features, features[:, :5].argmax(1)), batch_size=16, shuffle=True)
    loader = ray.train.torch.prepare_data_loader(loader)
    model = ray.train.torch.prepare_model(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 5)))
    optimizer = torch.optim.Adam(model.parameters(), lr=config["rate"])
    for epoch in range(6):
        total = 0.0
        for inputs, labels in loader:
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), os.path.join(folder, "model.pt"))
            ray.train.report({"loss": total, "epoch": epoch}, checkpoint=Checkpoint.from_directory(folder))


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, logging_level="error", log_to_driver=False)
    result = TorchTrainer(
        train_loop_per_worker, train_loop_config={"rate": 1e-3}, scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(storage_path=os.path.join(os.getcwd(), "store"), name="run"),
    ).fit()  # fmt: skip
    print("LOSSES", json.dumps([result.metrics["loss"], result.metrics["epoch"]]))
    ray.shutdown()
