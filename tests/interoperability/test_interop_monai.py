"""MONAI's losses, metrics and MetaTensors, as they come."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.losses import DiceCELoss, DiceFocalLoss, DiceLoss, HausdorffDTLoss, TverskyLoss
from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDistanceMetric
from torch import Tensor, nn

import ultrarefiner as ur
from ultrarefiner.evaluation import segmentation_metrics

SIZE = (48, 64)


def model_of(
    gate: nn.Module | None = None, *, cropper: bool = True, policy: str = "sam", minimum_agreement: float = 0.0
) -> ur.UltraRefiner:
    torch.manual_seed(0)
    sam = ur.build_sam("tiny", image_size=64, input_policy=policy)
    prompts = ur.DifferentiablePromptExtractor(
        image_size=64, mask_style="gaussian", positive=ur.MeanShift(), negative=ur.FarCorner(), floor=0.02
    )
    refiner = ur.SAMRefiner(sam, prompts=prompts, cropper=ur.ROICropper() if cropper else None)
    return ur.UltraRefiner(
        coarse=ur.AtSize(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)), 32),
        refiner=refiner,
        gate=gate,
        acceptance=ur.AcceptanceRule(minimum_agreement=minimum_agreement),
    )


def meta_batch() -> tuple[MetaTensor, MetaTensor]:
    """Images and masks as MONAI's loader stacks them: each with an affine and a name of its own."""
    generator = torch.Generator().manual_seed(1)
    cases = []
    for index in range(2):
        affine = torch.diag(torch.tensor([0.5 + index, 0.7, 1.0, 1.0]))
        image = torch.rand(1, *SIZE, generator=generator)
        mask = (torch.rand(1, *SIZE, generator=generator) > 0.5).float()
        meta = {"filename_or_obj": f"case{index}.nii"}
        cases.append(
            {"image": MetaTensor(image, affine=affine, meta=meta), "mask": MetaTensor(mask, affine=affine, meta=meta)}
        )
    batch = list_data_collate(cases)
    return batch["image"], batch["mask"]


def plain(tensor: Tensor) -> Tensor:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


@pytest.mark.parametrize(
    "loss",
    [
        DiceLoss(sigmoid=True),
        DiceCELoss(sigmoid=True),
        DiceFocalLoss(sigmoid=True),
        TverskyLoss(sigmoid=True),
        HausdorffDTLoss(sigmoid=True),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_monais_losses_take_logits_and_send_a_gradient_to_the_coarse_network(loss: nn.Module) -> None:
    model = model_of()
    images, masks = (plain(part) for part in meta_batch())
    out = model(images)
    value = loss(out.refined_logits, masks) + loss(out.coarse_logits, masks)
    gradients = torch.autograd.grad(value, list(model.coarse.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].abs().max() > 0


def test_monais_losses_reach_the_coarse_network_through_the_refined_mask_alone() -> None:
    model = model_of()
    images, masks = (plain(part) for part in meta_batch())
    value = DiceCELoss(sigmoid=True)(model(images).refined_logits, masks)
    assert torch.autograd.grad(value, next(iter(model.coarse.parameters())))[0].abs().max() > 0


def test_monais_metrics_measure_the_refined_masks_as_ours_do() -> None:
    masks = torch.zeros(2, 1, *SIZE)
    masks[:, :, 10:30, 20:40] = 1
    images = plain(meta_batch()[0])
    with torch.no_grad():
        out = model_of(minimum_agreement=0.15).eval()(images)
    assert out.accepted.tolist() == [[True], [False]]
    refined, coarse = (mask >= 0.5 for mask in (out.refined_probability, out.coarse_probability))
    assert (refined != coarse).flatten(1).any(1).tolist() == [True, False]
    ours = [segmentation_metrics(mask, truth > 0.5) for mask, truth in zip(refined, masks, strict=True)]
    for name, metric in (
        ("dice", DiceMetric()),
        ("hd95", HausdorffDistanceMetric(percentile=95)),
        ("assd", SurfaceDistanceMetric(symmetric=True)),
    ):
        found = metric(y_pred=refined.float(), y=masks).flatten().tolist()
        assert found == pytest.approx([getattr(one, name) for one in ours], rel=1e-4), name
        assert metric.aggregate().item() == pytest.approx(sum(found) / 2, rel=1e-4)
    assert ours[0].dice != ours[1].dice


GATES = {"none": None, "uncertainty": ur.UncertaintyGate(), "learned": ur.LearnedGate(4)}


@pytest.mark.parametrize("policy", ["sam", "medsam"])
@pytest.mark.parametrize("gate", GATES)
def test_meta_tensors_give_the_numbers_of_plain_ones(gate: str, policy: str) -> None:
    images, _ = meta_batch()
    model = model_of(GATES[gate], cropper=policy == "sam", policy=policy, minimum_agreement=0.15).eval()
    with torch.no_grad():
        wrapped, expected = model(images), model(plain(images))
    for name in ("coarse_logits", "coarse_probability", "refined_logits", "refined_probability", "iou", "accepted"):
        assert torch.equal(plain(getattr(wrapped, name)), getattr(expected, name)), name
    for name in ("points", "labels", "boxes", "mask_logits", "valid"):
        assert torch.equal(plain(getattr(wrapped.prompts, name)), getattr(expected.prompts, name)), name


def test_every_part_takes_meta_tensors() -> None:
    images, masks = meta_batch()
    probability = images * 0.9
    sam = ur.build_sam("tiny", image_size=64)
    cropper = ur.ROICropper(size=32)
    boxes = cropper.locate(plain(probability))
    calls = [
        lambda x, p: ur.SAMRefiner(sam)(x, p).logits,
        lambda _, p: ur.DifferentiablePromptExtractor(image_size=64)(p).points,
        lambda _, p: cropper.locate(p),
        lambda x, _: cropper.crop(x, boxes),
        lambda _, p: cropper.crop_masks(p, boxes),
        lambda _, p: cropper.paste(cropper.crop_masks(p, boxes), boxes, size=SIZE, background=p),
        lambda x, _: ur.SAMInput(64)(x),
        lambda x, _: ur.MedSAMInput(64)(x),
        lambda x, p: ur.UncertaintyGate()(x, p, p),
        lambda _, p: ur.SimpleFailures()(p.round(), torch.Generator().manual_seed(0)),
    ]
    for number, call in enumerate(calls):
        assert torch.equal(plain(call(images, probability)), call(plain(images), plain(probability))), number
    logits = plain(images) - 0.5
    for loss in (ur.DiceBCELoss(), ur.DiceLoss(), ur.FocalLoss(), ur.BinaryCrossEntropyLoss()):
        assert torch.equal(plain(loss(logits, masks)), loss(logits, plain(masks)))
    for loss in (ur.QualityAwareLoss(), ur.PixelQualityAwareLoss()):
        expected = loss(logits, plain(masks), plain(probability))
        assert torch.equal(plain(loss(logits, masks, probability)), expected)


def test_gradients_through_meta_tensors_are_those_through_plain_ones() -> None:
    images, masks = meta_batch()
    found = []
    for one, truth in ((images, masks), (plain(images), plain(masks))):
        model = model_of()
        value = ur.DiceBCELoss()(model(one).refined_logits, truth)
        value.backward()
        found.append([plain(parameter.grad) for parameter in model.coarse.parameters()])
    for wrapped, expected in zip(*found, strict=True):
        assert torch.equal(wrapped, expected)


def test_masks_come_out_with_the_images_affine_and_name() -> None:
    images, _ = meta_batch()
    with torch.no_grad():
        out = model_of(GATES["uncertainty"]).eval()(images)
    for masks in (out.coarse_logits, out.refined_logits, out.refined_probability, out.gate):
        for index, (case, mask) in enumerate(zip(decollate_batch(images), decollate_batch(masks), strict=True)):
            assert isinstance(mask, MetaTensor)
            assert mask.shape == case.shape == (1, *SIZE)
            assert mask.affine[0, 0] == 0.5 + index
            assert torch.equal(mask.affine, case.affine)
            assert mask.meta["filename_or_obj"] == f"case{index}.nii"
