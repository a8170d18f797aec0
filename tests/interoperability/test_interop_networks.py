"""Networks of other libraries as the coarse network: built in a line or two, trained a step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace

import monai.networks.nets as monai_nets
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

import ultrarefiner as ur
from ultrarefiner.data import Batch
from ultrarefiner.networks import LogitsOf, StandardisedInput
from ultrarefiner.training import CoarseRecipe, JointRecipe
from ultrarefiner.types import MultiScaleLogits

UNET = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1}
SMP = {"encoder_weights": None, "in_channels": 1}

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "smp Unet": lambda: smp.Unet("mobilenet_v2", **SMP),
    "smp FPN": lambda: smp.FPN("mobilenet_v2", **SMP),
    "smp DeepLabV3Plus": lambda: smp.DeepLabV3Plus("mobilenet_v2", **SMP),
    "smp Segformer": lambda: smp.Segformer("mit_b0", encoder_weights=None, in_channels=3),
    "monai UNet": lambda: monai_nets.UNet(**UNET, channels=(4, 8, 16), strides=(2, 2)),
    "monai BasicUNet": lambda: monai_nets.BasicUNet(**UNET, features=(4, 4, 8, 8, 8, 4)),
    "monai AttentionUnet": lambda: monai_nets.AttentionUnet(**UNET, channels=(4, 8, 16), strides=(2, 2)),
    "monai SwinUNETR": lambda: monai_nets.SwinUNETR(in_channels=1, out_channels=1, feature_size=12, spatial_dims=2),
    "monai SegResNet": lambda: monai_nets.SegResNet(**UNET, init_filters=8),
    "monai BasicUNetPlusPlus": lambda: monai_nets.BasicUNetPlusPlus(**UNET, features=(4, 4, 8, 8, 8, 4)),
    "monai DynUNet": lambda: monai_nets.DynUNet(
        **UNET, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=[4, 8, 16]
    ),
}
"""Five lines make a system of each; see `system_of`."""

WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "smp Segformer": StandardisedInput,
    "monai BasicUNetPlusPlus": LogitsOf,
}


def system_of(name: str) -> ur.UltraRefiner:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    coarse = ur.AtSize(WRAPPED.get(name, lambda same: same)(network), 64)
    refiner = ur.SAMRefiner(ur.build_sam("tiny", image_size=64), cropper=ur.ROICropper(expand=0.2))
    return ur.UltraRefiner(coarse=coarse, refiner=refiner)


def batch_of(images: Tensor) -> Batch:
    masks = torch.zeros_like(images)
    masks[..., 20:40, 20:40] = 1
    sizes = torch.tensor([images.shape[-2:]] * len(images))
    return Batch(images, masks, tuple("ab"), sizes, sizes)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_segments_is_refined_and_learns(name: str) -> None:
    model = system_of(name)
    batch = batch_of(torch.rand(2, 1, 50, 70, generator=torch.Generator().manual_seed(0)))
    model.train()
    refined_alone = ur.DiceBCELoss()(model(batch.images).refined_logits, batch.masks)
    weights = list(model.coarse.parameters())
    reached = [g is not None and bool(g.any()) for g in torch.autograd.grad(refined_alone, weights, allow_unused=True)]
    assert sum(reached) > 0.8 * len(reached), "through prompts and SAM, without a loss on the coarse mask"
    recipe = JointRecipe(model, coarse_learning_rate=1e-3, refiner_learning_rate=1e-3, augmentation=None)
    optimizer = recipe.optimizer()
    before = [parameter.detach().clone() for parameter in model.coarse.parameters()]
    recipe.step(batch, torch.Generator().manual_seed(0)).loss.backward()
    optimizer.step()
    moved = [not torch.equal(old, new) for old, new in zip(before, model.coarse.parameters(), strict=True)]
    assert sum(moved) > 0.8 * len(moved)
    with torch.no_grad():
        out = model.eval()(batch.images)
    assert out.coarse_logits.shape == out.refined_logits.shape == (2, 1, 50, 70)
    assert out.refined_logits.isfinite().all()


def test_softmax_networks_are_read_as_a_lesion() -> None:
    torch.manual_seed(0)
    network = monai_nets.BasicUNet(2, 1, 2, features=(4, 4, 8, 8, 8, 4)).eval()
    images = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        expected = network(images).softmax(1)[:, 1:]
        found = ur.ForegroundLogits(network)(images).sigmoid()
    torch.testing.assert_close(found, expected)


def test_standardised_input_is_what_a_backbone_was_trained_on() -> None:
    grey, mean, std = torch.rand(2, 1, 4, 4), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    found = StandardisedInput(nn.Identity(), mean=mean, std=std)(grey)
    for channel in range(3):
        torch.testing.assert_close(found[:, channel], (grey[:, 0] - mean[channel]) / std[channel])
    colour = torch.rand(1, 3, 4, 4)
    imagenet = (colour - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    torch.testing.assert_close(StandardisedInput(nn.Identity())(colour), imagenet)
    assert StandardisedInput(nn.Identity()).double()(colour.double()).dtype == torch.float64


def test_standardised_input_refuses_what_is_no_statistic() -> None:
    with pytest.raises(ValueError, match=r"std must be three finite numbers above 0, one for each channel, but it is"):
        StandardisedInput(nn.Identity(), std=(1.0, 0.0, 1.0))


def test_standardised_input_refuses_what_is_no_image() -> None:
    with pytest.raises(ValueError, match=r"images must have 1 \(grey\) or 3 \(RGB\) channels in dimension 1, but its"):
        StandardisedInput(nn.Identity())(torch.rand(1, 2, 4, 4))


class Answers(nn.Module):
    """A network that answers with what it was given."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> object:
        return self.answer


SMALL, MIDDLE, LARGE = (torch.full((2, 1, side, side), float(side)) for side in (4, 8, 16))


@pytest.mark.parametrize(
    "answer",
    [
        LARGE,
        OrderedDict(out=LARGE, aux=SMALL),
        {"logits": LARGE},
        SimpleNamespace(loss=None, logits=LARGE),
        [LARGE],
        (LARGE,),
    ],
)
def test_logits_are_found_in_an_answer(answer: object) -> None:
    assert LogitsOf(Answers(answer))(LARGE) is LARGE


@pytest.mark.parametrize("answer", [[LARGE, MIDDLE, SMALL], (SMALL, MIDDLE, LARGE), {"out": [MIDDLE, LARGE, SMALL]}])
def test_masks_at_several_scales_become_side_logits_from_coarse_to_fine(answer: object) -> None:
    found = LogitsOf(Answers(answer))(LARGE)
    assert found.logits is LARGE
    assert [side.shape[-1] for side in found.side_logits] == [4, 8]


def test_stacked_masks_are_taken_apart() -> None:
    stacked = torch.stack([LARGE, LARGE + 1, LARGE + 2], 1)
    found = LogitsOf(Answers(stacked))(LARGE)
    assert torch.equal(found.logits, LARGE)
    assert [side[0, 0, 0, 0].item() for side in found.side_logits] == [18, 17]
    same = MultiScaleLogits(LARGE, (SMALL,))
    assert LogitsOf(Answers(same))(LARGE) is same


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"masks": LARGE}, "a dictionary of masks"),
        ((LARGE, torch.zeros(2, 3)), r"a tuple of \[\(2, 1, 16, 16\), \(2, 3\)\]"),
        (torch.zeros(2, 3), r"a tensor of shape \(2, 3\)"),
        (SimpleNamespace(), "a SimpleNamespace"),
        ([], "a list of"),
    ],
)
def test_an_answer_without_logits_is_refused(answer: object, told: str) -> None:
    with pytest.raises(ValueError, match=f"network must return logits.*but it returned {told}.*wrap it in a module"):
        LogitsOf(Answers(answer))(LARGE)


def test_deep_supervision_of_monais_networks_trains_with_ours() -> None:
    torch.manual_seed(0)
    network = monai_nets.DynUNet(
        **UNET,
        kernel_size=[3, 3, 3, 3],
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2, 2, 2],
        filters=[4, 4, 8, 8],
        deep_supervision=True,
        deep_supr_num=2,
    )
    coarse = LogitsOf(network)
    recipe = CoarseRecipe(coarse, loss=ur.DeepSupervision(ur.DiceBCELoss()), augmentation=None)
    batch = batch_of(torch.rand(2, 1, 64, 64))
    coarse.train()
    assert len(coarse(batch.images).side_logits) == 2
    recipe.step(batch, torch.Generator()).loss.backward()
    missing = [name for name, parameter in coarse.named_parameters() if parameter.grad is None]
    assert not missing, "the side heads learn, too"
    assert isinstance(coarse.eval()(batch.images), Tensor)


@pytest.mark.parametrize("wrapper", [StandardisedInput, LogitsOf])
def test_wrappers_say_what_they_are_and_are_rebuilt(wrapper: type[nn.Module], tmp_path) -> None:
    torch.manual_seed(0)
    coarse = wrapper(ur.build_transunet("tiny", image_size=64))
    model = ur.UltraRefiner(coarse=coarse, refiner=ur.SAMRefiner(ur.build_sam("tiny", image_size=64))).eval()
    again = ur.UltraRefiner.from_pretrained(model.save_pretrained(tmp_path))
    assert type(again.coarse) is wrapper
    assert again.coarse.settings() == coarse.settings()
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.coarse(images), coarse(images))
    assert LogitsOf(nn.Identity()).settings() == {"network": "Identity"}
    assert "mean=" in repr(StandardisedInput(nn.Identity()))
