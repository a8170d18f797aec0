"""Coarse networks of our own. They open no file: `ultrarefiner.load_weights` fills them."""

from ultrarefiner.networks.foreground import ForegroundLogits, foreground_logits
from ultrarefiner.networks.transunet import TransUNet, build_microsegnet, build_transunet

__all__ = ["ForegroundLogits", "TransUNet", "build_microsegnet", "build_transunet", "foreground_logits"]
