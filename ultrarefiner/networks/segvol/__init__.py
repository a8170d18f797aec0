"""SegVol: a 3-D vision transformer that is told by points, boxes and text what to segment."""

from ultrarefiner.networks.segvol.builders import build_segvol
from ultrarefiner.networks.segvol.model import SegVol, SegVolOutput
from ultrarefiner.networks.segvol.text_encoder import SegVolTextEncoder

__all__ = ["SegVol", "SegVolOutput", "SegVolTextEncoder", "build_segvol"]
