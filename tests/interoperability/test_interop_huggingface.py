"""Hugging Face's SamModel: its weights here, ours there, equal answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

import ultrarefiner as ur
from ultrarefiner.checkpoints import LAYOUTS, from_official, to_huggingface_sam, write_huggingface_sam
from ultrarefiner.sam import decode
from ultrarefiner.types import Prompts

SHARED = "shared_image_embedding.positional_embedding"
TIED = "prompt_encoder.shared_embedding.positional_embedding"


def drawn(model: torch.nn.Module) -> torch.nn.Module:
    """Weights of which none is 0 or 1, so that none can be lost unnoticed."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            tensor.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def theirs() -> SamModel:
    """A SamModel of the size of our "tiny"; the decoder's epsilon as in segment-anything."""
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=96,
            output_channels=64,
            num_hidden_layers=4,
            num_attention_heads=3,
            image_size=64,
            window_size=7,
            global_attn_indexes=[1, 3],
            num_pos_feats=32,
            mlp_dim=384,
        ).to_dict(),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=64, image_size=64).to_dict(),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=64, mlp_dim=256, num_attention_heads=4, iou_head_hidden_dim=64, layer_norm_eps=1e-5
        ).to_dict(),
    )
    return drawn(SamModel(config))


@pytest.fixture(scope="module")
def ours(theirs: SamModel, tmp_path_factory: pytest.TempPathFactory) -> ur.SAM:
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    sam = ur.build_sam("tiny", image_size=64)
    report = ur.load_weights(sam, folder / "model.safetensors", layout="huggingface_sam")
    assert len(report.loaded) == len(sam.state_dict())
    return sam


def compare(theirs: SamModel, ours: ur.SAM, *, points: bool, boxes: bool, masks: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(2, 3, 64, 64, generator=generator)
    # transformers takes one mask prompt an image, with any number of objects; and one object, where it is given.
    k = 1 if masks else 3
    places = torch.rand(2, k, 4, 2, generator=generator) * 63
    labels = torch.randint(-1, 2, (2, k, 4), generator=generator)
    corners = torch.rand(2, k, 4, generator=generator) * 63
    logits = torch.randn(2, 1, 16, 16, generator=generator) * 5
    prompts = Prompts(
        points=places if points else None,
        labels=labels if points else None,
        boxes=corners if boxes else None,
        mask_logits=logits if masks else None,
        valid=torch.ones(2, k, dtype=torch.bool),
    )
    with torch.no_grad():
        embeddings = ours.image_encoder(pixels)
        torch.testing.assert_close(theirs.get_image_embeddings(pixels), embeddings, rtol=1e-4, atol=1e-5)
        for multimask in (True, False):
            expected = theirs(
                pixel_values=pixels,
                input_points=prompts.points,
                input_labels=prompts.labels,
                input_boxes=prompts.boxes,
                input_masks=prompts.mask_logits,
                multimask_output=multimask,
            )
            found = decode(ours, embeddings, prompts, multimask=multimask)
            torch.testing.assert_close(found.logits, expected.pred_masks, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.iou, expected.iou_scores, rtol=1e-4, atol=1e-4)
            assert found.logits.std() > 1e-3


@settings(deadline=None, max_examples=6)
@given(
    which=st.sampled_from([(True, False), (False, True), (True, True)]),
    masks=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_their_weights_answer_alike_here(
    theirs: SamModel, ours: ur.SAM, which: tuple[bool, bool], masks: bool, seed: int
) -> None:
    compare(theirs, ours, points=which[0], boxes=which[1], masks=masks, seed=seed)


def test_there_and_back_is_the_same(theirs: SamModel, ours: ur.SAM) -> None:
    there = to_huggingface_sam(ours.state_dict())
    expected = theirs.state_dict()
    assert there.keys() == expected.keys()
    assert all(torch.equal(there[name], expected[name]) for name in expected)
    back = from_official("huggingface_sam", there)
    assert back.keys() == ours.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.state_dict().items())


def test_a_folder_of_ours_is_read_by_transformers(tmp_path: Path) -> None:
    sam = drawn(ur.build_sam("tiny", image_size=64))
    folder = write_huggingface_sam(sam, tmp_path / "new" / "sam")
    model, report = SamModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    compare(model.eval(), sam, points=True, boxes=True, masks=True, seed=0)
    again = ur.build_sam("tiny", image_size=64)
    ur.load_weights(again, folder / "model.safetensors", layout="huggingface_sam")
    assert all(torch.equal(new, old) for new, old in zip(again.parameters(), sam.parameters(), strict=True))


def test_names_are_those_of_facebooks_sam_vit_base() -> None:
    """`SamConfig()` is that model's; on the meta device its 594 tensors cost nothing."""
    with torch.device("meta"):
        expected = SamModel(SamConfig()).state_dict()
        sam = ur.build_sam("vit_b").state_dict()
    there = to_huggingface_sam(sam)
    assert {name: tensor.shape for name, tensor in there.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }


@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h"])
def test_the_config_of_a_published_size_is_transformers_own(size: str, tmp_path: Path, monkeypatch) -> None:
    from ultrarefiner.checkpoints import huggingface_folder

    with torch.device("meta"):
        sam = ur.build_sam(size)
    config = huggingface_folder._config(sam, to_huggingface_sam(sam.state_dict()))
    read = SamConfig(**config)
    widths = {"vit_b": (768, 12, 12), "vit_l": (1024, 24, 16), "vit_h": (1280, 32, 16)}
    vision = read.vision_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == widths[size]
    defaults = SamMaskDecoderConfig().to_dict()
    for name, value in config["mask_decoder_config"].items():
        assert value == (1e-5 if name == "layer_norm_eps" else defaults[name]), name
    for name, value in config["prompt_encoder_config"].items():
        assert value == SamPromptEncoderConfig().to_dict()[name], name
    if size == "vit_b":
        for name, value in config["vision_config"].items():
            assert value == SamVisionConfig().to_dict()[name], name


def test_either_copy_of_the_positional_encoding_will_do(ours: ur.SAM) -> None:
    whole = to_huggingface_sam(ours.state_dict())
    for name in (SHARED, TIED):
        one = {key: tensor for key, tensor in whole.items() if key != name}
        back = from_official("huggingface_sam", one)
        assert back.keys() == ours.state_dict().keys()
    different = {**whole, TIED: whole[TIED] + 1}
    with pytest.raises(ValueError, match=r"must be one tensor, as transformers ties them, but they differ"):
        from_official("huggingface_sam", different)


def test_what_is_no_sam_is_refused(ours: ur.SAM, tmp_path: Path) -> None:
    whole = to_huggingface_sam(ours.state_dict())
    with pytest.raises(ValueError, match=r"1 of \d+ tensors have no place in a SamModel of transformers \(strange\)"):
        from_official("huggingface_sam", {**whole, "strange": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"tensors have no place in a SAM with a ViT \(image_encoder.backbone"):
        to_huggingface_sam(ur.build_light_sam(image_size=64).state_dict())
    with pytest.raises(ValueError, match="tensors have no place in a SAM with a ViT"):
        write_huggingface_sam(ur.build_light_sam(image_size=64), tmp_path / "light")
    assert not (tmp_path / "light").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"folder must be a folder, but .*file is a file"):
        write_huggingface_sam(ours, tmp_path / "file")


def test_files_that_lack_something_load_nothing(ours: ur.SAM, tmp_path: Path) -> None:
    whole = to_huggingface_sam(ours.state_dict())
    del whole[TIED]
    qkv = "vision_encoder.layers.0.attn.qkv.weight"
    save_file({name: tensor for name, tensor in whole.items() if name != qkv}, tmp_path / "lacking.safetensors")
    save_file({**whole, qkv: whole[qkv][:96].clone()}, tmp_path / "cut.safetensors")
    sam = ur.build_sam("tiny", image_size=64)
    before = [parameter.clone() for parameter in sam.parameters()]
    for name, told in (
        ("lacking", r"1 missing \(image_encoder.blocks.0.attn.qkv.weight\)"),
        ("cut", r"1 of another shape"),
    ):
        with pytest.raises(ValueError, match=told):
            ur.load_weights(sam, tmp_path / f"{name}.safetensors", layout="huggingface_sam")
    assert all(torch.equal(old, new) for old, new in zip(before, sam.parameters(), strict=True))


def test_a_wrong_layout_is_answered_with_the_right_one(ours: ur.SAM, tmp_path: Path) -> None:
    folder = write_huggingface_sam(ours, tmp_path)
    with pytest.raises(ValueError, match='Its names are those of layout="huggingface_sam"'):
        ur.load_weights(ur.build_sam("tiny", image_size=64), folder / "model.safetensors", layout="sam")
    torch.save(ours.state_dict(), tmp_path / "sam.pth")
    with pytest.raises(ValueError, match='Its names are those of layout="sam"'):
        ur.load_weights(ur.build_sam("tiny", image_size=64), tmp_path / "sam.pth", layout="huggingface_sam")
    assert LAYOUTS["huggingface_sam"].rename is not None


def test_the_folder_holds_plain_json_and_each_tensor_once(ours: ur.SAM, tmp_path: Path) -> None:
    folder = write_huggingface_sam(ours, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "sam"
    assert config["vision_config"]["global_attn_indexes"] == [1, 3]
    assert len(load_file(folder / "model.safetensors")) == len(ours.state_dict())
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_heads_of_any_depth_are_counted(depth: int) -> None:
    head = "mask_decoder.iou_prediction_head"
    state = {f"{head}.layers.{place}.weight": torch.full((1,), float(place)) for place in range(depth)}
    there = to_huggingface_sam(state)
    middle = {f"{head}.layers.{place}.weight" for place in range(depth - 2)}
    assert there.keys() == {f"{head}.proj_in.weight", f"{head}.proj_out.weight", *middle}
    assert there[f"{head}.proj_out.weight"].item() == depth - 1
    back = from_official("huggingface_sam", there)
    assert {name: tensor.item() for name, tensor in back.items()} == {
        name: tensor.item() for name, tensor in state.items()
    }
