"""SegVol's published files: prefixes, wrappers, what stays in the file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published import shapes

from ultrarefiner.checkpoints import from_official, load_weights
from ultrarefiner.checkpoints.files import write_tensors
from ultrarefiner.networks import build_segvol, build_transunet
from ultrarefiner.sam import build_sam

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
    return [build_segvol("tiny", volume_size=SIZE, pe_order="legacy") for _ in range(2)]


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


@pytest.mark.parametrize("wrap", [lambda network: network, lambda network: torch.nn.Sequential(network)])
def test_prompts_in_another_order_are_refused_unless_allowed(pair, tmp_path: Path, wrap) -> None:
    aligned = build_segvol("tiny", volume_size=SIZE)
    before = {name: tensor.clone() for name, tensor in aligned.state_dict().items()}
    torch.save(official(pair[0]), tmp_path / "official.pth")
    sentence = (
        "network must have pe_order='legacy' for a file of layout 'segvol', .* but SegVol has 'aligned'; .* Build it "
        "with pe_order='legacy', or pass allow_other_settings=True"
    )
    with pytest.raises(ValueError, match=sentence):
        load_weights(wrap(aligned), tmp_path / "official.pth", layout="segvol")
    assert all(torch.equal(tensor, before[name]) for name, tensor in aligned.state_dict().items())
    load_weights(wrap(aligned), tmp_path / "official.pth", layout="segvol", allow_other_settings=True)
    assert all(torch.equal(tensor, pair[0].state_dict()[name]) for name, tensor in aligned.state_dict().items())
    assert aligned.pe_order == "aligned"


def encoder_only(network: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in network.image_encoder.state_dict().items()}


@pytest.mark.parametrize("order", ["legacy", "aligned"])
@pytest.mark.parametrize(
    ("save", "left_out"),
    [
        (lambda network: {"state_dict": encoder_only(network, "model.encoder."), "epoch": 2000}, 0),
        (
            lambda network: {
                "state_dict": {
                    **encoder_only(network, "model.encoder."),
                    "model.decoder.0.weight": torch.rand(2, 2),
                    "loss.weight": torch.rand(2),
                    "model.encoder.blocks.1.norm_cross_attn.weight": torch.rand(96),
                }
            },
            3,
        ),
        (encoder_only, 0),
    ],
)
def test_the_pretrained_image_encoder_alone(pair, tmp_path: Path, order, save, left_out) -> None:
    saved, network = pair[0], build_segvol("tiny", volume_size=SIZE, pe_order=order)
    torch.save(save(saved), tmp_path / "ViT_pretrain.ckpt")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = load_weights(network, tmp_path / "ViT_pretrain.ckpt", layout="segvol_vit")
    assert set(report.loaded) == {name for name in before if name.startswith("image_encoder.")}
    assert set(report.kept) == set(before) - set(report.loaded)
    assert len(report.left_out) == left_out
    for name, tensor in network.state_dict().items():
        expected = saved.state_dict()[name] if name.startswith("image_encoder.") else before[name]
        assert torch.equal(tensor, expected)


def test_the_pretrained_image_encoder_into_an_image_encoder(pair, tmp_path: Path) -> None:
    torch.save({"state_dict": encoder_only(pair[0], "model.encoder.")}, tmp_path / "ViT_pretrain.ckpt")
    load_weights(pair[1].image_encoder, tmp_path / "ViT_pretrain.ckpt", layout="segvol_vit")
    assert all(torch.equal(part, encoder_only(pair[1])[name]) for name, part in encoder_only(pair[0]).items())


def test_what_is_no_pretrained_image_encoder_changes_nothing(pair, tmp_path: Path) -> None:
    saved, network = pair
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": encoder_only(saved, "model.encoder.")}, tmp_path / "vit.ckpt")
    with pytest.raises(ValueError, match='Its names are those of layout="segvol_vit"'):
        load_weights(network, tmp_path / "vit.ckpt", layout="segvol")
    half = dict(list(encoder_only(saved, "model.encoder.").items())[:-1])
    torch.save({"state_dict": half}, tmp_path / "half.ckpt")
    with pytest.raises(ValueError, match=r"1 missing \(image_encoder"):
        load_weights(network, tmp_path / "half.ckpt", layout="segvol_vit")
    torch.save({"state_dict": {**half, "model.encoder.cls_token": torch.rand(2)}}, tmp_path / "more.ckpt")
    with pytest.raises(ValueError, match=r"no place in a pretrained image encoder of SegVol \(encoder.cls_token\)"):
        load_weights(network, tmp_path / "more.ckpt", layout="segvol_vit")
    torch.save(official(saved), tmp_path / "official.pth")
    with pytest.raises(ValueError, match=r'none of .* begin with model\.encoder\..*those of layout="segvol"'):
        load_weights(network, tmp_path / "official.pth", layout="segvol_vit")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_every_published_name_of_the_image_encoder_has_a_place() -> None:
    with torch.device("meta"):
        ours = build_segvol().image_encoder.state_dict()
        state = {
            name.replace("image_encoder.", "model.encoder."): torch.empty(shape)
            for name, shape in shapes("segvol").items()
            if name.startswith("image_encoder.")
        }
    named = from_official("segvol_vit", {"state_dict": state})
    assert {name: tensor.shape for name, tensor in named.items()} == {
        f"image_encoder.{name}": tensor.shape for name, tensor in ours.items()
    }


def test_a_transunet_of_ours_is_not_taken_for_the_published_pretraining(tmp_path: Path) -> None:
    write_tensors(tmp_path / "coarse.pt", dict(build_transunet("tiny").state_dict()))
    with pytest.raises(ValueError, match=r"missing|not found|do not fit|lack") as told:
        load_weights(build_sam("tiny"), tmp_path / "coarse.pt")
    assert "segvol_vit" not in str(told.value)
