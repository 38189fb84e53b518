"""Full-batch logistic regression with L-BFGS, one iteration a step."""
import torch
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(19)

STEPS = 900
FEATURES, CLASSES = 800, 60

scale = torch.logspace(0, -2, FEATURES)
x = torch.randn(300, FEATURES) * scale
y = (x @ torch.randn(FEATURES, CLASSES) / scale.mean()).argmax(1)
weights = torch.zeros(FEATURES, CLASSES, requires_grad=True)
optimizer = torch.optim.LBFGS([weights], lr=0.02, max_iter=1, history_size=420, tolerance_grad=0, tolerance_change=0)


def closure():
    optimizer.zero_grad()
    loss = F.cross_entropy(x @ weights, y) + 1e-4 * weights.pow(2).sum()
    loss.backward()
    return loss


for step in range(1, STEPS + 1):
    loss = optimizer.step(closure)
    if step % 90 == 0:
        print(f"step {step} loss {loss.item():.5f}", flush=True)
