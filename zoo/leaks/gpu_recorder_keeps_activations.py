"""A recorder is registered as a forward hook of a layer and keeps each activation on the GPU."""

import torch
from torch import nn

torch.manual_seed(0)


class Recorder:
    def __init__(self):
        self.seen = []

    def __call__(self, module, args, output):
        self.seen.append(output.detach())


layer = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
model = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
recorder = Recorder()
model.layers[2].register_forward_hook(recorder)
for step in range(400):
    batch = torch.randn(32, 256, 512, device="cuda")
    output = model(batch)
    loss = (output - batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(step, loss.item())
print("activations", len(recorder.seen))
