"""HarDNet, a convolutional backbone with few links between its layers."""

from ultrarefiner.networks.hardnet.blocks import HarDBlock
from ultrarefiner.networks.hardnet.builders import build_hardnet
from ultrarefiner.networks.hardnet.model import HarDNet

__all__ = ["HarDBlock", "HarDNet", "build_hardnet"]
