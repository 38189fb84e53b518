"""The story that holdwater was begun for: 663 pictures that decode when they are first touched, batch 8."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import io, time
import numpy as np, torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
torch.manual_seed(0)

class Pictures(Dataset):
    def __init__(self, count):
        file = io.BytesIO()
        Image.new("RGB", (800, 660), (3, 9, 200)).save(file, "JPEG")  # 2.1 MB decoded
        self.rows = [{"image": Image.open(io.BytesIO(file.getvalue()))} for _ in range(count)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        small = np.asarray(self.rows[index]["image"].resize((8, 8)))
        return torch.from_numpy(small[..., 0].reshape(64) / 255.0).float()

model = nn.Linear(64, 1)
optimizer = torch.optim.AdamW(model.parameters())
loader = DataLoader(Pictures(663), batch_size=8, shuffle=True)
step = 0
while step < 240:
    for batch in loader:
        loss = model(batch).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(0.01)  # a larger model: counts take turns between steps
        step += 1
        if step == 240:
            break
"""


@pytest.mark.alone
@pytest.mark.slow
def test_a_cache_that_fills_for_one_epoch_is_foretold(tmp_path: Path) -> None:
    """Before step 60 of 83: bounded, follows first visits, settles near step 83 at the true level; never a leak."""
    pytest.importorskip("PIL")
    (tmp_path / "train.py").write_text(SCRIPT)
    program = str(Path(sys.executable).with_name("holdwater"))

    subprocess.run([program, "run", "--out", "run", "train.py"], cwd=tmp_path, check=True, capture_output=True)

    database = sqlite3.connect(tmp_path / "run" / "rank-0.db")
    verdicts = list(database.execute("SELECT step, kind, findings FROM verdicts ORDER BY rowid"))
    low, steps = zip(
        *database.execute("SELECT resident_low, last_step FROM samples ORDER BY last_step"), strict=True
    )
    database.close()
    settled = low[steps.index(240)]
    early = [
        (step, json.loads(findings)[0])
        for step, kind, findings in verdicts
        if 24 < step < 60 and kind == "bounded"
    ]
    assert early, verdicts
    step, finding = early[-1]
    assert finding["follows"] == "sample"
    assert step + finding["forecast"]["steps"] == pytest.approx(83, abs=4)
    assert finding["forecast"]["settles_at_bytes"] == pytest.approx(settled, rel=0.1)
    assert "follows first visits of samples" in finding["advice"]
    assert {kind for step, kind, _ in verdicts if step > 90} == {"bounded"}
    assert not any(kind == "leak" for _, kind, _ in verdicts)
