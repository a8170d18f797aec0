"""Whole systems saved and loaded: the same answers to the bit, and every part where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_systems import (
    Plain,
    edit_config,
    edit_tensors,
    images,
    light_unet,
    stirred,
    tiny_refiner,
    tiny_sam,
    tiny_transunet,
)
from torch import Tensor, nn

import ultrarefiner as ur
from ultrarefiner.networks import LightDecoder
from ultrarefiner.refinement import LearnedGate
from ultrarefiner.sam import build_light_sam
from ultrarefiner.systems import (
    AutoMedSAM,
    AutoSAM,
    LightAutoSAM,
    SAMRefiner,
    UltraRefiner,
    build_autosam_generator,
    legacy_autosam,
    register_part,
)


def generator() -> nn.Module:
    return build_autosam_generator("tiny", channels=64, size=4)


def whole_pair() -> UltraRefiner:
    refiner = SAMRefiner(
        build_light_sam(image_size=64, mean=(0.4, 0.5, 0.6)),
        cropper=ur.ROICropper(size=64, expand=0.3, minimum=0.1),
        prompts=ur.DifferentiablePromptExtractor(image_size=64, positive=ur.MeanShift(2), negative=ur.FarCorner()),
        selection=ur.BestSelection(),
        through_crop=True,
    )
    gate = ur.ProductGate(ur.UncertaintyGate(0.5, maximum=0.9), LearnedGate(4, bias=1.0))
    rule = ur.AcceptanceRule(minimum_iou=0.01, minimum_agreement=0.001)
    coarse = ur.AtSize(light_unet(std=(0.2, 0.2, 0.25)), 64)
    return UltraRefiner(coarse=coarse, refiner=refiner, gate=gate, gradient_scale=0.2, acceptance=rule, frame=96)


def with_classes() -> UltraRefiner:
    network = ur.ForegroundLogits(ur.build_transunet("tiny", classes=2, image_size=32))
    return UltraRefiner(coarse=ur.AtSize(network, 32), refiner=tiny_refiner(dense_prompts=generator()))


def of_two_systems() -> UltraRefiner:
    coarse = AutoSAM(tiny_sam(1), generator(), input_size=64)
    return UltraRefiner(coarse=coarse, refiner=SAMRefiner(tiny_sam(2, input_policy="medsam")))


def without_sam() -> UltraRefiner:
    coarse = LightAutoSAM(generator(), LightDecoder(64, hidden=(8, 4)), input_policy=ur.SAMInput(64), input_size=64)
    return UltraRefiner(coarse=coarse, refiner=tiny_refiner(), gate=ur.UncertaintyGate())


PAIRS = [whole_pair, with_classes, of_two_systems, without_sam]
CALLED = {
    "UltraRefiner": lambda model: model(images()).refined_logits,
    "SAMRefiner": lambda model: model(images(), images(2)).logits,
    "AutoSAM": lambda model: model(images()).logits,
    "AutoMedSAM": lambda model: model(images()).logits,
}
OTHERS = [
    lambda: tiny_refiner(cropper=ur.ROICropper(aspect="image"), selection=ur.SoftSelection(0.3)),
    lambda: SAMRefiner(tiny_sam(), input_policy=ur.MedSAMInput(64)),
    lambda: AutoSAM(tiny_sam(), generator(), input_size=32),
    lambda: AutoSAM(tiny_sam(), generator(), input_size=32, generator_policy=ur.MedSAMInput(64)),
    lambda: legacy_autosam(tiny_sam(), generator(), input_size=32),
    lambda: AutoMedSAM(tiny_sam(), ur.PromptModule(channels=64, hidden=8, points=3, pooled=4, image_size=64)),
    lambda: AutoMedSAM(tiny_sam(), ur.TokenPromptModule(channels=64, hidden=8, tokens=3, pooled=4)),
]


@torch.no_grad()
def answer(model: nn.Module) -> Tensor:
    return CALLED[type(model).__name__](model)


@pytest.mark.parametrize("build", [*PAIRS, *OTHERS])
def test_a_loaded_system_answers_the_same_to_the_bit(build: Any, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = stirred(build())
    assert model.save_pretrained(tmp_path) == tmp_path
    before = torch.random.get_rng_state()
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(module.training for module in loaded.modules())
    assert loaded.settings() == model.settings()
    assert json.dumps(described(loaded)) == json.dumps(described(model))
    assert torch.equal(answer(loaded), answer(model))


def described(model: nn.Module) -> Any:
    from ultrarefiner.systems.describing import describe_part

    return describe_part(model)


@pytest.mark.parametrize("build", PAIRS[:2])
def test_half_precision_on_the_disk_is_close(build: Any, tmp_path: Path) -> None:
    model = stirred(build())
    model.save_pretrained(tmp_path / "half", dtype=torch.float16)
    model.save_pretrained(tmp_path / "full")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = UltraRefiner.from_pretrained(tmp_path / "half")
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    state = model.state_dict()
    for name, value in loaded.state_dict().items():
        expected = state[name].half().float() if state[name].is_floating_point() else state[name]
        assert torch.equal(value, expected), name
    with torch.no_grad():
        pair = [system(images()).coarse_probability for system in (model, loaded)]
    torch.testing.assert_close(*pair, atol=0.02, rtol=0)


def test_the_state_of_training_does_not_matter(tmp_path: Path) -> None:
    model = whole_pair().train()
    model.save_pretrained(tmp_path)
    assert model.training
    assert not UltraRefiner.from_pretrained(tmp_path).training


def test_one_sam_for_two_parts_stays_one(tmp_path: Path) -> None:
    sam = tiny_sam()
    model = UltraRefiner(coarse=AutoSAM(sam, generator(), input_size=64), refiner=SAMRefiner(sam)).eval()
    model.save_pretrained(tmp_path)
    loaded = UltraRefiner.from_pretrained(tmp_path)
    assert loaded.coarse.sam is loaded.refiner.sam
    assert torch.equal(answer(loaded), answer(model))
    weights = sum(value.numel() * value.element_size() for value in {id(p): p for p in model.parameters()}.values())
    assert (tmp_path / "model.safetensors").stat().st_size < 1.1 * weights + 100_000
    with pytest.raises(ValueError, match=r"settings.refiner.sam is the same part as 'coarse.sam', which was not built"):
        UltraRefiner.from_pretrained(tmp_path, coarse=AutoSAM(tiny_sam(), generator(), input_size=64))


def test_a_network_of_ones_own_is_saved_and_asked_for(tmp_path: Path) -> None:
    model = stirred(UltraRefiner(coarse=Plain(), refiner=tiny_refiner()))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["settings"]["coarse"] == {"part": "Plain", "rebuild": False}
    sentence = (
        r"coarse is a Plain, a class that this library does not build; give it.*from_pretrained\(folder, coarse=my"
    )
    with pytest.raises(ValueError, match=sentence):
        UltraRefiner.from_pretrained(tmp_path)
    loaded = UltraRefiner.from_pretrained(tmp_path, coarse=Plain())
    assert torch.equal(answer(loaded), answer(model))
    with pytest.raises(
        ValueError, match=r"has coarse.layers.0.weight with the shape \(4, 1, 3, 3\), but the system's is"
    ):
        UltraRefiner.from_pretrained(tmp_path, coarse=Plain(8))
    with pytest.raises(ValueError, match=r"lacks 4 tensors that UltraRefiner needs: gate"):
        UltraRefiner.from_pretrained(
            tmp_path, coarse=Plain(), gate=nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
        )
    with pytest.raises(ValueError, match=r"cuarse was given, but the saved system has no place of that name"):
        UltraRefiner.from_pretrained(tmp_path, cuarse=Plain(), coarse=Plain())


def test_a_part_deeper_down_is_given_by_its_place(tmp_path: Path) -> None:
    model = stirred(UltraRefiner(coarse=ur.AtSize(Plain(), 32), refiner=tiny_refiner()))
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r'coarse.network is a Plain.*\*\*\{"coarse.network": my_part\}'):
        UltraRefiner.from_pretrained(tmp_path)
    loaded = UltraRefiner.from_pretrained(tmp_path, **{"coarse.network": Plain()})
    assert torch.equal(answer(loaded), answer(model))


def test_a_sam_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    sam = tiny_sam()
    own = ur.SAM(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder, input_policy=sam.input_policy)
    model = SAMRefiner(own).eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"sam is a SAM, a class that this library does not build"):
        SAMRefiner.from_pretrained(tmp_path)
    other = tiny_sam(9)
    given = ur.SAM(other.image_encoder, other.prompt_encoder, other.mask_decoder, input_policy=other.input_policy)
    assert torch.equal(answer(SAMRefiner.from_pretrained(tmp_path, sam=given)), answer(model))
    wrong = ur.SAM(other.image_encoder, other.prompt_encoder, other.mask_decoder, input_policy=ur.MedSAMInput(64))
    with pytest.raises(
        ValueError, match=r"sam was given, but its input.policy is 'medsam' where the saved one had 'sam'"
    ):
        SAMRefiner.from_pretrained(tmp_path, sam=wrong)


def test_numbers_may_be_given_too(tmp_path: Path) -> None:
    whole_pair().save_pretrained(tmp_path)
    loaded = UltraRefiner.from_pretrained(tmp_path, frame=128, gradient_scale=0.7, acceptance=None)
    assert (loaded.frame, loaded.gradient_scale, loaded.acceptance) == (128, 0.7, None)


def test_a_subclass_is_registered_first(tmp_path: Path) -> None:
    class Renamed(SAMRefiner):
        pass

    model = Renamed(tiny_sam()).eval()
    with pytest.raises(ValueError, match=r"Renamed is not known to save_pretrained.*register_part\(Renamed\)"):
        model.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
    register_part(Renamed)
    model.save_pretrained(tmp_path)
    assert type(Renamed.from_pretrained(tmp_path)) is Renamed
    with pytest.raises(ValueError, match=r"holds a system of the class 'Renamed', not SAMRefiner"):
        SAMRefiner.from_pretrained(tmp_path)


def test_the_system_must_be_the_class(tmp_path: Path) -> None:
    tiny_refiner().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds a system of the class 'SAMRefiner', not UltraRefiner; load it with"):
        UltraRefiner.from_pretrained(tmp_path)
    edit_config(tmp_path, lambda config: config.update(system="os.system"))
    with pytest.raises(ValueError, match=r"holds a system of the class 'os.system', not SAMRefiner"):
        SAMRefiner.from_pretrained(tmp_path)


def test_tampered_weights_are_refused_even_with_a_new_digest(tmp_path: Path) -> None:
    tiny_refiner().save_pretrained(tmp_path)
    name = "sam.prompt_encoder.no_mask_embed.weight"
    edit_tensors(tmp_path, lambda tensors: tensors.update({name: torch.zeros(2, 64)}))
    with pytest.raises(ValueError, match=r"has sam.prompt_encoder.no_mask_embed.weight with the shape \(2, 64\)"):
        SAMRefiner.from_pretrained(tmp_path)
    edit_tensors(tmp_path, lambda tensors: tensors.pop(name))
    with pytest.raises(
        ValueError, match=r"lacks 1 tensor that SAMRefiner needs: sam.prompt_encoder.no_mask_embed.weight"
    ):
        SAMRefiner.from_pretrained(tmp_path)


def test_an_id_of_the_hub_is_loaded_as_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    model = tiny_refiner().eval()
    model.save_pretrained(tmp_path / "snapshot")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(tmp_path / "snapshot"))
    assert torch.equal(answer(SAMRefiner.from_pretrained("owner/model", revision="main")), answer(model))


def test_the_deep_network_may_answer_at_several_scales(tmp_path: Path) -> None:
    model = UltraRefiner(coarse=tiny_transunet(deep_supervision=True, dropout=0.3), refiner=tiny_refiner()).eval()
    model.save_pretrained(tmp_path)
    loaded = UltraRefiner.from_pretrained(tmp_path)
    assert loaded.coarse.network.encoder.dropout.p == 0.3
    assert len(loaded.coarse.network.side_heads) == 3
    assert torch.equal(answer(loaded), answer(model))
