"""CTC training; each utterance is decoded greedily and logs under its own name."""
import logging
import random
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)
random.seed(0)
logging.basicConfig(level=logging.WARNING, format="%(name)s %(levelname)s %(message)s")
log = logging.getLogger("asr.train")
log.setLevel(logging.INFO)

STEPS = 2400
BATCH = 24
BLANK = 0


class GreedyDecoder:
    def __init__(self, utterance):
        self.log = logging.getLogger("asr.decode").getChild(utterance)
        self.log.addHandler(logging.NullHandler())

    def __call__(self, ids):
        self.log.debug("frames %d", len(ids))
        out, last = [], BLANK
        for i in ids:
            if i != last and i != BLANK:
                out.append(i)
            last = i
        if len(out) > len(ids):
            self.log.warning("more symbols than frames")
        return out


class CTCNet(nn.Module):
    def __init__(self, vocab=29):
        super().__init__()
        self.conv = nn.Conv1d(40, 48, 5, stride=2, padding=2)
        self.rnn = nn.GRU(48, 48, batch_first=True)
        self.out = nn.Linear(48, vocab)

    def forward(self, x):
        y = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.out(self.rnn(y)[0]).log_softmax(-1)


def main():
    net = CTCNet()
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    ctc = nn.CTCLoss(blank=BLANK)
    start = time.time()
    for step in range(STEPS):
        frames = torch.randn(BATCH, 32, 40)
        target = torch.randint(1, 29, (BATCH, 6))
        logp = net(frames)
        loss = ctc(logp.transpose(0, 1), target, torch.full((BATCH,), 16), torch.full((BATCH,), 6))
        opt.zero_grad()
        loss.backward()
        opt.step()
        symbols = 0
        for n, ids in enumerate(logp.argmax(-1).tolist()):
            utterance = f"spk{random.randrange(10**4):04d}-session{step:06d}-utt{n:03d}"
            symbols += len(GreedyDecoder(utterance)(ids))
        if step % 200 == 0:
            log.info("step %d loss %.3f symbols %d %.1fs", step, loss.item(), symbols, time.time() - start)


if __name__ == "__main__":
    main()
