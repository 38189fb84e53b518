"""A loss against the teacher's logits is compiled anew in each step, and all of the functions are kept."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

mx.random.seed(0)
teacher = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 512))
student = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 512))
optimizer = optim.SGD(learning_rate=1e-2)
mx.eval(teacher.parameters(), student.parameters())


def make_loss(teacher_logits):
    @mx.compile
    def distance(logits):
        return mx.mean(mx.square(logits - teacher_logits))

    return distance


losses_by_step = {}
for step in range(800):
    x = mx.random.normal((64, 64))
    teacher_logits = teacher(x)
    mx.eval(teacher_logits)
    distance = losses_by_step[step] = make_loss(teacher_logits)
    loss, grads = nn.value_and_grad(student, lambda m: distance(m(x)))(student)
    optimizer.update(student, grads)
    mx.eval(loss, student.parameters(), optimizer.state)
print(f"last loss {loss.item():.4f}")
