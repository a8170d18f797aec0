"""Compile TransUNet and MicroSegNet into one graph and compare answers and gradients.

A program of its own, because the shape checks that pytest adds to the package are not what a user compiles.
"""

from __future__ import annotations

import sys

import torch

import ultrarefiner as ur


def everything(answer) -> list[torch.Tensor]:
    return [answer.logits, *answer.side_logits] if isinstance(answer, ur.MultiScaleLogits) else [answer]


def compare(backend: str, *, deep_supervision: bool) -> None:
    torch.manual_seed(0)
    network = ur.build_transunet("tiny", image_size=64, deep_supervision=deep_supervision, dropout=0.0)
    images = torch.rand(2, 1, 64, 64)
    results = []
    for run in (network, torch.compile(network, fullgraph=True, backend=backend)):
        answers = everything(run(images))
        gradients = torch.autograd.grad(sum(answer.square().mean() for answer in answers), list(network.parameters()))
        results.append([*answers, *gradients])
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-5)


if __name__ == "__main__":
    for deep in (False, True):
        compare(sys.argv[1], deep_supervision=deep)
