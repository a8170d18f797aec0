"""SegVol's published files: prefixes, wrappers, what stays in the file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published import shapes

from ultrarefiner.checkpoints import from_official, load_weights
from ultrarefiner.networks import build_segvol

SIZE = (8, 16, 16)


def official(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What the published code would save of a network of this size, its dead and optional parts too."""
    text = "text_encoder.clip_text_model.text_model."
    return {
        **network.state_dict(),
        "prompt_encoder.mask_downscaling.0.weight": torch.rand(4, 1, 2, 2),
        "prompt_encoder.mask_downscaling.6.bias": torch.rand(96),
        f"{text}embeddings.position_ids": torch.arange(77)[None],
        f"{text}embeddings.token_embedding.weight": torch.rand(9, 4),
        f"{text}encoder.layers.0.self_attn.k_proj.weight": torch.rand(4, 4),
        f"{text}final_layer_norm.bias": torch.rand(4),
        "text_encoder.dim_align.weight": torch.rand(96, 4),
    }


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return [build_segvol("tiny", volume_size=SIZE) for _ in range(2)]


def test_every_published_name_has_a_place() -> None:
    with torch.device("meta"):
        ours = build_segvol().state_dict()
        state = {name: torch.empty(shape) for name, shape in shapes("segvol").items()}
    named = from_official("segvol", state)
    assert {name: tensor.shape for name, tensor in named.items()} == {name: t.shape for name, t in ours.items()}


@pytest.mark.parametrize(
    "save",
    [
        lambda state: {f"model.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3},
        lambda state: state,
    ],
)
def test_files_of_every_kind(pair, tmp_path: Path, save) -> None:
    saved, loaded = pair
    assert not torch.equal(saved.mask_decoder.iou_token.weight, loaded.mask_decoder.iou_token.weight)
    torch.save(save(official(saved)), tmp_path / "SegVol_v1.pth")
    report = load_weights(loaded, tmp_path / "SegVol_v1.pth", layout="segvol")
    assert set(report.loaded) == set(loaded.state_dict())
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert len(report.left_out) == 7
    for part, reason in (
        ("mask_downscaling", "an embedding of two-dimensional masks, which no volume fits"),
        ("position_ids", "a row of whole numbers that older transformers kept with the weights"),
        ("dim_align", "this network was built without the text encoder"),
        ("clip.encoder", "this network was built without the text encoder"),
    ):
        assert {why for name, why in report.left_out.items() if part in name} == {reason}


def test_a_later_projects_corrections_and_monais_idle_parts_stay_in_the_file(pair, tmp_path: Path) -> None:
    saved, loaded = pair
    more = {
        "gru_blocks.0.gru.weight_ih_l0": torch.rand(2, 2),
        "image_encoder.blocks.0.norm_cross_attn.bias": torch.rand(2),
    }
    torch.save({f"model.{name}": part for name, part in {**official(saved), **more}.items()}, tmp_path / "gru.pth")
    report = load_weights(loaded, tmp_path / "gru.pth", layout="segvol")
    assert set(more) <= set(report.left_out)


@pytest.mark.parametrize("inner", ["text_model.", ""])
def test_a_text_encoder_is_loaded_where_there_is_one(pair, inner) -> None:
    clip = "text_encoder.clip_text_model."
    named = from_official(
        "segvol",
        {
            f"model.{clip}{inner}final_layer_norm.bias": torch.ones(4),
            f"model.{clip}{inner}embeddings.position_ids": torch.arange(77)[None],
            "model.text_encoder.dim_align.bias": torch.zeros(8),
        },
    )
    assert set(named) == {"text_encoder.clip.final_layer_norm.bias", "text_encoder.dim_align.bias"}


def test_a_text_encoder_of_full_size() -> None:
    pytest.importorskip("transformers")
    from ultrarefiner.networks import SegVolTextEncoder

    with torch.device("meta"):
        network = build_segvol("tiny", volume_size=SIZE, text_encoder=SegVolTextEncoder(96))
    ours = network.state_dict()
    clip = "text_encoder.clip_text_model.text_model."
    theirs = {name.replace("text_encoder.clip.", clip): tensor for name, tensor in ours.items()}
    theirs[f"{clip}embeddings.position_ids"] = torch.arange(77)[None]
    assert set(from_official("segvol", theirs)) == set(ours)


def test_what_is_no_segvol_changes_nothing(pair, tmp_path: Path) -> None:
    saved, other = pair
    before = other.mask_decoder.iou_token.weight.clone()
    torch.save({**official(saved), "optimizer.lr": torch.ones(1)}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match=r"1 of \d+ tensors have no place in a SegVol checkpoint \(optimizer.lr\)"):
        load_weights(other, tmp_path / "more.pth", layout="segvol")
    torch.save(build_segvol("tiny", volume_size=(8, 16, 32)).state_dict(), tmp_path / "wider.pth")
    with pytest.raises(ValueError, match=r"of another shape \(image_encoder.patch_embedding.position_embeddings"):
        load_weights(other, tmp_path / "wider.pth", layout="segvol")
    torch.save(official(saved), tmp_path / "official.pth")
    with pytest.raises(ValueError, match='Its names are those of layout="segvol"'):
        load_weights(other, tmp_path / "official.pth")
    assert torch.equal(before, other.mask_decoder.iou_token.weight)


def test_our_own_files(pair, tmp_path: Path) -> None:
    saved, loaded = pair
    torch.save(saved.state_dict(), tmp_path / "ours.pt")
    assert set(load_weights(loaded, tmp_path / "ours.pt").loaded) == set(saved.state_dict())
