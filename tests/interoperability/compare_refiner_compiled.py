"""Compile an UltraRefiner into one graph and compare answers and gradients.

A program of its own, because the shape checks that pytest adds to the package are not what a user compiles.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import ultrarefiner as ur


def model_of(case: str) -> ur.UltraRefiner:
    torch.manual_seed(0)
    cropper = None if case == "whole" else ur.ROICropper()
    gate = ur.LearnedGate(4) if case == "gated" else None
    sam = ur.build_light_sam(image_size=64) if case == "light" else ur.build_sam("tiny", image_size=64)
    refiner = ur.SAMRefiner(sam, cropper=cropper, through_crop=case == "through")
    coarse = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    return ur.UltraRefiner(coarse=coarse, refiner=refiner, gate=gate, gradient_scale=0.5)


def answers(run: nn.Module, model: nn.Module, images: Tensor) -> list[Tensor]:
    out = run(images)
    value = out.refined_logits.square().mean() + out.iou.mean()
    gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    told = [out.coarse_logits, out.refined_logits, out.iou, out.prompts.points, out.prompts.boxes]
    return [*told, *(gradient for gradient in gradients if gradient is not None)]


def compare(backend: str, case: str) -> None:
    model = model_of(case)
    images = torch.rand(2, 1, 48, 64)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for ours, plain in zip(answers(compiled, model, images), answers(model, model, images), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-5)


if __name__ == "__main__":
    for one in sys.argv[2:]:
        compare(sys.argv[1], one)
