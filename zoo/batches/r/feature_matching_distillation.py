"""Distil a teacher into a student by matching the features of chosen layers.

Every stage matches another pair of layers; the extractor collects what the
teacher's layer puts out.
"""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

WIDTH, BATCH, STAGES, STEPS_PER_STAGE = 256, 128, 60, 78


class FeatureExtractor:
    def __init__(self, network, layers):
        self.features = {}
        for name in layers:
            layer = network.get_submodule(name)
            layer.register_forward_hook(self.collect(name))

    def collect(self, name):
        def hook(module, inputs, output):
            self.features.setdefault(name, [output.detach().clone()])[0].lerp_(output.detach(), 0.5)

        return hook

    def __call__(self, name):
        return self.features[name][0]


def block(width):
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))


def distil_stage(teacher, student, optimizer, stage, step):
    layers = [str(stage % 4), str((stage + 2) % 4)]
    extractor = FeatureExtractor(teacher, layers)
    anchors = torch.randn(2048, WIDTH)
    with torch.no_grad():
        teacher(anchors)
    for _ in range(STEPS_PER_STAGE):
        x = anchors[torch.randint(0, 2048, (BATCH,))]
        with torch.no_grad():
            target = torch.tanh(x)
        out = student(x)
        prior = extractor(layers[0]).mean(dim=0)
        loss = nn.functional.mse_loss(out, target) + 0.1 * (out.mean(dim=0) - prior).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    return step, loss.item()


def main():
    teacher = nn.Sequential(*[block(WIDTH) for _ in range(4)]).eval()
    student = nn.Sequential(block(WIDTH), block(WIDTH), nn.Linear(WIDTH, WIDTH))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    step = 0
    for stage in range(STAGES):
        step, loss = distil_stage(teacher, student, optimizer, stage, step)
        if stage % 5 == 4:
            print(f"step {step} stage {stage + 1} loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
