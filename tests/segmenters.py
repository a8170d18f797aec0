"""A network whose answer is known for every voxel, a small SegVol, and what `VolumeSegmenter` tests make of them."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional

from ultrarefiner.networks import build_segvol
from ultrarefiner.refinement import GRUCorrection

GRID = (4, 6, 8)


class Known(nn.Module):
    """Its embedding is the view, its answer a function of that; it writes down what it was told."""

    volume_size = GRID

    def __init__(self, answer=lambda view: 8 * (view - 0.5)) -> None:
        super().__init__()
        self.answer, self.encoded, self.asked = answer, [], []

    def encode(self, volume):
        self.encoded.append(volume)
        return volume

    def decode(self, embedding, *, points=None, boxes=None, text=None):
        assert boxes is not None or text is not None or bool((points[1] == 1).any()), "background alone is no object"
        self.asked.append((embedding, points, None if boxes is None else tuple(boxes[0].int().tolist())))
        logits = self.answer(embedding).clone()
        for place, label in zip(*(part[0] for part in points), strict=True) if points is not None else ():
            logits[(0, 0, *place.long().tolist())] += 20.0 * (2 * int(label) - 1)
        return SimpleNamespace(mask_logits=logits)


def segvol(size=(8, 16, 16)):
    torch.manual_seed(0)
    return build_segvol("tiny", volume_size=size).eval()


def busy_correction(**options) -> GRUCorrection:
    """One whose heads are not 0."""
    torch.manual_seed(1)
    made = GRUCorrection(**{"points": 20, "hidden": 8, "radius": 3.0, **options})
    for name, parameter in made.named_parameters():
        if "head" in name:
            nn.init.normal_(parameter, std=0.5)
    return made


def whole_answer(volume):
    return functional.interpolate(8 * (shrunk(volume, GRID)[None] - 0.5), volume.shape[1:], mode="trilinear")[0]


def shrunk(volume, size):
    """By torch's antialiasing in 2-D, the slices as rows of a picture."""
    planes = functional.interpolate(volume, size[1:], mode="bilinear", antialias=True)
    rows = planes.flatten(2).movedim(1, -1)[:, None]
    one = functional.interpolate(rows.transpose(2, 3), (size[0], rows.shape[2]), mode="bilinear", antialias=True)
    return one[:, 0].unflatten(-1, size[1:])


def random_volume(size, seed=0):
    return torch.rand(1, *size, generator=torch.Generator().manual_seed(seed))
