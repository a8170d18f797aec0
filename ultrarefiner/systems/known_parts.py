"""The parts that `from_pretrained` builds: all of this library's that a system of one image is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from ultrarefiner.networks import (
    BackboneUNet,
    ForegroundLogits,
    HarDNet,
    LightDecoder,
    LogitsOf,
    StandardisedInput,
    TransUNet,
    build_hardnet,
    build_transunet,
)
from ultrarefiner.networks.transunet.builders import SIZES as TRANSUNET_SIZES
from ultrarefiner.networks.transunet.model import STRIDE
from ultrarefiner.prompts import (
    BoxBackground,
    Centroid,
    DifferentiablePromptExtractor,
    FarCorner,
    MeanShift,
    PromptGenerator,
    PromptModule,
    TokenPromptModule,
)
from ultrarefiner.refinement import (
    AcceptanceRule,
    BestSelection,
    LearnedGate,
    ProductGate,
    ROICropper,
    SoftSelection,
    UncertaintyGate,
)
from ultrarefiner.sam import (
    SAM,
    SIZES,
    BackboneEncoder,
    InputPolicy,
    MedSAMInput,
    MobileEncoder,
    SAMInput,
    TwiceNormalisedInput,
    build_light_sam,
    build_mobile_sam,
    build_sam,
)
from ultrarefiner.sam.builders import SAMSize
from ultrarefiner.systems.at_size import AtSize
from ultrarefiner.systems.automedsam import AutoMedSAM
from ultrarefiner.systems.autosam import AutoSAM, MinMaxLogits
from ultrarefiner.systems.autosam_light import LightAutoSAM
from ultrarefiner.systems.part_kinds import register_part
from ultrarefiner.systems.refiner import SAMRefiner
from ultrarefiner.systems.ultrarefiner import UltraRefiner

_HARDNET_SIZES = ("hardnet85", "hardnet68", "tiny")


def register_known_parts() -> None:
    """Register every part of the library that can be built from plain values.

    Example:
        >>> register_known_parts()
    """
    for cls in _BUILT_BY_CLASS:
        register_part(cls, read=_READ.get(cls))
    register_part(BackboneUNet, name="BackboneUNet", build=_backbone_unet, read=_read_backbone_unet)
    register_part(TransUNet, build=build_transunet, read=_read_transunet, knows=lambda net: net.name in TRANSUNET_SIZES)
    register_part(HarDNet, build=build_hardnet, read=_read_hardnet, knows=lambda net: net.name in _HARDNET_SIZES)
    register_part(SAM, name="SAM", build=_sam, read=_read_sam, knows=_is_published_sam)
    register_part(SAM, name="LightSAM", build=_light_sam, read=_read_light_sam, knows=_is_light_sam)
    register_part(SAM, name="MobileSAM", build=_mobile_sam, read=_read_mobile_sam, knows=_is_mobile_sam)


def _sam(size: Literal["tiny", "vit_b", "vit_l", "vit_h"], image_size: int, input_policy: InputPolicy) -> SAM:
    sam = build_sam(size, image_size=image_size)
    sam.input_policy = input_policy
    return sam


def _read_sam(sam: SAM) -> Mapping[str, Any]:
    side = cast("Any", sam.prompt_encoder).input_image_size[0]
    return {"size": sam.name, "image_size": side, "input_policy": sam.input_policy}


def _is_published_sam(sam: SAM) -> bool:
    organs = (sam.image_encoder, sam.prompt_encoder, sam.mask_decoder)
    return sam.name in SIZES and all(_is_segment_anythings(organ) for organ in organs)


def _light_sam(backbone: str, image_size: int, input_policy: InputPolicy) -> SAM:
    sam = build_light_sam(_checked_backbone(backbone), image_size=image_size)
    sam.input_policy = input_policy
    return sam


def _read_light_sam(sam: SAM) -> Mapping[str, Any]:
    encoder = cast("BackboneEncoder", _plain(sam.image_encoder)).settings()
    return {**_read_sam(sam), "backbone": encoder["backbone"]}


def _is_light_sam(sam: SAM) -> bool:
    organs = (sam.prompt_encoder, sam.mask_decoder)
    encoder: Any = _plain(sam.image_encoder)
    light = sam.name == "light" and type(encoder) is BackboneEncoder
    fits = light and encoder.settings()["channels"] == SAMSize.prompt_width
    return fits and all(_is_segment_anythings(organ) for organ in organs)


def _mobile_sam(image_size: int, input_policy: InputPolicy) -> SAM:
    sam = build_mobile_sam(image_size=image_size)
    sam.input_policy = input_policy
    return sam


def _read_mobile_sam(sam: SAM) -> Mapping[str, Any]:
    return {name: value for name, value in _read_sam(sam).items() if name != "size"}


def _is_mobile_sam(sam: SAM) -> bool:
    organs = (sam.prompt_encoder, sam.mask_decoder)
    encoder: Any = _plain(sam.image_encoder)
    mobile = sam.name == "mobile" and type(encoder) is MobileEncoder
    fits = mobile and encoder.settings()["channels"] == SAMSize.prompt_width
    return fits and all(_is_segment_anythings(organ) for organ in organs)


def _is_segment_anythings(organ: object) -> bool:
    """Whether its class is segment-anything's own, not one derived from it."""
    return type(_plain(organ)).__module__.partition(".")[0] == "segment_anything"


def _plain(organ: object) -> object:
    """What `torch.compile` wrapped."""
    return getattr(organ, "_orig_mod", organ)


def _backbone_unet(
    backbone: str, masks: int, decoder_channels: list[int], mean: list[float], std: list[float]
) -> BackboneUNet:
    name = _checked_backbone(backbone)
    return BackboneUNet(name, masks=masks, decoder_channels=decoder_channels, mean=mean, std=std)


def _read_backbone_unet(network: BackboneUNet) -> Mapping[str, Any]:
    return {name: value for name, value in network.settings().items() if name != "network"}


def _checked_backbone(name: str) -> str:
    """A name of timm's own networks; it takes addresses too, which a file shall not open."""
    if not re.fullmatch(r"[\w.]+", name, re.ASCII):
        message = f"backbone must be a name of timm's, letters, digits, dots and underscores, but it is {name!r:.80}."
        raise ValueError(message)
    return name


def _read_transunet(network: TransUNet) -> Mapping[str, Any]:
    told = network.settings()
    return {
        "size": told["name"],
        "classes": told["classes"],
        "image_size": [STRIDE * side for side in told["grid"]],
        "deep_supervision": told["side_heads"] > 0,
        "dropout": told["dropout"],
    }


def _read_hardnet(network: HarDNet) -> Mapping[str, Any]:
    return {"size": network.name, "deepest": network.strides[-1]}


def _read_policy(policy: Any) -> Mapping[str, Any]:
    told = policy.settings()
    return {"size": policy.size, "mean": told.get("mean"), "std": told.get("std")}


def _read_standardised(network: StandardisedInput) -> Mapping[str, Any]:
    told = network.settings()
    return {"network": network.network, "mean": told["mean"], "std": told["std"]}


def _own_policy(system: Any) -> InputPolicy | None:
    """A system's input policy, or None where it is the one that its SAM brings."""
    policy: InputPolicy = system.input_policy
    return None if policy is getattr(system.sam, "input_policy", None) else policy


def _read_refiner(refiner: SAMRefiner) -> Mapping[str, Any]:
    names = ("sam", "prompts", "cropper", "selection", "through_crop", "dense_prompts")
    return {**{name: getattr(refiner, name) for name in names}, "input_policy": _own_policy(refiner)}


def _read_autosam(system: AutoSAM) -> Mapping[str, Any]:
    same = system.generator_policy is system.input_policy
    return {
        **{name: getattr(system, name) for name in ("sam", "generator", "input_size", "output")},
        "input_policy": _own_policy(system),
        "generator_policy": None if same else system.generator_policy,
    }


def _read_automedsam(system: AutoMedSAM) -> Mapping[str, Any]:
    return {"sam": system.sam, "prompt_module": system.prompt_module, "input_policy": _own_policy(system)}


def _read_generator(generator: PromptGenerator) -> Mapping[str, Any]:
    return {**generator.settings(), "backbone": generator.backbone}


_BUILT_BY_CLASS: tuple[type, ...] = (
    AcceptanceRule,
    AtSize,
    AutoMedSAM,
    AutoSAM,
    BestSelection,
    BoxBackground,
    Centroid,
    DifferentiablePromptExtractor,
    FarCorner,
    ForegroundLogits,
    LearnedGate,
    LightAutoSAM,
    LightDecoder,
    LogitsOf,
    MeanShift,
    MedSAMInput,
    MinMaxLogits,
    ProductGate,
    PromptGenerator,
    PromptModule,
    ROICropper,
    SAMInput,
    SAMRefiner,
    SoftSelection,
    StandardisedInput,
    TokenPromptModule,
    TwiceNormalisedInput,
    UltraRefiner,
    UncertaintyGate,
)
"""What their constructors build."""

_READ: dict[type, Any] = {
    AutoMedSAM: _read_automedsam,
    AutoSAM: _read_autosam,
    LightDecoder: LightDecoder.settings,
    PromptGenerator: _read_generator,
    SAMInput: _read_policy,
    SAMRefiner: _read_refiner,
    StandardisedInput: _read_standardised,
    TwiceNormalisedInput: _read_policy,
}
"""The arguments of those that do not keep them as attributes of the same names."""
