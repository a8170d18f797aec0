"""Answers are the prompts' alone in whatever mode a model is, and NaN is no answer."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from segmenters import Known, busy_correction, random_volume
from torch import nn

from ultrarefiner.refinement import WrittenClicks
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import CorrectedNetwork, ImageSegmenter, InteractiveSession, VolumeSegmenter
from ultrarefiner.systems.at_rest import at_rest
from ultrarefiner.types import Clicks

NO_NUMBERS = pytest.mark.parametrize(("bad", "came"), [(math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "inf")])


class Restless(Known):
    """Drops voxels of what it sees, and keeps statistics, unless it is in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Sequential(nn.BatchNorm3d(1), nn.Dropout())

    def encode(self, volume):
        return super().encode(self.seen(volume))

    def decode(self, embedding, **prompts):
        answer = super().decode(embedding, **prompts)
        return SimpleNamespace(mask_logits=self.seen(answer.mask_logits))


def restless(kind: str):
    """A model in training mode, an image for it, and a click."""
    torch.manual_seed(0)
    if kind == "volume":
        model, image = VolumeSegmenter(Restless(), busy_correction()), random_volume((8, 12, 16))
    elif kind == "image":
        sam = build_sam("tiny", image_size=32)
        sam.image_encoder.neck.append(
            nn.Sequential(nn.BatchNorm2d(sam.image_encoder.neck[0].out_channels), nn.Dropout())
        )
        model, image = ImageSegmenter(sam), torch.rand(1, 20, 30)
    else:
        network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Dropout())
        model, image = CorrectedNetwork(network, WrittenClicks(count=3, radius=2.0)), torch.rand(1, 20, 30)
    return model.train(), image, tuple(side // 2 for side in image.shape[1:])


@pytest.mark.parametrize("kind", ["volume", "image", "corrected"])
def test_an_answer_is_the_same_in_training_mode_and_changes_no_statistics(kind) -> None:
    model, image, middle = restless(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    clicks = Clicks.at([middle], positive=[True])
    first, second = (model.segment(model.start(image), None, clicks) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules()), "as before"
    assert torch.equal(model.eval()(image, clicks=clicks), first)


def test_parts_are_as_they_were_after_an_error() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    modes = []

    def fails():
        with at_rest(network):
            modes.append(network[0].training)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert modes == [False]
    assert (network.training, network[0].training, network[1].training) == (True, True, False)


class Dropping(nn.Module):
    """A user's own model of two methods."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout()

    def start(self, volume):
        return self.drop(volume)

    def segment(self, state, box, clicks):
        return self.drop(state)


def test_a_session_puts_its_model_into_evaluation_mode() -> None:
    model, volume = Dropping(), random_volume((4, 5, 6))
    session = InteractiveSession(model, volume)
    session.click((1, 1, 1))
    assert torch.equal(session.logits, volume)
    assert not model.training
    assert not model.drop.training


@NO_NUMBERS
@pytest.mark.parametrize("correction", [None, busy_correction()])
@pytest.mark.parametrize(
    "prompts", [{"box": (0, 0, 0, 7, 11, 15)}, {"clicks": Clicks.at([(4, 5, 6)], positive=[True])}]
)
def test_a_volume_network_that_answers_no_numbers_is_said(bad, came, correction, prompts) -> None:
    model, volume = VolumeSegmenter(Known(lambda view: view + bad), correction), random_volume((8, 12, 16))
    with pytest.raises(ValueError, match=f"the network's answer must be finite, but it holds {came}"):
        model(volume, **prompts)


def test_windows_that_answer_no_numbers_are_said() -> None:
    network = Known()
    network.answer = lambda view: 8 * (view - 0.5) + (0 if not network.asked[1:] else math.nan)
    with pytest.raises(ValueError, match="the network's answer must be finite, but it holds NaN"):
        VolumeSegmenter(network)(random_volume((8, 12, 16)), box=(0, 0, 0, 7, 11, 15))
    assert len(network.asked) == 2, "the whole, and the first window"


@NO_NUMBERS
@pytest.mark.parametrize("correction", [None, busy_correction(dimensions=2)])
def test_a_sam_that_answers_no_numbers_is_said(bad, came, correction) -> None:
    sam = build_sam("tiny", image_size=32)
    sam.mask_decoder.register_forward_hook(lambda module, inputs, output: (output[0] + bad, output[1]))
    model = ImageSegmenter(sam, correction)
    for prompts in ({"box": (2, 3, 9, 20)}, {"clicks": Clicks.at([(4, 5)], positive=[True])}):
        with pytest.raises(ValueError, match=f"the answer of sam must be finite, but it holds {came}"):
            model(torch.rand(1, 20, 30), **prompts)


class Adds(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images):
        return images[:, :1] + self.value


@NO_NUMBERS
def test_a_corrected_network_that_answers_no_numbers_is_said(bad, came) -> None:
    model = CorrectedNetwork(Adds(bad), WrittenClicks(count=3, radius=2.0))
    with pytest.raises(ValueError, match=f"the network's answer must be finite, but it holds {came}"):
        InteractiveSession(model, torch.rand(1, 20, 30))


def test_a_corrected_network_is_given_no_nan() -> None:
    image = torch.rand(1, 20, 30)
    image[0, 3, 4] = math.nan
    with pytest.raises(ValueError, match="image must not hold NaN"):
        CorrectedNetwork(Adds(0.0), WrittenClicks(count=3, radius=2.0)).start(image)
