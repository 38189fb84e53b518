"""A regressor whose reports grow richer: each stage of the run brings another kind of report."""
import io

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(35)
STEPS = 3600
REPORT_EVERY = 60
FEATURES = 64


def residuals_table(errors, step):
    import pandas as pd

    frame = pd.DataFrame({"error": errors, "decile": pd.qcut(errors, 10, labels=False)})
    return frame.groupby("decile")["error"].mean().to_string()


def normality(errors, step):
    from scipy import stats

    return f"step {step} normality {stats.normaltest(errors).pvalue:.4f}"


def histogram(errors, step):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4, 3))
    axes.hist(errors, bins=40)
    axes.set_title(f"step {step}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return f"picture of {buffer.tell()} bytes"


def model_card(errors, step):
    from transformers import BertConfig

    config = BertConfig(hidden_size=FEATURES, num_hidden_layers=1, num_attention_heads=4)
    return f"step {step} {len(config.to_json_string())} characters"


STAGES = {300: residuals_table, 780: normality, 1260: histogram, 1740: model_card}


def main():
    model = nn.Sequential(nn.Linear(FEATURES, 320), nn.GELU(), nn.Linear(320, 320), nn.GELU(), nn.Linear(320, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    weights = torch.randn(FEATURES, 1) / FEATURES ** 0.5
    for step in range(STEPS):
        x = torch.randn(64, FEATURES)
        error = model(x) - torch.sin(x @ weights)
        loss = error.pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % REPORT_EVERY == 0:
            with torch.no_grad():
                x = torch.randn(2000, FEATURES)
                errors = (model(x) - torch.sin(x @ weights)).squeeze(1).numpy()
            for report in [report for start, report in STAGES.items() if start <= step]:
                report(errors, step)
        if step % 300 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
