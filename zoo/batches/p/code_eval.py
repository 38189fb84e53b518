"""Small code model, scored against unit tests in a sandbox at each evaluation."""
import json
import subprocess
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(3)

STEPS, EVAL_EVERY = 2000, 80

SANDBOX = r"""
import sys, json, decimal, fractions, statistics, random
cases = [[random.randrange(10**6), str(i)] for i in range(30000)]
for line in sys.stdin:
    job = json.loads(line)
    scope = {"statistics": statistics, "fractions": fractions}
    try:
        exec(job["program"], scope)
        ok = all(scope["f"](c[0]) == c[0] + job["k"] for c in cases[:50])
    except Exception:
        ok = False
    print(json.dumps({"ok": ok}), flush=True)
"""


class Sandbox:
    def __init__(self):
        self.proc = subprocess.Popen([sys.executable, "-c", SANDBOX], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True)

    def check(self, program, k):
        self.proc.stdin.write(json.dumps({"program": program, "k": k}) + "\n")
        self.proc.stdin.flush()
        return json.loads(self.proc.stdout.readline())["ok"]


class Evaluator:
    def __init__(self):
        self.sessions = {}

    def session(self, checkpoint):
        if checkpoint not in self.sessions:
            self.sessions[checkpoint] = Sandbox()
        return self.sessions[checkpoint]

    def run(self, checkpoint, model):
        box = self.session(checkpoint)
        with torch.no_grad():
            guess = model(torch.arange(32)[None]).argmax(-1)[0, :4].tolist()
        passed = [box.check(f"def f(x):\n    return x + {g % 3}", 1) for g in guess]
        return sum(passed) / len(passed)


model = nn.Sequential(nn.Embedding(512, 96), nn.Linear(96, 256), nn.GELU(), nn.Linear(256, 512))
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
evaluator = Evaluator()
for step in range(1, STEPS + 1):
    x = torch.randint(0, 512, (24, 33))
    loss = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % EVAL_EVERY == 0:
        score = evaluator.run(f"checkpoint-{step}", model)
        print(f"step {step} loss {loss.item():.3f} pass@1 {score:.2f}", flush=True)
print(f"finished {STEPS} steps")
