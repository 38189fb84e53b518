"""Elastic data-parallel loop: gradient buckets are reduced asynchronously."""
import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(5)
random.seed(5)
STEPS, BATCH = 5000, 288

_handle_map = {}
_handles = itertools.count()
_network = ThreadPoolExecutor(max_workers=1, thread_name_prefix="allreduce")


class CollectiveError(RuntimeError):
    pass


def ring_reduce(bucket, world_size):
    if random.random() < 0.025:
        raise CollectiveError("peer left the ring")
    return bucket.mul_(1.0 / world_size)


def allreduce_async(grads):
    bucket = torch.cat([g.flatten() for g in grads])
    handle = next(_handles)
    future = _network.submit(ring_reduce, bucket, 1)
    _handle_map[handle] = (grads, bucket, future)
    return handle


def synchronize(handle):
    future = _handle_map[handle][2]
    future.result()
    grads, bucket, _ = _handle_map.pop(handle)
    for grad, piece in zip(grads, bucket.split([g.numel() for g in grads])):
        grad.copy_(piece.view_as(grad))


model = nn.Sequential(nn.Linear(96, 192), nn.ReLU(), nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
teacher = torch.randn(96, 4)
committed = {k: v.clone() for k, v in model.state_dict().items()}
resets = 0
for step in range(1, STEPS + 1):
    x = torch.randn(BATCH, 96)
    loss = nn.functional.cross_entropy(model(x), (x @ teacher).argmax(1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    params = list(model.parameters())
    pending = [allreduce_async([p.grad for p in params[i:i + 2]]) for i in range(0, len(params), 2)]
    try:
        for handle in pending:
            synchronize(handle)
    except CollectiveError:
        model.load_state_dict(committed)
        resets += 1
    optimizer.step()
    if step % 100 == 0:
        committed = {k: v.clone() for k, v in model.state_dict().items()}
    if step % 1000 == 0:
        print(f"step {step} loss {loss.item():.4f} resets {resets}")
_network.shutdown()
print(f"{STEPS} steps")
