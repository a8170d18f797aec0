"""Settings of a file that somebody edited: a sentence each, and nothing unknown is ever built, imported or opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from saved_systems import edit_config, light_unet, tiny_refiner, tiny_transunet

import ultrarefiner as ur
from ultrarefiner.systems import UltraRefiner
from ultrarefiner.systems.describing import describe_part
from ultrarefiner.systems.plain_values import as_wanted
from ultrarefiner.systems.rebuilding import build_part


def test_names_of_files_import_nothing() -> None:
    for name in ("os.system", "builtins.eval", "torch.nn.Linear", "Linear", "__import__", None, 3):
        with pytest.raises(ValueError, match="settings is of the unknown part"):
            build_part({"part": name})


@pytest.mark.parametrize("name", ["hf-hub:somebody/network", "local-dir:/etc", "../x", "a b", ""])
@pytest.mark.parametrize("kind", ["BackboneUNet", "LightSAM"])
def test_addresses_as_backbones_are_not_opened(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    described = describe_part(light_unet() if kind == "BackboneUNet" else ur.build_light_sam(image_size=64))
    assert described["part"] == kind
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ValueError, match=r"settings cannot be built: backbone must be a name of timm's, letters"):
        build_part({**described, "backbone": name})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda s: s.update(colour=1),
            r"settings has the unknown key 'colour': UltraRefiner takes coarse, refiner, gate",
        ),
        (
            lambda s: s["refiner"]["cropper"].update(x=1),
            r"settings.refiner.cropper has the unknown key 'x': ROICropper",
        ),
        (
            lambda s: s["refiner"]["prompts"]["positive"].update(steps=2),
            r"settings.refiner.prompts.positive has the unk",
        ),
        (lambda s: s.pop("refiner"), r"settings lacks refiner, which UltraRefiner needs"),
        (lambda s: s["refiner"].update(part="Refiner"), r"settings.refiner is of the unknown part 'Refiner'; a newer"),
        (lambda s: s.update(frame="512"), r"settings.frame must be int or None, but it is '512'"),
        (lambda s: s.update(frame=True), r"settings.frame must be int or None, but it is True"),
        (lambda s: s.update(gradient_scale=None), r"settings.gradient_scale must be float, but it is None"),
        (lambda s: s.update(gradient_scale=-1), r"settings cannot be built: gradient_scale must be a finite number"),
        (lambda s: s.update(refiner=s["gate"]), r"settings.refiner must be SAMRefiner, but it is 'ProductGate'"),
        (lambda s: s.update(gate=3), r"settings.gate must be Module or None, but it is 3"),
        (lambda s: s["gate"].update(gates=[]), r"settings.gate cannot be built: gates must be at least one gate"),
        (lambda s: s["gate"]["gates"].append(3), r"settings.gate.gates must be a list of Module, but it is \["),
        (
            lambda s: s["gate"]["gates"].append({"part": "LearnedGate", "width": -3}),
            r"settings.gate.gates.1 cannot be built: .*negative dimension",
        ),
        (
            lambda s: s["gate"]["gates"].append({"part": "LearnedGate", "width": 10**12}),
            r"settings.gate.gates.1 cannot be built: .*allocate",
        ),
        (
            lambda s: s["refiner"]["sam"]["input_policy"].update(mean=[0.5, 0.5]),
            r"input_policy cannot be built: mean must be three finite numbers, one for each channel, but it",
        ),
        (
            lambda s: s["coarse"]["network"].update(image_size=[32, 32, 32]),
            r"coarse.network cannot be built: image_size must be a multiple of 16, or",
        ),
        (
            lambda s: s["gate"]["gates"][0].update(gamma=0),
            r"settings.gate.gates.0 cannot be built: UncertaintyGate takes",
        ),
        (
            lambda s: s["refiner"]["cropper"].update(aspect="round"),
            r"cropper.aspect must be 'square' or 'image', but it",
        ),
        (lambda s: s["refiner"]["sam"].update(size="huge"), r"settings.refiner.sam.size must be 'tiny' or 'vit_b' or"),
        (
            lambda s: s["refiner"]["sam"].update(image_size=33),
            r"settings.refiner.sam cannot be built: image_size must be",
        ),
        (
            lambda s: s.update(gate={"part": "shared", "with": "refiner.gate"}),
            r"settings.gate is the same part as 'refiner.g",
        ),
        (lambda s: s.update(gate={"gamma": 1}), r"settings.gate is of the unknown part None"),
        (
            lambda s: s.update(gate={"part": "LearnedGate", "rebuild": True}),
            r"settings.gate has the unknown key 'rebuild'",
        ),
    ],
)
def test_edited_settings_get_a_sentence(
    change: Callable[[dict[str, Any]], None], sentence: str, tmp_path: Path
) -> None:
    gate = ur.ProductGate(ur.UncertaintyGate())
    refiner = tiny_refiner(cropper=ur.ROICropper())
    UltraRefiner(coarse=tiny_transunet(), refiner=refiner, gate=gate).save_pretrained(tmp_path)
    edit_config(tmp_path, lambda config: change(config["settings"]))
    with pytest.raises(ValueError, match=sentence):
        UltraRefiner.from_pretrained(tmp_path)


def test_an_argument_that_an_older_version_did_not_have_takes_its_default(tmp_path: Path) -> None:
    model = UltraRefiner(coarse=tiny_transunet(), refiner=tiny_refiner(), frame=64)
    model.save_pretrained(tmp_path)
    edit_config(tmp_path, lambda config: config["settings"].pop("frame"))
    assert UltraRefiner.from_pretrained(tmp_path).frame is None


@pytest.mark.parametrize(
    ("value", "wanted", "fits"),
    [
        (1, int, True),
        (1.0, int, False),
        (True, float, False),
        ("a", str, True),
        (None, type(None), True),
        ([1, 2], tuple[int, int], True),
        ([1, 2, 3], tuple[int, int], False),
        ([1, 2, 3], tuple[int, ...], True),
        ([1, "2"], list[int], False),
        ("12", list[str], False),
        ({"a": 1}, int, False),
        ({"a": 1}, Any, True),
        ([1.5], Sequence[str], False),
        (1, Literal[True], False),
    ],
)
def test_plain_values_fit_or_do_not(value: Any, wanted: Any, fits: bool) -> None:
    assert as_wanted(value, wanted)[0] is fits
