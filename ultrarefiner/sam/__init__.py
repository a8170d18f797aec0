"""The only room that knows segment-anything's insides: builders, input policies, encoding and decoding."""

from __future__ import annotations

from ultrarefiner.sam.backbone_encoder import BackboneEncoder
from ultrarefiner.sam.builders import SIZES, SAMSize, build_light_sam, build_mobile_sam, build_sam
from ultrarefiner.sam.decoding import decode
from ultrarefiner.sam.inputs import InputPolicy, MedSAMInput, SAMInput, TwiceNormalisedInput
from ultrarefiner.sam.mobile_encoder import MobileEncoder
from ultrarefiner.sam.model import SAM, SAMLike, encode_images
from ultrarefiner.sam.prompt_embedding import dense_position, embed_prompts

__all__ = [
    "SAM",
    "SIZES",
    "BackboneEncoder",
    "InputPolicy",
    "MedSAMInput",
    "MobileEncoder",
    "SAMInput",
    "SAMLike",
    "SAMSize",
    "TwiceNormalisedInput",
    "build_light_sam",
    "build_mobile_sam",
    "build_sam",
    "decode",
    "dense_position",
    "embed_prompts",
    "encode_images",
]
