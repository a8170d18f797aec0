"""SegVol: sentences for what is none, and its text encoder."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from prompted_volumes import SIZE

from ultrarefiner.networks import SegVolTextEncoder, build_segvol
from ultrarefiner.networks.segvol.text_encoder import organ_sentences

ONE = torch.tensor([[1]])


MIDDLE = torch.tensor([[[8.0, 8.0, 8.0]]])


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"size": "large"}, "size must be one of base, tiny, but it is 'large'"),
        ({"size": 3}, "size must be one of base, tiny, but it is 3"),
        ({"size": "tiny", "pe_order": "zyx"}, "pe_order must be one of legacy, aligned, or None .* but it is 'zyx'"),
        ({"size": "tiny", "volume_size": (32, 64)}, r"volume_size must be \(D, H, W\), multiples of the patch"),
        (
            {"size": "tiny", "volume_size": (30, 64, 64)},
            r"multiples of the patch \(4, 8, 8\), but it is \(30, 64, 64\)",
        ),
        ({"size": "tiny", "volume_size": (0, 64, 64)}, r"but it is \(0, 64, 64\)"),
        ({"size": "tiny", "volume_size": 32}, "but it is 32"),
    ],
)
def test_refused_sizes(arguments, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_segvol(**arguments)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("volume", "sentence"),
    [
        (torch.rand(1, *SIZE), r"D x H x W = 16 x 24 x 40, .* but it is of the shape \(1, 16, 24, 40\)"),
        (torch.rand(1, 1, 24, 16, 40), "crop, pad or resize it, and put slices first"),
        (torch.rand(1, 2, *SIZE), r"of the shape \(1, 2, 16, 24, 40\)"),
        (torch.rand(0, 1, *SIZE), "volume must be"),
        (np.zeros((1, 1, *SIZE)), "but it is a ndarray"),
        (torch.rand(1, 1, *SIZE).double(), "dtype of the network's weights, torch.float32, but its own is"),
        (torch.zeros(1, 1, *SIZE, dtype=torch.int16), "torch.int16"),
        (torch.full((1, 1, *SIZE), torch.nan), "volume must hold numbers, but it holds NaN or infinity"),
    ],
)
def test_refused_volumes(network, volume, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        network.encode(volume)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        ({}, "must be given points, boxes or text, but all of them are None"),
        ({"points": MIDDLE}, r"points must be \(coordinates, labels\), .* but it is a Tensor"),
        ({"points": (MIDDLE, None)}, "a tuple of two tensors, but it is a tuple"),
        ({"points": (MIDDLE[..., :2], ONE)}, r"coordinates \(b, n, 3\), .* they are \(1, 1, 2\)"),
        ({"points": (MIDDLE, torch.tensor([[1, 0]]))}, r"\(1, 1, 3\) and \(1, 2\) of torch.int64"),
        ({"points": (MIDDLE, ONE.float())}, "whole-number labels .* of torch.float32"),
        ({"points": (MIDDLE, 2 * ONE)}, r"labels must be 1 .* but they span \[2, 2\]"),
        ({"points": (MIDDLE * torch.nan, ONE)}, "coordinates must hold numbers, but it holds NaN"),
        (
            {"boxes": torch.zeros(1, 4)},
            r"boxes must be \(b, 6\): z0, y0, x0, z1, y1, x1, but it is of the shape \(1, 4",
        ),
        ({"boxes": torch.full((1, 6), torch.inf)}, "boxes must hold numbers, .* leave out volumes"),
        ({"boxes": [1, 2, 3, 4, 5, 6]}, "but it is a list"),
        (
            {"boxes": torch.tensor([[9, 8, 7, 4, 9, 9]])},
            r"boxes must be the first and then the last voxel inside the network's input of 16 x 24 x 40, but one is "
            r"\[9, 8, 7, 4, 9, 9\]; put the smaller index first",
        ),
        ({"boxes": torch.tensor([[0.0, 0, 0, 9, 9, 40]])}, "cut boxes at the volume's border"),
        ({"boxes": torch.tensor([[-1.0, 0, 0, 9, 9, 9]])}, r"but one is \[-1.0, 0.0"),
        (
            {"points": (torch.tensor([[[8.0, 24, 9]]]), ONE)},
            r"points must lie inside the network's input of 16 x 24 x 40, .* but one is at \[8.0, 24.0, 9.0\]; bring",
        ),
        ({"points": (-MIDDLE, 0 * ONE)}, r"one is at \[-8.0"),
        ({"points": (MIDDLE[:, :0], ONE[:, :0])}, r"points must be at least one a volume, but they are \(1, 0, 3\)"),
        ({"text": torch.full((1, 96), torch.nan)}, "text must hold numbers, but it holds NaN or infinity"),
        ({"text": torch.zeros(1, 512)}, r"text must be a floating-point embedding \(b, 96\), but it is of the shape"),
        ({"boxes": torch.ones(2, 6), "text": torch.zeros(3, 96)}, "2 for boxes, 3 for text and 1 for the embedding"),
        ({"boxes": torch.ones(0, 6)}, "prompts must have one batch size"),
    ],
)
def test_refused_prompts(network, embedding, prompts, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        network.decode(embedding[:1], **prompts)


def test_prompts_at_the_border_and_points_that_are_none_are_taken(network, embedding) -> None:
    ends = [float(side) - 0.5 for side in SIZE]
    network.decode(embedding[:1], boxes=torch.tensor([[-0.5] * 3 + ends]))
    network.decode(embedding[:1], boxes=torch.tensor([[4, 5, 6, 4, 5, 6]]), points=(torch.tensor([[ends]]), ONE))
    network.decode(embedding[:1], boxes=torch.ones(1, 6), points=(torch.full((1, 1, 3), 999), -ONE))


@pytest.mark.usefixtures("unhooked")
def test_refused_embeddings(network, embedding) -> None:
    with pytest.raises(ValueError, match="2 for boxes and 3 for the embedding"):
        network.decode(embedding, boxes=torch.ones(2, 6))
    with pytest.raises(ValueError, match=r"embedding must be \(b, 96, 4, 3, 5\), .* of the shape \(3, 96, 4, 3, 4\)"):
        network.decode(embedding[..., 1:], boxes=torch.ones(3, 6))


@pytest.mark.parametrize("name", ["monai.networks.nets", "transformers"])
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=f"needs the package {name}, which is not installed; run pip install"):
        build_segvol("tiny") if name.startswith("monai") else SegVolTextEncoder()


def test_the_sentences_of_organs() -> None:
    assert organ_sentences(["left kidney"]) == ["A computerized tomography of a left kidney."]


class FewWords:
    """A tokenizer of single letters, which ends and fills up as CLIP's does."""

    def __call__(self, sentences, *, padding, return_tensors):
        assert (padding, return_tensors) == (True, "pt")
        rows = [[98, *(ord(letter) % 90 for letter in sentence[-9:]), 99] for sentence in sentences]
        length = max(map(len, rows))
        return {
            "input_ids": torch.tensor([row + [99] * (length - len(row)) for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
        }


@torch.no_grad()
def test_words_become_embeddings() -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"vocabulary": 100, "channels": 16, "layers": 1, "heads": 2, "hidden": 16}
    text_encoder = SegVolTextEncoder(96, **small).eval()
    embeddings = text_encoder.encode(["liver", "spleen"], tokenizer=FewWords())
    assert embeddings.shape == (2, 96)
    assert not torch.allclose(embeddings[0], embeddings[1])
    torch.testing.assert_close(text_encoder.encode(["spleen"], tokenizer=FewWords()), embeddings[1:])
    parts = {".".join(name.split(".")[:2]) for name in text_encoder.state_dict()}
    assert parts == {"clip.embeddings", "clip.encoder", "clip.final_layer_norm", "dim_align.weight", "dim_align.bias"}
    network = build_segvol("tiny", volume_size=SIZE, text_encoder=text_encoder)
    assert network.text_encoder is text_encoder
    assert network.decode(torch.rand(1, 96, 4, 3, 5), text=embeddings).iou.shape == (2, 1)


def test_a_text_encoder_of_either_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 4 wraps the part that transformers 5 is; a stand-in for both."""

    class Inner(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.final_layer_norm = torch.nn.LayerNorm(width)

        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(pooler_output=self.final_layer_norm(input_ids[:, :1].float().expand(-1, 4)))

    class Shell(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.text_model = Inner(width)

    for model in (Inner, Shell):
        stand_in = SimpleNamespace(
            CLIPTextConfig=lambda **numbers: numbers["hidden_size"],
            CLIPTextModel=lambda width, model=model: model(width),
        )
        monkeypatch.setitem(sys.modules, "transformers", stand_in)
        encoder = SegVolTextEncoder(6, channels=4)
        names = {"clip.final_layer_norm.weight", "clip.final_layer_norm.bias", "dim_align.weight", "dim_align.bias"}
        assert set(encoder.state_dict()) == names
        assert encoder(torch.tensor([[7, 8]])).shape == (1, 6)
