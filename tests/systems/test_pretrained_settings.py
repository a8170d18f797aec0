"""What config.json says: every knob survives, and what cannot be built is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from drawn_systems import drawn_pair, positive, unit
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_systems import Plain, images, light_unet, tiny_refiner, tiny_transunet
from torch import nn

import ultrarefiner as ur
from ultrarefiner.networks import LightDecoder, build_hardnet
from ultrarefiner.prompts import PointChoice, PromptGenerator
from ultrarefiner.systems import SAMRefiner, UltraRefiner, build_autosam_generator, register_part
from ultrarefiner.systems.describing import describe_part
from ultrarefiner.systems.part_kinds import kind_named, parameters_of
from ultrarefiner.systems.rebuilding import build_part


def own_settings(model: UltraRefiner) -> Any:
    """What the parts say of themselves in their own words: another way than how they are described for the file."""
    refiner = model.refiner
    return model.settings(), repr(refiner.prompts), repr(refiner.cropper), repr(model.gate), refiner.prompts.image_size


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_every_knob_survives(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    model = drawn_pair(data.draw)
    folder = model.save_pretrained(tmp_path_factory.mktemp("saved"))
    loaded = UltraRefiner.from_pretrained(folder, **{"coarse.network": Plain()})
    assert own_settings(loaded) == own_settings(model)
    for rule in ("positive", "negative"):
        assert getattr(loaded.refiner.prompts, rule) == getattr(model.refiner.prompts, rule)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    again = loaded.save_pretrained(tmp_path_factory.mktemp("again"))
    assert (again / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@settings(deadline=None, max_examples=5)
@given(
    st.sampled_from([1, 2, 3]),
    st.tuples(unit, unit, unit),
    st.tuples(positive, positive, positive),
    st.booleans(),
    st.floats(0, 0.9),
    st.sampled_from([32, 48]),
)
def test_networks_survive(
    masks: int, mean: tuple[float, ...], std: tuple[float, ...], deep: bool, dropout: float, side: int
) -> None:
    network = build_part(json.loads(json.dumps(describe_part(light_unet(masks=masks, mean=mean, std=std)))))
    assert network.settings() == light_unet(masks=masks, mean=mean, std=std).settings()
    unet = tiny_transunet(classes=masks, deep_supervision=deep, dropout=dropout)
    assert build_part(describe_part(unet)).settings() == unet.settings()
    oblong = ur.build_transunet("tiny", image_size=(side, 32))
    assert build_part(describe_part(oblong)).settings() == oblong.settings()


def test_further_parts_survive() -> None:
    generator = PromptGenerator(build_hardnet("tiny", deepest=8), channels=7, size=(3, 5), hidden=6)
    for part in (
        generator,
        LightDecoder(9, masks=2, hidden=(5, 4)),
        build_autosam_generator("tiny", channels=8, size=4),
    ):
        built = build_part(json.loads(json.dumps(describe_part(part))))
        assert built.settings() == part.settings()
        assert [value.shape for value in built.parameters()] == [value.shape for value in part.parameters()]


PARTS = [
    *(lambda size=size: ur.build_sam(size, image_size=32) for size in ("tiny",)),
    lambda: ur.build_light_sam(image_size=64, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)),
    lambda: light_unet(),
    lambda: tiny_transunet().network,
    lambda: build_hardnet("tiny"),
]


@pytest.mark.parametrize("build", PARTS)
def test_a_description_holds_every_argument_in_plain_values(build: Callable[[], nn.Module]) -> None:
    described = describe_part(build())
    kind = kind_named(described["part"])
    assert kind is not None
    assert set(described) - {"part"} == set(parameters_of(kind.build))
    assert json.loads(json.dumps(described)) == described


@dataclass(frozen=True)
class Corner:
    """A point rule of a user's own."""

    inset: float = 0.5

    def __call__(self, geometry: ur.prompts.MaskGeometry) -> PointChoice:
        points = torch.full_like(geometry.moments.centroid, self.inset)
        return PointChoice(points, geometry.moments.mass > 0)


def test_a_point_rule_of_ones_own_is_asked_for_and_compared(tmp_path: Path) -> None:
    prompts = ur.DifferentiablePromptExtractor(image_size=64, negative=Corner(2.0))
    model = tiny_refiner(prompts=prompts).eval()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["settings"]["prompts"]["negative"]["settings"]["inset"] == 2.0
    with pytest.raises(ValueError, match=r"prompts.negative is a Corner, a class that this library does not build"):
        SAMRefiner.from_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"prompts.negative was given, but its inset is 3.0 where the saved one had 2.0"
    ):
        SAMRefiner.from_pretrained(tmp_path, **{"prompts.negative": Corner(3.0)})
    loaded = SAMRefiner.from_pretrained(tmp_path, **{"prompts.negative": Corner(2.0)})
    with torch.no_grad():
        assert torch.equal(loaded(images(), images(2)).logits, model(images(), images(2)).logits)


def test_a_registered_class_needs_nobody() -> None:
    class Shift(nn.Module):
        def __init__(self, offset: float, *, names: tuple[str, ...] = (), way: Literal["up", "down"] = "up") -> None:
            super().__init__()
            self.offset, self.names, self.way = offset, names, way

    assert describe_part(Shift(1.0)) == {"part": f"{Shift.__qualname__}", "rebuild": False}
    register_part(Shift)
    built = build_part(json.loads(json.dumps(describe_part(Shift(2.0, names=("a", "b"), way="down")))))
    assert (built.offset, built.names, built.way) == (2.0, ("a", "b"), "down")
    with pytest.raises(ValueError, match=r"settings.way must be 'up' or 'down', but it is 'left'"):
        build_part({"part": "Shift", "offset": 1, "way": "left"})

    class LearnedGate(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()

    with pytest.raises(
        ValueError, match=r"A part named LearnedGate is registered already, ultrarefiner.refinement.gates"
    ):
        register_part(LearnedGate)

    class Loose(nn.Module):
        def __init__(self, **options: int) -> None:
            super().__init__()

    with pytest.raises(ValueError, match=r"Loose takes \*\*options, so its arguments are not known"):
        register_part(Loose)


def test_what_settings_says_has_not_changed() -> None:
    model = UltraRefiner(coarse=Plain(), refiner=tiny_refiner())
    assert model.settings()["refiner"]["prompts"]["positive"] == "Centroid(gamma=1.0)"
    assert set(model.settings()) == {"coarse", "refiner", "gate", "gradient_scale"}
