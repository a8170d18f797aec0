"""Parts of a user's own: what may be registered, what is said if it may not, and what is handed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from saved_systems import edit_config, images, stirred, tiny_refiner, tiny_sam, tiny_transunet
from torch import nn

import ultrarefiner as ur
from ultrarefiner.refinement import LearnedGate, UncertaintyGate
from ultrarefiner.sam import BackboneEncoder, build_light_sam
from ultrarefiner.systems import LightAutoSAM, PretrainedSystem, SAMRefiner, UltraRefiner, register_part
from ultrarefiner.systems.describing import describe_part
from ultrarefiner.systems.rebuilding import build_part

if TYPE_CHECKING:
    from nowhere import Missing


def again(part: Any) -> Any:
    return build_part(json.loads(json.dumps(describe_part(part))))


class Mean(nn.Module):
    """A gate of gates, kept as PyTorch wants parts to be kept."""

    def __init__(
        self, parts: list[nn.Module], *, shares: tuple[float, ...] = (), spare: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.parts, self.shares, self.spare = nn.ModuleList(parts), shares, spare

    def forward(self, *masks: torch.Tensor) -> torch.Tensor:
        return sum(share * part(*masks) for share, part in zip(self.shares, self.parts, strict=True))


class Sides(nn.Module):
    def __init__(self, *sides: int, scale: float = 1.0) -> None:
        super().__init__()
        self.sides, self.scale = sides, scale


def test_lists_of_parts_and_of_numbers_come_back(tmp_path: Path) -> None:
    register_part(Mean)
    register_part(Sides)
    gate = Mean([UncertaintyGate(2.0), LearnedGate(3)], shares=(0.25, 0.75), spare=Sides(3, 4, scale=2))
    model = stirred(UltraRefiner(coarse=tiny_transunet(), refiner=tiny_refiner(), gate=gate))
    loaded = UltraRefiner.from_pretrained(model.save_pretrained(tmp_path))
    assert (loaded.gate.parts[0].gamma, loaded.gate.shares) == (2.0, (0.25, 0.75))
    assert (loaded.gate.spare.sides, loaded.gate.spare.scale) == ((3, 4), 2.0)
    with torch.no_grad():
        assert torch.equal(loaded(images()).refined_logits, model(images()).refined_logits)
    with pytest.raises(ValueError, match=r"settings.parts must be a list of Module, but it is \[3\]"):
        build_part({"part": "Mean", "parts": [3]})
    with pytest.raises(ValueError, match=r"settings.sides must be a list of int, but it is \[1, '2'\]"):
        build_part({"part": "Sides", "sides": [1, "2"]})


def test_numbers_of_numpy_are_plain_numbers() -> None:
    assert describe_part([np.bool_(True), np.float32(0.5), np.int64(3), np.str_("a")]) == [True, 0.5, 3, "a"]
    assert type(describe_part(np.bool_(True))) is bool


def test_what_cannot_be_remembered_is_said_before_anything_is_written(tmp_path: Path) -> None:
    class Silent(nn.Module):
        def __init__(self, size=3) -> None:
            super().__init__()

    with pytest.raises(ValueError, match=r"Silent must annotate every argument .*, but size has no annotation"):
        register_part(Silent)

    class Forgetful(nn.Module):
        def __init__(self, size: int = 3) -> None:
            super().__init__()

    class Elsewhere(nn.Module):
        def __init__(self, size: Missing = 3) -> None:
            super().__init__()
            self.size = size

    for cls, sentence in (
        (Forgetful, r"Forgetful must keep its argument size as an attribute of that name .* write self.size = size"),
        (
            Elsewhere,
            r"Elsewhere has an annotation that cannot be read \(name 'Missing' is not defined\); define or imp",
        ),
    ):
        register_part(cls)
        model = UltraRefiner(coarse=tiny_transunet(), refiner=tiny_refiner(), gate=cls())
        with pytest.raises(ValueError, match=sentence):
            model.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_argument_that_the_file_lacks_may_be_given(tmp_path: Path) -> None:
    UltraRefiner(coarse=tiny_transunet(), refiner=tiny_refiner(), frame=64).save_pretrained(tmp_path)
    edit_config(tmp_path, lambda config: config["settings"].pop("frame"))
    assert UltraRefiner.from_pretrained(tmp_path, frame=96).frame == 96


def test_a_light_sam_of_other_channels_is_asked_for() -> None:
    sam = build_light_sam(image_size=64)
    assert describe_part(sam)["part"] == "LightSAM"
    sam.image_encoder = BackboneEncoder(channels=32)
    assert describe_part(sam)["rebuild"] is False


def test_a_compiled_part_is_saved_as_without_compiling(tmp_path: Path) -> None:
    """Nothing is compiled here: the wrapper is all that names and settings see."""
    model = stirred(UltraRefiner(coarse=tiny_transunet(), refiner=tiny_refiner(), gate=LearnedGate(3)))
    plain = model.save_pretrained(tmp_path / "plain")
    model.refiner.sam.image_encoder = torch.compile(model.refiner.sam.image_encoder)
    model.coarse, model.gate = torch.compile(model.coarse), torch.compile(model.gate)
    assert any("_orig_mod" in name for name in model.state_dict())
    compiled = model.save_pretrained(tmp_path / "compiled")
    for name in ("config.json", "model.safetensors"):
        assert (compiled / name).read_bytes() == (plain / name).read_bytes()
    given = UltraRefiner.from_pretrained(compiled, coarse=torch.compile(tiny_transunet()))
    assert torch.equal(given.coarse._orig_mod.network.head.weight, model.coarse._orig_mod.network.head.weight)


def test_every_system_of_one_image_can_be_saved() -> None:
    systems = [ur.AutoMedSAM, ur.AutoSAM, LightAutoSAM, SAMRefiner, UltraRefiner]
    assert all(issubclass(system, PretrainedSystem) for system in systems)
    assert describe_part(again(tiny_refiner())) == describe_part(SAMRefiner(tiny_sam()))
