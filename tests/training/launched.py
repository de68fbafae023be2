"""What a notebook does, as a program: compute something, then train in processes that it forks."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import notebook_launcher
from toy_method import GivenCodes, Pictures, ToyConfig
from two_processes import RUN

from tutorial_lib.training.loop import train


def run(folder: str) -> None:
    torch.set_num_threads(1)  # the threads of the program that forks are not there any more
    torch.manual_seed(0)
    train(GivenCodes(ToyConfig()), Pictures(), RUN, Path(folder) / "run", progress=False)


if __name__ == "__main__":
    torch.set_num_threads(2)
    layer = torch.nn.Conv2d(3, 8, 3)
    layer(torch.randn(8, 3, 64, 64)).sum().backward()
    notebook_launcher(run, (sys.argv[1],), num_processes=2, use_port=sys.argv[2])
