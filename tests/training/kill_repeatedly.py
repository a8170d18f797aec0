"""Train once undisturbed and once killed again and again; run by test_training_resume.py in a process of its own.

Usage: python kill_repeatedly.py FOLDER

It forks before PyTorch has started any thread, so each child starts at once and is a process that can really be killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.data import Augmentation, FittedCase
from ultrarefiner.training import CoarseRecipe, train


def run(folder: Path) -> None:
    """A run with everything that has a state: momentum, batch norm, dropout, augmentation, accumulation, stages."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(8, 1, 3, padding=1)
    )
    torch.manual_seed(os.getpid())  # whatever the caller drew before must not matter
    masks = [torch.zeros(1, 32, 32).index_fill_(1, torch.arange(4 + i, 14 + i), 1.0) for i in range(14)]
    cases = [FittedCase(str(i), mask * 0.7, mask, (32, 32), (32, 32)) for i, mask in enumerate(masks)]
    train(
        CoarseRecipe(network, learning_rate=0.01, augmentation=Augmentation(), frozen={"0": 1}),
        cases[:11],
        validation=cases[11:],
        folder=folder,
        epochs=6,
        batch_size=2,
        accumulate=2,
        checkpoint_every=1,
        log_every=2,
        tensorboard=False,
        accelerator="cpu",
    )


def fork(folder: Path) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run(folder)
            code = 0
        finally:
            os._exit(code)
    return pid


def wait_for_checkpoints(folder: Path, count: int, pid: int) -> None:
    """Wait until ``last.pt`` was replaced so many times, or the child has ended."""
    last, seen = folder / "last.pt", None
    while count and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        stamp = last.stat().st_ino if last.exists() else None
        count -= stamp != seen
        seen = stamp
        time.sleep(0.0005)


def main(folder: Path) -> None:
    _, status = os.waitpid(fork(folder / "whole"), 0)
    rng, kills, saved = random.Random(0), 0, set()
    while status == 0 and kills < 60:
        pid = fork(folder / "killed")
        # After some steps, or while it is still starting; then at a moment that nothing decides.
        wait_for_checkpoints(folder / "killed", rng.choice([0, 2, 3, 4]), pid)
        time.sleep(rng.uniform(0, 0.01))
        os.kill(pid, signal.SIGKILL)
        _, code = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(code):
            status = code
            break
        kills += 1
        for name in ("last.pt", "best.pt"):
            if (folder / "killed" / name).exists():
                content = read_tensors(folder / "killed" / name)  # raises if it is damaged
                saved.add(content["progress"]["step"] if name == "last.pt" else -1)
    (folder / "report.json").write_text(json.dumps({"kills": kills, "status": status, "saved": sorted(saved)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
