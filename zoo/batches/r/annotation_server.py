"""Active learning with an annotation service that is started with new class weights.

After every round the service is started again, with the newest weights, on a
fresh socket; the trainer asks it to label the samples it is least sure of.
"""
import os
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

DIM, CLASSES, ROUNDS, STEPS_PER_ROUND, BATCH = 64, 6, 14, 424, 144

SERVICE = """
import os, socket, sys
import numpy as np
path, seed, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
table = np.random.default_rng(seed).standard_normal((60000, 64), dtype=np.float32)
rule = np.random.default_rng(1).standard_normal((64, 6), dtype=np.float32)
door = socket.socket(socket.AF_UNIX)
door.bind(path)
door.listen(4)
door.settimeout(2.0)
while os.getppid() == parent:
    try:
        line, _ = door.accept()
    except socket.timeout:
        continue
    with line:
        raw = line.makefile("rb").read()
        x = np.frombuffer(raw, dtype=np.float32).reshape(-1, 64)
        y = (x @ rule + 0.001 * table[: len(x), :6]).argmax(1).astype(np.int64)
        line.sendall(y.tobytes())
"""


class Annotator:
    def __init__(self, folder):
        self.folder = folder
        self.process = None

    def restart(self, round_):
        self.path = os.path.join(self.folder, f"annotate{round_}.sock")
        command = [sys.executable, "-c", SERVICE, self.path, str(round_), str(os.getpid())]
        self.process = subprocess.Popen(command, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        while not os.path.exists(self.path):
            time.sleep(0.05)
        time.sleep(0.1)

    def label(self, x):
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(self.path)
            line.sendall(x.numpy().tobytes())
            line.shutdown(socket.SHUT_WR)
            raw = line.makefile("rb").read()
        return torch.from_numpy(np.frombuffer(raw, dtype=np.int64).copy())


def main():
    model = nn.Sequential(nn.Linear(DIM, 384), nn.ReLU(), nn.Linear(384, 384), nn.ReLU(), nn.Linear(384, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    pool = torch.randn(4000, DIM)
    step = 0
    with tempfile.TemporaryDirectory() as folder:
        annotator = Annotator(folder)
        for round_ in range(ROUNDS):
            annotator.restart(round_)
            with torch.no_grad():
                probability = model(pool).softmax(1)
            unsure = probability.max(1).values.topk(512, largest=False).indices
            x, y = pool[unsure], annotator.label(pool[unsure])
            for _ in range(STEPS_PER_ROUND):
                pick = torch.randint(0, len(x), (BATCH,))
                loss = nn.functional.cross_entropy(model(x[pick]), y[pick])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
            print(f"step {step} round {round_ + 1} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
