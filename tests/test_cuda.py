"""What only a GPU can show: the same answers, no hidden wait, gradients, mixed precision."""

from __future__ import annotations

import pytest
import torch
from strategies import lesion
from torch import Tensor

import ultrarefiner as ur

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def refiner(cropper: ur.ROICropper | None) -> ur.SAMRefiner:
    torch.manual_seed(0)
    sam = ur.build_sam("tiny", image_size=64)
    return ur.SAMRefiner(sam, prompts=ur.DifferentiablePromptExtractor(positive=ur.MeanShift()), cropper=cropper)


def inputs() -> tuple[Tensor, Tensor]:
    masks = torch.stack([0.9 * lesion(40, 56, (15 + b, 25), (6, 9)) for b in range(3)])[:, None]
    return torch.rand(3, 1, 80, 112, generator=torch.Generator().manual_seed(0)), masks


@pytest.mark.parametrize("cropper", [None, ur.ROICropper()], ids=["whole", "roi"])
def test_the_same_answer_as_on_a_cpu(cropper: ur.ROICropper | None) -> None:
    module, (images, masks) = refiner(cropper), inputs()
    expected = module(images, masks).logits
    found = module.cuda()(images.cuda(), masks.cuda()).logits.cpu()
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("cropper", [None, ur.ROICropper()], ids=["whole", "roi"])
def test_nothing_waits_for_the_device(cropper: ur.ROICropper | None) -> None:
    module = refiner(cropper).cuda()
    images, masks = (tensor.cuda() for tensor in inputs())
    masks.requires_grad_()
    module(images, masks).logits.mean().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        module(images, masks).logits.mean().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_is_finite_and_close(dtype: torch.dtype) -> None:
    module = refiner(ur.ROICropper()).cuda()
    images, masks = (tensor.cuda() for tensor in inputs())
    expected = module(images, masks)
    with torch.autocast("cuda", dtype):
        found = module(images, masks)
    assert torch.isfinite(found.logits).all()
    torch.testing.assert_close(found.prompts.points, expected.prompts.points)
    torch.testing.assert_close(found.prompts.boxes, expected.prompts.boxes)


def test_gradcheck() -> None:
    module = refiner(ur.ROICropper(expand=0.02, sigmas=1.5)).double().cuda()
    module.through_crop = True
    mask = torch.nn.functional.avg_pool2d(0.9 * lesion(10, 12, (5, 6), (3, 4))[None, None], 3, 1, 1) + 0.02
    image = torch.rand(1, 1, 20, 24, dtype=torch.float64, device="cuda")
    leaf = mask.double().cuda().requires_grad_()
    # The backward of grid_sample adds atomically on a GPU.
    assert torch.autograd.gradcheck(
        lambda p: module(image, p).logits, leaf, eps=1e-7, atol=1e-3, rtol=1e-3, nondet_tol=1e-6, fast_mode=True
    )


def coarse() -> ur.TransUNet:
    torch.manual_seed(0)
    return ur.build_microsegnet("tiny", image_size=64).eval()


def test_transunet_answers_as_on_a_cpu() -> None:
    network, images = coarse(), torch.rand(2, 1, 64, 96)
    expected = network(images)
    found = network.cuda()(images.cuda())
    torch.testing.assert_close(found.logits.cpu(), expected.logits, atol=2e-3, rtol=1e-3)


def test_deep_supervision_does_not_wait_for_the_device() -> None:
    network, loss = coarse().cuda(), ur.DeepSupervision.paper()
    images, masks = torch.rand(2, 1, 64, 64).cuda(), torch.zeros(2, 1, 64, 64).cuda()
    masks[..., 20:40, 20:40] = 1
    other = masks.roll(2, -1)
    loss(network(images), masks, other).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            answer = network(images)
        loss(answer, masks, other).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)
