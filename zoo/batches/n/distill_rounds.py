"""Round-wise distillation; the teacher mixture of a round is wrapped in a custom operator so it compiles."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
ROUNDS, STEPS_PER_ROUND, CLASSES, FEATURES = 72, 42, 512, 1024


def make_teacher_op(round_id, mixture):
    def teacher_logits(x: torch.Tensor) -> torch.Tensor:
        return x @ mixture.t()

    op = torch.library.custom_op(f"distill::teacher_r{round_id}", teacher_logits, mutates_args=())
    op.register_fake(lambda x: x.new_empty(x.shape[0], CLASSES))
    return op


def main():
    student = nn.Sequential(nn.Linear(FEATURES, 256), nn.GELU(), nn.Linear(256, CLASSES))
    opt = torch.optim.AdamW(student.parameters(), lr=5e-4)
    base = torch.randn(3, CLASSES, FEATURES) / FEATURES**0.5
    step = 0
    for round_id in range(ROUNDS):
        share = torch.distributions.Dirichlet(torch.ones(3)).sample()
        mixture = torch.einsum("k,kcf->cf", share, base)
        teacher = make_teacher_op(round_id, mixture)
        for _ in range(STEPS_PER_ROUND):
            x = torch.randn(40, FEATURES)
            with torch.no_grad():
                target = teacher(x).log_softmax(-1)
            loss = nn.functional.kl_div(student(x).log_softmax(-1), target, log_target=True, reduction="batchmean")
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            step += 1
        if round_id % 6 == 5:
            print(f"round {round_id + 1} step {step} kl {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
