import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(8)
FEATURES, CLASSES = 256, 900


class TaskStream:
    """Each epoch brings a new task: a new random labelling of the same kind of inputs."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)

    def next_task(self):
        return torch.randn(FEATURES, CLASSES, generator=self.generator)

    def batch(self, task, n=48):
        x = torch.randn(n, FEATURES, generator=self.generator)
        return x, (x @ task).argmax(dim=1)


class ContinualLearner:
    def __init__(self):
        self.trunk = nn.Sequential(nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.head = None
        self.optimizer = torch.optim.SGD(self.trunk.parameters(), lr=0.02)
        self.scores = {}

    def start_task(self, lr=0.05):
        head = nn.Linear(256, CLASSES)
        self.optimizer.add_param_group({"params": list(head.parameters()), "lr": lr})
        self.head = head

    def fit(self, x, y):
        loss = nn.functional.cross_entropy(self.head(self.trunk(x)), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def accuracy(self, x, y):
        return (self.head(self.trunk(x)).argmax(1) == y).float().mean().item()


stream, learner = TaskStream(), ContinualLearner()
steps = 0
for epoch in range(40):
    task = stream.next_task()
    learner.start_task()
    for _ in range(130):
        loss = learner.fit(*stream.batch(task))
        steps += 1
    learner.scores[epoch] = learner.accuracy(*stream.batch(task, n=200))
    print(f"task {epoch}: loss {loss:.3f} accuracy {learner.scores[epoch]:.3f}")
print(f"mean accuracy {sum(learner.scores.values()) / len(learner.scores):.3f} after {steps} steps")
