"""Precisions, modes, memory formats and settings of PyTorch around saving and loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from saved_systems import Plain, images, stirred, tiny_refiner, tiny_sam, tiny_transunet
from torch import Tensor, nn

import ultrarefiner as ur
from ultrarefiner.systems import SAMRefiner, UltraRefiner


def pair() -> UltraRefiner:
    torch.manual_seed(0)
    return stirred(UltraRefiner(coarse=tiny_transunet(), refiner=tiny_refiner(), gate=ur.LearnedGate(4)))


@torch.no_grad()
def answer(model: nn.Module, seen: Tensor | None = None) -> Tensor:
    return model(images() if seen is None else seen).refined_logits


@pytest.mark.parametrize("built_in", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored_in", [None, torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_precision_of_model_and_file(
    built_in: torch.dtype, stored_in: torch.dtype | None, tmp_path: Path
) -> None:
    model = tiny_refiner().to(built_in)
    loaded = SAMRefiner.from_pretrained(model.save_pretrained(tmp_path, dtype=stored_in))
    kept = built_in if stored_in is None else stored_in
    in_memory = torch.float64 if kept == torch.float64 else torch.float32
    for name, value in model.state_dict().items():
        expected = value.to(kept).to(in_memory) if value.is_floating_point() else value
        assert loaded.state_dict()[name].dtype == expected.dtype
        assert torch.equal(loaded.state_dict()[name], expected), name


def test_a_double_model_answers_the_same_to_the_bit(tmp_path: Path) -> None:
    model = pair().double()
    loaded = UltraRefiner.from_pretrained(model.save_pretrained(tmp_path))
    assert torch.equal(answer(loaded, images().double()), answer(model, images().double()))


class Windowed(Plain):
    """A table from NumPy is in float64; all else is not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.from_numpy(np.hanning(7)))


def test_one_tensor_in_float64_makes_no_other_so(tmp_path: Path) -> None:
    model = stirred(UltraRefiner(coarse=Windowed(), refiner=tiny_refiner()))
    loaded = UltraRefiner.from_pretrained(model.save_pretrained(tmp_path), coarse=Windowed())
    assert loaded.coarse.window.dtype == torch.float64
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert torch.equal(answer(loaded), answer(model))


def test_neither_mode_nor_layout_of_what_is_saved_matters(tmp_path: Path) -> None:
    plain = pair().save_pretrained(tmp_path / "plain")
    model = pair().train().to(memory_format=torch.channels_last)
    for parameter in model.coarse.parameters():
        parameter.requires_grad_(False)
    other = model.save_pretrained(tmp_path / "other")
    assert model.training
    for name in ("config.json", "model.safetensors"):
        assert (plain / name).read_bytes() == (other / name).read_bytes()
    loaded = UltraRefiner.from_pretrained(other)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(answer(loaded), answer(model.eval()), atol=1e-4, rtol=1e-4)


def test_loading_neither_asks_nor_disturbs_any_randomness(tmp_path: Path) -> None:
    model = pair()
    model.save_pretrained(tmp_path)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # Python's own generator cannot be looked at here: beartype draws from it
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        found.append(answer(UltraRefiner.from_pretrained(tmp_path)))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], answer(model))


def test_what_is_loaded_is_on_its_device_and_can_train_whatever_is_set_around(tmp_path: Path) -> None:
    SAMRefiner(tiny_sam()).save_pretrained(tmp_path)
    with torch.device("meta"), torch.inference_mode():
        loaded = SAMRefiner.from_pretrained(tmp_path)
        moved = SAMRefiner.from_pretrained(tmp_path, device="meta")
    assert {value.device.type for value in loaded.state_dict().values()} == {"cpu"}
    assert {value.device.type for value in moved.state_dict().values()} == {"meta"}
    loaded(images(), images(2)).logits.sum().backward()
