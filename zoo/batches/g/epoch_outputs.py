"""A trainer that keeps the outputs of all steps of an epoch for the metrics at its end."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(44)
EPOCHS, STEPS_PER_EPOCH = 3, 1500
BATCH, FEATURES, CLASSES = 32, 96, 500


class LitClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, CLASSES))
        self.teacher = nn.Linear(FEATURES, CLASSES).requires_grad_(False)
        self.training_outputs = []

    def training_step(self, x):
        labels = self.teacher(x).argmax(1)
        logits = self.net(x)
        loss = nn.functional.cross_entropy(logits, labels)
        self.training_outputs.append({"loss": loss.detach(), "logits": logits.detach(), "labels": labels})
        return loss

    def on_train_epoch_end(self):
        """Mean loss, and the accuracy over all outputs of the epoch."""
        loss = torch.stack([output["loss"] for output in self.training_outputs]).mean()
        hits = [output["logits"].argmax(1) == output["labels"] for output in self.training_outputs]
        self.training_outputs.clear()
        return loss.item(), torch.cat(hits).float().mean().item()


def main():
    model = LitClassifier()
    optimizer = torch.optim.AdamW(model.net.parameters(), lr=1e-3)
    for epoch in range(EPOCHS):
        for index in range(STEPS_PER_EPOCH):
            loss = model.training_step(torch.randn(BATCH, FEATURES))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if index % 250 == 0:
                print(f"step {epoch * STEPS_PER_EPOCH + index} loss {loss.item():.4f}", flush=True)
        loss, accuracy = model.on_train_epoch_end()
        print(f"epoch {epoch} mean loss {loss:.4f} accuracy {accuracy:.3f}", flush=True)
    print(f"{EPOCHS * STEPS_PER_EPOCH} steps")


if __name__ == "__main__":
    main()
