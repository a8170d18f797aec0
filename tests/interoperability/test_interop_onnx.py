"""Coarse network and refiner as an ONNX file: equal to the model, for lesions, noise and nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import ultrarefiner as ur
from ultrarefiner.systems import export_onnx, onnx_export

pytestmark = pytest.mark.usefixtures("unhooked")

SIZE = (48, 80)


class Bright(nn.Module):
    """A coarse network that finds what is bright: an image without it has an empty mask."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(1, 1, 5, padding=2, bias=False)
        nn.init.constant_(self.blur.weight, 1 / 25)

    def forward(self, images: Tensor) -> Tensor:
        return (self.blur(images.mean(1, keepdim=True)) - 0.6) * 20


def refiner_of(*, cropper: bool, policy: str = "sam") -> ur.SAMRefiner:
    torch.manual_seed(0)
    sam = ur.build_sam("tiny", image_size=64, input_policy=policy)
    return ur.SAMRefiner(sam, cropper=ur.ROICropper() if cropper else None)


def images_of(batch: int, channels: int = 1) -> list[Tensor]:
    """A lesion, noise, a lesion at the border, and nothing."""
    lesion = torch.full((batch, channels, *SIZE), 0.1)
    lesion[..., 10:30, 20:50] = 0.95
    border = lesion.roll((-12, -25), (-2, -1))
    noise = torch.rand(batch, channels, *SIZE, generator=torch.Generator().manual_seed(1))
    return [lesion, noise, border, torch.zeros_like(lesion)]


def run(path: Path, **given: Tensor) -> dict[str, Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {name: tensor.numpy() for name, tensor in given.items()})
    return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    model = ur.UltraRefiner(
        coarse=Bright(),
        refiner=refiner_of(cropper=True),
        gate=ur.UncertaintyGate(maximum=0.9),
        acceptance=ur.AcceptanceRule(minimum_agreement=0.98),
    )
    model.train()
    return model, export_onnx(model, path, size=SIZE, batch=2)


def test_the_file_says_what_goes_in_and_out(exported) -> None:
    model, told = exported
    assert model.training
    assert told.inputs == {"images": (2, 1, *SIZE)}
    shape = (2, 1, *SIZE)
    assert told.outputs == {"coarse_logits": shape, "refined_logits": shape, "iou": (2, 1)}
    assert told.difference <= 1e-3
    content = onnx.load(told.path)
    onnx.checker.check_model(content)
    assert [one.version for one in content.opset_import if one.domain in ("", "ai.onnx")] == [told.opset] == [18]
    assert [path.name for path in told.path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("which", "accepted"), list(enumerate([True, False, True, True])), ids=["lesion", "noise", "border", "nothing"]
)
def test_it_answers_as_the_model(exported, which: int, accepted: bool) -> None:
    """Where SAM's answer is taken and where it is given up for the coarse mask."""
    model, told = exported
    images = images_of(2)[which]
    with torch.no_grad():
        expected = model.eval()(images)
    found = run(told.path, images=images)
    for name in ("coarse_logits", "refined_logits"):
        torch.testing.assert_close(found[name].sigmoid(), getattr(expected, name).sigmoid(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found["iou"], expected.iou, atol=1e-4, rtol=0)
    assert expected.accepted.tolist() == [[accepted]] * 2
    for masks in (found, vars(expected)):
        apart = (masks["refined_logits"].sigmoid() - masks["coarse_logits"].sigmoid()).abs().amax((-3, -2, -1))
        assert ((apart > 0.05) if accepted and which != 3 else (apart < 1e-6)).all()
    if which == 3:
        assert not expected.prompts.valid.any()
        assert torch.equal(found["iou"], torch.zeros(2, 1))
        torch.testing.assert_close(found["refined_logits"], found["coarse_logits"])


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["sam", "medsam"])
def test_whole_images_in_colour_and_several_masks(policy: str, tmp_path: Path) -> None:
    refiner = refiner_of(cropper=False, policy=policy).eval()
    told = export_onnx(refiner, tmp_path / "refiner.onnx", size=SIZE, channels=3, masks=2)
    assert told.inputs == {"images": (1, 3, *SIZE), "probability": (1, 2, *SIZE)}
    for images in images_of(1, 3):
        probability = torch.cat([images[:, :1], torch.zeros(1, 1, *SIZE)], 1)
        with torch.no_grad():
            expected = refiner(images, probability)
        found = run(told.path, images=images, probability=probability)
        torch.testing.assert_close(found["refined_logits"].sigmoid(), expected.logits.sigmoid(), atol=1e-4, rtol=0)
        torch.testing.assert_close(found["iou"], expected.iou, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_the_light_pairs_arrangement(tmp_path: Path) -> None:
    torch.manual_seed(0)
    coarse = ur.AtSize(ur.BackboneUNet(decoder_channels=(16, 8, 8, 8, 8)), 64)
    refiner = ur.SAMRefiner(ur.build_light_sam(image_size=64), cropper=ur.ROICropper(expand=0.2))
    model = ur.UltraRefiner(coarse=coarse, refiner=refiner, gate=ur.LearnedGate(4), acceptance=ur.AcceptanceRule())
    told = export_onnx(model.eval(), tmp_path / "light.onnx", size=SIZE)
    for images in images_of(1):
        with torch.no_grad():
            expected = model(images)
        found = run(told.path, images=images)
        torch.testing.assert_close(found["refined_logits"].sigmoid(), expected.refined_probability, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "numbers", [{"size": (0, 8)}, {"size": (8,)}, {"batch": 0}, {"channels": 2}, {"masks": 0}], ids=str
)
def test_numbers_out_of_range_are_refused(numbers: dict, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"size must be \(height, width\), batch and masks at least 1 and channels 1 or"
    ):
        export_onnx(refiner_of(cropper=False), tmp_path / "a.onnx", **{"size": SIZE, **numbers})


def test_what_is_no_refiner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model must be an UltraRefiner or a SAMRefiner, but its class is Conv2d"):
        export_onnx(nn.Conv2d(1, 1, 3), tmp_path / "a.onnx", size=SIZE)


def test_two_gigabytes_are_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        refiner = ur.SAMRefiner(ur.build_sam("vit_h"))
    with pytest.raises(ValueError, match="model must have less than 2 GB of weights"):
        export_onnx(refiner, tmp_path / "a.onnx", size=SIZE)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{missing} is needed to write ONNX.*'ultrarefiner\[onnx\]'"):
        export_onnx(refiner_of(cropper=False), tmp_path / "a.onnx", size=SIZE)
    assert not list(tmp_path.iterdir())


def test_a_file_that_answers_otherwise_is_not_written(exported, tmp_path: Path, monkeypatch) -> None:
    model, told = exported
    content = told.path.read_bytes()
    monkeypatch.setattr(onnx_export, "_exported", lambda *_: content)
    other = ur.UltraRefiner(coarse=nn.Conv2d(1, 1, 3, padding=1), refiner=model.refiner).eval()
    with pytest.raises(ValueError, match=r"must answer as the model does, but a probability differs by .*nothing was"):
        export_onnx(other, tmp_path / "a.onnx", size=SIZE, batch=2)
    assert not list(tmp_path.iterdir())


class Silent:
    """An onnxruntime of which every answer is NaN."""

    def __init__(self, content: bytes, **_: object) -> None: ...

    def run(self, names: list[str], given: dict) -> list:
        return [numpy.full((2, 1, 4, 4), numpy.nan, numpy.float32) for _ in names]


def test_nan_is_no_equal_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", Silent)
    wrapped = onnx_export._wrapped(refiner_of(cropper=False))
    shape = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"a probability differs by inf, more than tolerance=0\.5; nothing was"):
        onnx_export._difference(b"", wrapped, [(shape, shape)], [(shape, shape)], 0.5)


def test_a_model_elsewhere_or_of_another_precision_is_refused(tmp_path: Path) -> None:
    for moved, told in (({"dtype": torch.float64}, "cpu in torch.float64"), ({"device": "meta"}, "meta in torch.fl")):
        with pytest.raises(ValueError, match=f"model must be on the CPU in float32, but it has weights on {told}"):
            export_onnx(refiner_of(cropper=False).to(**moved), tmp_path / "a.onnx", size=SIZE)


def test_without_onnxruntime_nothing_is_compared(exported, tmp_path: Path, monkeypatch) -> None:
    model, told = exported
    content = told.path.read_bytes()
    monkeypatch.setattr(onnx_export, "_exported", lambda *_: content)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    again = export_onnx(model, tmp_path / "a.onnx", size=SIZE, batch=2)
    assert again.difference is None
    assert again.path.read_bytes() == content
