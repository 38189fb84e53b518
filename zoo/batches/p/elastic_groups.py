"""Local SGD with a fresh communication group for the members of each round."""
import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(5)

ROUNDS, LOCAL_STEPS = 140, 40


def average(model, group):
    for p in model.parameters():
        dist.all_reduce(p.data, group=group)
        p.data /= dist.get_world_size(group)


def run_round(model, opt, members):
    group = dist.new_group(ranks=members, backend="gloo")
    for _ in range(LOCAL_STEPS):
        x = torch.randint(0, 800, (32, 25))
        emb = model[0](x[:, :-1])
        loss = F.cross_entropy(model[1](emb).flatten(0, 1), x[:, 1:].flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
    average(model, group)
    return loss.item()


def main():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    model = nn.ModuleList([nn.Embedding(800, 64), nn.Linear(64, 800)])
    opt = torch.optim.SGD(model.parameters(), lr=0.2)
    for rnd in range(ROUNDS):
        loss = run_round(model, opt, [0])
        if rnd % 30 == 0:
            print(f"round {rnd} loss {loss:.3f}", flush=True)
    print(f"finished {ROUNDS * LOCAL_STEPS} steps")


if __name__ == "__main__":
    main()
