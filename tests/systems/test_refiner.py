"""SAMRefiner end to end on the tiny SAM: gradients, batches, frames, embeddings, and every kind of wrong input."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from strategies import degenerate_masks, lesion, soft_masks
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.losses import DiceBCELoss
from ultrarefiner.prompts import BoxBackground, Centroid, DifferentiablePromptExtractor, MeanShift
from ultrarefiner.refinement import BestSelection, ROICropper, SoftSelection
from ultrarefiner.sam import SAM, MedSAMInput, SAMInput, build_sam
from ultrarefiner.systems import SAMRefiner
from ultrarefiner.types import Refinement


def tiny(size: int = 64, policy: str = "sam") -> SAM:
    torch.manual_seed(0)
    return build_sam("tiny", image_size=size, input_policy=policy)


def croppers() -> list[ROICropper | None]:
    return [None, ROICropper(expand=0.02, sigmas=1.5)]


@pytest.mark.parametrize("cropper", croppers(), ids=["whole", "roi"])
@pytest.mark.parametrize("policy", ["sam", "medsam"])
@given(probability=soft_masks(images=1, masks=2, side=9))
@settings(deadline=None, max_examples=2)
def test_gradcheck_of_the_whole_refiner(cropper: ROICropper | None, policy: str, probability: Tensor) -> None:
    refiner = SAMRefiner(tiny(32, policy).double(), cropper=cropper, through_crop=True)
    images = functional.avg_pool2d(torch.rand(1, 1, 24, 28, dtype=torch.float64), 5, 1, 2)

    def refined(p: Tensor) -> tuple[Tensor, Tensor]:
        refinement = refiner(images, p)
        return refinement.logits, refinement.iou

    assert torch.autograd.gradcheck(refined, probability.requires_grad_(), eps=1e-7, atol=1e-3, rtol=1e-3)


def same(first: Refinement, second: Refinement) -> None:
    for one, two in ((first.logits, second.logits), (first.iou, second.iou)):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cropper", croppers(), ids=["whole", "roi"])
def test_batch_masks_and_order(cropper: ROICropper | None) -> None:
    refiner = SAMRefiner(tiny(), cropper=cropper)
    images = torch.rand(3, 1, 40, 56)
    probability = torch.stack(
        [torch.stack([0.9 * lesion(40, 56, (12 + 4 * b, 20 + 9 * k), (6, 8)) for k in range(2)]) for b in range(3)]
    )
    together = refiner(images, probability)
    for b, k in itertools.product(range(3), range(2)):
        alone = refiner(images[b : b + 1], probability[b : b + 1, k : k + 1])
        torch.testing.assert_close(alone.logits[0, 0], together.logits[b, k], atol=1e-4, rtol=1e-4)
    order = torch.tensor([2, 0, 1])
    permuted = refiner(images[order], probability[order].flip(1))
    torch.testing.assert_close(permuted.logits, together.logits[order].flip(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cropper", croppers(), ids=["whole", "roi"])
@pytest.mark.parametrize("name", list(degenerate_masks()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_degenerate_masks(cropper: ROICropper | None, name: str, dtype: torch.dtype) -> None:
    probability = degenerate_masks()[name].to(dtype).requires_grad_()
    refinement = SAMRefiner(tiny(), cropper=cropper)(torch.rand(1, 1, 24, 32), probability)
    assert torch.isfinite(refinement.logits).all()
    refinement.logits.float().sum().backward()
    assert torch.isfinite(probability.grad).all()
    if "empty" in name:
        torch.testing.assert_close(torch.sigmoid(refinement.logits), probability.detach().float(), atol=2e-6, rtol=0)
        assert refinement.iou.item() == 0


class Echo(nn.Module):
    """A mask decoder that answers with the mask prompt it was given: a refiner that returns its input."""

    def __init__(self, extractor: DifferentiablePromptExtractor) -> None:
        super().__init__()
        self.extractor = extractor
        extractor.register_forward_hook(lambda module, inputs, prompts: setattr(self, "seen", prompts))

    def forward(self, *, image_embeddings: Tensor, dense_prompt_embeddings: Tensor, **others: object) -> tuple:
        masks = self.seen.mask_logits.flatten(0, 1)[:, None]
        return masks.expand(-1, 3, -1, -1), masks.new_ones(len(masks), 3)


@pytest.mark.parametrize("expand", [0.2, 0.3, 0.5])
@pytest.mark.parametrize("radius", [50, 100, 200, 300])
def test_a_perfect_mask_with_roi_has_no_loss(radius: int, expand: float) -> None:
    """The published code pastes logit 0 outside the region: BCE + Dice of a perfect mask is then 1.4 to 1.6."""
    sam = build_sam("tiny", image_size=1024)
    extractor = DifferentiablePromptExtractor()
    sam.mask_decoder = Echo(extractor)
    sam.image_encoder = nn.Sequential(nn.AvgPool2d(16), nn.Conv2d(3, 64, 1))
    refiner = SAMRefiner(sam, prompts=extractor, cropper=ROICropper(expand=expand))
    truth = lesion(1024, 1024, (512, 512), (radius, radius))[None, None]
    with torch.no_grad():
        refinement = refiner(torch.rand(1, 1, 1024, 1024), truth)
        assert DiceBCELoss()(refinement.logits, truth).item() < 0.01


def test_outside_the_region_is_the_coarse_mask() -> None:
    probability = (0.8 * lesion(60, 80, (30, 30), (6, 6))).clamp(min=0.02)[None, None]
    refinement = SAMRefiner(tiny(), cropper=ROICropper(floor=0.05))(torch.rand(1, 1, 60, 80), probability)
    x0, y0, x1, y1 = refinement.boxes[0, 0].tolist()
    outside = torch.ones(60, 80, dtype=torch.bool)
    outside[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = False
    assert outside.sum() > 2000
    torch.testing.assert_close(refinement.logits[0, 0][outside], torch.logit(probability)[0, 0][outside])


def test_the_crop_is_taken_from_the_image_at_its_own_resolution() -> None:
    """Fine stripes that a 64-pixel copy of the image would lose are seen by the encoder."""
    refiner = SAMRefiner(tiny(), cropper=ROICropper(expand=0.0))
    seen = []
    refiner.sam.image_encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    stripes = ((torch.arange(512) // 4) % 2).float().expand(1, 1, 512, 512)
    refiner(stripes, lesion(64, 64, (32, 32), (3, 3))[None, None])
    assert seen[0].std() > 1.5


@pytest.mark.parametrize("cropper", croppers(), ids=["whole", "roi"])
def test_embeddings_stand_in_for_images(cropper: ROICropper | None) -> None:
    refiner = SAMRefiner(tiny(), cropper=cropper)
    images, probability = (
        torch.rand(2, 1, 50, 60),
        torch.stack([lesion(25, 30, (12, 15), (5, 6))] * 2)[:, None],
    )
    boxes = None if cropper is None else cropper.locate(probability, (50, 60))
    embeddings = refiner.encode(images, boxes)
    again = refiner(None, probability, embeddings=embeddings, boxes=boxes, image_size=(50, 60))
    same(again, refiner(images, probability))


def test_a_frozen_encoder_has_no_graph_and_the_mask_still_has_its_gradient() -> None:
    sam = tiny()
    sam.requires_grad_(False)
    probability = (0.9 * lesion(32, 32, (16, 14), (6, 7)))[None, None]
    gradients = []
    for through in (False, True):
        leaf = probability.clone().requires_grad_()
        refiner = SAMRefiner(sam, cropper=ROICropper(), through_crop=through)
        boxes = refiner.cropper.locate(leaf)
        assert refiner.encode(torch.rand(1, 1, 32, 32), boxes).requires_grad == through
        torch.manual_seed(1)
        refiner(torch.rand(1, 1, 32, 32), leaf).logits.sum().backward()
        gradients.append(leaf.grad)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert not torch.allclose(*gradients)


def test_training_mode_of_the_encoder_changes_nothing() -> None:
    """The published code tied gradients to ``encoder.training``."""
    refiner = SAMRefiner(tiny(), cropper=ROICropper())
    images, probability = torch.rand(1, 1, 32, 32), (0.9 * lesion(32, 32, (16, 14), (6, 7)))[None, None]
    same(refiner.train()(images, probability), refiner.eval()(images, probability))
    with torch.no_grad():
        assert not refiner.train()(images, probability).logits.requires_grad


def test_masks_meet_sams_candidates_in_its_frame() -> None:
    for cropper in croppers():
        refiner = SAMRefiner(tiny(), cropper=cropper)
        truth = lesion(40, 80, (20, 30), (8, 10))[None, None]
        boxes = None if cropper is None else cropper.locate(truth)
        low = refiner.in_sam_frame(truth, boxes)
        assert low.shape == (1, 1, 16, 16)
        assert low.min() >= 0
        assert low.max() <= 1
        if cropper is None:  # 80 x 40 fills the upper half of SAM's padded square
            assert low[0, 0, 8:].abs().max() == 0
        else:
            expected = functional.adaptive_avg_pool2d(cropper.crop_masks(truth, boxes, size=64), 16)
            torch.testing.assert_close(low, expected, atol=0.3, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": DifferentiablePromptExtractor(mask_style="gaussian")},
        {"prompts": DifferentiablePromptExtractor(positive=MeanShift(), negative=None)},
        {"cropper": ROICropper()},
        {"selection": BestSelection()},
        {"selection": SoftSelection(3.0)},
        {"input_policy": MedSAMInput(64)},
    ],
    ids=lambda change: "-".join(change),
)
def test_every_part_matters(change: dict[str, object]) -> None:
    probability = (0.9 * lesion(40, 56, (16, 30), (6, 12))).clamp(min=0.01)[None, None]
    images = torch.rand(1, 1, 40, 56, generator=torch.Generator().manual_seed(0))
    plain = SAMRefiner(tiny(), prompts=DifferentiablePromptExtractor(positive=Centroid(), negative=BoxBackground()))
    changed = SAMRefiner(tiny(), **change)
    assert not torch.allclose(plain(images, probability).logits, changed(images, probability).logits)
    assert plain.settings() != changed.settings()


def test_state_dict_holds_every_key_once() -> None:
    keys = list(SAMRefiner(tiny(), cropper=ROICropper()).state_dict())
    assert all(key.startswith("sam.") for key in keys)
    assert len(keys) == len(tiny().state_dict())


def test_a_foreign_sam_must_name_its_input() -> None:
    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sam = tiny()
            self.image_encoder, self.prompt_encoder, self.mask_decoder = (
                sam.image_encoder,
                sam.prompt_encoder,
                sam.mask_decoder,
            )

    with pytest.raises(ValueError, match=r"input_policy must be given for Foreign.*SAMInput.*MedSAMInput"):
        SAMRefiner(Foreign())
    probability = lesion(32, 32, (16, 16), (5, 5))[None, None]
    images = torch.rand(1, 3, 32, 32)
    foreign = SAMRefiner(Foreign(), input_policy=SAMInput(64))
    same(foreign(images, probability), SAMRefiner(tiny())(images, probability))
    assert foreign.settings()["sam"]["name"] == "Foreign"


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("images", "probability", "options", "sentence"),
    [
        (
            torch.zeros(1, 8, 8),
            torch.zeros(1, 1, 8, 8),
            {},
            r"images must be \(b, 1 or 3, h, w\).*\(1, 8, 8\)",
        ),
        (torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8), {}, r"1 \(grey\) or 3 \(RGB\) channels"),
        (
            torch.full((1, 1, 8, 8), 255.0),
            torch.zeros(1, 1, 8, 8),
            {},
            r"images must lie in \[0, 1\].*divide by",
        ),
        (torch.full((1, 1, 8, 8), torch.nan), torch.zeros(1, 1, 8, 8), {}, "images must not hold NaN"),
        (torch.zeros(1, 1, 8, 8).int(), torch.zeros(1, 1, 8, 8), {}, "images must be floating point"),
        (torch.zeros(1, 1, 8, 8), torch.zeros(8, 8), {}, r"probability must be \(b, k, h, w\)"),
        (torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), -3.0), {}, "if these are logits"),
        (torch.zeros(3, 1, 8, 8), torch.zeros(2, 1, 8, 8), {}, "there are 3 images and masks for 2"),
        (None, torch.zeros(2, 1, 8, 8), {}, "either images or embeddings .* must be given, but both are None"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8), {"embeddings": torch.zeros(2, 64, 4, 4)}, "both came"),
        (None, torch.zeros(2, 1, 8, 8), {"embeddings": torch.zeros(2, 64, 4, 4)}, "boxes must be given with a cropper"),
        (
            torch.zeros(1, 1, 8, 8),
            torch.zeros(1, 1, 8, 8),
            {"coarse_logits": torch.zeros(1, 1, 4, 4)},
            r"coarse_logits must have the masks' shape \(1, 1, 8, 8\)",
        ),
        (
            torch.zeros(1, 1, 8, 8),
            torch.zeros(1, 1, 8, 8),
            {"content_sizes": torch.zeros(1, 3).int()},
            r"content_sizes must be \(1, 2\)",
        ),
    ],
)
def test_wrong_input_gets_a_sentence(images: Tensor | None, probability: Tensor, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SAMRefiner(tiny(), cropper=ROICropper())(images, probability, **options)


@pytest.mark.usefixtures("unhooked")
def test_a_sam_without_organs_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="Linear lacks image_encoder, prompt_encoder, mask_decoder; use build_sam"):
        SAMRefiner(nn.Linear(1, 1))


@pytest.mark.usefixtures("unhooked")
def test_boxes_and_cropper_go_together() -> None:
    with pytest.raises(ValueError, match="boxes were given, but this refiner has no cropper"):
        SAMRefiner(tiny()).encode(torch.rand(1, 1, 8, 8), torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match="boxes must be given with a cropper"):
        SAMRefiner(tiny(), cropper=ROICropper()).in_sam_frame(torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize("cropper", croppers(), ids=["whole", "roi"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_images_and_masks_at_a_real_size(cropper: ROICropper | None, dtype: torch.dtype) -> None:
    """Edges of a 700 x 1000 picture do not fit into bfloat16, whose steps are 4 there."""
    refiner = SAMRefiner(tiny(), cropper=cropper)
    ramp = torch.linspace(0, 1, 1000).expand(1, 1, 700, 1000).to(dtype)
    mask = (0.75 * lesion(700, 1000, (300, 777), (41, 67)))[None, None].to(dtype)
    narrow, wide = refiner(ramp, mask), refiner(ramp.float(), mask.float())
    torch.testing.assert_close(narrow.logits.float(), wide.logits, atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(narrow.prompts.boxes, wide.prompts.boxes)


def test_the_whole_chain_is_segment_anythings() -> None:
    """Preprocess, encode, prompt, decode, upsample three candidates, select: their calls, a non-square image."""
    from segment_anything.modeling import Sam
    from segment_anything.utils.transforms import ResizeLongestSide

    sam = tiny()
    theirs = Sam(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder).eval()
    image, mask = torch.rand(1, 3, 60, 100), (0.9 * lesion(60, 100, (25, 60), (9, 14)))[None, None]
    refinement = SAMRefiner(sam)(image, mask)
    size = ResizeLongestSide.get_preprocess_shape(60, 100, 64)
    resized = functional.interpolate(image * 255, size, mode="bilinear", antialias=True)
    prompts = refinement.prompts
    with torch.no_grad():
        sparse, dense = theirs.prompt_encoder(
            points=(prompts.points[0], prompts.labels[0]), boxes=prompts.boxes[0], masks=prompts.mask_logits[0][:, None]
        )
        low, iou = theirs.mask_decoder(
            image_embeddings=theirs.image_encoder(theirs.preprocess(resized)),
            image_pe=theirs.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        full = theirs.postprocess_masks(low, size, (60, 100))
        expected = (torch.softmax(iou / 0.1, -1)[..., None, None] * full).sum(1)
    torch.testing.assert_close(refinement.logits[0], expected, atol=1e-4, rtol=1e-4)
