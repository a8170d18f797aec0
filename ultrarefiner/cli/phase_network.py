"""Coarse networks by name, and how each of them is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from torch import nn

from ultrarefiner.checkpoints import efficientnet_lite0_file, load_weights
from ultrarefiner.networks import BackboneUNet, build_microsegnet, build_transunet
from ultrarefiner.systems import AtSize
from ultrarefiner.training import MICROSEGNET, TRANSUNET, CoarseRecipe, microsegnet_recipe, transunet_recipe

NetworkName = Literal["light", "transunet", "microsegnet", "unet"]

_LOGGER = logging.getLogger("ultrarefiner")
PRETRAINED_BACKBONE = "tf_efficientnet_lite0"
_VARIANTS = ("r50_vit_b16", "vit_b16", "r50_vit_l16", "tiny")
_UNET = {"channels": (24, 48, 96, 192, 256), "strides": (2, 2, 2, 2), "num_res_units": 2, "norm": "batch"}
_STRIDES = {"light": 32, "transunet": 16, "microsegnet": 16, "unet": 16}


@dataclass(frozen=True)
class Numbers:
    """How a network is trained unless it is told otherwise.

    Attributes:
        size: side of its input.
        epochs: passes over the training cases.
        batch_size: images in a batch.
        learning_rate: of all its parameters.
        loop: further options of the loop.
    """

    size: int
    epochs: int
    batch_size: int
    learning_rate: float
    loop: Mapping[str, Any] = field(default_factory=dict)


def _published(run: Any) -> Numbers:
    loop = {name: value for name, value in run.options().items() if name not in ("epochs", "batch_size")}
    return Numbers(run.image_size, run.epochs, run.batch_size, 0.01, loop)


NUMBERS: Mapping[str, Numbers] = {
    "light": Numbers(224, 40, 8, 1e-3),
    "transunet": _published(TRANSUNET),
    "microsegnet": _published(MICROSEGNET),
    "unet": Numbers(224, 50, 8, 1e-3),
}


@dataclass(frozen=True)
class CoarseNetwork:
    """What a coarse network is built from.

    Args:
        network: its kind.
        backbone: of "light" a name of timm's, of "transunet" and "microsegnet" a size of theirs, of "unet" "".
        size: side of its input; images are stretched to it.
        channels: of the images, 1 or 3.

    Raises:
        ValueError: an unknown kind, a size that it cannot halve often enough, or a backbone that it does not have.

    Example:
        >>> type(CoarseNetwork("transunet", "tiny", 64, 1).build().network).__name__
        'TransUNet'
    """

    network: NetworkName
    backbone: str
    size: int
    channels: int

    def __post_init__(self) -> None:
        if self.network not in get_args(NetworkName):
            message = f"network must be one of {', '.join(get_args(NetworkName))}, but it is {self.network!r}."
            raise ValueError(message)
        stride = _STRIDES[self.network]
        if self.size < 2 * stride or self.size % stride:  # batch norms need more than a pixel in the middle
            nearest = max(2, self.size // stride) * stride
            message = (
                f"size must be a multiple of {stride} from {2 * stride} on for {self.network}, but it is {self.size}; "
                f"try {nearest}."
            )
            raise ValueError(message)
        if self.network in ("transunet", "microsegnet") and self.backbone not in _VARIANTS:
            message = f"backbone of {self.network} must be one of {', '.join(_VARIANTS)}, but it is {self.backbone!r}."
            raise ValueError(message)
        if self.network == "unet" and self.backbone:
            message = f"unet has no backbone, but {self.backbone!r} was asked for; leave backbone out."
            raise ValueError(message)

    @classmethod
    def named(cls, network: NetworkName, *, backbone: str | None, size: int | None, channels: int) -> CoarseNetwork:
        """With the kind's own backbone and size where they are not given."""
        own = {"light": PRETRAINED_BACKBONE, "unet": ""}.get(network, "r50_vit_b16")
        wanted = NUMBERS[network].size if size is None else size
        return cls(network, own if backbone is None else backbone, wanted, channels)

    def build(self) -> AtSize:
        """The network with random weights, stretched to by `AtSize`."""
        return AtSize(self._network(), self.size)

    def _network(self) -> nn.Module:
        if self.network == "light":
            return BackboneUNet(self.backbone)
        if self.network == "unet":
            from monai.networks.nets import UNet

            return cast("nn.Module", UNet(2, self.channels, 1, **_UNET))
        make = build_transunet if self.network == "transunet" else build_microsegnet
        return make(cast("Any", self.backbone), image_size=self.size)

    def refuse_weights(self, weights: Path | None, *, pretrained: bool) -> None:
        """Raise if this network has no use for the weights that it is to begin with, or they are not known.

        Raises:
            ValueError: so it is.
        """
        if weights is not None and self.network not in ("transunet", "microsegnet"):
            message = (
                f"weights are ImageNet's for transunet or microsegnet, but network is {self.network!r}; leave weights "
                "out."
            )
            raise ValueError(message)
        if pretrained and self.network == "light" and self.backbone != PRETRAINED_BACKBONE:
            message = (
                f"pretrained weights are at hand for {PRETRAINED_BACKBONE} alone, but backbone is {self.backbone!r}; "
                "give --no-pretrained to begin with random weights."
            )
            raise ValueError(message)

    def begin(self, weights: Path | None, *, pretrained: bool) -> AtSize:
        """The network as training begins with it.

        Args:
            weights: ImageNet-21k weights (R50+ViT-B_16.npz) for "transunet" and "microsegnet".
            pretrained: whether "light" begins with ImageNet's weights, which an installed package brings.

        Raises:
            ValueError: weights that this network has no use for.
            ModuleNotFoundError: the package is not there.
        """
        self.refuse_weights(weights, pretrained=pretrained)
        network = self.build()
        inside: Any = network.network
        if weights is not None:
            _LOGGER.info("%s", load_weights(inside, weights, layout="vit_npz"))
        elif pretrained and self.network == "light":
            load_imagenet(inside.backbone)
        return network

    def recipe(self, network: AtSize, **changes: Any) -> CoarseRecipe:
        """How it is trained: TransUNet and MicroSegNet as published, the others with AdamW.

        Args:
            network: as training begins with it.
            changes: other values of the recipe's fields.
        """
        if self.network == "transunet":
            return transunet_recipe(network, **changes)
        if self.network == "microsegnet":  # no data set of the commands brings a second annotation
            return microsegnet_recipe(network, annotator="prediction", **changes)
        return CoarseRecipe(network, **changes)


def load_imagenet(backbone: nn.Module) -> None:
    """Load ImageNet's weights into an EfficientNet-Lite0 of timm's.

    Args:
        backbone: in place.

    Raises:
        ModuleNotFoundError: the package that brings them is not installed.
    """
    try:
        path = efficientnet_lite0_file()
    except ModuleNotFoundError as error:
        message = f"{error} Or give --no-pretrained to begin with random weights."
        raise ModuleNotFoundError(message, name=error.name) from error
    load_weights(backbone, path, layout="efficientnet_lite0")
