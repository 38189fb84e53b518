"""Per-sample gradient norms through module hooks, with a validation pass now and then."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(0)

STEPS = 4000
EVAL_EVERY = 100


def capture_activations(module, inputs, output):
    if not module.training:
        return
    module.activations.append(inputs[0].detach())


def capture_backprops(module, grad_input, grad_output):
    acts = module.activations.pop()
    per_sample = grad_output[0].pow(2).sum(1) * acts.pow(2).sum(1)
    module.sample_norms = per_sample.sqrt()


class Classifier(nn.Module):
    def __init__(self, dim=96, hidden=1024, classes=10):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x):
        hidden = torch.relu(self.fc1(x))
        return self.fc2(hidden)


def validate(model, batches=5):
    correct = total = 0
    with torch.no_grad():
        for _ in range(batches):
            x = torch.randn(256, 96)
            y = (x[:, :10] + 0.3 * torch.randn(256, 10)).argmax(1)
            correct += (model(x).argmax(1) == y).sum().item()
            total += len(y)
    return correct / total


model = Classifier()
model.fc2.activations = []
model.fc2.register_forward_hook(capture_activations)
model.fc2.register_full_backward_hook(capture_backprops)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

for step in range(1, STEPS + 1):
    x = torch.randn(256, 96)
    y = x[:, :10].argmax(1)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    scale = 1.0 / max(1.0, model.fc2.sample_norms.mean().item())
    for p in model.parameters():
        p.grad.mul_(scale)
    optimizer.step()
    if step % EVAL_EVERY == 0:
        acc = validate(model)
        if step % 400 == 0:
            print(f"step {step} loss {loss.item():.4f} val acc {acc:.3f}", flush=True)
