"""Strict loading: prefixes, wrappers and constants are understood; anything else is refused whole, in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ultrarefiner.checkpoints import load_weights
from ultrarefiner.sam import build_sam


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return build_sam("tiny", image_size=64).state_dict()


def loaded_equals(path: Path, state: dict[str, Tensor], layout: str = "sam") -> bool:
    torch.manual_seed(2)
    sam = build_sam("tiny", image_size=64)
    report = load_weights(sam, path, layout=layout)
    assert len(report.loaded) == len(state)
    return all(torch.equal(value, state[name]) for name, value in sam.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "sam.", "module._orig_mod.sam.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_prefixes_and_wrappers_come_off(prefix: str, wrapper: str | None, state: dict, tmp_path: Path) -> None:
    content = {prefix + name: tensor for name, tensor in state.items()}
    torch.save(content if wrapper is None else {wrapper: content, "epoch": 3}, tmp_path / "sam.pth")
    assert loaded_equals(tmp_path / "sam.pth", state)


def test_safetensors_load_too(state: dict, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "sam.safetensors")
    assert loaded_equals(tmp_path / "sam.safetensors", state)


def test_constants_are_named_and_left_out(state: dict, tmp_path: Path) -> None:
    torch.save({**state, "pixel_mean": torch.zeros(3, 1, 1)}, tmp_path / "sam.pth")
    report = load_weights(build_sam("tiny", image_size=64), tmp_path / "sam.pth", layout="sam")
    assert report.left_out == {"pixel_mean": "a constant of the input policy"}
    assert "left out pixel_mean: a constant of the input policy" in str(report)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda s: {k: v for k, v in s.items() if "iou_token" not in k},
            r"1 missing \(mask_decoder.iou_token.weight\)",
        ),
        (lambda s: {**s, "head.weight": torch.zeros(1)}, r"1 unknown \(head.weight\)"),
        (
            lambda s: {**s, "mask_decoder.iou_token.weight": torch.zeros(2, 2)},
            r"1 of another shape \(mask_decoder.iou_token.weight \(2, 2\) for \(1, 64\)\)",
        ),
        (lambda s: {"sam_model": s, "sam_refiner": s}, "must hold a state dict.*sam_model, sam_refiner"),
        (lambda s: {"weight": torch.zeros(1)}, "is not a checkpoint of this SAM.*0 fit"),
    ],
    ids=["missing", "unknown", "reshaped", "two models", "another model"],
)
def test_another_models_checkpoint_is_refused_whole(change: object, sentence: str, state: dict, tmp_path: Path) -> None:
    torch.save(change(dict(state)), tmp_path / "sam.pth")
    sam = build_sam("tiny", image_size=64)
    before = {name: tensor.clone() for name, tensor in sam.state_dict().items()}
    with pytest.raises(ValueError, match=sentence):
        load_weights(sam, tmp_path / "sam.pth", layout="sam")
    assert all(torch.equal(tensor, before[name]) for name, tensor in sam.state_dict().items())


def test_truncated_missing_and_dangerous_files_are_refused(state: dict, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "whole.pth")
    (tmp_path / "short.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    torch.save({"weight": nn.Linear(1, 1)}, tmp_path / "pickle.pth")
    network = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"short\.pth"):
        load_weights(network, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"not executed|nothing.*executed"):
        load_weights(network, tmp_path / "pickle.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_weights(network, tmp_path / "none.pth")


@pytest.mark.usefixtures("unhooked")
def test_an_unknown_layout_gets_a_sentence(tmp_path: Path) -> None:
    known = "native, mobile_sam, sam, huggingface_sam, microsegnet, .*"
    with pytest.raises(ValueError, match=rf"layout must be one of {known} but it is 'sam2'"):
        load_weights(nn.Linear(1, 1), tmp_path / "a.pth", layout="sam2")


def test_segment_anythings_own_file_loads(tmp_path: Path) -> None:
    """segment-anything's class, saved as its authors save it."""
    from segment_anything.modeling import Sam

    ours = build_sam("tiny", image_size=64)
    theirs = Sam(ours.image_encoder, ours.prompt_encoder, ours.mask_decoder)
    torch.save(theirs.state_dict(), tmp_path / "sam.pth")
    assert loaded_equals(tmp_path / "sam.pth", theirs.state_dict())
