"""TransUNet, and MicroSegNet as one of its builders."""

from ultrarefiner.networks.transunet.builders import build_microsegnet, build_transunet
from ultrarefiner.networks.transunet.model import TransUNet

__all__ = ["TransUNet", "build_microsegnet", "build_transunet"]
