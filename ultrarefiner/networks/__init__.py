"""Networks of our own: coarse ones, and the backbone of AutoSAM. They open no file: `load_weights` fills them."""

from ultrarefiner.networks.backbone_unet import BackboneUNet
from ultrarefiner.networks.foreground import ForegroundLogits, foreground_logits
from ultrarefiner.networks.hardnet import HarDBlock, HarDNet, build_hardnet
from ultrarefiner.networks.light_decoder import LightDecoder
from ultrarefiner.networks.logits_of import LogitsOf
from ultrarefiner.networks.segvol import SegVol, SegVolOutput, SegVolTextEncoder, build_segvol
from ultrarefiner.networks.standardised_input import StandardisedInput
from ultrarefiner.networks.transunet import TransUNet, build_microsegnet, build_transunet

__all__ = [
    "BackboneUNet",
    "ForegroundLogits",
    "HarDBlock",
    "HarDNet",
    "LightDecoder",
    "LogitsOf",
    "SegVol",
    "SegVolOutput",
    "SegVolTextEncoder",
    "StandardisedInput",
    "TransUNet",
    "build_hardnet",
    "build_microsegnet",
    "build_segvol",
    "build_transunet",
    "foreground_logits",
]
