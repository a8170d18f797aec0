"""Every argument of every part that files know comes back: in attributes, weights and answers.

The arguments are asked of the public constructors, not of what describes parts for files; one that is new has no value
here and fails the first test.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equal_objects import differences
from saved_systems import stirred
from torch import Tensor, nn

import ultrarefiner as ur
from ultrarefiner.networks import HarDNet, LightDecoder, LogitsOf, StandardisedInput, build_hardnet
from ultrarefiner.prompts import FarCorner, MeanShift, PromptGenerator
from ultrarefiner.refinement import BestSelection, LearnedGate, ProductGate, UncertaintyGate
from ultrarefiner.sam import MedSAMInput, SAMInput, build_light_sam, build_mobile_sam, build_sam
from ultrarefiner.systems import PretrainedSystem, build_autosam_generator, part_kinds
from ultrarefiner.systems.describing import describe_part
from ultrarefiner.systems.part_kinds import kind_named
from ultrarefiner.systems.rebuilding import build_part
from ultrarefiner.types import MaskCandidates

PUBLIC = {
    "SAM": build_sam,
    "LightSAM": build_light_sam,
    "MobileSAM": build_mobile_sam,
    "BackboneUNet": ur.BackboneUNet,
}
"""Where what files call a part is not what people call to build it."""


def sam(**options: Any) -> nn.Module:
    return build_sam("tiny", **{"image_size": 64, **options})


def generator(**options: Any) -> nn.Module:
    return build_autosam_generator("tiny", **{"channels": 64, "size": 4, **options})


def unet() -> nn.Module:
    return ur.build_transunet("tiny", image_size=32)


def coarse() -> nn.Module:
    return ur.AtSize(unet(), 32)


SMALL = (16, 8, 8, 8, 8)
THREE = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 2.0)}

# What each part needs to be built small, then a value for each argument, none of them the default.
VALUES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "AcceptanceRule": ({}, {"minimum_iou": 0.6, "minimum_agreement": 0.35}),
    "AtSize": ({"network": unet, "size": 32}, {"network": coarse, "size": 48}),
    "AutoMedSAM": (
        {"sam": sam, "prompt_module": lambda: ur.PromptModule(channels=64, hidden=8, pooled=4, image_size=64)},
        {
            "sam": lambda: sam(input_policy="medsam"),
            "prompt_module": lambda: ur.TokenPromptModule(channels=64, hidden=8, tokens=3, pooled=4),
            "input_policy": lambda: MedSAMInput(64),
        },
    ),
    "AutoSAM": (
        {"sam": sam, "generator": generator, "input_size": 32},
        {
            "sam": lambda: sam(input_policy="medsam"),
            "generator": lambda: generator(size=(4, 4)),
            "input_size": 64,
            "input_policy": lambda: MedSAMInput(64),
            "generator_policy": lambda: SAMInput(64, **THREE),
            "output": ur.systems.MinMaxLogits,
        },
    ),
    "BackboneUNet": (
        {"decoder_channels": SMALL},
        {"backbone": "mobilenetv3_small_050", "masks": 3, "decoder_channels": (16, 16, 8, 8, 4), **THREE},
    ),
    "BestSelection": ({}, {}),
    "BoxBackground": ({}, {"softness": 0.05}),
    "Centroid": ({}, {"gamma": 2.5}),
    "DifferentiablePromptExtractor": (
        {"mask_style": "gaussian"},
        {
            "image_size": 96,
            "mask_style": None,
            "positive": lambda: MeanShift(1),
            "negative": FarCorner,
            "sigmas": 1.25,
            "logit_scale": 4.5,
            "blur_sigma": 0.05,
            "floor": 0.03,
            "minimum_probability": 0.6,
        },
    ),
    "FarCorner": ({}, {}),
    "ForegroundLogits": ({}, {"network": lambda: ur.build_transunet("tiny", image_size=32, classes=3)}),
    "LearnedGate": ({}, {"width": 5, "bias": 0.75}),
    "LightAutoSAM": (
        {
            "generator": generator,
            "decoder": lambda: LightDecoder(64),
            "input_policy": lambda: SAMInput(64),
            "input_size": 32,
        },
        {
            "generator": lambda: generator(size=8),
            "decoder": lambda: LightDecoder(64, hidden=(8, 4)),
            "input_policy": lambda: MedSAMInput(96),
            "input_size": 48,
        },
    ),
    "LightDecoder": ({}, {"channels": 7, "masks": 2, "hidden": (6, 5)}),
    "MeanShift": ({}, {"steps": 1, "bandwidth": 0.2}),
    "MedSAMInput": ({}, {"size": 32}),
    "MinMaxLogits": ({}, {}),
    "ProductGate": ({}, {"gates": lambda: (UncertaintyGate(3.0), LearnedGate(4))}),
    "PromptGenerator": (
        {"backbone": lambda: build_hardnet("tiny"), "channels": 8},
        {"backbone": lambda: build_hardnet("tiny", deepest=8), "channels": 6, "size": (3, 5), "hidden": 4},
    ),
    "PromptModule": ({"hidden": 8}, {"channels": 7, "hidden": 6, "points": 2, "pooled": 3, "image_size": 96}),
    "ROICropper": (
        {},
        {
            "size": 32,
            "expand": 0.7,
            "sigmas": 1.5,
            "aspect": "image",
            "minimum": 0.75,
            "floor": 0.03,
            "minimum_probability": 0.6,
        },
    ),
    "SAM": ({"size": "tiny", "image_size": 64}, {"size": "tiny", "input_policy": "medsam", "image_size": 32}),
    "LightSAM": ({"image_size": 64}, {"backbone": "mobilenetv3_small_050", "image_size": 96, **THREE}),
    "LogitsOf": ({}, {"network": unet}),
    "MobileSAM": ({}, {"image_size": 64}),
    "StandardisedInput": ({}, {"network": unet, **THREE}),
    "SAMInput": ({"size": 64}, {"size": 32, **THREE}),
    "SAMRefiner": (
        {"sam": sam},
        {
            "sam": lambda: sam(image_size=32),
            "prompts": lambda: ur.DifferentiablePromptExtractor(image_size=64, sigmas=1.0),
            "cropper": lambda: ur.ROICropper(expand=0.6),
            "selection": BestSelection,
            "through_crop": True,
            "dense_prompts": generator,
            "input_policy": lambda: MedSAMInput(64),
        },
    ),
    "SoftSelection": ({}, {"temperature": 0.7}),
    "TokenPromptModule": ({"hidden": 8}, {"channels": 7, "hidden": 6, "tokens": 3, "pooled": 2}),
    "TwiceNormalisedInput": ({"size": 64}, {"size": 32, **THREE}),
    "UltraRefiner": (
        {"coarse": coarse, "refiner": lambda: ur.SAMRefiner(sam())},
        {
            "coarse": lambda: ur.AtSize(unet(), 48),
            "refiner": lambda: ur.SAMRefiner(sam(), through_crop=True),
            "gate": UncertaintyGate,
            "gradient_scale": 0.25,
            "acceptance": lambda: ur.AcceptanceRule(minimum_agreement=0.2),
            "frame": 96,
        },
    ),
    "UncertaintyGate": ({}, {"gamma": 0.5, "minimum": 0.2, "maximum": 0.6}),
    "build_hardnet": ({"size": "tiny"}, {"size": "tiny", "deepest": 8}),
    "build_transunet": (
        {"size": "tiny", "image_size": 32},
        {"size": "tiny", "classes": 3, "image_size": (32, 48), "deep_supervision": True, "dropout": 0.4},
    ),
}


def constructor(name: str) -> Callable[..., Any]:
    kind = kind_named(name)
    assert kind is not None
    return PUBLIC.get(name, kind.build)


def built(name: str, *arguments: str) -> Any:
    """A part with these arguments at their values, all others as small as they go."""
    base, values = VALUES[name]
    chosen = {**base, **{argument: values[argument] for argument in arguments}}
    finished = {
        key: value() if inspect.isfunction(value) or isinstance(value, type) else value for key, value in chosen.items()
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        part = constructor(name)(*finished.pop("gates", ()), **finished)
    return stirred(part) if isinstance(part, nn.Module) else part


def answers(part: Any) -> Any:
    """What a part says, in evaluation mode."""
    drawn = torch.Generator().manual_seed(2)
    images, masks = torch.rand(2, 1, 48, 64, generator=drawn), torch.rand(2, 1, 48, 64, generator=drawn)
    masks = masks * (torch.arange(64) < 40)
    if isinstance(part, ur.AcceptanceRule):
        return part(masks, masks.flip(-1), torch.tensor([[0.5], [0.9]]))
    if isinstance(part, (UncertaintyGate, LearnedGate, ProductGate)):
        return part(images, masks, masks.flip(-1))
    if isinstance(part, (ur.SoftSelection, BestSelection)):
        return part(MaskCandidates(torch.rand(1, 1, 3, 4, 4, generator=drawn), torch.tensor([[[0.1, 0.3, 0.2]]])))
    if isinstance(part, ur.ROICropper):
        return part.locate(masks), part.crop(images, part.locate(masks))
    if not isinstance(part, nn.Module):  # a point rule
        return vars(ur.DifferentiablePromptExtractor(image_size=64, positive=part)(masks))
    if isinstance(part, (ur.DifferentiablePromptExtractor, ur.PromptModule, ur.TokenPromptModule)):
        channels = getattr(part, "channels", 0)
        return vars(part(torch.rand(2, channels, 4, 4, generator=drawn) if channels else masks))
    if isinstance(part, LightDecoder):
        return part(torch.rand(2, part.up1.in_channels, 4, 4, generator=drawn))
    networks = (ur.AtSize, ur.BackboneUNet, ur.TransUNet, ur.ForegroundLogits, PromptGenerator, HarDNet)
    if isinstance(part, (*networks, LogitsOf, StandardisedInput)):
        answer = part(images[..., :32, :32].expand(-1, 3, -1, -1))
        return answer if isinstance(answer, (Tensor, tuple)) else vars(answer)
    if isinstance(part, ur.SAMRefiner):
        return vars(part(images, masks))
    answer = part(images)
    return answer if isinstance(answer, Tensor) else vars(answer)


def through_a_file(part: Any, folder: Path) -> Any:
    if isinstance(part, PretrainedSystem):
        return type(part).from_pretrained(part.save_pretrained(folder))
    again = build_part(json.loads(json.dumps(describe_part(part))))
    if isinstance(part, nn.Module):
        again.eval().load_state_dict(part.state_dict(), strict=True)
    return again


def own_kinds() -> list[str]:
    return sorted(
        name for name, kind in part_kinds._BY_NAME.items() if kind.build.__module__.startswith("ultrarefiner")
    )


def test_every_argument_of_every_part_has_a_value_here_that_is_not_its_default() -> None:
    assert sorted(VALUES) == own_kinds()
    for name, (_, values) in VALUES.items():
        parameters = part_kinds.parameters_of(constructor(name))
        assert set(values) == set(parameters), name
        for argument, value in values.items():
            default = parameters[argument].default
            assert type(value) is not type(default) or value != default, f"{name}.{argument}"


SYSTEMS = ("AutoMedSAM", "AutoSAM", "LightAutoSAM", "SAMRefiner", "UltraRefiner")
# Parts with all arguments at once; systems with one at a time, as some parts are of other sizes than others.
CASES = [
    (name, *chosen) for name, (_, values) in VALUES.items() for chosen in (zip(values) if name in SYSTEMS else [values])
]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_it_comes_back(case: tuple[str, ...], tmp_path: Path) -> None:
    part = built(*case)
    before = torch.random.get_rng_state()
    again = through_a_file(part, tmp_path)
    assert isinstance(part, PretrainedSystem) == (case[0] in SYSTEMS)
    assert not isinstance(part, PretrainedSystem) or torch.equal(torch.random.get_rng_state(), before)
    assert differences(part, again) == []
    with torch.no_grad():
        assert differences(answers(part), answers(again)) == []


@pytest.mark.parametrize("name", ["AcceptanceRule", "ROICropper", "SAMInput", "SoftSelection", "UncertaintyGate"])
def test_the_comparison_sees_every_argument(name: str) -> None:
    for argument in VALUES[name][1]:
        assert differences(built(name), built(name, argument)), argument
    with torch.no_grad():
        assert differences(answers(built(name)), answers(built(name, *VALUES[name][1])))
